"""What figures are called for people, which way is better, and their table as text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TITLES = {
    "ssim": "SSIM",
    "psnr": "PSNR (dB)",
    "ms_ssim": "MS-SSIM",
    "lpips": "LPIPS",
    "perceptual": "perceptual distance",
    "fid": "FID",
    "fid_infinity": "FID∞",
    "kid": "KID",
    "kid_subsets": "KID, 100 subsets",
    "frechet": "Fréchet distance",
    "frechet_infinity": "Fréchet∞",
    "kernel": "kernel distance",
    "kernel_subsets": "kernel distance, 100 subsets",
    "l2": "L2 (images in [-1, 1])",
    "reg": "‖w+ − w_avg‖",
    "adv": "generator's adversarial loss",
    "d_adv": "discriminator's loss",
    "d_real": "D(photographs)",
    "d_fake": "D(generated)",
    "r1": "R1, ‖∂D/∂x‖²",
    "pl_length": "path length",
    "augment_p": "augmentation p",
    "img_per_sec": "img/s",
}
HIGHER_IS_BETTER = (
    "ssim", "psnr", "ms_ssim", "ssim_fov", "psnr_fov", "ms_ssim_fov", "precision", "recall", "density", "coverage",
)  # fmt: skip
SPREADS = ("kid_subsets_std", "kernel_subsets_std")  # stand beside the figure that they belong to


def title_of(name: str) -> str:
    """For people; '..._fov' is inside the field of view."""
    if name.endswith("_fov"):
        return f"{TITLES.get(name[:-4], name[:-4])} in field of view"
    return TITLES.get(name, name)


def shown(value: float | None) -> str:
    """Four digits after the point, fewer of a large number; '' for none."""
    if value is None or value != value:
        return ""
    return f"{value:.{4 if abs(value) < 1 else 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1}f}"


def between(interval: Sequence[float | None] | None) -> str:
    """'0.9100 to 0.9300', or ''."""
    if not interval or None in interval or any(end != end for end in interval):
        return ""
    return f"{shown(interval[0])} to {shown(interval[1])}"


def figures_table(record: dict[str, Any]) -> str:
    """An evaluation's figures with intervals beside the other rows', as lines of text, one figure a line."""
    rows = {"model": record["model"], **record["baselines"], **record.get("floors", {})}
    intervals = record.get("intervals", {})
    titles = [*rows][:1] + (["95 % interval"] if intervals else []) + [*rows][1:]
    width = {title: max(12, len(title) + 2) for title in titles}
    if intervals:
        width["95 % interval"] = 22
    lines = ["".join([f"{'':>24}", *(f"{title:>{width[title]}}" for title in titles)])]
    for name in record["model"]:
        cells = [f"{name:>24}"]
        for title in titles:
            text = between(intervals.get(name)) if title == "95 % interval" else shown(rows[title].get(name))
            cells.append(f"{text:>{width[title]}}")
        lines.append("".join(cells))
    return "\n".join(lines)


def print_memorisation(record: dict[str, Any]) -> None:
    """The verdict's line, where the check was made."""
    found = record.get("memorisation")
    if found:
        print(f"memorisation ({found['method']}): {found['verdict']}")
