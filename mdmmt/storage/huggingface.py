"""Files from the Hugging Face hub: a repository is spelt 'owner/name' or 'owner/name@revision'.

`huggingface_hub` fetches them by its own means: its cache, its offline switch, tokens and endpoint.
The functions import it late, since that takes time, and a model in a local folder does without.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Sequence
from pathlib import Path

from ..errors import WeightsError, describe_error
from ..version import VERSION
from .checkpoint import SUFFIXES

# Neither a path that says so (/a/b, ./a, ../a, ~/a) nor the name of a weights file.
REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
# The last three parts of the path of a snapshot in the hub's cache. No name holds two hyphens.
SNAPSHOT = re.compile(r"models--([\w.-]+?--[\w.-]+)/snapshots/([0-9a-f]{40})", re.ASCII)

REACH_S = 4.0  # for the hub's first answer
OUT_OF_SERVICE = (500, 502, 503, 504)  # statuses that `huggingface_hub` tries again and again

logger = logging.getLogger(__name__)


def is_repository(path: str) -> bool:
    """Whether a path is spelt as a repository; callers look for a local path first."""
    return bool(REPOSITORY.fullmatch(path)) and not path.endswith(SUFFIXES)


def check_online() -> None:
    """Refuse a download where HF_HUB_OFFLINE forbids all of them.

    Raises:
        WeightsError: says so.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise WeightsError("HF_HUB_OFFLINE is set, which forbids downloads")


def file_url(repository: str, revision: str, name: str) -> str:
    """The address of a repository's file on the hub that HF_ENDPOINT names."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repository}/resolve/{revision}/{name}"


def cached_file(repository: str, names: Sequence[str]) -> Path | None:
    """The first of these files that the hub's cache holds; the hub is not asked."""
    from huggingface_hub import try_to_load_from_cache

    paths = (try_to_load_from_cache(repository, name) for name in names)
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def can_reach_hub() -> bool:
    """Whether the hub answers within `REACH_S`; never where HF_HUB_OFFLINE is set.

    `huggingface_hub` and `transformers` try each file of an unreachable hub anew, for a minute and
    more. So callers ask here first, and take the cache alone if it does not answer.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False
    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(get_session().head(constants.ENDPOINT, timeout=REACH_S).status_code)
        except Exception as error:  # see `fetch_snapshot`
            logger.info("the hub cannot be reached: %s", describe_error(error))

    # The time limit of a request holds for each address of the host, and for no name server.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_S)
    return bool(answers) and answers[0] not in OUT_OF_SERVICE


def fetch_snapshot(repository: str, patterns: Sequence[str]) -> Path:
    """The folder of a repository's files that match the patterns, from the cache or the hub.

    Raises:
        WeightsError: the files cannot be fetched; its message is the reason alone.
    """
    from huggingface_hub import snapshot_download

    name, revision = _parse(repository)
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            allow_patterns=list(patterns),
            local_files_only=not can_reach_hub(),
            library_name="mdmmt",
            library_version=VERSION,
        )
    except Exception as error:  # its HTTP library, and so its errors, differ between its versions
        raise WeightsError(_reason(error, revision)) from error
    return Path(folder)


def fetch_file(repository: str, names: Sequence[str]) -> Path:
    """The first of these files that a repository holds, from the cache or the hub.

    Raises:
        WeightsError: the file cannot be fetched; its message is the reason alone.
    """
    from huggingface_hub import errors, hf_hub_download

    name, revision = _parse(repository)
    offline = not can_reach_hub()
    for file in names:
        try:
            return Path(
                hf_hub_download(
                    name,
                    file,
                    revision=revision,
                    local_files_only=offline,
                    library_name="mdmmt",
                    library_version=VERSION,
                )
            )
        except errors.EntryNotFoundError as error:
            cause: Exception = error
        except Exception as error:  # see `fetch_snapshot`
            cause = error
            break
    raise WeightsError(_reason(cause, revision)) from cause


def upload_folder(folder: Path, repository: str, private: bool | None) -> str:
    """Upload all files of a folder in one commit; returns the address of the commit.

    The repository, and a branch that `@revision` names, are made if they are not there.

    Args:
        private: whether a new repository is private; None leaves that to the hub.

    Raises:
        WeightsError: the hub cannot be reached or refuses; its message is the reason alone.
    """
    from huggingface_hub import HfApi

    name, revision = _parse(repository)
    api = HfApi(library_name="mdmmt", library_version=VERSION)
    try:
        api.create_repo(name, private=private, exist_ok=True)
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        message = f"Upload a model with mdmmt {VERSION}"
        return str(
            api.upload_folder(
                repo_id=name, folder_path=folder, revision=revision, commit_message=message
            ).commit_url
        )
    except Exception as error:  # see `fetch_snapshot`
        raise WeightsError(_reason(error, revision)) from error


def repository_of(folder: Path) -> str | None:
    """The repository and commit of a folder that `fetch_snapshot` gave; None for another one."""
    match = SNAPSHOT.fullmatch("/".join(folder.parts[-3:]))
    return f"{match[1].replace('--', '/')}@{match[2]}" if match else None


def _parse(repository: str) -> tuple[str, str | None]:
    """Name and revision; None is the default revision."""
    name, _, revision = repository.partition("@")
    return name, revision or None


def _reason(error: Exception, revision: str | None) -> str:
    """Why a fetch failed, in one line."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        return "its owner must grant you access first, on its page there"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "the repository does not exist, or your token cannot read it"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}"
    if isinstance(error, errors.LocalEntryNotFoundError):
        return "its cache lacks it, and the hub cannot be reached (or HF_HUB_OFFLINE is set)"
    if isinstance(error, errors.EntryNotFoundError):
        return "it holds no such file"
    return f"{type(error).__name__}: {error}".splitlines()[0]
