"""Model folders on Hugging Face: `weight_path='owner/name'` or `'owner/name@revision'`.

`huggingface_hub` does it by its own means: its cache, its offline switch, its tokens, its endpoint.
Only the files of a model folder are fetched, none of which holds code.
"""

from __future__ import annotations

import re
from pathlib import Path

from ..errors import WeightsError
from ..version import VERSION
from ..weights.checkpoints import (
    CONFIG_FILE,
    MODEL_FILE,
    MODEL_FOLDER_FILES,
    SUFFIXES,
    is_model_folder,
)

# No path that says it is one (/a/b, ./a, ../a, ~/a), and not the name of a weights file.
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)


def is_repository(weight_path: str) -> bool:
    """Whether this is spelt as a repository; a local path of that spelling comes first."""
    return bool(REPOSITORY.fullmatch(weight_path)) and not weight_path.endswith(SUFFIXES)


def fetch_repository(weight_path: str) -> Path:
    """The model folder in a repository, from huggingface_hub's cache or downloaded into it.

    Raises:
        WeightsError: there is no such repository, no such revision, no model folder in it, no
            permission, or no network.
    """
    from huggingface_hub import errors, snapshot_download

    name, _, revision = weight_path.partition("@")
    cause: Exception | None = None
    try:
        folder = Path(
            snapshot_download(
                name,
                revision=revision or None,
                allow_patterns=list(MODEL_FOLDER_FILES),
                library_name="mdmmt",
                library_version=VERSION,
            )
        )
        if is_model_folder(folder):
            return folder
        reason = f"it holds no model folder ({CONFIG_FILE} and {MODEL_FILE})"
    except errors.GatedRepoError as error:
        cause, reason = error, "its owner must grant you access first, on its page there"
    except errors.RepositoryNotFoundError as error:
        cause, reason = error, "there is none, or it is private and your token is not for it"
    except errors.RevisionNotFoundError as error:
        cause, reason = error, f"it has no revision {revision!r}"
    except errors.LocalEntryNotFoundError as error:
        cause = error
        reason = "its cache lacks it, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
    except Exception as error:  # of its HTTP library, which is another one in each of its versions
        cause, reason = error, f"{type(error).__name__}: {error}"
    raise WeightsError(
        f"weight_path is {weight_path!r}, where there is no file and no folder, and as a Hugging "
        f"Face repository it cannot be had: {reason}"
    ) from cause
