"""Finds the circle that bounds the field of view in a photograph, and tells what else is there: bars, two eyes, an ellipse."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from fundusgan_jax.data.decoded import Rejected

SEARCH_SIZE = 256  # side that the circle is looked for at
SURROUND = 40  # of 255: a brighter one is paper, a web page, a coloured wall
# Of the difference between inside and surround: what counts as inside. Before black a rim may be dim, and a circle that is 2 % too large
# shows nothing but black; of a bright surround a ring would be left, so that the edge is looked for near the middle of its blur.
DIM_EDGE, BRIGHT_EDGE = 0.06, 0.43
STANDS_OUT = 24  # of 255: what is less apart from a bright surround's colour is of it
# A page around a camera's black frame: darker is black, at least this share of the picture, pixels of SEARCH_SIZE that its edge blurs.
BLACK, FRAME_SHARE, EDGE_BLUR = 24, 0.02, 4
LONE_DISC = 0.5  # of the frame: what fills less in both directions is looked at more closely
# Of 292 photographs of ODIR 34 are copies, cut at top and bottom, whose width was squeezed into a square (1.05 to 1.28 times as
# high as wide): an ellipse agrees with 0.7 to 1 of their outline, a circle with 0.5 to 0.63, one arc. Of the other 258, and of 248
# of dme, an ellipse that is none by more than 4 % gains less than 0.05.
ELLIPSE_GAIN, MOST_SQUASHED = 0.15, 1.7
# Shares of a part's longer side: a straight cut is where rows widen by more than CUT_WIDTH within CUT_ROWS, at most CUT_DEPTH from the end.
CUT_WIDTH, CUT_ROWS, CUT_DEPTH = 0.3, 0.012, 0.1


class Circle(NamedTuple):
    """A disc in pixels; y, x of its centre and its radius."""

    y: float
    x: float
    radius: float


class Squashed(Rejected):
    """A field of view that is an ellipse. ratio: its height over its width, of the pixels of the photograph."""

    def __init__(self, ratio: float) -> None:
        more = f"{ratio:.2f} times as high as wide" if ratio > 1 else f"{1 / ratio:.2f} times as wide as high"
        super().__init__(
            f"no disc-shaped field of view: its outline is an ellipse, {more} (a copy whose proportions were changed)"
        )
        self.ratio = ratio


def find_field_of_view(rgb: np.ndarray) -> Circle:
    """The circle that bounds the illuminated part of a photograph.

    The bright part's outline, less what lies on the photograph's own edges, is fitted by the circle that
    most of it agrees with, because the sensor often cuts the disc's top and bottom, a tab marks its
    corner, and shadows eat into it.

    Args:
        rgb: uint8 [H, W, 3].

    Raises:
        Rejected: too dark to see an outline, or no disc.
    """
    return circle_without_page(without_page(rgb))


def circle_without_page(rgb: np.ndarray) -> Circle:
    """`find_field_of_view` of what `without_page` gave."""
    top, bottom, left, right = _without_bars(rgb)
    inner = rgb[top:bottom, left:right]
    apart = _distance_from_surround(inner)
    circle = _circle_in(inner, DIM_EDGE) if apart is None else _circle_in(apart, BRIGHT_EDGE)
    return Circle(circle.y + top, circle.x + left, circle.radius)


def without_page(rgb: np.ndarray) -> np.ndarray:
    """A photograph uint8 [H, W, 3] whose camera's black frame lies on a bright page, with the page blackened; else itself."""
    top, bottom, left, right = _without_bars(rgb)
    inner = rgb[top:bottom, left:right]
    apart = _distance_from_surround(inner)
    page = None if apart is None else _page_around_frame(inner, apart)
    if page is None:
        return rgb
    plain = np.zeros_like(rgb)
    plain[top:bottom, left:right] = np.where(page[..., None], np.uint8(0), inner)
    return plain


def _without_bars(rgb: np.ndarray) -> tuple[int, int, int, int]:
    """top, bottom, left, right of a photograph without bright bars of one colour along one or two of its edges."""
    ends = []
    for axis in (0, 1):
        lines = rgb if axis == 0 else rgb.transpose(1, 0, 2)
        sample = lines[:, :: max(lines.shape[1] // 128, 1)].max(2)
        bar = (np.ptp(sample, axis=1) <= 12) & (sample.min(1) > SURROUND)
        inside = np.flatnonzero(~bar)
        first, last = (int(inside[0]), int(inside[-1]) + 1) if len(inside) else (0, len(lines))
        thin = 0.02 * len(lines)
        ends += [first if first > thin else 0, last if len(lines) - last > thin else len(lines)]
    height, width = rgb.shape[:2]
    bars = sum((ends[0] > 0, ends[1] < height, ends[2] > 0, ends[3] < width))
    # Three and more are a surround, not bars.
    return (ends[0], ends[1], ends[2], ends[3]) if 1 <= bars <= 2 else (0, height, 0, width)


def _distance_from_surround(rgb: np.ndarray) -> np.ndarray | None:
    """A picture whose brightness is the distance from a bright surround's colour, uint8 [H, W, 3]; None where the corners are
    not of one bright colour."""
    corner = max(2, min(rgb.shape[:2]) // 40)
    ends = (slice(corner), slice(-corner, None))
    corners = np.concatenate([rgb[y, x].reshape(-1, 3) for y in ends for x in ends])
    colour = np.median(corners, 0)
    if colour.max() <= SURROUND or np.ptp(corners, axis=0).max() > STANDS_OUT:
        return None
    apart = np.abs(rgb.astype(np.int16) - colour.astype(np.int16)).max(2).astype(np.uint8)
    return np.repeat(apart[..., None], 3, 2) if apart.max() >= STANDS_OUT else None  # one colour throughout


def _page_around_frame(rgb: np.ndarray, apart: np.ndarray) -> np.ndarray | None:
    """bool [H, W]: a bright surround with the blur of its edge, where the camera's black frame lies in it; None where the eye
    does. apart: of `_distance_from_surround`."""
    black = rgb.max(2) < BLACK
    if black.mean() < FRAME_SHARE:
        return None
    step = max(max(rgb.shape[:2]) // SEARCH_SIZE, 1)  # a large photograph is looked at in every step-th pixel
    parts, _ = ndimage.label(apart[::step, ::step, 0] < STANDS_OUT)
    outside = np.isin(parts, np.unique(parts[[0, 0, -1, -1], [0, -1, 0, -1]])) & (parts > 0)
    distance = ndimage.distance_transform_edt(~outside)
    beside = (distance > EDGE_BLUR) & (distance <= 2 * EDGE_BLUR)
    if not beside.any() or black[::step, ::step][beside].mean() < 0.5:
        return None
    page = (distance <= EDGE_BLUR).repeat(step, 0).repeat(step, 1)
    return np.asarray(page[: rgb.shape[0], : rgb.shape[1]])


def _circle_in(rgb: np.ndarray, edge: float, closer: bool = False) -> Circle:
    """The circle around what is brighter than the corners by a share `edge` of the difference; a small disc in a large frame is
    looked at once more, closer."""
    height, width = rgb.shape[:2]
    scale = SEARCH_SIZE / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    small = np.asarray(Image.fromarray(rgb).resize(size, Image.Resampling.BOX, reducing_gap=2.0)).max(2)
    mask = _lit(ndimage.gaussian_filter(small.astype(np.float32), 1.5), edge)
    parts = _largest_parts(mask)
    if len(parts) > 1 and _are_two_discs(*parts):
        raise Rejected("several fields of view in one picture: save each as a file of its own")
    points = _outline(parts[0])
    if len(points) >= 24:
        circle, agreeing = _fit_circle(points)
        ratio, share = _fit_ellipse(points) if agreeing < 0.8 else (1.0, 0.0)
        if share > max(agreeing + ELLIPSE_GAIN, 0.7) and abs(np.log(ratio)) > 0.04:
            raise Squashed(ratio)
        if agreeing >= 0.45 and 0.2 * SEARCH_SIZE < circle.radius < 1.2 * SEARCH_SIZE:
            return Circle(
                (circle.y + 0.5) / scale - 0.5, (circle.x + 0.5) / scale - 0.5, circle.radius / scale
            )
    rows, columns = np.flatnonzero(parts[0].any(1)), np.flatnonzero(parts[0].any(0))
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    if not closer and side < LONE_DISC * SEARCH_SIZE and side > 4:
        top, bottom = (
            int(np.clip(end, 0, height))
            for end in ((rows[0] - 0.2 * side) / scale, (rows[-1] + 0.2 * side) / scale)
        )
        left, right = (
            int(np.clip(end, 0, width))
            for end in ((columns[0] - 0.2 * side) / scale, (columns[-1] + 0.2 * side) / scale)
        )
        if min(bottom - top, right - left) >= 16:
            circle = _circle_in(rgb[top:bottom, left:right], edge, closer=True)
            return Circle(circle.y + top, circle.x + left, circle.radius)
    tall, wide = parts[0].shape
    if len(points) < 24 and max(rows[0], columns[0]) < 2 and rows[-1] >= tall - 2 and columns[-1] >= wide - 2:
        raise Rejected("no disc-shaped field of view: the photograph fills its frame")
    raise Rejected("no disc-shaped field of view: its outline is not a circle")


def _lit(smooth: np.ndarray, edge: float) -> np.ndarray:
    """bool [H, W]: what is brighter than the corners of a smoothed picture, by a share `edge` of the difference.

    Raises:
        Rejected: nothing is.
    """
    corner = max(3, SEARCH_SIZE // 32)
    corners = [
        smooth[:corner, :corner],
        smooth[:corner, -corner:],
        smooth[-corner:, :corner],
        smooth[-corner:, -corner:],
    ]
    surround = float(np.median([np.median(part) for part in corners]))
    bright = float(np.percentile(smooth, 95))
    if bright - surround < 8 and surround <= SURROUND:
        bright = float(smooth.max())  # a small disc is less than a twentieth of its frame
        if bright - surround < 24:
            raise Rejected("too dark: nothing stands out from the surround")
    if bright - surround < 8:
        raise Rejected("no disc-shaped field of view: the photograph fills its frame")
    return np.asarray(smooth > surround + max(4.0, edge * (bright - surround)))


def _largest_parts(mask: np.ndarray) -> list[np.ndarray]:
    """The largest connected part of a mask and the second, where there is one."""
    labels, count = ndimage.label(mask)
    areas = np.bincount(labels.ravel(), minlength=2)[1:]
    return [
        labels == 1 + int(number) for number in np.argsort(-areas, kind="stable")[: min(2, max(count, 1))]
    ]


def _are_two_discs(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two parts of about one size, side by side, are both round."""
    if second.sum() < 0.5 * first.sum() or second.sum() < 0.02 * first.size:
        return False
    return all(_roundness(part) > 0.85 for part in (first, second))


def _roundness(part: np.ndarray) -> float:
    """Share in common of a part and the disc of its bounding box."""
    rows, columns = np.flatnonzero(part.any(1)), np.flatnonzero(part.any(0))
    y, x = np.ogrid[: part.shape[0], : part.shape[1]]
    tall, wide = (np.ptp(rows) + 1) / 2, (np.ptp(columns) + 1) / 2
    radius = max(tall, wide)
    disc = np.hypot(y - (rows[0] + rows[-1]) / 2, x - (columns[0] + columns[-1]) / 2) <= radius
    return float((disc & part).sum() / max((disc | part).sum(), 1))


def _outline(part: np.ndarray) -> np.ndarray:
    """Outermost points [P, 2] (y, x) of a part by row and by column, not on the frame's edges nor on a straight cut before them."""
    points = []
    for axis in (0, 1):
        lines = part if axis == 0 else part.T
        filled = np.flatnonzero(lines.any(1))
        first = lines[filled].argmax(1)
        last = lines.shape[1] - 1 - lines[filled][:, ::-1].argmax(1)
        for ends in (first, last):
            pair = np.stack([filled, ends], 1)
            points.append(pair if axis == 0 else pair[:, ::-1])
    outermost = np.unique(np.concatenate(points), axis=0).astype(np.float64)
    (top, bottom), (left, right) = (_between_cuts(part if axis == 0 else part.T) for axis in (0, 1))
    inside = (outermost > (top, left)).all(1) & (outermost < (bottom, right)).all(1)
    return outermost[inside]


def _between_cuts(part: np.ndarray) -> tuple[int, int]:
    """The rows beyond which a part's outline is not a disc's: those of the frame's edges, or of a straight cut before them.

    A disc's rows widen by at most 2 sqrt(CUT_ROWS) = 0.22 of its diameter in CUT_ROWS of it, a cut's at once. A tab or a dim bar
    may lie beyond the cut.
    """
    widths = part.sum(1)
    filled = np.flatnonzero(widths)
    if not len(filled):
        return 1, len(widths) - 2
    side = max(filled[-1] + 1 - filled[0], np.ptp(np.flatnonzero(part.any(0))) + 1)
    step, deep = max(round(CUT_ROWS * side), 1), max(round(CUT_DEPTH * side), 2)
    ends = []
    for profile, first in ((widths, filled[0]), (widths[::-1], len(widths) - 1 - filled[-1])):
        padded = np.concatenate([np.zeros(step, int), profile[first : first + deep]])
        cuts = np.flatnonzero(padded[step:] - padded[:-step] > CUT_WIDTH * side)
        # What begins at the frame's edge is cut by the frame: no row more is left out.
        is_cut = len(cuts) and (first > 1 or cuts[-1] >= step)
        ends.append(max(1, int(first + cuts[-1]) + 1) if is_cut else 1)
    return ends[0], len(widths) - 1 - ends[1]


def _circle_through(p: np.ndarray, q: np.ndarray, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres [K, 2] and radii [K] of the circles through K triples of points."""
    a, b = q - p, r - p
    twice_area = 2 * (a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])
    safe = np.where(np.abs(twice_area) < 1e-6, np.nan, twice_area)
    aa, bb = (a**2).sum(1), (b**2).sum(1)
    centre = p + np.stack([b[:, 1] * aa - a[:, 1] * bb, a[:, 0] * bb - b[:, 0] * aa], 1) / safe[:, None]
    return centre, np.hypot(*(centre - p).T)


def _fit_circle(points: np.ndarray, trials: int = 400, tolerance: float = 1.5) -> tuple[Circle, float]:
    """The circle that most points agree with (RANSAC, then least squares), and the share that does."""
    rng = np.random.default_rng(0)
    triples = points[rng.integers(0, len(points), (trials, 3))]
    centres, radii = _circle_through(triples[:, 0], triples[:, 1], triples[:, 2])
    apart = np.abs(
        np.hypot(points[None, :, 0] - centres[:, :1], points[None, :, 1] - centres[:, 1:]) - radii[:, None]
    )
    agreeing = np.where(np.isfinite(apart), apart < tolerance, False).sum(1)
    agreeing[~((radii > 0.2 * SEARCH_SIZE) & (radii < 1.2 * SEARCH_SIZE))] = 0
    best = int(np.argmax(agreeing))
    inliers = points[apart[best] < tolerance] if agreeing[best] else points
    # Least squares on the inliers: y^2 + x^2 = 2 a y + 2 b x + c.
    matrix = np.concatenate([2 * inliers, np.ones((len(inliers), 1))], 1)
    a, b, c = np.linalg.lstsq(matrix, (inliers**2).sum(1), rcond=None)[0]
    radius = float(np.sqrt(max(c + a * a + b * b, 0.0)))
    return Circle(float(a), float(b), radius), float(agreeing[best]) / len(points)


def _fit_ellipse(points: np.ndarray, trials: int = 400, tolerance: float = 1.5) -> tuple[float, float]:
    """Height over width of the upright ellipse that most points agree with (RANSAC, then least squares), and the share that
    does; (1, 0) for none."""
    y, x = (points - SEARCH_SIZE / 2).T / SEARCH_SIZE
    terms = np.stack([x * x, y * y, x, y], 1)  # a x^2 + b y^2 + c x + d y = 1
    chosen = terms[np.random.default_rng(0).integers(0, len(points), (trials, 4))]
    solvable = np.abs(np.linalg.det(chosen)) > 1e-12
    factors = np.linalg.solve(chosen[solvable], np.ones((int(solvable.sum()), 4, 1)))[..., 0]
    factors = factors[(factors[:, 0] > 0) & (factors[:, 1] > 0)]
    factors = factors[np.abs(np.log(factors[:, 0] / factors[:, 1])) < 2 * np.log(MOST_SQUASHED)]
    if not len(factors):
        return 1.0, 0.0
    slope = np.hypot(
        2 * np.outer(x, factors[:, 0]) + factors[:, 2], 2 * np.outer(y, factors[:, 1]) + factors[:, 3]
    )
    near = np.abs(terms @ factors.T - 1) / np.maximum(slope, 1e-9) * SEARCH_SIZE < tolerance
    best = int(near.sum(0).argmax())
    a, b, *_ = np.linalg.lstsq(terms[near[:, best]], np.ones(int(near[:, best].sum())), rcond=None)[0]
    return (float(np.sqrt(a / b)), float(near[:, best].mean())) if min(a, b) > 0 else (1.0, 0.0)
