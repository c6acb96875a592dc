"""MDMMT: text and video in one embedding space, as a Towhee operator and as a Python API.

    model = mdmmt.load("sample")
    model.similarity(model.encode_text(["a red ball"]), model.encode_video([features]))

Importing this package registers `ops.video_text_embedding.mdmmt` with Towhee. torch and Towhee are
imported when a name that needs them is first used.

Public are the names that `mdmmt`, `mdmmt.features`, `mdmmt.experts`, `mdmmt.search`,
`mdmmt.evaluation` and `mdmmt.training` export. Everything else may change without notice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import lazy, registration
from .errors import InputError, InputTypeError, MdmmtError, MissingDependency, WeightsError
from .version import VERSION as __version__

if TYPE_CHECKING:
    from . import evaluation, experts, features, search, training  # noqa: F401
    from .model import Model, Segments, Similarity, load
    from .operator import MDMMT, mdmmt
else:
    __getattr__, __dir__ = lazy.names_of(
        __name__,
        {
            ".evaluation": (),
            ".experts": (),
            ".features": (),
            ".model": ("Model", "Segments", "Similarity", "load"),
            ".operator": ("MDMMT", "mdmmt"),
            ".search": (),
            ".training": (),
        },
    )

__all__ = [
    "MDMMT",
    "InputError",
    "InputTypeError",
    "MdmmtError",
    "MissingDependency",
    "Model",
    "Segments",
    "Similarity",
    "WeightsError",
    "__version__",
    "load",
    "mdmmt",
]

registration.register_with_towhee()
