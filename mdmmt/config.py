"""The configuration of a model as frozen dataclasses, and the released model's numbers.

The released model is MDMMT (arXiv 2103.10699, section 3) with the experts VIDEO (irCSN-152),
CLIP (ViT-B/32) and tf_vggish.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from .errors import InputError, InputTypeError

Config = TypeVar("Config", "EncoderConfig", "ExpertConfig", "VideoConfig", "TextConfig")

ACTIVATIONS = ("gelu", "relu", "swish")

# Rows of the video tower's position table. A known time is TIME_OFFSET + seconds.
NO_POSITION = 0  # [CLS], AGG and padding
UNKNOWN_POSITION = 1  # a feature whose time is not known
TIME_OFFSET = 2

CLS_TYPE = 0  # row of [CLS] in the video tower's table of token types


@dataclass(frozen=True)
class EncoderConfig:
    """A BERT encoder (Devlin et al., 2018): post-norm transformer layers."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int
    vocab_size: int | None = None  # None: no word embeddings, the video tower
    hidden_act: str = "gelu"  # the exact, erf-based one
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise InputError(
                f"hidden_size {self.hidden_size} is not a multiple of "
                f"num_attention_heads {self.num_attention_heads}"
            )
        if self.hidden_act not in ACTIVATIONS:
            raise InputError(
                f"hidden_act is {self.hidden_act!r}, expected one of {', '.join(ACTIVATIONS)}"
            )


@dataclass(frozen=True)
class ExpertConfig:
    """One expert: a pretrained network whose features are the video tower's tokens."""

    name: str
    dim: int  # width of one feature
    type_id: int  # row in the table of token types; see CLS_TYPE
    max_tokens: int = 30  # tokens kept of a video, as in training


@dataclass(frozen=True)
class VideoConfig:
    """The video tower. The order of the experts is the order of the embedding's blocks."""

    experts: tuple[ExpertConfig, ...]
    encoder: EncoderConfig
    same_dim: int  # width of one expert's block of the embedding

    def __post_init__(self) -> None:
        if not self.experts:
            raise InputError("the video tower has no expert, expected at least one")
        rows = self.encoder.type_vocab_size
        for expert in self.experts:
            if not 0 <= expert.type_id < rows:
                raise InputError(
                    f"expert {expert.name!r} has the type id (idx) {expert.type_id}, expected "
                    f"0 to {rows - 1}, type_vocab_size being {rows}"
                )

    @property
    def embedding_dim(self) -> int:
        """Width of a video's embedding, D."""
        return len(self.experts) * self.same_dim


@dataclass(frozen=True)
class TextConfig:
    """The text tower: BERT, then a gated head and a weight for each expert."""

    experts: tuple[str, ...]
    bert: EncoderConfig
    same_dim: int
    max_length: int = 30  # tokens kept of a text, special ones included
    add_special_tokens: bool = True
    add_dot: bool = True  # end each text in ".", "?" or "!"
    dropout: float = 0.1  # before the expert weights, in training only

    def __post_init__(self) -> None:
        if not self.experts:
            raise InputError("the text tower has no modality, expected at least one")
        positions = self.bert.max_position_embeddings
        if not 0 < self.max_length <= positions:
            raise InputError(
                f"max_length is {self.max_length}, expected 1 to {positions}, "
                "the positions that BERT has"
            )

    @property
    def embedding_dim(self) -> int:
        """Width of a text's embedding, D."""
        return len(self.experts) * self.same_dim


@dataclass(frozen=True)
class ModelConfig:
    """Both towers of one space."""

    video: VideoConfig
    text: TextConfig


BERT_BASE_CASED = EncoderConfig(
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    max_position_embeddings=512,
    type_vocab_size=2,
    vocab_size=28996,
)

RELEASED = ModelConfig(
    video=VideoConfig(
        experts=(
            ExpertConfig("VIDEO", dim=2048, type_id=1),
            ExpertConfig("CLIP", dim=512, type_id=2),
            ExpertConfig("tf_vggish", dim=128, type_id=3),
        ),
        encoder=EncoderConfig(
            hidden_size=512,
            num_hidden_layers=9,
            num_attention_heads=8,
            intermediate_size=3072,
            max_position_embeddings=32,
            type_vocab_size=19,
            hidden_dropout_prob=0.2,
            attention_probs_dropout_prob=0.2,
        ),
        same_dim=512,
    ),
    text=TextConfig(
        experts=("VIDEO", "CLIP", "tf_vggish"),
        bert=BERT_BASE_CASED,
        same_dim=512,
    ),
)


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """The configuration as `config.json` of a model folder holds it."""
    return {"model_type": "mdmmt", **asdict(config)}


def from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `to_dict`.

    Raises:
        InputError: a name is unknown, or a number does not fit the others.
        KeyError, TypeError: a name is missing, or a value has the wrong type.
    """
    values = checked_keys("config.json", values, ("model_type", "video", "text"))
    if values.get("model_type") != "mdmmt":
        raise InputError(f"config.json has model_type {values.get('model_type')!r}, not 'mdmmt'")
    video, text = dict(values["video"]), dict(values["text"])
    video["experts"] = tuple(_build(ExpertConfig, e) for e in video["experts"])
    video["encoder"] = _build(EncoderConfig, video["encoder"])
    text["experts"] = tuple(text["experts"])
    text["bert"] = _build(EncoderConfig, text["bert"])
    return ModelConfig(_build(VideoConfig, video), _build(TextConfig, text))


def checked_keys(
    where: str, values: Mapping[str, Any] | None, names: tuple[str, ...]
) -> dict[str, Any]:
    """A copy of a mapping without the values that are None, upstream's "not given".

    Args:
        where: how the error messages call the mapping.
        names: the keys that it may have.

    Raises:
        InputError, InputTypeError: it has other keys, or is no mapping.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputTypeError(f"{where} is a {type(values).__name__}, expected a dict")
    unknown = [str(name) for name in values if name not in names]
    if unknown:
        raise InputError(f"{where} has unknown {', '.join(unknown)}; known: {', '.join(names)}")
    return {name: value for name, value in values.items() if value is not None}


def _build(cls: type[Config], values: Mapping[str, Any]) -> Config:
    return cls(**checked_keys(cls.__name__, values, tuple(f.name for f in fields(cls))))
