"""PyTorch files read as data: like torch.load where that is safe, and inert where it is not."""

import builtins
import contextlib
import importlib
import io
import os
import pickle
import struct
import sys
import textwrap
import zipfile
from collections import OrderedDict

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from edgejoule.errors import WeightsError
from edgejoule_trainer.weights import inert_pickle, pytorch_file

FORMS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "stream"])


def save(content, path, zipped=True):
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def state():
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    return OrderedDict(
        plain=torch.randn(3, 2),
        transposed=torch.randn(3, 2).t(),
        row=shared[1],
        channels_last=torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
        shared=shared,
        parameter=nn.Parameter(torch.randn(5)),
        scalar=torch.tensor(7),
        empty=torch.zeros(0, 3),
        flags=torch.tensor([True, False]),
        double=torch.randn(2, dtype=torch.float64),
        small=torch.tensor([-1, 2], dtype=torch.int8),
    )


def same(ours, theirs):
    return list(ours) == list(theirs) and all(
        torch.equal(ours[name], theirs[name]) and ours[name].dtype == theirs[name].dtype for name in theirs
    )


# --- what torch.save writes ----------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model_state_dict", "model"])
def test_state_dict_reads_as_torch_reads_it(tmp_path, zipped, wrapper):
    content = state() if wrapper is None else {"epoch": 3, wrapper: state()}
    path = save(content, tmp_path / "w.pth", zipped)
    assert same(pytorch_file.read(path), state())


@FORMS
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_float32(tmp_path, zipped, dtype):
    half = torch.randn(20).to(dtype)
    assert same(pytorch_file.read(save({"a": half}, tmp_path / "w.pt", zipped)), {"a": half.float()})


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(tmp_path, protocol):
    torch.save(state(), tmp_path / "w.pt", pickle_protocol=protocol)
    assert same(pytorch_file.read(tmp_path / "w.pt"), state())


def test_big_endian_archive_is_read(tmp_path):
    numbers = torch.arange(6, dtype=torch.int32)
    path = rewritten(save({"a": numbers}, tmp_path / "w.pt"), {"/byteorder": b"big", "/data/0": bytes(24)})
    swapped = rewritten(path, {"/data/0": numbers.numpy().astype(">i4").tobytes()})
    assert same(pytorch_file.read(swapped), {"a": numbers})


def rewritten(path, changes, **options):
    """The archive with entries replaced, by the end of their name; None drops one."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in entries.items():
            new = next((change for end, change in changes.items() if name.endswith(end)), content)
            if new is not None:
                archive.writestr(name, new)
    return path


# --- whole models --------------------------------------------------------------------------------

GHOST = """
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.bn = nn.BatchNorm2d(4)

    class Model(nn.Module):
        def __init__(self, seed):
            super().__init__()
            torch.manual_seed(seed)
            self.model = nn.Sequential(Block(), nn.SiLU(), nn.ModuleList([Block(), Block()]))
            self.register_buffer("anchors", torch.randn(3, 2))
            self.register_buffer("passing", torch.zeros(1), persistent=False)
            self.register_parameter("absent", None)
            self.twin = self.model[0]
            self.yaml = {"nc": 80, "names": ["a", "b"]}
            self.grid = [torch.zeros(1)] * 3
"""


@pytest.fixture
def ghost(tmp_path, monkeypatch):
    """Makes models of classes that can be imported only until ``vanish`` is called."""
    folder = tmp_path / "importable"
    folder.mkdir()
    (folder / "ghost_models.py").write_text(textwrap.dedent(GHOST))
    monkeypatch.syspath_prepend(folder)
    module = importlib.import_module("ghost_models")

    def vanish():
        sys.modules.pop("ghost_models")
        (folder / "ghost_models.py").unlink()
        importlib.invalidate_caches()

    module.vanish = vanish
    yield module
    sys.modules.pop("ghost_models", None)


@FORMS
@pytest.mark.parametrize("averaged", [True, False])
def test_whole_model_gives_its_state_dict_without_its_classes(tmp_path, ghost, zipped, averaged):
    models = [ghost.Model(seed).half() for seed in range(2)]
    expected = {name: t.float() if t.is_floating_point() else t for name, t in models[averaged].state_dict().items()}
    checkpoint = {"epoch": -1, "best": None, "model": models[0], "ema": models[1] if averaged else None, "opt": {}}
    path = save(checkpoint, tmp_path / "w.pt", zipped)
    ghost.vanish()
    with pytest.raises((ImportError, AttributeError)):
        torch.load(path, weights_only=False)
    assert same(pytorch_file.read(path), expected)
    assert "ghost_models" not in sys.modules


def test_model_alone_is_read_too(tmp_path, ghost):
    model = ghost.Model(5)
    path = save(model, tmp_path / "w.pt")
    ghost.vanish()
    assert same(pytorch_file.read(path), model.state_dict())


# --- hostile pickles -----------------------------------------------------------------------------


def archive(path, program, storages=(), name="archive"):
    """An archive of torch.save's form around a pickle of our own making."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(f"{name}/data.pkl", program)
        file.writestr(f"{name}/version", b"3\n")
        for key, content in enumerate(storages):
            file.writestr(f"{name}/data/{key}", content)
    return path


def text(word):
    return b"X" + struct.pack("<I", len(word)) + word.encode()


def value(program):
    """A state dict whose one value is what ``program`` pushes."""
    return b"\x80\x02}" + text("a") + program + b"s."


STORAGE = b"((" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x04tQ"


class Runs:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce_ex__(self, protocol):
        return self.call


@pytest.mark.parametrize(("zipped", "protocol"), [(True, 0), (True, 1), (True, 2), (True, 4), (False, 2), (False, 4)])
def test_payload_is_not_run_and_named(tmp_path, zipped, protocol):
    marker = tmp_path / "was-run"
    for function, argument in ((os.system, f"touch {marker}"), (eval, f"open({str(marker)!r}, 'w')")):
        path = tmp_path / "w.pt"
        content = {"weights": Runs(function, argument)}
        torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
        with pytest.raises(WeightsError, match=r"'weights' would be made by .*(system|eval), which could run code"):
            pytorch_file.read(path)
    assert not marker.exists()


@FORMS
def test_payload_beside_the_state_dict_is_ignored(tmp_path, zipped):
    marker = tmp_path / "was-run"
    content = {"state_dict": state(), "optimizer": Runs(os.mkdir, str(marker)), "hooks": [Runs(exec, "raise")]}
    assert same(pytorch_file.read(save(content, tmp_path / "w.pt", zipped)), state())
    assert not marker.exists()


MARKER = "edgejoule-was-run"
CALLS = {
    "reduce": b"cos\nsystem\n" + text(f"touch {MARKER}") + b"\x85R",
    "reduce of a nested name": b"cbuiltins\ngetattr\ncos\npath\n" + text("join") + b"\x86R" + text("x") + b"\x85R",
    "stack global": text("os") + text("system") + b"\x93" + text(f"touch {MARKER}") + b"\x85R",
    "stack global, dotted": text("os") + text("path.join") + b"\x93)R",
    "inst": b"(" + text(f"touch {MARKER}") + b"ios\nsystem\n",
    "obj": b"(cos\nsystem\n" + text(f"touch {MARKER}") + b"o",
    "newobj": b"csubprocess\nPopen\n" + text(f"touch {MARKER}") + b"\x85\x81",
    "newobj with keywords": b"csubprocess\nPopen\n" + text(f"touch {MARKER}") + b"\x85}\x92",
    "build": b"cbuiltins\nobject\n)\x81}" + text("__setstate__") + b"cos\nsystem\nsb",
    "call of what a call made": b"cbuiltins\n__import__\n" + text("antigravity") + b"\x85R" + text("x") + b"\x85R",
    "torch's own loader": b"ctorch\nload\n" + text("/etc/passwd") + b"\x85R",
    "a rebuild that is no tensor": b"ctorch._utils\n_rebuild_tensor_v2\n(" + text("x") + b"K\x00))\x88}tR",
}


@pytest.mark.parametrize("program", CALLS.values(), ids=CALLS.keys())
def test_calls_stay_records(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    imported = []
    true_import = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *a, **k: imported.append(name) or true_import(name, *a, **k)
    )
    with pytest.raises(WeightsError, match="which could run code and was not called"):
        pytorch_file.read(archive(tmp_path / "w.pt", value(program)))
    assert not {"antigravity", "subprocess", "os"} & set(imported)
    assert not (tmp_path / MARKER).exists()


MALFORMED = {
    "extension registry": b"\x82\x01",
    "out-of-band buffer": b"\x97",
    "text id": b"Pgarbage\n",
    "id that is a number": b"K\x05Q",
    "id of another kind": b"(" + text("module") + text("x") + b"tQ",
    "id of an unknown type": STORAGE.replace(b"FloatStorage", b"EvilStorage"),
    "id with a negative size": STORAGE.replace(b"K\x04", b"J\xff\xff\xff\xff"),
    "one storage, two sizes": STORAGE[1:] + b"0" + STORAGE[1:].replace(b"K\x04", b"K\x05"),
    "get of nothing": b"h\x63",
    "reduce of a text": text("os.system") + b")R",
    "reduce without a tuple": b"cos\nsystem\n]R",
    "append to a dict": b"}K\x01a",
    "set of a list": b"]" + text("a") + b"K\x01s",
    "pop from nothing": b"0000000",
    "no mark": b"t",
    "odd number of items": b"(K\x01d",
    "declared larger than it is": b"\x8d" + struct.pack("<Q", 1 << 60) + b"abc",
    "memo far away": b"r\xff\xff\xff\x7fq\x00h\x09",
    "a number without end": b"I" + b"9" * 6000 + b"\n",
}


@pytest.mark.parametrize("program", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_pickles_are_refused(tmp_path, program):
    with pytest.raises(WeightsError, match=r"w\.pt was not read"):
        pytorch_file.read(archive(tmp_path / "w.pt", value(program)))


def test_references_that_multiply_cost_nothing(tmp_path):
    lists = b"]q\x00(h\x00h\x00e"  # a list that is in itself twice
    doubled = b")" + b"2\x86" * 200  # ((...), (...)) of 2**200 leaves
    as_key = b"}" + b")" + b"2\x86" * 200 + b"K\x01s"  # a hash of it would take for ever
    for program in (lists, doubled, as_key):
        with pytest.raises(WeightsError, match="are not tensors"):
            pytorch_file.read(archive(tmp_path / "w.pt", value(program)))


def module(children):
    """A record that looks like an nn.Module whose ``_modules`` are pushed by ``children``."""
    groups = text("_parameters") + b"}" + text("_buffers") + b"}" + text("_modules") + children
    return b"cno.such\nModule\n)\x81}(" + groups + b"ub"


def test_modules_that_contain_each_other_are_refused(tmp_path):
    doubling = module(b"}")
    for _ in range(60):
        doubling = module(b"}(" + text("a") + doubling + b"q\x01" + text("b") + b"h\x01u")
    itself = b"cno.such\nModule\n)\x81q\x02}(" + text("_parameters") + b"}" + text("_buffers") + b"}"
    itself += text("_modules") + b"}" + text("a") + b"h\x02sub"
    for program in (doubling, itself):
        with pytest.raises(WeightsError, match="contain each other without end"):
            pytorch_file.read(archive(tmp_path / "w.pt", b"\x80\x02" + program + b"."))


def test_pickle_of_too_many_opcodes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(inert_pickle, "MAX_OPCODES", 1000)
    with pytest.raises(WeightsError, match="more than 1000 opcodes"):
        pytorch_file.read(archive(tmp_path / "w.pt", value(b"K\x010" * 1000)))


def test_names_reach_the_terminal_without_control_characters(tmp_path):
    path = save({"\x1b[2Jevil" + "x" * 5000: 1}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match=r"\?\[2Jevil") as caught:
        pytorch_file.read(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 500


# --- tensors that are not what they say ----------------------------------------------------------


def tensor(offset, size, stride):
    def numbers(values):
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + STORAGE[1:]
        + numbers([offset])[1:-1]
        + numbers(size)
        + numbers(stride)
        + b"\x89}tR"
    )


@pytest.mark.parametrize(
    ("offset", "size", "stride"),
    [
        (0, [5], [1]),
        (1, [4], [1]),
        (-1, [2], [1]),
        (0, [-2], [1]),
        (3, [2], [-1]),
        (0, [2, 2], [4, 1]),
        (0, [1 << 40], [0]),  # would be expanded
        (0, [4, 4], [0, 1]),
        (0, [2], [1, 1]),
        (1 << 62, [1], [1]),
        (0, [1] * 17, [1] * 17),
        (0, [1 << 62, 1 << 62], [1, 1]),
    ],
)
def test_view_beyond_its_storage_is_refused(tmp_path, offset, size, stride):
    with pytest.raises(WeightsError, match="no view of its 4 stored numbers"):
        pytorch_file.read(archive(tmp_path / "w.pt", value(tensor(offset, size, stride)), [bytes(16)]))


def test_view_within_its_storage_is_read(tmp_path):
    content = struct.pack("<4f", 1, 2, 3, 4)
    found = pytorch_file.read(archive(tmp_path / "w.pt", value(tensor(1, [3], [1])), [content]))
    assert found["a"].tolist() == [2, 3, 4]


@pytest.mark.parametrize("content", [bytes(12), bytes(20), b""])
def test_storage_of_another_size_is_refused(tmp_path, content):
    with pytest.raises(WeightsError, match=r"bytes are where 4 numbers should be"):
        pytorch_file.read(archive(tmp_path / "w.pt", value(tensor(0, [4], [1])), [content]))


def test_storage_that_is_missing_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="damaged"):
        pytorch_file.read(archive(tmp_path / "w.pt", value(tensor(0, [4], [1]))))


def test_one_storage_under_very_many_names_is_refused(tmp_path):
    numbers = torch.zeros(4000, dtype=torch.half)
    path = save({str(i): numbers for i in range(1000)}, tmp_path / "w.pt")
    with pytest.raises(WeightsError, match="would grow to 4000000 numbers"):
        pytorch_file.read(path)


# --- files that are not what they say ------------------------------------------------------------


def test_zip_bomb_is_refused_before_it_unpacks(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", b"\0" * (64 << 20))
    with pytest.raises(WeightsError, match="unpacks to 67 MB"):
        pytorch_file.read(tmp_path / "w.pt")


def test_entry_that_declares_less_than_it_unpacks_to_is_refused(tmp_path):
    path = save({"a": torch.randn(1000)}, tmp_path / "w.pt")
    raw = rewritten(path, {}, compression=zipfile.ZIP_DEFLATED).read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", 4000), struct.pack("<I", 40)))
    with pytest.raises(WeightsError, match="damaged"):
        pytorch_file.read(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("entry", ["archive/data.pkl", "archive/data/0"])
def test_archive_with_an_entry_twice_is_refused(tmp_path, entry):
    path = archive(tmp_path / "w.pt", value(tensor(0, [4], [1])), [bytes(16)])
    with zipfile.ZipFile(path, "a") as file:
        file.writestr(entry, b"another")
    with pytest.raises(WeightsError, match="two entries of one name"):
        pytorch_file.read(path)


def test_encrypted_archive_is_refused(tmp_path):
    path = archive(tmp_path / "w.pt", value(tensor(0, [4], [1])), [bytes(16)])
    raw = bytearray(path.read_bytes())
    for start, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(start)
        raw[at + flags] |= 1
    path.write_bytes(raw)
    with pytest.raises(WeightsError, match="encrypted"):
        pytorch_file.read(path)


def test_names_that_leave_the_folder_are_never_written(tmp_path):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    path = archive(inside / "w.pt", value(tensor(0, [4], [1])), [bytes(16)], name="..")
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("../../evil", b"evil")
    assert pytorch_file.read(path)["a"].tolist() == [0, 0, 0, 0]
    assert [found.name for found in tmp_path.rglob("*") if found.is_file()] == ["w.pt"]


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ({"document.xml": b""}, "not one of torch.save"),
        ({"a/data.pkl": b".", "b/data.pkl": b"."}, "not one of torch.save"),
        ({"a/data.pkl": b".", "a/constants.pkl": b"."}, "TorchScript program"),
    ],
)
def test_other_archives_are_refused(tmp_path, entries, complaint):
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as file:
        for name, content in entries.items():
            file.writestr(name, content)
    with pytest.raises(WeightsError, match=complaint):
        pytorch_file.read(tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ([1, 2], "holds a list, not a state dict"),
        ({}, "holds an empty dict"),
        ({"a": 1, "b": torch.zeros(1)}, "a are not tensors"),
        ({"epoch": 3, "state_dict": {}}, "holds an empty dict"),
        (torch.zeros(3), "holds a StoredTensor"),
    ],
)
@FORMS
def test_what_is_no_state_dict_is_refused(tmp_path, content, complaint, zipped):
    with pytest.raises(WeightsError, match=complaint):
        pytorch_file.read(save(content, tmp_path / "w.pt", zipped))


@pytest.mark.parametrize("content", [pickle.dumps({"a": 1}), b"\x80\x02]q\x00.", b"\x80", b"x" * 100, b"PK\x03\x04"])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "w.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"w\.pt was not read"):
        pytorch_file.read(tmp_path / "w.pt")


def test_stream_with_a_storage_of_another_size_is_refused(tmp_path):
    path = save({"a": torch.zeros(5)}, tmp_path / "w.pt", zipped=False)
    raw = path.read_bytes()
    for elements in (1 << 61, 4):
        path.write_bytes(raw[:-28] + struct.pack("<q", elements) + raw[-20:])
        with pytest.raises(WeightsError, match="contradict each other"):
            pytorch_file.read(path)


# --- damage --------------------------------------------------------------------------------------


def small_file(zipped):
    buffer = io.BytesIO()
    content = {"epoch": 1, "state_dict": OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.ones(2).half())}
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


SMALL = {zipped: small_file(zipped) for zipped in (True, False)}


@FORMS
def test_truncated_file_is_refused_wherever_it_ends(tmp_path, zipped):
    path = tmp_path / "w.pt"
    whole = SMALL[zipped]
    for length in range(1, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            pytorch_file.read(path)


def pickle_of(file):
    with zipfile.ZipFile(io.BytesIO(file)) as content:
        return next(content.read(name) for name in content.namelist() if name.endswith("data.pkl"))


@pytest.mark.parametrize("damaged", ["zip", "stream", "pickle in a sound zip"])
@settings(max_examples=150, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_file_ends_in_tensors_or_a_sentence(tmp_path, damaged, edits):
    whole = SMALL[damaged != "stream"]
    raw = bytearray(pickle_of(whole) if damaged.startswith("pickle") else whole)
    for where, byte in edits:
        raw[int(where * len(raw))] = byte
    path = tmp_path / "w.pt"
    if damaged.startswith("pickle"):
        archive(path, bytes(raw), [bytes(24), bytes(4)])
    else:
        path.write_bytes(raw)
    with contextlib.suppress(WeightsError):
        assert all(isinstance(tensor, torch.Tensor) for tensor in pytorch_file.read(path).values())
