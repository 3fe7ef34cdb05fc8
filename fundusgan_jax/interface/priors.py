"""Trained sources of new images as objects: a StyleGAN prior, a flow over latents."""

from __future__ import annotations

import math
import numbers
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.latent_sampler import LatentSampler
from fundusgan_jax.generate.prior import labels_of
from fundusgan_jax.generate.sample import Sampler
from fundusgan_jax.interface.arguments import checked_label, checked_num, checked_psi, checked_seed, is_whole
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.steps.prior_network import resolution_at
from fundusgan_jax.steps.prior_state import PriorState


class Prior:
    """A trained StyleGAN prior; made by `load`.

    step: of its checkpoint. resolution: side S of its images. num_ws, w_dim: style vectors and their width.
    """

    def __init__(
        self, config: ConfigDict, workdir: Path, step: int, state: PriorState, dtype: str = "float32"
    ) -> None:
        self.step, self.resolution = step, resolution_at(config, step)
        self._config, self._workdir = config, workdir
        self._sampler = Sampler(config, state, self.resolution, dtype)
        self.num_ws, self.w_dim = self._sampler.num_ws, int(config.model.w_dim)

    def sample(
        self, num: int, seed: int = 0, label: int | None = None, truncation_psi: float = 0.7
    ) -> np.ndarray:
        """New images; image k is a function of (seed, k), label and truncation_psi.

        Args:
            num: how many.
            seed: 0 .. 2^32 - 1.
            label: class number of a conditional prior; None draws classes as often as in training.
            truncation_psi: 1 is the full spread of styles, 0 their mean.

        Returns:
            uint8 [num, S, S, 3].

        Raises:
            UserError: no such class, an argument out of range, or classes are to be drawn and the dataset is not there.
        """
        num, seed, psi = checked_num(num), checked_seed(seed), checked_psi(truncation_psi)
        chosen = checked_label(label, self._config)
        labels = labels_of(self._config, self._workdir, num, seed, chosen)
        batches = self._sampler.images(np.arange(num), labels, seed=seed, truncation_psi=psi)
        return np.concatenate(list(batches))


class LatentPrior:
    """A trained flow over a FundusGAN's latents; made by `load`. It needs no other folder than its own.

    step: of its checkpoint. resolution: side S of its images. num_labels: classes that it was trained with, 0 for none.
    """

    def __init__(
        self, config: ConfigDict, workdir: Path, step: int, state: LatentState, dtype: str = "float32"
    ) -> None:
        self.step, self.resolution = step, int(config.data.resolution)
        self.num_labels = int(config.model.num_labels)
        self._config = config
        self._sampler = LatentSampler(config, state, dtype)

    def sample(
        self,
        num: int,
        seed: int = 0,
        label: int | None = None,
        guidance: float | None = None,
        sampling_steps: int | None = None,
    ) -> np.ndarray:
        """New images; image k is a function of (seed, k), label, guidance and sampling_steps.

        Args:
            num: how many.
            seed: 0 .. 2^32 - 1.
            label: class number; None draws classes as often as in training.
            guidance: 1 draws a class as it is, above it more of what sets it apart and less variety; None: flow.guidance.
            sampling_steps: of Heun's method; None: flow.sampling_steps.

        Returns:
            uint8 [num, S, S, 3].

        Raises:
            UserError: no such class, or an argument out of range.
        """
        num, seed = checked_num(num), checked_seed(seed)
        checked_label(label, self._config)
        if guidance is not None and not (isinstance(guidance, numbers.Real) and 0 <= guidance < math.inf):
            raise UserError(f"guidance={guidance!r} must be a number of at least 0; 1 draws a class as it is")
        if sampling_steps is not None and (not is_whole(sampling_steps) or sampling_steps < 1):
            raise UserError(f"sampling_steps={sampling_steps!r} must be a whole number of at least 1")
        wanted = self._sampler.wanted(np.arange(num), seed, label, guidance, sampling_steps)
        return np.concatenate(list(self._sampler.images(wanted)))
