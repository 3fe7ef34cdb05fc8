"""phase_programs.py: the distinct phases of the steps ahead, and programs compiled from shapes that run on arrays."""

import jax
import numpy as np

from fundusgan_jax.phase_programs import compile_phases, distinct_steps, steps_ahead
from fundusgan_jax.task import Phase
from fundusgan_jax.training_plan import Planner
from tests.tiny import tiny_prior_config


def names(task, start, total):
    return [
        [phase.name for phase in phases] for phases in distinct_steps(task, steps_ahead(task, start, total))
    ]


def test_only_what_will_run_is_compiled():
    config = tiny_prior_config(train__r1_every=4, train__pl_every=2, train__num_steps=100)
    task = Planner(config).task(config)
    plain, lazy = ["G at 16 px", "D at 16 px"], ["G + path length at 16 px", "D at 16 px"]
    assert names(task, 0, 3) == [plain, lazy]
    assert names(task, 0, 100) == [plain, lazy, ["G + path length at 16 px", "D + R1 at 16 px"]]
    assert names(task, 3, 4) == [["G + path length at 16 px", "D + R1 at 16 px"]]
    growing = tiny_prior_config(
        model__style="adain", growth__fade_kimg=0.016, growth__stable_kimg=0.016, train__num_steps=100
    )
    assert {name for step in names(Planner(growing).task(growing), 0, 100) for name in step} == {
        "G at 8 px", "D at 8 px"}  # fmt: skip


def test_programs_compiled_from_shapes_run_and_hand_rows_on():
    parallel = Planner(tiny_prior_config()).parallel

    def first(state, given, constants):
        batch, _ = given
        return state + 1, {"sum": jax.lax.psum(batch.sum(), parallel.axis_name)}, batch * constants

    def second(state, given, constants):
        batch, carry = given
        return state + 1, {"carried": jax.lax.psum(carry.sum(), parallel.axis_name)}, ()

    steps = [(Phase("first", first), Phase("second", second))]
    float32 = np.float32
    shapes = (
        jax.ShapeDtypeStruct((), float32),
        jax.ShapeDtypeStruct((16,), float32),
        jax.ShapeDtypeStruct((), float32),
    )
    programs = compile_phases(parallel, steps, *shapes)
    assert list(programs) == ["first", "second"]
    state, constants = parallel.replicate(float32(0)), parallel.replicate(float32(3))
    batch = parallel.split(np.arange(16, dtype=float32))
    state, metrics, carry = programs["first"](state, (batch, ()), constants)
    state, more, _ = programs["second"](state, (batch, carry), constants)
    assert (float(state), float(metrics["sum"]), float(more["carried"])) == (2, 120, 360)
