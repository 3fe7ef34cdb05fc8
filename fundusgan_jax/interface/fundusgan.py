"""A trained FundusGAN as an object: photographs to styles and maps, and images from them."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.data.packed import split_named
from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.codec import Codec, batch_size_of
from fundusgan_jax.generate.directions import Direction, direction_named, read_directions
from fundusgan_jax.generate.fundusgan import Generator
from fundusgan_jax.generate.recipes import check_has_styles, check_styles, recipe_sample
from fundusgan_jax.interface.arguments import checked_num, checked_psi, checked_seed, sized_photographs
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.workdir.contents import open_dataset


class FundusGAN:
    """A trained FundusGAN; made by `load`.

    step: of its checkpoint. resolution: side S of its photographs and images. num_ws, w_dim: style vectors and their width.
    An image is a function of what it is painted from and of (seed, its number): batches and devices are not in it.
    """

    def __init__(
        self, config: ConfigDict, workdir: Path, step: int, variables: Variables, dtype: str = "float32"
    ) -> None:
        self.step, self._config, self._workdir, self._variables = step, config, workdir, variables
        self._codec, self._dtype = Codec(config, variables, dtype), dtype
        self.resolution, self.num_ws, self.w_dim = self._codec.side, self._codec.num_ws, self._codec.w_dim

    def reconstruct(self, photographs: Any) -> np.ndarray:
        """Photographs -> encoder -> generator, the images that evaluation scores.

        Args:
            photographs: uint8 [N, S, S, 3], prepared (`open_dataset`).

        Returns:
            uint8 [N, S, S, 3]; the same as `decode` of `encode`.

        Raises:
            UserError: another type or shape.
        """
        images = self._photographs(photographs)
        parts = []
        for rows, real in self._batches(len(images)):
            encoded = self._codec.encode(images[rows])
            painted = self._codec.decode(np.asarray(encoded.w_plus), encoded, rows, self._config.seed)
            parts.append(painted[:real])
        return np.concatenate(parts)

    def encode(self, photographs: Any) -> EncoderOutput:
        """Photographs -> what the encoder finds in them.

        Args:
            photographs: uint8 [N, S, S, 3], prepared.

        Returns:
            An object of float32 arrays with N rows: w_plus [N, num_ws, w_dim]; base and f_mid (stride 16), f_low (stride
            32), f_high (stride 8); c1 and c2 (strides 2 and 4) where the generator reads them, else None.

        Raises:
            UserError: another type or shape.
        """
        images = self._photographs(photographs)
        parts = []
        for rows, real in self._batches(len(images)):
            encoded = self._codec.encode(images[rows])
            parts.append(jax.tree.map(lambda x, real=real: x[:real], encoded))
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)  # type: ignore[no-any-return]

    def decode(self, w_plus: Any, encoded: EncoderOutput, seed: int | None = None) -> np.ndarray:
        """Paints styles on maps.

        Args:
            w_plus: float [N, num_ws, w_dim].
            encoded: the maps, as `encode` returns them: of N photographs, or of one for all.
            seed: of the noise, where the model has random noise; None is the training's, as in `reconstruct`.

        Returns:
            uint8 [N, S, S, 3].

        Raises:
            UserError: another type or shape, or numbers that are not finite.
        """
        styles = self._styles(w_plus)
        missing = [name for name in self._codec.maps if getattr(encoded, name, None) is None]
        if missing:
            raise UserError(f"encoded has no {missing[0]}; hand over what encode() of this model returns")
        count = len(encoded.base)
        if count not in (1, len(styles)):
            raise UserError(f"encoded has {count} rows and w_plus {len(styles)}; give as many, or one")
        noise_seed = self._config.seed if seed is None else checked_seed(seed)
        parts = []
        for rows, real in self._batches(len(styles)):
            maps = jax.tree.map(lambda x, rows=rows: np.asarray(x)[np.minimum(rows, count - 1)], encoded)
            parts.append(self._codec.decode(styles[rows], maps, rows, noise_seed)[:real])
        return np.concatenate(parts)

    def directions(self) -> dict[str, Direction]:
        """Directions in w+ that `studies.disentanglement` has measured, by name.

        Returns:
            Objects with vector float32 [num_ws, w_dim], kind, layers, effects {factor: change a unit}, works and
            vessel_overlap.

        Raises:
            UserError: the workdir has no directions.npz, or a damaged one.
        """
        return read_directions(self._workdir, (self.num_ws, self.w_dim))[1]

    def edit(self, photographs: Any, direction: str, amount: float) -> np.ndarray:
        """Photographs with their styles moved along a direction.

        Args:
            photographs: uint8 [N, S, S, 3], prepared.
            direction: a name of `directions`.
            amount: in standard deviations of w+ along it; 0 is `reconstruct`.

        Returns:
            uint8 [N, S, S, 3].

        Raises:
            UserError: another type or shape, no such direction, an amount that is not finite.
        """
        if not isinstance(amount, numbers.Real) or not math.isfinite(amount):
            raise UserError(f"amount={amount!r} must be a finite number; 2 is two standard deviations")
        check_has_styles(self._config)
        chosen = direction_named(self._workdir, (self.num_ws, self.w_dim), direction, self.step)
        encoded = self.encode(photographs)
        return self.decode(encoded.w_plus + np.float32(amount) * chosen.vector, encoded)

    def sample(
        self, num: int, seed: int = 0, label: int | None = None, truncation_psi: float = 0.7
    ) -> np.ndarray:
        """Random styles of the prior that the run started from, on maps of training photographs.

        Args:
            num: how many images.
            seed: 0 .. 2^32 - 1.
            label: None; FundusGAN's images have the class of their photograph.
            truncation_psi: 1 is the full spread of styles, 0 their mean.

        Returns:
            uint8 [num, S, S, 3].

        Raises:
            UserError: there was no prior, the dataset is not where it was, or an argument is out of range.
        """
        num, seed, psi = checked_num(num), checked_seed(seed), checked_psi(truncation_psi)
        if label is not None:
            raise UserError(
                f"label={label}: FundusGAN's images have their photograph's class; leave label out"
            )
        check_has_styles(self._config)
        check_styles(self._variables)
        dataset = open_dataset(self._config, self._workdir)
        split = split_named(dataset, self._config.data.train_split)
        generator = Generator(self._config, self._variables, split, self._dtype)
        recipe = recipe_sample(self._config, self._variables, split, num, self.num_ws, seed)
        return np.concatenate([batch.images for batch in generator.batches(recipe, psi)])

    def _batches(self, count: int) -> Iterator[tuple[np.ndarray, int]]:
        return padded_batches(count, batch_size_of(self._config, count))

    def _photographs(self, photographs: Any) -> np.ndarray:
        return sized_photographs(photographs, self.resolution)

    def _styles(self, w_plus: Any) -> np.ndarray:
        styles = np.asarray(w_plus)
        if styles.dtype.kind != "f" or styles.shape[1:] != (self.num_ws, self.w_dim) or not len(styles):
            raise UserError(
                f"w_plus is {styles.dtype} {styles.shape}; it must be float [N, {self.num_ws}, {self.w_dim}]"
            )
        if not np.isfinite(styles).all():
            raise UserError("w_plus has numbers that are not finite; take NaN and infinity out")
        return styles.astype(np.float32)
