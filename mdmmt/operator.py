"""The Towhee operator `video-text-embedding/mdmmt`: a thin adapter over `mdmmt.model`.

Towhee tries its registry before its operator folder and calls whichever it finds with the same
arguments, so the class and the factory have the same signature.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from towhee.operator import NNOperator
from towhee.runtime import register

from .errors import InputError
from .model import load

MODALITIES = ("text", "video", "features")


@register(name="video-text-embedding/mdmmt")
class MDMMT(NNOperator):
    """Embeds texts or videos into the space of MDMMT (arXiv 2103.10699).

    Args:
        modality: 'text'; 'video'; or 'features', which only runs the experts on a video and gives
            the dict that 'video' takes.
        weight_path, device, mmtvid_params, mmttxt_params, experts, precision, compiled: see
            `mdmmt.model.load`.
        segments, window_s, stride_s: cut each video, see `mdmmt.model.Model.encode_segments`.
            None: each video is one.

    Raises:
        InputError, WeightsError: at construction, which Towhee does in `.output()`. The weights
            themselves are read at the first call.
    """

    def __init__(
        self,
        modality: str,
        weight_path: str | None = None,
        device: str | None = None,
        mmtvid_params: Mapping[str, Any] | None = None,
        mmttxt_params: Mapping[str, Any] | None = None,
        *,
        experts: Sequence[str] | None = None,
        segments: str | Sequence[tuple[float, float]] | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        precision: str = "exact",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        if modality not in MODALITIES:
            raise InputError(f"modality is {modality!r}, expected 'text', 'video' or 'features'")
        if segments is not None and modality != "video":
            raise InputError(f"segments are for the modality 'video', which is {modality!r}")
        if segments is None and (window_s, stride_s) != (None, None):
            raise InputError("window_s and stride_s are for segments='windows'")
        self.modality = modality
        self.segments, self.window_s, self.stride_s = segments, window_s, stride_s
        self.model = load(
            weight_path, device, mmtvid_params, mmttxt_params, experts, precision, compiled
        )

    def __call__(self, data: Any) -> Any:
        """Embed what `Model.encode_text` or `Model.encode_video` takes.

        Returns:
            (D,) float32 for one text or video, (N, D) for a list or a batched dict; D is 1536
            for the released model. With `segments`, for one video a list of (start_s, end_s,
            vector), which Towhee's `flat_map` makes a row each of. For 'features' a dict.
        """
        if self.modality == "text":
            return self.model.encode_text(data)
        if self.modality == "features":
            return self.model.extract(data)
        if self.segments is None:
            return self.model.encode_video(data)
        found = self.model.encode_segments(data, self.segments, self.window_s, self.stride_s)
        spans_s = found.spans_s.tolist()
        return [(*span, vec) for span, vec in zip(spans_s, found.vectors, strict=True)]

    @property
    def supported_formats(self) -> list[str]:
        """What `save_model` can write, as Towhee's Triton builder asks."""
        return [] if self.modality == "features" else ["onnx"]

    def save_model(self, model_type: str, output_file: str | os.PathLike[str]) -> bool:
        """Write the tower as `mdmmt.weights.onnx` describes it; called by `build_pipeline_model`.

        Returns:
            True: what could not be written is an error.

        Raises:
            InputError: another format than those of `supported_formats`.
        """
        if model_type not in self.supported_formats:
            raise InputError(
                f"the modality {self.modality!r} has no {model_type!r} to write, "
                f"expected one of {self.supported_formats}"
            )
        from .weights.onnx import export_onnx

        is_video = self.modality == "video"
        tower = self.model.read_video_tower() if is_video else self.model.read_text_tower()
        export_onnx(tower, output_file)
        return True


def mdmmt(
    modality: str,
    weight_path: str | None = None,
    device: str | None = None,
    mmtvid_params: Mapping[str, Any] | None = None,
    mmttxt_params: Mapping[str, Any] | None = None,
    *,
    experts: Sequence[str] | None = None,
    segments: str | Sequence[tuple[float, float]] | None = None,
    window_s: float | None = None,
    stride_s: float | None = None,
    precision: str = "exact",
    compiled: bool = False,
) -> MDMMT:
    """The operator, by the name Towhee looks for in its operator folder; see `MDMMT`."""
    return MDMMT(
        modality,
        weight_path,
        device,
        mmtvid_params,
        mmttxt_params,
        experts=experts,
        segments=segments,
        window_s=window_s,
        stride_s=stride_s,
        precision=precision,
        compiled=compiled,
    )
