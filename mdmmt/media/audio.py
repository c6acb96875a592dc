"""Decoded sound -> windows of mono samples: the mean of the channels, resampled."""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np
from numpy.typing import NDArray

from .resample import Resampler
from .specs import AudioSpec, Clip

PCM_FULL = 32768  # the 16-bit sample that stands for 1.0


class WindowCutter:
    """Cuts decoded sound into the windows of one expert."""

    def __init__(self, name: str, spec: AudioSpec) -> None:
        self.name = name
        self.spec = spec
        self._format: tuple[int, str, str] | None = None  # of the sound that these two take
        self._to_pcm: av.AudioResampler | None = None
        self._resampler: Resampler | None = None  # None: the sound has the rate of `spec`
        self._samples = np.empty(0, dtype=np.float32)  # from the start of the next window on
        self._windows = 0

    def push(self, frame: av.AudioFrame) -> Iterator[Clip]:
        """Yield the windows that this frame completes."""
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
        """Mono pieces at the wanted rate; None flushes FFmpeg's converter."""
        assert self._to_pcm is not None
        mono = []
        for pcm in self._to_pcm.resample(frame):
            # The plain mean of the channels, not FFmpeg's weighted down-mix.
            channels = pcm.to_ndarray().reshape(pcm.samples, -1)
            mono.append((channels.mean(axis=1) / PCM_FULL).astype(np.float32))
        return mono if self._resampler is None else [self._resampler.push(piece) for piece in mono]

    def _cut(self, mono: list[NDArray[np.float32]]) -> Iterator[Clip]:
        self._samples = np.concatenate([self._samples, *mono])
        length = round(self.spec.window_s * self.spec.sample_rate_hz)
        hop = round(self.spec.hop_s * self.spec.sample_rate_hz)
        while len(self._samples) >= length:
            start_s = self._windows * self.spec.hop_s
            yield Clip(self.name, self._samples[:length], start_s, start_s + self.spec.hop_s)
            self._samples = self._samples[hop:]
            self._windows += 1
