"""The configuration of a model as frozen dataclasses, and the released model's numbers.

The released model is MDMMT (arXiv 2103.10699, section 3) with the experts VIDEO (irCSN-152),
CLIP (ViT-B/32) and tf_vggish.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, get_args

from .errors import InputError, InputTypeError

Config = TypeVar("Config")

ACTIVATIONS = ("gelu", "relu", "swish")

# The largest numbers that a configuration may hold; each is far beyond any model of this kind.
MAX_WIDTH = 1 << 16
MAX_LAYERS = 256
MAX_ROWS = 1 << 20  # of a table of positions or words
MAX_EXPERTS = 64
MAX_TOKENS = 1 << 16
MIN_EPS = 1e-20  # less, squared and summed in float32, is no guard against a division by zero
EXPERT_NAME = re.compile(r"[A-Za-z0-9_][\w-]{0,63}", re.ASCII)
# Attributes of torch's ModuleDict, in which a sub-module cannot have the name.
RESERVED_NAMES = re.compile(
    r"T_destination|__\w+__|add_module|apply|b?float16|bfloat16|buffers|call_super_init|children|"
    r"clear|compile|cpu|cuda|double|dump_patches|eval|extra_repr|float|forward|get_\w+|half|ipu|"
    r"items|keys|load_state_dict|modules|mtia|named_\w+|parameters|pop|register_\w+|"
    r"requires_grad_|set_\w+|share_memory|state_dict|to|to_empty|train|training|type|update|"
    r"values|xpu|zero_grad|_\w+"
)

# Rows of the video tower's position table. A known time is TIME_OFFSET + seconds.
NO_POSITION = 0  # [CLS], AGG and padding
UNKNOWN_POSITION = 1  # a feature whose time is not known
TIME_OFFSET = 2

PRECISIONS = ("exact", "bfloat16", "int8", "auto")  # of the towers for inference
ExpertPrecision = Literal["exact", "float16", "int8"]
EXPERT_PRECISIONS: tuple[ExpertPrecision, ...] = get_args(ExpertPrecision)

CLS_TYPE = 0  # row of [CLS] in the video tower's table of token types


def _check_whole(name: str, value: Any, least: int | None, most: int) -> None:
    """Refuse all but whole numbers in a range; a `least` of None leaves its check to others."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise InputTypeError(f"{name} is {_shown(value)}, expected a whole number")
    if least is not None and not least <= int(value) <= most:
        raise InputError(f"{name} is {_shown(value)}, expected {least} to {most}")


def _check_real(name: str, value: Any, least: float, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"{name} is {_shown(value)}, expected a number")
    number: Any = value  # a whole number of JSON may be too large for a float
    if not least <= number <= most:  # false for NaN as well
        raise InputError(f"{name} is {_shown(value)}, expected {least} to {most}")


def _check_name(where: str, name: Any) -> None:
    if not isinstance(name, str):
        raise InputTypeError(f"{where} is {_shown(name)}, expected the name of an expert")
    if not EXPERT_NAME.fullmatch(name) or RESERVED_NAMES.fullmatch(name):
        raise InputError(
            f"{where} is {_shown(name)}, which cannot name an expert: expected letters, digits, "
            "'_' and '-', and no word of torch's own"
        )


def _check_names(where: str, names: Iterable[str]) -> None:
    """Refuse more experts than there may be, and a name that comes twice."""
    names = list(names)
    if len(names) > MAX_EXPERTS:
        raise InputError(f"{where} has {len(names)} entries, expected at most {MAX_EXPERTS}")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{where} has {twice!r} twice")


def _shown(value: Any) -> str:
    """A value of a configuration as a message shows it: a short one itself, else its type."""
    if isinstance(value, Integral) and not isinstance(value, bool) and abs(int(value)) >= 10**30:
        return "a number of more than 30 digits"
    if value is None or isinstance(value, bool | Integral | Real):
        return repr(value)
    if isinstance(value, str):
        return repr(value if len(value) <= 40 else value[:37] + "...")
    return f"a {type(value).__name__}"


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
        for name in ("hidden_size", "num_attention_heads", "type_vocab_size"):
            _check_whole(name, getattr(self, name), 1, MAX_WIDTH)
        _check_whole("num_hidden_layers", self.num_hidden_layers, 1, MAX_LAYERS)
        _check_whole("intermediate_size", self.intermediate_size, 1, MAX_ROWS)
        _check_whole("max_position_embeddings", self.max_position_embeddings, 1, MAX_ROWS)
        if self.vocab_size is not None:
            _check_whole("vocab_size", self.vocab_size, 1, MAX_ROWS)
        _check_real("hidden_dropout_prob", self.hidden_dropout_prob, 0, 1)
        _check_real("attention_probs_dropout_prob", self.attention_probs_dropout_prob, 0, 1)
        _check_real("initializer_range", self.initializer_range, 0, 1e3)
        _check_real("layer_norm_eps", self.layer_norm_eps, MIN_EPS, 1)
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

    def __post_init__(self) -> None:
        _check_name("name", self.name)
        _check_whole("dim", self.dim, 1, MAX_ROWS)
        _check_whole("type_id", self.type_id, 0, MAX_WIDTH)
        _check_whole("max_tokens", self.max_tokens, 1, MAX_TOKENS)


class TowerConfig:
    """The embedding of a tower: a block of `same_dim` numbers for each expert."""

    experts: tuple[Any, ...]
    same_dim: int

    @property
    def embedding_dim(self) -> int:
        """Width of an embedding, D."""
        return len(self.experts) * self.same_dim


@dataclass(frozen=True)
class VideoConfig(TowerConfig):
    """The video tower. The order of the experts is the order of the embedding's blocks."""

    experts: tuple[ExpertConfig, ...]
    encoder: EncoderConfig
    same_dim: int  # width of one expert's block of the embedding

    def __post_init__(self) -> None:
        if not self.experts:
            raise InputError("the video tower has no expert, expected at least one")
        _check_names("experts", [expert.name for expert in self.experts])
        _check_whole("same_dim", self.same_dim, 1, MAX_WIDTH)
        rows = self.encoder.type_vocab_size
        for expert in self.experts:
            if not 0 <= expert.type_id < rows:
                raise InputError(
                    f"expert {expert.name!r} has the type id (idx) {expert.type_id}, expected "
                    f"0 to {rows - 1}, type_vocab_size being {rows}"
                )


@dataclass(frozen=True)
class TextConfig(TowerConfig):
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
        for name in self.experts:
            _check_name("experts", name)
        _check_names("experts", self.experts)
        if self.bert.vocab_size is None:
            raise InputError("bert.vocab_size is None, expected the number of words")
        _check_whole("same_dim", self.same_dim, 1, MAX_WIDTH)
        _check_whole("max_length", self.max_length, None, MAX_ROWS)
        for flag in ("add_special_tokens", "add_dot"):
            if not isinstance(getattr(self, flag), bool):
                raise InputTypeError(f"{flag} is {_shown(getattr(self, flag))}, expected a bool")
        _check_real("dropout", self.dropout, 0, 1)
        positions = self.bert.max_position_embeddings
        if not 0 < self.max_length <= positions:
            raise InputError(
                f"max_length is {self.max_length}, expected 1 to {positions}, "
                "the positions that BERT has"
            )


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

# What the released model needs besides this package, by the names that `mdmmt download` takes.
TOKENIZER, MODEL = "tokenizer", "model"
DOWNLOADS = (TOKENIZER, MODEL, *(expert.name for expert in RELEASED.video.experts))


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """The configuration as `config.json` of a model folder holds it."""
    return {"model_type": "mdmmt", **asdict(config)}


def from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `to_dict`.

    Raises:
        InputError, InputTypeError: a key is unknown or missing, or a value has the wrong type or
            lies outside its range; the message names the key.
    """
    values = checked_keys("config.json", values, ("model_type", "video", "text"))
    if values.get("model_type") != "mdmmt":
        raise InputError(
            f"config.json has model_type {_shown(values.get('model_type'))}, not 'mdmmt'"
        )
    for key in ("video", "text"):
        if key not in values:
            raise InputError(f"config.json lacks {key!r}")
    video = checked_keys("video", values["video"], _names_of(VideoConfig))
    text = checked_keys("text", values["text"], _names_of(TextConfig))
    if "experts" in video:
        video["experts"] = tuple(
            build_config(ExpertConfig, expert, f"video.experts[{index}]")
            for index, expert in enumerate(_checked_list("video.experts", video["experts"]))
        )
    if "experts" in text:
        text["experts"] = tuple(_checked_list("text.experts", text["experts"]))
    for section, where, key in ((video, "video", "encoder"), (text, "text", "bert")):
        if key in section:
            section[key] = build_config(EncoderConfig, section[key], f"{where}.{key}")
    return ModelConfig(
        build_config(VideoConfig, video, "video"), build_config(TextConfig, text, "text")
    )


def checked_keys(
    where: str, values: Mapping[str, Any] | None, names: tuple[str, ...]
) -> dict[str, Any]:
    """A copy of a mapping without the values that are None, upstream's "not given".

    Args:
        where: how the error messages call the mapping.
        names: the keys that it may have.

    Raises:
        InputError, InputTypeError: it has other keys, or is not a mapping.
    """
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputTypeError(f"{where} is a {type(values).__name__}, expected a dict")
    unknown = [str(name) for name in values if name not in names]
    if unknown:
        raise InputError(f"{where} has unknown {', '.join(unknown)}; known: {', '.join(names)}")
    return {name: value for name, value in values.items() if value is not None}


def build_config(
    cls: type[Config], values: Any, where: str, place: Callable[[str], str] | None = None
) -> Config:
    """Make a configuration, a dataclass, from a mapping.

    Args:
        where: the place of the mapping, with which messages begin.
        place: that of a key of the mapping, for messages about this key; None: `where`.

    Raises:
        InputError, InputTypeError: a field is unknown or missing, or the class refuses a value.
    """
    kind: type[Any] = cls  # whose fields the type checker does not know
    names = _names_of(kind)
    if place and isinstance(values, Mapping):
        for name in values:
            checked_keys(place(str(name)), {name: None}, names)
    values = checked_keys(where, values, names)
    needed = [f.name for f in fields(kind) if f.default is MISSING]
    missing = [name for name in needed if name not in values]
    if missing:
        raise InputError(f"{where} lacks {', '.join(missing)}")
    try:
        return cls(**values)
    except InputError as error:  # whose message begins with the name of the field
        where = place(str(error).split()[0]) if place else where
        raise type(error)(f"{where}: {error}") from error


def _names_of(cls: type[Any]) -> tuple[str, ...]:
    return tuple(f.name for f in fields(cls))


def _checked_list(where: str, values: Any) -> list[Any]:
    if not isinstance(values, list | tuple):
        raise InputTypeError(f"{where} is {_shown(values)}, expected a list")
    if len(values) > MAX_EXPERTS:
        raise InputError(f"{where} has {len(values)} entries, expected at most {MAX_EXPERTS}")
    return list(values)
