"""What figures are called for people, which way is better, and their table as text."""

from __future__ import annotations

import math

from fundusgan_jax.metrics.confidence import Interval
from fundusgan_jax.report.evaluation import Evaluation

INTERVAL = "95 % interval"
RATIO = "model / held-out"  # at equal numbers
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
    "vessel": "difference of vessels, by a frozen network",
    "flow_loss": "flow's loss, held-out photographs",
    "flow_loss_train": "flow's loss, training photographs",
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "exact_match": "every label right",
    "odir_kappa": "ODIR-2019, kappa of patients and classes pooled",
    "odir_f1": "ODIR-2019, F1 (pooled accuracy)",
    "odir_auc": "ODIR-2019, AUC pooled",
    "odir_final": "ODIR-2019, official score",
    "brier": "Brier score",
    "ece": "calibration error (ECE)",
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
    "auc", "accuracy", "balanced_accuracy", "macro_f1", "exact_match", "sensitivity", "specificity",
    "odir_kappa", "odir_f1", "odir_auc", "odir_final",
)  # fmt: skip
SPREADS = ("kid_subsets_std", "kernel_subsets_std")  # stand beside the figure that they belong to


def higher_is_better(name: str) -> bool:
    """Whether more of a figure is better; 'auc_CLASS' is a class's AUC."""
    return name in HIGHER_IS_BETTER or name.startswith("auc_")


def title_of(name: str) -> str:
    """For people; '..._fov' is inside the field of view."""
    if name.endswith("_fov"):
        return f"{TITLES.get(name[:-4], name[:-4])} in field of view"
    if name.startswith("auc_"):
        return f"AUC of {name[4:]} against the others"
    return TITLES.get(name, name)


def shown(value: float | None) -> str:
    """Four digits after the point, fewer of a large number; '' for none."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:.{4 if abs(value) < 1 else 3 if abs(value) < 10 else 2 if abs(value) < 100 else 1}f}"


def between(interval: Interval | None) -> str:
    """'0.9100 to 0.9300', or ''."""
    if interval is None or any(math.isnan(end) for end in interval):
        return ""
    return f"{shown(interval.low)} to {shown(interval.high)}"


def figures_table(evaluation: Evaluation) -> str:
    """An evaluation's figures with intervals beside trivial reconstructions and photographs, as text, one figure a line."""
    columns = {"model": evaluation.model, **evaluation.baselines, **evaluation.floors}
    if evaluation.ratios:
        columns[RATIO] = evaluation.ratios
    intervals = evaluation.intervals
    titles = [*columns]
    if intervals:
        titles.insert(1, INTERVAL)
    width = {title: max(12, len(title) + 2) for title in titles} | {INTERVAL: 22}
    lines = ["".join([f"{'':>24}", *(f"{title:>{width[title]}}" for title in titles)])]
    for name in evaluation.model:
        cells = [f"{name:>24}"]
        for title in titles:
            text = between(intervals.get(name)) if title == INTERVAL else shown(columns[title].get(name))
            cells.append(f"{text:>{width[title]}}")
        lines.append("".join(cells))
    return "\n".join(lines)


def print_evaluation(evaluation: Evaluation, heading: str) -> None:
    """The figures as people read them in a terminal: heading, table, notes, verdict of the memory check."""
    print(f"{heading}\n{figures_table(evaluation)}")
    for warning in evaluation.warnings:
        print(f"note: {warning}")
    memory = evaluation.memorisation
    if memory is not None:
        print(f"memorisation ({memory.method}): {memory.verdict}", flush=True)
