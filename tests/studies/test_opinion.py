"""studies.opinion: kappa and areas against scikit-learn, identity and noise, mistakes."""

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from fundusgan_jax.errors import UserError
from fundusgan_jax.studies import opinion
from fundusgan_jax.studies.opinion import compare, kappas, opinion_of
from tests.support.tiny import tiny_config
from tests.support.workdirs import untrained_workdir

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 200)
LOGITS = np.stack([-LABEL, LABEL], 1) + RNG.normal(0, 1.0, (200, 2))


def test_kappa_against_scikit_learn():
    first, second = RNG.integers(0, 3, (2, 80))
    second = np.where(RNG.random(80) < 0.6, first, second)
    times = RNG.integers(0, 4, (5, 80)).astype(np.float32)
    for found, weights in zip(kappas(first, second, 3, times), times):
        assert found == pytest.approx(cohen_kappa_score(first, second, sample_weight=weights), abs=1e-6)
    assert np.isnan(kappas(np.zeros(4, int), np.zeros(4, int), 2, np.ones((1, 4)))[0])


def test_the_same_noise_and_an_opinion_that_is_lost():
    patients = [f"p{n // 2}" for n in range(200)]
    same = opinion_of(LABEL, LOGITS, LOGITS, patients, 0)
    assert (
        same.agreement[0] == same.kappa[0] == 1 and same.auc_change == (0, 0, 0) and same.logit_change[0] == 0
    )
    assert same.auc[0] == pytest.approx(roc_auc_score(LABEL, LOGITS[:, 1] - LOGITS[:, 0]), abs=1e-9)
    assert same.auc[1] < same.auc[0] < same.auc[2]
    # The same number added to all logits is the same opinion.
    assert opinion_of(LABEL, LOGITS, LOGITS + 3, patients, 0).logit_change[0] == pytest.approx(0, abs=1e-12)
    lost = opinion_of(LABEL, LOGITS, RNG.normal(size=LOGITS.shape), patients, 0)
    assert lost.kappa[1] < 0 < lost.kappa[2] and lost.auc_change[2] < 0


def test_mistakes_are_one_line(tmp_path):
    with pytest.raises(UserError, match="must be at least 0"):
        opinion.main([f"--classifier={tmp_path}", f"--workdir={tmp_path}", "--seed=-1"])
    run = untrained_workdir(tmp_path / "run", tiny_config())
    with pytest.raises(UserError, match="is no classifier; name a run of configs/classifier.py"):
        compare(run, run, "best", 0)
