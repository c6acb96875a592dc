"""Errors share a base, describe themselves to people, and warnings point to the caller's line."""

from __future__ import annotations

import os
import warnings

import pytest

from mdmmt.errors import (
    InputError,
    InputTypeError,
    MdmmtError,
    MissingDependency,
    WeightsError,
    describe_error,
    warn,
)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (InputError("x"), ValueError),
        (InputTypeError("x"), TypeError),
        (WeightsError("x"), ValueError),
        (MissingDependency("search", "index"), ImportError),
    ],
)
def test_errors_have_one_base_and_a_builtin_one(error, builtin):
    assert isinstance(error, MdmmtError)
    assert isinstance(error, builtin)


def test_missing_dependency_names_the_extra():
    assert str(MissingDependency("search", "index")).endswith("pip install 'mdmmt[index]'")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (InputError("text is empty"), "text is empty"),
        (FileNotFoundError(2, "No such file or directory", "a"), "'a': No such file or directory"),
        (OSError("a disk"), "a disk"),
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError(1, "Not permitted", ".a.part", None, "a.npy"), "'a.npy': Not permitted"),
        (KeyError("k"), "KeyError: 'k'"),
    ],
)
def test_describe_error_leaves_numbers_out_and_names_the_type_of_a_bug(error, words):
    assert describe_error(error) == words


def test_warn_points_to_the_line_outside_the_package(recwarn):
    warn("directly")
    (caught,) = recwarn
    assert caught.filename == __file__


def test_warn_ends_where_the_stack_ends():
    """A thread's first frame may lie in the package itself."""
    from threading import Thread

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        thread = Thread(target=warn, args=("in a thread",))
        thread.start()
        thread.join()
    assert [str(one.message) for one in caught] == ["in a thread"]


def test_warn_points_past_callbacks_to_the_callers_line(tmp_path, recwarn):
    """`os.walk` calls back into the package."""
    from mdmmt.batch.extract import find_videos

    (tmp_path / "a.mp4").touch()
    locked = tmp_path / "locked"
    locked.mkdir()

    def refuse(path):
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    scandir = os.scandir
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "scandir", refuse)
        find_videos([tmp_path])
    (caught,) = recwarn
    assert caught.filename == __file__
    assert "Permission denied" in str(caught.message)
