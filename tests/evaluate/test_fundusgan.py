"""evaluate/fundusgan.py: what a scorer knows does not depend on what it was asked before; a stopped scoring leaves nothing."""

import numpy as np
import pytest

from fundusgan_jax.data.packed import PackedDataset, PackedSplit
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.evaluate.fundusgan import FundusGANScorer, full_evaluation
from fundusgan_jax.evaluate.stop import Stopped
from tests.support.tiny import tiny_config


def _split(seeds: range) -> PackedSplit:
    images = np.stack([render(seed, 64).image for seed in seeds])
    names = tuple(f"eye{seed}" for seed in seeds)
    zeros = np.zeros(len(seeds), np.int32)
    return PackedSplit(images, zeros, zeros, names, names)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    splits = {"train": _split(range(6)), "test": _split(range(6, 11))}
    return PackedDataset(64, ("healthy",), splits, "fingerprint", True, tmp_path_factory.mktemp("data"))


def _scorer(dataset: PackedDataset) -> FundusGANScorer:
    return FundusGANScorer(tiny_config(), dataset, None)


@pytest.mark.parametrize("order", [(False, True), (True, False)])
def test_trivial_reconstructions_do_not_depend_on_the_order_of_calls(dataset, order):
    scorer = _scorer(dataset)
    trivial = {with_signatures: scorer.trivial(with_signatures) for with_signatures in order}
    for name in ("mean", "16x16"):
        assert "sharpness_fine" in trivial[True][name].signatures
        for figure, values in trivial[True][name].per_image.items():
            np.testing.assert_array_equal(values, trivial[False][name].per_image[figure])


def test_a_full_evaluation_after_one_of_training_has_every_column(dataset):
    scorer = _scorer(dataset)
    reconstructions = scorer.scorer.score(lambda images, numbers: images // 2, "", with_signatures=True)
    scorer.evaluation(1, reconstructions)
    evaluation = full_evaluation(scorer, 2, reconstructions)
    assert (
        evaluation.step == 2 and evaluation.num_images == 5 and evaluation.protocol.task == "reconstruction"
    )
    assert set(evaluation.intervals) == set(evaluation.model) == {"ssim", "psnr", "ssim_fov", "psnr_fov"}
    for figures in evaluation.signatures.baselines.values():
        assert "sharpness_fine" in figures


def test_a_stopped_scoring_is_made_anew(dataset):
    scorer = _scorer(dataset)
    with pytest.raises(Stopped):
        scorer.trivial(should_stop=lambda: True)
    assert set(scorer.trivial()) == {"mean", "16x16"}
