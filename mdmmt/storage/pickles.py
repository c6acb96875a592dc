"""Torch files with pickles of more than tensors; nothing in them runs when they are read.

`torch.load` refuses such a file as a whole. Here a name in a pickle never leads to an import: a few
names stand for functions of this module, which build tensors, and every other one for a class of
objects that are skipped. All operations of pickles that call or change something are replaced.
"""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import torch
from torch import Tensor

PYTHON_UNPICKLER: Any = vars(pickle)["_Unpickler"]  # its types are not known
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # begins files of torch before 1.6
LEGACY_PROTOCOL = 1001
MAX_SKIPPED = 1000  # names that are noted


class Skipped:
    """An object of a class that a pickle names; neither is known, and neither was imported."""

    def __init__(self, name: str) -> None:
        self.name = name


class _DType:
    """A storage class of torch, such as `torch.FloatStorage`."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


class _Storage:
    """A storage of a file, with its numbers' type and the bytes that the file has for it."""

    def __init__(self, untyped: torch.UntypedStorage, dtype: torch.dtype) -> None:
        self.untyped = untyped
        self.dtype = dtype


STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


def read_pickle(file: Path) -> tuple[Any, list[str]]:
    """Read the content of a torch file.

    Returns:
        The content, with a `Skipped` for each object of another class; and the places and classes
        of those objects, such as 'config (argparse.Namespace)'.

    Raises:
        Exception: any, if the file is damaged, or is no torch file.
    """
    content = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
    return content, _list_skipped(content)


def _read_zip(file: Path) -> Any:
    reader: Any = torch._C.PyTorchFileReader(str(file))  # its types lack methods
    size = file.stat().st_size
    if reader.has_record("byteorder") and reader.get_record("byteorder") != b"little":
        raise pickle.UnpicklingError("its numbers are not little-endian")
    whole = torch.UntypedStorage.from_file(str(file), False, size)
    storages: dict[str, _Storage] = {}

    def load(identifier: Any) -> Any:
        dtype, key, count = _parse_identifier(identifier)
        if key not in storages:
            start = reader.get_record_offset(f"data/{key}")
            end = start + count * dtype.itemsize
            if not 0 <= start <= end <= size:
                raise pickle.UnpicklingError(f"the storage {key} is cut short")
            storages[key] = _Storage(whole[start:end], dtype)
        return storages[key]

    return _Unpickler(io.BytesIO(reader.get_record("data.pkl")), load).load()


def _read_legacy(file: Path) -> Any:
    if tarfile.is_tarfile(file):
        raise pickle.UnpicklingError("it has torch's oldest format, tar")
    size = file.stat().st_size
    storages: dict[str, _Storage] = {}
    counts: dict[str, int] = {}

    def load(identifier: Any) -> Any:
        dtype, key, count = _parse_identifier(identifier)
        if identifier[5] is not None:
            raise pickle.UnpicklingError("it has views of storages")
        if key not in storages:
            if sum(counts.values()) + count * dtype.itemsize > size:
                raise pickle.UnpicklingError(f"the storage {key} is cut short")
            counts[key] = count * dtype.itemsize
            storages[key] = _Storage(torch.UntypedStorage(count * dtype.itemsize), dtype)
        return storages[key]

    with file.open("rb") as stream:
        first = _Unpickler(stream, load).load()
        if isinstance(first, Skipped):  # a bare pickle
            return first
        if first != LEGACY_MAGIC or _Unpickler(stream, load).load() != LEGACY_PROTOCOL:
            raise pickle.UnpicklingError("it lacks the mark of torch files")
        _Unpickler(stream, load).load()  # byte order and sizes of the writing machine
        content = _Unpickler(stream, load).load()
        for key in _Unpickler(stream, load).load():
            _fill(storages[key], counts[key], stream)
    return content


def _fill(storage: _Storage, size: int, stream: BinaryIO) -> None:
    (count,) = struct.unpack("<q", stream.read(8))
    content = stream.read(size)
    if count * storage.dtype.itemsize != size or len(content) != size:
        raise pickle.UnpicklingError("a storage is cut short")
    if size:
        target = torch.empty(0, dtype=torch.uint8).set_(storage.untyped)
        target.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8))


def _parse_identifier(identifier: Any) -> tuple[torch.dtype, str, int]:
    """Type of the numbers, key and number of a storage."""
    kind, dtype, key, _, count = identifier[:5]
    if kind != "storage" or not isinstance(dtype, _DType) or not isinstance(key, str):
        raise pickle.UnpicklingError("it names a storage of an unknown kind")
    if not isinstance(count, int) or count < 0:
        raise pickle.UnpicklingError(f"its storage {key} has a wrong size")
    return dtype.dtype, key, count


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_more: Any) -> Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("it has a tensor without a storage")
    tensor = torch.empty(0, dtype=storage.dtype)
    # `set_` checks that the storage holds all of it; it would enlarge one that can be resized.
    count = storage.untyped.nbytes() // storage.dtype.itemsize
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if min((offset, *size, *stride)) < 0 or (0 not in size and last >= count):
        raise pickle.UnpicklingError("a tensor is larger than its storage")
    return tensor.set_(storage.untyped, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data: Any, *_more: Any) -> Any:
    return data


def _make_dict(*values: Any) -> dict[Any, Any]:
    return dict(*values[:1])


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
    "collections.OrderedDict": _make_dict,
}


class _Name:
    """A stand-in for a name in a pickle."""

    def __init__(self, name: str) -> None:
        self.name = name

    def call(self, arguments: Any) -> Any:
        function = FUNCTIONS.get(self.name)
        return Skipped(self.name) if function is None else function(*arguments)


class _Unpickler(PYTHON_UNPICKLER):  # type: ignore[misc] # see its base
    """Python's unpickler in Python, whose operations can be replaced one by one."""

    dispatch: ClassVar[dict[int, Any]] = dict(PYTHON_UNPICKLER.dispatch)

    def __init__(self, stream: Any, load_storage: Callable[[Any], Any]) -> None:
        super().__init__(stream, encoding="utf-8", errors="replace")
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        """Stand-ins alone. Python's own method would import the module."""
        if module == "torch" and name in STORAGES:
            return _DType(STORAGES[name])
        return _Name(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return self._load_storage(pid)

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        self.stack[-1] = _call(self.stack[-1], arguments)

    def load_newobj_ex(self) -> None:
        self.stack.pop()
        self.load_reduce()

    def load_obj(self) -> None:
        name, *arguments = self.pop_mark()
        self.append(_call(name, arguments))

    def load_inst(self) -> None:
        module = self.readline()[:-1].decode("ascii")
        name = self.readline()[:-1].decode("ascii")
        self.append(_call(self.find_class(module, name), self.pop_mark()))

    def load_build(self) -> None:
        self.stack.pop()  # a state, which changes nothing

    def load_append(self) -> None:
        value = self.stack.pop()
        if isinstance(self.stack[-1], list):
            self.stack[-1].append(value)

    def load_appends(self) -> None:
        values = self.pop_mark()
        if isinstance(self.stack[-1], list):
            self.stack[-1].extend(values)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        if isinstance(self.stack[-1], dict):
            self.stack[-1][key] = value

    def load_setitems(self) -> None:
        values = self.pop_mark()
        if isinstance(self.stack[-1], dict):
            self.stack[-1].update(zip(values[::2], values[1::2], strict=True))

    def load_additems(self) -> None:
        values = self.pop_mark()
        if isinstance(self.stack[-1], set):
            self.stack[-1].update(values)

    def load_extension(self) -> None:
        raise pickle.UnpicklingError("it names a class by number")

    def load_buffer(self) -> None:
        raise pickle.UnpicklingError("it has buffers outside the pickle")

    dispatch |= {
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.OBJ[0]: load_obj,
        pickle.INST[0]: load_inst,
        pickle.BUILD[0]: load_build,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.ADDITEMS[0]: load_additems,
        pickle.EXT1[0]: load_extension,
        pickle.EXT2[0]: load_extension,
        pickle.EXT4[0]: load_extension,
        pickle.NEXT_BUFFER[0]: load_buffer,
        pickle.READONLY_BUFFER[0]: load_buffer,
    }


def _call(name: Any, arguments: Any) -> Any:
    if isinstance(name, _Name):
        return name.call(arguments)
    return Skipped(name.name if isinstance(name, Skipped) else type(name).__name__)


def _list_skipped(content: Any) -> list[str]:
    """The places of skipped objects in a content, by its outermost keys."""
    if not isinstance(content, dict):
        return [content.name] if isinstance(content, Skipped | _Name) else []
    places: list[str] = []
    for key, value in content.items():
        names: dict[str, None] = {}
        visited: set[int] = set()
        todo = [value]
        while todo and len(names) < MAX_SKIPPED:
            one = todo.pop()
            if id(one) in visited:
                continue
            visited.add(id(one))
            if isinstance(one, Skipped | _Name):
                names[one.name] = None
            elif isinstance(one, dict):
                todo += [*one.keys(), *one.values()]
            elif isinstance(one, list | tuple | set | frozenset):
                todo += one
        place = str(key.name if isinstance(key, Skipped | _Name) else key)[:80]
        places += [f"{place} ({name[:80]})" for name in names]
    return places[:MAX_SKIPPED]
