"""The Towhee operator `video-text-embedding/mdmmt`: a thin adapter over `mdmmt.model`.

Towhee tries its registry before its operator folder and calls whichever it finds with the same
arguments, so the class and the factory have the same signature.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from towhee.operator import NNOperator
from towhee.runtime import register

from .errors import InputError
from .model import load

MODALITIES = ("text", "video")


@register(name="video-text-embedding/mdmmt")
class MDMMT(NNOperator):
    """Embeds texts or videos into the space of MDMMT (arXiv 2103.10699).

    Args:
        modality: 'text' or 'video'.
        weight_path, device, mmtvid_params, mmttxt_params: see `mdmmt.model.load`.

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
    ) -> None:
        super().__init__()
        if modality not in MODALITIES:
            raise InputError(f"modality is {modality!r}, expected 'text' or 'video'")
        self.modality = modality
        self.model = load(weight_path, device, mmtvid_params, mmttxt_params)

    def __call__(self, data: Any) -> np.ndarray:
        """Embed what `Model.encode_text` or `Model.encode_video` takes.

        Returns:
            (D,) float32 for one text or video, (N, D) for a list or a batched dict; D is 1536
            for the released model.
        """
        if self.modality == "text":
            return self.model.encode_text(data)
        return self.model.encode_video(data)


def mdmmt(
    modality: str,
    weight_path: str | None = None,
    device: str | None = None,
    mmtvid_params: Mapping[str, Any] | None = None,
    mmttxt_params: Mapping[str, Any] | None = None,
) -> MDMMT:
    """The operator, by the name Towhee looks for in its operator folder; see `MDMMT`."""
    return MDMMT(modality, weight_path, device, mmtvid_params, mmttxt_params)
