"""Near-duplicates between patients through prepare, folders that evaluate is given, weights that import is given."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from fundusgan_jax.data.phantom.render import render
from tests.support.field import Bench, Run, verdict
from tests.support.weight_files import LFS_POINTER, naming, network, npz, ones, safetensors, written

pytestmark = pytest.mark.slow


def picture(seed: int) -> Image.Image:
    """A rendered eye of 400 pixels on a black frame."""
    frame = np.zeros((440, 440, 3), np.uint8)
    frame[20:420, 20:420] = render(seed, 400).image
    return Image.fromarray(frame)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def enlarged(image: Image.Image, scale: float) -> Image.Image:
    """What lies inside the field of view, larger; the field of view itself as it was."""
    side = round(440 * scale)
    edge = (side - 440) // 2
    large = np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))[
        edge : edge + 440, edge : edge + 440
    ]
    y, x = np.mgrid[:440, :440]
    return Image.fromarray(np.where(np.hypot(y - 219.5, x - 219.5)[..., None] < 199, large, np.uint8(0)))


# Kind 8. name -> how one photograph becomes another of the same eye.
TWINS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "turned by 9 degrees": lambda x: x.rotate(9, Image.Resampling.BICUBIC),
    "turned by -6 degrees": lambda x: x.rotate(-6, Image.Resampling.BICUBIC),
    "mirrored": lambda x: x.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "mirrored and turned by 7 degrees": lambda x: x.transpose(Image.Transpose.FLIP_LEFT_RIGHT).rotate(7, Image.Resampling.BICUBIC),
    "enlarged by 8 %": lambda x: enlarged(x, 1.08),
    "darker": lambda x: ImageEnhance.Brightness(x).enhance(0.6),
    "bleached": lambda x: ImageEnhance.Color(x).enhance(0.4),
    "a poor JPEG of half the size": lambda x: as_jpeg(x.resize((220, 220), Image.Resampling.BICUBIC), 60),
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Every eye twice, under two patients' ids."""
    work = tmp_path_factory.mktemp("pairs")
    (work / "s").mkdir()
    lines = ["file,patient"]
    for number, change in enumerate(TWINS.values()):
        for letter, image in (("a", picture(number)), ("b", change(picture(number)))):
            image.convert("RGB").save(work / "s" / f"{number}{letter}.png")
            lines.append(f"{number}{letter}.png,{number}{letter}")
    (work / "s" / "labels.csv").write_text("\n".join(lines))
    return Bench(work, work).prepare(work / "s", "--test_fraction=0.5", side=128)


@pytest.mark.parametrize("number", range(len(TWINS)), ids=list(TWINS))
def test_one_eye_under_two_ids(pairs: Run, number: int) -> None:
    line = next((x for x in pairs.said.splitlines() if f"{number}a.png and {number}b.png" in x), "not found")
    first, second = pairs.splits[f"{number}a.png"], pairs.splits[f"{number}b.png"]
    verdict(
        f"own 08 {list(TWINS)[number]}",
        f"{line.strip()}; {first}, {second}",
        line != "not found" and first == second,
    )


def test_different_eyes_are_not_joined(pairs: Run) -> None:
    count = len(TWINS)
    right = (
        f"near-duplicates between patients: {count}" in pairs.said and len(set(pairs.splits.values())) == 2
    )
    verdict(
        "own 08 nobody else is joined",
        f"{len(pairs.splits)} photographs, {sorted(set(pairs.splits.values()))}",
        right,
    )


def eyes(folder: Path, count: int = 6, first: int = 0, form: str = "png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        Image.fromarray(render(first + number, 64).image).save(folder / f"{number}.{form}")
    return folder


def score(bench: Bench, real: Path, fake: Path, *flags: str) -> Run:
    return bench.evaluate(real, fake, "--preprocess=none", *flags)


def test_a_renamed_copy_scores_nothing(bench: Bench) -> None:
    run = score(bench, eyes(bench.work / "a"), eyes(bench.work / "b", form="bmp"))
    verdict(
        "own 09 a copy in another format", f"{run.figures['frechet']:.2g}", abs(run.figures["frechet"]) < 1e-3
    )


def test_sixteen_bits_against_eight(bench: Bench) -> None:
    import tifffile

    real = eyes(bench.work / "a")
    (bench.work / "b").mkdir()
    for number in range(6):
        values = render(number, 64).image.astype(np.uint16) * 257
        tifffile.imwrite(bench.work / "b" / f"{number}.tif", values, photometric="rgb")
    run = score(bench, real, bench.work / "b")
    verdict("own 09 16-bit copies", f"{run.figures['frechet']:.2g}", abs(run.figures["frechet"]) < 1e-3)


def test_what_generate_writes_is_not_scored_nor_left_out(bench: Bench) -> None:
    fake = eyes(bench.work / "b")
    lines = ["file,synthetic", *(f"{number}.png,yes" for number in range(6))]
    (fake / "index.csv").write_text("\n".join(lines))
    (fake / "generator.json").write_text("{}")
    Image.new("RGB", (300, 300)).save(fake / "grid.png")
    run = score(bench, eyes(bench.work / "a"), fake)
    count = json.loads((run.output / "eval.json").read_text())["num_samples"]
    right = count == 6 and set(run.left_out) == {"grid.png"}
    verdict("own 09 a generated folder", f"{count} scored, left out {run.left_out}", right)


def test_black_images_have_figures(bench: Bench) -> None:
    (bench.work / "b").mkdir()
    for number in range(6):
        Image.new("RGB", (64, 64)).save(bench.work / "b" / f"{number}.png")
    run = score(bench, eyes(bench.work / "a"), bench.work / "b")
    right = run.code == 0 and np.isfinite(run.figures["frechet"]) and run.figures["frechet"] > 1
    verdict("own 09 black images", run.error or f"{run.figures['frechet']:.3g}", right)


def test_other_sizes_are_said(bench: Bench) -> None:
    fake = eyes(bench.work / "b")
    for path in fake.iterdir():
        Image.open(path).resize((48, 48)).save(path)
    run = score(bench, eyes(bench.work / "a"), fake)
    verdict(
        "own 09 other sizes", f"code {run.code}", run.code == 0 and "48x48, the real ones 64x64" in run.said
    )


def test_a_broken_file_is_named(bench: Bench) -> None:
    fake = eyes(bench.work / "b")
    (fake / "0.png").write_bytes((fake / "0.png").read_bytes()[:900])
    run = score(bench, eyes(bench.work / "a"), fake)
    right = run.code == 2 and "b/0.png: " in run.error and "take it out" in run.error
    verdict("own 09 a broken file, taken as they are", run.error, right)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few(bench: Bench, count: int) -> None:
    run = score(bench, eyes(bench.work / "a"), eyes(bench.work / "b", count))
    verdict(
        f"own 09 {count} images", run.error, run.code == 2 and "Traceback" not in run.said and bool(run.error)
    )


def test_both_sides_are_prepared_alike(bench: Bench) -> None:
    for name in "ab":
        (bench.work / name).mkdir()
        for number in range(4):
            picture(number).save(bench.work / name / f"{number}.png")
        Image.new("RGB", (200, 200), (90, 90, 90)).save(bench.work / name / "card.png")
    run = bench.evaluate(bench.work / "a", bench.work / "b", "--resolution=64")
    right = abs(run.figures["frechet"]) < 1e-3 and "no disc" in run.left_out["card.png"]
    verdict("own 09 photographs and a grey card", f"{run.figures['frechet']:.2g}, {run.left_out}", right)


def value_at_end(value: float, shape: tuple[int, ...]) -> np.ndarray:
    array = np.ones(shape, np.float32)
    array.flat[-1] = value
    return array


def without(part: str) -> dict[str, np.ndarray]:
    return {name: x for name, x in network().items() if part not in name}


def moved_places(flat: dict[str, np.ndarray]) -> bytes:
    """A .safetensors file in which two arrays of one length have each other's place but for a quarter."""
    data = safetensors(flat)
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = max(header, key=lambda key: header[key]["data_offsets"])
    header[name]["data_offsets"] = [end - 4 for end in header[name]["data_offsets"]]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


RENAMED = {name.replace("b8.conv0.bias", "b8.conv0.bais"): x for name, x in network().items()}
SWAPPED = network(
    synthesis__b8__conv0__weight=network()["G_ema.synthesis.b8.conv0.weight"].transpose(3, 2, 1, 0)
)
# Kind 10. name -> file, and what the one line says.
WEIGHTS: dict[str, tuple[str, bytes, str]] = {
    "NaN in the last layer": ("a.npz", npz(network(synthesis__b16__torgb__weight=value_at_end(np.nan, (3, 2, 1, 1)))), "b16.torgb.weight.*not finite"),
    "infinity in half floats": ("a.npz", npz(network(mapping__fc1__weight=np.full((6, 6), np.inf, np.float16))), "fc1.weight.*not finite"),
    "quantised to bytes": ("a.npz", npz({name: (x * 9).astype(np.int8) for name, x in network().items()}), "whole numbers"),
    "a login page": ("a.pkl", b"<!DOCTYPE html><title>Sign in</title>", "web page"),
    "an LFS pointer": ("a.pt", LFS_POINTER, "LFS pointer"),
    "TensorFlow's pickle": ("a.pkl", naming("dnnlib.tflib.network", "Network"), "TensorFlow"),
    "StyleGAN3": ("a.npz", npz(ones("G_ema.synthesis.input.freqs", "G_ema.synthesis.L0_36_512.weight")), "StyleGAN3"),
    "a misspelt name": ("a.npz", npz(RENAMED), "missing: .*b8.conv0.bias.*not used: .*bais"),
    "swapped axes": ("a.npz", npz(SWAPPED), "b8.conv0"),
    "no mapping network": ("a.npz", npz(without(".mapping.")), "mapping"),
    "half of a file": ("a.npz", npz(network())[:4000], "cannot be read|damaged"),
    "an array's place moved": ("a.safetensors", moved_places(network()), "cover its data"),
}  # fmt: skip


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_none(bench: Bench, name: str) -> None:
    file, content, pattern = WEIGHTS[name]
    run = bench.weights(written(bench.work / file, content))
    right = run.code == 2 and bool(re.search(pattern, run.error)) and not run.output.exists()
    verdict(f"own 10 weights: {name}", run.error, right and len(run.said.strip().splitlines()) == 1)


def test_the_prefix_of_data_parallel_is_taken_off(bench: Bench) -> None:
    flat = {f"module.{name.removeprefix('G_ema.')}": x for name, x in network().items()}
    run = bench.weights(written(bench.work / "a.npz", npz(flat)))
    verdict("own 10 weights: DataParallel's prefix", run.error or "imported", run.code == 0)
