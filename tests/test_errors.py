"""Errors share a base, describe themselves to people, and warnings point to the caller's line."""

from __future__ import annotations

import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
from media import flat, write_video

import mdmmt
from mdmmt.errors import (
    InputError,
    InputTypeError,
    MdmmtError,
    MissingDependency,
    WeightsError,
    collect_warnings,
    describe_error,
    warn,
)
from mdmmt.features import extract

# Each call stands on a line of its own, to which its warning must point.
MODEL_CALLS = {
    "encode_video": lambda model, video: model.encode_video(video),
    "encode_segments": lambda model, video: model.encode_segments(video, [(0, 9)]),
    "extract": lambda model, video: model.extract(video),
    "read_tokens": lambda model, video: model.read_tokens(video),
}
OPERATOR_CALLS = {
    "video": lambda operator, video: operator(video),
    "features": lambda operator, video: operator(video),
    "segments": lambda operator, video: operator(video),
}
OPERATOR_OPTIONS = {
    "video": {"modality": "video"},
    "features": {"modality": "features"},
    "segments": {"modality": "video", "segments": [(0, 9)]},
}


def test_warnings_of_one_thread_are_collected_in_place_of_being_emitted():
    def work(number):
        with collect_warnings() as messages:
            warn(f"of {number}")
            barrier.wait(10)
            warn(f"more of {number}")
        return messages

    barrier = threading.Barrier(2)
    with warnings.catch_warnings(), ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("error")
        assert list(pool.map(work, "ab")) == [["of a", "more of a"], ["of b", "more of b"]]
        with pytest.raises(UserWarning, match="of all"):
            warn("of all")


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
    from mdmmt.features.listing import find_videos

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


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A film that is too long for the sample model, half of its file, its features; a picture."""
    folder = tmp_path_factory.mktemp("videos")
    long = write_video(folder / "long.mkv", flat([(37 * i) % 90 for i in range(200)]), 10)
    damaged = folder / "damaged.mkv"
    damaged.write_bytes(long.read_bytes()[: long.stat().st_size // 2])
    still = write_video(folder / "still.mkv", flat([90]))
    features = extract(long, ["frame", "motion"])
    return {"path": long, "features": features, "damaged": damaged, "still": still}


WORDS = {"damaged": "is damaged", "still": "is a still picture"}  # else the film is too long
TOO_LONG = "it embeds the seconds 0 to"


def check_lines(caught, call, words):
    """Every warning points to the line of the call, and one of them has these words."""
    line = (__file__, call.__code__.co_firstlineno)
    assert {(one.filename, one.lineno) for one in caught} == {line}
    assert any(words in str(one.message) for one in caught)


@pytest.mark.parametrize("video", ["path", "features", "damaged", "still"])
@pytest.mark.parametrize("call", MODEL_CALLS)
def test_warn_points_to_the_line_that_calls_the_model(call, video, videos, recwarn):
    call = MODEL_CALLS[call]
    call(mdmmt.load("sample", "cpu"), videos[video])
    check_lines(recwarn, call, WORDS.get(video, TOO_LONG))


def test_warn_points_to_the_line_that_passes_a_list_of_paths(videos, recwarn):
    call = MODEL_CALLS["encode_video"]
    call(mdmmt.load("sample", "cpu"), [videos["path"], videos["damaged"]])
    check_lines(recwarn, call, TOO_LONG)
    check_lines(recwarn, call, "is damaged")


@pytest.mark.parametrize("video", ["path", "features", "damaged", "still"])
@pytest.mark.parametrize("call", OPERATOR_CALLS)
def test_warn_points_to_the_line_that_calls_the_operator(call, video, videos, recwarn):
    operator = mdmmt.MDMMT(weight_path="sample", device="cpu", **OPERATOR_OPTIONS[call])
    call = OPERATOR_CALLS[call]
    call(operator, videos[video])
    check_lines(recwarn, call, WORDS.get(video, TOO_LONG))


def test_warn_points_to_the_line_that_extracts_from_a_damaged_file(videos, recwarn):
    call = lambda path: extract(path, ["frame"])  # noqa: E731, for its line
    call(videos["damaged"])
    check_lines(recwarn, call, "is damaged")
