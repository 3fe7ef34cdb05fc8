"""The design's power against simulated studies."""

import numpy as np
import pytest

from fundusgan_jax.metrics.multireader import equivalence, p_value, two_way_mean
from fundusgan_jax.reader_study.__main__ import main
from fundusgan_jax.reader_study.plan import components, power_against_chance, power_of_equivalence, precision


def study(rng, accuracy_logit, num_readers, num_images):
    logit = accuracy_logit + rng.normal(0, 0.5, (num_readers, 1)) + rng.normal(0, 1.0, (1, num_images))
    return (rng.random(logit.shape) < 1 / (1 + np.exp(-logit))).astype(float)


def test_components_by_drawing():
    rng = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-(rng.normal(0, 0.5, (1500, 1)) + rng.normal(0, 1.0, (1, 1500)))))
    part = components(0.5)
    assert part.reader == pytest.approx(p.mean(1).var(), rel=0.12)
    assert part.image == pytest.approx(p.mean(0).var(), rel=0.12)
    assert sum(part) == pytest.approx(0.25, abs=1e-9)


def test_more_readers_and_images_help():
    assert precision(40, 100, 0.5).half_width < precision(10, 100, 0.5).half_width
    assert power_against_chance(40, 100, 0.5) == pytest.approx(0.05, abs=1e-6)
    assert power_of_equivalence(40, 100, 0.15) > power_of_equivalence(40, 100, 0.05)


def test_plan_is_printed(capsys):
    assert main(["create", "--plan", "--num=50"]) == 0
    assert "40 readers, 100 images" in capsys.readouterr().out


@pytest.mark.slow
def test_power_by_simulation():
    rng = np.random.default_rng(1)
    level = 0.4875  # mean accuracy 0.60 with these spreads
    found = np.zeros(3)
    for _ in range(2000):
        estimate = two_way_mean(study(rng, level, 20, 60))
        null = two_way_mean(study(rng, 0.0, 20, 60))
        found += [estimate.mean, p_value(estimate, 0.5) < 0.05, equivalence(null, 0.5, 0.15).equivalent]
    accuracy, power, equivalent = found / 2000
    assert power == pytest.approx(power_against_chance(20, 60, accuracy), abs=0.04)
    assert equivalent == pytest.approx(power_of_equivalence(20, 60, 0.15), abs=0.04)
