"""`load`: a workdir becomes the object of the model in it."""

from __future__ import annotations

import os
from pathlib import Path

from fundusgan_jax.errors import UserError
from fundusgan_jax.interface.arguments import is_whole
from fundusgan_jax.interface.classifier import Classifier
from fundusgan_jax.interface.fundusgan import FundusGAN
from fundusgan_jax.interface.priors import LatentPrior, Prior
from fundusgan_jax.steps.classifier_step import ClassifierState
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.workdir.contents import ema_variables, restore_state


def load(
    workdir: str | os.PathLike[str], step: str | int = "best", dtype: str = "float32"
) -> FundusGAN | Prior | LatentPrior | Classifier:
    """Opens a trained model: the weights that evaluation scores, the moving average unless the run has eval.use_ema=False.

    Args:
        workdir: folder of a run, or of imported weights.
        step: 'best' (the latest where no checkpoint is ranked), 'latest' or a step number.
        dtype: of the convolutions: 'float32', as evaluation computes, or 'bfloat16', for accelerators
            (images differ slightly).

    Returns:
        A `FundusGAN`, a `Prior`, a `LatentPrior` or a `Classifier`, by what the folder holds.

    Raises:
        UserError: no such run or step, a damaged checkpoint, or another dtype.
    """
    if not isinstance(step, str) and not is_whole(step):
        raise UserError(f"step={step!r} must be 'best', 'latest' or a step number")
    folder = Path(workdir)
    config, number, state = restore_state(folder, str(step))
    if isinstance(state, PriorState):
        return Prior(config, folder, number, state, dtype)
    if isinstance(state, LatentState):
        return LatentPrior(config, folder, number, state, dtype)
    if isinstance(state, ClassifierState):
        if dtype != "float32":
            raise UserError(f"dtype={dtype!r}: a classifier computes in float32; leave dtype out")
        return Classifier(config, number, state)
    if not isinstance(state, TrainState):
        raise UserError(
            f"{folder} segments vessels and paints nothing; name a run of FundusGAN or of a prior"
        )
    return FundusGAN(config, folder, number, ema_variables(state, config.eval.use_ema), dtype)
