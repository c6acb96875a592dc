"""MDMMT: text and video in one embedding space, as a Towhee operator and as a Python API.

    model = mdmmt.load("sample")
    model.similarity(model.encode_text(["a red ball"]), model.encode_video([features]))

Importing this package registers `ops.video_text_embedding.mdmmt` with Towhee.

Public are the names that `mdmmt`, `mdmmt.features`, `mdmmt.experts`, `mdmmt.search` and
`mdmmt.evaluation` export. Everything else may change without notice.
"""

from .errors import InputError, InputTypeError, MdmmtError, MissingDependency, WeightsError
from .model import Model, Segments, Similarity, load
from .operator import MDMMT, mdmmt
from .version import VERSION as __version__

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
