"""From a `weight_path` to a weights file or a model folder; the only file that knows all sources.

The sources are a path, the sample in this package, Hugging Face, the folder `weights/` beside the
operator, the variable MDMMT_WEIGHTS, and the released model in this user's cache.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import WeightsError
from ..storage.checkpoint import SUFFIXES
from ..storage.huggingface import fetch_snapshot, is_repository, repository_of
from ..storage.paths import SAMPLE, SAMPLE_FOLDER, WEIGHTS_FOLDER, WEIGHTS_VARIABLE
from .layout import CONFIG_FILE, MODEL_FILE, MODEL_FOLDER_FILES, is_model_folder
from .released import released_folder, released_weights


def find_weights(weight_path: str | os.PathLike[str] | None) -> Path:
    """Find the weights file or model folder that `weight_path` means.

    Args:
        weight_path: a file, a folder, `'sample'`, a repository on Hugging Face (`'owner/name'` or
            `'owner/name@revision'`), or None for the first of `weights/` beside the operator, the
            variable MDMMT_WEIGHTS, and the released model in this user's cache, into which it is
            downloaded if it is not there.

    Raises:
        WeightsError: there are no such weights; says what can be done.
        MissingDependency: a download needs packages that are not installed.
    """
    name = "weight_path"  # of the argument or variable, for the errors
    if weight_path is None:
        name, weight_path = default_source()
        if weight_path is None:
            return released_weights()
    if not isinstance(weight_path, str | os.PathLike):
        raise WeightsError(f"{name} is a {type(weight_path).__name__}, expected a path")
    if not str(weight_path).strip():
        raise WeightsError(f"{name} is {str(weight_path)!r}, expected a path or '{SAMPLE}'")
    if weight_path == SAMPLE:
        weight_path = SAMPLE_FOLDER
    path = Path(weight_path).expanduser()
    if path.is_dir():
        return _in_folder(path)
    if isinstance(weight_path, str) and not path.exists() and is_repository(weight_path):
        return _in_repository(name, weight_path)
    if not path.is_file():
        raise WeightsError(
            f"{name} is {str(path)!r}, which does not exist; expected a weights file, a model "
            f"folder, {SAMPLE!r}, or OWNER/NAME on Hugging Face"
        )
    if path.suffix not in SUFFIXES:
        raise WeightsError(f"{name} is {str(path)!r}, expected one of {', '.join(SUFFIXES)}")
    # The weights of a model folder cannot be read without its configuration.
    return path.parent if path.name == MODEL_FILE and is_model_folder(path.parent) else path


def default_source() -> tuple[str, str | Path | None]:
    """What `weight_path=None` means, and the name of the place or variable that says so.

    None means the released model in this user's cache, which may still have to be downloaded.
    """
    if WEIGHTS_FOLDER.is_dir() and _weights_files(WEIGHTS_FOLDER):
        return "weights/ beside the operator", WEIGHTS_FOLDER
    named = os.environ.get(WEIGHTS_VARIABLE)
    return (WEIGHTS_VARIABLE, named) if named else ("the cache", None)


def weight_path_of(found: Path) -> str:
    """A `weight_path` by which `find_weights` finds the same weights again, from any folder.

    Args:
        found: what `find_weights` has returned.
    """
    if found == SAMPLE_FOLDER:
        return SAMPLE
    return repository_of(found) or str(found.absolute())


def is_there(weight_path: str) -> bool:
    """Whether weights that `weight_path_of` has named can be had on this machine."""
    return weight_path == SAMPLE or Path(weight_path).exists() or is_repository(weight_path)


def default_is_there() -> bool:
    """Whether `weight_path=None` means weights that need no download."""
    return default_source()[1] is not None or is_model_folder(released_folder())


def _in_folder(folder: Path) -> Path:
    """A model folder itself, or the one weights file in another folder."""
    if is_model_folder(folder):
        return folder
    files = _weights_files(folder)
    if len(files) != 1:
        names = ", ".join(path.name for path in files) or "none"
        raise WeightsError(
            f"the folder {folder} is not a model folder ({CONFIG_FILE} and {MODEL_FILE}) and "
            f"should hold exactly one weights file; found: {names}"
        )
    return files[0]


def _in_repository(name: str, repository: str) -> Path:
    """The model folder in a repository on Hugging Face. No file that it fetches holds code."""
    try:
        folder = fetch_snapshot(repository, MODEL_FOLDER_FILES)
        if not is_model_folder(folder):
            raise WeightsError(f"it holds no model folder ({CONFIG_FILE} and {MODEL_FILE})")
    except WeightsError as error:
        raise WeightsError(
            f"{name} is {repository!r}, which does not exist, and as a Hugging "
            f"Face repository it cannot be had: {error}"
        ) from error
    return folder


def _weights_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
