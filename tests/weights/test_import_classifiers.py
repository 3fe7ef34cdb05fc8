"""Published weights in the classifiers' networks: names and sizes as torchvision has them, and the same maps as plain numpy code
that is written along torchvision's names."""

import jax
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.classifiers import OTHERS, Classifier
from fundusgan_jax.models.resnet import IMAGENET_MEAN, IMAGENET_STD
from fundusgan_jax.models.squeezenet import FIRES, SqueezeNet
from fundusgan_jax.weights import import_torchvision as importers
from fundusgan_jax.weights.import_classifiers import TABLES, load_network, network_from_torchvision
from fundusgan_jax.weights.seeded import seeded_state_dict

QUICK = {"xla_backend_optimization_level": 0}


def state_dict(name, width=1.0, salt=1):
    """Seeded arrays under torchvision's names and shapes."""
    module, table = OTHERS[name](width), TABLES[name](width)
    shapes = importers.state_dict_shapes(module, table)
    dense = {key for key in shapes if key.endswith(("fc1.weight", "fc2.weight"))}
    return seeded_state_dict(
        {key: (*shape, 1, 1) if key in dense else shape for key, shape in shapes.items()}, salt
    )


# The reference: float64, channels first, and nothing of ours.


def conv(x, kernel, stride=1, bias=None):
    """x [C, H, W], kernel [O, C / groups, k, k] with groups 1 or C, padded by k // 2."""
    size = kernel.shape[-1]
    padded = np.pad(x, ((0, 0), (size // 2, size // 2), (size // 2, size // 2)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (size, size), (1, 2))[:, ::stride, ::stride]
    if kernel.shape[1] == 1 and x.shape[0] > 1:
        out = np.einsum("chwij,cij->chw", windows, kernel[:, 0])
    else:
        out = np.einsum("chwij,ocij->ohw", windows, kernel)
    return out if bias is None else out + bias[:, None, None]


def norm(x, flat, name, epsilon=1e-5):
    scale = flat[f"{name}.weight"] / np.sqrt(flat[f"{name}.running_var"] + epsilon)
    return (x - flat[f"{name}.running_mean"][:, None, None]) * scale[:, None, None] + flat[f"{name}.bias"][
        :, None, None
    ]


def relu(x):
    return np.maximum(x, 0)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def silu(x):
    return x * sigmoid(x)


def hard_sigmoid(x):
    return np.clip(x + 3, 0, 6) / 6


def hard_swish(x):
    return x * hard_sigmoid(x)


def conv_norm(x, flat, name, stride, activate, epsilon):
    return activate(norm(conv(x, flat[f"{name}.0.weight"], stride), flat, f"{name}.1", epsilon))


def squeeze_excite(x, flat, name, inner, gate):
    y = inner(conv(x.mean((1, 2), keepdims=True), flat[f"{name}.fc1.weight"], 1, flat[f"{name}.fc1.bias"]))
    return x * gate(conv(y, flat[f"{name}.fc2.weight"], 1, flat[f"{name}.fc2.bias"]))


def residual(x, flat, name, stride, activate, gates, epsilon):
    """An inverted residual by the layers that the state dict names."""
    layers = sorted({int(key.split(".")[len(name.split("."))]) for key in flat if key.startswith(f"{name}.")})
    y = x
    for number in layers:
        part = f"{name}.{number}"
        if f"{part}.fc1.weight" in flat:
            y = squeeze_excite(y, flat, part, *gates)
            continue
        depthwise = flat[f"{part}.0.weight"].shape[-1] > 1
        plain = number == layers[-1]
        y = conv_norm(
            y, flat, part, stride if depthwise else 1, (lambda v: v) if plain else activate, epsilon
        )
    return x + y if x.shape == y.shape else y


def mobilenet_v3_small(x, flat):
    strides = (2, 2, 1, 2, 1, 1, 1, 1, 2, 1, 1)
    x = conv_norm(x, flat, "features.0", 2, hard_swish, 1e-3)
    for number, stride in enumerate(strides, 1):
        activate = relu if number <= 3 else hard_swish
        x = residual(x, flat, f"features.{number}.block", stride, activate, (relu, hard_sigmoid), 1e-3)
    return conv_norm(x, flat, "features.12", 1, hard_swish, 1e-3)


def efficientnet_b0(x, flat):
    x = conv_norm(x, flat, "features.0", 2, silu, 1e-5)
    for stage, (count, first) in enumerate(((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1)), 1):
        for index in range(count):
            stride = first if index == 0 else 1
            x = residual(x, flat, f"features.{stage}.{index}.block", stride, silu, (silu, sigmoid), 1e-5)
    return conv_norm(x, flat, "features.8", 1, silu, 1e-5)


def densenet121(x, flat):
    x = relu(norm(conv(x, flat["features.conv0.weight"], 2), flat, "features.norm0"))
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].max((3, 4))
    for block, count in enumerate((6, 12, 24, 16), 1):
        for layer in range(1, count + 1):
            name, y = f"features.denseblock{block}.denselayer{layer}", x
            for part in (1, 2):
                y = conv(relu(norm(y, flat, f"{name}.norm{part}")), flat[f"{name}.conv{part}.weight"])
            x = np.concatenate([x, y])
        if block < 4:
            name = f"features.transition{block}"
            x = conv(relu(norm(x, flat, f"{name}.norm")), flat[f"{name}.conv.weight"])
            x = x.reshape(x.shape[0], x.shape[1] // 2, 2, x.shape[2] // 2, 2).mean((2, 4))
    return relu(norm(x, flat, "features.norm5"))


REFERENCES = {one.__name__: one for one in (mobilenet_v3_small, efficientnet_b0, densenet121)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["batch", "frozen"])
@pytest.mark.parametrize("name", TABLES)
def test_maps_are_those_of_plain_numpy(name, kind):
    flat = state_dict(name, 0.25)
    # Variances as small as epsilon, so that another one would show.
    flat |= {key: array * 2e-3 for key, array in flat.items() if key.endswith("running_var")}
    flat |= {
        key: array * 0.05
        for key, array in flat.items()
        if key.endswith(("norm1.weight", "norm2.weight", ".1.weight"))
    }
    imported = network_from_torchvision(name, flat, kind, 0.25)
    image = np.random.default_rng(0).normal(size=(1, 64, 64, 3)).astype(np.float32)
    run = jax.jit(imported.module.apply, compiler_options=QUICK)
    ours = np.asarray(run(imported.variables, image))[0].transpose(2, 0, 1)
    theirs = REFERENCES[name](image[0].transpose(2, 0, 1).astype(np.float64), flat)
    assert ours.shape == theirs.shape == (*ours.shape[:1], 2, 2) and np.abs(theirs).max() > 1e-3
    np.testing.assert_allclose(ours, theirs, atol=2e-5 * np.abs(theirs).max())


# Entries of torchvision's state dicts without num_batches_tracked and classifier; some shapes that its code gives.
@pytest.mark.parametrize(
    "name, entries, shapes",
    [
        ("mobilenet_v3_small", 206, {"features.0.0.weight": (16, 3, 3, 3), "features.1.block.0.0.weight": (16, 1, 3, 3),
            "features.4.block.2.fc1.weight": (24, 96, 1, 1), "features.12.0.weight": (576, 96, 1, 1)}),
        ("efficientnet_b0", 309, {"features.1.0.block.1.fc1.weight": (8, 32, 1, 1), "features.8.0.weight": (1280, 320, 1, 1),
            "features.6.3.block.1.0.weight": (1152, 1, 5, 5)}),
        ("densenet121", 604, {"features.denseblock3.denselayer24.conv1.weight": (128, 992, 1, 1),
            "features.transition2.conv.weight": (256, 512, 1, 1), "features.norm5.weight": (1024,)}),
    ],
)  # fmt: skip
def test_names_and_shapes_are_torchvisions(name, entries, shapes):
    flat = state_dict(name)
    assert len(flat) == entries
    for key, shape in shapes.items():
        assert flat[key].shape == shape, key
    more = {"classifier.1.weight": np.zeros((2, 2)), "features.0.1.num_batches_tracked": np.zeros(())}
    imported = network_from_torchvision(name, flat | more)
    assert imported.module == OTHERS[name](1.0, "batch")


def test_earlier_names_of_the_published_densenet():
    flat = state_dict("densenet121", 0.25)
    earlier = {
        key.replace("norm1.", "norm.1.").replace("norm2.", "norm.2.").replace("conv1.", "conv.1.").replace("conv2.", "conv.2.")
        if "denselayer" in key else key: array for key, array in flat.items()
    }  # fmt: skip
    assert earlier.keys() != flat.keys()
    first, second = (
        network_from_torchvision("densenet121", one, width=0.25).variables for one in (flat, earlier)
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, first, second))


@pytest.mark.parametrize("name", TABLES)
def test_what_does_not_fit_is_named(name):
    flat = state_dict(name, 0.25)
    lost = next(key for key in flat if key.endswith("running_var"))
    with pytest.raises(UserError, match=f"no {name} weights: they lack {lost}"):
        network_from_torchvision(name, {key: array for key, array in flat.items() if key != lost}, width=0.25)
    with pytest.raises(UserError, match="have an unknown extra"):
        network_from_torchvision(name, flat | {"extra": np.zeros(2)}, width=0.25)
    with pytest.raises(UserError, match="shape"):
        network_from_torchvision(name, flat, width=0.5)


def test_kerass_squeezenet_sees_the_same_photograph(tmp_path):
    rng = np.random.default_rng(2)
    sizes = SqueezeNet()
    channels = {"conv1": (3, 3, sizes.stem)}
    before = sizes.stem
    for fire, squeeze, expand in zip(FIRES, sizes.squeeze, sizes.expand):
        channels |= {f"fire{fire}/squeeze1x1": (1, before, squeeze), f"fire{fire}/expand1x1": (1, squeeze, expand),
                     f"fire{fire}/expand3x3": (3, squeeze, expand)}  # fmt: skip
        before = 2 * expand
    flat = {}
    for name, (size, inputs, outputs) in channels.items():
        flat[f"{name}/kernel"] = rng.normal(size=(size, size, inputs, outputs)).astype(np.float32)
        flat[f"{name}/bias"] = rng.normal(size=outputs).astype(np.float32)
    np.savez(tmp_path / "keras.npz", **flat)
    params = load_network(tmp_path / "keras.npz", "squeezenet", "group")["params"]
    image = rng.uniform(-1, 1, (5, 7, 3))
    # As keras-squeezenet is fed: BGR, 0 to 255, minus its mean; our network: RGB by ImageNet's mean and deviation.
    theirs = (image[..., ::-1] + 1) * 127.5 - np.array([103.939, 116.779, 123.68])
    ours = ((image + 1) / 2 - IMAGENET_MEAN) / IMAGENET_STD
    reference, result = (
        np.einsum("hwcij,ijco->hwo", np.lib.stride_tricks.sliding_window_view(x, (3, 3), (0, 1)), kernel)
        + bias
        for x, kernel, bias in (
            (theirs, flat["conv1/kernel"], flat["conv1/bias"]),
            (ours, params["conv1"]["kernel"], params["conv1"]["bias"]),
        )
    )
    np.testing.assert_allclose(result, reference, atol=1e-5 * np.abs(reference).max())


def test_one_door_for_every_network(tmp_path):
    flat = state_dict("mobilenet_v3_small")
    np.savez(tmp_path / "mobile.npz", **flat)
    loaded = load_network(tmp_path / "mobile.npz", "mobilenet_v3_small", "frozen")
    module = Classifier("mobilenet_v3_small", 2, "frozen")
    wanted = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    for collection in ("params", "batch_stats"):
        shapes = jax.tree.map(lambda leaf: leaf.shape, wanted[collection]["network"])
        assert shapes == jax.tree.map(lambda leaf: leaf.shape, loaded[collection])
    with pytest.raises(UserError, match=r"mobile.npz: these are no densenet121 weights"):
        load_network(tmp_path / "mobile.npz", "densenet121", "frozen")
    with pytest.raises(UserError, match="encoder.norm=group"):
        load_network(tmp_path / "mobile.npz", "mobilenet_v3_small", "group")
    with pytest.raises(UserError, match="weights fetch efficientnet_b0"):
        load_network("nothing.pth", "efficientnet_b0", "frozen")
