"""Expert features: from what experts put out to tokens, and from what callers give to a batch.

The dict that the video operator takes has the keys of upstream's `MMTVID.forward`:
`features[expert]` (n, dim), `features_t[expert]` (n,), times, and `features_ind[expert]` (n,),
1 for tokens that are there and 0 for padding; with a leading batch axis on all of them it is a
batch of videos.

Shape notation: b batch, n tokens, d width of an expert's features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from ..config import NO_POSITION, TIME_OFFSET, UNKNOWN_POSITION, ExpertConfig
from ..errors import InputError, InputTypeError

GREATEST = 1e15  # of a feature; sums of squares of much greater ones overflow
PARTS = ("features", "features_t", "features_ind")


class Tokens(NamedTuple):
    """The valid tokens of one expert in one video."""

    features: Tensor  # [n, d] float32
    times: Tensor  # [n] float32


Video = dict[str, Tokens]  # experts without a valid token are not in it


def to_tokens(
    extracted: Mapping[str, tuple[np.ndarray, np.ndarray]], experts: Sequence[ExpertConfig]
) -> dict[str, dict[str, np.ndarray]]:
    """What experts put out, as the dict that the video operator takes (see the module's text).

    A time is 2 + the middle of (t0, t1) after that expert's smallest t0 is taken off, as the
    authors of MDMMT do; if any of an expert's times is NaN, all of them are unknown. The first
    `max_tokens` of each expert are kept, and shorter ones are padded up to it.

    Args:
        extracted: for each expert features (n, d) and times (n, 2) in seconds.
        experts: those of the model, which say how many tokens are kept.

    Raises:
        InputError: an expert that the model does not have.
    """
    _check_known(extracted, experts, "the extracted features")
    item: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
    for expert in experts:
        if expert.name not in extracted:
            continue
        features, spans_s = extracted[expert.name]
        times = np.full(len(features), UNKNOWN_POSITION, dtype=np.float32)
        if len(features) and not np.isnan(spans_s).any():
            times[:] = TIME_OFFSET + (spans_s - spans_s[:, 0].min()).mean(axis=1)
        n = min(len(features), expert.max_tokens)
        padded = np.zeros((expert.max_tokens, features.shape[1]), dtype=np.float32)
        padded_t = np.full(expert.max_tokens, NO_POSITION, dtype=np.float32)
        padded[:n], padded_t[:n] = features[:n], times[:n]
        item["features"][expert.name] = padded
        item["features_t"][expert.name] = padded_t
        item["features_ind"][expert.name] = (np.arange(expert.max_tokens) < n).astype(np.float32)
    return item


def read_videos(
    item: Any, experts: Sequence[ExpertConfig], where: str = "video"
) -> tuple[list[Video], bool]:
    """Check one dict of features and keep its valid tokens, as one copy for each expert.

    Args:
        item: un-batched, or with a leading batch axis; numpy or torch, of any real type.
        where: how the error messages call it.

    Returns:
        the videos, and whether the dict was batched.

    Raises:
        InputError, InputTypeError: naming the expert, what was given and what was expected.
    """
    if not isinstance(item, Mapping):
        raise InputTypeError(
            f"{where} is a {type(item).__name__}, expected a dict of {', '.join(PARTS)}"
        )
    unknown = [str(key) for key in item if key not in PARTS]
    missing = [part for part in PARTS if part not in item]
    if unknown or missing:
        raise InputError(f"{where} has the keys {_names(item)}, expected {', '.join(PARTS)}")
    for part in PARTS:
        if not isinstance(item[part], Mapping):
            raise InputTypeError(
                f"{where}: {part} is a {type(item[part]).__name__}, expected a dict by expert"
            )
    for part in PARTS:
        _check_known(item[part], experts, f"{where}: {part}")
    present = [e for e in experts if any(e.name in item[part] for part in PARTS)]
    arrays = {e.name: _arrays(item, e, f"{where}, expert {e.name!r}") for e in present}
    if not arrays:
        names = ", ".join(e.name for e in experts)
        raise InputError(f"{where} has no expert at all, expected some of {names}")

    sizes = {
        name: len(features) if features.ndim == 3 else None
        for name, (features, _, _) in arrays.items()
    }
    if len(set(sizes.values())) > 1:
        given = ", ".join(f"{n}: {'none' if b is None else b}" for n, b in sizes.items())
        raise InputError(f"{where}: the experts differ in their batch axis ({given})")
    batch = next(iter(sizes.values()))
    if batch == 0:
        raise InputError(f"{where} is a batch of 0 videos, expected at least one")
    if batch is None:
        arrays = {name: tuple(part[None] for part in parts) for name, parts in arrays.items()}
    rows = [
        where if batch is None else f"{where}, row {row} of the batch" for row in range(batch or 1)
    ]
    videos: list[Video] = [{} for _ in rows]
    for name, (features, times, mask) in arrays.items():
        counts = mask.sum(dim=1).tolist()
        at = mask.flatten().nonzero()[:, 0]
        kept = features.flatten(0, 1).index_select(0, at)
        _check_finite(kept, mask, rows, f"expert {name!r}")
        parts = zip(
            kept.split(counts), times.flatten().index_select(0, at).split(counts), strict=True
        )
        for video, tokens in zip(videos, map(Tokens._make, parts), strict=True):
            if len(tokens.times):
                video[name] = tokens
    for row, video in zip(rows, videos, strict=True):
        if not video:
            raise InputError(f"{row} has no valid token: the masks of all its experts are 0")
    return videos, batch is not None


def collate(
    videos: Sequence[Video], experts: Sequence[ExpertConfig], device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Pad videos into the batch that the video tower takes.

    Returns:
        features [b, n, d] float32, times [b, n] float32, mask [b, n] bool of each expert, where
        n is that expert's longest in this batch, and at least 1.
    """
    features, times, mask = {}, {}, {}
    for expert in experts:
        no_features = torch.zeros(0, expert.dim, dtype=torch.float32)
        nothing = Tokens(no_features, torch.zeros(0, dtype=torch.float32))
        rows = [video.get(expert.name, nothing) for video in videos]
        lengths = torch.tensor([len(row.times) for row in rows])
        n = max(1, int(lengths.max()))
        padded = pad_sequence([row.features.to(device) for row in rows], batch_first=True)
        padded_t = pad_sequence([row.times.to(device) for row in rows], batch_first=True)
        missing = n - padded.shape[1]  # 1 where no video of the batch has this expert
        features[expert.name] = F.pad(padded, (0, 0, 0, missing))
        times[expert.name] = F.pad(padded_t, (0, missing))
        mask[expert.name] = (torch.arange(n) < lengths[:, None]).to(device)
    return features, times, mask


def _arrays(item: Mapping[str, Any], expert: ExpertConfig, where: str) -> tuple[Tensor, ...]:
    """Features [(b,) n, d] float32, times [(b,) n] float32 and mask [(b,) n] bool of one expert."""
    missing = [part for part in PARTS if expert.name not in item[part]]
    if missing:
        raise InputError(f"{where} is missing from {', '.join(missing)}")
    features, times, mask = (_tensor(item[part][expert.name], f"{where}: {part}") for part in PARTS)
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
    right = (mask == 0) | (mask == 1)
    if not right.all():
        wrong = mask[~right][0].item()
        raise InputError(f"{where}: features_ind holds {wrong:g}, expected 0 or 1 only")
    return features, times.to(features.device), mask.bool().to(features.device)


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


def _check_known(by_expert: Mapping[str, Any], experts: Sequence[ExpertConfig], what: str) -> None:
    names = [expert.name for expert in experts]
    unknown = [str(name) for name in by_expert if name not in names]
    if unknown:
        raise InputError(
            f"{what} has the expert {', '.join(unknown)}, which this model does not know; "
            f"its experts are {', '.join(names)}"
        )


def _check_finite(features: Tensor, mask: Tensor, rows: Sequence[str], what: str) -> None:
    """`features` are those of the tokens at which `mask` [b, n] is true."""
    if len(features) and all(abs(bound.item()) <= GREATEST for bound in features.aminmax()):
        return
    bad = ~(features.abs() <= GREATEST).all(dim=1)  # NaN is not, either
    if bad.any():
        row, token = mask.nonzero()[bad.nonzero()[0, 0]].tolist()
        raise InputError(
            f"{rows[row]}, {what}: token {token} holds NaN, infinity or more than {GREATEST:g}, "
            "expected finite float32 numbers where features_ind is 1"
        )


def _names(mapping: Mapping[str, Any]) -> str:
    return ", ".join(map(str, mapping)) or "none"


def _shape(tensor: Tensor) -> str:
    return str(tuple(tensor.shape))
