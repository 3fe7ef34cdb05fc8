"""benchmarks/compiled.py: what a program must not have is found where it is, and the command prints a table."""

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from benchmarks.compiled import _findings_of_gpu, _without_cheap, findings, main
from benchmarks.harness.program_facts import estimated_operations, moved_by_layer, program_facts

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
        (jnp.sin, ["no convolution found"]),
        (
            lambda x: jnp.sin(x).transpose(0, 3, 1, 2) + 1,
            ["no convolution found", "transposed 1 times: f32[2,64,64,16]"],
        ),
        (lambda x: convolved(printed(x).astype(jnp.bfloat16)), ["speaks to the host"]),
    ],
)
def test_each_thing_is_found(function, told):
    found = findings(program_facts(jax.jit(function).lower(MAP).as_text(dialect="hlo")), "bf16")
    assert len(found) == len(told) and all(line in seen for line, seen in zip(told, found)), found


# As XLA:GPU prints what it made of convolutions: calls of cuDNN, whose results are tuples, and a fusion.
CUDNN = """HloModule jit_run, is_scheduled=true

%fused (param_0.3: bf16[8,64,64,128], param_1.3: bf16[128,3,3,128]) -> bf16[8,64,64,128] {
  %param_0.3 = bf16[8,64,64,128]{3,2,1,0} parameter(0)
  %param_1.3 = bf16[128,3,3,128]{3,2,1,0} parameter(1)
  ROOT %conv.9 = bf16[8,64,64,128]{3,2,1,0} convolution(%param_0.3, %param_1.3), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, convolution_kind=fprop
}

ENTRY %main (x: bf16[8,64,64,128], kernel: bf16[128,3,3,128], wide: f32[8,64,64,128], bias: f32[128]) -> bf16[8,64,64,128] {
  %x = bf16[8,64,64,128]{3,2,1,0} parameter(0)
  %kernel = bf16[128,3,3,128]{3,2,1,0} parameter(1)
  %wide = f32[8,64,64,128]{3,2,1,0} parameter(2)
  %bias = f32[128]{0} parameter(3)
  %gemm = (bf16[512,512]{1,0}, s8[4194304]{0}) custom-call(%x, %kernel), custom_call_target="__cublas$gemm"
  %reordered = bf16[128,3,3,128]{3,2,1,0} custom-call(%kernel), custom_call_target="__cudnn$convReorderFilter"
"""
CALL = (
    '  %cudnn-conv.1 = (bf16[8,64,64,128]{3,2,1,0}, u8[0]{0}) custom-call(%x, %kernel), window={size=3x3 pad=1_1x1_1}, '
    'dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward", metadata={op_name="jit(run)/conv (1)"}, '
    'backend_config={"operation_queue_id":"0","cudnn_conv_backend_config":{"activation_mode":"kNone","algorithm":{"algo_id":"28"}}}\n'
)  # fmt: skip
FUSION = (
    "  ROOT %fusion.7 = bf16[8,64,64,128]{3,2,1,0} fusion(%x, %kernel), kind=kCustom, calls=%fused, "
    'backend_config={"fusion_backend_config":{"kind":"__cudnn$fusion","cudnn_fusion_config":{"plan_id":"0"}}}\n}\n'
)


@pytest.mark.parametrize(
    "was, now, told",
    [
        ("", "", []),
        ("__cudnn$convForward", "__cudnn$convBackwardInput", []),
        ("__cudnn$convForward", "__cudnn$convBackwardFilter", []),
        ("(%x, %kernel)", "(%x, %kernel, %bias)", []),
        ("(%x,", "(%wide,", ["1 convolutions of f32 where bf16 is set"]),
        (
            "b01f, custom",
            "b01f, feature_group_count=8, custom",
            ["convolution with a kernel per group: cudnn-conv.1 bf16[8,64,64,128]"],
        ),
        (
            "b01f, custom",
            "b01f, batch_group_count=8, custom",
            ["convolution with a kernel per group: cudnn-conv.1 bf16[8,64,64,128]"],
        ),
    ],
)
def test_what_a_gpu_makes_of_convolutions(was, now, told):
    call = CALL.replace(was, now, 1)
    facts = program_facts(CUDNN + call + FUSION)
    assert facts.convolutions.total() == 2 and findings(facts, "bf16") == told


def test_what_a_gpus_program_moves():
    map_bytes, kernel = 2 * 8 * 64 * 64 * 128, 2 * 128 * 9 * 128
    # A product's and a reordering's operands and results, those of the convolution, and of the fusion, the root.
    product, reordered = 2 * 512 * 512 + map_bytes + kernel, 2 * kernel
    assert program_facts(CUDNN + CALL + FUSION).moved == product + reordered + 2 * (2 * map_bytes + kernel)


def test_what_each_layer_moves():
    product = '%gemm = (bf16[512,512]{1,0}, s8[4194304]{0}) custom-call(%x, %kernel), custom_call_target="__cublas$gemm"'
    assert product in CUDNN
    named = CUDNN.replace(
        product, product + ', metadata={op_name="jit(run)/transpose(jvp(Net))/conv/cond/dot"}'
    )
    copied = (
        '  %copied = bf16[8,64,64,128]{3,2,1,0} copy(%x), metadata={op_name="jit(run)/jvp(Net)/conv/add"}\n'
    )
    map_bytes, kernel = 2 * 8 * 64 * 64 * 128, 2 * 128 * 9 * 128
    assert moved_by_layer(named + copied + FUSION) == {
        "Net/conv backward": (2 * 512 * 512 + map_bytes + kernel, 0), "Net/conv": (0, 2 * map_bytes)}  # fmt: skip


def test_a_small_transpose_is_cheap_on_a_card():
    facts = program_facts(CUDNN + CALL + FUSION)
    facts.transposed.update({"bf16[128,3,8,576]": 1, "bf16[8,256,256,128]": 1})
    assert findings(_without_cheap(facts), "bf16") == ["transposed 1 times: bf16[8,256,256,128]"]
    # 128 MiB: a finding beside 100 GB, none beside a terabyte.
    assert findings(_without_cheap(facts._replace(moved=10**11)), "bf16") == findings(
        _without_cheap(facts), "bf16"
    )
    assert findings(_without_cheap(facts._replace(moved=10**12)), "bf16") == []


def test_a_fusion_of_cudnn_and_a_call_with_its_activation_count():
    fused = CALL.replace("__cudnn$convForward", "__cudnn$convBiasActivationForward").replace("%x,", "%wide,")
    assert program_facts(CUDNN + FUSION).convolutions == {"bf16": 1}
    assert program_facts(CUDNN + fused + FUSION).convolutions == {"bf16": 1, "f32": 1}
    # What is beside them, and what they come from, is none.
    entry = CUDNN.partition("\nENTRY")
    assert findings(program_facts("HloModule a\n" + entry[1] + entry[2]), "bf16") == [
        "no convolution found, so nothing is said of their dtype"
    ]


def test_maps_laid_out_by_heads_are_meant_to_be():
    facts = program_facts(CUDNN + CALL + FUSION)
    facts.transposed.update({"bf16[8,32,32,4,64]": 3, "bf16[8,64,64,128]": 1})
    assert findings(facts, "bf16", 3) == ["transposed 1 times: bf16[8,64,64,128]"]
    assert len(findings(facts, "bf16", 2)) == len(findings(facts, "bf16")) == 2


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


# What XLA:GPU leaves of a guarded update, of a lookup's gradient and of a dilated kernel's gradient.
SLOW = """
  %wide = (bf16[512,32,32,512]{3,2,1,0}, u8[0]{0}) custom-call(%x, %kernel), window={size=32x32 stride=8x8}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %to_kernel = (bf16[128,3,3,128]{3,2,1,0}, u8[0]{0}) custom-call(%x, %kernel), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convBackwardFilter"
  %branch = (f32[8,64,64,128]{3,2,1,0}) conditional(%which, %a, %b), branch_computations={%one, %other}
  %sum = f32[8,64,64,128]{3,2,1,0} scatter(%wide, %places, %values), to_apply=%add
  %copy.5 = f32[8,64,64,128]{3,2,1,0} copy(%wide)
}
"""


def test_what_a_gpu_is_slow_at_is_found():
    facts = program_facts(CUDNN + SLOW)
    assert facts.kinds == {"forward bf16": 2, "to kernel bf16": 1}
    assert (len(facts.windows), facts.conditionals, facts.copies) == (1, ["branch"], 1)
    slow = _findings_of_gpu(facts)
    assert [line.split(":")[0] for line in slow] == [
        "convolution with a wide window", "a branch that the host decides", "scattered 1 times"]  # fmt: skip
    assert slow[2].endswith("f32[8,64,64,128]") and len(_findings_of_gpu(facts, 1)) == 2
    assert not _findings_of_gpu(program_facts(CUDNN + CALL + FUSION))


def test_a_card_takes_a_number(capsys):
    assert main(["--topology=h100:none"]) == 2
    assert "say how many cards there are, as h100:1" in capsys.readouterr().err


@pytest.mark.slow
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
        ("--config.seed", "--config.seed has no value; "),
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


@pytest.mark.slow
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
    assert main(["--config=configs/stylegan2.py", *words, "--phases=D at"]) == 1
    assert "D at 16 px: does not fit the device: on HBM, 17G exceed 15.75G" in capsys.readouterr().out
