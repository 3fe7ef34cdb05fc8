"""Vessels by the network and lesions in a full evaluation, its protocol and the comparison of two of them."""

import jax
import numpy as np
import pytest

from configs import vessels as configuration
from fundusgan_jax.data.packed import PackedSplit
from fundusgan_jax.data.phantom.render import render
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.structures import structures_of, with_structures
from fundusgan_jax.metrics.lesion_recovery import LESIONS
from fundusgan_jax.metrics.vessel_agreement import VESSEL_AGREEMENT, vessel_agreement
from fundusgan_jax.report.comparison import compare
from fundusgan_jax.report.evaluation import FILE, Evaluation, Signatures, write_evaluation
from fundusgan_jax.report.figures import signatures_section
from fundusgan_jax.report.protocol import Protocol
from fundusgan_jax.steps.segmentation_step import first_segmentation
from fundusgan_jax.weights.vessel_weights import VesselWeights


def test_agreement_of_known_maps():
    mask = np.ones((200, 200), bool)
    vessels = np.zeros((200, 200), bool)
    vessels[40:44, 20:180] = vessels[20:180, 100:104] = True
    same = vessel_agreement(vessels, vessels, mask)
    assert same == {name: ideal for name, (_, ideal) in VESSEL_AGREEMENT.items()}
    broken = vessels.copy()
    broken[80:86, 100:104] = False
    told = vessel_agreement(vessels, broken, mask)
    assert (
        told["network_pieces"] == 1
        and told["network_betti1_error"] == 0
        and told["network_betti0_error"] == 1
        and 0.9 < told["network_dice"] < 1
    )
    assert told["network_area"] == pytest.approx(broken.sum() / vessels.sum())
    assert np.isnan(list(vessel_agreement(~mask, vessels, mask).values())).all()


@pytest.fixture(scope="module")
def structures():
    """Of three eyes at 256 px, of which two are looked at, painted as they are; by an untrained narrow network."""
    config = configuration.get_config()
    config.vessels.width, config.vessels.fov_diameter = 2, 128
    variables = jax.device_get(first_segmentation(config).ema)
    weights = VesselWeights(config, variables, 0.5, "tiny.npz")
    images = np.stack([render(seed, 256).image for seed in range(3)])
    zeros = np.zeros(3, np.int32)
    split = PackedSplit(images, zeros, zeros, ("a", "b", "c"), ("a", "b", "c"))
    found = structures_of(split, lambda images, rows: images, 2, 2, weights)
    assert structures_of(split, lambda images, rows: images, 2, 0, weights) is None
    small = split._replace(images=images[:, ::4, ::4])
    assert structures_of(small, lambda images, rows: images, 2, 2, weights) is None
    return found


@pytest.mark.slow
def test_what_is_painted_as_it_is_agrees(structures):
    assert set(structures.per_image) == {*VESSEL_AGREEMENT, *LESIONS}
    for name, (_, ideal) in (VESSEL_AGREEMENT | LESIONS).items():
        values = structures.per_image[name]
        assert np.isnan(values[1])  # evenly spread: the first and the last
        known = values[np.isfinite(values)]
        np.testing.assert_allclose(known, ideal, atol=0.02)
    assert np.isfinite(structures.per_image["network_dice"][[0, 2]]).all()
    assert structures.about["photographs"] == 2 and structures.about["segmenter"] == "tiny.npz"


def evaluation(**content) -> Evaluation:
    signatures = Signatures({"vessel_recall": 0.9}, {}, {}, {"vessel_recall": 3})
    protocol = Protocol({"task": "reconstruction", "seed": 0, **content})
    return Evaluation("test", 3, 256, {"ssim": 0.8}, {}, protocol, signatures=signatures)


def test_other_segmenters_are_not_compared(structures, tmp_path):
    full = with_structures(evaluation(), structures, None, 0)
    assert (
        full.signatures.model["network_dice"] == pytest.approx(1)
        and full.signatures.num_known["network_dice"] == 2
    )
    assert "Dice" in signatures_section(full)
    assert with_structures(evaluation(), None, None, 0) == evaluation()
    other = full.protocol.with_segmenter({**structures.about, "weights": "other"})
    results = {"full": full, "training": evaluation(), "other": evaluation(**other.content)}
    for name, one in results.items():
        write_evaluation(tmp_path / name / FILE, one)
    assert "vessel_recall" in compare(tmp_path / "full", tmp_path / "training")
    table = compare(tmp_path / "full", tmp_path / "full")
    assert "network_dice" in table and "ssim" in table
    with pytest.raises(UserError, match=r"vessels.weights \(\w+ and other\)"):
        compare(tmp_path / "full", tmp_path / "other")
