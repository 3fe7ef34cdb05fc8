"""studies.opinion: kappa and areas against scikit-learn, identity and noise, mistakes."""

import json

import jax
import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from configs import classifier
from fundusgan_jax.data.phantom.render import LABEL_NAMES
from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.classifier_step import first_classifier
from fundusgan_jax.studies import opinion
from fundusgan_jax.studies.opinion import compare, doubts, kappas, opinion_of
from fundusgan_jax.weights.classifier_weights import open_classifier
from fundusgan_jax.workdir.manifest import config_of_workdir
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


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A classifier and a FundusGAN that nobody has trained, over the same phantoms."""
    folder = tmp_path_factory.mktemp("opinion")
    phantoms = {"data__dataset": "phantom", "data__phantom_num": 12}
    model = untrained_workdir(folder / "model", tiny_config(**phantoms))
    config = classifier.get_config()
    small = {
        "data.dataset": "phantom",
        "data.classes": ",".join(LABEL_NAMES),
        "data.phantom_num": 12,
        "data.resolution": 64,
        "classifier.network": "squeezenet",
    }
    config.update_from_flattened_dict(small | {"classifier.width": 0.125, "eval.batch_size": 8})
    state = first_classifier(config, np.full(len(LABEL_NAMES), 1 / len(LABEL_NAMES), np.float32))
    return untrained_workdir(folder / "judge", config, state), model, state


@pytest.mark.slow
def test_the_command_judges_reconstructions_and_reduced_photographs(runs, tmp_path, capsys):
    judge, model, _ = runs
    output = tmp_path / "opinion.json"
    assert opinion.main([f"--classifier={judge}", f"--workdir={model}", f"--output={output}"]) == 0
    record = json.loads(output.read_text())
    # At 64 px "reduced to 64 px" would be the photograph itself.
    assert list(record["ways"]) == ["reconstructed", "reduced to 16 px"]
    assert record["photographs"] == 4 and all(
        0 <= one["agreement"][0] <= 1 for one in record["ways"].values()
    )
    assert f"{record['photographs']} held-out photographs, AUC" in capsys.readouterr().out


def test_what_makes_an_opinion_doubtful(runs):
    judge, model, _ = runs
    config, theirs = (config_of_workdir(folder, []) for folder in (judge, model))
    assert doubts(judge, config, model, theirs) == []
    theirs.loss.classifier, theirs.loss.classifier_workdir = 0.1, f"{judge}/"
    config.data.eval_split = "valid"
    through, chosen = doubts(judge, config, model, theirs)
    assert "trained through this classifier" in through and "chosen by split 'valid'" in chosen
    theirs.loss.classifier_workdir = str(model)
    theirs.data.train_split = "valid"
    with pytest.raises(UserError, match="was trained on split 'valid', which .*judge holds out"):
        doubts(judge, config, model, theirs)


@pytest.mark.slow
def test_the_loss_takes_the_classifier_of_a_workdir(runs):
    judge, model, state = runs
    weights = {"loss__classifier": 1.0, "loss__classifier_workdir": str(judge)}
    frozen = open_classifier(tiny_config(**weights))
    for ours, theirs in zip(jax.tree.leaves(frozen.variables["params"]), jax.tree.leaves(state.ema.params)):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(UserError, match="classifies 64 px, data.resolution is 128"):
        open_classifier(tiny_config(**weights, data__resolution=128))
    with pytest.raises(UserError, match="is no classifier; name a run of configs/classifier.py"):
        open_classifier(tiny_config(loss__classifier=1.0, loss__classifier_workdir=str(model)))


def test_mistakes_are_one_line(runs, tmp_path):
    judge, model, _ = runs
    with pytest.raises(UserError, match="must be at least 0"):
        opinion.main([f"--classifier={tmp_path}", f"--workdir={tmp_path}", "--seed=-1"])
    with pytest.raises(UserError, match="is no classifier; name a run of configs/classifier.py"):
        compare(model, model, "best", 0)
    with pytest.raises(UserError, match="reconstructs no photographs"):
        compare(judge, judge, "best", 0)
