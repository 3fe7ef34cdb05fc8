"""Turns a made-up eye's anatomy into masks and a colour photograph at any resolution."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

from fundusgan_jax.data.phantom.anatomy import Anatomy, Vessel

FOV_RADIUS = 0.48  # of the picture's side
COVERED = 1 / 3  # share of a pixel that a structure covers to belong to its mask: keeps thin lines connected
CHUNK = 12  # points of a vessel that are drawn with one opacity
# Absorption (natural logarithm, per channel RGB) of a full-width vessel or lesion. In DRIVE the vessels'
# cores have 0.91, 0.78, 0.87 of their surroundings' brightness (median over six photographs).
VEIN, ARTERY = (0.14, 0.46, 0.25), (0.05, 0.33, 0.18)
BLOOD = (0.28, 0.62, 0.34)


class Colouring(NamedTuple):
    """What both eyes of a person share: colours as RGB in 0..255, strengths as fractions."""

    retina: np.ndarray
    macula: float
    mottle: float
    choroid: float
    contrast: float
    reflex: float
    disc_pallor: float


class Lighting(NamedTuple):
    """What differs from photograph to photograph."""

    center: tuple[float, float]
    fall_off: float
    haze: float
    haze_angle: float
    foveal_reflex: float
    grain: float


def draw_colouring(rng: np.random.Generator) -> Colouring:
    """A random person's colours: orange to brown, in the range of real photographs (see the constants)."""
    # Real medians (122 photographs of dme): red 54 to 168 in the quartiles, green/red 0.55 to 0.73, blue/red
    # 0.25 to 0.5. The darkest quarter is under-exposed rather than dark, and is left out here.
    red = rng.uniform(110, 225)
    green_share = np.clip(rng.normal(0.54, 0.07), 0.41, 0.7)
    green = red * green_share
    blue = red * np.clip(0.75 * green_share - 0.12 + rng.normal(0, 0.045), 0.15, 0.44)
    return Colouring(
        retina=np.array([red, green, blue], np.float32),
        macula=rng.uniform(0.14, 0.28),
        mottle=rng.uniform(0.03, 0.06),
        choroid=rng.uniform(0.05, 0.16) if rng.random() < 0.45 else 0.02,
        contrast=rng.uniform(0.95, 1.3),
        reflex=rng.uniform(0.1, 0.3),
        disc_pallor=rng.uniform(0.0, 1.0),
    )


def draw_lighting(rng: np.random.Generator) -> Lighting:
    """Random exposure of one photograph."""
    return Lighting(
        center=(rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2)),
        fall_off=rng.uniform(0.16, 0.42),
        haze=rng.uniform(0.08, 0.3) if rng.random() < 0.35 else 0.0,
        haze_angle=rng.uniform(0, 2 * np.pi),
        foveal_reflex=rng.uniform(0.15, 0.4) if rng.random() < 0.4 else 0.0,
        grain=rng.uniform(0.008, 0.018),
    )


def pixel_grid(resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit coordinates x [1, S] and y [S, 1] (float32) of the pixels' centres."""
    line = ((np.arange(resolution) + 0.5) / resolution - 0.5) / FOV_RADIUS
    return line[None, :].astype(np.float32), line[:, None].astype(np.float32)


def to_pixels(x: float, y: float, resolution: int) -> tuple[float, float]:
    """(row, column) of a point in unit coordinates; whole numbers are the pixels' centres."""
    scale = FOV_RADIUS * resolution
    return y * scale + resolution / 2 - 0.5, x * scale + resolution / 2 - 0.5


class Canvas:
    """Draws filled outlines given in unit coordinates, antialiased by supersampling."""

    def __init__(self, resolution: int) -> None:
        self.factor = 8 if resolution <= 128 else 4
        side = resolution * self.factor
        self.scale, self.middle = FOV_RADIUS * side, side / 2 - 0.5
        self.picture = Image.new("L", (side, side))
        self._draw = ImageDraw.Draw(self.picture)

    def polygon(self, outline: np.ndarray, level: int = 255) -> None:
        """Fills an outline [P, 2] (x, y) with a level 1..255; later ones replace earlier ones."""
        self._draw.polygon((outline * self.scale + self.middle).ravel().tolist(), fill=level)

    def level(self) -> np.ndarray:
        """Mean level over every pixel, float32 [S, S] in 0..1."""
        return np.asarray(self.picture.reduce(self.factor), np.float32) / 255

    def mask(self) -> np.ndarray:
        """bool [S, S]: at least a third of the pixel is covered, whatever the level."""
        covered = self.picture.point([0] + [255] * 255).reduce(self.factor)
        return np.asarray(covered) >= 255 * COVERED


def vessel_outline(points: np.ndarray, width: np.ndarray) -> np.ndarray:
    """The outline [2P, 2] of a curve [P, 2] with the given full widths [P]."""
    along = np.gradient(points, axis=0)
    normal = np.stack([-along[:, 1], along[:, 0]], 1) / np.maximum(np.hypot(*along.T), 1e-9)[:, None]
    offset = normal * (width / 2)[:, None]
    return np.concatenate([points + offset, (points - offset)[::-1]])


def draw_vessels(vessels: tuple[Vessel, ...], kind: str, resolution: int) -> tuple[Canvas, Canvas]:
    """The vessels of one kind, and the bright line along the middle of the thicker ones.

    A vessel's level grows with its width: a thick one absorbs more.
    """
    body, reflex = Canvas(resolution), Canvas(resolution)
    chunks = []
    for vessel in vessels:
        if vessel.kind != kind:
            continue
        side_a, side_b = np.split(vessel_outline(vessel.points, vessel.width), 2)
        for start in range(0, len(vessel.points) - 1, CHUNK):
            part = slice(start, start + CHUNK + 1)
            back = side_b[::-1][part][::-1]
            chunks.append((float(vessel.width[part].mean()), np.concatenate([side_a[part], back])))
        if vessel.width.max() > 0.011:
            keep = vessel.width > 0.009
            if keep.sum() > 3:
                reflex.polygon(vessel_outline(vessel.points[keep], 0.3 * vessel.width[keep]))
    chunks.sort(key=lambda chunk: chunk[0])  # thick ones lie on top
    for width, outline in chunks:
        body.polygon(outline, round(255 * min(1.0, 0.3 + 0.7 * (width / 0.022) ** 0.8)))
    return body, reflex


def noise(rng: np.random.Generator, cells: int, resolution: int) -> np.ndarray:
    """Smooth noise, float32 [S, S] of about unit variance, `cells` across; the same at every resolution."""
    grid = rng.standard_normal((cells, cells), dtype=np.float32)
    return np.asarray(Image.fromarray(grid).resize((resolution, resolution), Image.Resampling.BICUBIC))


def _texture(rng: np.random.Generator, colouring: Colouring, resolution: int) -> np.ndarray:
    """Choroidal pattern: blotches of many sizes and a net of paler and darker bands; mean about 0."""
    blotches = sum(
        weight * noise(rng, cells, resolution)
        for cells, weight in ((5, 0.9), (11, 0.7), (23, 0.5), (47, 0.5), (95, 0.35))
    )
    bands = sum(
        weight * (0.55 - np.abs(noise(rng, cells, resolution))) for cells, weight in ((14, 0.8), (26, 0.7))
    )
    return colouring.mottle * blotches + colouring.choroid * bands


def _soft_step(distance: np.ndarray, edge: float, width: float) -> np.ndarray:
    """1 below the edge, 0 above it, smooth over `width`."""
    t = np.clip((edge - distance) / width + 0.5, 0, 1)
    return t * t * (3 - 2 * t)


def _ellipse(
    x: np.ndarray, y: np.ndarray, center: tuple[float, float], axes: tuple[float, float]
) -> np.ndarray:
    return np.hypot((x - center[0]) / axes[0], (y - center[1]) / axes[1])


def ellipse_mask(resolution: int, center: tuple[float, float], axes: tuple[float, float]) -> np.ndarray:
    """bool [S, S]: the pixels whose centre lies inside."""
    x, y = pixel_grid(resolution)
    return _ellipse(x, y, center, axes) <= 1


def _retina(
    rng: np.random.Generator, anatomy: Anatomy, colouring: Colouring, lighting: Lighting, resolution: int
) -> np.ndarray:
    """Background with macula, disc and cup, float32 [S, S, 3] in 0..255, before light and vessels."""
    x, y = pixel_grid(resolution)
    diameter = anatomy.disc_diameter
    from_fovea = np.hypot(x - anatomy.fovea[0], y - anatomy.fovea[1]) / diameter
    pigment = colouring.macula * (
        np.exp(-((from_fovea / 0.85) ** 2)) + 0.9 * np.exp(-((from_fovea / 0.25) ** 2))
    )
    shine = lighting.foveal_reflex * np.exp(-((from_fovea / 0.05) ** 2))
    glow = 0.14 * np.exp(-((_ellipse(x, y, anatomy.disc_center, anatomy.disc_axes) / 3.2) ** 2))
    texture = _texture(rng, colouring, resolution)
    base = colouring.retina
    planes = []
    edge = _ellipse(x, y, anatomy.disc_center, anatomy.disc_axes)
    disc = _soft_step(edge, 1.0, 0.24)
    cup = _soft_step(_ellipse(x, y, anatomy.cup_center, anatomy.cup_axes), 1.0, 0.6)
    temporal = np.clip((anatomy.disc_center[0] - x) / anatomy.disc_axes[0], -1, 1)  # paler there
    pale = colouring.disc_pallor
    rim_colour = base * (1.32, 1.4 + 0.25 * pale, 1.3 + 0.4 * pale) + (20, 16, 8)
    cup_colour = base * (1.42, 1.9 + 0.25 * pale, 2.0 + 0.6 * pale) + (34, 32, 18)
    for channel, (mottling, dark) in enumerate(((0.4, 0.6), (1.0, 1.0), (0.9, 1.1))):
        plane = base[channel] * (1 + mottling * texture) * (1 - dark * pigment) * (1 + glow + shine)
        head = rim_colour[channel] * (1 + (0.0, 0.07, 0.1)[channel] * temporal + 0.35 * texture)
        head = head + cup * (cup_colour[channel] - head)
        planes.append(plane + disc * (head - plane))
    return np.stack(planes, -1)


def _light(picture: np.ndarray, lighting: Lighting) -> np.ndarray:
    """Illumination fall-off (edge/centre in dme: red 0.73, green 0.84, blue 1.07) and haze at one edge."""
    resolution = len(picture)
    x, y = pixel_grid(resolution)
    off = (x - lighting.center[0]) ** 2 + (y - lighting.center[1]) ** 2
    fall = (lighting.fall_off * np.array((1.0, 0.85, 0.6))).astype(np.float32)
    picture = picture * (1.04 - fall * off[..., None])
    if lighting.haze:
        toward = x * math.cos(lighting.haze_angle) + y * math.sin(lighting.haze_angle)
        veil = lighting.haze * (1 - _soft_step(toward, 0.75, 0.8))[..., None]
        picture = picture + veil * (np.array((150, 160, 125), np.float32) - picture)
    return picture


def _absorb(picture: np.ndarray, amount: np.ndarray, strength: tuple[float, float, float]) -> np.ndarray:
    return picture * np.exp(-amount[..., None] * np.array(strength, np.float32))


def paint(
    rng: np.random.Generator,
    anatomy: Anatomy,
    colouring: Colouring,
    lighting: Lighting,
    vessels: dict[str, tuple[Canvas, Canvas]],
    lesions: dict[str, Canvas],
    resolution: int,
) -> np.ndarray:
    """The photograph, uint8 [S, S, 3], black outside the field of view.

    Args:
        rng: of the textures and the grain.
        vessels: kind -> (body, reflex) as `draw_vessels` gives them.
        lesions: kind -> canvas; absent kinds are not painted.
    """
    picture = _retina(rng, anatomy, colouring, lighting, resolution)
    softness = max(0.3, 0.0016 * FOV_RADIUS * resolution)  # pixels; no lens is sharper
    for kind, strength in (("vein", VEIN), ("artery", ARTERY)):
        body, reflex = (canvas.level() for canvas in vessels[kind])
        amount = ndimage.gaussian_filter(body, softness) * colouring.contrast
        amount -= (
            amount
            * ndimage.gaussian_filter(reflex, softness)
            * (colouring.reflex * (2.2 if kind == "artery" else 0.6))
        )
        picture = _absorb(picture, amount, strength)
    for kind, weight in (("microaneurysms", 0.75), ("haemorrhages", 1.0)):
        if kind in lesions:
            picture = _absorb(
                picture, weight * ndimage.gaussian_filter(lesions[kind].level(), softness), BLOOD
            )
    if "hard_exudates" in lesions:
        cover = 0.9 * ndimage.gaussian_filter(lesions["hard_exudates"].level(), softness)[..., None]
        red, _, blue = colouring.retina
        deposit = np.array((1.12 * red + 42, 0.9 * red + 40, 0.9 * blue + 26), np.float32)
        picture = picture + cover * (deposit - picture)
    picture = _light(picture, lighting)
    grain = noise(rng, 512, resolution)[..., None] + 0.5 * np.stack(
        [noise(rng, 360, resolution) for _ in range(3)], -1
    )
    picture = picture * (1 + lighting.grain * grain)
    x, y = pixel_grid(resolution)
    aperture = np.clip((1 - np.hypot(x, y)) * FOV_RADIUS * resolution, 0, 1)[..., None]
    return np.clip(np.rint(picture * aperture), 0, 255).astype(np.uint8)
