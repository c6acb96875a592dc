"""The times of frames, by the rules of the ffmpeg program."""

from types import SimpleNamespace

import pytest

from mdmmt.media.clock import Clock, FalseTimes


def frame(pts: int | None, duration: int = 0, dts: int | None = None) -> SimpleNamespace:
    return SimpleNamespace(pts=pts, dts=dts, duration=duration, time=pts)


def times(clock: Clock, *frames: SimpleNamespace) -> list[int]:
    for one in frames:
        clock.set_time(one)
    return [one.pts for one in frames]


def test_set_time_counts_from_the_start():
    assert times(Clock(start=100), frame(100, 4), frame(104, 4), frame(110, 4)) == [0, 4, 10]


def test_set_time_follows_on_the_frame_before_if_the_time_is_unknown():
    assert times(Clock(0, duration=5), frame(None), frame(None), frame(12), frame(None)) == [
        *(0, 5, 12, 19)
    ]


def test_set_time_takes_the_decoding_time_if_there_is_no_other():
    assert times(Clock(0, duration=5), frame(None, dts=0), frame(None, dts=7)) == [0, 7]


def test_set_time_ignores_times_that_cannot_be_trusted():
    clock = Clock(start=50, duration=3, ignore_times=True)
    assert times(clock, frame(90), frame(50), frame(1000)) == [0, 3, 6]


def test_set_time_fills_in_the_duration():
    first, second, third = frame(0, 4), frame(4), frame(10)
    times(Clock(0), first, second, third)
    assert [one.duration for one in (first, second, third)] == [4, 4, 6]


@pytest.mark.parametrize(
    ("pts", "expected"), [(9, 9), (8, 10), (7, 10), (110, 110), (111, 10), (10**6, 10)]
)
def test_set_time_follows_small_jumps_alone(pts, expected):
    """A frame beyond the jumps that are allowed is on time, and so are those after it."""
    clock = Clock(0, duration=10, max_jumps=(1, 100))
    first, second, third = times(clock, frame(0, 10), frame(pts, 10), frame(pts + 10, 10))
    assert (first, second, third) == (0, expected, expected + 10)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([0, 1, 90, 2, 3], [0, 1, None, 2, 3]),
        ([90, 1, 2], [None, 1, 2]),
        ([0, 1, 90, 91, 92], [0, 1, 90, 91, 92]),
        ([0, 10, 20, 30], [0, 10, 20, 30]),
        ([0, 1, 90], [0, 1, 90]),
        ([0, None, 90, None, 2], [0, None, 90, None, 2]),
        ([0, 90, 80, 1], [0, None, None, 1]),
    ],
)
def test_false_times_are_those_before_an_earlier_time(given, expected):
    check = FalseTimes(last_s=0, max_step_s=1)
    frames = [one for pts in given for one in check.push(frame(pts))]
    assert [one.pts for one in [*frames, *check.finish()]] == expected
