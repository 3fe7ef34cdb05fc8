"""PyTorch's and NVIDIA's files are read without PyTorch, and nothing in them is ever run."""

import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fundusgan_jax.errors import UserError
from fundusgan_jax.weights.flat_file import read_flat
from fundusgan_jax.weights.torch_files import Module, read_torch

RNG = np.random.default_rng(0)
BASE = RNG.standard_normal(24).astype(np.float32)
LONG = np.arange(5, dtype=np.int64)


class Named:
    """A stand-in that pickles as 'module.name', which need not exist where it is read."""

    def __init__(self, module: str, name: str, made: dict[str, types.ModuleType]) -> None:
        owner = made.setdefault(module, types.ModuleType(module))
        self.function = types.FunctionType((lambda *a: None).__code__, {}, name)
        self.function.__module__, self.function.__qualname__ = module, name
        setattr(owner, name, self.function)


class Storage:
    def __init__(self, kind: str, array: np.ndarray) -> None:
        self.kind, self.array = kind, array


class Tensor:
    def __init__(self, storage: Storage, offset: int, size: tuple, stride: tuple) -> None:
        self.parts = (storage, offset, size, stride, False, OrderedDict())


class NvidiaModule:
    def __init__(self, class_name: str, state: dict) -> None:
        self.meta = {"type": "class", "version": 6, "module_src": "import os\nos.abort()", "class_name": class_name,
                     "state": state}  # fmt: skip


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Named]]:
    """PyTorch's and NVIDIA's names, importable while a test writes its file and gone when it reads it."""
    made: dict[str, types.ModuleType] = {"torch": types.ModuleType("torch")}
    wanted = {
        "tensor": ("torch._utils", "_rebuild_tensor_v2"), "parameter": ("torch._utils", "_rebuild_parameter"),
        "bytes": ("torch.storage", "_load_from_bytes"), "module": ("torch_utils.persistence", "_reconstruct_persistent_obj"),
        "Float": ("torch", "FloatStorage"), "Long": ("torch", "LongStorage"),
    }  # fmt: skip
    found = {key: Named(module, name, made) for key, (module, name) in wanted.items()}
    made["torch"].__path__ = []
    for module, owner in made.items():
        monkeypatch.setitem(sys.modules, module, owner)
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    yield found


class Writer(pickle.Pickler):
    """Writes tensors as torch.save does (storages by persistent id), or as pickle does (nested=True)."""

    def __init__(self, file, names, nested=False, legacy=False) -> None:
        super().__init__(file, protocol=2)
        self.names, self.nested, self.legacy, self.storages = names, nested, legacy, {}

    def persistent_id(self, thing):
        if not isinstance(thing, Storage) or self.nested:
            return None
        key = str(len(self.storages)) if thing not in self.storages else self.storages[thing]
        self.storages[thing] = key
        identifier = ("storage", self.names[thing.kind].function, key, "cpu", thing.array.size)
        return (*identifier, None) if self.legacy else identifier

    def reducer_override(self, thing):
        if isinstance(thing, Tensor):
            return self.names["tensor"].function, thing.parts
        if isinstance(thing, Storage):
            return self.names["bytes"].function, (legacy_bytes(thing, self.names),)
        if isinstance(thing, NvidiaModule):
            return self.names["module"].function, (thing.meta,)
        return NotImplemented


def legacy_bytes(thing, names) -> bytes:
    """torch.save's form before 1.6."""
    file = io.BytesIO()
    for header in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(header, file, protocol=2)
    writer = Writer(file, names, legacy=True)
    writer.dump(thing)
    pickle.dump(list(writer.storages.values()), file, protocol=2)
    for storage in writer.storages:
        file.write(struct.pack("<q", storage.array.size) + storage.array.tobytes())
    return file.getvalue()


def archive_bytes(thing, names) -> bytes:
    program = io.BytesIO()
    writer = Writer(program, names)
    writer.dump(thing)
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("weights/data.pkl", program.getvalue())
        archive.writestr("weights/byteorder", "little")
        for storage, key in writer.storages.items():
            archive.writestr(f"weights/data/{key}", storage.array.tobytes())
    return file.getvalue()


def state_dict() -> OrderedDict:
    """Two views of one storage (one of them transposed), and whole numbers."""
    shared = Storage("Float", BASE)
    long = Storage("Long", LONG)
    return OrderedDict(
        whole=Tensor(shared, 0, (4, 6), (6, 1)),
        turned=Tensor(shared, 4, (5, 3), (1, 6)),
        scalar=Tensor(shared, 7, (), ()),
        steps=Tensor(long, 1, (3,), (1,)),
        nothing=Tensor(long, 0, (0, 2), (2, 1)),
    )


def assert_state(found: dict) -> None:
    matrix = BASE.reshape(4, 6)
    np.testing.assert_array_equal(found["whole"], matrix)
    np.testing.assert_array_equal(
        found["turned"], [[BASE[4 + i + 6 * j] for j in range(3)] for i in range(5)]
    )
    assert found["scalar"].shape == () and found["scalar"] == BASE[7]
    np.testing.assert_array_equal(found["steps"], [1, 2, 3])
    assert found["steps"].dtype == np.int64 and found["nothing"].shape == (0, 2)


@pytest.mark.parametrize("form", [archive_bytes, legacy_bytes])
def test_both_forms_of_torch_save(tmp_path: Path, names, form) -> None:
    (tmp_path / "a.pt").write_bytes(form({"g_ema": state_dict(), "latent_avg": None, "iter": 7}, names))
    found = read_torch(tmp_path / "a.pt")
    assert found["iter"] == 7 and found["latent_avg"] is None
    assert_state(found["g_ema"])


def test_nvidias_pickle(tmp_path: Path, names) -> None:
    inner = NvidiaModule(
        "Layer", {"_parameters": state_dict(), "_buffers": {}, "_modules": {}, "gain": np.float64(2.5)}
    )
    buffers = OrderedDict(w_avg=Tensor(Storage("Float", BASE), 0, (24,), (1,)), nothing=None)
    outer = NvidiaModule(
        "Generator", {"_parameters": {}, "_buffers": buffers, "_modules": OrderedDict(b4=inner)}
    )
    with open(tmp_path / "a.pkl", "wb") as file:
        Writer(file, names, nested=True).dump({"G_ema": outer, "augment_pipe": None})
    found = read_torch(tmp_path / "a.pkl")["G_ema"]
    assert isinstance(found, Module) and found["class_name"] == "Generator"
    state = found.state_dict()
    assert list(state) == ["w_avg", *(f"b4.{name}" for name in state_dict())]
    assert_state({name.removeprefix("b4."): value for name, value in state.items()})
    assert found["state"]["_modules"]["b4"]["state"]["gain"] == 2.5


HOSTILE = {
    "posix.system": b"cposix\nsystem\n(S'touch HIT'\ntR.",
    "builtins.eval": b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x10open('HIT', 'w')\x85R.",
    "subprocess.Popen": b"csubprocess\nPopen\n((S'touch'\nS'HIT'\nltR.",
    "torch.hub.load": b"ctorch.hub\nload\n(S'a'\ntR.",
    "numpy.core.multiarray.fromfile": b"cnumpy.core.multiarray\nfromfile\n(S'a'\ntR.",
    "builtins.getattr": b"c__builtin__\ngetattr\n(S'a'\nS'b'\ntR.",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("where", ["alone", "in an archive", "in the older form"])
def test_a_hostile_pickle_is_refused_by_name_and_not_run(
    tmp_path: Path, monkeypatch, name: str, where: str
) -> None:
    monkeypatch.chdir(tmp_path)
    program = HOSTILE[name]
    if where == "in an archive":
        with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
            archive.writestr("a/data.pkl", program)
    else:
        headers = [pickle.dumps(x, 2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
        content = b"".join(headers) + program if where == "in the older form" else program
        (tmp_path / "a.pt").write_bytes(content)
    named = name.replace("builtins.getattr", "getattr")
    with pytest.raises(
        UserError, match=rf"a\.pt is not read: it names .*{named.split('.')[-1]}.* only tensors"
    ):
        read_torch("a.pt")
    assert not (tmp_path / "HIT").exists()


def test_a_tensor_beyond_its_data_is_refused(tmp_path: Path, names) -> None:
    for number, view in enumerate(
        [(20, (5,), (1,)), (0, (4, 7), (6, 1)), (-1, (2,), (1,)), (3, (3,), (-1,))]
    ):
        path = tmp_path / f"{number}.pt"
        path.write_bytes(archive_bytes({"w": Tensor(Storage("Float", BASE), *view)}, names))
        with pytest.raises(UserError, match="reaches beyond its data|impossible sizes"):
            read_torch(path)


@pytest.mark.parametrize("form", [archive_bytes, legacy_bytes])
def test_damage_is_one_line(tmp_path: Path, names, form) -> None:
    whole = form(state_dict(), names)
    for share in (0.0, 0.1, 0.5, 0.9, 0.99):
        path = tmp_path / "a.pt"
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UserError, match=r"a\.pt") as refused:
            read_torch(path)
        assert "\n" not in str(refused.value)
    (tmp_path / "a.pt").write_bytes(os.urandom(500))
    with pytest.raises(UserError):
        read_torch(tmp_path / "a.pt")
    with pytest.raises(UserError, match="does not exist"):
        read_torch(tmp_path / "b.pt")


def test_storages_of_the_older_form_may_be_large(tmp_path: Path, names) -> None:
    """The first pass must not touch data that is not there."""
    values = np.arange(3_000_000, dtype=np.float32)
    content = legacy_bytes({"w": Tensor(Storage("Float", values), 0, (3000, 1000), (1000, 1))}, names)
    (tmp_path / "a.pth").write_bytes(content)
    np.testing.assert_array_equal(read_torch(tmp_path / "a.pth")["w"].ravel(), values)


def test_a_tensor_cannot_be_anothers_data(tmp_path: Path, names) -> None:
    inner = Tensor(Storage("Float", BASE), 0, (24, 0), (1, 1))
    path = tmp_path / "a.pt"
    for inside in (inner, [1.0] * 50):
        path.write_bytes(archive_bytes({"w": Tensor(inside, 0, (20,), (1,))}, names))
        with pytest.raises(UserError, match="has no data of its own"):
            read_torch(path)
    for size, stride in (((10_000_000, 0), (0, 0)), ((5000, 5000), (0, 0)), ((3,), (1, 1))):
        path.write_bytes(archive_bytes({"w": Tensor(Storage("Float", BASE), 0, size, stride)}, names))
        with pytest.raises(UserError, match="beyond its data|impossible sizes"):
            read_torch(path)


def test_a_state_dict_is_a_flat_file(tmp_path: Path, names) -> None:
    (tmp_path / "a.pth").write_bytes(archive_bytes(state_dict(), names))
    assert_state(read_flat(tmp_path / "a.pth"))
    (tmp_path / "b.pth").write_bytes(archive_bytes({"iter": 3}, names))
    with pytest.raises(UserError, match="holds no state dict"):
        read_flat(tmp_path / "b.pth")


def test_a_pickle_cannot_change_a_tensors_data(tmp_path: Path, names) -> None:
    """The BUILD instruction sets attributes of whatever is at hand, a storage too."""
    program = io.BytesIO()
    writer = Writer(program, names)
    writer.dump(Storage("Float", BASE))
    changed = program.getvalue()[:-1] + pickle.dumps({"values": None}, 2)[2:-1] + b"b."
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("a/data.pkl", changed)
        archive.writestr("a/data/0", BASE.tobytes())
    with pytest.raises(UserError, match="changes a tensor's data"):
        read_torch(tmp_path / "a.pt")
