"""What a model is made of: frozen configurations, and the released model's numbers.

The released model is MDMMT (arXiv 2103.10699, section 3) with the experts VIDEO (irCSN-152),
CLIP (ViT-B/32) and tf_vggish. The names a caller may override are those of the constructors of
`towhee.models.mdmmt` (`MMTVID` and `MMTTXT`), so that parameters written for them keep working.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from .errors import InputError, InputTypeError

ACTIVATIONS = ("gelu", "relu", "swish")


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
    type_id: int  # row of the token-type embedding; 0 is [CLS]
    max_tokens: int = 30  # tokens kept of a video, as the model was trained


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
        return len(self.experts) * self.same_dim


@dataclass(frozen=True)
class TextConfig:
    """The text tower: BERT, and a gated head and a weight for each expert."""

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

# Upstream's names. The first of VID_BERT_KEYS is accepted and unused there as well.
MMTVID_KEYS = ("expert_dims", "vid_bert_config", "same_dim", "hidden_size")
MMTTXT_KEYS = (
    "txt_bert",
    "tokenizer",
    "max_length",
    "modalities",
    "add_special_tokens",
    "add_dot",
    "same_dim",
    "dout_prob",
)
EXPERT_KEYS = ("dim", "idx", "max_tok")
UNUSED_VID_BERT_KEY = "vocab_size_or_config_json_file"
VID_BERT_KEYS = (
    UNUSED_VID_BERT_KEY,
    *(f.name for f in fields(EncoderConfig) if f.name != "vocab_size"),
)


def with_mmtvid_params(base: VideoConfig, params: Mapping[str, Any] | None) -> VideoConfig:
    """`base` with what `params`, named as upstream's `MMTVID` arguments, says otherwise.

    Raises:
        InputError: a name that upstream does not know, or values that contradict each other.
    """
    params = _known("mmtvid_params", params, MMTVID_KEYS)
    encoder = _known("vid_bert_config", _as_mapping(params.get("vid_bert_config")), VID_BERT_KEYS)
    encoder.pop(UNUSED_VID_BERT_KEY, None)
    if "hidden_size" in params:
        hidden_size = params["hidden_size"]
        if encoder.setdefault("hidden_size", hidden_size) != hidden_size:
            raise InputError(
                f"mmtvid_params says hidden_size {hidden_size} and its vid_bert_config says "
                f"{encoder['hidden_size']}; they are one number"
            )
    experts = base.experts
    if "expert_dims" in params:
        known = {expert.name: expert for expert in base.experts}
        given = params["expert_dims"]
        if not isinstance(given, Mapping):
            raise InputTypeError(f"expert_dims is a {type(given).__name__}, expected a dict")
        experts = tuple(_expert(name, values, known.get(name)) for name, values in given.items())
    return VideoConfig(
        experts=experts,
        encoder=replace(base.encoder, **encoder),
        same_dim=params.get("same_dim", base.same_dim),
    )


def with_mmttxt_params(base: TextConfig, params: Mapping[str, Any] | None) -> TextConfig:
    """`base` with what `params`, named as upstream's `MMTTXT` arguments, says otherwise.

    What `txt_bert` and `tokenizer` stand for is read elsewhere, see `mdmmt.model.load`.

    Raises:
        InputError: a name that upstream does not know.
    """
    params = _known("mmttxt_params", params, MMTTXT_KEYS)
    if isinstance(params.get("modalities"), str):
        raise InputTypeError("modalities is a str, expected a list of expert names")
    return replace(
        base,
        experts=tuple(params.get("modalities", base.experts)),
        same_dim=params.get("same_dim", base.same_dim),
        max_length=params.get("max_length", base.max_length),
        add_special_tokens=params.get("add_special_tokens", base.add_special_tokens),
        add_dot=params.get("add_dot", base.add_dot),
        dropout=params.get("dout_prob", base.dropout),
    )


def bert_config(config: Any) -> EncoderConfig:
    """The encoder that a Hugging Face BERT configuration, or an object like it, describes.

    Raises:
        InputError: it describes something other than a BERT, or lacks a size.
    """
    model_type = getattr(config, "model_type", "bert")
    if model_type != "bert":
        raise InputError(f"txt_bert is a {model_type!r} model, expected 'bert'")
    names = [f.name for f in fields(EncoderConfig)]
    missing = [name for name in names if not hasattr(config, name)]
    if missing:
        raise InputError(f"the configuration of txt_bert lacks {', '.join(missing)}")
    return EncoderConfig(**{name: getattr(config, name) for name in names})


def to_dict(config: ModelConfig) -> dict[str, Any]:
    """The configuration as `config.json` of a model folder holds it."""
    return {"model_type": "mdmmt", **asdict(config)}


def from_dict(values: Mapping[str, Any]) -> ModelConfig:
    """The inverse of `to_dict`; unknown and missing names raise an InputError."""
    values = _known("config.json", values, ("model_type", "video", "text"))
    if values.get("model_type") != "mdmmt":
        raise InputError(f"config.json has model_type {values.get('model_type')!r}, not 'mdmmt'")
    video, text = dict(values["video"]), dict(values["text"])
    video["experts"] = tuple(_build(ExpertConfig, e) for e in video["experts"])
    video["encoder"] = _build(EncoderConfig, video["encoder"])
    text["experts"] = tuple(text["experts"])
    text["bert"] = _build(EncoderConfig, text["bert"])
    return ModelConfig(_build(VideoConfig, video), _build(TextConfig, text))


def _build(cls: type, values: Mapping[str, Any]) -> Any:
    return cls(**_known(cls.__name__, values, tuple(f.name for f in fields(cls))))


def _known(where: str, values: Mapping[str, Any] | None, names: tuple[str, ...]) -> dict[str, Any]:
    """`values` without those that are None, as upstream spells "not given"."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        raise InputTypeError(f"{where} is a {type(values).__name__}, expected a dict")
    unknown = [str(name) for name in values if name not in names]
    if unknown:
        raise InputError(f"{where} has unknown {', '.join(unknown)}; known: {', '.join(names)}")
    return {name: value for name, value in values.items() if value is not None}


def _as_mapping(config: Any) -> Mapping[str, Any] | None:
    """A dict as it is; an object's public attributes, set on it or on its class."""
    if config is None or isinstance(config, Mapping):
        return config
    if isinstance(config, str | int | float | list | tuple):
        raise InputTypeError(
            f"vid_bert_config is a {type(config).__name__}, expected a dict or a configuration"
        )
    public = {name: getattr(config, name) for name in dir(config) if not name.startswith("_")}
    return {name: value for name, value in public.items() if not callable(value)}


def _expert(name: str, values: Mapping[str, Any], base: ExpertConfig | None) -> ExpertConfig:
    values = _known(f"expert_dims[{name!r}]", values, EXPERT_KEYS)
    if base is None:
        missing = [key for key in ("dim", "idx") if key not in values]
        if missing:
            raise InputError(f"expert_dims[{name!r}] lacks {', '.join(missing)}")
        base = ExpertConfig(name, dim=values["dim"], type_id=values["idx"])
    return ExpertConfig(
        name,
        dim=values.get("dim", base.dim),
        type_id=values.get("idx", base.type_id),
        max_tokens=values.get("max_tok", base.max_tokens),
    )
