"""Workdirs of models that nobody has trained: enough to open, to paint with and to refuse."""

from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.steps.prior_state import first_prior
from fundusgan_jax.workdir.contents import open_checkpoints
from fundusgan_jax.workdir.manifest import write_manifest
from tests.support.states import drawn_state


def with_noise(params, strength=0.5):
    """The parameters with noise that shows: its strengths are 0 at first."""

    def changed(path, leaf):
        return np.full_like(leaf, strength) if "noise_strength" in str(path[-1]) else leaf

    return jax.tree_util.tree_map_with_path(changed, params)


def untrained_workdir(workdir: Path, config: ConfigDict, state=None, label_names=()) -> Path:
    """A workdir with a checkpoint of step 0; state None draws it."""
    if state is None:
        state = first_prior(config) if config.task == "prior" else drawn_state(config)
    state = state._replace(ema=with_noise(state.ema))
    write_manifest(workdir, config, "nothing was trained", label_names=label_names)
    checkpoints = open_checkpoints(config, workdir)
    checkpoints.save(0, jax.device_get(state))
    checkpoints.close()
    return workdir
