"""The model as a caller sees it: text and video in, embeddings and similarities out.

`load` finds the weights and reads the configuration. Each tower is built and its weights are read
once, when the tower is first needed, so a process that embeds video never reads the text tower.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from tqdm import tqdm

from .background import in_caller
from .config import ExpertPrecision, ModelConfig
from .device import resolve_device
from .errors import InputError, InputTypeError, WeightsError
from .experts.base import check_precision
from .fast import FastTextTower, FastVideoTower, resolve_precision
from .features.reader import (
    Span,
    VideoInput,
    VideoReader,
    check_experts,
    split_list,
)
from .features.tokens import InputDict, VideoTokens
from .items import as_items
from .media.limits import TIME_LIMIT_S, check_time_limit
from .storage.checkpoint import load_file, load_strict
from .storage.huggingface import is_repository, upload_folder
from .storage.text import counted, is_unicode
from .towers.text import TextTower
from .towers.tokenizer import Tokenizer, check_vocabulary, load_tokenizer, tokenizer_source
from .towers.video import VideoTower
from .upstream import read_bert_config, with_bert_of, with_mmttxt_params, with_mmtvid_params
from .weights.folder import check_replaceable, write_towers
from .weights.layout import TEXT_PREFIXES, VIDEO_PREFIXES, read_config, read_tower, weights_file
from .weights.locate import find_weights

logger = logging.getLogger(__name__)

Precision = Literal["exact", "bfloat16", "int8", "auto"]
BATCH_SIZE = 1024  # enough to keep a GPU busy; on a processor the towers cut it further


class Segments(NamedTuple):
    """Embeddings of n segments of one video."""

    vectors: NDArray[np.float32]  # (n, D)
    spans_s: NDArray[np.float64]  # (n, 2), start and end of each segment in seconds

    def __repr__(self) -> str:
        vectors, spans_s = map(np.asarray, self)
        times = f", from {spans_s.min():g} to {spans_s.max():g} s" if spans_s.size else ""
        return f"Segments(vectors {vectors.shape} {vectors.dtype}{times})"


class Similarity(NamedTuple):
    """The similarity of t texts and v videos."""

    score: NDArray[np.float32]  # (t, v), inner products
    by_expert: NDArray[np.float32]  # (t, v, m), each expert's share; they add up to the score
    experts: tuple[str, ...]  # the m names

    def __repr__(self) -> str:
        texts, videos = np.shape(self.score)
        size = f"{counted(texts, 'text')} x {counted(videos, 'video')}"
        return f"Similarity({size}, experts {', '.join(self.experts)})"


class Model:
    """MDMMT with both its towers, made by `load`. Threads may share a model.

    `copy.deepcopy` gives the model itself. A pickle holds the path and the options, and the
    process that reads it loads the weights from there.
    """

    def __init__(
        self,
        path: Path,
        config: ModelConfig,
        device: torch.device,
        txt_bert: str | os.PathLike[str] | nn.Module | None = None,
        tokenizer: Any = None,
        experts: Sequence[str] | None = None,
        precision: str = "exact",
        compiled: bool = False,
        time_limit_s: float = TIME_LIMIT_S,
        experts_precision: ExpertPrecision = "exact",
    ) -> None:
        self.path = path
        self.config = config
        self.device = device
        self.precision = precision
        self.compiled = compiled
        names = [expert.name for expert in config.video.experts]
        self.reader = VideoReader(
            config.video.experts,
            names if experts is None else experts,
            device,
            time_limit_s,
            experts_precision,
        )
        self._txt_bert = txt_bert
        self._given_tokenizer = tokenizer
        self._lock = threading.Lock()
        self._tokenizer: Tokenizer | None = None
        self._video_encoder: FastVideoTower | None = None
        self._text_encoder: FastTextTower | None = None

    def __repr__(self) -> str:
        device = str(self.device)
        return (
            f"Model({str(self.path)!r}, dim={self.dim}, experts={list(self.expert_names)}, "
            f"device={device!r}, precision={self.precision!r})"
        )

    def __deepcopy__(self, memo: Any) -> Model:
        return self

    def __reduce__(self) -> tuple[type[Model], tuple[Any, ...]]:
        if isinstance(self._txt_bert, nn.Module):
            raise InputTypeError(
                "this model cannot be pickled, since txt_bert is a module; expected the folder or "
                "hub id of its weights, or a model of its own in each process"
            )
        arguments = (
            self.path.absolute(),
            self.config,
            self.device,
            _absolute(self._txt_bert),
            _absolute(self._given_tokenizer),
            self.reader.names,
            self.precision,
            self.compiled,
            self.reader.time_limit_s,
            self.reader.precision,
        )
        return type(self), arguments

    def encode_text(
        self,
        text: str | Iterable[str],
        batch_size: int = BATCH_SIZE,
        *,
        show_progress: bool = False,
    ) -> NDArray[np.float32]:
        """Embed texts.

        The tower reads the first `max_length` tokens of each text, 30 for the released model. A
        longer text gives a warning.

        Args:
            text: one text, or N of them: a list, a generator, a column of pandas, an array.
            batch_size: the most texts that the tower computes at once.
            show_progress: whether to draw a progress bar of the texts on stderr.

        Returns:
            (D,) float32 for one text, (N, D) for several; D is 1536 for the released model. The
            norm of an embedding is at most 1.

        Raises:
            InputError, InputTypeError: not a text, an empty or blank one, or an empty list.
        """
        single = isinstance(text, str)
        texts: list[Any] = [text] if single else _text_list(text)
        for index, one in enumerate(texts):
            check_text(one, "text" if single else f"text {index}")
        encoder = self.text_encoder  # before the tokenizer, which may have to be downloaded
        ids = self.tokenizer(texts)
        _check_batch_size(batch_size)
        with tqdm(total=len(ids), unit=" texts", disable=not show_progress) as bar:
            vectors = encoder(ids, batch_size, bar.update).cpu().numpy()
        return vectors[0] if single else vectors

    def encode_video(
        self,
        video: VideoInput | Iterable[VideoInput],
        batch_size: int = BATCH_SIZE,
        *,
        start_s: float = 0.0,
        end_s: float | None = None,
        show_progress: bool = False,
    ) -> NDArray[np.float32]:
        """Embed videos.

        The model was trained on at most 30 tokens of each expert. A longer video gives the
        embedding of its beginning and a warning; `encode_segments` embeds all of it.

        Args:
            video: one video, or N of them: a list, a generator of paths or dicts, a column of
                pandas, an array of paths, or a folder, of which
                `mdmmt.features.find_videos_or_features` lists the files. A video is
                - a dict of expert features (see `mdmmt.features.tokens`), which with a leading
                  axis b on its arrays is a batch of b videos and must not be in a list;
                - `mdmmt.features.VideoFeatures`;
                - the path of a video file, if this package can run the model's experts, or of a
                  file that `mdmmt extract` has written;
                - the frames (list or iterator) that one of Towhee's video decoders yields.
            batch_size: the most videos that the tower computes at once.
            start_s, end_s: the part of the video to embed, in seconds; None is its end.
            show_progress: whether to draw a progress bar of the videos that are read on stderr.

        Returns:
            (D,) float32 for one video, (b, D) for a batched dict, (N, D) for several; D is 1536
            for the released model. The norm of an embedding is sqrt(number of experts).

        Raises:
            InputError, InputTypeError: the message names the expert, the index in the list, the
                given and the expected.
        """
        videos, several = split_list(video)
        tokens: list[VideoTokens] = []
        for where, one in tqdm(videos, unit=" videos", disable=not show_progress):
            rows, is_batch = self.reader.tokens(one, where, start_s, end_s)
            if is_batch and several:
                raise InputError(f"{where} has a batch axis, expected un-batched dicts in a list")
            tokens += rows
        vectors = self.encode_tokens(tokens, batch_size)
        return vectors if several or is_batch else vectors[0]

    def encode_segments(
        self,
        video: VideoInput,
        segments: Literal["windows"] | Iterable[Span] = "windows",
        window_s: float | None = None,
        stride_s: float | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> Segments:
        """Embed parts of one video, on which the experts run once.

        Args:
            video: the path of a video file or of a file that `mdmmt extract` has written,
                `mdmmt.features.VideoFeatures`, or the frames of one of Towhee's video decoders.
            segments: 'windows', which cover all of the video, or a list of (start_s, end_s), or an
                array (n, 2).
            window_s: the length of a window in seconds. None: the longest in which every expert
                stays within the tokens that the model was trained on, 28.8 for the released model.
            stride_s: seconds from one window's start to the next one's. None: one window.
            batch_size: the most segments that the tower computes at once.

        Raises:
            InputError, InputTypeError: see `encode_video`; or a segment outside the video.
        """
        parts = self.reader.segment_tokens(video, segments, window_s, stride_s)
        vectors = self.encode_tokens([tokens for _, tokens in parts], batch_size)
        return Segments(vectors, np.array([span for span, _ in parts], dtype=float))

    def extract(
        self, video: VideoInput, *, start_s: float = 0.0, end_s: float | None = None
    ) -> InputDict:
        """Run the model's experts on one video.

        Args:
            video, start_s, end_s: see `encode_video`.

        Returns:
            the dict of expert features that `encode_video` takes.

        Raises:
            InputError: a file that cannot be read, or an expert that this package cannot run.
            WeightsError: the weights of a pretrained expert are missing.
        """
        return self.reader.input_dict(video, start_s, end_s)

    def read_tokens(self, video: VideoInput) -> VideoTokens:
        """Read the tokens of one video, for `encode_tokens`; see `encode_video`."""
        (tokens,), _ = self.reader.tokens(video, "video")
        return tokens

    def encode_tokens(
        self, videos: Sequence[VideoTokens], batch_size: int = BATCH_SIZE
    ) -> NDArray[np.float32]:
        """Embed the tokens of N videos, from `read_tokens` -> (N, D) float32."""
        _check_batch_size(batch_size)
        return in_caller(lambda: self.video_encoder(videos, batch_size).cpu().numpy())

    @property
    def dim(self) -> int:
        """The numbers D of an embedding, 1536 for the released model."""
        return self.config.text.embedding_dim

    @property
    def max_seconds(self) -> float:
        """The length of video that the model takes whole, 28.8 for the released model.

        Of a longer video, `encode_video` embeds the beginning, and warns.

        Raises:
            InputError: this package cannot run the model's experts, so it does not know the length
                of a token.
        """
        return self.window_lengths(None, None)[0]

    @property
    def expert_names(self) -> tuple[str, ...]:
        """The experts that are run on videos."""
        return self.reader.names

    def window_lengths(self, window_s: float | None, stride_s: float | None) -> tuple[float, float]:
        """The window and stride in seconds that `encode_segments` uses for these arguments."""
        return self.reader.window_lengths(window_s, stride_s)

    def similarity(
        self,
        text: NDArray[Any] | Tensor | str | Iterable[str],
        video: NDArray[Any] | Tensor | VideoInput | Iterable[VideoInput],
    ) -> Similarity:
        """Inner products of t texts and v videos, and the share of each expert.

        Args:
            text: embeddings (D,) or (t, D) of NumPy or PyTorch, or an argument of `encode_text`.
            video: embeddings (D,) or (v, D), or an argument of `encode_video`.

        Raises:
            InputError: embeddings of another width, or towers with different experts.
        """
        config = self.config.text
        names, width = config.experts, config.same_dim
        if names != tuple(e.name for e in self.config.video.experts):
            raise InputError("the towers have different experts, so they share no space")
        t = given if (given := _embeddings(text)) is not None else self.encode_text(text)
        v = given if (given := _embeddings(video)) is not None else self.encode_video(video)
        for name, vectors in (("text", t), ("video", v)):
            if vectors.ndim not in (1, 2) or vectors.shape[-1] != config.embedding_dim:
                raise InputError(
                    f"{name} embeddings are {vectors.shape}, expected (n, {config.embedding_dim})"
                )
        by_expert = np.einsum(
            "tmd,vmd->tvm", t.reshape(-1, len(names), width), v.reshape(-1, len(names), width)
        )
        return Similarity(by_expert.sum(axis=-1), by_expert, names)

    @property
    def video_encoder(self) -> FastVideoTower:
        """The video tower for inference, read when it is first needed."""
        with self._lock:
            if self._video_encoder is None:
                self._video_encoder = FastVideoTower.consume(
                    self.read_video_tower(), self.precision, self.compiled
                )
            return self._video_encoder

    @property
    def text_encoder(self) -> FastTextTower:
        """The text tower for inference, read when it is first needed."""
        with self._lock:
            if self._text_encoder is None:
                self._text_encoder = FastTextTower.consume(
                    self.read_text_tower(), self.precision, self.compiled
                )
            return self._text_encoder

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the text tower."""
        with self._lock:
            if self._tokenizer is None:
                tokenizer = Tokenizer(self._find_tokenizer(), self.config.text)
                check_vocabulary(tokenizer.tokenizer, self.config.text)
                self._tokenizer = tokenizer
            return self._tokenizer

    def read_video_tower(self) -> VideoTower:
        """Read the video tower in its plain form, for an export; a new one each time."""
        with torch.device("meta"):
            tower = VideoTower(self.config.video)
        load_file(tower, weights_file(self.path), lambda: read_tower(self.path, VIDEO_PREFIXES))
        return tower.to(self.device).eval()

    def read_text_tower(self) -> TextTower:
        """Read the text tower in its plain form; a new one each time."""
        with torch.device("meta"):
            tower = TextTower(self.config.text)
        file = weights_file(self.path)
        if isinstance(self._txt_bert, nn.Module):  # its tensors may change between two readings
            state = with_bert_of(self._txt_bert, read_tower(self.path, TEXT_PREFIXES))
            load_strict(tower, state, f"{file} with the module txt_bert")
        else:
            load_file(tower, file, lambda: read_tower(self.path, TEXT_PREFIXES))
        return tower.to(self.device).eval()

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Write this model as a model folder, with its tokenizer and a model card.

        `load` takes the folder, and so does `load` of the repository that it is uploaded to. The
        experts' weights are not part of it.

        Args:
            folder: a leading `~` is the home folder. It appears whole or not at all, and replaces
                a model folder there.

        Returns:
            The folder.

        Raises:
            InputError: the folder exists and is not a model folder, or cannot be written.
            WeightsError: the weights or the tokenizer cannot be read.
            OSError: the disk fails, or is full; an old folder remains as it was.
        """
        out = Path(folder).expanduser()
        check_replaceable(out)  # before the towers are read
        origin = self.path.name
        if isinstance(self._txt_bert, nn.Module):
            origin += ", with the BERT of a module"
        towers = self.read_video_tower(), self.read_text_tower()
        write_towers(self.path, out, self.config, *towers, self.tokenizer.tokenizer, origin)
        return out

    def push_to_hub(self, repository: str, private: bool | None = None) -> str:
        """Upload this model to Hugging Face, as `save_pretrained` writes it.

        The token is that of `hf auth login` or of the variable HF_TOKEN.

        Args:
            repository: 'owner/name', or 'owner/name@branch'; made if it is not there.
            private: whether a new repository is private. None: the owner's default.

        Returns:
            The address of the commit.

        Raises:
            InputError: not the name of a repository.
            WeightsError: the upload fails, or see `save_pretrained`.
        """
        if not isinstance(repository, str) or not is_repository(repository):
            raise InputError(f"repository is {repository!r}, expected 'owner/name'")
        with tempfile.TemporaryDirectory(prefix="mdmmt-") as scratch:
            folder = self.save_pretrained(Path(scratch, "model"))
            try:
                return upload_folder(folder, repository, private)
            except WeightsError as error:
                raise WeightsError(
                    f"the model could not be uploaded to {repository} on Hugging Face ({error}); "
                    "`hf auth login` stores a token that may write there"
                ) from error

    def _find_tokenizer(self) -> Any:
        """The given tokenizer, or that of `txt_bert`, or the weights' own, or BERT's."""
        if isinstance(self._given_tokenizer, str | os.PathLike):
            return load_tokenizer(self._given_tokenizer)
        if self._given_tokenizer is not None:
            return self._given_tokenizer
        if isinstance(self._txt_bert, str | os.PathLike):
            return load_tokenizer(self._txt_bert)
        return load_tokenizer(tokenizer_source(self.path))


def load(
    weight_path: str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    mmtvid_params: Mapping[str, Any] | None = None,
    mmttxt_params: Mapping[str, Any] | None = None,
    experts: Iterable[str] | None = None,
    precision: Precision = "exact",
    compiled: bool = False,
    time_limit_s: float = TIME_LIMIT_S,
    experts_precision: ExpertPrecision = "exact",
) -> Model:
    """Open a model.

    Three things may be downloaded: the model 'owner/name'; the released model, for a `weight_path`
    of None on a machine that has no weights; and the small files of the tokenizer, when a model of
    bare weights gets its first text.

    Args:
        weight_path: the released `mdmmt_3mod.pth`, another `.pth` or `.safetensors` with its
            tensors, a model folder, 'owner/name' or 'owner/name@revision' on Hugging Face, or
            'sample'. None: `weights/` beside the operator, else the path in the variable
            MDMMT_WEIGHTS, else the released model in this user's cache, downloaded if need be.
        device: as torch spells it; None takes CUDA if it is there, else the CPU. 'mps', the GPU of
            Apple's processors, was never tried.
        mmtvid_params: changes to the configuration of the released model or the model folder, by
            the names of upstream's `MMTVID`: expert_dims, vid_bert_config, same_dim, hidden_size.
        mmttxt_params: changes by the names of `MMTTXT`: txt_bert (folder, hub id or module),
            tokenizer, max_length, modalities, add_special_tokens, add_dot, same_dim, dout_prob.
        experts: the experts that are run on video files, such as ['CLIP']; the model's others
            are absent. None: all. The weights of CLIP come from Hugging Face (600 MB) if no
            folder holds them, see `mdmmt.experts.pretrained`.
        precision: the towers' arithmetic: 'exact' (float32), 'bfloat16', 'int8', or 'auto', the
            fastest for this machine.
        compiled: fuse the operations between the matrix products by `torch.compile`, at the
            first call; on CUDA only.
        time_limit_s: how many seconds each video file may take, with the work of the experts.
        experts_precision: the experts' arithmetic: 'exact' (float32); 'float16', in which VIDEO
            and CLIP take less time on CUDA; or 'int8', in which VIDEO takes less time on x86
            processors with AVX512-VNNI and the extra `openvino`. Only features of one precision
            compare, so an index or a feature file refuses to mix them.

    Raises:
        WeightsError: the weights are missing, or the model folder describes no model.
        InputError: an unknown device, parameter, expert or precision, or a time limit that is not
            above 0.
        MissingDependency: the precision of the experts needs an extra that is not installed.
    """
    check_time_limit(time_limit_s)
    resolved = resolve_device(device)
    if compiled and resolved.type != "cuda":
        raise InputError(
            f"compiled is {compiled!r} and the device is {str(resolved)!r}, where oneDNN fuses "
            "already; expected a CUDA device, or compiled=False"
        )
    path = find_weights(weight_path)
    config = read_config(path)
    params = mmttxt_params or {}
    video = with_mmtvid_params(config.video, mmtvid_params)
    text = with_mmttxt_params(config.text, mmttxt_params)
    txt_bert = params.get("txt_bert")
    if txt_bert is not None:
        text = replace(text, bert=read_bert_config(txt_bert))
    if experts is not None:
        experts = check_experts(experts, [expert.name for expert in video.experts])
    resolved_precision = resolve_precision(precision, resolved)
    logger.debug("the model is %s, in precision %s on %s", path, resolved_precision, resolved)
    return Model(
        path,
        ModelConfig(video, text),
        resolved,
        txt_bert,
        params.get("tokenizer"),
        experts,
        resolved_precision,
        compiled,
        time_limit_s,
        check_precision(experts_precision, resolved),
    )


def check_text(text: Any, where: str) -> None:
    """Raise an InputError or InputTypeError unless this is a text with words in valid Unicode."""
    if not isinstance(text, str):
        raise InputTypeError(f"{where} is a {type(text).__name__}, expected a str")
    if not text.strip():
        raise InputError(f"{where} is {text!r}, expected some words")
    if not is_unicode(text):
        raise InputError(f"{where} is {text!r}, which is not valid Unicode (a lone surrogate)")


def _absolute(source: Any) -> Any:
    """A path that another process understands; hub ids and objects stay as they are."""
    if isinstance(source, str | os.PathLike) and Path(source).exists():
        return Path(source).absolute()
    return source


def _text_list(texts: Any) -> list[Any]:
    expected = "expected a str or a list of str"
    items = as_items(texts)
    if items is None:
        raise InputTypeError(f"text is a {type(texts).__name__}, {expected}")
    if not items:
        raise InputError(f"text is an empty {type(texts).__name__}, {expected}")
    return items


def _embeddings(value: Any) -> NDArray[np.float32] | None:
    """Embeddings of NumPy or PyTorch as an array; None for what is still to be embedded."""
    if isinstance(value, Tensor):
        return value.detach().float().cpu().numpy()
    is_array = isinstance(value, np.ndarray) and as_items(value) is None
    return value if is_array else None


def _check_batch_size(batch_size: int) -> None:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise InputError(f"batch_size is {batch_size!r}, expected a whole number from 1 on")
