"""train/transfer.py: weights of one run in another; what does not fit is named."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from fundusgan_jax.errors import UserError
from fundusgan_jax.steps.fundusgan_step import state_shapes
from fundusgan_jax.steps.prior_state import prior_shapes
from fundusgan_jax.train import transfer
from fundusgan_jax.workdir import contents
from fundusgan_jax.workdir.manifest import write_manifest
from tests.support.states import drawn
from tests.support.tiny import tiny_config, tiny_prior_config


def first_state(config):
    return drawn(state_shapes(config), config.seed)


def first_prior(config, side=None):
    return drawn(prior_shapes(config, side), config.seed + 10)


def saved(folder, config, state, metrics=None, steps=(5,)):
    """A workdir with `state` saved under each of `steps`."""
    write_manifest(folder, config, "fingerprint")
    checkpoints = contents.open_checkpoints(config, folder)
    for step in steps:
        checkpoints.save(step, jax.device_get(state), (metrics or {}).get(step))
    checkpoints.close()
    return str(folder)


def shifted(tree, by):
    return jax.tree.map(lambda x: np.asarray(x) + np.asarray(by, np.asarray(x).dtype), tree)


def same(a, b):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, a, b)))


# A prior whose every array differs from what a fresh one would be drawn as.
SIZES = {"data__resolution": 64, "model__resolution": 64}


@pytest.fixture(scope="module")
def prior(tmp_path_factory):
    config = tiny_prior_config(**SIZES)
    state = first_prior(config)
    state = state._replace(
        params=shifted(state.params, 0.25), ema=shifted(state.ema, 0.5), w_avg=shifted(state.w_avg, 1.0),
        noise=shifted(state.noise, 0.125),
        adversary=state.adversary._replace(params=shifted(state.adversary.params, 0.75)),
    )  # fmt: skip
    return saved(tmp_path_factory.mktemp("prior"), config, state), state


def test_fitted_keeps_what_both_share_and_names_the_rest():
    kept, other = np.arange(3.0), np.ones(2)
    smaller = {"b8": {"kernel": kept, "bias": other}, "b4": kept, "mixed": kept}
    larger = {
        "b8": {"kernel": np.zeros(3), "bias": other[:1]},
        "b16": {"kernel": other},
        "mixed": {"x": other},
    }
    merged, new = transfer.fitted(smaller, larger)
    assert sorted(new) == ["b16/kernel", "b8/bias", "mixed/x"]
    assert merged["b8"]["kernel"] is kept and merged["b8"]["bias"] is larger["b8"]["bias"]
    assert set(merged) == set(larger)


def test_a_prior_starts_from_a_prior(prior, capsys):
    folder, source = prior
    config = tiny_prior_config(**SIZES, train__init_from=folder)
    state = transfer.initialised_from(config, first_prior(config))
    for name in ("params", "ema", "noise", "w_avg", "pl_mean"):
        assert same(getattr(state, name), getattr(source, name)), name
    assert same(state.adversary.params, source.adversary.params)
    # What belongs to a run and not to its weights starts anew.
    assert int(state.step) == 0 and same(state.adversary.augment_p, first_prior(config).adversary.augment_p)
    assert same(state.opt_state, first_prior(config).opt_state)
    assert "not there" not in capsys.readouterr().out


def test_a_prior_gives_fundusgan_its_generator_mapping_w_avg_and_discriminator(prior, capsys):
    folder, source = prior
    config = tiny_config(
        train__init_from=folder, loss__adv=0.1, model__z_dim=8, model__mapping_layers=2, model__delta=1
    )
    fresh = first_state(config)
    state = transfer.initialised_from(config, fresh)
    params = state.variables.params
    shared = {name: leaf for name, leaf in params["generator"].items() if not name.startswith("fusion")}
    assert set(shared) == set(source.ema["synthesis"]) and same(shared, source.ema["synthesis"])
    assert same(params["encoder"], fresh.variables.params["encoder"])
    assert same(params["generator"]["fusion1"], fresh.variables.params["generator"]["fusion1"])
    assert same(state.ema, params) and same(state.variables.mapping, source.ema["mapping"])
    assert same(state.variables.w_avg, source.w_avg) and same(state.adversary.params, source.adversary.params)
    # 64 px FundusGAN's base map is 4x4: every stored noise map has the prior's size.
    assert same(state.variables.noise, source.noise)
    assert "not there" not in capsys.readouterr().out


def test_what_does_not_fit_is_named_and_left_as_drawn(prior, capsys):
    folder, source = prior
    config = tiny_config(
        train__init_from=folder, data__resolution=128, model__resolution=128, model__z_dim=8,
        model__mapping_layers=2, model__delta=1, loss__adv=0.1,
    )  # fmt: skip
    fresh = first_state(config)
    state = transfer.initialised_from(config, fresh)
    printed = capsys.readouterr().out
    for name in ("generator/b128_conv0", "discriminator/b128_conv0", "noise/layer1"):
        assert name in printed, name
    assert same(
        state.variables.params["generator"]["b128_conv0"], fresh.variables.params["generator"]["b128_conv0"]
    )
    assert same(state.variables.params["generator"]["b64_conv0"], source.ema["synthesis"]["b64_conv0"])


def test_a_generator_of_other_sizes_is_refused_with_the_sizes_it_needs(prior):
    config = tiny_config(
        train__init_from=prior[0], model__channel_max=4, model__z_dim=8, model__mapping_layers=2
    )
    with pytest.raises(UserError, match=r"--config\.model\.channel_max=8"):
        transfer.initialised_from(config, first_state(config))


def test_the_best_checkpoint_is_taken(tmp_path):
    config = tiny_prior_config()
    state = first_prior(config)
    metrics = {1: {"frechet": 3.0}, 2: {"frechet": 1.0}, 3: {"frechet": 2.0}}
    folder = saved(tmp_path, config, state, metrics, steps=(1, 2, 3))
    _, number, _ = contents.restore_state(tmp_path, "best")
    assert number == 2 and folder
    assert contents.restore_state(tmp_path, "latest")[1] == 3


@pytest.mark.slow
def test_fundusgan_does_not_make_a_prior(tmp_path):
    config = tiny_config()
    folder = saved(tmp_path, config, first_state(config))
    target = tiny_prior_config(train__init_from=folder)
    with pytest.raises(UserError, match="prior starts from a prior"):
        transfer.initialised_from(ConfigDict(target), first_prior(target))
    # But another FundusGAN starts from it, encoder and all. There are no styles to sample: not drawn ones either.
    other = tiny_config(train__init_from=folder, seed=1)
    state = transfer.initialised_from(other, first_state(other))
    assert same(state.variables.params, first_state(config).ema)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(state.variables.mapping))


def test_a_mapping_network_of_other_sizes_is_refused(prior):
    config = tiny_config(train__init_from=prior[0], model__z_dim=8, model__mapping_layers=3)
    with pytest.raises(UserError, match=r"mapping.*--config\.model\.mapping_layers=2"):
        transfer.initialised_from(config, first_state(config))


def test_a_frozen_generator_cannot_have_blocks_that_the_prior_lacks(prior):
    config = tiny_config(
        train__init_from=prior[0], data__resolution=128, model__resolution=128, model__z_dim=8,
        model__mapping_layers=2, train__freeze_generator=True,
    )  # fmt: skip
    with pytest.raises(UserError, match="must be trained"):
        transfer.initialised_from(config, first_state(config))


def test_a_growing_prior_starts_at_the_size_that_its_source_has(tmp_path, capsys):
    sizes = {
        "model__style": "adain", "data__resolution": 32, "model__resolution": 32, "growth__stable_kimg": 0.008,
        "growth__fade_kimg": 0.008,
    }  # fmt: skip
    source = tiny_prior_config(**sizes)
    # Steps 1 at 8 px, 2 and 3 at 16 px, then 32 px.
    folder = saved(tmp_path, source, first_prior(source, 32), steps=(5,))
    early = tiny_prior_config(**sizes, train__init_from=folder)
    with pytest.raises(UserError, match=r"grown to 32 px.*--config\.growth\.start=32"):
        transfer.initialised_from(early, first_prior(early))
    whole = tiny_prior_config(**sizes, train__init_from=folder, seed=1)
    whole.growth.start = 32
    state = transfer.initialised_from(whole, first_prior(whole))
    assert same(state.params, first_prior(source, 32).params)
    assert "not there" not in capsys.readouterr().out
