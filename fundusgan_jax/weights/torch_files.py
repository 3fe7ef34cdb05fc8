"""Reads PyTorch's .pt and NVIDIA's .pkl files without PyTorch and without executing what they contain.

A pickle is a program: it may name any function of any module and call it. The reader here admits a short list of
names (tensors, plain containers, NVIDIA's module wrapper), puts harmless functions of its own in their place and
refuses every other name. Formats: `torch.save`'s archive and its form before PyTorch 1.6, and NVIDIA's network pickles
(stylegan2-ada-pytorch), whose tensors are pickled one by one.
"""

from __future__ import annotations

import io
import math
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.file_kinds import pickled_kind

_DTYPES = {
    "Double": np.dtype(np.float64),
    "Float": np.dtype(np.float32),
    "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(jnp.bfloat16),
    "Long": np.dtype(np.int64),
    "Int": np.dtype(np.int32),
    "Short": np.dtype(np.int16),
    "Char": np.dtype(np.int8),
    "Byte": np.dtype(np.uint8),
    "Bool": np.dtype(np.bool_),
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


class Module(dict[str, Any]):
    """NVIDIA's module as it was pickled: 'class_name' and 'state', the module's attributes."""

    def state_dict(self) -> dict[str, np.ndarray]:
        """Parameters and buffers by their dotted names."""
        return dict(_walk(self["state"], ""))


class _StorageType(NamedTuple):
    dtype: np.dtype[Any]


class _Storage:
    """A tensor's data, one-dimensional; None while it is only measured. A pickle can neither make nor change one."""

    def __init__(self, dtype: np.dtype[Any], values: np.ndarray | None) -> None:
        self.dtype, self.values = dtype, values

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a tensor's data")


class _Attributes(dict[str, Any]):
    """A dictionary that also takes attributes (EasyDict, Namespace): they become its items."""

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.update(state)


class _NamedArrays(OrderedDict[str, Any]):
    """A state dict; its versions ('_metadata') are left out."""

    def __setstate__(self, state: Any) -> None:
        pass


def _rebuild_tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> np.ndarray:
    """The array that a tensor is of its storage; a view that leaves the storage, or is larger, is refused."""
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor has no data of its own")
    if storage.values is None:
        return np.empty(0, storage.dtype)
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    values, count = storage.values, math.prod(size)
    if len(size) != len(stride) or min((offset, *size, *stride)) < 0:
        raise pickle.UnpicklingError("a tensor has impossible sizes")
    if count == 0:
        if max(size) > values.size:  # an array that claims rows it has no data for
            raise pickle.UnpicklingError("a tensor reaches beyond its data")
        return np.empty(size, storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride))
    if last >= values.size or count > values.size:
        raise pickle.UnpicklingError("a tensor reaches beyond its data")
    steps = tuple(step * values.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(values[offset:], size, steps).copy()


def _rebuild_parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    return data


def _rebuild_module(meta: Any) -> Module:
    """The wrapper's description; its source code ('module_src') is dropped, not run."""
    return Module(class_name=meta.get("class_name", ""), state=meta.get("state", {}))


class _NumpyDtype:
    """numpy.dtype as a pickle spells it: a code, then a state that says the byte order."""

    def __init__(self, code: str, *_: Any) -> None:
        self.dtype = np.dtype(code)
        if self.dtype.hasobject:
            raise pickle.UnpicklingError("it holds an array of Python objects")

    def __setstate__(self, state: Any) -> None:
        if state[1] in "<>":
            self.dtype = self.dtype.newbyteorder(state[1])


def _numpy_scalar(kind: _NumpyDtype, content: bytes | str) -> Any:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, kind.dtype)[0]


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    """How protocol 2 spells bytes."""
    return text.encode("latin1")


def _nested_storage(content: bytes) -> Any:
    return _read_legacy(io.BytesIO(content))


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _NamedArrays,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch.nn.parameter", "Parameter"): _rebuild_parameter,
    ("torch.storage", "_load_from_bytes"): _nested_storage,
    ("torch", "Size"): tuple,
    ("torch_utils.persistence", "_reconstruct_persistent_obj"): _rebuild_module,
    ("dnnlib.util", "EasyDict"): _Attributes,
    ("dnnlib", "EasyDict"): _Attributes,
    ("argparse", "Namespace"): _Attributes,
    ("builtins", "set"): set,
    ("__builtin__", "set"): set,
    ("_codecs", "encode"): _encoded,
    ("numpy", "dtype"): _NumpyDtype,
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
}
_ADMITTED |= {("torch", f"{name}Storage"): _StorageType(dtype) for name, dtype in _DTYPES.items()}


class _Bounded:
    """A file to unpickle from: a size beyond its end is refused before memory is asked for it."""

    def __init__(self, file: Any) -> None:
        self._file, place = file, file.tell()
        self._end, self._last = file.seek(0, io.SEEK_END), b""
        file.seek(place)

    def read(self, size: int) -> bytes:
        self._check(size)
        content = bytes(self._file.read(size))
        if (self._last, size) == (pickle.BYTEARRAY8, 8):
            # The interpreter makes a bytearray before it reads: of an absurd size it prints a line of its own.
            self._check(int.from_bytes(content, "little"))
        elif (self._last, size) == (pickle.LONG_BINPUT, 4):
            self._check_place(int.from_bytes(content, "little"))
        self._last = content
        return content

    def readline(self) -> bytes:
        line = bytes(self._file.readline())
        if self._last == pickle.PUT and line.strip().isdigit():
            self._check_place(int(line[:20]))
        self._last = line
        return line

    def _check(self, size: int) -> None:
        if size > self._end - self._file.tell():
            raise EOFError("it ends too early")

    def _check_place(self, place: int) -> None:
        """The memo is a table as long as its highest place; each place takes an instruction of the file."""
        if place > self._end:
            raise pickle.UnpicklingError("it has impossible places in its memo")


class _Unpickler(pickle.Unpickler):
    """Admits the names above. load_storage: what a persistent id stands for."""

    def __init__(self, file: Any, load_storage: Callable[[Any], Any] | None = None) -> None:
        super().__init__(_Bounded(file), encoding="latin1")
        self._load_storage = load_storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which weights have no need of")
        return _ADMITTED[module, name]

    def persistent_load(self, identifier: Any) -> Any:
        if self._load_storage is None:
            raise pickle.UnpicklingError("it refers to data outside of itself")
        return self._load_storage(identifier)


def read_torch(path: str | Path) -> Any:
    """What a .pt, .pth or .pkl file holds: dictionaries, lists, numbers, numpy arrays for tensors, `Module`s.

    Raises:
        UserError: the file is missing, of another kind or damaged, or names something that is not admitted.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            if zipfile.is_zipfile(file):
                return _read_archive(path)
            file.seek(0)
            first = _Unpickler(file).load()
            if not (isinstance(first, int) and first == _LEGACY_MAGIC):
                return first
            file.seek(0)
            return _read_legacy(file)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of a .pt or .pkl file") from None
    except pickle.UnpicklingError as error:
        kind = pickled_kind(path)
        if kind:
            raise UserError(f"{path} is {kind} ({error})") from error
        raise UserError(
            f"{path} is not read: {error}; only tensors and plain containers are admitted"
        ) from error
    except Exception as error:  # damaged, a pickle may raise whatever its instructions come to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged, or no file of PyTorch weights ({reason})") from error


def _read_archive(path: Path) -> Any:
    """torch.save's zip archive: NAME/data.pkl and the storages NAME/data/KEY."""
    with zipfile.ZipFile(path) as archive:
        program = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if program is None:
            raise ValueError("a zip archive without data.pkl")
        root = program.removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("its numbers are big-endian")
        loaded: dict[str, _Storage] = {}

        def load_storage(identifier: Any) -> _Storage:
            kind, key = identifier[1], str(identifier[2])
            if key not in loaded:
                dtype = _dtype_of(kind)
                loaded[key] = _Storage(dtype, np.frombuffer(archive.read(f"{root}data/{key}"), dtype))
            return loaded[key]

        return _Unpickler(io.BytesIO(archive.read(program)), load_storage).load()


def _dtype_of(kind: Any) -> np.dtype[Any]:
    if not isinstance(kind, _StorageType):
        raise pickle.UnpicklingError("its storages are of no known type")
    return kind.dtype


def _read_legacy(file: Any) -> Any:
    """torch.save before 1.6: three headers, the object, the storages' keys, then each storage's size and data.

    The object refers to storages whose data follow it: it is read once to learn their sizes, and again with them.
    """
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise ValueError("not torch.save's older form")
    if not _Unpickler(file).load().get("little_endian", True):
        raise ValueError("its numbers are big-endian")
    start = file.tell()
    sizes: dict[str, tuple[np.dtype[Any], int]] = {}

    def measure(identifier: Any) -> _Storage:
        kind, key, count = identifier[1], str(identifier[2]), int(identifier[4])
        sizes[key] = (_dtype_of(kind), count)
        return _Storage(_dtype_of(kind), None)

    _Unpickler(file, measure).load()
    keys = [str(key) for key in _Unpickler(file).load()]
    storages: dict[str, _Storage] = {}
    for key in keys:
        dtype, count = sizes[key]
        if struct.unpack("<q", file.read(8))[0] != count:
            raise ValueError(f"storage {key} has another size than its tensors say")
        content = file.read(count * dtype.itemsize)
        if len(content) != count * dtype.itemsize:
            raise EOFError("it ends before its last tensor")
        storages[key] = _Storage(dtype, np.frombuffer(content, dtype))
    file.seek(start)
    return _Unpickler(file, lambda identifier: storages[str(identifier[2])]).load()


def _walk(state: Any, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters and buffers of a pickled module and of those inside it."""
    for group in ("_parameters", "_buffers"):
        for name, value in (state.get(group) or {}).items():
            if isinstance(value, np.ndarray):
                yield prefix + name, value
    for name, module in (state.get("_modules") or {}).items():
        if isinstance(module, Module):
            yield from _walk(module["state"], f"{prefix}{name}.")
