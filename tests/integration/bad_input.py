"""Every kind of bad input we know of, as a person would meet it: a command, and the sentence it ends with.

``test_bad_input.py`` runs them all; ``docs/reference/errors.md`` is written from the sentences they gave
(``make docs``), so the page cannot say what the program does not.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx
import torch
import yaml
from started_once import TIMEOUT_S, StartedOnce

from edgejoule.records import Label
from edgejoule_trainer.data.generate import CATEGORIES, generate
from edgejoule_trainer.detectors import create
from edgejoule_trainer.export import export_onnx
from edgejoule_trainer.weights import read_weights, write_weights

PAGE = Path(__file__).parents[2] / "docs/reference/errors.md"
SPEC: dict[str, Any] = {
    "name": "small",
    "models": [{"detector": "nanodet_m", "weights": "weights.safetensors"}],
    "precisions": ["fp32"],
    "data": {
        "sources": {
            "train": {"images": "data/train", "annotations": "data/annotations/train.json"},
            "val": {"images": "data/val", "annotations": "data/annotations/val.json"},
        },
        "sets": {
            "calibration": {"source": "train", "count": 4},
            "tuning": {"source": "train", "count": 2},
            "evaluation": {"source": "val"},
        },
        "shards": 1,
    },
    "protocol": {"preset": "quick", "warmup_iterations": 1, "iterations": 2, "trials": 1},
}


class Workspace:
    """A folder with a sound spec, a small data set and weights, to be spoilt by a case."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = copy.deepcopy(SPEC)
        self.before: list[str] = []

    def path(self, name: str) -> Path:
        return self.folder / name

    def annotations(self, change: Callable[[dict[str, Any]], object], split: str = "val") -> None:
        """Change the parsed annotation file of a split."""
        path = self.path(f"data/annotations/{split}.json")
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    def image(self, index: int = 0) -> Path:
        """One of the validation images."""
        return sorted(self.path("data/val").iterdir())[index]

    def run(self, *options: str) -> list[str]:
        """Write the spec; the command that runs it."""
        self.path("spec.yaml").write_text(yaml.safe_dump(self.spec, sort_keys=False))
        return self.run_file(*options)

    def run_file(self, *options: str) -> list[str]:
        return ["run", "spec.yaml", "--out", "out", *options]

    def check(self) -> list[str]:
        return ["data", "check", "data/annotations/val.json", "data/val"]


@dataclass(frozen=True)
class Case:
    group: str
    title: str
    arrange: Callable[[Workspace], list[str]]
    says: str


CASES: list[Case] = []


def case(group: str, title: str, says: str) -> Callable[[Callable[[Workspace], list[str]]], None]:
    """Register a case; ``says`` is a pattern that the sentence must hold."""

    def register(arrange: Callable[[Workspace], list[str]]) -> None:
        CASES.append(Case(group, title, arrange, says))

    return register


def make_template(folder: Path) -> None:
    """What every workspace is a copy of."""
    generate(folder / "data", {"train": 8, "val": 4}, seed=3)
    torch.manual_seed(0)
    labels = [Label(**category) for category in CATEGORIES]
    write_weights(folder / "weights.safetensors", create("nanodet_m", labels, (64, 64)))


def environment() -> dict[str, str]:
    """What a person without a terminal has."""
    return {
        **{name: value for name, value in os.environ.items() if name != "EDGEJOULE_STORE"},
        "COLUMNS": "400",
        "OMP_NUM_THREADS": "1",
    }


def run(program: StartedOnce, workspace: Workspace, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run ``edgejoule`` in the workspace; where a command goes before it, as a program of its own."""
    if not workspace.before:
        return program.run(arguments, workspace.folder)
    return subprocess.run(
        [*workspace.before, str(Path(sys.executable).with_name("edgejoule")), *arguments],
        cwd=workspace.folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def sentence(workspace: Workspace, result: subprocess.CompletedProcess[str], says: str) -> str:
    """The line that says it, without a table's borders, the workspace's own path and the log's."""
    told = (result.stderr + result.stdout).replace(f"{workspace.folder.resolve()}/", "")
    lines = [" ".join(re.sub(r"\(log: .*\)|[│•]", " ", line).split()) for line in told.splitlines()]
    lines = [re.sub(r"^failed [0-9.:]+ s? ?", "", line) for line in lines]
    return next((line for line in lines if re.search(says, line)), "")


# --- spec ----------------------------------------------------------------------------------------


def _text(workspace: Workspace, content: str | bytes) -> list[str]:
    workspace.path("spec.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    return workspace.run_file()


case("Spec", "no such file", r"spec\.yaml.*no such file|no file.*spec\.yaml")(lambda w: w.run_file())
case("Spec", "binary garbage", r"spec\.yaml")(lambda w: _text(w, bytes(range(256)) * 4))
case("Spec", "broken YAML", r"spec\.yaml.*line 2|spec\.yaml:[23]")(lambda w: _text(w, "name: x\nmodels: [\n"))
case("Spec", "an empty file", r"mapping")(lambda w: _text(w, ""))
case("Spec", "a list", r"mapping")(lambda w: _text(w, "- a\n- b\n"))


@case("Spec", "a folder", r"spec\.yaml.*(folder|directory)")
def _(w: Workspace) -> list[str]:
    w.path("spec.yaml").mkdir()
    return w.run_file()


@case("Spec", "aliases that multiply (a billion laughs)", r"alias")
def _(w: Workspace) -> list[str]:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    return _text(w, "\n".join(lines))


def _changed(path: str, value: object) -> Callable[[Workspace], list[str]]:
    """The sound spec with one value changed; ``path`` is dotted."""

    def arrange(w: Workspace) -> list[str]:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        place: Any = w.spec
        for part in parents:
            place = place[part]
        place[last] = value
        return w.run()

    return arrange


case("Spec", "a misspelt key", r"unknown key 'precision'.*'precisions'")(_changed("precision", ["fp32"]))
case("Spec", "an unknown precision", r"int4.*fp32")(_changed("precisions", ["int4"]))
case("Spec", "a precision named twice", r"'fp32' is there 2 times")(_changed("precisions", ["fp32", "fp32"]))
case("Spec", "an unknown device", r"no device 'tpu'")(_changed("devices", ["tpu"]))
case("Spec", "an unknown detector", r"no detector 'nanodet_x'.*nanodet_m")(_changed("models.0.detector", "nanodet_x"))
case("Spec", "no models", r"models: is empty")(_changed("models", []))
case("Spec", "an input size the detector cannot have", r"input.*multiple of 32")(_changed("models.0.input", 100))
case("Spec", "a batch without an image", r"batch: must be.*not 0")(_changed("models.0.batch", [1, 0]))
case("Spec", "rows of a batch called as another model is", r"both be called 'nanodet_m-b4'.*a name of its own")(
    _changed("models", [SPEC["models"][0] | more for more in ({"batch": [1, 4]}, {"name": "nanodet_m-b4"})])
)
case("Spec", "a weights file that is not there", r"no file.*none\.pth")(_changed("models.0.weights", "none.pth"))
case("Spec", "an images folder that is not there", r"no folder.*none")(_changed("data.sources.val.images", "none"))
case("Spec", "an unset environment variable", r"NOT_SET_ANYWHERE is not set")(
    _changed("data.sources.val.images", "${NOT_SET_ANYWHERE}/val")
)
case("Spec", "an unknown preset", r"no preset 'fast'")(_changed("protocol", "fast"))
case("Spec", "a negative number of iterations", r"iterations.*-5")(
    _changed("protocol", {"preset": "quick", "iterations": -5})
)
case("Spec", "a number that is a word", r"seed.*'many'")(_changed("seed", "many"))
case("Spec", "a set of an unknown source", r"no source 'vall'.*'val'")(
    _changed("data.sets.evaluation", {"source": "vall"})
)
case("Spec", "no evaluation set", r"no evaluation set")(_changed("data.sets", {"train": {"source": "train"}}))


@case("Spec", "INT8 without a calibration set", r"int8-ptq needs a calibration set")
def _(w: Workspace) -> list[str]:
    w.spec["precisions"] = ["int8-ptq"]
    del w.spec["data"]["sets"]["calibration"]
    return w.run()


@case("Spec", "training without a train set", r"train set")
def _(w: Workspace) -> list[str]:
    w.spec["models"][0]["train"] = {"iterations": 1}
    return w.run()


@case("Spec", "INT8 made anew where no image is left to draw", r"takes all that is left.*give train a count")
def _(w: Workspace) -> list[str]:
    w.spec["precisions"] = ["int8-ptq"]
    w.spec["data"]["sets"]["train"] = {"source": "train"}
    w.spec["repeats"] = {"calibration": 3}
    return w.run()


@case("Spec", "more trainings than calibrations to go on from", r"qat: 3 trainings need as many calibrations")
def _(w: Workspace) -> list[str]:
    w.spec["precisions"] = ["int8-qat"]
    w.spec["data"]["sets"]["train"] = {"source": "train", "count": 2}
    w.spec["repeats"] = {"qat": 3}
    return w.run()


case("Spec", "repeats of what is not made", r"calibration: there is nothing to make anew")(
    _changed("repeats", {"calibration": 3})
)
case("Spec", "a malformed --set", r"--set.*key\.subkey=value")(lambda w: w.run("--set", "protocol.trials"))

# --- data ----------------------------------------------------------------------------------------


def _annotation(change: Callable[[dict[str, Any]], object]) -> Callable[[Workspace], list[str]]:
    def arrange(w: Workspace) -> list[str]:
        w.annotations(change)
        return w.check()

    return arrange


def _annotation_text(text: str) -> Callable[[Workspace], list[str]]:
    def arrange(w: Workspace) -> list[str]:
        w.path("data/annotations/val.json").write_text(text)
        return w.check()

    return arrange


case("Data", "annotations that are no JSON", r"val\.json")(_annotation_text("{'images': []"))
case("Data", "annotations nested a million deep", r"val\.json")(_annotation_text("[" * 1_000_000))
case("Data", "annotations without categories", r"'categories' is empty")(
    _annotation_text('{"images": [], "annotations": [], "categories": []}')
)
case("Data", "a box beyond the frame", r"pixels outside the")(
    _annotation(lambda c: c["annotations"][0].update(bbox=[300, 200, 500, 500]))
)
case("Data", "a box without an area", r"(area|width|height)")(
    _annotation(lambda c: c["annotations"][0].update(bbox=[10, 10, 0, 5]))
)
case("Data", "a box that is not a number", r"(finite|NaN|nan|number)")(
    _annotation(lambda c: c["annotations"][0].update(bbox=[float("nan"), 1, 5, 5]))
)
case("Data", "two images of one id", r"twice")(_annotation(lambda c: c["images"][1].update(id=c["images"][0]["id"])))
case("Data", "two annotations of one id", r"twice")(
    _annotation(lambda c: c["annotations"][1].update(id=c["annotations"][0]["id"]))
)
case("Data", "an unknown category", r"categor.*77|77.*categor")(
    _annotation(lambda c: c["annotations"][0].update(category_id=77))
)
case("Data", "an annotation of an unknown image", r"image.*424242|424242.*image")(
    _annotation(lambda c: c["annotations"][0].update(image_id=424242))
)
case("Data", "a size that is not the file's", r"999")(_annotation(lambda c: c["images"][0].update(width=999)))
case("Data", "a file name that leaves the folder", r"\.\./")(
    _annotation(lambda c: c["images"][0].update(file_name="../../secret.jpg"))
)


@case("Data", "a missing image", r"is not in the folder")
def _(w: Workspace) -> list[str]:
    w.image().unlink()
    return w.check()


@case("Data", "a truncated JPEG", r"truncated JPEG")
def _(w: Workspace) -> list[str]:
    w.image().write_bytes(w.image().read_bytes()[:2000])
    return w.check()


@case("Data", "an image that is a text", r"neither a JPEG nor a PNG")
def _(w: Workspace) -> list[str]:
    w.image().write_text("hello")
    return w.check()


@case("Data", "bad images in a run", r"truncated JPEG")
def _(w: Workspace) -> list[str]:
    w.image().write_bytes(w.image().read_bytes()[:2000])
    return w.run()


@case("Data", "calibration images that are evaluation images too", r"must be disjoint")
def _(w: Workspace) -> list[str]:
    shutil.copy(
        w.image(),
        w.path("data/train") / json.loads(w.path("data/annotations/train.json").read_text())["images"][0]["file_name"],
    )
    train, val = (json.loads(w.path(f"data/annotations/{split}.json").read_text()) for split in ("train", "val"))
    size = {key: val["images"][0][key] for key in ("width", "height")}
    first = train["images"][0]["id"]

    def same_picture(content: dict[str, Any]) -> None:
        content["images"][0].update(size)
        content["annotations"] = [a for a in content["annotations"] if a["image_id"] != first]

    w.annotations(same_picture, "train")
    w.spec["data"]["sets"]["calibration"]["count"] = 6
    return w.run()


@case("Data", "more images asked for than there are", r"500")
def _(w: Workspace) -> list[str]:
    w.spec["data"]["sets"]["calibration"]["count"] = 500
    return w.run()


@case("Data", "too few images to calibrate on others by each seed", r"draws 4 images anew from source 'train'")
def _(w: Workspace) -> list[str]:
    w.spec["precisions"] = ["int8-ptq"]
    w.spec["repeats"] = {"calibration": 2}
    return w.run()


# --- weights -------------------------------------------------------------------------------------


@cache
def _official_state() -> dict[str, torch.Tensor]:
    detector = create("nanodet_m", [Label(id=i, name=str(i)) for i in range(1, 81)])
    return {name.removeprefix("network."): tensor for name, tensor in detector.state_dict().items()}


def _official(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Workspace], list[str]]:
    def arrange(w: Workspace) -> list[str]:
        state = dict(_official_state())
        change(state)
        torch.save({"state_dict": state}, w.path("w.pth"))
        return ["weights", "import", "nanodet_m", "w.pth"]

    return arrange


LATERAL = "fpn.lateral_convs.0.conv.bias"
case("Weights", "a tensor is missing", r"missing network\.fpn")(_official(lambda s: s.pop(LATERAL)))
case("Weights", "a tensor too many", r"left over network\.extra")(_official(lambda s: s.update(extra=torch.zeros(1))))
case("Weights", "a tensor of another shape", r"7, not 96")(_official(lambda s: s.update({LATERAL: torch.zeros(7)})))
case("Weights", "NaN in a tensor", r"NaN")(_official(lambda s: s.update({LATERAL: torch.full((96,), torch.nan)})))
case("Weights", "of another detector", r"not a\s+NanoDet-m")(
    _official(lambda s: s.clear() or s.update(a=torch.zeros(1)))
)


def _weights_bytes(content: bytes) -> Callable[[Workspace], list[str]]:
    def arrange(w: Workspace) -> list[str]:
        w.path("w.pth").write_bytes(content)
        return ["weights", "import", "nanodet_m", "w.pth"]

    return arrange


class _Payload:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch was-run",)


case("Weights", "an empty file", r"w\.pth has 0 bytes")(_weights_bytes(b""))
case("Weights", "a text file", r"w\.pth")(_weights_bytes(b"these are not weights"))
case("Weights", "a pickle that runs code", r"could run code")(_weights_bytes(pickle.dumps(_Payload(), 2)))


@case("Weights", "a truncated file", r"damaged")
def _(w: Workspace) -> list[str]:
    arguments = _official(lambda s: None)(w)
    w.path("w.pth").write_bytes(w.path("w.pth").read_bytes()[:100_000])
    return arguments


@case("Weights", "a zip bomb", r"unpacks to")
def _(w: Workspace) -> list[str]:
    with zipfile.ZipFile(w.path("w.pth"), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\0" * (64 << 20))
    return ["weights", "import", "nanodet_m", "w.pth"]


def _saved(content: object) -> Callable[[Workspace], list[str]]:
    def arrange(w: Workspace) -> list[str]:
        torch.save(content, w.path("w.pt"))
        return ["weights", "import", "nanodet_m", "w.pt"]

    return arrange


case("Weights", "a state dict that runs code", r"'a' would be made by .*system, which could run code")(
    _saved({"state_dict": {"a": _Payload()}})
)
case("Weights", "a file of something else", r"holds a list, not a state dict")(_saved([1, 2]))


@case("Weights", "an archive with an entry twice", r"two entries of one name")
def _(w: Workspace) -> list[str]:
    arguments = _official(lambda s: None)(w)
    with zipfile.ZipFile(w.path("w.pth"), "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr("w/data.pkl", b"another")
    return arguments


@case("Weights", "a tensor beyond its stored numbers", r"conv\.bias is no view of its 96 stored numbers")
def _(w: Workspace) -> list[str]:
    arguments = _official(lambda s: s.update({LATERAL: torch.zeros(96)}))(w)
    with zipfile.ZipFile(w.path("w.pth")) as archive:
        entries = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    at = entries["w/data.pkl"].index(LATERAL.encode())
    rest = entries["w/data.pkl"][at:]  # size (96,) and stride (1,) of the tensor behind its name
    entries["w/data.pkl"] = entries["w/data.pkl"][:at] + rest.replace(b"K\x60\x85", b"K\x61\x85", 1)
    with zipfile.ZipFile(w.path("w.pth"), "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return arguments


@case("Weights", "a folder of something else", r"a folder without model\.json .* or an \.index file")
def _(w: Workspace) -> list[str]:
    return ["weights", "import", "ssd_mobilenet_v2", "data"]


@case("Weights", "a TensorFlow.js model without its shards", r"shard.*cannot be read")
def _(w: Workspace) -> list[str]:
    weights = [{"name": "a", "shape": [1], "dtype": "float32"}]
    manifest = {"weightsManifest": [{"paths": ["group1-shard1of1"], "weights": weights}]}
    w.path("model.json").write_text(json.dumps(manifest))
    return ["weights", "import", "ssd_mobilenet_v2", "model.json"]


@case("Weights", "a model.json without its folder, in a run", r"needs the files beside it; give the folder")
def _(w: Workspace) -> list[str]:
    w.path("tfjs").mkdir()
    w.path("tfjs/model.json").write_text("{}")
    w.spec["models"][0]["weights"] = "tfjs/model.json"
    return w.run()


@case("Weights", "a truncated TensorFlow checkpoint", r"model\.ckpt\.index was not read")
def _(w: Workspace) -> list[str]:
    w.path("model.ckpt.index").write_bytes(b"\0\1\2")
    return ["weights", "import", "ssd_mobilenet_v2", "model.ckpt"]


@case("Weights", "an ONNX file that is none", r"w\.onnx")
def _(w: Workspace) -> list[str]:
    w.path("w.onnx").write_text("no graph")
    return ["weights", "import", "yolov5n", "w.onnx"]


case("Weights", "an input size the detector cannot have", r"multiple of 32 in both directions, not 100x100")(
    lambda w: [*_official(lambda s: None)(w), "--input", "100"]
)
case("Weights", "a place that cannot be written", r"none/w\.safetensors cannot be written")(
    lambda w: [*_official(lambda s: None)(w), "--into", "none/w.safetensors"]
)
case("Weights", "fetching for an unknown detector", r"no official weights of 'yolov9'.*yolov5n")(
    lambda w: ["weights", "fetch", "yolov9"]
)
case("Weights", "fetching from an address that is none", r"must begin with http")(
    lambda w: ["weights", "fetch", "yolov5n", "--base-url", "ftp://mirror"]
)


@case("Weights", "fetching where another file of that name is", r"yolov5n\.pt is there and is another file")
def _(w: Workspace) -> list[str]:
    w.path("yolov5n.pt").write_text("mine")
    return ["weights", "fetch", "yolov5n", "--into", "."]


@case("Weights", "weights that do not fit, in a run", r"not written by Edgejoule|damaged")
def _(w: Workspace) -> list[str]:
    w.path("weights.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    return w.run()


# --- ONNX ----------------------------------------------------------------------------------------


@cache
def _exported(weights: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "weights.safetensors").write_bytes(weights)
        detector = read_weights(folder / "weights.safetensors")
        return export_onnx(detector, folder / "m.onnx", detector.manifest()).SerializeToString()


def _onnx(change: Callable[[onnx.ModelProto], object]) -> Callable[[Workspace], list[str]]:
    def arrange(w: Workspace) -> list[str]:
        model = onnx.load_from_string(_exported(w.path("weights.safetensors").read_bytes()))
        change(model)
        w.path("m.onnx").write_bytes(model.SerializeToString())
        return ["model", "check", "m.onnx"]

    return arrange


def _onnx_bytes(content: bytes) -> Callable[[Workspace], list[str]]:
    def arrange(w: Workspace) -> list[str]:
        w.path("m.onnx").write_bytes(content)
        return ["model", "check", "m.onnx"]

    return arrange


def _other_operator(model: onnx.ModelProto) -> None:
    node = next(node for node in model.graph.node if node.op_type == "LeakyRelu")
    del node.attribute[:]
    node.op_type = "HardSwish"
    model.opset_import[0].version = 14


case("ONNX", "no such file", r"m\.onnx.*[Nn]o such file")(lambda w: ["model", "check", "m.onnx"])
case("ONNX", "a text file", r"m\.onnx: not a valid ONNX")(_onnx_bytes(b"this is not a graph"))
case("ONNX", "without Edgejoule's metadata", r"m\.onnx.*(metadata|manifest)")(
    _onnx(lambda m: m.ClearField("metadata_props"))
)
case("ONNX", "an output of another name", r"boxes")(
    _onnx(
        lambda m: (
            setattr(m.graph.output[0], "name", "rectangles"),
            m.graph.node.append(onnx.helper.make_node("Identity", ["boxes"], ["rectangles"])),
        )
    )
)
case("ONNX", "an operator that TensorRT 8.2 lacks", r"HardSwish.*not an operator of TensorRT 8\.2")(
    _onnx(_other_operator)
)

# --- folders, disks, stores ----------------------------------------------------------------------


def _without_root_powers(w: Workspace) -> None:
    """Root reads and writes everything; take just that power away."""
    if os.geteuid() == 0:
        caps = "-dac_override,-dac_read_search"
        w.before = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]


@case("Folders", "an output folder that cannot be written", r"no permission")
def _(w: Workspace) -> list[str]:
    w.path("closed").mkdir(mode=0o555)
    _without_root_powers(w)
    w.run()
    return ["run", "spec.yaml", "--out", "closed/out"]


@case("Folders", "an annotation file that cannot be read", r"Permission denied")
def _(w: Workspace) -> list[str]:
    w.path("data/annotations/val.json").chmod(0)
    _without_root_powers(w)
    return w.run()


@case("Folders", "an images folder that cannot be read", r"Permission denied")
def _(w: Workspace) -> list[str]:
    w.path("data/val").chmod(0)
    _without_root_powers(w)
    return w.run()


@case("Folders", "a store that is a file", r"store.*(file|folder)")
def _(w: Workspace) -> list[str]:
    w.path("store").write_text("")
    return w.run("--store", "store")


@case("Folders", "a full disk", r"(full|no space)")
def _(w: Workspace) -> list[str]:
    w.path("full").mkdir()
    w.run()
    inside = 'mount -t tmpfs -o size=200k none full && exec "$@"'
    w.before = ["unshare", "--mount", "--map-root-user", "sh", "-c", inside, "sh"]
    return w.run_file("--store", "full/store")


@case("Results", "a run that is not there", r"no store|no run")
def _(w: Workspace) -> list[str]:
    return ["status", "yesterday"]


@case("Results", "results that are no JSON", r"results\.json")
def _(w: Workspace) -> list[str]:
    w.path("results.json").write_text("almost")
    return ["report", "results.json"]


@case("Results", "results of something else", r"results\.json")
def _(w: Workspace) -> list[str]:
    w.path("results.json").write_text('{"rows": []}')
    return ["report", "results.json"]


EMPTY_RESULTS: dict[str, Any] = {
    "format": 1,
    "run": "mine",
    "edgejoule_version": "0.1.0",
    "spec": {},
    "rows": [],
    "differences": [],
    "evidence": {},
    "data": {},
    "notes": [],
}


def _with_results(w: Workspace) -> None:
    w.path("results.json").write_text(json.dumps(EMPTY_RESULTS))


@case("Results", "a report into a folder that is not there", r"nowhere/report\.html cannot be written")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["report", "results.json", "--html", "nowhere/report.html"]


@case("Results", "an export into a file", r"results\.json.* cannot be written")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["report", "results.json", "--export", "results.json"]


@case("Decisions", "a run that is not there", r"there is no .*elsewhere")
def _(w: Workspace) -> list[str]:
    return ["recommend", "elsewhere"]


@case("Decisions", "a limit of AP in points", r"--min-ap50|limit of ap50")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json", "--min-ap50", "40"]


@case("Decisions", "a limit that nothing can keep", r"the limit of latency is 0; give a number above 0")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json", "--max-latency", "0"]


@case("Decisions", "a run without rows", r"no row to choose from")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json"]


@case("Decisions", "a gate on no metric", r"--fail-on speed")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["compare", "results.json", "results.json", "--fail-on", "speed:5%"]


@case("Decisions", "a gate of AP in percent", r"ap50 takes points of 100")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["compare", "results.json", "results.json", "--fail-on", "ap50:5%"]


@case("Decisions", "a metric gated twice", r"names latency more than once")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["compare", "results.json", "results.json", "--fail-on", "latency:5%", "--fail-on", "latency"]


@case("Decisions", "a weight of no metric", r"there is no metric 'speed' to weigh")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json", "--weight", "speed:2", "--weight", "ap50:1"]


@case("Decisions", "a weight below 0", r"--weight latency:-1 is not METRIC:WEIGHT")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json", "--weight", "ap50:1", "--weight", "latency:-1"]


@case("Decisions", "weights that are all 0", r"every weight is 0")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json", "--weight", "ap50:0", "--weight", "latency:0"]


@case("Decisions", "one weight alone", r"names ap50 alone")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json", "--weight", "ap50:1"]


@case("Decisions", "two runs to choose from", r"takes RUN and options")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["recommend", "results.json", "results.json"]


@case("Decisions", "a confidence of 95", r"--confidence 95")
def _(w: Workspace) -> list[str]:
    _with_results(w)
    return ["compare", "results.json", "results.json", "--confidence", "95"]


# --- the page ------------------------------------------------------------------------------------


def page(told: dict[str, str]) -> str:
    """docs/reference/errors.md, from each case's title and sentence."""
    lines = [
        "# Errors",
        "",
        "What Edgejoule says when something is wrong with what it is given. Written by `make docs` from",
        "`tests/integration/bad_input.py`, which makes each mistake and checks that the command ends with this",
        "sentence, a non-zero exit code and no traceback.",
    ]
    for group in dict.fromkeys(case.group for case in CASES):
        lines += ["", f"## {group}", "", "| mistake | what is said |", "|---|---|"]
        lines += [
            f"| {case.title} | {_cell(told[f'{case.group}: {case.title}'])} |" for case in CASES if case.group == group
        ]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def outcome(
    case: Case, program: StartedOnce, template: Path, folder: Path
) -> tuple[subprocess.CompletedProcess[str], str]:
    """Make the mistake in a fresh workspace; what came of it, and the sentence."""
    shutil.copytree(template, folder, dirs_exist_ok=True)
    workspace = Workspace(folder)
    arguments = case.arrange(workspace)
    result = run(program, workspace, arguments)
    return result, sentence(workspace, result, case.says)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/reference/errors.md from the sentences the program gives.")
    parser.parse_args()
    told = {}
    with tempfile.TemporaryDirectory() as name, StartedOnce(environment()) as program:
        template = Path(name) / "template"
        make_template(template)
        for index, each in enumerate(CASES):
            _, told[f"{each.group}: {each.title}"] = outcome(each, program, template, Path(name) / str(index))
    PAGE.write_text(page(told), encoding="utf-8")


if __name__ == "__main__":
    main()
