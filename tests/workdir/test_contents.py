"""workdir/contents.py: workdirs of several processes, and settings of another network."""

from pathlib import Path

import pytest

from fundusgan_jax.config import flatten
from fundusgan_jax.devices import distributed
from fundusgan_jax.errors import UserError
from fundusgan_jax.workdir.contents import check_network, open_shared_checkpoints
from tests.support.tiny import tiny_config


def test_a_workdir_that_is_not_shared_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with pytest.raises(UserError, match="file system that all processes share"):
        open_shared_checkpoints(tiny_config(), tmp_path)
    (tmp_path / "checkpoints").mkdir()
    open_shared_checkpoints(tiny_config(), tmp_path)[0].close()
    monkeypatch.setattr(distributed, "first_says", lambda work: 8)
    with pytest.raises(UserError, match="file system that all processes share"):
        open_shared_checkpoints(tiny_config(), tmp_path)


def test_settings_of_another_network_are_refused(tmp_path: Path) -> None:
    trained = tiny_config()
    same = tiny_config(model__noise_mode="none", model__dtype="bfloat16", eval__features="pixels", seed=4)
    check_network(tmp_path, trained, same)
    for name, value in {"model.first_dilation": 2, "model.delta": 1, "encoder.norm": "batch"}.items():
        other = tiny_config(**{name.replace(".", "__"): value})
        old = flatten(trained)[name]
        with pytest.raises(
            UserError, match=f"{name}={old}, this command says {value}.*--config.{name}={old}"
        ):
            check_network(tmp_path, trained, other)
