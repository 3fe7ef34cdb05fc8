"""The public files of weights that the product can use, and the folder where they are looked for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

WEIGHTS_FOLDER_VARIABLE = "FUNDUSGAN_JAX_WEIGHTS"


class PublicWeights(NamedTuple):
    """A published file.

    file: its name, at its source and in `weights_folder()`. url: where it is published. sha256: of its content, 64
    hexadecimal digits. purpose: what it is for here. licence: of the weights. also: another name it may have here.
    """

    file: str
    url: str
    sha256: str
    purpose: str
    licence: str
    also: str = ""


def weights_folder() -> Path:
    """Where weights are looked for: $FUNDUSGAN_JAX_WEIGHTS, else ~/.cache/fundusgan_jax."""
    chosen = os.environ.get(WEIGHTS_FOLDER_VARIABLE, "")
    return Path(chosen) if chosen else Path.home() / ".cache" / "fundusgan_jax"


def _torchvision(file: str, sha256: str, purpose: str, also: str = "") -> PublicWeights:
    licence = "BSD-3-Clause (torchvision), trained on ImageNet"
    return PublicWeights(file, f"https://download.pytorch.org/models/{file}", sha256, purpose, licence, also)


def _heads(file: str, sha256: str, network: str) -> PublicWeights:
    source = "https://raw.githubusercontent.com/richzhang/PerceptualSimilarity/master/lpips/weights/v0.1"
    purpose = f"LPIPS's learned channel weights, {network}"
    return PublicWeights(file, f"{source}/{file}", sha256, purpose, "BSD-2-Clause", "lpips_heads.npz")


# The name that `weights fetch` takes -> file. Digests are of the files as published; those of torchvision and
# pytorch-fid begin with the eight digits that their authors put into the names.
PUBLIC_WEIGHTS: dict[str, PublicWeights] = {
    "inception": PublicWeights(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
        "FID, KID, precision and recall (Inception-v3 of 2015-12-05)",
        "Apache-2.0 (Google's Inception, converted by pytorch-fid), trained on ImageNet",
        "inception_fid.npz",
    ),
    "vgg16": _torchvision(
        "vgg16-397923af.pth",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        "LPIPS (perceptual_net=vgg16)",
        "vgg16_imagenet.npz",
    ),
    "alexnet": _torchvision(
        "alexnet-owt-7be5be79.pth",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        "LPIPS (perceptual_net=alexnet)",
        "alexnet_imagenet.npz",
    ),
    "squeezenet": _torchvision(
        "squeezenet1_1-b8a52dc0.pth",
        "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b",
        "perceptual loss (perceptual_net=squeezenet), classifier (network=squeezenet)",
        "squeezenet1_1_imagenet.npz",
    ),
    "lpips_vgg": _heads(
        "vgg.pth", "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868", "vgg16"
    ),
    "lpips_alex": _heads(
        "alex.pth", "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0", "alexnet"
    ),
    "lpips_squeeze": _heads(
        "squeeze.pth", "4a5350f23600cb79923ce65bb07cbf57dca461329894153e05a1346bd531cf76", "squeezenet"
    ),
    "resnet18": _torchvision(
        "resnet18-f37072fd.pth",
        "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec",
        "encoder (backbone=resnet18), classifier (network=resnet18)",
    ),
    "resnet34": _torchvision(
        "resnet34-b627a593.pth",
        "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f",
        "encoder (backbone=resnet34), classifier (network=resnet34)",
    ),
    "resnet50": _torchvision(
        "resnet50-0676ba61.pth",
        "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
        "encoder (backbone=resnet50), classifier (network=resnet50)",
    ),
    "resnet101": _torchvision(
        "resnet101-63fe2227.pth",
        "63fe2227b86e8f1f2063f43a75c84d195911b6a0eace650907dd3dc62dd49a0a",
        "encoder (backbone=resnet101), classifier (network=resnet101)",
    ),
    "resnet152": _torchvision(
        "resnet152-394f9c45.pth",
        "394f9c45966e3651a89bbb78a48410a6755854ce4a5ab64927cf1c7247f85e58",
        "encoder (backbone=resnet152), classifier (network=resnet152)",
    ),
    "mobilenet_v3_small": _torchvision(
        "mobilenet_v3_small-047dcff4.pth",
        "047dcff4addef86ea5bc2eff13c9614dc11f47ab1160d0a71a25e7db994f4e1f",
        "classifier (network=mobilenet_v3_small)",
    ),
    "efficientnet_b0": _torchvision(
        "efficientnet_b0_rwightman-7f5810bc.pth",
        "7f5810bc96def8f7552d5b7e68d53c4786f81167d28291b21c0d90e1fca14934",
        "classifier (network=efficientnet_b0)",
    ),
    "densenet121": _torchvision(
        "densenet121-a639ec97.pth",
        "a639ec97d7c33b07ae66f0b5fb7d0192f95a3b11b7576c66c0126c2a727c4395",
        "classifier (network=densenet121)",
    ),
}


def located(path: str | Path) -> Path:
    """A file of weights as it is named, or, where it is not there, the one of that name in `weights_folder()`.

    Args:
        path: a path, a file's name, or a name of `PUBLIC_WEIGHTS`.

    Returns:
        The file; `path` itself where there is none.
    """
    path = Path(path)
    if path.exists() or path.name != str(path):
        return path
    public = PUBLIC_WEIGHTS.get(path.name)
    names = [public.file, public.also] if public else [path.name]
    places = [weights_folder() / name for name in names if name]
    return next((place for place in places if place.exists()), path)
