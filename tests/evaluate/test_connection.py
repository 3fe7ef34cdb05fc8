"""--reject: limits are photographs' percentiles; broken, sparse and empty trees make way for the next number."""

import csv

import numpy as np
import pytest

from fundusgan_jax.anatomy.vessel_measures import connection, vessel_measures
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.connection import (
    AT_LEAST,
    AT_MOST,
    judged,
    limits_of,
    open_vessel_check,
    vessel_check,
)
from fundusgan_jax.generate.command import generate_images
from fundusgan_jax.generate.copies import NewImages, Painted
from fundusgan_jax.generate.request import Request
from fundusgan_jax.generate.vessel_check import COLUMNS, Connection
from tests.support.lines import along_and_across
from tests.support.tiny import tiny_config, tiny_prior_config

SIDE = 128
DISC = np.hypot(*(np.indices((SIDE, SIDE)) - 63.5)) < 62


def eye(breaks=0, branches=4, seed=0):
    """A retina with a tree: dark bars from one place, each broken so often."""
    rng = np.random.default_rng(seed)
    grey = np.full((SIDE, SIDE), 120.0)
    for angle in np.linspace(0, 2 * np.pi, branches, endpoint=False) + rng.uniform(0, 0.5):
        along, across = along_and_across(SIDE, 64, angle)
        bar = (np.abs(across) < 2) & (along > -2) & (along < rng.uniform(45, 58))
        for place in np.linspace(10, 40, breaks):
            bar &= np.abs(along - place) > 3
        grey[bar] = 40
    return (np.repeat(grey[..., None], 3, 2) * DISC[..., None]).astype(np.uint8)


def segment(image, mask):
    return (image[..., 1] < 80) & (image[..., 1] > 20) & mask


PHOTOGRAPHS = np.stack([eye(seed=seed) for seed in range(12)])


def test_limits_are_percentiles_and_connection_is_part_of_the_measures():
    found = [connection(segment(image, DISC), DISC) for image in PHOTOGRAPHS]
    whole = vessel_measures(segment(PHOTOGRAPHS[0], DISC), DISC)
    assert {name: whole[name] for name in found[0]} == found[0]
    limits = limits_of([*found, connection(np.zeros_like(DISC), DISC)])
    for name in AT_MOST:
        values = sorted(one[name] for one in [*found, connection(np.zeros_like(DISC), DISC)])
        known = [value for value in values if not np.isnan(value)]
        assert limits[name] == pytest.approx(np.quantile(known, 0.95))
    assert limits[AT_LEAST] == pytest.approx(np.quantile([*(one[AT_LEAST] for one in found), 0], 0.05))
    assert judged(found[0], dict.fromkeys(AT_MOST, np.inf) | {AT_LEAST: 1.0}).broken


def test_broken_sparse_and_empty_trees_are_told():
    check = vessel_check(PHOTOGRAPHS, segment)
    images = np.stack(
        [eye(seed=50), eye(breaks=3), eye(branches=1), np.uint8(120) * np.repeat(DISC[..., None], 3, 2)]
    )
    found = check(images)
    assert [one.broken for one in found] == [False, True, True, True]
    assert found[1].pieces > found[0].pieces and found[1].end_points > found[0].end_points
    assert np.isnan(found[3].orphan_share) and found[3].density == 0
    with pytest.raises(UserError, match="images are 32 px and the training photographs 128"):
        check(np.zeros((1, 32, 32, 3), np.uint8))


def painted(numbers):
    return [Painted({"file": f"{n}.png"}, np.full((4, 4, 3), n, np.uint8)) for n in numbers]


def broken(numbers):
    return lambda images: [Connection(2, 5, 0.25, 0.05, int(image[0, 0, 0]) in numbers) for image in images]


def test_a_broken_image_makes_way_for_the_next_number(tmp_path, capsys):
    request = Request(tmp_path, num=4, reject=True)
    new = NewImages(request, None, broken({1, 2}))
    rows = [one.row for batch in new.batches(painted, 3) for one in batch]
    assert [row["file"] for row in rows] == ["0.png", "3.png", "4.png", "5.png"]
    assert rows[0] == {"file": "0.png", **dict(zip(COLUMNS, (2, 5, "0.2500", "0.05000", "no"), strict=True))}
    new.finish(tmp_path)
    told = capsys.readouterr().out
    assert "2 of 6 drawn images rejected for their vessels" in told and "copies" not in told
    with open(tmp_path / "rejected.csv", newline="") as file:
        assert [row["broken"] for row in csv.DictReader(file)] == ["yes", "yes"]
    with pytest.raises(UserError, match="--reject: the vessels of 68 of 68 images are more broken, or fewer"):
        list(NewImages(request._replace(num=1), None, broken(set(range(256)))).batches(painted, 16))


def test_mistakes(tmp_path):
    small = tiny_prior_config(data__dataset="phantom", data__phantom_num=8, data__resolution=32)
    with pytest.raises(UserError, match="--reject needs images of at least 128 px"):
        open_vessel_check(small, tmp_path)
    away = tiny_prior_config(data__dir=str(tmp_path / "away"), data__resolution=128, model__resolution=128)
    with pytest.raises(UserError, match="--reject needs the training photographs: data.dir="):
        open_vessel_check(away, tmp_path)
    with pytest.raises(UserError, match="are for new images"):
        generate_images(tiny_config(), tmp_path, "latest", Request(tmp_path / "out", reject=True))
