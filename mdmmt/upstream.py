"""Parameters in the spelling of `towhee.models.mdmmt` (`MMTVID`, `MMTTXT`), as configurations.

Parameters that were written for those constructors keep working: `mmtvid_params` and
`mmttxt_params` of `mdmmt.load` and of the operator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from torch import Tensor, nn

from .config import EncoderConfig, ExpertConfig, TextConfig, VideoConfig, checked_keys
from .errors import InputError, InputTypeError, WeightsError

# The arguments of MMTVID and MMTTXT, and the keys of their arguments.
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
BERT_PREFIX = "txt_bert."  # of BERT's tensors in a text tower
EXPERT_KEYS = ("dim", "idx", "max_tok")
UNUSED_VID_BERT_KEY = "vocab_size_or_config_json_file"  # accepted and unused there as well
VID_BERT_KEYS = (
    UNUSED_VID_BERT_KEY,
    *(f.name for f in fields(EncoderConfig) if f.name != "vocab_size"),
)


def with_mmtvid_params(base: VideoConfig, params: Mapping[str, Any] | None) -> VideoConfig:
    """A configuration changed by parameters that are named as `MMTVID` names its arguments.

    Raises:
        InputError, InputTypeError: upstream does not know a name, a value has the wrong type, or
            values contradict each other.
    """
    params = checked_keys("mmtvid_params", params, MMTVID_KEYS)
    encoder = checked_keys(
        "vid_bert_config", _as_mapping(params.get("vid_bert_config")), VID_BERT_KEYS
    )
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
    """A configuration changed by parameters that are named as `MMTTXT` names its arguments.

    `txt_bert` and `tokenizer` are accepted and ignored; `mdmmt.model.load` reads them.

    Raises:
        InputError, InputTypeError: upstream does not know a name, or a value has the wrong type.
    """
    params = checked_keys("mmttxt_params", params, MMTTXT_KEYS)
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
    """The encoder's configuration from a Hugging Face BERT's, or from an object like it.

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


def read_bert_config(txt_bert: str | os.PathLike[str] | nn.Module) -> EncoderConfig:
    """The configuration of `txt_bert`: a folder, a hub id, or a Hugging Face BERT.

    Raises:
        InputError, InputTypeError: it is something other than a BERT.
        WeightsError: the configuration cannot be read.
    """
    if isinstance(txt_bert, nn.Module):
        if not hasattr(txt_bert, "config"):
            raise InputError("txt_bert is a module without a config, expected a Hugging Face BERT")
        return bert_config(txt_bert.config)
    if not isinstance(txt_bert, str | os.PathLike):
        raise InputTypeError(
            f"txt_bert is a {type(txt_bert).__name__}, expected a folder, a hub id or a module"
        )
    # Imported late, since that takes time, and a model without `txt_bert` does without.
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(txt_bert))
    except Exception as error:  # transformers raises nearly anything on broken files
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsError(
            f"no configuration could be read from txt_bert {str(txt_bert)!r} ({reason})"
        ) from error
    return bert_config(config)


def with_bert_of(txt_bert: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A text tower's tensors, with copies of those of `txt_bert` if they hold only the heads."""
    if any(name.startswith(BERT_PREFIX) for name in state):
        return state
    bert = {BERT_PREFIX + name: tensor.clone() for name, tensor in txt_bert.state_dict().items()}
    return state | bert


def _as_mapping(config: Any) -> Mapping[str, Any] | None:
    """Return a mapping as it is, and an object's public attributes and its class's as a mapping."""
    if config is None or isinstance(config, Mapping):
        return config
    if isinstance(config, str | int | float | list | tuple):
        raise InputTypeError(
            f"vid_bert_config is a {type(config).__name__}, expected a dict or a configuration"
        )
    public = {name: getattr(config, name) for name in dir(config) if not name.startswith("_")}
    return {name: value for name, value in public.items() if not callable(value)}


def _expert(name: str, values: Mapping[str, Any], base: ExpertConfig | None) -> ExpertConfig:
    values = checked_keys(f"expert_dims[{name!r}]", values, EXPERT_KEYS)
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
