"""The tokens of a video: the inputs of the video tower, made from features.

Tokens come from the features of a video (`tokens_of`), or from the dict that the video operator
takes (`read_input`). That dict has the keys of upstream's `MMTVID.forward`: `features[expert]`
(n, d), `features_t[expert]` (n,), the times, and `features_ind[expert]` (n,), 1 for a token and 0
for padding. With a leading batch axis on all of them it is a batch of videos.

Shape notation: b batch, n tokens, d width of an expert's features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..config import NO_POSITION, TIME_OFFSET, UNKNOWN_POSITION, ExpertConfig
from ..errors import InputError, InputTypeError
from .types import BAD_VALUES, VideoFeatures, first_bad

INPUT_KEYS = ("features", "features_t", "features_ind")


class Tokens(NamedTuple):
    """The valid tokens of one expert in one video."""

    features: Tensor  # [n, d] float32
    times: Tensor  # [n] float32


VideoTokens = dict[str, Tokens]  # by expert; an expert without a valid token is left out
# The operator's dict; the docstring of the module describes it.
InputDict = dict[str, dict[str, NDArray[np.float32]]]


def tokens_of(
    features: VideoFeatures, experts: Sequence[ExpertConfig], where: str = "video"
) -> VideoTokens:
    """The tokens of a video: of each expert its first `max_tokens` features, with their times.

    A time is 2 + the middle of (start, end), after the expert's smallest start is taken off, as
    the authors of MDMMT do. If one of an expert's times is NaN, all of them are unknown.

    Args:
        experts: those of the model.
        where: the name of the video in error messages.

    Raises:
        InputError: no features at all, an expert that the model does not have, another width, or
            numbers that no model can take.
    """
    _check_known(features, experts, where)
    for expert in experts:
        if one := features.get(expert.name):
            one.check(expert.dim, f"{where}, expert {expert.name!r}")
    tokens = tokens_of_checked(features, experts)
    if not tokens:
        raise InputError(f"{where} has no features, expected some of {_names(experts)}")
    return tokens


def tokens_of_checked(features: VideoFeatures, experts: Sequence[ExpertConfig]) -> VideoTokens:
    """The tokens of features that fit the experts; `tokens_of` checks that they do.

    A segment without features has no tokens.
    """
    tokens: VideoTokens = {}
    for expert in experts:
        one = features.get(expert.name)
        if not one:
            continue
        times = np.full(len(one), UNKNOWN_POSITION, dtype=np.float32)
        if one.have_times:
            times[:] = TIME_OFFSET + (one.times_s - one.times_s[:, 0].min()).mean(axis=1)
        first = slice(expert.max_tokens)
        # Copies, since the arrays may be read-only views of a file.
        values = np.array(one.values[first], dtype=np.float32, order="C")
        tokens[expert.name] = Tokens(
            torch.from_numpy(values), torch.from_numpy(times[first].copy())
        )
    return tokens


def describe_truncation(features: VideoFeatures, experts: Sequence[ExpertConfig]) -> str:
    """Say which part of a video `tokens_of` keeps, or "" if it keeps all."""
    by_part: dict[str, list[str]] = {}
    for expert in experts:
        one = features.get(expert.name)
        if one is not None and len(one) > expert.max_tokens:
            part = f"the first {expert.max_tokens} tokens"
            if one.have_times:
                start_s, end_s = one.times_s[0, 0], one.times_s[expert.max_tokens - 1, 1]
                part = f"the seconds {start_s:g} to {end_s:g}"
            by_part.setdefault(part, []).append(expert.name)
    if not by_part:
        return ""
    parts = ", ".join(f"{part} of {' and '.join(names)}" for part, names in by_part.items())
    return f"is longer than this model takes: it embeds {parts}"


def to_input(tokens: VideoTokens, experts: Sequence[ExpertConfig]) -> InputDict:
    """The dict that the video operator takes; each expert is padded to its `max_tokens`."""
    item: InputDict = {key: {} for key in INPUT_KEYS}
    for expert in experts:
        if expert.name not in tokens:
            continue
        features, times = tokens[expert.name]
        n = len(times)
        padded = np.zeros((expert.max_tokens, expert.dim), dtype=np.float32)
        padded_t = np.full(expert.max_tokens, NO_POSITION, dtype=np.float32)
        padded[:n], padded_t[:n] = features.numpy(), times.numpy()
        mask = (np.arange(expert.max_tokens) < n).astype(np.float32)
        for key, array in zip(INPUT_KEYS, (padded, padded_t, mask), strict=True):
            item[key][expert.name] = array
    return item


def read_input(
    item: Any, experts: Sequence[ExpertConfig], where: str = "video"
) -> tuple[list[VideoTokens], bool]:
    """The valid tokens of the operator's dict, checked; its arrays are copied once.

    Args:
        item: the dict, un-batched or with a leading batch axis; its arrays are NumPy's or
            PyTorch's, of any real type.
        experts: those of the model.
        where: the name of the video in error messages.

    Returns:
        the videos, and whether the dict has a batch axis.

    Raises:
        InputError, InputTypeError: the message names the expert, and what was given and expected.
    """
    arrays = _arrays(item, experts, where)
    batch = _batch_size(arrays, where)
    if batch is None:
        arrays = {name: tuple(array[None] for array in of) for name, of in arrays.items()}
    rows = [
        where if batch is None else f"{where}, row {row} of the batch" for row in range(batch or 1)
    ]
    videos: list[VideoTokens] = [{} for _ in rows]
    for name, (features, times, mask) in arrays.items():
        counts = mask.sum(dim=1).tolist()
        valid = mask.flatten().nonzero()[:, 0]
        features = features.flatten(0, 1).index_select(0, valid)
        times = times.flatten().index_select(0, valid)
        bad = first_bad(features)
        if bad is not None:
            row, token = mask.nonzero()[bad].tolist()
            raise InputError(
                f"{rows[row]}, expert {name!r}: token {token} {BAD_VALUES} where features_ind is 1"
            )
        for video, *tokens in zip(videos, features.split(counts), times.split(counts), strict=True):
            if len(tokens[1]):
                video[name] = Tokens(*tokens)
    for row, video in zip(rows, videos, strict=True):
        if not video:
            raise InputError(f"{row} has no valid token: the masks of all its experts are 0")
    return videos, batch is not None


def _arrays(
    item: Any, experts: Sequence[ExpertConfig], where: str
) -> dict[str, tuple[Tensor, ...]]:
    """Features [(b,) n, d] float32, times [(b,) n] float32, mask [(b,) n] bool by expert."""
    if not isinstance(item, Mapping):
        raise InputTypeError(
            f"{where} is a {type(item).__name__}, expected a dict of {', '.join(INPUT_KEYS)}"
        )
    if set(item) != set(INPUT_KEYS):
        given = ", ".join(map(str, item)) or "none"
        raise InputError(f"{where} has the keys {given}, expected {', '.join(INPUT_KEYS)}")
    for key in INPUT_KEYS:
        if not isinstance(item[key], Mapping):
            raise InputTypeError(
                f"{where}: {key} is a {type(item[key]).__name__}, expected a dict by expert"
            )
        _check_known(item[key], experts, f"{where}: {key}")
    present = [one for one in experts if any(one.name in item[key] for key in INPUT_KEYS)]
    if not present:
        raise InputError(f"{where} has no expert at all, expected some of {_names(experts)}")
    return {one.name: _of_expert(item, one, f"{where}, expert {one.name!r}") for one in present}


def _of_expert(
    item: Mapping[str, Any], expert: ExpertConfig, where: str
) -> tuple[Tensor, Tensor, Tensor]:
    missing = [key for key in INPUT_KEYS if expert.name not in item[key]]
    if missing:
        raise InputError(f"{where} is missing from {', '.join(missing)}")
    features, times, mask = (
        _tensor(item[key][expert.name], f"{where}: {key}") for key in INPUT_KEYS
    )
    if features.ndim not in (2, 3) or features.shape[-1] != expert.dim:
        raise InputError(
            f"{where}: features are {_shape(features)}, expected (n, {expert.dim}) "
            f"or (b, n, {expert.dim})"
        )
    if not features.shape[:-1] == times.shape == mask.shape:
        raise InputError(
            f"{where}: features are {_shape(features)}, features_t {_shape(times)} and "
            f"features_ind {_shape(mask)}, expected {_shape(features[..., 0])} for the last two"
        )
    binary = (mask == 0) | (mask == 1)
    if not binary.all():
        wrong = mask[~binary][0].item()
        raise InputError(f"{where}: features_ind holds {wrong:g}, expected 0 or 1 only")
    return features, times.to(features.device), mask.bool().to(features.device)


def _batch_size(arrays: Mapping[str, tuple[Tensor, ...]], where: str) -> int | None:
    """The length of the batch axis; None without one."""
    sizes = {
        name: len(features) if features.ndim == 3 else None
        for name, (features, *_) in arrays.items()
    }
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{n}: {'none' if b is None else b}" for n, b in sizes.items())
        raise InputError(f"{where}: the experts differ in their batch axis ({given})")
    batch = next(iter(sizes.values()))
    if batch == 0:
        raise InputError(f"{where} is a batch of 0 videos, expected at least one")
    return batch


def _tensor(value: Any, where: str) -> Tensor:
    """A float32 tensor; shares memory with a caller's tensor, so it must not be written to."""
    if isinstance(value, Tensor):
        if value.is_complex():
            raise InputTypeError(f"{where} are {value.dtype}, expected real numbers")
        return value.detach().to(torch.float32)
    try:
        array = np.asarray(value)
        if array.dtype.kind in "OSUcmM":
            raise TypeError
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused
            return torch.from_numpy(np.array(array, dtype=np.float32, order="C"))
    except (TypeError, ValueError) as error:
        given = getattr(value, "dtype", None) or type(value).__name__
        raise InputTypeError(f"{where} are {given}, expected an array of numbers") from error


def _check_known(by_expert: Mapping[str, Any], experts: Sequence[ExpertConfig], where: str) -> None:
    names = [expert.name for expert in experts]
    unknown = [str(name) for name in by_expert if name not in names]
    if unknown:
        raise InputError(
            f"{where} has the expert {', '.join(unknown)}, which this model does not know; "
            f"its experts are {', '.join(names)}"
        )


def _names(experts: Sequence[ExpertConfig]) -> str:
    return ", ".join(expert.name for expert in experts)


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
