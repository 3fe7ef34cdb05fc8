"""Augmentation: p = 0 changes no bit, each transform does what its name says, gradients pass."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.steps import augmentation as module
from fundusgan_jax.steps.augmentation import FUNDUS, TRANSFORMS, adapted, augment

SIDE, COUNT = 32, 64
RNG = np.random.default_rng(0)
NOISE = jnp.asarray(RNG.uniform(-1, 1, (COUNT, SIDE, SIDE, 3)), jnp.float32)


def smooth_images() -> jnp.ndarray:
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    waves = [np.sin(7 * x + 2 * y), np.cos(5 * y - x), np.sin(4 * x * y + 1)]
    return jnp.asarray(np.broadcast_to(0.5 * np.stack(waves, -1), (COUNT, SIDE, SIDE, 3)), jnp.float32)


SMOOTH = smooth_images()
KEYS = jax.random.split(jax.random.key(5), COUNT)


@functools.cache
def compiled(transforms: tuple[str, ...]):
    return jax.jit(functools.partial(augment, transforms=transforms))


def run(images, p, *transforms):
    return np.asarray(compiled(transforms)(images, jnp.float32(p), KEYS))


@pytest.mark.parametrize("name", [*TRANSFORMS, "all"])
def test_p_0_is_the_identity(name: str) -> None:
    names = TRANSFORMS if name == "all" else (name,)
    out = run(NOISE, 0.0, *names)
    if set(names) & set(module.COLOUR):  # a product with the identity matrix
        np.testing.assert_allclose(out, NOISE, rtol=0, atol=1e-6)
    else:
        np.testing.assert_array_equal(out, NOISE)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_p_is_the_share_that_is_changed(name: str) -> None:
    changed = np.abs(run(NOISE, 0.5, name) - NOISE).max((1, 2, 3)) > 1e-4
    # A flip leaves half of those it is applied to as they were, a quarter turn a quarter; four bands are four draws.
    share = {"xflip": 0.25, "lumaflip": 0.25, "rotate90": 0.375, "imgfilter": 1 - 0.5**4}.get(name, 0.5)
    assert abs(changed.mean() - share) < 4 * (share * (1 - share) / COUNT) ** 0.5


def test_flips_and_quarter_turns_move_pixels_onto_pixels() -> None:
    for name, forms in (
        ("xflip", [lambda x: x, np.fliplr]),
        ("rotate90", [lambda x, k=k: np.rot90(x, k) for k in range(4)]),
    ):
        seen = set()
        for out, image in zip(run(NOISE, 1.0, name), np.asarray(NOISE)):
            equal = [bool(np.abs(out - form(image)).max() < 1e-5) for form in forms]
            assert sum(equal) == 1
            seen.add(equal.index(True))
        assert len(seen) == len(forms)


def test_whole_pixel_shifts() -> None:
    most = round(module.SHIFT * SIDE)
    seen = set()
    for out, image in zip(run(NOISE, 1.0, "xint"), np.asarray(NOISE)):
        wide = np.pad(image, ((most, most), (most, most), (0, 0)), mode="reflect")
        places = [(dy, dx) for dy in range(2 * most + 1) for dx in range(2 * most + 1)]
        fits = [
            place for place in places if np.abs(wide[place[0] :, place[1] :][:SIDE, :SIDE] - out).max() < 1e-5
        ]
        assert len(fits) == 1
        seen.add(fits[0])
    assert len(seen) > 20


def test_the_lookup_is_bicubic() -> None:
    image = NOISE[0]
    shift = jnp.array([0.3, -1.6])
    inverse = jnp.eye(3).at[:2, 2].set(-shift)
    ours = module.looked_up(image, inverse)
    theirs = jax.image.scale_and_translate(
        image, image.shape, (0, 1), jnp.ones(2), shift[::-1], "cubic", antialias=False
    )
    np.testing.assert_allclose(ours[4:-4, 4:-4], theirs[4:-4, 4:-4], atol=2e-3)


def blob(radius_y: float, radius_x: float) -> jnp.ndarray:
    """A Gaussian: interpolation does not change its moments, as it does an edge's."""
    place = np.arange(SIDE) - (SIDE - 1) / 2
    bell = np.exp(-2 * ((place[:, None] / radius_y) ** 2 + (place[None] / radius_x) ** 2))
    return jnp.asarray(np.broadcast_to(bell[:, :, None], (COUNT, SIDE, SIDE, 3)), jnp.float32)


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mass, centre of mass [N, 2] and covariance [N, 2, 2] of the first channel."""
    place = np.arange(SIDE) - (SIDE - 1) / 2
    grid = np.stack(np.meshgrid(place, place, indexing="ij"), -1)
    weights = np.clip(images[..., 0], 0, 1)[..., None]
    mass = weights.sum((1, 2, 3))
    centre = (weights * grid).sum((1, 2)) / mass[:, None]
    apart = grid[None] - centre[:, None, None]
    spread = np.einsum("nhw,nhwi,nhwj->nij", weights[..., 0], apart, apart) / mass[:, None, None]
    return mass, centre, spread


def test_geometry_changes_what_it_says_and_nothing_else() -> None:
    area, _, round_spread = (x[0] for x in moments(np.asarray(blob(5, 5))))
    mass, centre, spread = moments(run(blob(5, 5), 1.0, "scale"))
    octaves = np.log2(mass / area) / 2
    assert abs(octaves.std() - module.SCALE) < 0.06 and np.abs(centre).max() < 0.1
    mass, centre, spread = moments(run(blob(5, 5), 1.0, "rotate"))
    assert np.abs(mass / area - 1).max() < 0.02 and np.abs(spread - round_spread).max() < 0.4
    long_spread = moments(np.asarray(blob(3, 6)))[2][0]
    spread = moments(run(blob(3, 6), 1.0, "rotate"))[2]
    np.testing.assert_allclose(
        np.linalg.eigvalsh(spread), np.tile(np.linalg.eigvalsh(long_spread), (COUNT, 1)), rtol=0.1
    )
    assert (np.abs(spread[:, 0, 1]) > 1).mean() > 0.5
    spread = moments(run(blob(3, 6), 1.0, "tilt"))[2]
    # From the long axis: angles around 0, far from where they wrap.
    angle = np.arctan2(2 * spread[:, 0, 1], np.abs(spread[:, 0, 0] - spread[:, 1, 1])) / 2
    assert abs(angle.std() / module.TILT_DEVIATION - 1) < 0.35
    mass, _, spread = moments(run(blob(6, 6), 1.0, "aniso"))
    assert np.abs(mass / moments(np.asarray(blob(6, 6)))[0][0] - 1).max() < 0.05
    assert np.log2(spread[:, 0, 0] / spread[:, 1, 1]).std() > 0.4
    mass, centre, _ = moments(run(blob(3, 3), 1.0, "xfrac"))
    inside = np.abs(centre).max(1) < 10
    assert 2 < centre[inside].std() < 5 and np.abs(centre[inside] - np.round(centre[inside])).max() > 0.2


def test_colours_change_what_they_say_and_nothing_else() -> None:
    images = np.asarray(SMOOTH)
    luma = images.mean(-1, keepdims=True)
    shift = run(SMOOTH, 1.0, "brightness") - images
    assert np.ptp(shift, (1, 2, 3)).max() < 1e-5 and abs(shift[:, 0, 0, 0].std() - module.BRIGHTNESS) < 0.08
    ratio = run(SMOOTH, 1.0, "contrast")[:, 5, 9] / images[:, 5, 9]
    assert np.ptp(ratio, 1).max() < 1e-4 and abs(np.log2(ratio[:, 0]).std() - module.CONTRAST) < 0.15
    flipped = run(SMOOTH, 1.0, "lumaflip")
    turned = np.abs(flipped.mean(-1, keepdims=True) + luma).max((1, 2, 3)) < 1e-5
    assert 0.2 < turned.mean() < 0.8
    np.testing.assert_allclose((flipped - flipped.mean(-1, keepdims=True)), images - luma, atol=1e-5)
    hued = run(SMOOTH, 1.0, "hue")
    np.testing.assert_allclose(hued.mean(-1, keepdims=True), luma, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(hued, axis=-1), np.linalg.norm(images, axis=-1), atol=1e-5)
    assert np.abs(hued - images).max() > 0.3
    saturated = run(SMOOTH, 1.0, "saturation")
    np.testing.assert_allclose(saturated.mean(-1, keepdims=True), luma, atol=1e-5)
    factor = (saturated - luma)[:, 5, 9, 0] / (images - luma)[:, 5, 9, 0]
    np.testing.assert_allclose(saturated - luma, factor[:, None, None, None] * (images - luma), atol=1e-4)


def test_corruption() -> None:
    zeros = jnp.zeros_like(NOISE)
    spread = run(zeros, 1.0, "noise").std((1, 2, 3))
    assert abs((spread**2).mean() ** 0.5 - module.NOISE) < 0.03 and np.ptp(spread) > 0.1
    cut = run(jnp.ones_like(NOISE), 1.0, "cutout")
    assert set(np.unique(cut)) == {0.0, 1.0} and (cut == cut[..., :1]).all()
    removed = (cut[..., 0] == 0).mean((1, 2))
    assert removed.max() <= 0.25 + 1e-6 and removed.min() >= 0.25 / 4 - 0.02 and np.ptp(removed) > 0.05
    filtered = run(NOISE, 1.0, "imgfilter")
    # A filter keeps a constant a constant, and the four bands sum to the image.
    constant = run(jnp.ones_like(NOISE), 1.0, "imgfilter")
    assert np.ptp(constant, (1, 2, 3)).max() < 1e-5 and np.abs(filtered - NOISE).max() > 0.2


def test_the_filter_amplifies_along_both_axes() -> None:
    # stylegan2-ada-pytorch filters along x, then along y, with the same gains: a flat image is amplified by g0^2, stripes
    # of the highest frequency by g0 g3, a chess board by g3^2.
    sign = np.broadcast_to((-1.0) ** np.arange(SIDE)[None, :, None], (COUNT, SIDE, SIDE, 3))
    ones = np.ones((COUNT, SIDE, SIDE, 3))
    patterns = [ones, sign, sign * sign.transpose(0, 2, 1, 3)]
    outs = [run(jnp.asarray(pattern, jnp.float32), 1.0, "imgfilter") / pattern for pattern in patterns]
    flat, stripes, board = (out[:, 8:24, 8:24].mean((1, 2, 3)) for out in outs)
    np.testing.assert_allclose(stripes**2, flat * board, rtol=1e-4)
    # The gains as Karras et al. 2020 draw them, appendix B: twice their octaves.
    power = np.array([10, 1, 1, 1]) / 13
    factors = np.ones((20_000, 4, 4))
    factors[:, range(4), range(4)] = np.exp2(RNG.standard_normal((20_000, 4)) * module.FILTER)
    lowest = np.log2(factors[:, :, 0] / np.sqrt((factors**2 * power).sum(2))).sum(1)
    assert np.log2(flat).std() == pytest.approx(2 * lowest.std(), rel=0.3)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    whole = run(NOISE, 0.7, *TRANSFORMS)
    part = compiled(TRANSFORMS)(NOISE[10:20], jnp.float32(0.7), KEYS[10:20])
    np.testing.assert_allclose(part, whole[10:20], atol=1e-5)


@pytest.mark.slow
def test_gradients_pass_to_the_image() -> None:
    image, keys = SMOOTH[:2], KEYS[:2]

    def score(x):
        return jnp.sum(jnp.sin(3 * augment(x, jnp.float32(0.9), keys, TRANSFORMS)))

    gradient = jax.jit(jax.grad(score))(image)
    direction = jnp.asarray(RNG.standard_normal(image.shape), jnp.float32)
    step = 1e-2
    numeric = (jax.jit(score)(image + step * direction) - jax.jit(score)(image - step * direction)) / (
        2 * step
    )
    assert float(jnp.vdot(gradient, direction)) == pytest.approx(float(numeric), rel=2e-2)
    assert float(jnp.abs(gradient).mean()) > 0.1


def test_p_follows_the_discriminators_certainty() -> None:
    assert float(adapted(jnp.float32(0.1), jnp.float32(0.9), 5000)) == pytest.approx(0.11)
    assert float(adapted(jnp.float32(0.1), jnp.float32(0.3), 5000)) == pytest.approx(0.09)
    assert float(adapted(jnp.float32(0.0), jnp.float32(-1.0), 5000)) == 0.0
    # stylegan2-ada-pytorch's training loop bounds p from below alone.
    assert float(adapted(jnp.float32(1.0), jnp.float32(1.0), 5000)) == pytest.approx(1.01)
    np.testing.assert_array_equal(run(NOISE, 1.5, "xflip"), run(NOISE, 1.0, "xflip"))


def test_names() -> None:
    assert set(FUNDUS) <= set(TRANSFORMS)
    with pytest.raises(ValueError, match="unknown augmentation 'blur'"):
        augment(NOISE[:1], jnp.float32(0.5), KEYS[:1], ["blur"])
