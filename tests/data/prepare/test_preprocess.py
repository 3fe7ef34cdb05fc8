"""The field of view is found where the phantom has it; what comes out is centred, square, antialiased."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.data.prepare.preprocess import (
    MARGIN,
    Framing,
    Rejected,
    Squashed,
    find_field_of_view,
    frame_image,
    inscribed_disc,
    prepare_image,
)

SIDE = 400


def framed(
    seed: int, height: int, width: int, top: int, left: int
) -> tuple[np.ndarray, tuple[float, float, float]]:
    """A phantom somewhere in (or partly outside) a black frame, and its true circle (y, x, radius)."""
    phantom = render(seed, SIDE)
    frame = np.zeros((height, width, 3), np.uint8)
    y0, y1 = max(top, 0), min(top + SIDE, height)
    x0, x1 = max(left, 0), min(left + SIDE, width)
    frame[y0:y1, x0:x1] = phantom.image[y0 - top : y1 - top, x0 - left : x1 - left]
    rows = np.flatnonzero(phantom.fov.any(1))
    radius = (rows[-1] - rows[0] + 1) / 2
    centre = (SIDE - 1) / 2
    return frame, (top + centre, left + centre, radius)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "frame",
    [(440, 640, 20, 120), (640, 440, 200, 10), (360, 640, -20, 120), (440, 380, 20, -10)],
    ids=["wide", "off centre", "top and bottom cut off", "sides cut off"],
)
def test_the_circle_is_found(seed: int, frame: tuple[int, int, int, int]) -> None:
    image, (y, x, radius) = framed(seed, *frame)
    found = find_field_of_view(image)
    assert np.hypot(found.y - y, found.x - x) < 0.02 * radius
    assert abs(found.radius / radius - 1) < 0.03


def test_bright_dust_noise_and_a_label_do_not_move_it() -> None:
    image, (y, x, radius) = framed(3, 440, 640, 20, 120)
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 3, image.shape), 0, 255).astype(np.uint8)
    picture = Image.fromarray(noisy)
    ImageDraw.Draw(picture).text((10, 400), "OD 12.03.2019", fill=(255, 255, 255))
    found = find_field_of_view(np.asarray(picture))
    assert np.hypot(found.y - y, found.x - x) < 0.03 * radius and abs(found.radius / radius - 1) < 0.04


def test_scale_does_not_matter() -> None:
    image, _ = framed(5, 440, 640, 20, 120)
    double = np.asarray(Image.fromarray(image).resize((1280, 880), Image.Resampling.BICUBIC))
    one, two = find_field_of_view(image), find_field_of_view(double)
    assert abs(two.y - (2 * one.y + 0.5)) < 4 and abs(two.radius / one.radius - 2) < 0.04


def test_what_comes_out_is_centred_square_and_black_outside() -> None:
    image, (y, x, _) = framed(2, 440, 640, 20, 120)
    prepared = prepare_image(image, 128)
    assert prepared.image.shape == (128, 128, 3) and prepared.image.dtype == np.uint8
    assert not prepared.image[~inscribed_disc(128)].any()
    assert np.hypot(prepared.center[0] - y, prepared.center[1] - x) < 4
    lit = prepared.image.max(2) > 8
    assert lit.sum() > 0.97 * inscribed_disc(128).sum()
    # The same pixels as an antialiased reduction of the true square around the circle.
    phantom = render(2, SIDE)
    half = prepared.radius * MARGIN
    box = np.array([prepared.center[1] - 120, prepared.center[0] - 20]) + 0.5
    pad = Image.fromarray(np.pad(phantom.image, ((40, 40), (40, 40), (0, 0))))
    crop = (*(box - half + 40), *(box + half + 40))
    expected = np.asarray(pad.resize((128, 128), Image.Resampling.BICUBIC, box=crop)).astype(int)
    inside = ndimage.binary_erosion(inscribed_disc(128), iterations=3)
    assert np.abs(prepared.image.astype(int) - expected)[inside].max() <= 2


def test_reduction_is_antialiased() -> None:
    image, _ = framed(2, 440, 640, 20, 120)
    stripes = np.where((np.arange(640) % 2)[None, :, None], 60, -60)
    wild = np.clip(image.astype(int) + stripes * (image.max(2, keepdims=True) > 60), 0, 255).astype(np.uint8)
    calm, shaken = prepare_image(image, 64).image.astype(int), prepare_image(wild, 64).image.astype(int)
    inside = ndimage.binary_erosion(inscribed_disc(64), iterations=3)
    assert np.abs(calm - shaken)[inside].mean() < 12  # without antialiasing: about 60


def test_bad_photographs_are_refused_with_their_reason() -> None:
    image, _ = framed(1, 440, 440, 20, 20)
    blurred = np.stack([ndimage.gaussian_filter(image[..., c], 14) for c in range(3)], -1)
    pale = np.where(image.max(2, keepdims=True) > 8, 255, image).astype(np.uint8)
    cases = {
        "fills its frame": np.random.default_rng(0).integers(90, 160, (300, 300, 3)).astype(np.uint8),
        "too dark: nothing": np.zeros((300, 300, 3), np.uint8),
        "too dark: three quarters": (image * 0.1).astype(np.uint8),
        "saturated": pale,
        "out of focus": blurred,
        "zoomed in": image[160:280],
        "not a circle": np.pad(np.full((150, 240, 3), 120, np.uint8), ((100, 100), (100, 100), (0, 0))),
    }
    for reason, photograph in cases.items():
        with pytest.raises(Rejected, match=reason):
            prepare_image(photograph, 64)


def test_real_photographs_have_their_field_of_view(shared: Path) -> None:
    files = sorted((shared / "data" / "dme").rglob("*.jpg"))[::120] or pytest.skip("no photographs there")
    for file in files:
        photograph = np.asarray(Image.open(file).convert("RGB"))
        try:
            prepared = prepare_image(photograph, 128)
        except Rejected:
            continue
        lit = prepared.image.max(2) > 4
        assert lit[inscribed_disc(128)].mean() > 0.95, file.name


def found_at(photograph: np.ndarray, y: float, x: float, radius: float) -> None:
    found = find_field_of_view(photograph)
    assert np.hypot(found.y - y, found.x - x) < 0.02 * radius and abs(found.radius / radius - 1) < 0.03


@pytest.mark.parametrize("seed", range(3))
def test_odd_surrounds_do_not_move_the_circle(seed: int) -> None:
    image, (y, x, radius) = framed(seed, 440, 640, 20, 120)
    yy, xx = np.mgrid[:440, :640]
    outside = (np.hypot(yy - y, xx - x) > radius)[..., None]
    found_at(np.concatenate([image, np.full((80, 640, 3), 255, np.uint8)]), y, x, radius)  # a white bar below
    found_at(
        np.concatenate([np.full((440, 60, 3), 255, np.uint8), image], 1), y, x + 60, radius
    )  # and at a side
    for colour in ((255, 255, 255), (235, 240, 250), (20, 120, 40), (128, 128, 128)):
        found_at(np.where(outside, np.uint8(colour), image), y, x, radius)
    large = np.zeros((1500, 1100, 3), np.uint8)
    large[700:1140, 300:940] = image
    found_at(large, y + 700, x + 300, radius)  # a small disc in a large frame
    larger = np.zeros((3200, 2400, 3), np.uint8)
    larger[100:540, 1300:1940] = image
    found_at(larger, y + 100, x + 1300, radius)


@pytest.mark.parametrize("colour", [(255, 255, 255), (240, 228, 205), (20, 120, 40)])
def test_of_a_bright_surround_no_ring_is_left(colour: tuple[int, int, int]) -> None:
    image, (y, x, radius) = framed(1, 440, 440, 20, 20)
    yy, xx = np.mgrid[:440, :440]
    outside = (np.hypot(yy - y, xx - x) > radius)[..., None]
    plain, other = (
        prepare_image(one, 128).image for one in (image, np.where(outside, np.uint8(colour), image))
    )
    distance = np.hypot(*(np.mgrid[:128, :128] - 63.5))
    rim = (distance > 59) & (distance < 62)  # of 62.7
    assert np.abs(other[rim].astype(int) - plain[rim]).mean() < 18


def test_true_reasons_for_two_eyes_and_changed_proportions() -> None:
    first, second = framed(1, 440, 440, 20, 20)[0], framed(2, 440, 440, 20, 20)[0]
    with pytest.raises(Rejected, match="several fields of view in one picture"):
        find_field_of_view(np.concatenate([first, second], 1))
    squashed = Image.fromarray(framed(1, 440, 660, 20, 130)[0]).resize((256, 256))
    with pytest.raises(Rejected, match="an ellipse, 1.[45]. times as high as wide"):
        find_field_of_view(np.asarray(squashed))
    assert prepare_image(np.asarray(squashed), 64, Framing("none")).image.shape == (64, 64, 3)


@pytest.mark.parametrize("cut", [0, 60])
def test_squashed_copies_are_stretched_back_into_circles(cut: int) -> None:
    """Also those that are cut at top and bottom, of which each side alone is nearly an arc of a circle."""
    image, (y, x, radius) = framed(1, 440, 660, 20, 130)
    image = image[cut : 440 - cut] if cut else image
    wide = frame_image(image, 128).prepared.image
    narrow = np.asarray(Image.fromarray(image).resize((500, image.shape[0]), Image.Resampling.BICUBIC))
    with pytest.raises(Squashed, match="an ellipse, 1.3. times as high as wide"):
        find_field_of_view(narrow)
    result = frame_image(narrow, 128)
    assert abs(result.squashed / (660 / 500) - 1) < 0.02
    assert np.abs(result.prepared.image.astype(int) - wide).mean() < 3
    assert abs(result.inside.mean() - frame_image(image, 128).inside.mean()) < 0.02


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("tab", [0, 6], ids=["straight", "with a tab"])
def test_a_cut_inside_the_frame_is_no_outline(seed: int, tab: int) -> None:
    """Cut at top and bottom by the camera, above black bars, and squeezed: as eight photographs of ODIR."""
    image, (y, x, radius) = framed(seed, 440, 660, 20, 130)
    barred = image.copy()
    barred[:50], barred[-50:] = 0, 0
    barred[50 - tab : 50, 320:340] = 90
    found_at(barred, y, x, radius)
    narrow = np.asarray(Image.fromarray(barred).resize((580, 440), Image.Resampling.BICUBIC))
    result = frame_image(narrow, 128)
    assert abs(result.squashed / (660 / 580) - 1) < 0.02
    assert np.abs(result.prepared.image.astype(int) - frame_image(barred, 128).prepared.image).mean() < 3


@pytest.mark.parametrize("scale", [1, 3])
def test_a_white_page_around_a_black_frame(scale: int) -> None:
    """The circle is the eye's, not the frame's."""
    image, (y, x, radius) = framed(2, 440, 440, 20, 20)
    page = np.full((600, 640, 3), 255, np.uint8)
    page[80:520, 100:540] = image
    page = np.asarray(Image.fromarray(page).resize((640 * scale, 600 * scale), Image.Resampling.BICUBIC))
    found_at(page, scale * (y + 80), scale * (x + 100), scale * radius)
    cut = page.copy()  # at top and bottom, so that the page reaches into the circle
    cut[: scale * 150], cut[scale * 450 :] = 255, 255
    cut[scale * 140 : scale * 150, scale * 100 : scale * 540] = 0
    cut[scale * 450 : scale * 460, scale * 100 : scale * 540] = 0
    framed_by_it = frame_image(cut, 128).prepared
    assert abs(framed_by_it.radius / (scale * radius) - 1) < 0.03  # as of the circle without a page
    assert framed_by_it.image[:14].max() < 40  # the page: 50 of 400 rows
    narrow = np.asarray(Image.fromarray(page).resize((480, 600), Image.Resampling.BICUBIC))
    with pytest.raises(Squashed, match="an ellipse, 1.3. times as high as wide"):
        find_field_of_view(narrow)


def test_visible_share_and_source_size_can_be_chosen() -> None:
    image, _ = framed(1, 440, 440, 20, 20)
    cut = image[110:330]
    assert prepare_image(cut, 64).image.shape == (64, 64, 3)
    with pytest.raises(Rejected, match="zoomed in: the photograph shows 6. %"):
        prepare_image(cut, 64, Framing(visible=0.86))
    tiny = np.asarray(Image.fromarray(image).resize((33, 33), Image.Resampling.BICUBIC))
    with pytest.raises(Rejected, match="too small: the field of view is 3. pixels wide, at least 230"):
        prepare_image(tiny, 512)
    with pytest.raises(Rejected, match="at least 1000 needed"):
        prepare_image(image, 64, Framing(source_size=1000))
