"""The Towhee operator `video-text-embedding/mdmmt`: a thin adapter over `mdmmt.model`.

Towhee takes the class from its registry, or the name `mdmmt` from its operator folder. Without
Towhee the class can be looked at, and nothing more.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from .errors import InputError, MissingDependency, WeightsError, describe_error
from .experts import ExpertPrecision
from .features.reader import split_list
from .items import as_items
from .media.limits import TIME_LIMIT_S
from .model import Precision, check_text, load
from .weights.onnx import export_onnx

MODALITIES = ("text", "video", "features")
ON_ERROR = ("raise", "none")
OF_ALL_INPUTS = (WeightsError, MissingDependency, MemoryError)  # errors that `on_error` keeps

NO_TOWHEE: ImportError | None = None  # why Towhee cannot be imported
if TYPE_CHECKING:
    NNOperator = object  # Towhee has no types, and a base class without types hides wrong names
else:
    try:
        from towhee.operator import NNOperator
    except ImportError as error:
        NO_TOWHEE, NNOperator = error, object

logger = logging.getLogger(__name__)


class MDMMT(NNOperator):
    """Embeds texts or videos into the space of MDMMT (arXiv 2103.10699).

        from towhee import ops, pipe
        embed = ops.video_text_embedding.mdmmt(modality='text', weight_path='sample')
        p = pipe.input('text').map('text', 'vec', embed).output('vec')
        p('A cyan star stands still.').get()

    Compare the embeddings of a text and a video by their inner product.

    Args:
        modality: 'text'; 'video'; or 'features', which runs the experts on a video and returns
            the dict that 'video' takes.
        weight_path: a weights file, a model folder, 'owner/name' on Hugging Face, or 'sample'.
            None finds the released model, or downloads it once.
        device: 'cpu', 'cuda' or 'cuda:1'. None takes CUDA if it is there, else the CPU.
        mmtvid_params, mmttxt_params: what differs from the released model, by the argument names
            of `MMTVID` and `MMTTXT` of towhee.models.
        experts: the experts to run on video files, such as ['CLIP']. None: all of the model's.
        segments: 'windows' or a list of (start_s, end_s): parts of each video that get a vector
            of their own. None: a video gets one vector.
        window_s, stride_s: length and step of the windows, in seconds.
        precision: 'exact', 'bfloat16', 'int8' or 'auto', the arithmetic of the towers.
        compiled: whether `torch.compile` fuses their operations, on CUDA.
        on_error: what an input that cannot be used becomes, after its error is logged: 'raise'
            raises it, 'none' returns None, or a row of NaN in a list, or no segments.
        time_limit_s: the seconds that one video file may take.
        experts_precision: 'exact', 'float16' or 'int8', the arithmetic of the experts.

    Raises:
        InputError, WeightsError: at construction, which Towhee does in `.output()`. The weights
            themselves are read at the first call.
        MissingDependency: Towhee is not installed. Or `experts_precision` is 'int8', and OpenVINO
            is not installed.
    """

    def __init__(
        self,
        modality: Literal["text", "video", "features"],
        weight_path: str | os.PathLike[str] | None = None,
        device: str | None = None,
        mmtvid_params: Mapping[str, Any] | None = None,
        mmttxt_params: Mapping[str, Any] | None = None,
        *,
        experts: Sequence[str] | None = None,
        segments: Literal["windows"] | Sequence[tuple[float, float]] | None = None,
        window_s: float | None = None,
        stride_s: float | None = None,
        precision: Precision = "exact",
        compiled: bool = False,
        on_error: Literal["raise", "none"] = "raise",
        time_limit_s: float = TIME_LIMIT_S,
        experts_precision: ExpertPrecision = "exact",
    ) -> None:
        """Prepare the operator; see the class for its arguments."""
        check_towhee("the operator")
        super().__init__()
        if modality not in MODALITIES:
            raise InputError(f"modality is {modality!r}, expected 'text', 'video' or 'features'")
        if segments is not None and modality != "video":
            raise InputError(f"segments need modality='video', not {modality!r}")
        if segments is None and (window_s, stride_s) != (None, None):
            raise InputError("window_s and stride_s are for segments='windows'")
        if on_error not in ON_ERROR:
            raise InputError(f"on_error is {on_error!r}, expected 'raise' or 'none'")
        self.modality = modality
        self.on_error = on_error
        self.segments, self.window_s, self.stride_s = segments, window_s, stride_s
        self.model = load(
            weight_path,
            device,
            mmtvid_params=mmtvid_params,
            mmttxt_params=mmttxt_params,
            experts=experts,
            precision=precision,
            compiled=compiled,
            time_limit_s=time_limit_s,
            experts_precision=experts_precision,
        )

    def __call__(self, data: Any) -> Any:
        """Embed the argument of `Model.encode_text` or `Model.encode_video`.

        Returns:
            (D,) float32 for one text or video, (N, D) for a list or a batched dict; D is 1536
            for the released model. With `segments`, a list of (start_s, end_s, vector), which
            Towhee's `flat_map` makes into rows. For 'features' a dict.
        """
        try:
            if self.on_error == "raise":
                return self._embed(data)
            data, several = self._split(data)
            return self._embed_each(data) if several else self._embed(data)
        except Exception as error:
            self._log(error)
            return None if self.segments is None else []

    def _log(self, error: Exception, where: str = "") -> None:
        """Log the error, and raise it unless `on_error` lets this input be left out."""
        logger.error("%s%s", where, describe_error(error))
        if self.on_error == "raise" or isinstance(error, OF_ALL_INPUTS):
            raise error

    def _split(self, data: Any) -> tuple[Any, bool]:
        """The data, as a list if it is several texts or videos, and whether it is."""
        if self.modality == "text":
            texts = as_items(data)
            return (texts, True) if texts else (data, False)
        if self.modality == "features" or self.segments is not None:
            return data, False
        videos, several = split_list(data)
        items = [item for _, item in videos]
        return (items, True) if several else (items[0], False)

    def _embed_each(self, items: Sequence[Any]) -> Any:
        """Embed the items of a list together; the bad ones become rows of NaN."""
        is_text = self.modality == "text"
        read: Callable[[Any], Any] = _read_text if is_text else self.model.read_tokens
        encode: Callable[[list[Any]], Any] = (
            self.model.encode_text if is_text else self.model.encode_tokens
        )
        shape = len(items), self.model.config.text.embedding_dim
        vectors = np.full(shape, np.nan, dtype=np.float32)
        good: dict[int, Any] = {}
        for index, item in enumerate(items):
            try:
                good[index] = read(item)
            except Exception as error:
                self._log(error, f"{self.modality} {index}: ")
        try:
            if good:
                vectors[list(good)] = encode(list(good.values()))
        except Exception:  # of one item, which is unknown, so each goes through alone
            for index, item in good.items():
                try:
                    vectors[index] = encode([item])[0]
                except Exception as error:
                    self._log(error, f"{self.modality} {index}: ")
        return vectors

    def _embed(self, data: Any) -> Any:
        if self.modality == "text":
            return self.model.encode_text(data)
        if self.modality == "features":
            return self.model.extract(data)
        if self.segments is None:
            return self.model.encode_video(data)
        vectors, spans_s = self.model.encode_segments(
            data, self.segments, self.window_s, self.stride_s
        )
        return [(*span, vector) for span, vector in zip(spans_s.tolist(), vectors, strict=True)]

    def setup_trainer(self, *args: Any, **kwargs: Any) -> None:
        """Refuse to train, as Towhee's `train` and `trainer` ask for."""
        raise InputError(
            "the operator does not train; `mdmmt train` does, and weight_path takes its run folder"
        )

    @property
    def supported_formats(self) -> list[str]:
        """The formats that `save_model` writes; Towhee's Triton builder asks for them."""
        return [] if self.modality == "features" else ["onnx"]

    def save_model(self, model_type: str, output_file: str | os.PathLike[str]) -> bool:
        """Write the tower as `mdmmt.weights.onnx` describes; `build_pipeline_model` calls this.

        Returns:
            True, since a failure raises.

        Raises:
            InputError: a format that is not in `supported_formats`.
        """
        if model_type not in self.supported_formats:
            raise InputError(
                f"the modality {self.modality!r} cannot be written as {model_type!r}, "
                f"expected one of {self.supported_formats}"
            )
        is_video = self.modality == "video"
        tower = self.model.read_video_tower() if is_video else self.model.read_text_tower()
        export_onnx(tower, output_file)
        return True


def check_towhee(feature: str) -> None:
    """Raise a MissingDependency if Towhee cannot be imported.

    Args:
        feature: what needs Towhee, as the subject of the message.
    """
    if NO_TOWHEE is not None:
        raise MissingDependency(
            f"{feature} runs in Towhee ({NO_TOWHEE}), so it", None
        ) from NO_TOWHEE


def _read_text(text: Any) -> str:
    check_text(text, "text")
    return str(text)


if NO_TOWHEE is None:
    from towhee.runtime import register

    register(name="video-text-embedding/mdmmt")(MDMMT)

mdmmt = MDMMT  # the name that Towhee looks for in its operator folder
