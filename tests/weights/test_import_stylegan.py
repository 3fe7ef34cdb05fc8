"""StyleGAN2 under NVIDIA's and rosinality's names: read, written back, and refused where it is something else."""

from pathlib import Path

import jax
import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.import_stylegan import (
    discriminator_from_rosinality,
    discriminator_from_stylegan2_ada,
    discriminator_to_stylegan2_ada,
    from_rosinality,
    from_stylegan2_ada,
    to_stylegan2_ada,
)
from fundusgan_jax.weights.weight_tables import check_filters

W, Z = 6, 5
CHANNELS = {4: 8, 8: 8, 16: 4}


def nvidia_generator(channels=CHANNELS, w=W, z=Z, labels=0, layers=2, seed=0) -> dict[str, np.ndarray]:
    """A state dict's names and shapes as stylegan2-ada-pytorch has them, written out by hand; without filters."""
    shapes: dict[str, tuple] = {"synthesis.b4.const": (channels[4], 4, 4), "mapping.w_avg": (w,)}
    for side, count in channels.items():
        root = f"synthesis.b{side}"
        for conv, entering in (("conv0", channels.get(side // 2)), ("conv1", count)):
            if entering:
                shapes |= {
                    f"{root}.{conv}.weight": (count, entering, 3, 3),
                    f"{root}.{conv}.bias": (count,),
                    f"{root}.{conv}.noise_strength": (),
                    f"{root}.{conv}.noise_const": (side, side),
                    f"{root}.{conv}.affine.weight": (entering, w),
                    f"{root}.{conv}.affine.bias": (entering,),
                }
        shapes |= {f"{root}.torgb.weight": (3, count, 1, 1), f"{root}.torgb.bias": (3,)}
        shapes |= {f"{root}.torgb.affine.weight": (count, w), f"{root}.torgb.affine.bias": (count,)}
    if labels:
        shapes |= {"mapping.embed.weight": (w, labels), "mapping.embed.bias": (w,)}
    for layer in range(layers):
        entering = w if layer else z + w * (labels > 0)
        shapes |= {f"mapping.fc{layer}.weight": (w, entering), f"mapping.fc{layer}.bias": (w,)}
    return _drawn(shapes, seed)


def nvidia_discriminator(channels=CHANNELS, labels=0, layers=2, seed=1) -> dict[str, np.ndarray]:
    """As `nvidia_generator`."""
    top, narrow = max(channels), channels[4]
    shapes: dict[str, tuple] = {f"b{top}.fromrgb.weight": (channels[top], 3, 1, 1)}
    shapes[f"b{top}.fromrgb.bias"] = (channels[top],)
    for side, count in channels.items():
        if side > 4:
            below = channels[side // 2]
            shapes |= {f"b{side}.conv0.weight": (count, count, 3, 3), f"b{side}.conv0.bias": (count,)}
            shapes |= {f"b{side}.conv1.weight": (below, count, 3, 3), f"b{side}.conv1.bias": (below,)}
            shapes[f"b{side}.skip.weight"] = (below, count, 1, 1)
    shapes |= {"b4.conv.weight": (narrow, narrow + 1, 3, 3), "b4.conv.bias": (narrow,)}
    shapes |= {"b4.fc.weight": (narrow, narrow * 16), "b4.fc.bias": (narrow,)}
    width = narrow if labels else 1
    shapes |= {"b4.out.weight": (width, narrow), "b4.out.bias": (width,)}
    if labels:
        shapes |= {"mapping.embed.weight": (narrow, labels), "mapping.embed.bias": (narrow,)}
        for layer in range(layers):
            shapes |= {f"mapping.fc{layer}.weight": (narrow, narrow), f"mapping.fc{layer}.bias": (narrow,)}
    return _drawn(shapes, seed)


def _drawn(shapes: dict[str, tuple], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: np.float32(rng.standard_normal(shape)) for name, shape in shapes.items()}


BLUR = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def rosinality_generator(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same weights under rosinality's names, in its shapes, with its blurs."""
    found = {"input.input": flat["synthesis.b4.const"][None]}
    sides = sorted(int(name.split(".")[1][1:]) for name in flat if name.endswith(".torgb.bias"))
    layers = ["b4.conv1", *(f"b{side}.conv{index}" for side in sides[1:] for index in (0, 1))]
    for number, layer in enumerate(layers):
        theirs, root = ("conv1" if number == 0 else f"convs.{number - 1}"), f"synthesis.{layer}"
        found |= {
            f"{theirs}.conv.weight": flat[f"{root}.weight"][None],
            f"{theirs}.conv.modulation.weight": flat[f"{root}.affine.weight"],
            f"{theirs}.conv.modulation.bias": flat[f"{root}.affine.bias"],
            f"{theirs}.noise.weight": flat[f"{root}.noise_strength"].reshape(1),
            f"{theirs}.activate.bias": flat[f"{root}.bias"],
            f"noises.noise_{number}": flat[f"{root}.noise_const"][None, None],
        }
        if number % 2:
            found[f"{theirs}.conv.blur.kernel"] = BLUR * 4
    for number, side in enumerate(sides):
        theirs, root = ("to_rgb1" if side == 4 else f"to_rgbs.{number - 1}"), f"synthesis.b{side}.torgb"
        found |= {
            f"{theirs}.conv.weight": flat[f"{root}.weight"][None],
            f"{theirs}.conv.modulation.weight": flat[f"{root}.affine.weight"],
            f"{theirs}.conv.modulation.bias": flat[f"{root}.affine.bias"],
            f"{theirs}.bias": flat[f"{root}.bias"].reshape(1, 3, 1, 1),
        }
        if side > 4:
            found[f"{theirs}.upsample.kernel"] = BLUR * 4
    layer = 0
    while f"mapping.fc{layer}.weight" in flat:
        for kind in ("weight", "bias"):
            found[f"style.{layer + 1}.{kind}"] = flat[f"mapping.fc{layer}.{kind}"]
        layer += 1
    return found


def rosinality_discriminator(flat: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """As `rosinality_generator`."""
    sides = sorted(
        (int(name[1:].split(".")[0]) for name in flat if name.endswith(".skip.weight")), reverse=True
    )
    names = {f"b{sides[0]}.fromrgb.weight": "convs.0.0.weight", f"b{sides[0]}.fromrgb.bias": "convs.0.1.bias"}
    found = {}
    for number, side in enumerate(sides, 1):
        root = f"convs.{number}"
        names |= {
            f"b{side}.conv0.weight": f"{root}.conv1.0.weight", f"b{side}.conv0.bias": f"{root}.conv1.1.bias",
            f"b{side}.conv1.weight": f"{root}.conv2.1.weight", f"b{side}.conv1.bias": f"{root}.conv2.2.bias",
            f"b{side}.skip.weight": f"{root}.skip.1.weight",
        }  # fmt: skip
        found |= {f"{root}.conv2.0.kernel": BLUR, f"{root}.skip.0.kernel": BLUR}
    names |= {"b4.conv.weight": "final_conv.0.weight", "b4.conv.bias": "final_conv.1.bias"}
    for kind in ("weight", "bias"):
        names |= {f"b4.fc.{kind}": f"final_linear.0.{kind}", f"b4.out.{kind}": f"final_linear.1.{kind}"}
    return found | {names[name]: x for name, x in flat.items()}


def assert_same(found, wanted) -> None:
    """Same structure, shapes, dtypes and bits."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("labels", [0, 3])
def test_nvidias_names_are_written_as_they_were_read(labels: int) -> None:
    generator, judge = nvidia_generator(labels=labels), nvidia_discriminator(labels=labels)
    found = from_stylegan2_ada(generator)
    assert (found.z_dim, found.num_labels, found.config.w_dim) == (Z, labels, W)
    written = to_stylegan2_ada(found)
    filters = {name for name in written if name.endswith("resample_filter")}
    assert_same({name: written[name] for name in written.keys() - filters}, generator)
    # A filter per block and per 3x3 layer.
    assert filters == {
        f"synthesis.{name}.resample_filter"
        for name in ("b4", "b4.conv1", "b8", "b8.conv0", "b8.conv1", "b16", "b16.conv0", "b16.conv1")
    }
    assert_same(from_stylegan2_ada(written), found)

    written = discriminator_to_stylegan2_ada(discriminator_from_stylegan2_ada(judge))
    filters = {name for name in written if name.endswith("resample_filter")}
    assert_same({name: written[name] for name in written.keys() - filters}, judge)
    layers = {
        "b16",
        "b16.fromrgb",
        "b4.conv",
        "b8",
        *(f"b{s}.{x}" for s in (8, 16) for x in ("conv0", "conv1", "skip")),
    }
    assert filters == {f"{name}.resample_filter" for name in layers}
    np.testing.assert_array_equal(written["b8.resample_filter"], BLUR)


def test_golden_weights_are_written_as_they_were_read(shared: Path) -> None:
    with np.load(shared / "golden" / "stylegan2_32_labels.npz") as npz:
        parts = {
            part: {name[10:]: npz[name] for name in npz if name.startswith(f"weights/{part}/")}
            for part in "GD"
        }
    written = to_stylegan2_ada(from_stylegan2_ada(parts["G"]))
    assert_same({name: written[name] for name in parts["G"]}, parts["G"])
    written = discriminator_to_stylegan2_ada(discriminator_from_stylegan2_ada(parts["D"]))
    assert_same({name: written[name] for name in parts["D"]}, parts["D"])


def test_a_kernel_keeps_each_number_at_its_place() -> None:
    flat = nvidia_generator() | {f"D.{name}": x for name, x in nvidia_discriminator().items()}
    params = from_stylegan2_ada(nvidia_generator()).synthesis["params"]
    assert params["b16_conv0"]["kernel"][0, 2, 5, 3] == flat["synthesis.b16.conv0.weight"][3, 5, 0, 2]
    assert params["const"][1, 3, 6] == flat["synthesis.b4.const"][6, 1, 3]
    judge = discriminator_from_stylegan2_ada(nvidia_discriminator()).variables["params"]
    row, column, channel = 1, 3, 6
    ours = judge["b4_fc"]["kernel"][(row * 4 + column) * 8 + channel, 5]
    assert ours == flat["D.b4.fc.weight"][5, channel * 16 + row * 4 + column]


def test_rosinalitys_names_hold_the_same_networks() -> None:
    flat = nvidia_generator(z=W)
    found, wanted = from_rosinality(rosinality_generator(flat)), from_stylegan2_ada(flat)
    assert_same(found._replace(config=None), wanted._replace(config=None, w_avg=None))
    assert found.config == wanted.config
    judge = nvidia_discriminator()
    found_judge = discriminator_from_rosinality(rosinality_discriminator(judge))
    wanted_judge = discriminator_from_stylegan2_ada(judge)
    assert_same(found_judge.variables, wanted_judge.variables)
    assert found_judge.channels == wanted_judge.channels == tuple(CHANNELS.items())


def test_a_noise_map_of_several_may_not_be_missing() -> None:
    flat = rosinality_generator(nvidia_generator())
    one = next(name for name in flat if name.startswith("noises."))
    with pytest.raises(UserError, match=one):
        from_rosinality({name: x for name, x in flat.items() if name != one})
    from_rosinality({name: x for name, x in flat.items() if not name.startswith("noises.")})


def test_other_networks_are_refused_by_name() -> None:
    for read in (
        from_stylegan2_ada,
        from_rosinality,
        discriminator_from_stylegan2_ada,
        discriminator_from_rosinality,
    ):
        with pytest.raises(UserError, match="among the weights|not a rosinality"):
            read({"a": np.zeros(3)})
    flat = nvidia_discriminator()
    flat["b8.gain"] = flat.pop("b8.skip.weight")
    with pytest.raises(UserError, match="missing: b8.skip.weight; not used: b8.gain"):
        discriminator_from_stylegan2_ada(flat)
    flat = rosinality_discriminator(nvidia_discriminator())
    del flat["convs.2.conv2.2.bias"]
    with pytest.raises(UserError, match="missing: convs.2.conv2.2.bias"):
        discriminator_from_rosinality(flat)
    mapless = {name: x for name, x in nvidia_generator().items() if "mapping" not in name}
    with pytest.raises(UserError, match="without its mapping network"):
        from_stylegan2_ada(mapless)


def test_only_the_filter_that_we_resample_with_is_admitted() -> None:
    check_filters({"a": BLUR, "b": BLUR * 4}, "ab")
    for other in (np.outer([1, 2, 1], [1, 2, 1]), BLUR * 0, BLUR + np.eye(4) * 0.01, np.float32(1)):
        with pytest.raises(UserError, match="x is another filter"):
            check_filters({"x": other}, ["x"])
