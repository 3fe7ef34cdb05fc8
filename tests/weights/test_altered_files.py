"""Files of weights that are sound as files but hold another network than their names say: refused in one line, or imported with
the very numbers of the file, and what is missing or left out is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.ops.trees import named_leaves
from fundusgan_jax.weights.__main__ import main
from fundusgan_jax.weights.flat_file import read_flat, write_flat
from fundusgan_jax.weights.import_networks import read_networks
from tests.support.weight_files import CHANNELS, npz, safetensors, written
from tests.weights.test_import_prior import prefixed
from tests.weights.test_import_stylegan import (
    nvidia_discriminator,
    nvidia_generator,
    rosinality_discriminator,
    rosinality_generator,
)

Flat = dict[str, np.ndarray]


def sound(naming: str) -> Flat:
    """A small prior with generator, its average and discriminator."""
    average, judge = nvidia_generator(CHANNELS), nvidia_discriminator(CHANNELS)
    trained = nvidia_generator(CHANNELS, seed=7)
    if naming == "rosinality":
        parts = {"g_ema": rosinality_generator(average), "g": rosinality_generator(trained)}
        return prefixed(**parts, d=rosinality_discriminator(judge))
    return prefixed(G_ema=average, G=trained, D=judge)


def _uneven(flat: Flat, rng: np.random.Generator) -> str:
    """An array whose transpose has another shape."""
    names = [name for name, x in flat.items() if x.ndim > 1 and x.shape != x.shape[::-1]]
    return names[int(rng.integers(len(names)))]


def _any(flat: Flat, rng: np.random.Generator, axes: int = 0) -> str:
    names = [name for name, x in flat.items() if x.ndim >= axes]
    return names[int(rng.integers(len(names)))]


def _typo(flat: Flat, rng: np.random.Generator) -> Flat:
    name = _any(flat, rng)
    place = int(rng.integers(len(name)))
    return renamed(flat, name, name[:place] + "q" + name[place + 1 :])


def renamed(flat: Flat, name: str, other: str) -> Flat:
    return {other if key == name else key: x for key, x in flat.items()}


def _part(flat: Flat, rng: np.random.Generator) -> Flat:
    part = _any(flat, rng).split(".")[0]
    return {
        name.replace(f"{part}.", f"{part}_copy.", 1) if name.startswith(f"{part}.") else name: x
        for name, x in flat.items()
    }


def _swap(flat: Flat, rng: np.random.Generator) -> Flat:
    one, other = _any(flat, rng), _any(flat, rng)
    while flat[one].shape == flat[other].shape:
        other = _any(flat, rng)
    return flat | {one: flat[other], other: flat[one]}


def _change(
    function: Callable[[np.ndarray], np.ndarray], axes: int = 0
) -> Callable[[Flat, np.random.Generator], Flat]:
    def change(flat: Flat, rng: np.random.Generator) -> Flat:
        name = _any(flat, rng, axes)
        return flat | {name: function(flat[name])}

    return change


def _transpose(flat: Flat, rng: np.random.Generator) -> Flat:
    name = _uneven(flat, rng)
    return flat | {name: flat[name].T.copy()}


def _drop(flat: Flat, rng: np.random.Generator) -> Flat:
    name = _any(flat, rng)
    return {key: x for key, x in flat.items() if key != name}


def _extra(flat: Flat, rng: np.random.Generator) -> Flat:
    name = _any(flat, rng)
    return flat | {f"{name}_old": flat[name]}


def _not_a_number(x: np.ndarray) -> np.ndarray:
    odd = x.copy()
    odd.flat[-1] = np.nan
    return odd


KINDS: dict[str, Callable[[Flat, np.random.Generator], Flat]] = {
    "one letter of a name": _typo,
    "a part's name": _part,
    "capitals": lambda flat, rng: renamed(flat, name := _any(flat, rng), name.upper()),
    "dropped": _drop,
    "one too many": _extra,
    "two names exchanged": _swap,
    "transposed": _transpose,
    "flattened": _change(lambda x: x.reshape(-1, 2) if x.size % 2 == 0 else x.reshape(1, -1), axes=1),
    "one row longer": _change(lambda x: np.concatenate([x, x[:1]]), axes=1),
    "one row shorter": _change(lambda x: x[:-1], axes=1),
    "an axis of one": _change(lambda x: x[None], axes=1),
    "whole numbers": _change(lambda x: (10 * x).astype(np.int32)),
    "half floats": _change(lambda x: x.astype(np.float16)),
    "not a number": _change(_not_a_number),
}


def arrays_of(file: Path, naming: str) -> dict[str, np.ndarray]:
    """Every array of the networks of a file, in our layout."""
    networks = read_networks(file, naming)
    parts: dict[str, Any] = {"averaged": networks.averaged.synthesis, "mapping": networks.averaged.mapping}
    parts |= {"trained": networks.trained.synthesis, "trained mapping": networks.trained.mapping}
    if networks.averaged.w_avg is not None:
        parts["w_avg"] = networks.averaged.w_avg
    if networks.discriminator is not None:
        parts["discriminator"] = networks.discriminator.variables
    return {name: np.asarray(x) for name, x in named_leaves(parts).items()}


def imported(file: Path, workdir: Path, naming: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    code = main(["import", f"--from={naming}", str(file), str(workdir)])
    said = capsys.readouterr()
    assert code == 0 or (said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1), (
        said
    )
    assert "Traceback" not in said.out + said.err and (code == 0) == workdir.is_dir()
    return code, said.out


def same(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], tolerance: float) -> bool:
    return found.keys() == wanted.keys() and all(
        found[name].shape == wanted[name].shape
        and np.allclose(found[name], wanted[name], atol=tolerance, rtol=tolerance)
        for name in wanted
    )


@pytest.mark.parametrize(
    "numbers", [range(14), pytest.param(range(14, 504), marks=pytest.mark.slow)], ids=["14", "504"]
)
def test_altered_files_are_refused_or_imported_as_they_are(
    numbers: range, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Never other weights in silence: what differs from the sound file is refused, or said in a note."""
    namings = ("stylegan2-ada-pytorch", "rosinality")[: len(numbers) // len(KINDS)]
    flats = {naming: sound(naming) for naming in namings}
    wanted, notes = {}, {}
    for naming in namings:
        file = written(tmp_path / f"sound_{naming}.npz", npz(flats[naming]))
        wanted[naming] = arrays_of(file, naming)
        notes[naming] = set(imported(file, tmp_path / f"o_{naming}", naming, capsys)[1].splitlines()[1:])
    counts = {"refused": 0, "as it is": 0, "said": 0}
    for number in numbers:
        rng = np.random.default_rng([27, number])
        naming, kind = namings[number // len(KINDS) % len(namings)], list(KINDS)[number % len(KINDS)]
        content = KINDS[kind](flats[naming], rng)
        file = written(tmp_path / f"{number}.npz", npz(content))
        code, said = imported(file, tmp_path / f"out{number}", naming, capsys)
        if code:
            counts["refused"] += 1
        elif same(arrays_of(file, naming), wanted[naming], 1e-3 if kind == "half floats" else 0):
            counts["as it is"] += 1
        else:
            counts["said"] += 1
            assert set(said.splitlines()[1:]) - notes[naming], (number, kind, said)
    print(counts)
    assert min(counts["refused"], counts["as it is"]) > len(numbers) / 7


def test_what_is_read_of_a_misnamed_part_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = {name.replace("G_ema.", "G_emma."): x for name, x in sound("stylegan2-ada-pytorch").items()}
    file = written(tmp_path / "a.npz", npz(flat))
    code, said = imported(file, tmp_path / "o", "stylegan2-ada-pytorch", capsys)
    assert code == 0 and "the file has no G_ema: G stands for its average" in said
    assert "arrays of none of the networks G_ema, G, D are left out: " in said and "G_emma." in said


def test_noise_maps_that_are_drawn_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flat = {name: x for name, x in sound("rosinality").items() if "noises." not in name}
    code, said = imported(written(tmp_path / "a.npz", npz(flat)), tmp_path / "o", "rosinality", capsys)
    assert code == 0 and "5 of 5 noise maps are not in the file" in said


@pytest.mark.parametrize("change", ["gap", "overlap", "too long", "twice"])
def test_places_and_names_of_safetensors_are_checked(tmp_path: Path, change: str) -> None:
    arrays = {name: np.full(4, value, np.float32) for value, name in enumerate("abc")}
    data = safetensors(arrays)
    length = int.from_bytes(data[:8], "little")
    text = data[8 : 8 + length].decode()
    wrong = {
        "gap": text.replace("[16, 32]", "[20, 32]"),
        "overlap": text.replace("[16, 32]", "[12, 28]"),
        "too long": text.replace("[32, 48]", "[32, 64]"),
        "twice": text.replace('"b"', '"a"'),
    }[change]
    assert wrong != text
    file = written(
        tmp_path / "a.safetensors", len(wrong).to_bytes(8, "little") + wrong.encode() + data[8 + length :]
    )
    with pytest.raises(
        UserError, match="one name" if change == "twice" else "cover its data, each byte once"
    ):
        read_flat(file)


def test_our_own_files_cover_their_data(tmp_path: Path) -> None:
    arrays = {"b": np.ones((2, 3)), "a": np.zeros((), np.float32), "empty": np.zeros((0, 3), np.float16)}
    write_flat(tmp_path / "a.safetensors", arrays)
    found = read_flat(tmp_path / "a.safetensors")
    assert found.keys() == arrays.keys() and found["empty"].shape == (0, 3)
    np.testing.assert_array_equal(found["b"], arrays["b"])
