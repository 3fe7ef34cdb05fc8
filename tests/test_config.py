"""Settings: every configuration is valid, every mistake names the nearest right word."""

import json
import sys
import types
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from fundusgan_jax.config import (
    apply_overrides,
    best_metric,
    default_config,
    differences,
    figures,
    fit_sizes,
    flatten,
    load_config,
    max_delta,
    read_earlier,
    take_sizes,
)
from fundusgan_jax.errors import UserError
from fundusgan_jax.models.plan import generator_plan
from fundusgan_jax.settings import SETTINGS, settings_text
from fundusgan_jax.steps.adversary import r1_gamma
from fundusgan_jax.steps.flops import network_flops
from fundusgan_jax.steps.fundusgan_step import model_config
from fundusgan_jax.validation import validate

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.py") if path.name not in ("__init__.py", "ablation.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_every_configuration_is_valid_and_builds_its_plan(file: Path) -> None:
    config = load_config(str(file), [])
    validate(config, 1)
    assert set(flatten(config)) == set(flatten(load_config(str(CONFIGS / "default.py"), [])))
    if config.task in ("vessels", "classifier"):  # no generator
        return
    plan = generator_plan(model_config(config).generator)
    assert (
        model_config(config).generator.num_ws
        == {64: 10, 128: 12, 256: 14, 512: 16, 1024: 18}[config.model.resolution]
    )
    assert plan


def test_those_that_an_issue_names_are_there() -> None:
    assert {"default", "ddr", "idrid", "drive", "odir", "folder", "demo"} <= {path.stem for path in FILES}


def test_every_setting_has_a_comment_and_a_default_that_it_may_be() -> None:
    for name, setting in SETTINGS.items():
        assert setting.comment and not setting.complaint(setting.default), name
        assert not setting.choices or setting.default in setting.choices, name
    lines = settings_text().splitlines()
    assert len(lines) == len(SETTINGS)
    assert any(line.startswith("  --config.train.batch_size=8 ") for line in lines)


def test_default_py_is_the_table() -> None:
    assert flatten(load_config(str(CONFIGS / "default.py"), [])) == {
        name: setting.default for name, setting in SETTINGS.items()
    }


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("train.batch_size", 0, "at least 1"), ("loss.l2", -1.0, "at least 0"), ("augment.p", 1.5, "at most 1"),
        ("augment.kimg", 0.0, "above 0"), ("optim.encoder_b1", 1.0, "below 1"), ("seed", 2**31, "below 2147483648"),
        ("eval.seed", 2**31, "below 2147483648"), ("seed", 2**31 - 1, ""),
    ],
)  # fmt: skip
def test_a_value_out_of_range_is_complained_of(name: str, value: float, complaint: str) -> None:
    assert complaint in SETTINGS[name].complaint(value)
    assert bool(complaint) == bool(SETTINGS[name].complaint(value))


def config(*overrides: str):
    return load_config(str(CONFIGS / "demo.py"), list(overrides))


def test_overrides_have_their_settings_type() -> None:
    made = config(
        "--config.train.batch_size=16", "--config.loss.l2", "2", "--config.data.flip=false", "--config.seed=1_000",
        "--config.optim.encoder_lr=3e-4", "--config.data.dir=a=b",
    )  # fmt: skip
    assert (made.train.batch_size, made.loss.l2, made.data.flip, made.seed) == (16, 2.0, False, 1000)
    assert made.optim.encoder_lr == 3e-4 and made.data.dir == "a=b"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("--config.train.batchsize=8", "did you mean --config.train.batch_size"),
        ("--config.batch_size=8", "did you mean --config.(train|eval).batch_size"),
        ("--config.nothing.like.it=8", "--help lists them all"),
        ("--config.train.batch_size=many", "is not a whole number"),
        ("--config.train.batch_size=1.5", "is not a whole number"),
        ("--config.loss.l2=nan", "is not a number"),
        ("--config.data.flip=perhaps", "is not true or false"),
        ("--config.train.batch_size", "has no value"),
        ("--config.train=8", "unknown setting"),
    ],
)
def test_an_override_that_does_not_fit_is_refused(override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("encoder.backbone=resnet05", "did you mean resnet50"),
        ("data.resolution=100", "data.resolution=100 must be a power of two from 64 to 1024"),
        ("data.resolution=32", "from 64"),
        ("model.resolution=32", "from data.resolution"),
        ("model.base_size=8", "must be data.resolution / 16 = 4"),
        ("model.delta=6", r"must lie in 0\.\.4 at 64 px .*: --config\.model\.delta=4$"),
        ("model.delta=5", r"delta=4; a workdir with 5 has its skip fusions one block earlier .* commit"),
        ("train.batch_size=12", "choose a multiple of 8"),
        ("train.batch_size=0", "must be at least 1"),
        ("loss.reg=-1", "must be at least 0"),
        ("optim.generator_b1=1", "must be below 1"),
        ("loss.l2=0", "leave nothing to reconstruct by"),
        ("encoder.weights=r50.npz", "not group"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(override: str, message: str) -> None:
    made = config(f"--config.{override}")
    with pytest.raises(UserError, match=message) as refused:
        validate(made, 8)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("model.latent_width=20", "multiple of 8, for its normalisation: (16|24)$"),
        ("model.latent_stride=3", "power of two"),
        ("flow.patch=3", "power of two"),
        ("encoder.weights=r50.npz", "there is none; leave them out"),
    ],
)
def test_an_autoencoder_of_sizes_that_do_not_fit_is_refused(override: str, message: str) -> None:
    made = load_config("latent_autoencoder", ["--config.encoder.norm=batch", f"--config.{override}"])
    with pytest.raises(UserError, match=message):
        validate(made, 1)


@pytest.mark.parametrize(("task", "devices", "changes", "message"), [
    ("prior", 1, "accumulate=4 batch_size=8", "choose one of 1, 2"),
    ("prior", 8, "accumulate=3 batch_size=16", "choose one of 1, 2"),
    ("prior", 2, "accumulate=4 batch_size=16", ""),
    ("fundusgan", 2, "accumulate=8 batch_size=16", ""),
    ("fundusgan", 2, "accumulate=3 batch_size=16", "choose one of 1, 2, 4, 8"),
    ("fundusgan", 1, "steps_per_call=10", "train.log_every=48 is not a multiple of .*log_every=50"),
    ("fundusgan", 1, "steps_per_call=8", ""),
])  # fmt: skip
def test_parts_of_a_batch_and_steps_of_a_call(task, devices, changes, message) -> None:
    config = load_config(str(CONFIGS / ("stylegan2.py" if task == "prior" else "default.py")), [])
    apply_overrides(config, [f"--config.train.{change}" for change in changes.split()])
    if not message:
        validate(config, devices)
        return
    with pytest.raises(UserError, match=message):
        validate(config, devices)


@pytest.mark.parametrize("side, base, rate", [(64, 16384, 25e-4), (256, 16384, 25e-4), (512, 32768, 25e-4), (1024, 32768, 2e-3)])  # fmt: skip
def test_auto_follows_side_and_batch_as_in_stylegan2_ada_pytorch(side: int, base: int, rate: float) -> None:
    sizes = [f"--config.data.resolution={side}", f"--config.model.resolution={side}"]
    made = load_config(str(CONFIGS / "stylegan2.py"), [*sizes, "--config.train.batch_size=16"])
    validate(made, 1)
    # train.py there: fmaps, map, lrate, gamma, ema = mb * 10 / 32, ramp.
    assert (made.model.channel_base, made.model.mapping_layers) == (base, 2)
    assert made.optim.generator_lr == made.optim.discriminator_lr == pytest.approx(rate)
    assert r1_gamma(made) == pytest.approx(0.0002 * side**2 / 16)
    assert (made.train.ema_halflife_kimg, made.train.ema_rampup) == (5.0, 0.05)
    assert made.model.discriminator_mapping_layers == 8
    # What is set stays, and what a workdir keeps are numbers.
    own = load_config(str(CONFIGS / "stylegan2.py"), [*sizes, "--config.model.channel_base=64"])
    assert own.model.channel_base == own.to_dict()["model"]["channel_base"] == 64
    assert json.loads(json.dumps(made.to_dict())) == made.to_dict()


def test_a_configuration_by_name(tmp_path: Path) -> None:
    made = load_config(f"{CONFIGS / 'stylegan2.py'}:stylegan2", ["--config.data.resolution=256"])
    assert (made.model.channel_base, made.model.mapping_layers) == (32768, 8)
    assert (made.optim.generator_lr, r1_gamma(made)) == (2e-3, 10.0)
    assert (made.train.ema_halflife_kimg, made.train.ema_rampup) == (10.0, 0.0)
    fine_tuned = load_config(f"{CONFIGS / 'transfer.py'}:stylegan2", [])
    assert fine_tuned.model.mapping_layers == 8 and fine_tuned.optim.generator_lr == 1e-4
    with pytest.raises(UserError, match=r"'stylegan3' is not one of auto, stylegan2"):
        load_config(f"{CONFIGS / 'stylegan2.py'}:stylegan3", [])
    with pytest.raises(UserError, match=r"demo\.py cannot be used .*takes 0 positional arguments"):
        load_config(f"{CONFIGS / 'demo.py'}:auto", [])
    with pytest.raises(UserError, match=r"did you mean .*configs/stylegan2\.py"):
        load_config(f"{CONFIGS / 'stylegan22.py'}:auto", [])
    (tmp_path / "a:b.py").write_text((CONFIGS / "demo.py").read_text())
    assert load_config(str(tmp_path / "a:b.py"), []).model.delta == 4


def test_auto_halves_the_work_at_256() -> None:
    sizes = ["--config.data.resolution=256", "--config.model.resolution=256"]
    flops = [
        network_flops(load_config(f"{CONFIGS / 'stylegan2.py'}:{name}", sizes), 256)
        for name in ("auto", "stylegan2")
    ]
    assert sum(flops[0][:2]) < 0.55 * sum(flops[1][:2])


def test_files_that_are_not_configurations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"did you mean .*configs/ddr\.py"):
        load_config(str(CONFIGS / "ddrr.py"), [])
    (tmp_path / "broken.py").write_text("def get_config(:")
    with pytest.raises(UserError, match="cannot be used as a configuration: SyntaxError"):
        load_config(str(tmp_path / "broken.py"), [])
    (tmp_path / "other.py").write_text("def get_config():\n    return {}\n")
    with pytest.raises(UserError, match="must return an ml_collections.ConfigDict"):
        load_config(str(tmp_path / "other.py"), [])


def test_one_of_ours_is_named_where_no_such_file_is(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    demo = load_config(str(CONFIGS / "demo.py"), []).to_dict()
    for name in ("demo", "configs/demo.py", "demo.py"):
        assert load_config(name, []).to_dict() == demo
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "demo.py").write_text(
        "from configs import default\n\ndef get_config():\n    config = default.get_config()\n"
        "    config.seed = 7\n    return config\n"
    )
    assert load_config("configs/demo.py", []).seed == 7  # the user's own, with our default.py
    assert load_config("demo", []).seed == 0
    with pytest.raises(UserError, match=r"--config=dmeo: no such file; did you mean demo\?"):
        load_config("dmeo", [])
    with pytest.raises(UserError, match="--config=elsewhere/demo.py: no such file"):
        load_config("elsewhere/demo.py", [])


def test_a_word_behind_a_colon_is_get_configs_argument(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from configs import default\n\ndef get_config(side='64'):\n    config = default.get_config()\n"
        "    config.data.resolution = int(side)\n    return config\n"
    )
    assert load_config(str(file), []).data.resolution == 64
    assert load_config(f"{file}:128", []).data.resolution == 128


def test_another_package_of_the_name_configs_is_left_alone(tmp_path: Path, monkeypatch) -> None:
    foreign = types.ModuleType("configs")
    monkeypatch.setitem(sys.modules, "configs", foreign)
    before = {name: module for name, module in sys.modules.items() if name.startswith("configs")}
    assert load_config("demo", []).data.dataset == "phantom"
    assert {name: module for name, module in sys.modules.items() if name.startswith("configs")} == before


def test_differences_leave_out_what_changes_no_number() -> None:
    base = config("--config.optim.decay=constant").to_dict()
    free = config("--config.optim.decay=constant", "--config.train.num_steps=9", "--config.train.log_every=1")
    assert differences(base, free.to_dict()) == {}
    other = config("--config.optim.decay=constant", "--config.loss.l2=3")
    assert differences(base, other.to_dict()) == {"loss.l2": (1.0, 3.0)}
    # A cosine that ends at num_steps makes every step depend on it.
    assert "train.num_steps" in differences(
        config().to_dict(), config("--config.train.num_steps=9").to_dict()
    )


@pytest.mark.parametrize(("resolution", "most"), [(64, 4), (128, 5), (256, 6), (512, 7), (1024, 7)])
def test_max_delta(resolution: int, most: int) -> None:
    assert max_delta(resolution) == most


def test_apply_overrides_changes_what_it_is_given() -> None:
    made = config()
    apply_overrides(made, ["--config.seed=5"])
    assert made.seed == 5


@pytest.mark.parametrize("name", ["default", "stylegan2", "transfer", "stylegan1"])
def test_logged_steps_are_steps_with_every_term(name):
    config = load_config(str(CONFIGS / f"{name}.py"), [])
    assert config.train.log_every % config.train.r1_every == 0
    assert config.train.log_every % config.train.pl_every == 0


def test_settings_of_an_earlier_version_get_their_defaults():
    config = default_config()
    old = ConfigDict(config.to_dict())
    del old.task, old.augment, old.loss.adv
    assert differences(old.to_dict(), config.to_dict()) == {}
    read_earlier(old)
    assert old.to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("file", "changes", "metric"),
    [
        ("default", "", "lpips"), ("default", "loss.perceptual_net=squeezenet", "perceptual"),
        ("default", "loss.lpips=0", "ssim_fov"), ("stylegan2", "", "frechet"),
        ("stylegan2", "eval.features=inception", "fid"), ("stylegan2", "eval.features=none", ""),
        ("default", "train.best_metric=ms_ssim", "ms_ssim"),
        ("default", "train.best_metric=kid eval.features=inception", "kid"),
    ],
)  # fmt: skip
def test_auto_is_a_figure_that_the_run_has(file: str, changes: str, metric: str) -> None:
    config = load_config(str(CONFIGS / f"{file}.py"), [f"--config.{change}" for change in changes.split()])
    validate(config, 1)
    assert best_metric(config) == metric


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("demo", "best_metric=lpips", "which has ssim, psnr, ssim_fov, psnr_fov; .*best_metric=auto"),
        ("default", "best_metric=fid", "has ssim, psnr, ms_ssim, lpips, .*features=pixels adds"),
        ("stylegan2", "best_metric=ssim", "has frechet, kernel; "),
    ],
)  # fmt: skip
def test_a_figure_that_the_run_has_not_is_refused_with_those_it_has(file, changes, message) -> None:
    config = load_config(str(CONFIGS / f"{file}.py"), [f"--config.train.{changes}"])
    with pytest.raises(UserError, match=message):
        validate(config, 1)


@pytest.mark.parametrize(
    ("file", "changes", "old", "metric"),
    [
        ("demo", "", "lpips", "ssim_fov"), ("default", "", "lpips", "lpips"), ("stylegan2", "", "lpips", "frechet"),
        ("default", "loss.perceptual_net=squeezenet", "lpips", "perceptual"),
        ("default", "eval.features=inception", "kernel", "kid"), ("stylegan2", "eval.features=inception", "lpips", "fid"),
    ],
)  # fmt: skip
def test_an_earlier_workdirs_metric_means_what_it_meant(file, changes, old, metric) -> None:
    config = load_config(str(CONFIGS / f"{file}.py"), [f"--config.{change}" for change in changes.split()])
    config.train.best_metric = old
    read_earlier(config)
    validate(config, 1)
    assert best_metric(config) == metric and metric in figures(config)


def test_what_ranks_checkpoints_may_not_change_within_a_workdir() -> None:
    base = config().to_dict()
    for change in ("eval.num=3", "eval.use_ema=false"):
        assert set(differences(base, config(f"--config.{change}").to_dict())) == {change.split("=")[0]}


def test_sizes_follow_the_photographs_with_a_note() -> None:
    sizes = config("--config.model.resolution=0", "--config.model.delta=7", "--config.model.base_size=8")
    notes = fit_sizes(sizes)
    assert (sizes.model.resolution, sizes.model.delta, sizes.model.base_size) == (64, 4, 4)
    assert len(notes) == 2 and all("does not fit data.resolution=64" in note for note in notes)
    validate(sizes, 1)
    assert fit_sizes(sizes) == []
    for side in (64, 256):
        latent = load_config(str(CONFIGS / "latent_autoencoder.py"), [f"--config.data.resolution={side}"])
        fit_sizes(latent)
        assert latent.model.resolution == side
        validate(latent, 1)


def test_a_run_takes_the_sizes_of_the_prior_that_it_starts_from() -> None:
    prior = load_config(str(CONFIGS / "stylegan2.py"), ["--config.model.w_dim=32", "--config.model.z_dim=16"])
    ours = config("--config.model.z_dim=8")
    notes = take_sizes(ours, prior, ["--config.model.z_dim=8"])
    assert (ours.model.w_dim, ours.model.z_dim, ours.model.channel_base) == (32, 8, prior.model.channel_base)
    assert ours.data.resolution == 64  # FundusGAN's own
    assert any(note.startswith("model.w_dim=32, as what it starts from has it") for note in notes)
    other = load_config(str(CONFIGS / "transfer.py"), [])
    prior.data.resolution = prior.model.resolution = 256
    take_sizes(other, prior, [])
    assert other.data.resolution == other.model.resolution == 256
