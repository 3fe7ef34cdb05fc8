"""The importers read sizes from the arrays and name whatever does not fit; parity: tests/weights/test_command.py."""

import json
import struct
from pathlib import Path

import jax
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.models.resnet import ResNet
from fundusgan_jax.models.squeezenet import FIRES, SqueezeNet
from fundusgan_jax.models.vgg import VGG16
from fundusgan_jax.weights import import_torchvision as importers
from fundusgan_jax.weights.flat_file import read_flat
from fundusgan_jax.weights.seeded import seeded, seeded_state_dict

SMALL_SQUEEZENET = SqueezeNet(6, tuple(range(2, 10)), tuple(range(3, 11)))


def _resnet(width: int = 4, classes: int = 5) -> dict[str, np.ndarray]:
    module = ResNet(18, width=width, num_classes=classes)
    return seeded_state_dict(importers.state_dict_shapes(module, importers.resnet_table(18, True)), 3)


def test_resnet_sizes_are_read_from_the_arrays() -> None:
    flat = _resnet() | {"bn1.num_batches_tracked": np.zeros((), np.int64)}
    imported = importers.resnet_from_torchvision(flat)
    assert imported.module == ResNet(18, width=4, num_classes=5)
    kernel = imported.variables["params"]["layer2_0"]["downsample_conv"]["kernel"]
    np.testing.assert_array_equal(kernel[0, 0], flat["layer2.0.downsample.0.weight"][:, :, 0, 0].T)
    headless = {name: array for name, array in flat.items() if not name.startswith("fc.")}
    assert importers.resnet_from_torchvision(headless).module == ResNet(18, width=4)


def test_state_dict_names_of_resnet50_are_torchvisions() -> None:
    shapes = importers.state_dict_shapes(ResNet(50, num_classes=1000), importers.resnet_table(50, True))
    assert len(shapes) == 267  # 320 entries of torchvision's resnet50, less 53 num_batches_tracked
    assert shapes["layer3.5.conv2.weight"] == (256, 256, 3, 3)
    assert shapes["layer1.0.downsample.0.weight"] == (256, 64, 1, 1)
    assert shapes["fc.weight"] == (1000, 2048)
    assert sum(int(np.prod(s)) for n, s in shapes.items() if "running" not in n) == 25_557_032


def test_parameter_counts_of_the_feature_networks() -> None:
    for module, table, count in (
        (VGG16(), importers.vgg16_table(), 14_714_688),
        (SqueezeNet(), importers.squeezenet_table(), 722_496),
        (importers.AlexNet(), importers.alexnet_table(), 2_469_696),
    ):
        shapes = importers.state_dict_shapes(module, table)
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == count


@pytest.mark.parametrize(
    "change, named",
    [
        (lambda flat: flat.pop("layer3.1.bn2.running_var"), "layer3.1.bn2.running_var"),
        (lambda flat: flat.update(extra=np.zeros(3)), "unknown extra"),
        (lambda flat: flat.update({"layer1.0.bn1.weight": np.zeros(9, np.float32)}), "shape"),
        (lambda flat: flat.pop("conv1.weight"), "conv1.weight"),
        (lambda flat: flat.pop("fc.weight"), "fc.weight"),
        (lambda flat: flat.update({"layer4.7.conv1.weight": np.zeros(1)}), "residual blocks"),
    ],
)
def test_resnet_that_does_not_fit_is_named(change, named: str) -> None:
    flat = _resnet()
    change(flat)
    with pytest.raises(UserError, match=named):
        importers.resnet_from_torchvision(flat)


def test_feature_network_that_does_not_fit_is_named() -> None:
    flat = seeded_state_dict(importers.state_dict_shapes(SMALL_SQUEEZENET, importers.squeezenet_table()), 0)
    assert importers.squeezenet_from_torchvision(flat | {"classifier.1.bias": np.zeros(2)}).module == (
        SMALL_SQUEEZENET
    )
    with pytest.raises(UserError, match="features.99.weight"):
        importers.squeezenet_from_torchvision(flat | {"features.99.weight": np.zeros(2)})
    del flat["features.7.squeeze.bias"]
    with pytest.raises(UserError, match="features.7.squeeze.bias"):
        importers.squeezenet_from_torchvision(flat)
    with pytest.raises(UserError, match="VGG16"):
        importers.vgg16_from_torchvision({"conv1/kernel": np.zeros((3, 3, 3, 4))})


def test_keras_squeezenet_takes_rgb() -> None:
    torch = seeded_state_dict(importers.state_dict_shapes(SMALL_SQUEEZENET, importers.squeezenet_table()), 0)
    ours = importers.squeezenet_from_torchvision(torch).variables["params"]
    names = {"squeeze": "squeeze1x1", "expand1": "expand1x1", "expand3": "expand3x3"}
    flat = {f"conv1/{leaf}": ours["conv1"][leaf] for leaf in ("kernel", "bias")}
    flat["conv1/kernel"] = flat["conv1/kernel"][:, :, ::-1]
    for fire in FIRES:
        for part, theirs in names.items():
            for leaf in ("kernel", "bias"):
                flat[f"fire{fire}/{theirs}/{leaf}"] = ours[f"fire{fire}_{part}"][leaf]
    imported = importers.squeezenet_from_keras(flat)
    assert imported.module == SMALL_SQUEEZENET
    assert jax.tree.all(jax.tree.map(np.array_equal, imported.variables["params"], ours))
    with pytest.raises(UserError, match="fire9/expand3x3/bias"):
        importers.squeezenet_from_keras({k: v for k, v in flat.items() if k != "fire9/expand3x3/bias"})


def test_seeded_equals_the_reference(shared: Path) -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("reference_seeded", shared / "golden" / "seeded.py")
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for name, shape in {
        "layer1.0.conv1.weight": (4, 3, 3, 3),
        "bn1.weight": (5,),
        "bn1.bias": (5,),
        "bn1.running_mean": (5,),
        "bn1.running_var": (5,),
        "fc.weight": (6, 7),
    }.items():
        np.testing.assert_array_equal(seeded(name, shape, 11), reference.seeded(name, shape, 11))


def _write_safetensors(path: Path, arrays: dict[str, np.ndarray]) -> None:
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, array in arrays.items():
        start, data = len(data), data + array.tobytes()
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": [start, len(data)]}
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_backbone_files(tmp_path: Path) -> None:
    flat = _resnet(width=64, classes=3)
    _write_safetensors(tmp_path / "resnet18.safetensors", flat)
    variables = importers.load_backbone(tmp_path / "resnet18.safetensors", 18, "batch")
    expected = flat["layer4.1.conv2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(variables["params"]["layer4_1"]["conv2"]["kernel"], expected)
    assert "fc" not in variables["params"]
    with pytest.raises(UserError, match="ResNet-18 of width 64, the encoder a ResNet-50"):
        importers.load_backbone(tmp_path / "resnet18.safetensors", 50, "batch")
    with pytest.raises(UserError, match="encoder.norm=group"):
        importers.load_backbone(tmp_path / "resnet18.safetensors", 18, "group")


@pytest.mark.parametrize(
    "name", ["none.npz", "text.npz", "short.npz", "short.safetensors", "list.safetensors"]
)
def test_unreadable_files_are_user_errors(tmp_path: Path, name: str) -> None:
    np.savez(tmp_path / "whole.npz", a=np.zeros(1000), b=np.ones(1000))
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "short.npz").write_bytes((tmp_path / "whole.npz").read_bytes()[:5000])
    (tmp_path / "short.safetensors").write_bytes(struct.pack("<Q", 99) + b"{}")
    (tmp_path / "list.safetensors").write_bytes(struct.pack("<Q", 2) + b"[]")
    with pytest.raises(UserError, match=name) as told:
        read_flat(tmp_path / name)
    assert "pickle" not in str(told.value)
