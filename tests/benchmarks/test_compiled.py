"""benchmarks/compiled.py: what a program must not have is found where it is, and the command prints a table."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks.compiled import findings, main
from benchmarks.program_facts import estimated_operations, program_facts

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


def test_images_of_three_channels_are_no_maps():
    image = jax.ShapeDtypeStruct((2, 256, 256, 3), jnp.float32)
    kernel = jnp.ones((3, 3, 3, 3))

    def seen(x):
        y = lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.sin(y).transpose(0, 3, 1, 2) + 1

    facts = program_facts(jax.jit(seen).lower(image).as_text(dialect="hlo"))
    assert not facts.convolutions and not facts.transposed


def test_the_command(capsys):
    small = ["data.resolution=64", "model.resolution=64", "model.channel_max=8", "encoder.backbone=resnet18",
             "encoder.norm=group", "encoder.fpn_channels=8", "encoder.head_channels=4", "loss.lpips=0.0"]  # fmt: skip
    assert main([*(f"--config.{setting}" for setting in small), "--lower_only", "--platform=cuda"]) == 0
    text = capsys.readouterr().out
    assert (
        " x cuda, batch 8" in text and "| generator |" in text and "none of what should not be there" in text
    )
    assert main(["--topology=v99:2x4"]) == 2
    assert capsys.readouterr().err.startswith("error: --topology=v99:2x4 is skipped: ")


def test_mistakes_are_one_line(capsys):
    for word, told in (
        ("--foo", "unknown argument --foo; "),
        ("--config.seed", "unknown argument --config.seed; "),
        ("--platform=cuda", "--platform needs --lower_only"),
        ("--platform=rocket", "argument --platform: invalid choice"),
    ):
        assert main([word]) == 2
        assert capsys.readouterr().err.startswith(f"error: {told}")


PROGRAM = """HloModule jit_run

%inside (a: f32[8]) -> f32[8] {
  ROOT %b = f32[8]{0} add(%a, %a), backend_config={"estimated_cycles":"900"}
}

ENTRY %main (x: bf16[8,64,64,3]) -> bf16[8,64,64,3] {
  %copy.1 = bf16[8,64,64,3]{3,0,2,1:T(8,128)(2,1)} copy(%x), metadata={op_name="jit(run)/conv1/add"}, backend_config={"estimated_cycles":"70"}
  %free = bf16[8,64,64,3]{3,0,2,1} bitcast(%copy.1)
  ROOT %fusion.2 = (f32[8]{0}, f32[4]{0}) fusion(%free), calls=%inside, backend_config={"window_config":{},"estimated_cycles":"5"}
}
"""


def test_the_cycles_of_a_program_are_those_of_its_entry():
    found = estimated_operations(PROGRAM)
    assert [(item.cycles, item.name, item.shape, item.origin) for item in found] == [
        (70, "copy.1", "bf16[8,64,64,3]", "jit(run)/conv1/add"), (5, "fusion.2", "f32[8]", "")]  # fmt: skip
    assert estimated_operations(jax.jit(jnp.sin).lower(MAP).compile().as_text()) == []


def test_a_program_that_does_not_fit_is_a_finding(monkeypatch, capsys):
    def exhausted(lowered):
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, 17G exceed 15.75G.\nSee ..."
        )

    monkeypatch.setattr(jax.stages.Lowered, "compile", exhausted)
    small = [
        "data.resolution=16",
        "model.resolution=16",
        "model.channel_max=8",
        "model.w_dim=8",
        "model.z_dim=8",
    ]
    words = [f"--config.{setting}" for setting in small]
    assert main(["--config=configs/stylegan2.py", *words, "--phases=D at"]) == 0
    assert "D at 16 px does not fit the device: on HBM, 17G exceed 15.75G" in capsys.readouterr().out
