"""FID's Inception: its importer's names, the folded normalisation and the files; parity: tests/weights/test_command.py."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.inception import BlockE, ConvBNReLU, InceptionV3
from fundusgan_jax.weights import import_inception
from fundusgan_jax.weights.import_inception import (
    inception_from_pytorch_fid,
    inception_shapes,
    load_inception,
)
from fundusgan_jax.weights.public_weights import WEIGHTS_FOLDER_VARIABLE


@pytest.fixture(scope="module")
def flat() -> dict[str, np.ndarray]:
    """Every name of pytorch-fid's file; arrays that take no memory."""
    return {name: np.broadcast_to(np.float32(1), shape) for name, shape in inception_shapes().items()}


def test_names_and_shapes_are_pytorch_fids() -> None:
    shapes = inception_shapes()
    assert len(shapes) == 94 * 5 + 2
    assert shapes["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.bn.running_var"] == (384,)
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    # Of torchvision's inception_v3 with 1008 classes and no auxiliary head.
    assert sum(int(np.prod(s)) for n, s in shapes.items() if "running" not in n) == 23_850_960


def test_output_is_float32_of_2048_channels() -> None:
    image = jax.ShapeDtypeStruct((3, 299, 299, 3), jnp.float32)
    out, _ = jax.eval_shape(InceptionV3(jnp.bfloat16).init_with_output, jax.random.key(0), image)
    assert (out.shape, out.dtype) == ((3, 2048), jnp.float32)


def test_folding_is_convolution_then_normalisation(flat: dict[str, np.ndarray]) -> None:
    rng = np.random.default_rng(0)
    unit = "Conv2d_3b_1x1"
    kernel, x = rng.standard_normal((80, 64, 1, 1), np.float32), rng.standard_normal((5, 64), np.float32)
    gain, shift, mean = rng.standard_normal((3, 80), np.float32)
    variance = rng.uniform(0.01, 2, 80).astype(np.float32)
    norm = dict(zip(("weight", "bias", "running_mean", "running_var"), (gain, shift, mean, variance)))
    changed = flat | {f"{unit}.conv.weight": kernel} | {f"{unit}.bn.{leaf}": a for leaf, a in norm.items()}
    params = inception_from_pytorch_fid(changed).variables["params"]
    ours = ConvBNReLU(80).apply({"params": params[unit]}, jnp.asarray(x)[:, None, None])
    y = (x @ kernel[:, :, 0, 0].T - mean) / np.sqrt(variance + 1e-3) * gain + shift
    np.testing.assert_allclose(np.asarray(ours)[:, 0, 0], np.maximum(y, 0), atol=1e-3)


def test_the_last_block_takes_maxima_where_the_one_before_takes_means() -> None:
    x = jnp.asarray(np.random.default_rng(1).uniform(0, 1, (1, 3, 3, 2)), jnp.float32)
    for max_pooled, corner in ((True, x[0, :2, :2].max((0, 1))), (False, x[0, :2, :2].mean((0, 1)))):
        block = BlockE(max_pooled)
        shapes = jax.eval_shape(block.init, jax.random.key(0), x)
        variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
        kernel = jnp.zeros((1, 1, 2, 192)).at[0, 0].set(jnp.eye(2, 192))
        variables["params"]["branch_pool"]["kernel"] = kernel
        np.testing.assert_allclose(block.apply(variables, x)[0, 0, 0, -192:-190], corner, rtol=1e-6)


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda f: f.pop("Mixed_7b.branch_pool.bn.bias"), "lack Mixed_7b.branch_pool.bn.bias$"),
        (lambda f: f.update(extra=np.zeros(3)), "unknown extra$"),
        (lambda f: f.update({"AuxLogits.conv0.conv.weight": np.zeros(3)}), "AuxLogits.*torchvision's incep"),
        (lambda f: f.update({"fc.weight": np.zeros((1000, 2048))}), "fc.weight of shape"),
        (lambda f: f.update({"Conv2d_2a_3x3.bn.bias": np.zeros(9)}), "Conv2d_2a_3x3.bn.bias of shape"),
        (lambda f: f.clear(), "and 466 more"),
    ],
)
def test_what_does_not_fit_is_named(flat: dict[str, np.ndarray], change, named: str) -> None:
    flat = dict(flat)
    change(flat)
    with pytest.raises(UserError, match=named):
        inception_from_pytorch_fid(flat)


def test_counters_and_a_missing_classifier_are_accepted(flat: dict[str, np.ndarray]) -> None:
    flat = {n: a for n, a in flat.items() if not n.startswith("fc.")}
    flat |= {"Conv2d_1a_3x3.bn.num_batches_tracked": np.zeros((), np.int64)}
    assert inception_from_pytorch_fid(flat).module == InceptionV3()


def test_the_file_is_found_or_the_line_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WEIGHTS_FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(UserError, match="weights fetch inception") as error:
        load_inception()
    assert "pt_inception-2015-12-05-6726825d.pth or inception_fid.npz" in str(error.value)
    with pytest.raises(UserError, match="none.npz.*fetch inception"):
        load_inception(str(tmp_path / "none.npz"))
    np.savez(tmp_path / "inception_fid.npz", a=np.zeros(2))
    with pytest.raises(UserError, match="inception_fid.npz: these are no weights of FID's Inception"):
        load_inception()
    monkeypatch.setattr(import_inception, "read_flat", lambda file: {"file." + file.name: np.zeros(1)})
    (tmp_path / "pt_inception-2015-12-05-6726825d.pth").touch()
    with pytest.raises(UserError, match="unknown file.pt_inception"):
        load_inception()
