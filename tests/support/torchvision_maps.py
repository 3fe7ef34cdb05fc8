"""Figures of torchvision's networks with seeded weights, for tests/weights/test_torchvision_maps.py; needs torch and torchvision, not JAX.

PYTHONPATH=. PYTHON -m tests.support.torchvision_maps > tests/support/torchvision_maps.json
"""

import json

import numpy as np

from fundusgan_jax.weights.seeded import seeded

NAMES = {"squeezenet": "squeezenet1_1"}
NETWORKS = ("resnet18", "resnet50", "squeezenet", "mobilenet_v3_small", "efficientnet_b0", "densenet121")
SALT, SIDE, PICKED = 1, 64, 8


def image():
    """[1, S, S, 3], as photographs are after ImageNet's normalisation."""
    return np.random.default_rng(0).standard_normal((1, SIDE, SIDE, 3)).astype(np.float32)


def figures(last_map):
    """Of the last map [C, h, w]: its shape, the square root of its mean square, and numbers at evenly spread places."""
    flat = np.asarray(last_map, np.float64).ravel()
    places = np.linspace(0, flat.size - 1, PICKED).round().astype(int)
    return {
        "shape": list(last_map.shape),
        "size": float(np.sqrt(np.mean(flat**2))),
        "picked": [float(value) for value in flat[places]],
    }


def main():
    """Prints the figures of every network as JSON."""
    import torch
    import torchvision

    found = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    for name in NETWORKS:
        model = getattr(torchvision.models, NAMES.get(name, name))(weights=None).eval()
        state = {
            key: torch.from_numpy(seeded(key, tuple(value.shape), SALT))
            for key, value in model.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        model.load_state_dict(state, strict=False)
        x = torch.from_numpy(image().transpose(0, 3, 1, 2))
        with torch.no_grad():
            if hasattr(model, "features"):
                last = model.features(x)
                last = torch.relu(last) if name == "densenet121" else last
            else:
                last = torch.nn.Sequential(*list(model.children())[:-2])(x)
        found[name] = figures(last[0].numpy())
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
