"""MDMMT: text and video in one embedding space, as a Towhee operator and as a Python API.

    model = mdmmt.load("sample")
    model.similarity(model.encode_text(["a red ball"]), model.encode_video([features]))

Importing this package registers `ops.video_text_embedding.mdmmt` with Towhee.
"""

from .errors import InputError, InputTypeError, WeightsError
from .model import Model, Similarity, load
from .operator import MDMMT, mdmmt
from .version import VERSION as __version__

__all__ = [
    "MDMMT",
    "InputError",
    "InputTypeError",
    "Model",
    "Similarity",
    "WeightsError",
    "__version__",
    "load",
    "mdmmt",
]
