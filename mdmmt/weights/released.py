"""The released weights in this user's cache, downloaded once from their authors' Google Drive.

The cache holds them as a model folder, which appears whole after both towers have taken all of the
file's tensors; then the downloaded file is deleted. The user's offline switch HF_HUB_OFFLINE holds
for this download too.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependency, WeightsError
from ..storage.paths import SAMPLE, WEIGHTS_FOLDER, WEIGHTS_VARIABLE, cache_folder
from ..towers.tokenizer import BERT_BASE_CASED_ID, has_tokenizer, load_tokenizer
from .folder import write_model_folder
from .layout import is_model_folder

if TYPE_CHECKING:
    from filelock import BaseFileLock

FILE_ID = "1dVDouFZFEDrjqhvtjNFP633y0JjHf4Ya"
FILE_NAME = "mdmmt_3mod.pth"
FILE_PAGE = f"https://drive.google.com/file/d/{FILE_ID}/view"  # for a person with a browser
FOLDER_NAME = Path(FILE_NAME).stem

logger = logging.getLogger(__name__)


def released_weights() -> Path:
    """The released model, as a model folder in this user's cache; downloads it if need be.

    The folder lacks the tokenizer if the Hugging Face hub could not be reached (see
    `add_tokenizer`); the video tower needs none.

    Raises:
        WeightsError: the cache lacks it and it cannot be downloaded; says why, and every other way.
        MissingDependency: the packages for the download are not installed.
    """
    folder = cache_folder() / FOLDER_NAME
    try:
        if not is_model_folder(folder):  # a cache that holds it may be read-only
            _fill(folder)
    except (WeightsError, OSError) as error:  # requests' errors are OSErrors
        raise WeightsError(
            "no weights: give weight_path (a .pth or .safetensors file, a model folder, "
            f"'owner/name' on Hugging Face, or '{SAMPLE}' for the small sample model), or "
            f"set {WEIGHTS_VARIABLE} to one of these, or put the released {FILE_NAME} into "
            f"{WEIGHTS_FOLDER}; the download from Google Drive failed ({error}); "
            f"`mdmmt download` resumes it, and a browser gets the file from {FILE_PAGE}"
        ) from error
    return folder


def add_tokenizer(folder: Path) -> None:
    """Put the tokenizer of bert-base-cased into the released model's folder, if it lacks one.

    Raises:
        WeightsError: the tokenizer cannot be fetched; the weights are there all the same.
    """
    if has_tokenizer(folder):
        return
    try:
        tokenizer = load_tokenizer(BERT_BASE_CASED_ID)
    except WeightsError as error:
        raise WeightsError(
            f"the weights are in {folder}, but the text tower's tokenizer is missing: {error}"
        ) from error
    with tempfile.TemporaryDirectory(prefix=f".{FOLDER_NAME}-", dir=folder.parent) as scratch:
        tokenizer.save_pretrained(scratch)
        for file in Path(scratch).iterdir():
            os.replace(file, folder / file.name)


def _fill(folder: Path) -> None:
    """Download and convert the weights, unless another process did so in the meantime."""
    try:  # here, as they are not needed once the cache is filled
        import filelock
        from huggingface_hub import constants

        from ..storage import google_drive
    except ImportError as error:
        raise MissingDependency("the download of the released weights", extra="download") from error
    if constants.HF_HUB_OFFLINE:
        raise WeightsError("HF_HUB_OFFLINE is set")
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with _one_process(filelock.FileLock(cache / f"{FOLDER_NAME}.lock")):
        if is_model_folder(folder):
            return
        # An incomplete folder, and scratch folders of conversions that were killed.
        for leftover in (folder, *cache.glob(f".{FOLDER_NAME}-*")):
            shutil.rmtree(leftover, ignore_errors=True)
        logger.info("downloading the released weights from %s to %s", FILE_PAGE, folder)
        file = google_drive.download(FILE_ID, FILE_NAME, cache)
        try:
            tokenizer = load_tokenizer(BERT_BASE_CASED_ID)
        except WeightsError:  # the text tower will raise it when it is needed
            tokenizer = None
        try:
            write_model_folder(file, folder, tokenizer, origin=f"{FILE_NAME} ({FILE_PAGE})")
        except WeightsError as error:
            file.unlink()
            raise WeightsError(
                f"the file that came is not the released model, and was deleted: {error}"
            ) from error
        file.unlink()


@contextmanager
def _one_process(lock: BaseFileLock) -> Iterator[None]:
    """Let one process at a time fill a cache; the others wait, and log that they do."""
    try:
        lock.acquire(timeout=0)
    except TimeoutError:
        logger.info("waiting for another process that downloads the weights")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
