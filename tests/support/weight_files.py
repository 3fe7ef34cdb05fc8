"""Files that are handed to `weights import`: networks in the formats that are read, and what is none; shared by tests."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tests.weights.test_import_stylegan import nvidia_generator

# The smallest network that the settings allow.
CHANNELS = {4: 2, 8: 2, 16: 2}
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 381673535\n"


def network(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """A small generator in NVIDIA's names; changes: arrays by their last names, with '__' for the dot."""
    flat = {f"G_ema.{name}": x for name, x in nvidia_generator(CHANNELS).items()}
    return flat | {f"G_ema.{name.replace('__', '.')}": x for name, x in changes.items()}


def npz(flat: Mapping[str, np.ndarray], compressed: bool = False) -> bytes:
    file = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(file, **flat)
    return file.getvalue()


def safetensors(flat: Mapping[str, np.ndarray]) -> bytes:
    """By the format's description, not by our writer."""
    header, data = {}, b""
    for name, x in flat.items():
        header[name] = {
            "dtype": "F32",
            "shape": list(x.shape),
            "data_offsets": [len(data), len(data) + x.nbytes],
        }
        data += np.asarray(x, np.float32).tobytes()
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def archive(**files: bytes) -> bytes:
    """A zip archive; names with '__' for the slash."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as written:
        for name, data in files.items():
            written.writestr(name.replace("__", "/"), data)
    return content.getvalue()


def naming(module: str, name: str) -> bytes:
    """A pickle of a dictionary with one object of a class that need not exist here."""
    return b"\x80\x02}q\x00X\x01\x00\x00\x00Gq\x01c" + f"{module}\n{name}\n".encode() + b")\x81q\x02s."


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def ones(*names: str) -> dict[str, np.ndarray]:
    """Arrays of these names."""
    return {name: np.ones((2, 2), np.float32) for name in names}


def changed(content: bytes, rng: np.random.Generator) -> bytes:
    """One of the ways in which files come to harm: bits, a cut, a hole, a repetition, other bytes, bytes too many."""
    data, place = bytearray(content), int(rng.integers(len(content)))
    length = int(min(2 ** rng.integers(0, 10), len(content) - place))
    match int(rng.integers(7)):
        case 0:
            for where in rng.integers(0, len(data), int(rng.integers(1, 9))).tolist():
                data[where] ^= 1 << int(rng.integers(8))
        case 1:
            del data[place:]
        case 2:
            data[place : place + length] = bytes(length)
        case 3:
            data[place:place] = data[place : place + length]
        case 4:
            data[place : place + length] = rng.bytes(length)
        case 5:
            del data[place : place + length]
        case _:
            # Where formats keep their sizes.
            where = int(rng.integers(min(len(data) - 8, 400)))
            data[where : where + 8] = rng.bytes(8)
    return bytes(data)


def mutated(number: int, sound: list[tuple[str, bytes]]) -> tuple[str, bytes]:
    """(suffix, content) of file `number` of a fuzz test: one of the sound files, harmed once to three times."""
    rng = np.random.default_rng([26, number])
    suffix, content = sound[number % len(sound)]
    for _ in range(int(rng.integers(1, 4))):
        content = changed(content, rng) if len(content) > 8 else content
    return suffix, content


PICKLED_LIST = pickle.dumps([1, 2, 3], 2)
