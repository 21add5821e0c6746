"""Weights files: every tensor accounted for."""

import json

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from edgejoule.errors import WeightsError
from edgejoule.records import Label
from edgejoule_trainer.detectors import create
from edgejoule_trainer.detectors.nanodet_m import NanoDetM
from edgejoule_trainer.weights import commands, import_weights, read_weights, write_weights

LABELS = [Label(id=1, name="disc"), Label(id=4, name="ring")]


@pytest.fixture(scope="module")
def official_state():
    """A state dict as the authors' file has it, with random values."""
    torch.manual_seed(0)
    detector = create("nanodet_m", NanoDetM.official_labels())
    state = {name.removeprefix("network."): tensor for name, tensor in detector.state_dict().items()}
    return {**state, "head.distribution_project.project": torch.arange(8.0)}


def saved(path, state):
    torch.save({"epoch": 1, "state_dict": state}, path)
    return path


def test_official_file_imports_with_every_tensor_accounted_for(tmp_path, official_state):
    detector, report = import_weights(saved(tmp_path / "n.pth", official_state), "nanodet_m")
    assert len(report.mapped) + len(report.unused) == len(official_state)
    assert [label.id for label in detector.labels][-1] == 90


def test_official_checkpoint_of_lightning_imports_too(tmp_path, official_state):
    """Its names begin with the attribute that held the model, and beside them lie objects of its own."""
    state = {f"model.{name}": tensor for name, tensor in official_state.items()}
    torch.save({"state_dict": state, "callbacks": {Label: Label(id=1, name="x")}}, tmp_path / "n.ckpt")
    _, report = import_weights(tmp_path / "n.ckpt", "nanodet_m")
    assert len(report.mapped) + len(report.unused) == len(official_state)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("fpn.lateral_convs.0.conv.bias"), r"missing network\.fpn\.lateral_convs\.0\.conv\.bias"),
        (lambda s: s.update(extra=torch.zeros(2)), r"left over network\.extra"),
        (lambda s: s.update({"fpn.lateral_convs.0.conv.bias": torch.zeros(7)}), r"bias \(7, not 96\)"),
        (lambda s: s.update({"fpn.lateral_convs.0.conv.bias": torch.full((96,), float("nan"))}), "NaN.*lateral_convs"),
        (lambda s: s.pop("head.gfl_cls.0.weight"), "not a NanoDet-m"),
    ],
)
def test_file_that_does_not_fit_is_refused_naming_the_tensors(tmp_path, official_state, change, message):
    state = dict(official_state)
    change(state)
    with pytest.raises(WeightsError, match=message):
        import_weights(saved(tmp_path / "n.pth", state), "nanodet_m")


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x02]q\x00."])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(WeightsError, match=r"x\.pth"):
        import_weights(tmp_path / "x.pth", "nanodet_m")


def test_truncated_file_is_refused(tmp_path, official_state):
    path = saved(tmp_path / "n.pth", official_state)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match="damaged"):
        import_weights(path, "nanodet_m")


def test_missing_file_says_so(tmp_path):
    with pytest.raises(WeightsError, match="cannot be read: No such file"):
        import_weights(tmp_path / "none.pth", "nanodet_m")


def test_written_weights_read_back_equal(tmp_path):
    torch.manual_seed(1)
    detector = create("nanodet_m", LABELS, (64, 96))
    write_weights(tmp_path / "w.safetensors", detector)
    again = read_weights(tmp_path / "w.safetensors")
    assert again.input_size == (64, 96)
    assert again.labels == LABELS
    for name, tensor in detector.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_written_weights_have_the_same_bytes_each_time(tmp_path):
    detector = create("nanodet_m", LABELS, (64, 64))
    write_weights(tmp_path / "a", detector)
    write_weights(tmp_path / "b", detector)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_safetensors_of_others_is_refused(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="not written by Edgejoule"):
        read_weights(tmp_path / "a.safetensors")


def test_weights_that_cannot_be_written_leave_nothing(tmp_path):
    detector = create("nanodet_m", LABELS, (64, 64))
    with pytest.raises(WeightsError, match="cannot be written"):
        write_weights(tmp_path / "none" / "w.safetensors", detector)
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(WeightsError, match="cannot be written"):
        write_weights(tmp_path / "w.safetensors", detector)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


def test_folder_of_no_known_form_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"is a folder without model\.json"):
        import_weights(tmp_path, "nanodet_m")


def test_command_reports_every_tensor_and_the_published_figures(tmp_path, official_state):
    path = saved(tmp_path / "n.pth", official_state)
    arguments = ["import", "nanodet_m", str(path), "--input", "64", "--into", str(tmp_path / "w.safetensors")]
    text = CliRunner().invoke(commands.app, arguments).stdout
    assert "none missing, none left over, 1 not needed" in text
    assert "NanoDet-m: 0.95 M parameters, 0.01 GMACs at 64x64, 80 categories." in text
    assert "Published, for COCO at 320x320: 0.95 M parameters, 0.36 GMACs, AP 0.206 on val2017" in text
    again = CliRunner().invoke(commands.app, ["import", "nanodet_m", str(tmp_path / "w.safetensors"), "--json"])
    answer = json.loads(again.stdout)
    assert answer["mapped"] == sorted(create("nanodet_m", LABELS).state_dict())
    assert (answer["missing"], answer["left_over"], answer["unused"]) == ([], [], {})
    assert (answer["parameters"], answer["input"]) == (950036, {"height": 64, "width": 64})
    assert answer["published"]["ap"] == 0.206
