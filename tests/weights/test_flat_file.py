"""Files of named arrays: what goes in comes out, texts beside the arrays too."""

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.flat_file import read_flat, read_metadata, write_flat


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_texts_travel_beside_the_arrays(tmp_path, suffix):
    arrays = {"a/b": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.arange(3)}
    texts = {"settings": '{"\u00e4": 1}', "other": ""}
    for name, metadata in (("with", texts), ("without", None)):
        file = tmp_path / f"{name}{suffix}"
        write_flat(file, arrays, metadata)
        again = read_flat(file)
        assert again.keys() == arrays.keys()
        assert all(
            (again[key] == arrays[key]).all() and again[key].dtype == arrays[key].dtype for key in arrays
        )
        assert {key: text for key, text in read_metadata(file).items() if key != "format"} == (metadata or {})


def test_damage_is_named(tmp_path):
    for name in ("a.npz", "a.safetensors"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(UserError, match=name):
            read_metadata(tmp_path / name)
    for name in ("absent.npz", "absent.pt"):
        with pytest.raises(UserError, match="does not exist"):
            read_metadata(tmp_path / name)
