"""Tensors of .pth and .safetensors files, read strictly and safely, for any model.

No code in pickles runs: `weights_only=True` opens them, or `pickles.read_pickle` does. An unknown
or missing key, a wrong shape, and NaN or infinity are errors that list the keys.
"""

from __future__ import annotations

import logging
import math
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import WeightsError
from .facts import mark_of, recall, remember
from .pickles import Skipped, read_pickle

logger = logging.getLogger(__name__)

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# Buffers may count in them; `load_strict` refuses them for weights.
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
ALIGNMENT = 64  # bytes; PyTorch allocates at multiples of it
MAX_NAMES = 8  # names that an error lists; it counts the rest


class CheckpointLayout(NamedTuple):
    """How checkpoints of one kind spell their keys: keys to rename, and keys to ignore."""

    renames: tuple[tuple[str, str], ...] = ()  # (pattern, replacement), applied in this order
    ignored: tuple[str, ...] = ()  # patterns of keys to skip, matched after the renames
    nested: tuple[str, ...] = ("state_dict",)  # keys of a pickle under which tensors may lie


class Checkpoint(NamedTuple):
    """The content of a file."""

    tensors: dict[str, Tensor]  # under the names that the layout gives them
    nested: tuple[str, ...] = ()  # keys of a pickle under which tensors lie
    skipped: tuple[str, ...] = ()  # places and classes of what a pickle holds beside tensors


def read_checkpoint(
    file: Path, layout: CheckpointLayout, prefixes: tuple[str, ...] = ("",)
) -> Checkpoint:
    """Read a .pth or .safetensors file.

    Args:
        prefixes: a tensor whose name starts with none of them may come without its values.

    Raises:
        WeightsError: the file cannot be read, or holds something other than tensors.
    """
    if file.suffix in PICKLES:
        return _read_pickle(file, layout)
    return Checkpoint(_read_safetensors(file, layout, prefixes))


def read_tensors(
    file: Path, layout: CheckpointLayout, prefixes: tuple[str, ...] = ("",)
) -> dict[str, Tensor]:
    """Read the tensors of a file, see `read_checkpoint`."""
    return read_checkpoint(file, layout, prefixes).tensors


def load_file(module: nn.Module, file: Path, read: Callable[[], dict[str, Tensor]]) -> None:
    """Give a module the weights of a file, see `load_strict`.

    That the weights are finite is checked once, and again when the file has changed. So a later
    start need not read them all before it computes.

    Args:
        file: holds all the tensors.
        read: reads the tensors from it.

    Raises:
        WeightsError: `read` or `load_strict` raises it.
    """
    mark, topic = mark_of(file), f"{type(module).__name__} is finite"
    state = read()
    known = recall(mark, topic) is not None and mark == mark_of(file)
    load_strict(module, state, file, known)
    if not known:
        remember(mark, topic, "yes")


def load_strict(
    module: nn.Module,
    state: dict[str, Tensor],
    source: Path | str,
    known_finite: bool = False,
) -> None:
    """Give a module its weights as float32. The module takes the tensors over without a copy.

    Empties `state`, so that at most one tensor at a time exists twice.

    Args:
        source: the file, for the error.
        known_finite: whether these tensors were checked before and hold no NaN or infinity.

    Raises:
        WeightsError: keys are unknown or missing, or tensors have another shape or hold NaN or
            infinity; lists them.
    """
    expected = module.float().state_dict()  # torch's default dtype may be another
    unknown = [name for name in state if name not in expected]
    missing = [name for name in expected if name not in state]
    shapes = [
        f"{name} {tuple(state[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    dtypes = [
        f"{name} of {_kind(state[name])} instead of {_kind(tensor)}"
        for name, tensor in expected.items()
        if name in state and (state[name].dtype in FLOATS) != (tensor.dtype in FLOATS)
    ]
    problems = [
        f"{problem}: {join_names(names)}"
        for problem, names in (
            ("unknown keys", unknown),
            ("missing keys", missing),
            ("other shapes", shapes),
            ("other kinds of numbers", dtypes),
        )
        if names
    ]
    if problems:
        raise WeightsError(f"{source} does not fit the model; {'; '.join(problems)}")
    ready = {name: state.pop(name).to(expected[name].dtype) for name in list(state)}
    broken = [] if known_finite else [name for name in ready if not _is_finite(ready[name])]
    if broken:
        raise WeightsError(
            f"{source} holds NaN or infinity (as float32) in {join_names(broken)}, expected finite "
            "numbers, since others give vectors of NaN: get the file again, or take weights from "
            "before the training failed"
        )
    module.load_state_dict(ready, assign=True)


def align(module: nn.Module) -> None:
    """Align all parameters of a module but embedding tables, which no matrix product reads."""
    for part in module.modules():
        if not isinstance(part, nn.Embedding):
            for parameter in part.parameters(recurse=False):
                parameter.data = aligned(parameter.data)


def aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a 64-byte-aligned copy of an unaligned one.

    Matrix products add unaligned operands, such as those of a memory-mapped file, in another order.
    """
    return tensor if tensor.data_ptr() % ALIGNMENT == 0 else tensor.clone()


def join_names(names: Sequence[str]) -> str:
    """The first names, and the number of the others."""
    rest = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds no NaN and no infinity."""
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    least, most = torch.aminmax(tensor.detach())  # one pass; a NaN makes both NaN
    return math.isfinite(least) and math.isfinite(most)


def _read_safetensors(
    file: Path, layout: CheckpointLayout, prefixes: tuple[str, ...]
) -> dict[str, Tensor]:
    """Map the tensors with one of the prefixes; the others are empty, on the meta device."""
    try:
        with safe_open(file, framework="pt") as tensors:
            keys = list(tensors.keys())
        state: dict[str, Tensor] = {}
        for key in keys:
            name = _rename(key, layout, file, state)
            if name is None:
                continue
            if not name.startswith(prefixes):
                state[name] = torch.empty(0, device="meta")
                continue
            # A mapping for each tensor, so that its pages leave the memory with the tensor.
            with safe_open(file, framework="pt") as tensors:
                state[name] = tensors.get_tensor(key)
            _check_tensor(state[name], key, file)
        return state
    except WeightsError:
        raise
    except Exception as error:  # mostly SafetensorError; torch may lack a dtype
        raise WeightsError(f"{file} is not a readable safetensors file: {error}") from error


def load_pickle(file: Path) -> tuple[Mapping[Any, Any], list[str]]:
    """Load a torch file; objects other than tensors are skipped, and nothing in them runs.

    Returns:
        The file's dict, and the places and classes of what was skipped.

    Raises:
        WeightsError: the file is damaged, or holds no dict.
    """
    skipped: list[str] = []
    try:
        # torch can map a file in its zip format, so that a tower reads only its own pages.
        content = torch.load(
            file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)
        )
    except pickle.UnpicklingError:
        try:
            content, skipped = read_pickle(file)
        except Exception as error:
            raise WeightsError(
                f"{file} holds Python objects that are not tensors, or is damaged "
                f"({type(error).__name__}: {error}); nothing in it was run: save the tensors "
                "alone, best as .safetensors"
            ) from error
    except Exception as error:  # a damaged file makes torch.load raise nearly anything
        raise WeightsError(
            f"{file} is not a torch file, or is damaged or cut short "
            f"({type(error).__name__}: {error})"
        ) from error
    if skipped and not isinstance(content, Mapping):
        raise WeightsError(
            f"{file} holds Python objects that are not tensors ({join_names(skipped)}); nothing in "
            "it was run: save the tensors alone, best as .safetensors"
        )
    if not isinstance(content, Mapping):
        raise WeightsError(f"{file} holds a {type(content).__name__}, expected a dict of tensors")
    return content, skipped


def _read_pickle(file: Path, layout: CheckpointLayout) -> Checkpoint:
    content, skipped = load_pickle(file)
    if skipped:
        logger.info("%s: skipped objects that are not tensors: %s", file, join_names(skipped))
    nested = tuple(key for key in layout.nested if isinstance(content.get(key), Mapping))
    state: dict[str, Tensor] = {}
    for part in [content[key] for key in nested] or [content]:
        for key, tensor in part.items():
            name = _rename(str(key), layout, file, state)
            if name is None:
                continue
            if not isinstance(tensor, Tensor):
                beside = f"; it holds Python objects: {join_names(skipped)}" if skipped else ""
                raise WeightsError(
                    f"{file}: {key} is {_class_of(tensor)}, expected a tensor{beside}"
                )
            _check_tensor(tensor, str(key), file)
            state[name] = tensor
    return Checkpoint(state, nested, tuple(skipped))


def _class_of(value: object) -> str:
    return value.name if isinstance(value, Skipped) else f"a {type(value).__name__}"


def _check_tensor(tensor: Tensor, key: str, file: Path) -> None:
    """Refuse tensors other than plain arrays of numbers in this file.

    Raises:
        WeightsError: naming file and key.
    """
    if tensor.is_meta:
        kind = "has no values (it lies on the meta device)"
    elif tensor.layout != torch.strided or tensor.is_quantized:
        kind = f"is {_kind(tensor)}"
    elif tensor.dtype not in FLOATS and tensor.dtype not in INTEGERS:
        kind = f"is of {_kind(tensor)}"
    else:
        return
    raise WeightsError(f"{file}: {key} {kind}, expected an array of floating-point numbers")


def _kind(tensor: Tensor) -> str:
    """The kind of a tensor in words."""
    if tensor.is_quantized:
        return "quantised"
    if tensor.layout != torch.strided:
        return "sparse"
    return str(tensor.dtype).removeprefix("torch.")


def _rename(
    key: str, layout: CheckpointLayout, file: Path, state: Mapping[str, Tensor]
) -> str | None:
    """The name that the layout gives a key, or None for a key to ignore.

    Raises:
        WeightsError: `state` holds a tensor of this name already.
    """
    name = key
    for pattern, replacement in layout.renames:
        name = re.sub(pattern, replacement, name)
    if any(re.search(pattern, name) for pattern in layout.ignored):
        return None
    if name in state:
        raise WeightsError(f"{file} holds {name} twice, once as {key}")
    return name
