"""The released weights in this user's cache, downloaded once from their authors' Google Drive.

The cache holds them as a model folder, which appears whole after both towers have taken all of the
file's tensors; then the downloaded file is deleted. The user's offline switch HF_HUB_OFFLINE holds
for this download too.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from ..errors import MissingDependency, WeightsError
from ..storage.huggingface import check_online
from ..storage.paths import SAMPLE, WEIGHTS_FOLDER, WEIGHTS_VARIABLE, cache_folder
from ..towers.tokenizer import bert_tokenizer_source, load_tokenizer
from .folder import write_model_folder
from .layout import is_model_folder

FILE_ID = "1dVDouFZFEDrjqhvtjNFP633y0JjHf4Ya"
FILE_NAME = "mdmmt_3mod.pth"
FILE_PAGE = f"https://drive.google.com/file/d/{FILE_ID}/view"  # for a person with a browser
FOLDER_NAME = Path(FILE_NAME).stem

logger = logging.getLogger(__name__)


def released_weights() -> Path:
    """The released model for `weight_path=None`; see `fetch_released`.

    Raises:
        WeightsError: the cache lacks it and it cannot be downloaded; says why, and every other way.
        MissingDependency: the packages for the download are not installed.
    """
    try:
        return fetch_released()
    except (WeightsError, OSError) as error:  # requests' errors are OSErrors
        raise WeightsError(
            "no weights: give weight_path (a .pth or .safetensors file, a model folder, "
            f"'owner/name' on Hugging Face, or '{SAMPLE}' for the small sample model), or "
            f"set {WEIGHTS_VARIABLE} to one of these, or put the released {FILE_NAME} into "
            f"{WEIGHTS_FOLDER}; the download from Google Drive failed ({error}); "
            f"`mdmmt download` resumes it, and a browser gets the file from {FILE_PAGE}"
        ) from error


def fetch_released() -> Path:
    """The released model, as a model folder in this user's cache; downloads it if need be.

    The folder lacks the tokenizer if that was not at hand; the video tower needs none.

    Raises:
        WeightsError: the download is forbidden, or another file came.
        OSError: the file cannot be downloaded or written.
        MissingDependency: the packages for the download are not installed.
    """
    folder = released_folder()
    if not is_model_folder(folder):  # a cache that holds it may be read-only
        _fill(folder)
    return folder


def released_folder() -> Path:
    """Where this user's cache holds the released model, if it does."""
    return cache_folder() / FOLDER_NAME


def _fill(folder: Path) -> None:
    """Download and convert the weights, unless another process did so in the meantime."""
    try:  # here, as they are not needed once the cache is filled
        from ..storage import google_drive, http
    except ImportError as error:
        raise MissingDependency("the download of the released weights", extra="download") from error
    check_online()
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with http.one_process(cache / f"{FOLDER_NAME}.lock", "the released weights"):
        if is_model_folder(folder):
            return
        shutil.rmtree(folder, ignore_errors=True)  # it is incomplete
        logger.info("downloading the released weights from %s to %s", FILE_PAGE, folder)
        file = google_drive.download(FILE_ID, FILE_NAME, cache)
        http.check_space(cache, file.stat().st_size, f"the model folder made of {FILE_NAME}")
        try:
            tokenizer = load_tokenizer(bert_tokenizer_source())
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
