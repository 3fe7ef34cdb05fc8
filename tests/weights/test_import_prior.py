"""Weights through the command: import into a workdir, export as a file, and what is refused on the way."""

import json
import os
import pickle
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

import tests.weights.test_torch_files as torch_writing
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.plan import GeneratorConfig
from fundusgan_jax.steps.adversary import logits
from fundusgan_jax.steps.fundusgan_step import state_shapes
from fundusgan_jax.steps.latents import to_w
from fundusgan_jax.steps.prior_network import paint
from fundusgan_jax.steps.prior_state import PriorState, first_prior, prior_shapes
from fundusgan_jax.train.transfer import initialised_from
from fundusgan_jax.weights import export, import_prior
from fundusgan_jax.weights.__main__ import main
from fundusgan_jax.weights.export import flattened
from fundusgan_jax.weights.flat_file import read_flat, write_flat
from fundusgan_jax.weights.prior_settings import channel_rule
from fundusgan_jax.workdir.checkpoint import Checkpoints
from fundusgan_jax.workdir.contents import open_checkpoints, restore_state
from fundusgan_jax.workdir.manifest import config_of_workdir, read_manifest, write_manifest
from tests.support.tiny import tiny_config
from tests.weights.test_import_stylegan import (
    W,
    assert_same,
    nvidia_discriminator,
    nvidia_generator,
    rosinality_discriminator,
    rosinality_generator,
)

names = torch_writing.names  # a fixture


def prefixed(**parts: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{part}.{name}": x for part, flat in parts.items() for name, x in flat.items()}


def generators(**sizes: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """A generator's moving average and itself; their buffers are the same, as in training."""
    averaged, trained = nvidia_generator(**sizes), nvidia_generator(**sizes, seed=7)
    buffers = {name: x for name, x in averaged.items() if name.endswith((".noise_const", ".w_avg"))}
    return averaged, trained | buffers


def whole(labels: int = 0) -> dict[str, np.ndarray]:
    """A small prior in NVIDIA's names."""
    averaged, trained = generators(labels=labels)
    return prefixed(G_ema=averaged, G=trained, D=nvidia_discriminator(labels=labels))


def imported(file: Path, workdir: Path, naming: str = "stylegan2-ada-pytorch") -> PriorState:
    assert main(["import", f"--from={naming}", str(file), str(workdir)]) == 0
    _, step, state = restore_state(workdir, "latest")
    assert step == 0 and isinstance(state, PriorState)
    return state


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1
    return captured.err


def from_nvidia(file: Path, workdir: Path) -> list[object]:
    return ["import", "--from=stylegan2-ada-pytorch", file, workdir]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of the small prior."""
    folder = tmp_path_factory.mktemp("small")
    write_flat(folder / "prior.npz", whole())
    imported(folder / "prior.npz", folder / "prior")
    return folder / "prior"


@pytest.mark.parametrize("name", ["stylegan2_64", "stylegan2_32_labels"])
def test_a_golden_file_paints_and_judges_as_its_reference(shared: Path, tmp_path: Path, name: str) -> None:
    file = shared / "golden" / f"{name}.npz"
    state = imported(file, tmp_path / "prior")
    golden = read_flat(file)
    config = config_of_workdir(tmp_path / "prior", [])
    assert (config.task, config.model.style, config.model.noise_mode) == ("prior", "stylegan2", "random")
    size = config.model.resolution

    def everything(state, z, label, ws, image, judged_label):
        # Numbers below are of float32 arithmetic; matrix units may otherwise use fewer bits.
        with jax.default_matmul_precision("highest"):
            w = to_w(config, state.ema["mapping"], z, label)
            painted = paint(config, state.ema, state.noise, ws, resolution=size, noise_mode="const")
            return w, painted, logits(config, state.adversary.params, image, judged_label)

    label, judged_label = (
        golden[key].argmax(1) if key in golden else np.zeros(len(golden[of]), int)
        for key, of in (("c", "z"), ("d_c", "d_image"))
    )
    found = jax.jit(everything)(state, golden["z"], label, golden["ws"], golden["d_image"], judged_label)
    wanted = (golden["ws"][:, 0], golden["image_noise_const"], golden["d_logits"])
    for ours, reference in zip(found, wanted):
        np.testing.assert_allclose(ours, reference, atol=1e-4 * np.abs(reference).max())
    np.testing.assert_array_equal(state.w_avg, golden["weights/G/mapping.w_avg"])


def tensor(x: np.ndarray) -> torch_writing.Tensor:
    strides = tuple(step // x.itemsize for step in x.strides)
    return torch_writing.Tensor(torch_writing.Storage("Float", x.ravel()), 0, x.shape, strides)


def module_of(flat: dict[str, np.ndarray]) -> torch_writing.NvidiaModule:
    """The modules that a state dict comes from, as NVIDIA pickles them."""
    inner: dict[str, dict[str, np.ndarray]] = {}
    state: dict = {"_parameters": {}, "_buffers": {}, "training": False, "gain": np.float64(2)}
    for name, x in flat.items():
        head, _, rest = name.partition(".")
        if rest:
            inner.setdefault(head, {})[rest] = x
        else:
            state["_buffers" if name in ("w_avg", "noise_const") else "_parameters"][name] = tensor(x)
    state["_modules"] = {name: module_of(part) for name, part in inner.items()}
    return torch_writing.NvidiaModule("Network", state)


def test_nvidias_pickle_holds_what_its_flat_file_holds(tmp_path: Path, names, capsys) -> None:
    labels = 2
    averaged, trained = generators(labels=labels)
    networks = {"G": trained, "D": nvidia_discriminator(labels=labels), "G_ema": averaged}
    modules = {name: module_of(flat) for name, flat in networks.items()}
    with open(tmp_path / "network.pkl", "wb") as file:
        torch_writing.Writer(file, names, nested=True).dump(
            {**modules, "augment_pipe": None, "training_set_kwargs": {"resolution": 16}}
        )
    state = imported(tmp_path / "network.pkl", tmp_path / "a")
    said = capsys.readouterr().out
    assert "StyleGAN2 of 16 px, channel_base 64, channel_max 8, w_dim 6, z_dim 5" in said
    assert "2 mapping layers, 2 classes" in said and "note" not in said
    write_flat(tmp_path / "network.safetensors", whole(labels))
    assert_same(imported(tmp_path / "network.safetensors", tmp_path / "b"), state)
    kernel = state.params["synthesis"]["b16_conv0"]["kernel"]
    np.testing.assert_array_equal(kernel, trained["synthesis.b16.conv0.weight"].transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(state.ema["mapping"]["embed"]["kernel"].T, averaged["mapping.embed.weight"])
    record = read_manifest(tmp_path / "a")
    assert record is not None and record["dataset_fingerprint"].startswith(
        "imported from network.pkl, sha256 "
    )


@pytest.mark.parametrize("form", [torch_writing.archive_bytes, torch_writing.legacy_bytes])
def test_rosinalitys_checkpoint_holds_the_same_prior(tmp_path: Path, names, capsys, form) -> None:
    averaged, trained = generators(z=W)
    content = {
        "g": rosinality_generator(trained),
        "d": rosinality_discriminator(nvidia_discriminator()),
        "g_ema": rosinality_generator(averaged),
    }
    content = {name: {key: tensor(x) for key, x in flat.items()} for name, flat in content.items()} | {
        "g_optim": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.002}]},
        "ada_aug_p": 0.3,
    }
    (tmp_path / "a.pt").write_bytes(form(content, names))
    state = imported(tmp_path / "a.pt", tmp_path / "a", "rosinality")
    assert "note: the file has no w_avg" in capsys.readouterr().out
    write_flat(tmp_path / "b.npz", prefixed(G_ema=averaged, G=trained, D=nvidia_discriminator()))
    wanted = imported(tmp_path / "b.npz", tmp_path / "b")
    assert_same(state._replace(w_avg=wanted.w_avg), wanted)
    # The mean of 10,000 draws is within its own error of other draws' mean.
    config = config_of_workdir(tmp_path / "a", [])
    z = np.random.default_rng(5).standard_normal((2000, W), np.float32)
    w = np.asarray(to_w(config, state.ema["mapping"], z, np.zeros(2000, np.int32)))
    assert (np.abs(w.mean(0) - state.w_avg) < 5 * w.std(0) / np.sqrt(2000)).all()


def test_a_generator_alone_gets_a_fresh_discriminator(tmp_path: Path, names, capsys) -> None:
    flat = rosinality_generator(nvidia_generator(z=W))
    latent = np.arange(W, dtype=np.float32)[None]
    write_flat(tmp_path / "g.safetensors", flat | {"latent_avg": latent})
    state = imported(tmp_path / "g.safetensors", tmp_path / "a", "rosinality")
    assert "note: the file has no discriminator" in capsys.readouterr().out
    np.testing.assert_array_equal(state.w_avg, latent[0])
    like = prior_shapes(config_of_workdir(tmp_path / "a", []))
    assert jax.tree.map(np.shape, state) == jax.tree.map(np.shape, like)
    assert [leaf.dtype for leaf in jax.tree.leaves(state)] == [leaf.dtype for leaf in jax.tree.leaves(like)]
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((state.opt_state, state.adversary.opt_state)))
    assert state.pl_mean == 0
    judge = state.adversary.params["b8_conv0"]["kernel"]
    assert 0.8 < judge.std() < 1.2  # drawn, N(0, 1)
    assert_same(state.params, state.ema)
    # A discriminator whose sizes the one set of settings cannot give.
    wide = nvidia_discriminator({4: 8, 8: 8, 16: 8})
    write_flat(tmp_path / "wide.npz", prefixed(G_ema=nvidia_generator(), D=wide))
    imported(tmp_path / "wide.npz", tmp_path / "b")
    assert "note: the file's discriminator has other sizes" in capsys.readouterr().out
    write_flat(tmp_path / "wrong.npz", flat | {"latent_avg": np.zeros(3)})
    assert "latent_avg" in refused(
        capsys, "import", "--from=rosinality", tmp_path / "wrong.npz", tmp_path / "c"
    )


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
@pytest.mark.parametrize("naming", ["fundusgan_jax", "stylegan2-ada-pytorch"])
def test_export_then_import_is_the_identity(small: Path, tmp_path: Path, naming: str, suffix: str) -> None:
    file = tmp_path / f"prior{suffix}"
    assert main(["export", str(small), str(file), f"--names={naming}"]) == 0
    _, _, before = restore_state(small, "latest")
    after = imported(file, tmp_path / "again", naming)
    # The file has one generator: the averaged one.
    assert_same(after, before._replace(params=before.ema))
    raw = tmp_path / f"raw{suffix}"
    assert main(["export", str(small), str(raw), f"--names={naming}", "--which=raw", "--step=0"]) == 0
    again, exported = read_flat(raw), read_flat(file)
    if naming == "fundusgan_jax":
        assert exported.keys() == again.keys()
        np.testing.assert_array_equal(again["mapping/fc1/bias"], before.params["mapping"]["fc1"]["bias"])
        assert exported["synthesis/b16_conv0/kernel"].shape == (3, 3, 8, 4) and exported[
            "noise/layer1"
        ].shape == (4, 4)
    else:
        flat = whole()
        rest = {name for name in exported if name not in flat}
        assert rest and all(name.endswith(".resample_filter") for name in rest)
        assert_same({name: exported[name] for name in exported.keys() - rest},
                    {name: x for name, x in flat.items() if not name.startswith("G.")})  # fmt: skip
        assert all((again[name] == flat[name]).all() for name in flat if not name.startswith("G_ema."))


@pytest.mark.parametrize("own, other", [(3, 2), (2, 8)])
def test_both_label_mappings_have_the_depth_that_the_file_has(
    tmp_path: Path, capsys, own: int, other: int
) -> None:
    # NVIDIA's 'auto': two layers in the generator's mapping, eight in the discriminator's.
    generator = nvidia_generator(labels=3, layers=own)
    judge = nvidia_discriminator(labels=3, layers=other)
    write_flat(tmp_path / "p.npz", prefixed(G_ema=generator, D=judge))
    state = imported(tmp_path / "p.npz", tmp_path / "prior")
    assert "note: the file's discriminator" not in capsys.readouterr().out
    config = config_of_workdir(tmp_path / "prior", [])
    assert config.model.mapping_layers == own and config.model.discriminator_mapping_layers == other
    assert len(state.params["mapping"]) == own + 1 and len(state.adversary.params["mapping"]) == other + 1
    image = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    assert np.isfinite(logits(config, state.adversary.params, image, np.arange(2))).all()
    assert (
        main(["export", str(tmp_path / "prior"), str(tmp_path / "e.npz"), "--names=stylegan2-ada-pytorch"])
        == 0
    )
    again = read_flat(tmp_path / "e.npz")
    assert_same({name: again[f"D.{name}"] for name in judge}, judge)


def test_a_prior_loads_into_fundusgan_unchanged(tmp_path: Path) -> None:
    channels = {4: 8, 8: 8, 16: 8, 32: 4, 64: 2}
    generator = nvidia_generator(channels, w=8, z=8)
    write_flat(tmp_path / "p.npz", prefixed(G_ema=generator, D=nvidia_discriminator(channels)))
    prior = imported(tmp_path / "p.npz", tmp_path / "prior")
    sizes = {"model__z_dim": 8, "model__mapping_layers": 2, "loss__adv": 0.1}
    config = tiny_config(train__init_from=str(tmp_path / "prior"), **sizes)
    # The arrays that a fresh state has do not matter: zeros of its shapes spare the compilation.
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state_shapes(config))
    state = initialised_from(config, fresh)
    painter = {n: x for n, x in state.variables.params["generator"].items() if not n.startswith("fusion")}
    assert_same(painter, prior.ema["synthesis"])
    assert_same(state.variables.mapping, prior.ema["mapping"])
    assert_same(state.variables.noise, prior.noise)
    assert_same(state.adversary.params, prior.adversary.params)
    np.testing.assert_array_equal(state.variables.w_avg, generator["mapping.w_avg"])
    assert_same(state.ema["generator"], state.variables.params["generator"])

    # Its export has every array under our names, and is no prior.
    run = tmp_path / "run"
    write_manifest(run, config, "photographs")
    checkpoints = open_checkpoints(config, run)
    checkpoints.save(3, state)
    checkpoints.close()
    assert main(["export", str(run), str(tmp_path / "run.npz")]) == 0
    found = read_flat(tmp_path / "run.npz")
    variables = state.variables
    wanted = {**state.ema, **variables._asdict(), "discriminator": state.adversary.params}
    del wanted["params"]
    assert_same(found, flattened(wanted))
    assert {name.split("/")[0] for name in found} >= {"encoder", "generator", "mapping", "noise", "w_avg"}
    with pytest.raises(UserError, match=r"run.npz: not an exported StyleGAN2 prior \(it has .*/...\)"):
        import_prior.read_networks(tmp_path / "run.npz", "fundusgan_jax")
    with pytest.raises(UserError, match="give --names=fundusgan_jax"):
        export.export_weights(run, tmp_path / "x.npz", "latest", "stylegan2-ada-pytorch", "ema")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_fundusgan_travels(tmp_path: Path, capsys, suffix: str) -> None:
    config = tiny_config(loss__adv=0.1, data__dir="/a/path/of/this/machine", encoder__norm="batch")
    # Every array has values of its own; what they are does not matter.
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: rng.standard_normal(x.shape).astype(x.dtype), state_shapes(config))
    write_manifest(tmp_path / "run", config, "photographs")
    checkpoints = open_checkpoints(config, tmp_path / "run")
    checkpoints.save(7, state)
    checkpoints.close()
    file, workdir = tmp_path / f"run{suffix}", tmp_path / "new" / "imported"
    assert main(["export", str(tmp_path / "run"), str(file)]) == 0
    assert main(["import", "--from=fundusgan_jax", str(file), str(workdir)]) == 0
    assert "FundusGAN of 64 px, resnet18, delta 3, w_dim 8; 1 checkpoint of 0." in capsys.readouterr().out
    settings, step, after = restore_state(workdir, "latest")
    assert step == 0 and settings.data.dir == "" and b"path/of/this/machine" not in file.read_bytes()
    assert_same(after.variables, state.variables._replace(params=state.ema))
    assert_same(after.ema, state.ema)
    assert_same(after.adversary.params, state.adversary.params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((after.opt_state, after.adversary.opt_state)))
    fresh = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state_shapes(config))
    another = initialised_from(
        tiny_config(loss__adv=0.1, encoder__norm="batch", train__init_from=str(workdir)), fresh
    )
    assert_same(another.variables.params, state.ema)


def test_a_damaged_export_of_a_fundusgan_is_named(tmp_path: Path, capsys) -> None:
    settings = json.dumps(tiny_config().to_dict())
    write_flat(tmp_path / "less.npz", {"w_avg": np.zeros(8, np.float32)}, {export.SETTINGS: settings})
    write_flat(tmp_path / "torn.npz", {"w_avg": np.zeros(8, np.float32)}, {export.SETTINGS: settings[:-9]})
    for name, reason in (("less", "does not fit its settings"), ("torn", "its settings are damaged")):
        file, workdir = tmp_path / f"{name}.npz", tmp_path / "new" / "run"
        assert reason in refused(capsys, "import", "--from=fundusgan_jax", file, workdir)
        assert not (tmp_path / "new").exists()


def test_a_growing_prior_is_exported_under_our_names_only(tmp_path: Path, capsys) -> None:
    config = tiny_config(task="prior", model__style="adain", data__resolution=16, model__resolution=16, model__z_dim=8,
                         model__mapping_layers=2)  # fmt: skip
    state = jax.device_get(first_prior(config))
    run = tmp_path / "run"
    write_manifest(run, config, "photographs")
    checkpoints = open_checkpoints(config, run)
    checkpoints.save(0, state)
    checkpoints.close()
    assert main(["export", str(run), str(tmp_path / "a.safetensors")]) == 0
    rest = {
        "noise": state.noise,
        "w_avg": state.w_avg,
        "alpha": np.float32(1),
        "discriminator": state.adversary.params,
    }
    assert_same(read_flat(tmp_path / "a.safetensors"), flattened(state.ema | rest))
    said = refused(capsys, "export", run, tmp_path / "b.npz", "--names=stylegan2-ada-pytorch")
    assert "give --names=fundusgan_jax" in said and not (tmp_path / "b.npz").exists()
    assert "no checkpoint '7'" in refused(capsys, "export", run, tmp_path / "b.npz", "--step=7")
    assert "ends in .npz or .safetensors" in refused(capsys, "export", run, tmp_path / "b.pkl")


@pytest.mark.parametrize("where", ["alone", "in a network", "in an archive"])
def test_a_hostile_pickle_is_refused_by_name_and_not_run(
    tmp_path: Path, monkeypatch, capsys, names, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    program = b"cposix\nsystem\n(S'touch HIT'\ntR."
    file = tmp_path / ("a.pt" if where == "in an archive" else "a.pkl")
    if where == "alone":
        file.write_bytes(program)
    elif where == "in an archive":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a/data.pkl", program)
    else:

        class Hostile:
            def __reduce__(self):
                return os.system, ("touch HIT",)

        network = module_of(nvidia_generator())
        network.meta["state"]["_buffers"]["w_avg"] = Hostile()
        with open(file, "wb") as handle:
            torch_writing.Writer(handle, names, nested=True).dump({"G_ema": network})
    naming = "rosinality" if where == "in an archive" else "stylegan2-ada-pytorch"
    said = refused(capsys, "import", f"--from={naming}", file, tmp_path / "prior")
    assert str(file) in said and f"{os.system.__module__}.system" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == [file.name]


def test_folders_files_and_flags_that_are_refused(small: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    good, there = tmp_path / "good.npz", tmp_path / "there"
    write_flat(good, whole())
    there.mkdir()
    (there / "notes.txt").touch()
    assert "not an empty folder" in refused(capsys, *from_nvidia(good, there))
    assert "not an empty folder" in refused(capsys, *from_nvidia(good, there / "notes.txt"))
    assert "--from" in refused(capsys, "import", good, tmp_path / "a")
    assert "stylegan2-ada-pytorch" in refused(capsys, "import", "--from=stylegan3", good, tmp_path / "a")
    for file, content in (
        ("cut.npz", good.read_bytes()[:5000]),
        ("cut.pkl", pickle.dumps({"G_ema": {}}, 2)[:-2]),
        ("none.pkl", pickle.dumps([1, 2], 2)),
        ("empty.pt", b""),
    ):
        (tmp_path / file).write_bytes(content)
        assert file in refused(capsys, *from_nvidia(tmp_path / file, tmp_path / "a"))
    write_flat(tmp_path / "good.safetensors", whole())
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "good.safetensors").read_bytes()[:-8])
    assert "cut.safetensors" in refused(capsys, *from_nvidia(tmp_path / "cut.safetensors", tmp_path / "a"))
    assert "does not exist" in refused(capsys, *from_nvidia(tmp_path / "absent.pkl", tmp_path / "a"))
    # Right names, wrong shapes; another filter; another project's names.
    flat = whole()
    for name, x, part in (
        ("G_ema.synthesis.b8.conv0.bias", np.zeros(3, np.float32), "synthesis/b8_conv0/bias is (3,)"),
        ("G_ema.mapping.fc0.weight", np.zeros((), np.float32), "bad.npz"),
        ("G_ema.synthesis.b8.resample_filter", np.eye(4, dtype=np.float32), "another filter"),
        ("G_ema.more", np.zeros(3, np.float32), "not used: more"),
    ):
        write_flat(tmp_path / "bad.npz", flat | {name: x})
        assert part in refused(capsys, *from_nvidia(tmp_path / "bad.npz", tmp_path / "a"))
    assert "input.input" in refused(capsys, "import", "--from=rosinality", good, tmp_path / "a")
    assert "not an exported" in refused(capsys, "import", "--from=fundusgan_jax", good, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_folder_gets_its_name_when_it_is_whole(tmp_path: Path, monkeypatch) -> None:
    write_flat(tmp_path / "good.npz", whole())
    (tmp_path / "prior").mkdir()  # empty: it may be there

    def interrupted(self, step, state) -> None:
        assert (self.folder.parent / "manifest.json").exists() and step == 0
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", interrupted)
        assert main([str(x) for x in from_nvidia(tmp_path / "good.npz", tmp_path / "prior")]) == 130
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.npz", "prior"]
    assert not any((tmp_path / "prior").iterdir())
    imported(tmp_path / "good.npz", tmp_path / "prior")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.npz", "prior"]


def test_settings_are_found_for_every_channel_rule() -> None:
    for base, most, size in (
        (32768, 512, 1024),
        (16384, 512, 256),
        (1000, 37, 64),
        (64, 512, 16),
        (1 << 20, 8, 32),
    ):
        config = GeneratorConfig(size, channel_base=base, channel_max=most)
        table = tuple((2**k, config.channels_at(2**k)) for k in range(2, size.bit_length()))
        found = GeneratorConfig(size, channels=table)
        again = GeneratorConfig(size, channel_base=channel_rule(found)[0], channel_max=channel_rule(found)[1])
        assert [again.channels_at(side) for side, _ in table] == [count for _, count in table]
    with pytest.raises(UserError, match="4 px: 32, 8 px: 28, 16 px: 32"):
        channel_rule(GeneratorConfig(16, channels=((4, 32), (8, 28), (16, 32))))


def test_a_safetensors_file_follows_its_format(tmp_path: Path) -> None:
    arrays = {
        "b": np.arange(3, dtype=np.float16),
        "a": np.float32([[1, 2]]),
        "s": np.float32(4),
        "n": np.zeros((0, 2)),
    }
    write_flat(tmp_path / "a.safetensors", arrays)
    content = (tmp_path / "a.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    assert length % 8 == 0 and content[8:9] == b"{" and header.pop("__metadata__") == {"format": "np"}
    spans = sorted(entry["data_offsets"] for entry in header.values())
    assert [start for start, _ in spans] == [0, *(end for _, end in spans[:-1])]
    assert len(content) == 8 + length + spans[-1][1]
    assert header["a"] == {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}
    assert_same(read_flat(tmp_path / "a.safetensors"), arrays)
    with pytest.raises(UserError, match="ends in .npz or .safetensors"):
        write_flat(tmp_path / "a.pkl", arrays)
