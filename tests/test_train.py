"""train.py: a signal at an awkward moment still saves."""

import signal
from types import SimpleNamespace

from fundusgan_jax import train
from tests.tiny import tiny_config


def test_a_signal_while_a_grid_is_drawn_saves_before_it_stops(monkeypatch) -> None:
    saved, drawn = [], []
    trainer = object.__new__(train.Trainer)
    trainer.config = tiny_config(train__grid_every=2, train__checkpoint_every=100, train__eval_every=100)
    identity = SimpleNamespace(
        replicate=lambda x: x,
        compile=lambda step: lambda s, b, c: (s, {"loss": 0.0}),
        split=lambda x: x,
        single=lambda x: x,
    )
    trainer.run = SimpleNamespace(parallel=identity)
    trainer.start, trainer.state, trainer._pending = 0, None, None
    trainer.log = SimpleNamespace(write=lambda row: None, close=lambda: None)
    trainer.checkpoints = SimpleNamespace(
        save=lambda step, state, metrics: saved.append(step), close=lambda: None
    )
    monkeypatch.setattr(train, "batches", lambda run, start: (iter(range(1000)), None, None))

    def draw(number, state) -> None:
        drawn.append(number)
        if number == 4:
            signal.raise_signal(signal.SIGTERM)

    trainer._write_grid = draw
    assert not trainer.train()
    assert drawn == [2, 4] and saved == [5]
