"""The answers in the format of iMRMC (DIDSR), the program that reviewers of reader studies use."""

from __future__ import annotations

from pathlib import Path

from fundusgan_jax.atomic import atomic_write
from fundusgan_jax.reader_study.answers import Answers


def write_imrmc(path: Path, answers: Answers) -> None:
    """Writes rows reader, case, modality, score; 'truth' rows say 1 for real.

    The score is 1 where a reader called an image real, else 0: the area under the curve of such answers is the mean of
    sensitivity and specificity. Commas in names become semicolons, because the format has no quotes.
    """
    num_real = int(answers.truth.sum())
    head = [
        "image Turing test: signal = real photograph, score = called real",
        f"NR: {len(answers.readers)}",
        f"N0: {len(answers.images) - num_real}",
        f"N1: {num_real}",
        "NM: 1",
        "BEGIN DATA:",
    ]
    lines = [f"truth,{_name(name)},truth,{int(real)}" for name, real in zip(answers.images, answers.truth)]
    lines += [
        f"{_name(answers.readers[reader])},{_name(answers.images[image])},reading,{int(called)}"
        for reader, image, called in zip(answers.reader, answers.image, answers.called_real)
    ]
    with atomic_write(path) as temporary:
        temporary.write_text("\n".join([*head, *lines, ""]), encoding="utf-8")


def _name(text: str) -> str:
    return text.replace(",", ";").replace("\n", " ")
