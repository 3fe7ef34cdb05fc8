"""What is handed to `weights import` and is no network, or one that cannot paint: each refused in one line that says what it is."""

import io
import pickle
import re
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.generate.command import generate_images
from fundusgan_jax.generate.on_device import checked, to_bytes
from fundusgan_jax.generate.request import Request
from fundusgan_jax.models.squeezenet import SqueezeNet
from fundusgan_jax.ops.trees import named_leaves
from fundusgan_jax.weights.__main__ import main
from fundusgan_jax.weights.import_networks import read_networks
from fundusgan_jax.weights.import_torchvision import (
    squeezenet_from_torchvision,
    squeezenet_table,
    state_dict_shapes,
)
from fundusgan_jax.workdir.contents import restore_state
from fundusgan_jax.workdir.manifest import config_of_workdir
from tests.support import weight_files as files
from tests.support.weight_files import archive, naming, network, npz, ones, safetensors
from tests.support.workdirs import untrained_workdir
from tests.weights import test_torch_files as torch_writing
from tests.weights.test_import_prior import module_of

names = torch_writing.names  # a fixture
ADA = "stylegan2-ada-pytorch"


def run(file: Path, workdir: Path, capsys, naming: str = ADA) -> tuple[int, str]:
    """Exit code and what was said, which is one line where it failed."""
    capsys.readouterr()
    code = main(["import", f"--from={naming}", str(file), str(workdir)])
    said = capsys.readouterr()
    if code:
        assert code == 2 and said.out == "" and said.err.startswith("error: ") and said.err.count("\n") == 1
        assert file.name in said.err and len(said.err) < 600 and not workdir.exists()
    return code, said.err if code else said.out


def with_one(value: float, shape: tuple[int, ...]) -> np.ndarray:
    array = np.ones(shape, np.float32)
    array.flat[-1] = value
    return array


WRONG: dict[str, tuple[str, bytes, str]] = {
    "web_page": ("a.pkl", b"<!DOCTYPE html><html><title>Too many downloads</title></html>", "is a web page; fetch it again"),
    "web_page_late": ("a.npz", b"\xef\xbb\xbf\r\n  <HTML lang=de><body>", "is a web page"),
    "lfs_pointer": ("a.pkl", files.LFS_POINTER, "is a Git LFS pointer.*git lfs pull"),
    "lfs_pointer_npz": ("a.safetensors", files.LFS_POINTER, "is a Git LFS pointer"),
    "access_denied": ("a.pt", b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML text"),
    "json_answer": ("a.pt", b'{"error": "Repository not found"}', "is a JSON text"),
    "picture": ("a.npz", b"\x89PNG\r\n\x1a\n" + bytes(50), "is a PNG picture"),
    "keras": ("a.pt", b"\x89HDF\r\n\x1a\n" + bytes(50), "is an HDF5 file"),
    "gzip": ("a.pkl", b"\x1f\x8b\x08" + bytes(50), "is a gzip archive; unpack it"),
    "array": ("a.npz", b"\x93NUMPY\x01\x00" + bytes(50), "is a single NumPy array"),
    "empty": ("a.pkl", b"", "is an empty file"),
    "zip_of_pictures": ("a.pkl", archive(photos__1__png=b"x"), "is a zip archive of other files .*photos/1/png"),
    "zip_of_nothing": ("a.npz", archive(), "is a zip archive of other files"),
    "torchscript": ("a.pt", archive(m__data__pkl=b"", **{"m__data.pkl": b".", "m__code__a.py": b""}), "is a TorchScript program"),
    "tensorflow": ("a.pkl", b"\x80\x02cdnnlib.tflib.network\nNetwork\nq\x00)\x81.", "is a TensorFlow pickle.*legacy.py"),
    "tensorflow_in_a_tuple": ("a.pkl", naming("dnnlib.tflib.network", "Network"), "is a TensorFlow pickle"),
    "stylegan3_source": ("a.pkl", naming("training.networks_stylegan3", "Generator"), "is a StyleGAN3 pickle"),
    "whole_module": ("a.pt", naming("model", "Generator"), "is not read: it names model.Generator"),
    "list": ("a.pkl", files.PICKLED_LIST, "holds no networks"),
    "stylegan3": ("a.npz", npz(ones("G_ema.synthesis.input.freqs", "G_ema.synthesis.L0_36_512.weight")), "is a StyleGAN3"),
    "psp": (
        "a.npz",
        npz(ones("state_dict.encoder.input_layer.0.weight", "state_dict.decoder.conv1.conv.weight", "latent_avg")),
        "is a checkpoint of pSp, e4e or StyleGANEX",
    ),
    "resnet": ("a.npz", npz(ones("conv1.weight", "layer1.0.conv1.weight")), "is a ResNet; name a file of StyleGAN2"),
    "vgg": ("a.safetensors", safetensors(ones("features.0.weight")), "is a VGG, AlexNet or SqueezeNet"),
    "diffusion": ("a.safetensors", safetensors(ones("model.diffusion_model.out.2.weight")), "is a diffusion model"),
    "rosinality": ("a.npz", npz(ones("g_ema.input.input", "g_ema.conv1.conv.weight")), "rosinality's names; give --from=rosinality"),
    "nan": ("a.npz", npz(network(synthesis__b8__conv0__weight=with_one(np.nan, (2, 2, 3, 3)))), "b8.conv0.weight: 1 of 36 numbers are not finite"),
    "inf_w_avg": ("a.npz", npz(network(mapping__w_avg=with_one(np.inf, (6,)))), "mapping.w_avg: 1 of 6 numbers are not finite"),
    "nan_bias": ("a.safetensors", safetensors(network(mapping__fc0__bias=with_one(np.nan, (6,)))), "mapping.fc0.bias: 1 of 6"),
    "nan_noise": ("a.npz", npz(network(synthesis__b4__conv1__noise_const=with_one(-np.inf, (4, 4)))), "noise_const: 1 of 16"),
    "too_large_for_float32": ("a.npz", npz(network(mapping__fc1__bias=np.full(6, 1e200))), "mapping.fc1.bias: 6 of 6"),
    "half_overflow": ("a.npz", npz(network(mapping__fc1__bias=np.full(6, np.inf, np.float16))), "mapping.fc1.bias: 6 of 6"),
    "whole_numbers": ("a.npz", npz({name: np.int32(x) for name, x in network().items()}), r"holds whole numbers \(int32\)"),
    "quantised": ("a.npz", npz(network(synthesis__b4__const=np.ones((2, 4, 4), np.int8))), r"b4.const holds whole numbers \(int8\)"),
    "flags": ("a.npz", npz(network(mapping__fc0__bias=np.ones(6, bool))), r"fc0.bias holds whole numbers \(bool\)"),
    "truncated": ("a.npz", npz(network())[:900], "cannot be read as a .npz"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_called_what_it_is(case: str, tmp_path: Path, capsys) -> None:
    name, content, reason = WRONG[case]
    code, said = run(files.written(tmp_path / name, content), tmp_path / "prior", capsys)
    assert code == 2
    assert re.search(reason, said), said


def test_pickles_of_other_networks_are_called_what_they_are(tmp_path: Path, names, capsys) -> None:
    """As torch.save and NVIDIA write them: tensors and modules that are read, of a network that is another."""

    def tensors(*keys: str) -> dict:
        return {
            key: torch_writing.Tensor(torch_writing.Storage("Float", np.ones(4, np.float32)), 0, (4,), (1,))
            for key in keys
        }

    psp = {
        "state_dict": tensors("encoder.body.0.weight", "decoder.conv1.conv.weight"),
        "latent_avg": tensors("x")["x"],
    }
    checkpoint = files.written(tmp_path / "psp.pt", torch_writing.archive_bytes(psp, names))
    assert "pSp, e4e or StyleGANEX" in run(checkpoint, tmp_path / "a", capsys, "rosinality")[1]
    module = module_of({"synthesis.input.freqs": np.ones((2, 2), np.float32)})
    with open(tmp_path / "sg3.pkl", "wb") as file:
        torch_writing.Writer(file, names, nested=True).dump({"G_ema": module})
    assert "sg3.pkl is a StyleGAN3;" in run(tmp_path / "sg3.pkl", tmp_path / "b", capsys)[1]


WRAPPED = {
    "whole": lambda flat: {f"module.{name}": x for name, x in flat.items()},
    "parts": lambda flat: {name.replace("G_ema.", "G_ema.module."): x for name, x in flat.items()},
    "compiled": lambda flat: {
        name.replace("G_ema.", "G_ema._orig_mod.module."): x for name, x in flat.items()
    },
    "alone": lambda flat: {name.replace("G_ema.", "module."): x for name, x in flat.items()},
    "twice": lambda flat: {f"module.module.{name}": x for name, x in flat.items()},
}


def test_the_prefix_of_a_wrapper_is_taken_off(tmp_path: Path) -> None:
    flat = network()
    good = read_networks(files.written(tmp_path / "good.npz", npz(flat)), ADA).averaged
    for name, wrapped in WRAPPED.items():
        file = files.written(tmp_path / f"{name}.npz", npz(wrapped(flat)))
        found = read_networks(file, ADA).averaged
        jax.tree.map(np.testing.assert_array_equal, found._replace(config=None), good._replace(config=None))
        assert found.config == good.config


def test_the_content_says_the_format_and_not_the_suffix(tmp_path: Path) -> None:
    for name, content in {
        "a.pkl": npz(network()),
        "b.npz": safetensors(network()),
        "c.bin": npz(network(), True),
    }.items():
        assert read_networks(files.written(tmp_path / name, content), ADA).averaged.config.resolution == 16


def test_weights_of_the_networks_of_figures_are_numbers_too() -> None:
    shapes = state_dict_shapes(SqueezeNet(2, (1,) * 8, (1,) * 8), squeezenet_table())
    flat = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    flat["features.0.bias"][0] = np.nan
    with pytest.raises(UserError, match="features.0.bias: 1 of 2 numbers"):
        squeezenet_from_torchvision(flat)


def test_a_checkpoint_with_nan_is_refused_by_name(tmp_path: Path, capsys) -> None:
    assert run(files.written(tmp_path / "a.npz", npz(network())), tmp_path / "prior", capsys)[0] == 0
    config, _, state = restore_state(tmp_path / "prior", "latest")
    const = np.array(state.ema["synthesis"]["const"])
    const.flat[3] = np.nan
    state.ema["synthesis"]["const"] = const
    workdir = untrained_workdir(tmp_path / "run", config, state)
    with pytest.raises(UserError, match="checkpoint 0 of .*ema/synthesis/const: 1 of .* not finite.*--step"):
        restore_state(workdir, "latest")


def test_a_generator_that_paints_nan_is_an_error_and_no_black_files(tmp_path: Path, capsys) -> None:
    """Its weights are finite, what they come to is not."""
    flat = network(synthesis__b8__torgb__bias=np.full(3, 3e38), synthesis__b4__torgb__bias=np.full(3, 3e38))
    assert run(files.written(tmp_path / "a.npz", npz(flat)), tmp_path / "run", capsys)[0] == 0
    config = config_of_workdir(tmp_path / "run", [])
    with pytest.raises(UserError, match="paints pixels that are not finite.*no image was made"):
        generate_images(config, tmp_path / "run", "latest", Request(tmp_path / "out", num=2))
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="not finite"):
        checked(to_bytes(np.array([0.0, np.nan]).reshape(1, 1, 2, 1)))
    levels = checked(to_bytes(np.array([-1, 0, 1, 9.0]).reshape(1, 2, 2, 1)))
    np.testing.assert_array_equal(levels.ravel(), [0, 128, 255, 255])


def test_images_of_one_colour_are_said(tmp_path: Path, capsys) -> None:
    flat = {name: np.zeros_like(x) for name, x in network().items()}
    assert run(files.written(tmp_path / "a.npz", npz(flat)), tmp_path / "run", capsys)[0] == 0
    config = config_of_workdir(tmp_path / "run", [])
    generate_images(config, tmp_path / "run", "latest", Request(tmp_path / "out", num=2))
    assert "note: 2 of 2 images are of one colour" in capsys.readouterr().out


def _sound(names) -> list[tuple[str, bytes]]:
    """One file of each format."""
    flat = network()
    parts = {name.removeprefix("G_ema."): x for name, x in flat.items()}
    pickled = io.BytesIO()
    torch_writing.Writer(pickled, names, nested=True).dump({"G_ema": module_of(parts)})

    def tensor(x: np.ndarray) -> torch_writing.Tensor:
        strides = tuple(step // x.itemsize for step in x.strides)
        return torch_writing.Tensor(torch_writing.Storage("Float", x.ravel()), 0, x.shape, strides)

    saved = {"G_ema": {name: tensor(x) for name, x in parts.items()}}
    return [
        (".npz", npz(flat)), (".safetensors", safetensors(flat)), (".pkl", pickled.getvalue()),
        (".pt", torch_writing.archive_bytes(saved, names)), (".pth", torch_writing.legacy_bytes(saved, names)),
        (".npz", npz(flat, compressed=True)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "numbers", [range(60), pytest.param(range(60, 500), marks=pytest.mark.slow)], ids=["60", "500"]
)
def test_mutated_files_are_imported_or_refused_in_one_line(
    numbers: range, tmp_path: Path, names, capsys
) -> None:
    """No traceback, no more than 10 s, no file that is neither kept nor named; where the format has checksums, none whose weights
    are others than they were."""
    sound, imported = _sound(names), 0
    whole = named_leaves(
        read_networks(files.written(tmp_path / "whole.npz", sound[0][1]), ADA).averaged.synthesis
    )

    def late(number, frame):
        raise AssertionError("more than 10 seconds")

    before = signal.signal(signal.SIGALRM, late)
    try:
        for number in numbers:
            suffix, content = files.mutated(number, sound)
            file = files.written(tmp_path / f"{number}{suffix}", content)
            signal.alarm(10)
            code, said = run(file, tmp_path / f"out{number}", capsys)
            signal.alarm(0)
            imported += code == 0
            assert code == 2 or (tmp_path / f"out{number}").is_dir()
            if code == 0 and suffix in (".npz", ".pt"):
                found = named_leaves(read_networks(file, ADA).averaged.synthesis)
                assert all(np.array_equal(found[name], x) for name, x in whole.items()), number
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert imported < len(numbers) / 2


def test_pickles_cannot_take_the_memory(tmp_path: Path, capsys) -> None:
    bombs = {
        "long": b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\1" * 100 + b".",
        "bytes": b"\x80\x05\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "bytearray": b"\x80\x05\x96\xff\xff\xff\xff\xff\xff\xff\x7f.",
        "deep": b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".",
        "memo": b"\x80\x02]r\xff\xff\xff\x1f.",
        "memo as text": b"]p536870911\n.",
        "frame": pickle.dumps([], 4)[:2] + b"\x95\xff\xff\xff\xff\xff\xff\xff\x7f].",
    }
    for name, content in bombs.items():
        assert run(files.written(tmp_path / f"{name}.pkl", content), tmp_path / "out", capsys)[0] == 2
