"""models/plan.py: the table of architecture.md, line by line."""

import pytest

from fundusgan_jax.models.plan import GeneratorConfig, generator_plan


def layers(**sizes):
    return [layer for block in generator_plan(GeneratorConfig(**sizes)) for layer in block.layers]


def test_stylegan2_upsamples_in_every_block_but_the_first():
    found = layers(resolution=1024, base_size=4)
    assert [layer.size for layer in found] == [4] + [s for r in range(3, 11) for s in (2**r, 2**r)]
    assert all(layer.dilation == 1 for layer in found)
    assert [layer.number for layer in found if layer.kind == "up"] == list(range(2, 18, 2))


def test_fundusgan_at_512_dilates_and_first_upsamples_at_layer_8():
    found = layers(resolution=1024, base_size=32)
    assert [layer.dilation for layer in found] == [8, 4, 4, 2, 2] + [1] * 12
    assert [layer.kind for layer in found[:8]] == [
        "plain",
        "blur",
        "plain",
        "blur",
        "plain",
        "blur",
        "plain",
        "up",
    ]
    assert [layer.size for layer in found[:9]] == [32] * 7 + [64, 64]


@pytest.mark.parametrize(("base", "dilation", "first_up"), [(8, 2, 4), (16, 4, 6), (64, 16, 10)])
def test_other_input_sizes(base, dilation, first_up):
    found = layers(resolution=1024, base_size=base)
    assert found[0].dilation == dilation
    assert next(layer.number for layer in found if layer.kind == "up") == first_up


def test_fusions_stand_where_styleganex_has_them():
    # Architecture: at 512 px seven maps of 32 (four), 64, 128, 256 px, each after the first layer and its ToRGB.
    fused = [b for b in generator_plan(GeneratorConfig(resolution=512, base_size=32, delta=7)) if b.fused]
    assert [block.in_size for block in fused] == [32, 32, 32, 32, 64, 128, 256]
    assert [block.native for block in fused] == [8, 16, 32, 64, 128, 256, 512]
    with pytest.raises(ValueError, match=r"0\.\.3"):
        GeneratorConfig(resolution=32, delta=4)


def test_first_dilation_changes_the_first_layer_alone():
    found = layers(resolution=512, base_size=32, first_dilation=12)
    assert [layer.dilation for layer in found[:4]] == [12, 4, 4, 2]


@pytest.mark.parametrize(("resolution", "vectors"), [(1024, 18), (512, 16), (64, 10)])
def test_style_vectors(resolution, vectors):
    config = GeneratorConfig(resolution=resolution)
    plan = generator_plan(config)
    assert config.num_ws == vectors
    assert plan[-1].rgb_w_index == vectors - 1
    # A block's ToRGB shares the vector of the next block's first layer.
    assert all(block.rgb_w_index == after.layers[0].w_index for block, after in zip(plan, plan[1:]))


def test_channels_follow_base_and_maximum():
    config = GeneratorConfig(resolution=1024)
    assert [config.channels_at(r) for r in (4, 64, 128, 1024)] == [512, 512, 256, 32]


@pytest.mark.parametrize(
    "sizes", [{"resolution": 48}, {"resolution": 64, "base_size": 128}, {"delta": 8}, {"delta": -1}]
)
def test_sizes_that_cannot_be_are_refused(sizes):
    with pytest.raises(ValueError, match="must|exceeds"):
        GeneratorConfig(**sizes)
