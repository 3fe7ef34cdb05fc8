"""evaluate/feature_cache.py: computed once, never mistaken for another set's, made again where the file is damaged."""

import numpy as np
import pytest

from fundusgan_jax.evaluate import feature_cache
from fundusgan_jax.evaluate.feature_cache import cached_features
from fundusgan_jax.report.protocol import RealSet
from fundusgan_jax.weights.features import load_features

REAL = RealSet("abc", "test", 5, 64, "data.prepare")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv(feature_cache.FOLDER_VARIABLE, str(tmp_path))
    return tmp_path


def _features(seed=0):
    return np.random.default_rng(seed).standard_normal((5, 192)).astype(np.float32)


def _never():
    raise AssertionError("was computed again")


def test_once_for_one_protocol(folder):
    source = load_features("pixels")
    made = cached_features(REAL, source, _features)
    np.testing.assert_array_equal(cached_features(REAL, source, _never), made)
    for other in (REAL._replace(fingerprint="abd"), REAL._replace(preprocessing="none")):
        np.testing.assert_array_equal(cached_features(other, source, lambda: _features(1)), _features(1))
    legacy = load_features("pixels", "", "legacy")
    np.testing.assert_array_equal(cached_features(REAL, legacy, lambda: _features(2)), _features(2))
    assert len(list(folder.iterdir())) == 4


def test_a_damaged_file_is_made_again(folder):
    source = load_features("pixels")
    cached_features(REAL, source, _features)
    (path,) = folder.iterdir()
    path.write_bytes(path.read_bytes()[:-300])
    np.testing.assert_array_equal(cached_features(REAL, source, lambda: _features(3)), _features(3))
    np.testing.assert_array_equal(cached_features(REAL, source, _never), _features(3))
    path.write_bytes(b"")
    np.testing.assert_array_equal(cached_features(REAL, source, lambda: _features(4)), _features(4))


def test_without_a_place_to_write(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(feature_cache.FOLDER_VARIABLE, str(tmp_path / "file"))
    made = cached_features(REAL, load_features("pixels"), _features)
    np.testing.assert_array_equal(made, _features())
    assert "not cached" in capsys.readouterr().out
