"""The phantom's anatomy, masks and positions agree with each other and with the picture."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from scipy import ndimage

from fundusgan_jax.data.phantom import render as renderer
from fundusgan_jax.data.phantom.anatomy import FAZ_RADIUS
from fundusgan_jax.data.phantom.lesions import LESION_KINDS
from fundusgan_jax.data.phantom.render import LABEL_NAMES, Phantom, phantom_counts, phantom_examples, render
from fundusgan_jax.errors import UserError

SEEDS = range(6)


@pytest.fixture(autouse=True)
def rendered_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere an eye of a dataset is rendered once (tests/conftest.py)."""
    monkeypatch.setattr(renderer, "render", render)


MASKS = ("fov", "disc", "cup", "vessels", "arteries", "veins")


def distance(phantom: Phantom, point: tuple[float, float]) -> np.ndarray:
    """Every pixel's distance to a point (y, x), in disc diameters."""
    y, x = np.indices(phantom.fov.shape)
    return np.hypot(y - point[0], x - point[1]) / phantom.disc_diameter


def assert_same(one: Phantom, other: Phantom) -> None:
    for name in ("image", *MASKS):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    for kind in LESION_KINDS:
        np.testing.assert_array_equal(one.lesions[kind], other.lesions[kind], err_msg=kind)
    assert one[8:] == other[8:]  # positions, eye, label


def test_is_a_function_of_the_seed() -> None:
    assert_same(render(3, 128), render(3, 128))
    assert_same(render(3, 128), render(np.int64(3), np.int32(128)))  # type: ignore[arg-type]
    one, other = render(3, 128, "right", False), render(4, 128, "right", False)
    assert (one.vessels != other.vessels).mean() > 0.03
    assert one.disc_center != other.disc_center


def test_the_seed_decides_what_is_left_open() -> None:
    several = [render(seed, 32) for seed in range(40)]
    assert {phantom.eye for phantom in several} == {"right", "left"}
    assert 8 < sum(phantom.label for phantom in several) < 32


@pytest.mark.parametrize("resolution", [32, 100, 128])
def test_shapes_and_types(resolution: int) -> None:
    phantom = render(1, resolution)
    assert phantom.image.shape == (resolution, resolution, 3) and phantom.image.dtype == np.uint8
    for mask in (*(getattr(phantom, name) for name in MASKS), *phantom.lesions.values()):
        assert mask.shape == (resolution, resolution) and mask.dtype == bool
    assert tuple(phantom.lesions) == LESION_KINDS
    np.testing.assert_array_equal(phantom.vessels, phantom.arteries | phantom.veins)


@pytest.mark.parametrize("seed", SEEDS)
def test_field_of_view(seed: int) -> None:
    phantom = render(seed, 128)
    assert not phantom.image[~phantom.fov].any()
    assert np.pi * (0.48 * 128) ** 2 == pytest.approx(phantom.fov.sum(), rel=0.01)
    inside = ndimage.binary_erosion(phantom.fov, iterations=2)
    assert phantom.image[inside].max(-1).min() > 15  # the circle is found by its brightness
    red, green, blue = phantom.image[inside].mean(0)
    assert red > 1.2 * green > 1.2 * blue and 60 < red < 235
    for name in MASKS[1:]:
        assert not (getattr(phantom, name) & ~phantom.fov).any(), name


@pytest.mark.parametrize("seed", SEEDS)
def test_left_eye_mirrors_the_right(seed: int) -> None:
    right, left = render(seed, 128, "right", True), render(seed, 128, "left", True)
    for name in ("image", *MASKS):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name)[:, ::-1], err_msg=name)
    for kind in LESION_KINDS:
        np.testing.assert_array_equal(left.lesions[kind], right.lesions[kind][:, ::-1])
    for here, there in ((left.disc_center, right.disc_center), (left.fovea, right.fovea)):
        assert here == pytest.approx((there[0], 127 - there[1]))
    assert right.disc_center[1] > 64 + 0.2 * 128  # on the picture's right
    assert (right.eye, left.eye) == ("right", "left")


@pytest.mark.parametrize("seed", SEEDS)
def test_disc_and_fovea(seed: int) -> None:
    phantom = render(seed, 128, "right", False)
    (disc_y, disc_x), (fovea_y, fovea_x) = phantom.disc_center, phantom.fovea
    assert (disc_x - fovea_x) / phantom.disc_diameter == pytest.approx(2.5, abs=0.2)
    assert 0.1 < (fovea_y - disc_y) / phantom.disc_diameter < 0.5  # a little below the disc
    assert 7 <= 0.96 * 128 / phantom.disc_diameter <= 8
    assert ndimage.center_of_mass(phantom.disc) == pytest.approx(phantom.disc_center, abs=0.4)
    assert phantom.disc.sum() == pytest.approx(np.pi / 4 * phantom.disc_diameter**2, rel=0.06)
    assert not (phantom.cup & ~phantom.disc).any() and 0.05 < phantom.cup.sum() / phantom.disc.sum() < 0.4
    green = phantom.image[..., 1].astype(float)
    bare = ~ndimage.binary_dilation(phantom.vessels, iterations=1)
    from_disc, from_fovea = distance(phantom, phantom.disc_center), distance(phantom, phantom.fovea)
    around_disc = bare & phantom.fov & (from_disc > 0.7) & (from_disc < 1.1)
    around_fovea = bare & (from_fovea > 0.8) & (from_fovea < 1.4)
    assert green[phantom.disc & bare].mean() > 1.2 * green[around_disc].mean()
    assert green[from_fovea < 0.2].mean() < 0.9 * green[around_fovea].mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_arcades_leave_the_disc_and_pass_round_the_macula(seed: int) -> None:
    phantom = render(seed, 256, "right", False)
    pieces, _ = ndimage.label(phantom.vessels, np.ones((3, 3)))
    labels = pieces[phantom.disc & phantom.vessels]
    assert labels.size
    trunk = pieces == np.bincount(labels).argmax()
    assert trunk.sum() > 0.8 * phantom.vessels.sum()
    y, x = np.indices(trunk.shape)
    diameter = phantom.disc_diameter
    above, aside = (phantom.fovea[0] - y) / diameter, np.abs(x - phantom.fovea[1]) / diameter
    for direction in (above, -above):
        over_fovea = trunk & (aside < 0.3) & (direction > 1.2) & (direction < 2.8)
        assert over_fovea.any()
    assert (trunk & (x > phantom.disc_center[1] + 0.6 * diameter)).any()  # nasal vessels
    assert not (phantom.vessels & (distance(phantom, phantom.fovea) < FAZ_RADIUS)).any()


@pytest.mark.parametrize("seed", SEEDS)
def test_vessels_are_darker_most_of_all_in_green(seed: int) -> None:
    phantom = render(seed, 256, lesions=False)
    inside = ndimage.binary_erosion(phantom.fov, iterations=4) & ~ndimage.binary_dilation(phantom.disc)
    near = ndimage.binary_dilation(phantom.vessels, iterations=5)
    beside = inside & near & ~ndimage.binary_dilation(phantom.vessels, iterations=2)
    ratios = {}
    for kind in ("veins", "arteries"):
        core = ndimage.binary_erosion(getattr(phantom, kind)) & inside
        assert core.sum() > 50
        nearest = ndimage.distance_transform_edt(~beside, return_distances=False, return_indices=True)
        background = phantom.image[tuple(nearest)].astype(float)
        ratios[kind] = np.median(phantom.image[core] / background[core], axis=0)
        assert ratios[kind][1] < 0.9 and ratios[kind][1] < ratios[kind][[0, 2]].min()
    assert ratios["veins"][1] < ratios["arteries"][1]
    assert 0.05 < phantom.vessels[phantom.fov].mean() < 0.25  # DRIVE: 0.10 to 0.18


@pytest.mark.parametrize("seed", SEEDS)
def test_lesions_are_where_their_masks_say(seed: int) -> None:
    ill, healthy = render(seed, 256, lesions=True), render(seed, 256, lesions=False)
    assert (ill.label, healthy.label) == (1, 0)
    np.testing.assert_array_equal(ill.vessels, healthy.vessels)
    change = ill.image.astype(int) - healthy.image
    everywhere = np.zeros_like(ill.fov)
    for kind in LESION_KINDS:
        mask = ill.lesions[kind]
        assert mask.any() and not healthy.lesions[kind].any()
        assert not (mask & (~ill.fov | ill.disc)).any()
        assert not (mask & everywhere).any()
        everywhere |= mask
        green = np.median(change[mask][:, 1])
        assert green > 15 if kind == "hard_exudates" else green < -10, kind
    assert not change[~ndimage.binary_dilation(everywhere, iterations=4)].any()


@pytest.mark.parametrize("seed", SEEDS)
def test_resolutions_show_the_same_eye(seed: int) -> None:
    large, small = render(seed, 256), render(seed, 128)
    assert (large.eye, large.label) == (small.eye, small.label)
    reduced = large.image.reshape(128, 2, 128, 2, 3).mean((1, 3))
    inside = ndimage.binary_erosion(small.fov, iterations=2)
    for channel in range(3):
        one, other = reduced[inside][:, channel], small.image[inside][:, channel]
        assert np.corrcoef(one, other)[0, 1] > 0.97
    covered = large.vessels.reshape(128, 2, 128, 2).mean((1, 3))
    assert small.vessels[covered == 1].mean() > 0.97 and small.vessels[covered == 0].mean() < 0.01
    for name in ("disc_center", "fovea"):
        # Pixel centres: row r at 256 is row (r + 0.5) / 2 - 0.5 at 128.
        assert (np.array(getattr(large, name)) + 0.5) / 2 - 0.5 == pytest.approx(getattr(small, name))
    assert large.disc_diameter == pytest.approx(2 * small.disc_diameter)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"seed": 0, "resolution": 16}, "resolution"),
        ({"seed": 0, "resolution": 2048}, "resolution"),
        ({"seed": 0, "resolution": 64.0}, "resolution"),
        ({"seed": 0, "eye": "OD"}, "eye"),
    ],
)
def test_bad_arguments(arguments: dict, name: str) -> None:
    with pytest.raises(UserError, match=name):
        render(**arguments)
    with pytest.raises(UserError, match="at least 2"):
        list(phantom_examples(1, 32, 0))
    with pytest.raises(UserError, match="resolution"):
        list(phantom_examples(4, 8, 0))


def test_examples() -> None:
    examples = list(phantom_examples(16, 32, seed=5))
    assert Counter(example.split for example in examples) == phantom_counts(16) == {"train": 28, "test": 4}
    patients = defaultdict(list)
    for example in examples:
        assert example.image.shape == (32, 32, 3) and example.image.dtype == np.uint8
        patients[example.patient].append(example)
    assert len(patients) == 16 and len({example.file for example in examples}) == 32
    for eyes in patients.values():
        assert [example.eye for example in eyes] == ["right", "left"]
        assert len({(example.label, example.split) for example in eyes}) == 1
        mirrored = np.abs(eyes[0].image[:, ::-1].astype(int) - eyes[1].image)
        assert mirrored.max() > 20  # eyes of their own, not one picture and its mirror
    for split in ("train", "test"):
        assert {example.label for example in examples if example.split == split} == {0, 1}
    assert sum(example.label for example in examples) == 16 and len(LABEL_NAMES) == 2
    again = next(phantom_examples(16, 32, seed=5))
    np.testing.assert_array_equal(again.image, examples[0].image)
    assert (next(phantom_examples(16, 32, seed=6)).image != examples[0].image).any()


@pytest.mark.parametrize("num_patients", [16, 17, 23, 40, 128, 1000])
def test_a_tenth_to_a_seventh_is_for_testing(num_patients: int) -> None:
    counts = phantom_counts(num_patients)
    assert sum(counts.values()) == 2 * num_patients
    assert 0.1 <= counts["test"] / (2 * num_patients) <= 0.15
