"""Reads files of named arrays (.npz, .safetensors, PyTorch's state dicts) and writes the first two."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.checked_values import without_wrappers
from fundusgan_jax.weights.file_kinds import format_of
from fundusgan_jax.weights.torch_files import read_torch

# Texts that go with the arrays: safetensors' own place for them, and an array of that name in .npz.
METADATA = "__metadata__"
_SAFETENSORS_DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
}


def _read_state_dict(path: Path) -> dict[str, np.ndarray]:
    content = read_torch(path)
    arrays = (
        {k: v for k, v in content.items() if isinstance(v, np.ndarray)} if isinstance(content, dict) else {}
    )
    if not arrays:
        raise UserError(f"{path} holds no state dict (names and tensors); name a file that does")
    return arrays


def read_flat(path: str | Path) -> dict[str, np.ndarray]:
    """All arrays of a .npz or .safetensors file, or of a state dict of PyTorch's, by name; the prefix of DataParallel or
    torch.compile is taken off.

    Raises:
        UserError: the file is missing, truncated, of another kind (the line says of which), or holds Python objects.
    """
    path = Path(path)
    try:
        return without_wrappers(_READERS[format_of(path)](path))
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(
            f"{path} does not exist; give the path of a .npz, .safetensors or .pth file"
        ) from None
    except Exception as error:  # of damaged files the libraries' parsers raise whatever they come to
        raise _unreadable(path, error) from error


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        if len(set(archive.files)) < len(archive.files):
            raise ValueError("two of its arrays have one name")
        return {name: archive[name] for name in archive.files if name != METADATA}


def _unreadable(path: Path, error: Exception) -> UserError:
    reason = str(error).split("\n")[0] or type(error).__name__
    if "allow_pickle" in reason:  # what NumPy says of any file that it does not know
        reason = "its content is of neither kind"
    return UserError(
        f"{path} cannot be read as a .npz or .safetensors file of plain arrays ({reason}); "
        "fetch or make it again"
    )


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Format: uint64 length, that many bytes of JSON {name: {dtype, shape, data_offsets}}, the data."""
    with open(path, "rb") as file:
        header, content = _safetensors_header(file), file.read()
    _check_places(header, len(content))
    arrays = {}
    for name, entry in header.items():
        if name != METADATA:
            start, end = entry["data_offsets"]
            array = np.frombuffer(content[start:end], _SAFETENSORS_DTYPES[entry["dtype"]])
            arrays[name] = array.reshape(entry["shape"])
    return arrays


def _check_places(header: Mapping[str, Any], size: int) -> None:
    """The format allows neither gaps nor overlaps, so that a damaged place is told from a sound one.

    Raises:
        ValueError: the arrays do not cover the data, each byte once.
    """
    places = sorted(tuple(entry["data_offsets"]) for name, entry in header.items() if name != METADATA)
    starts, ends = [0, *(end for _, end in places)], [*(start for start, _ in places), size]
    if starts != ends or any(end < start for start, end in places):
        raise ValueError("its arrays do not cover its data, each byte once")


_READERS = {"npz": _read_npz, "safetensors": _read_safetensors, "torch": _read_state_dict}


def _safetensors_header(file: BinaryIO) -> dict[str, Any]:
    (length,) = struct.unpack("<Q", file.read(8))
    if length > os.fstat(file.fileno()).st_size - 8:
        raise ValueError("its header is cut off")
    header = json.loads(file.read(length), object_pairs_hook=_unlike)
    if not isinstance(header, dict):
        raise ValueError("its header names no arrays")
    return header


def _unlike(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object of pairs; ValueError where two have one name, of which a dictionary keeps the last."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("two of its arrays have one name")
    return content


def read_metadata(path: str | Path) -> dict[str, str]:
    """The texts that `write_flat` put beside the arrays of a .npz or .safetensors file; empty where there are none.

    Raises:
        UserError: as of `read_flat`.
    """
    path = Path(path)
    try:
        kind = format_of(path)
        if kind == "safetensors":
            with open(path, "rb") as file:
                return dict(_safetensors_header(file).get(METADATA, {}))
        if kind == "torch":
            return {}
        with np.load(path, allow_pickle=False) as archive:
            return dict(json.loads(archive[METADATA].tobytes())) if METADATA in archive.files else {}
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; give the path of a .npz or .safetensors file") from None
    except Exception as error:  # as in `read_flat`
        raise _unreadable(path, error) from error


def write_flat(
    path: str | Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None
) -> None:
    """Writes named arrays as .npz or .safetensors, atomically; `read_flat` returns the same bits.

    Args:
        path: its suffix says which.
        arrays: of float64, float32, float16, bfloat16, int64 or int32 for .safetensors; .npz has no bfloat16.
        metadata: texts that `read_metadata` returns.

    Raises:
        UserError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in (".npz", ".safetensors"):
        raise UserError(f"{path}: the name of a file of arrays ends in .npz or .safetensors")
    with atomic_write(path) as temporary:
        if path.suffix == ".npz":
            texts = np.frombuffer(json.dumps(dict(metadata)).encode(), np.uint8) if metadata else None
            np.savez(temporary, **arrays, **({METADATA: texts} if metadata else {}))  # type: ignore[arg-type]
        else:
            _write_safetensors(temporary, arrays, metadata or {})


def _write_safetensors(path: Path, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> None:
    """The format of `_read_safetensors`. Data without gaps, wider numbers first, from a multiple of 8 on: every
    array is aligned for who maps the file into memory."""
    codes = {dtype: code for code, dtype in _SAFETENSORS_DTYPES.items()}
    header: dict[str, Any] = {METADATA: {"format": "np", **metadata}}
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    end = 0
    for name in names:
        array, start = arrays[name], end
        end += array.nbytes
        header[name] = {
            "dtype": codes[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(arrays[name].astype(arrays[name].dtype.newbyteorder("<"), copy=False).tobytes())
