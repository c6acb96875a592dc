"""The files that the released model needs, and their download into this user's cache.

That is the model itself, the networks of its experts and the tokenizer of BERT. A file gets its
name in the cache once its hash equals the one that its publisher states, and its network has
taken all of its tensors. Its hash is written beside it, as `sha256sum` writes it.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .config import MODEL, RELEASED, TOKENIZER
from .errors import MissingDependency, WeightsError, describe_error
from .experts import expert_classes
from .experts.pretrained import EXPERTS_NAME, PretrainedExpert
from .storage.files import atomic_file, check_folder, flush_to_disk, sha256_of
from .storage.huggingface import check_online, file_url
from .storage.paths import WEIGHTS_FOLDER, cache_folder
from .towers.tokenizer import BERT_BASE_CASED_ID, BERT_FOLDER, check_vocabulary, load_tokenizer
from .weights.layout import is_model_folder
from .weights.released import FILE_NAME, FILE_PAGE, fetch_released, released_folder

MODEL_SIZE = 600_000_000  # bytes, about
OPENMMLAB = "https://download.openmmlab.com/mmaction/recognition/csn"
VMZ = "https://github.com/bjuncek/VMZ/releases/download/test_models"
TORCHVGGISH = "https://github.com/harritaylor/torchvggish/releases/download/v0.1"
CLIP_ID, CLIP_REVISION = "openai/clip-vit-base-patch32", "3d74acf9a28c67741b2f4f2ea7635f0aaf6f0268"
BERT_REVISION = "cd5ef92a9fb2f889e972770a36d4ed042daf221e"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """A file and what its publisher says of it."""

    url: str
    size: int  # bytes, about
    sha256: str  # the hash or its beginning; empty if the publisher states none

    @property
    def name(self) -> str:
        """The name under which it is published and kept."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Need:
    """Something that the released model needs.

    Attributes:
        folder: where it is kept, below the cache.
        sources: the files of each place that has it, the preferred place first. The last file of a
            place is the one that is read to check them.
    """

    name: str
    folder: str
    sources: tuple[tuple[RemoteFile, ...], ...]


def needs() -> dict[str, Need]:
    """What the released model needs beside its own weights, by name."""
    vocabulary = RemoteFile(
        file_url(BERT_BASE_CASED_ID, BERT_REVISION, "vocab.txt"),
        213_450,
        "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02",
    )
    port = RemoteFile(
        f"{OPENMMLAB}/ircsn_from_scratch_r152_ig65m_20200807-771c4135.pth", 116_000_000, "771c4135"
    )
    original = RemoteFile(f"{VMZ}/irCSN_152_ig65m_from_scratch_f125286141.pth", 116_000_000, "")
    clip_config = RemoteFile(
        file_url(CLIP_ID, CLIP_REVISION, "config.json"),
        4_186,
        "b575ef3c36f2a057fa19e221650105052d61cc9c1a972ec15019c6261ec98770",
    )
    clip = RemoteFile(
        file_url(CLIP_ID, CLIP_REVISION, "pytorch_model.bin"),
        605_247_071,
        "a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
    )
    vggish = RemoteFile(f"{TORCHVGGISH}/vggish-10086976.pth", 288_600_000, "10086976")
    found = (
        Need(TOKENIZER, BERT_FOLDER, ((vocabulary,),)),
        Need("VIDEO", EXPERTS_NAME, ((port,), (original,))),
        Need("CLIP", f"{EXPERTS_NAME}/CLIP", ((clip_config, clip),)),
        Need("tf_vggish", EXPERTS_NAME, ((vggish,),)),
    )
    return {need.name: need for need in found}


def sources(name: str) -> tuple[tuple[RemoteFile, ...], ...]:
    """The files of each source of one of `DOWNLOADS`; see `Need`. That of the model is a page."""
    if name == MODEL:
        return ((RemoteFile(FILE_PAGE, MODEL_SIZE, ""),),)
    return needs()[name].sources


def find(name: str) -> Path | None:
    """The folder or weights file in the cache that is one of `mdmmt.config.DOWNLOADS`."""
    if name == MODEL:
        return released_folder() if is_model_folder(released_folder()) else None
    need = needs()[name]
    folder = cache_folder() / need.folder
    files = _complete_source(need)
    return folder / files[-1].name if files else None


def download(names: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Download what the cache lacks of some of `DOWNLOADS`. One failure does not stop the others.

    What the cache holds already is compared with its hash, and downloaded again if it is damaged.

    Returns:
        Name -> folder or weights file, and the failures, each a sentence that says what to do.

    Raises:
        WeightsError: downloads are forbidden, or there is no room for them.
        InputError: nothing may be written into the cache.
        MissingDependency: the packages for downloads are not installed.
    """
    try:
        from .storage import google_drive, http
    except ImportError as error:
        raise MissingDependency("the download of weights", extra="download") from error
    missing = [name for name in names if find(name) is None]
    if missing:
        check_online()
        home = cache_folder()
        check_folder(home)
        home.mkdir(parents=True, exist_ok=True)
        try:
            http.check_space(home, sum(map(_room, missing)), "the download")
        except OSError as error:
            raise WeightsError(f"{error}, or fetch less with --only") from error
    sources = [source for name in missing if name != MODEL for source in needs()[name].sources]
    urls = [file.url for source in sources for file in source]
    down = http.unreachable([*urls, *([google_drive.DRIVE_URL] if MODEL in missing else [])])
    found: dict[str, Path] = {}
    failures = []
    for name in names:
        try:
            if name == MODEL:
                found[name] = _download_model(down.get(google_drive.DRIVE_URL))
            else:
                found[name] = _download_need(needs()[name], down)
        except WeightsError as error:
            failures.append(str(error))
    return found, failures


def _complete_source(need: Need) -> tuple[RemoteFile, ...]:
    """The first source of which the cache holds all files; empty if there is none."""
    folder = cache_folder() / need.folder
    complete = (
        files for files in need.sources if all((folder / file.name).is_file() for file in files)
    )
    return next(complete, ())


def _room(name: str) -> int:
    """Bytes that a download still takes on the disk, about."""
    from .storage import http

    if name == MODEL:  # the file that comes, and the folder that is made of it
        return 2 * MODEL_SIZE - http.size_on_disk(FILE_NAME, cache_folder())
    need = needs()[name]
    folder = cache_folder() / need.folder
    return sum(
        file.size - http.size_on_disk(file.name, folder)
        for file in need.sources[0]
        if not (folder / file.name).is_file()
    )


def _download_model(down: str | None) -> Path:
    """Download the released model unless it is there.

    Args:
        down: why Google Drive cannot be reached, if it cannot.

    Raises:
        WeightsError: it is not there; says why, and what to do.
    """
    try:
        if down is not None:
            raise WeightsError(down)
        return fetch_released()
    except (WeightsError, OSError) as error:
        raise WeightsError(
            f"the model could not be downloaded from {FILE_PAGE} ({describe_error(error)}): run "
            f"`mdmmt download --only {MODEL}` again, which goes on where this ended, or get "
            f"{FILE_NAME} from there with a browser and put it into {WEIGHTS_FOLDER}"
        ) from error


def _download_need(need: Need, down: Mapping[str, str]) -> Path:
    """Download the files of one source unless they are there.

    Args:
        down: URL -> why its server cannot be reached.

    Raises:
        WeightsError: no source gives them; says why, and what to do.
    """
    from .storage import http

    folder = cache_folder() / need.folder
    reasons = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with http.one_process(cache_folder() / f"{need.name}.lock", need.name):
            complete = _complete_source(need)
            for files in (complete,) if complete else need.sources:
                try:
                    for file in files:
                        _fetch(need, file, down.get(file.url))
                    return folder / files[-1].name
                except (WeightsError, OSError) as error:
                    reasons.append(f"{file.url}: {describe_error(error)}")
    except OSError as error:
        reasons.append(describe_error(error))
    names = " or ".join(" and ".join(file.name for file in files) for files in need.sources)
    raise WeightsError(
        f"{need.name} could not be downloaded ({'; '.join(reasons)}): run `mdmmt download "
        f"--only {need.name}` again, which goes on where this ended, or get {names} by hand "
        f"and put it into {folder}"
    )


def _fetch(need: Need, file: RemoteFile, down: str | None) -> None:
    """Download and check one file, unless the cache holds it whole.

    Raises:
        WeightsError: its server cannot be reached, or what came is not the published file.
        OSError: it cannot be downloaded, or the disk fails.
    """
    from .storage import http

    target = cache_folder() / need.folder / file.name
    if target.is_file():
        if sha256_of(target).startswith(_recorded_hash(target) or file.sha256):
            return
        logger.info("%s is damaged, and is downloaded again", target)
    if down is not None:
        raise WeightsError(down)
    check_online()
    logger.info("downloading %s from %s", target, file.url)
    part = http.download(file.url, file.name, target.parent)
    sha256 = sha256_of(part)
    try:
        if not sha256.startswith(file.sha256):
            raise WeightsError(f"its SHA-256 is {sha256}, and its publisher states {file.sha256}")
        if any(file == files[-1] for files in need.sources):
            _check_content(need, part)
    except WeightsError as error:
        part.unlink()
        raise WeightsError(f"another file came, and was deleted: {error}") from error
    with atomic_file(_hash_file(target)) as record:
        record.write_text(f"{sha256}  {file.name}\n", encoding="utf-8")
    flush_to_disk(part)
    part.replace(target)
    flush_to_disk(target.parent)


def _check_content(need: Need, file: Path) -> None:
    """Read weights or a vocabulary as the model will.

    Raises:
        WeightsError: they cannot be read or do not fit.
    """
    if need.name == TOKENIZER:
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(file, Path(folder, "vocab.txt"))
            check_vocabulary(load_tokenizer(folder), RELEASED.text)
    else:
        expert = expert_classes([need.name])[need.name]
        assert issubclass(expert, PretrainedExpert)
        expert.read(file)


def _hash_file(file: Path) -> Path:
    """Where the hash of a downloaded file is written down, as `sha256sum` does."""
    return file.with_name(f"{file.name}.sha256")


def _recorded_hash(file: Path) -> str:
    """The hash of a downloaded file as it was written down; empty if it was not."""
    record = _hash_file(file)
    if not record.is_file():
        return ""
    return record.read_text(encoding="utf-8", errors="replace").partition(" ")[0]
