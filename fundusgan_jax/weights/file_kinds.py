"""Says what a file is that was taken for weights, by its content: its format, a web page, another project's network."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from fundusgan_jax.errors import UserError

Format = Literal["npz", "safetensors", "torch"]
_SUFFIXES: dict[str, Format] = {
    ".safetensors": "safetensors",
    ".pt": "torch",
    ".pth": "torch",
    ".pkl": "torch",
    ".bin": "torch",
}
HEAD_BYTES = 1024
_AGAIN = "fetch it again, and look whether the address needs a login"
# What a file begins with (letters in lower case, spaces before it left out) -> what it is, and what to do.
_BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file that it stands for", "run 'git lfs pull' in its repository"),
    (b"<!doctype", "a web page", _AGAIN),
    (b"<html", "a web page", _AGAIN),
    (b"<?xml", "an XML text, as servers answer to a refused download", _AGAIN),
    (b"{", "a JSON text, as servers answer to a refused download", _AGAIN),
    (b"\x89png", "a PNG picture", "name the file of weights"),
    (b"\xff\xd8\xff", "a JPEG picture", "name the file of weights"),
    (b"%pdf", "a PDF document", "name the file of weights"),
    (b"\x89hdf", "an HDF5 file, as Keras writes", "convert it to .npz or .safetensors"),
    (b"\x1f\x8b", "a gzip archive", "unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a Zstandard archive", "unpack it first"),
    (b"rar!", "a RAR archive", "unpack it first"),
    (b"\x93numpy", "a single NumPy array (.npy), not a network", "name the file of weights"),
    (b"gguf", "a GGUF file of a language model", "name the file of weights"),
)  # fmt: skip
_CONVERT = "stylegan2-ada-pytorch's legacy.py makes a .pkl of it that is read here"
# What a pickle names that is refused -> what it is, and what to do.
_PICKLED: tuple[tuple[bytes, str, str], ...] = (
    (b"dnnlib.tflib", "a TensorFlow pickle of NVIDIA's StyleGAN", _CONVERT),
    (b"SynthesisInput", "a StyleGAN3 pickle", "StyleGAN3 is not read here, StyleGAN2's networks are"),
    (b"networks_stylegan3", "a StyleGAN3 pickle", "StyleGAN3 is not read here, StyleGAN2's networks are"),
)
# Names of arrays that a network has, all of them -> what it is, and what to do.
_NETWORKS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    ((r"synthesis\.(input\.|L\d+_)",), "a StyleGAN3", "StyleGAN3 is not read here, StyleGAN2's networks are"),
    (
        (r"(^|\.)encoder\.", r"(^|\.)decoder\."),
        "a checkpoint of pSp, e4e or StyleGANEX: an encoder and a decoder in one",
        "name the file of the StyleGAN2 that it was trained with",
    ),
    ((r"(^|\.)progression\.\d",), "a StyleGAN of the first version", "StyleGAN2's networks are read here"),
    ((r"(^|\.)layer1\.0\.conv1\.weight$",), "a ResNet", "name a file of StyleGAN2 weights"),
    ((r"(^|\.)features\.0\.weight$",), "a VGG, AlexNet or SqueezeNet", "name a file of StyleGAN2 weights"),
    ((r"(^|\.)Mixed_5b\.",), "an Inception-v3", "name a file of StyleGAN2 weights"),
    ((r"diffusion_model\.|down_blocks\.0\.",), "a diffusion model", "name a file of StyleGAN2 weights"),
    ((r"synthesis\.b4\.const$",), "a network in stylegan2-ada-pytorch's names", "give --from=stylegan2-ada-pytorch"),
    ((r"(^|\.)input\.input$",), "a network in rosinality's names", "give --from=rosinality"),
    ((r"^synthesis/const$",), "an export of ours", "give --from=fundusgan_jax"),
)  # fmt: skip


def format_of(path: Path) -> Format:
    """How a file of arrays is written: by its content, where that does not tell by its suffix.

    Raises:
        UserError: it is a folder, empty, or something else than arrays; the line says what.
        FileNotFoundError: it is not there.
        OSError: it cannot be read.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; name a file of weights")
    with open(path, "rb") as file:
        head, size = file.read(HEAD_BYTES), os.fstat(file.fileno()).st_size
    if not head:
        raise UserError(f"{path} is an empty file (0 bytes); fetch it again")
    by_suffix = _SUFFIXES.get(path.suffix, "npz")
    if head[:2] == b"PK":
        return _format_of_archive(path, by_suffix)
    if 0 < int.from_bytes(head[:8], "little") <= size - 8 and head[8:9] == b"{":
        return "safetensors"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for beginning, what, mend in _BEGINNINGS:
        if text.startswith(beginning):
            raise UserError(f"{path} is {what}; {mend}")
    return "torch" if head[:1] == b"\x80" else by_suffix


def _format_of_archive(path: Path, by_suffix: Format) -> Format:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError, EOFError):
        return by_suffix  # damaged: who reads it says so
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        if any("/code/" in name for name in names):
            raise UserError(
                f"{path} is a TorchScript program, not a file of weights; save its state_dict() instead"
            )
        return "torch"
    if any(name.endswith(".npy") for name in names):
        return "npz"
    shown = f"for example {names[0][:80]}" if names else "it is empty"
    raise UserError(
        f"{path} is a zip archive of other files ({shown}); unpack it, or name the file of weights"
    )


def pickled_kind(path: Path) -> str:
    """What a pickle is that names more than tensors: 'a StyleGAN3 pickle; ...', or ''."""
    with open(path, "rb") as file:
        content = file.read(1 << 26)
    return next((f"{what}; {mend}" for sign, what, mend in _PICKLED if sign in content), "")


def network_kind(names: Iterable[str], asked: str) -> str:
    """What network has arrays of these names: 'a ResNet; name ...', or '' where nothing is known or it is as asked."""
    names = list(names)
    for signs, what, mend in _NETWORKS:
        if all(any(re.search(sign, name) for name in names) for sign in signs):
            return "" if mend.endswith(f"--from={asked}") else f"{what}; {mend}"
    return ""
