"""The training programs themselves, for 8 devices, as they reach the backend: what must not be in them is not."""

import jax
import pytest

from benchmarks.compiled import HEADS_TRANSPOSED, findings
from benchmarks.program_facts import program_facts
from fundusgan_jax.training_plan import Planner
from tests.tiny import tiny_config, tiny_prior_config

CONFIGS = {
    "fundusgan": lambda dtype: tiny_config(
        model__dtype=dtype, loss__adv=0.1, loss__lpips=0.8, train__r1_every=2, train__batch_size=16, model__channel_max=32,
        model__channel_base=2048, encoder__fpn_channels=128, encoder__head_channels=128,
        train__remat=dtype == "bfloat16"
    ),
    "prior": lambda dtype: tiny_prior_config(
        model__dtype=dtype, data__resolution=64, model__resolution=64, model__channel_base=4096,
        model__channel_max=64, train__r1_every=2, train__pl_every=2, train__batch_size=32,
        train__remat=dtype == "bfloat16",
    ),
}  # fmt: skip
PHASES = {
    "fundusgan": {"generator", "discriminator", "discriminator with R1"},
    "prior": {
        "G at 64 px",
        "G + path length at 64 px",
        "D at 64 px",
        "D + R1 at 64 px",
    },
}

HEADS = {"fundusgan": HEADS_TRANSPOSED, "prior": 0}


@pytest.mark.parametrize(
    ("task", "dtype", "platform"),
    [
        ("fundusgan", "bfloat16", "cpu"),
        ("fundusgan", "bfloat16", "cuda"),
        ("prior", "bfloat16", "cuda"),
        pytest.param("prior", "bfloat16", "cpu", marks=pytest.mark.slow),
        pytest.param("prior", "float32", "cpu", marks=pytest.mark.slow),
    ],
)
def test_phases_before_the_backend(task, dtype, platform):
    planner = Planner(CONFIGS[task](dtype))
    opened = planner.task(planner.config)
    state = opened.shapes(planner.config.train.num_steps)
    kernels = [leaf.shape for leaf in jax.tree.leaves((state, opened.constants))]
    leaves = len(jax.tree.leaves(state))
    seen = set()
    for name, lowered, _ in planner.lowered(opened, platform):
        facts = program_facts(lowered.as_text(dialect="hlo"), kernels)
        short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
        assert facts.convolutions[short] > 10
        assert not findings(facts, short, HEADS[task]), (name, findings(facts, short))
        assert facts.transposed.total() <= HEADS[task], (name, facts.transposed)
        assert facts.collectives["all-reduce"] > 0 and set(facts.collectives) <= {"all-reduce", "all-gather", "reduce-scatter"}  # fmt: skip
        text = lowered.as_text()
        assert text.count("tf.aliasing_output") + text.count("jax.buffer_donor") >= leaves - 2, name
        seen.add(name)
    assert seen == PHASES[task]
