"""benchmarks/compiled.py: what a program must not have is found where it is, and the command prints a table."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks.compiled import findings, main
from benchmarks.program_facts import program_facts

MAP = jax.ShapeDtypeStruct((2, 64, 64, 16), jnp.float32)


def convolved(x, groups=1):
    kernel = jnp.ones((3, 3, 16 // groups, 16), x.dtype)
    return lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", feature_group_count=groups, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def printed(x):
    jax.debug.callback(lambda y: None, x[0, 0, 0, 0])
    return x


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda x: convolved(x.astype(jnp.bfloat16)), []),
        (convolved, ["1 convolutions of f32 where bf16 is set"]),
        (lambda x: convolved(x.astype(jnp.bfloat16), 4), ["convolution with a kernel per group"]),
        (lambda x: jnp.sin(x).transpose(0, 3, 1, 2) + 1, ["transposed 1 times: f32[2,64,64,16]"]),
        (printed, ["speaks to the host"]),
    ],
)
def test_each_thing_is_found(function, told):
    found = findings(program_facts(jax.jit(function).lower(MAP).as_text(dialect="hlo")), "bf16")
    assert len(found) == len(told) and all(line in seen for line, seen in zip(told, found)), found


def test_a_parameter_rearranged_is_no_map():
    program = jax.jit(lambda x: jnp.sin(x).transpose(0, 3, 1, 2)).lower(MAP).as_text(dialect="hlo")
    assert program_facts(program).transposed and not program_facts(program, [(64, 2, 16, 64)]).transposed


def test_the_command(capsys):
    small = ["data.resolution=64", "model.resolution=64", "model.channel_max=8", "encoder.backbone=resnet18",
             "encoder.norm=group", "encoder.fpn_channels=8", "encoder.head_channels=4", "loss.lpips=0.0"]  # fmt: skip
    assert main([*(f"--config.{setting}" for setting in small), "--lower_only"]) == 0
    text = capsys.readouterr().out
    assert "| generator |" in text and "none of what should not be there" in text
    assert main(["--topology=v99:2x4"]) == 2
    assert capsys.readouterr().err.startswith("error: --topology=v99:2x4 is skipped: ")
