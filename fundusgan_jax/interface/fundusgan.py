"""The public interface: a trained model as a Python object, a dataset as arrays, two sets of images compared.

Every mistake is a UserError of one sentence. Images are uint8 arrays [N, S, S, 3].
"""

from __future__ import annotations

import math
import numbers
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from fundusgan_jax.config import class_names
from fundusgan_jax.data.packed import ensure_packed, split_named
from fundusgan_jax.devices.local import replicated
from fundusgan_jax.errors import UserError
from fundusgan_jax.evaluate.classifier import Predictor, probabilities_of, variables_of
from fundusgan_jax.evaluate.reconstructions import image_figures
from fundusgan_jax.evaluate.sets import known_means
from fundusgan_jax.generate.codec import Codec, batch_size_of
from fundusgan_jax.generate.directions import Direction, direction_named, read_directions
from fundusgan_jax.generate.fundusgan import Generator
from fundusgan_jax.generate.latent_sampler import LatentSampler
from fundusgan_jax.generate.prior import check_label, labels_of
from fundusgan_jax.generate.recipes import check_has_styles, check_styles, recipe_sample
from fundusgan_jax.generate.request import MAX_SEED
from fundusgan_jax.generate.sample import Sampler
from fundusgan_jax.models.encoder import EncoderOutput
from fundusgan_jax.models.fundusgan import Variables
from fundusgan_jax.models.lpips import PerceptualNet
from fundusgan_jax.steps.batch import padded_batches
from fundusgan_jax.steps.classifier_step import ClassifierState
from fundusgan_jax.steps.fundusgan_step import TrainState
from fundusgan_jax.steps.latent_step import LatentState
from fundusgan_jax.steps.prior_network import resolution_at
from fundusgan_jax.steps.prior_state import PriorState
from fundusgan_jax.weights.perceptual import NETWORKS, load_perceptual
from fundusgan_jax.workdir.contents import ema_variables, restore_state
from fundusgan_jax.workdir.contents import open_dataset as dataset_of_workdir
from fundusgan_jax.workdir.manifest import FILE as MANIFEST

BATCH = 16  # pairs compared at a time


def load(
    workdir: str | os.PathLike[str], step: str | int = "best", dtype: str = "float32"
) -> FundusGAN | Prior | LatentPrior | Classifier:
    """Opens a trained model: the moving average of its weights, as evaluation uses it.

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
    if not isinstance(step, str) and not _is_whole(step):
        raise UserError(f"step={step!r} must be 'best', 'latest' or a step number")
    folder = Path(workdir)
    config, number, state = restore_state(folder, str(step))
    if isinstance(state, PriorState):
        return Prior(config, folder, number, state, dtype)
    if isinstance(state, LatentState):
        if dtype != "float32":
            raise UserError(f"dtype={dtype!r}: a flow over latents computes in float32; leave dtype out")
        return LatentPrior(config, folder, number, state)
    if isinstance(state, ClassifierState):
        if dtype != "float32":
            raise UserError(f"dtype={dtype!r}: a classifier computes in float32; leave dtype out")
        return Classifier(config, number, state)
    if not isinstance(state, TrainState):
        raise UserError(
            f"{folder} segments vessels and paints nothing; name a run of FundusGAN or of a prior"
        )
    return FundusGAN(config, folder, number, ema_variables(state, True), dtype)


def open_dataset(folder: str | os.PathLike[str], split: str = "test") -> tuple[np.ndarray, np.ndarray]:
    """The photographs of a split, read from disk as they are used.

    Args:
        folder: --output of data.prepare; or the workdir of a run, for the photographs that it was trained with.
        split: its name.

    Returns:
        photographs uint8 [N, S, S, 3]; labels int32 [N], class numbers, -1 where unknown.

    Raises:
        UserError: no such dataset or split.
    """
    path = Path(folder)
    if (path / MANIFEST).is_file():
        from fundusgan_jax.workdir.manifest import config_of_workdir

        dataset = dataset_of_workdir(config_of_workdir(path, []), path)
    else:
        dataset = ensure_packed(path)
    part = split_named(dataset, split)
    return part.images, part.label


def compare(photographs: Any, images: Any, perceptual: str | None = None) -> dict[str, float]:
    """Mean figures of pairs, as `python -m fundusgan_jax.evaluate --metrics=ssim,psnr,ms_ssim,lpips` gives them.

    Args:
        photographs, images: uint8 [N, S, S, 3]; row n of one is compared with row n of the other.
        perceptual: network of LPIPS: 'vgg16', 'alexnet' or 'squeezenet'. None takes vgg16 and, where its weights are not
            there, warns and leaves LPIPS out.

    Returns:
        'ssim', 'psnr' (dB), 'ms_ssim' (from 176 px) and 'lpips', each also as NAME_fov, inside the photograph's field of
        view. A pair without a finite figure (the PSNR of equal images) does not count.

    Raises:
        UserError: arrays of another kind or of two shapes, an unknown network, weights that are not there.

    Examples:
        >>> from fundusgan_jax.data.phantom.render import render
        >>> eyes = np.stack([render(seed, 64).image for seed in (1, 2)])
        >>> round(compare(eyes, eyes)["ssim"], 4), compare(eyes, eyes[::-1])["ssim"] < 1
        (1.0, True)
    """
    real, fake = _images(photographs, "photographs"), _images(images, "images")
    if real.shape != fake.shape:
        raise UserError(f"photographs are {real.shape} and images {fake.shape}; both must have one shape")
    network = replicated(_perceptual(perceptual))
    figures: dict[str, list[np.ndarray]] = {}
    for batch, count in padded_batches(len(real), min(BATCH, len(real))):
        values_of = image_figures(np.asarray(real[batch]), np.asarray(fake[batch]), network)
        for name, values in values_of.items():
            figures.setdefault(name, []).append(values[:count])
    return known_means({name: np.concatenate(values) for name, values in figures.items()})


def _perceptual(name: str | None) -> PerceptualNet | None:
    if name is None:
        try:
            return load_perceptual("vgg16")
        except UserError as error:
            warnings.warn(f"LPIPS is left out: {error}", stacklevel=3)
            return None
    if name not in NETWORKS:
        raise UserError(f"perceptual={name!r} must be one of {', '.join(NETWORKS)}, or None")
    return load_perceptual(name)


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
        noise_seed = self._config.seed if seed is None else _seed(seed)
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
        num, seed, psi = _num(num), _seed(seed), _psi(truncation_psi)
        if label is not None:
            raise UserError(
                f"label={label}: FundusGAN's images have their photograph's class; leave label out"
            )
        check_has_styles(self._config)
        check_styles(self._variables)
        dataset = dataset_of_workdir(self._config, self._workdir)
        split = split_named(dataset, self._config.data.train_split)
        generator = Generator(self._config, self._variables, split, self._dtype)
        recipe = recipe_sample(self._config, self._variables, split, num, self.num_ws, seed)
        return np.concatenate([batch.images for batch in generator.batches(recipe, psi)])

    def _batches(self, count: int) -> Iterator[tuple[np.ndarray, int]]:
        return padded_batches(count, batch_size_of(self._config, count))

    def _photographs(self, photographs: Any) -> np.ndarray:
        return _sized(photographs, self.resolution)  # type: ignore[no-any-return]

    def _styles(self, w_plus: Any) -> np.ndarray:
        styles = np.asarray(w_plus)
        if styles.dtype.kind != "f" or styles.shape[1:] != (self.num_ws, self.w_dim) or not len(styles):
            raise UserError(
                f"w_plus is {styles.dtype} {styles.shape}; it must be float [N, {self.num_ws}, {self.w_dim}]"
            )
        if not np.isfinite(styles).all():
            raise UserError("w_plus has numbers that are not finite; take NaN and infinity out")
        return styles.astype(np.float32)


class Prior:
    """A trained StyleGAN prior; made by `load`.

    step: of its checkpoint. resolution: side S of its images. num_ws, w_dim: style vectors and their width.
    """

    def __init__(
        self, config: ConfigDict, workdir: Path, step: int, state: PriorState, dtype: str = "float32"
    ) -> None:
        self.step, self.resolution = step, resolution_at(config, step)
        self._config, self._workdir = config, workdir
        self._sampler = Sampler(config, state._replace(params=state.ema), self.resolution, dtype)
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
        num, seed, psi = _num(num), _seed(seed), _psi(truncation_psi)
        if label is not None and (not _is_whole(label) or label < 0):
            raise UserError(f"label={label!r} must be a class number from 0, or None")
        chosen = -1 if label is None else int(label)
        check_label(self._config, chosen, "label")
        labels = labels_of(self._config, self._workdir, num, seed, chosen)
        batches = self._sampler.images(np.arange(num), labels, seed=seed, truncation_psi=psi)
        return np.concatenate(list(batches))


class LatentPrior:
    """A trained flow over a FundusGAN's latents; made by `load`. It needs no other folder than its own.

    step: of its checkpoint. resolution: side S of its images. num_labels: classes that it was trained with, 0 for none.
    """

    def __init__(self, config: ConfigDict, workdir: Path, step: int, state: LatentState) -> None:
        self.step, self.resolution = step, int(config.data.resolution)
        self.num_labels = int(config.model.num_labels)
        self._config = config
        self._sampler = LatentSampler(config, state)

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
        num, seed = _num(num), _seed(seed)
        if label is not None and (not _is_whole(label) or label < 0):
            raise UserError(f"label={label!r} must be a class number from 0, or None")
        if guidance is not None and not (isinstance(guidance, numbers.Real) and 0 <= guidance < math.inf):
            raise UserError(f"guidance={guidance!r} must be a number of at least 0; 1 draws a class as it is")
        if sampling_steps is not None and (not _is_whole(sampling_steps) or sampling_steps < 1):
            raise UserError(f"sampling_steps={sampling_steps!r} must be a whole number of at least 1")
        check_label(self._config, -1 if label is None else int(label), "label")
        wanted = self._sampler.wanted(np.arange(num), seed, label, guidance, sampling_steps)
        return np.concatenate(list(self._sampler.images(wanted)))


class Classifier:
    """A trained classifier; made by `load`.

    step: of its checkpoint. resolution: side S of its photographs. classes: names of its K classes, in the order of `predict`.
    """

    def __init__(self, config: ConfigDict, step: int, state: ClassifierState) -> None:
        self.step, self.resolution = step, int(config.data.resolution)
        self.classes = class_names(config)
        self._predictor = Predictor(config, variables_of(config, state))

    def predict(self, photographs: Any) -> np.ndarray:
        """Probabilities of the classes, as --mode=eval scores them.

        Args:
            photographs: uint8 [N, S, S, 3], prepared (`open_dataset`).

        Returns:
            float64 [N, K], rows that sum to 1.

        Raises:
            UserError: another type or shape.
        """
        images = _sized(photographs, self.resolution)
        return probabilities_of(self._predictor.logits(images, shown=False))


def _sized(photographs: Any, side: int) -> Any:
    images = _images(photographs, "photographs")
    if images.shape[1] != side:
        raise UserError(
            f"photographs are {images.shape[1]} px wide, this model's are {side} px; prepare them at that size"
        )
    return images


def _images(values: Any, name: str) -> np.ndarray:
    images = values if hasattr(values, "dtype") and hasattr(values, "shape") else np.asarray(values)
    if images.dtype != np.uint8:
        raise UserError(f"{name} are {images.dtype}; they must be uint8, 0 to 255")
    shape = tuple(images.shape)
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3:
        raise UserError(f"{name} have shape {shape}; it must be [N, S, S, 3] (of one image: image[None])")
    if not shape[0]:
        raise UserError(f"{name} are empty; give at least one image")
    return images  # type: ignore[no-any-return]


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _num(num: Any) -> int:
    if not _is_whole(num) or num < 1:
        raise UserError(f"num={num!r} must be a whole number of at least 1")
    return int(num)


def _seed(seed: Any) -> int:
    if not _is_whole(seed) or not 0 <= seed <= MAX_SEED:
        raise UserError(f"seed={seed!r} must be a whole number in 0..{MAX_SEED}")
    return int(seed)


def _psi(truncation_psi: Any) -> float:
    if not isinstance(truncation_psi, numbers.Real) or not math.isfinite(truncation_psi):
        raise UserError(f"truncation_psi={truncation_psi!r} must be a finite number; 0.7 is usual")
    return float(truncation_psi)
