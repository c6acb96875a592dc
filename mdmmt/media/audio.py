"""Decoded sound -> windows of mono samples: the mean of the channels, resampled.

The samples follow each other as in the PCM that the ffmpeg program writes, without silence for
holes. Only the times of the windows tell where the holes are.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import cast

import av
import numpy as np
from numpy.typing import NDArray

from .resample import Resampler
from .specs import AudioSpec, Clip

PCM_FULL = 32768  # the 16-bit sample that stands for 1.0
PIECE = 16384  # samples that are averaged and resampled at once; a frame has some 1,000
MAX_DRIFT_S = 0.1  # between the times and the number of samples, as in FFmpeg's aresample


class SoundClock:
    """Maps seconds of sound, as the samples count them, to the seconds of the file."""

    def __init__(self, file_start_s: float, max_jump_s: float) -> None:
        """
        Args:
            file_start_s: the time in the file that becomes 0.
            max_jump_s: a frame that is further from its expected time is taken to be on time.
        """
        self._file_start_s = file_start_s
        self._max_jump_s = max_jump_s
        self._counted_s = Fraction(0)  # the sound before the next frame
        self._marks: list[tuple[float, float]] = []  # counted seconds, and the seconds of the file

    def note(self, frame: av.AudioFrame) -> None:
        """Take note of the time of the next frame."""
        if frame.time is not None:
            time_s, counted_s = max(0.0, frame.time - self._file_start_s), float(self._counted_s)
            drift_s = abs(time_s - self._expected_s(counted_s))
            if not self._marks or MAX_DRIFT_S < drift_s <= self._max_jump_s:
                self._marks.append((counted_s, time_s))
        self._counted_s += Fraction(frame.samples, frame.sample_rate)

    def time_s(self, counted_s: float) -> float:
        """The second of the file at which this second of the sound is heard.

        Calls must come in the order of time, since the marks before are forgotten.
        """
        while len(self._marks) > 1 and self._marks[1][0] <= counted_s:
            del self._marks[0]
        mark_s, time_s = self._marks[0] if self._marks else (0.0, 0.0)
        return time_s + (counted_s - mark_s)

    def _expected_s(self, counted_s: float) -> float:
        mark_s, time_s = self._marks[-1] if self._marks else (0.0, 0.0)
        return time_s + (counted_s - mark_s)


class WindowCutter:
    """Cuts decoded sound into the windows of one expert."""

    def __init__(self, name: str, spec: AudioSpec, clock: SoundClock | None = None) -> None:
        """
        Args:
            name: of the expert.
            spec: of its windows.
            clock: of this cutter alone. None: the first sample is at second 0.
        """
        self.name = name
        self._clock = clock
        self._last_start_s = 0.0
        self.spec = spec
        self._format: tuple[int, str, str] | None = None  # of the sound that these two take
        self._to_pcm: av.AudioResampler | None = None
        self._resampler: Resampler | None = None  # None: the sound has the rate of `spec`
        self._pcm: list[NDArray[np.int16]] = []  # what waits for the resampler, [samples, channels]
        self._samples = np.empty(0, dtype=np.float32)  # from the start of the next window on
        self._windows = 0

    def push(self, frame: av.AudioFrame) -> Iterator[Clip]:
        """Yield the windows that this frame completes."""
        if self._clock is not None:
            self._clock.note(frame)
        format_ = (frame.sample_rate, frame.layout.name, frame.format.name)
        if format_ != self._format:
            yield from self._flush()
            rate_hz, self._format = frame.sample_rate, format_
            # Packed samples, since PyAV crashes on more than seven planes.
            self._to_pcm = av.AudioResampler(format="s16", layout=frame.layout, rate=rate_hz)
            same_rate = rate_hz == self.spec.sample_rate_hz
            self._resampler = None if same_rate else Resampler(rate_hz, self.spec.sample_rate_hz)
        yield from self._cut(self._mono(frame))

    def finish(self) -> Iterator[Clip]:
        """Yield the windows that the resampler holds back; drop a last partial window."""
        yield from self._flush()

    def _flush(self) -> Iterator[Clip]:
        if self._to_pcm is not None:
            rest = self._mono(None)
            if self._resampler is not None:
                rest.append(self._resampler.finish())
            yield from self._cut(rest)

    def _mono(self, frame: av.AudioFrame | None) -> list[NDArray[np.float32]]:
        """Mono pieces at the wanted rate; None flushes FFmpeg's converter, and what waits."""
        assert self._to_pcm is not None
        for pcm in self._to_pcm.resample(frame):
            packed = cast("NDArray[np.int16]", pcm.to_ndarray())
            self._pcm.append(packed.reshape(pcm.samples, -1))
        if not self._pcm or (frame is not None and sum(map(len, self._pcm)) < PIECE):
            return []
        # The plain mean of the channels, not FFmpeg's weighted down-mix.
        mono = (np.concatenate(self._pcm).mean(axis=1) / PCM_FULL).astype(np.float32)
        self._pcm = []
        return [mono if self._resampler is None else self._resampler.push(mono)]

    def _cut(self, mono: list[NDArray[np.float32]]) -> Iterator[Clip]:
        self._samples = np.concatenate([self._samples, *mono])
        length = round(self.spec.window_s * self.spec.sample_rate_hz)
        hop = round(self.spec.hop_s * self.spec.sample_rate_hz)
        while len(self._samples) >= length:
            start_s = self._windows * self.spec.hop_s
            if self._clock is not None:  # times that go back would put windows out of order
                start_s = max(self._clock.time_s(start_s), self._last_start_s)
                self._last_start_s = start_s
            yield Clip(self.name, self._samples[:length], start_s, start_s + self.spec.hop_s)
            self._samples = self._samples[hop:]
            self._windows += 1
