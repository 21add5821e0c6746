"""The spec: what a person wants, read from YAML, with the file and line in every complaint.

A relative path is relative to the spec file. ``${NAME}`` and ``${NAME:-default}`` in a path take the
environment's value. Every problem is found before anything runs, and all of them are told at once.
"""

from __future__ import annotations

import difflib
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_serializer,
)
from pydantic_core import ErrorDetails

from edgejoule.devices import IN_MODE, known
from edgejoule.errors import SpecError
from edgejoule.plan import at_batch
from edgejoule.protocols import DERIVED, PRESETS, Protocol
from edgejoule.yamltree import Location, Tree, parse_yaml, read_yaml, shown

Precision = Literal["fp32", "fp16", "int8-ptq", "int8-qat", "fp32-qat", "fp16-qat"]
Calibrator = Literal[
    "minmax", "percentile_99.9", "percentile_99.99", "percentile_99.999", "entropy", "mse", "sensitivity"
]
Scorer = Literal["hotcoco", "pycocotools"]
Role = Literal["train", "calibration", "tuning", "evaluation"]
CALIBRATORS: tuple[Calibrator, ...] = get_args(Calibrator)
TUNING_IMAGES = 64

_LISTS_OF_FILES = (".json", ".index")  # of TensorFlow.js models and TensorFlow checkpoints

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")


def _expand(text: str, environment: Mapping[str, str]) -> str:
    def value(match: re.Match[str]) -> str:
        name, default = match.groups()
        found = environment.get(name) or default
        if found is None:
            raise ValueError(
                f"environment variable {name} is not set or empty; export it, or write ${{{name}:-default}}"
            )
        return found

    return _VARIABLE.sub(value, text)


def _absolute(value: Any, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError(f"must be a path, not {shown(value)}")
    context: Mapping[str, Any] = info.context or {}
    path = Path(_expand(value, context["environment"])).expanduser()
    return Path(os.path.normpath(context["folder"] / path))


def _existing_file(value: Any, info: ValidationInfo) -> Path:
    path = _absolute(value, info)
    if not path.is_file():
        raise ValueError(f"{path} is a folder, not a file" if path.is_dir() else f"there is no file {path}")
    return path


def _existing_folder(value: Any, info: ValidationInfo) -> Path:
    path = _absolute(value, info)
    if not path.is_dir():
        raise ValueError(f"{path} is a file, not a folder" if path.is_file() else f"there is no folder {path}")
    return path


def _existing_weights(value: Any, info: ValidationInfo) -> Path:
    """A file that is whole by itself, or a folder: both have a hash that all their bytes decide."""
    path = _absolute(value, info)
    if not path.exists():
        raise ValueError(f"there is no file {path}, nor a folder of that name")
    if path.is_file() and path.suffix in _LISTS_OF_FILES:
        raise ValueError(f"{path} needs the files beside it; give the folder they lie in, {path.parent}")
    return path


FileInput = Annotated[Path, BeforeValidator(_existing_file)]
WeightsInput = Annotated[Path, BeforeValidator(_existing_weights)]
FolderInput = Annotated[Path, BeforeValidator(_existing_folder)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Count = Annotated[int, Field(ge=1, strict=True)]
Threads = Annotated[int, Field(ge=1, le=1024, strict=True)]
SEEDS = 2**32
Seed = Annotated[int, Field(ge=0, le=SEEDS - 1, strict=True)]
Times = Annotated[int, Field(ge=1, le=100, strict=True)]
Side = Annotated[int, Field(ge=32, le=4096, multiple_of=32, strict=True)]
Batch = Annotated[int, Field(ge=1, le=256, strict=True)]


class Section(BaseModel):
    """Base: an unknown key is an error, and so is a number that is none."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Augmentation(Section):
    """Ranges from which each training view is drawn; the defaults are the paper's."""

    flip: float = Field(default=0.5, ge=0, le=1, strict=True, description="probability of a mirror image")
    zoom: tuple[float, float] = Field(default=(0.5, 1.5), description="least and greatest factor on the fitted size")
    jitter: float = Field(default=0.2, ge=0, lt=1, strict=True, description="greatest relative change of light")

    @field_validator("zoom")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"must be two numbers above 0, the lesser first, not {list(value)}")
        return value


class Training(Section):
    """What both kinds of training say of how they are computed."""

    augmentation: Augmentation = Field(default=Augmentation(), description="how training views vary")
    threads: Threads = Field(default=2, description="CPU threads of the training process; part of the result's key")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto takes CUDA where there is some")
    workers: Annotated[int, Field(ge=1, le=64, strict=True)] = Field(
        default=1, description="threads that decode and augment images; the result does not depend on them"
    )
    deterministic: bool = Field(
        default=False, strict=True, description="equal bytes on each CUDA run, at some cost in time"
    )

    def compute(self) -> dict[str, Any]:
        """How it is computed, as the parameters of a step have it."""
        return self.model_dump(mode="json", include={"device", "workers", "deterministic"})


class Train(Training):
    """A training run; it starts from the model's ``weights`` where those are given."""

    iterations: Count = Field(description="optimizer steps")
    batch: Count = Field(default=16, description="images per step")
    learning_rate: float = Field(
        0.001, gt=0, le=10, strict=True, description="peak, after a linear warm-up; then a cosine"
    )
    warmup_iterations: Annotated[int, Field(ge=0, strict=True)] = Field(50, description="steps of the linear warm-up")
    gradient_clip: float = Field(
        default=1.0,
        gt=0,
        strict=True,
        description="greatest norm of a gradient; of the first steps Adam would remember a larger one for long",
    )
    frozen_norms: float = Field(
        default=0.2,
        ge=0,
        le=1,
        strict=True,
        description="share of the steps, at the end, that train with batch norms' running statistics",
    )
    channels_last: bool = Field(default=False, strict=True, description="memory layout NHWC, faster on many devices")
    mixed_precision: bool = Field(
        False, strict=True, description="convolutions in bfloat16, or float16 with loss scaling where there is none"
    )

    def recipe(self) -> dict[str, Any]:
        """What is computed, but for the seed."""
        values = {
            "iterations",
            "batch",
            "learning_rate",
            "warmup_iterations",
            "gradient_clip",
            "frozen_norms",
            "augmentation",
        }
        return self.model_dump(mode="json", include=values)

    def compute(self) -> dict[str, Any]:
        layout = {"channels_last": self.channels_last, "mixed_precision": self.mixed_precision}
        return {**super().compute(), **layout}


class Qat(Training):
    """Quantization-aware training, from the graph that post-training quantization made.

    Always in float32 and the plain memory layout: it simulates one arithmetic, and others would simulate another.
    """

    preset: Literal["paper", "short"] = Field(
        default="paper",
        description="paper: the paper's Table 5; short: a few hundred images or a few minutes are enough",
    )
    iterations: Count = Field(default=10_000, description="optimizer steps")
    batch: Count = Field(default=16, description="images per step")
    learning_rate: float = Field(
        default=1e-4, gt=0, le=10, strict=True, description="Adam's, at the start of a cosine to 0"
    )
    average_decay: float = Field(
        default=0.0, ge=0, lt=1, strict=True, description="of a running average of the weights; 0 takes the last ones"
    )
    distillation: float = Field(
        default=0.0,
        ge=0,
        le=1,
        strict=True,
        description="share of the loss that compares with the float detector's own answers; at 1 no label is read",
    )

    def recipe(self) -> dict[str, Any]:
        """What is computed, but for the seed. Adam is AdamW without decay, and the weights are warm already."""
        values = {"iterations", "batch", "learning_rate", "average_decay", "distillation", "augmentation"}
        return {**self.model_dump(mode="json", include=values), "weight_decay": 0.0, "warmup_iterations": 0}


QAT_PRESETS: dict[str, dict[str, Any]] = {
    "paper": {},  # its Table 5 and section 3.3, the defaults of Qat; no averaging, no distillation
    "short": {
        "iterations": 200,
        "batch": 8,
        "learning_rate": 2e-5,
        "average_decay": 0.98,
        "distillation": 1.0,
        "augmentation": {"zoom": [0.8, 1.2]},
    },
}
"""What each preset changes; a spec's own values come before it."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _or_several(one: Any) -> dict[str, Any]:
    """What a spec's author may write for an axis of a model: a value, or a list of such."""
    schema = TypeAdapter(one).json_schema()
    return {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}


Sides = Annotated[list[Side], Field(min_length=1), BeforeValidator(_listed), WithJsonSchema(_or_several(Side))]
Batches = Annotated[list[Batch], Field(min_length=1), BeforeValidator(_listed), WithJsonSchema(_or_several(Batch))]


class Model(Section):
    """One detector with its weights: imported, trained here, or both."""

    detector: str = Field(description="which detector, e.g. nanodet_m")
    name: Name = Field("", description="what its rows are called; the detector's name where not given")
    weights: WeightsInput | None = Field(
        None, description="file to import, or a folder of several that belong together; may be left out with train"
    )
    input: Sides | None = Field(
        None,
        description="side of the square network input in pixels, the detector's own where not given; or a list: a "
        "model for each, trained and quantized apart, called `NAME-SIDE`",
    )
    batch: Batches = Field(
        default=1,
        validate_default=True,
        description="images that one inference takes; or a list: rows for each, with the same weights and scales; "
        "above 1 they are called `NAME-bBATCH`",
    )
    train: Train | None = Field(None, description="train here, from weights or from scratch")

    @property
    def side(self) -> int | None:
        """The side of its input, where it has but one; ``None``: the detector's own."""
        return None if self.input is None else self.input[0]

    def at_each_input(self) -> list[Model]:
        """A model of each of its inputs; where these are several, the name says which."""
        if self.input is None or len(self.input) == 1:
            return [self]
        return [self.model_copy(update={"name": f"{self.name}-{side}", "input": [side]}) for side in self.input]

    @model_serializer(mode="wrap")
    def _as_written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """One value as such, no list; a batch of 1 goes without saying, as in specs of before there was another."""
        values: dict[str, Any] = handler(self)
        for axis in ("input", "batch"):
            if len(values.get(axis) or ()) == 1:
                values[axis] = values[axis][0]
        if values.get("batch") == 1:
            del values["batch"]
        return values


class DeviceChoice(Section):
    """A device, and the power mode to measure it in. A name alone measures it as it is."""

    name: str = Field(description="host, another device that is known here, or one that the stack's gateway serves")
    power_mode: Name | None = Field(
        default=None, description="of a Jetson, as nvpmodel calls it; put on for each measurement, and back after it"
    )

    @property
    def label(self) -> str:
        """What its rows call it."""
        return self.name if self.power_mode is None else f"{self.name}{IN_MODE}{self.power_mode}"

    @model_serializer
    def _as_written(self) -> Any:
        return self.name if self.power_mode is None else {"name": self.name, "power_mode": self.power_mode}


def _by_name(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _choice_schema() -> dict[str, Any]:
    """What a spec's author may write for a device: its name, or a mapping."""
    return {"anyOf": [{"type": "string"}, DeviceChoice.model_json_schema()]}


class DataSource(Section):
    """A folder of images and the COCO-format JSON file that describes them."""

    images: FolderInput = Field(description="folder that the file names in the annotations start from")
    annotations: FileInput = Field(description="COCO-format JSON file")


class DataSet(Section):
    """Images drawn from a source: ``count`` of them by the seed, or all that other sets left."""

    source: str = Field(description="one of data.sources")
    count: Count | None = Field(None, description="how many images are drawn")


class Data(Section):
    """The sources, and the up to four disjoint sets drawn from them."""

    sources: dict[Name, DataSource] = Field(min_length=1, description="by a name of your choice")
    sets: dict[Role, DataSet] = Field(
        description="evaluation always; calibration and tuning for INT8; train for models that are trained"
    )
    skip_bad: bool = Field(False, strict=True, description="leave bad images and bad boxes out and record which")
    shards: Annotated[int, Field(ge=1, le=999, strict=True)] = Field(
        4, description="parts of the evaluation set, predicted in parallel"
    )


class Quantization(Section):
    """How INT8 is made. The tuning set chooses among the calibrators; the evaluation set never does."""

    calibrators: list[Calibrator] = Field(default=list(CALIBRATORS), min_length=1, description="those to try")
    threads: Threads = Field(default=2, description="CPU threads of the quantizer; part of the result's key")


class Repeats(Section):
    """INT8 made anew by other seeds, to tell what a difference in accuracy owes to chance; 1 does nothing again.

    Images to calibrate on are drawn anew from those of their source that no other set has.
    """

    calibration: Times = Field(default=1, description="calibrations of each model in all, the row's own among them")
    qat: Times = Field(
        default=1,
        description="trainings of int8-qat in all, each from the calibration by its seed; so no more than those",
    )


def _protocol_schema() -> dict[str, Any]:
    """What a spec's author may write for the protocol: a preset's name, or a mapping."""
    values = Protocol.model_json_schema()["properties"]
    keys = {"preset": {"enum": list(PRESETS)}, **{key: values[key] for key in values if key not in DERIVED}}
    return {"anyOf": [{"enum": list(PRESETS)}, {"type": "object", "properties": keys, "additionalProperties": False}]}


class Spec(Section):
    """Models x precisions x devices, on these data, measured by this protocol."""

    name: Name = Field(description="what the run is called")
    models: list[Model] = Field(min_length=1, description="the detectors to compare")
    precisions: list[Precision] = Field(min_length=1, description="each model in each of these")
    devices: list[Annotated[DeviceChoice, BeforeValidator(_by_name), WithJsonSchema(_choice_schema())]] = Field(
        default=[DeviceChoice(name="host")],
        min_length=1,
        description="where to measure: a name, or a mapping where it has more to say; host is this machine",
    )
    data: Data = Field(description="images to calibrate, tune, train and evaluate with")
    protocol: Annotated[Protocol, WithJsonSchema(_protocol_schema())] = Field(
        PRESETS["standard"], description="how to measure: a preset's name, or see Protocol"
    )
    quantization: Quantization = Field(default=Quantization(), description="how INT8 is made")
    qat: Qat = Field(default=Qat(), description="how weights are trained for the precisions that end in -qat")
    repeats: Repeats = Field(
        default=Repeats(), description="INT8 made anew by other seeds; what is made so is scored, and not timed"
    )
    scorer: Scorer = Field("hotcoco", description="which program computes AP; pycocotools is the slow reference")
    seed: Seed | None = Field(None, description="of every random choice; the protocol's where not given")
    threads: Threads = Field(1, description="CPU threads of inference")

    @field_validator("protocol", mode="before")
    @classmethod
    def _from_preset(cls, value: Any) -> Any:
        """A preset's name, or a mapping with ``preset`` and the values to change."""
        changes = {"preset": value} if isinstance(value, str) else value
        if isinstance(changes, dict):
            preset = changes.get("preset", "standard")
            if not isinstance(preset, str) or preset not in PRESETS:
                raise ValueError(f"there is no preset {shown(preset)}{_nearest(preset, PRESETS)}")
            for fixed in DERIVED:
                if fixed in changes:
                    raise ValueError(f"{fixed!r} follows from the preset and cannot be set")
            return {**PRESETS[preset].model_dump(), **{k: v for k, v in changes.items() if k != "preset"}}
        if isinstance(value, Protocol):
            return value
        raise ValueError(f"must be a preset ({', '.join(PRESETS)}) or a mapping, not {shown(value)}")

    @field_validator("protocol", mode="after")
    @classmethod
    def _say_that_values_differ(cls, value: Protocol) -> Protocol:
        return value if value == PRESETS[value.name] else value.model_copy(update={"name": value.name + "*"})

    @field_validator("qat", mode="before")
    @classmethod
    def _qat_from_preset(cls, value: Any) -> Any:
        """A preset's name, or a mapping with ``preset`` and the values to change."""
        changes = {"preset": value} if isinstance(value, str) else value
        if not isinstance(changes, dict):
            return changes
        preset = changes.get("preset", "paper")
        if not isinstance(preset, str) or preset not in QAT_PRESETS:
            raise ValueError(f"there is no preset {shown(preset)}{_nearest(preset, QAT_PRESETS)}")
        return {**QAT_PRESETS[preset], **changes}

    @property
    def random_seed(self) -> int:
        """The seed of every random choice of the run."""
        return self.protocol.seed if self.seed is None else self.seed

    def seeds(self, times: int) -> list[int]:
        """The seeds of as many repeats, the run's own first."""
        return [(self.random_seed + number) % SEEDS for number in range(times)]

    def set_size(self, role: Role) -> int | None:
        """How many images of ``role`` are drawn; ``None``: all that is left of its source."""
        asked = self.data.sets[role].count
        if asked is None and role == "calibration":
            return self.protocol.calibration_images
        if asked is None and role == "tuning":
            return TUNING_IMAGES
        return asked


def load_spec(path: Path, settings: Sequence[str] = (), environment: Mapping[str, str] = os.environ) -> Spec:
    """The spec in file ``path``, with ``a.b.c=value`` settings laid over it.

    Raises:
        SpecError: the file cannot be read, is no YAML, or has problems; one line for each of them.
    """
    return check_spec(read_tree(path, settings), path.absolute().parent, environment)


def read_tree(path: Path, settings: Sequence[str] = ()) -> Tree:
    """The spec as written: plain values, and where each was said."""
    tree = read_yaml(path)
    for setting in settings:
        _apply(tree, setting)
    return tree


def check_spec(
    tree: Tree, folder: Path, environment: Mapping[str, str] = os.environ, served: Sequence[str] = ()
) -> Spec:
    """``tree`` as a spec whose relative paths start at ``folder``.

    Args:
        served: devices that can be had beside those known here: the boards of a stack.

    Raises:
        SpecError: with one line for each problem.
    """
    if not isinstance(tree.value, dict):
        raise SpecError(f"{tree.where(())}: a spec is a mapping (name:, models:, ...), not {shown(tree.value)}")
    try:
        spec = Spec.model_validate(tree.value, context={"folder": folder, "environment": environment})
    except ValidationError as error:
        problems = [_sentence(detail) for detail in error.errors(include_url=False)]
    else:
        spec = spec.model_copy(
            update={"models": [m if m.name else m.model_copy(update={"name": m.detector}) for m in spec.models]}
        )
        problems = list(_contradictions(spec, [*known(), *served]))
    if problems:
        raise SpecError("\n".join(f"{tree.where(location)}: {sentence}" for location, sentence in problems))
    return spec


def as_written(spec: Spec, tree: Tree) -> dict[str, Any]:
    """All values of the spec, defaults included, with paths as their author wrote them.

    This goes into the results, so that two people with the data in different folders get equal files.
    """
    values: dict[str, Any] = spec.model_dump(mode="json")
    values["seed"] = spec.random_seed
    for index, model in enumerate(values["models"]):
        model["weights"] = tree.value["models"][index].get("weights")
    for name, source in values["data"]["sources"].items():
        source.update(tree.value["data"]["sources"][name])
    return values


# --- settings ------------------------------------------------------------------------------------


def _apply(tree: Tree, setting: str) -> None:
    """Lay ``a.b.0.c=value`` over the tree; the value is read as YAML."""
    dotted, equals, text = setting.partition("=")
    keys: Location = tuple(int(k) if k.isdigit() else k for k in dotted.strip().split("."))
    origin = f"--set {setting}"
    if not equals or "" in keys:
        raise SpecError(f"{origin}: must look like key.subkey=value, e.g. --set protocol.iterations=100")
    value = parse_yaml(text, origin).value
    parent = tree.value
    for depth, key in enumerate(keys):
        if keys[:depth] == ("protocol",) and isinstance(parent, str):
            parent = tree.value["protocol"] = {"preset": parent}
        if isinstance(parent, list) and isinstance(key, int) and key < len(parent):
            pass
        elif isinstance(parent, dict) and isinstance(key, str):
            parent.setdefault(key, {})
        else:
            said = ".".join(map(str, keys[:depth])) or "the spec"
            raise SpecError(f"{origin}: {said} has no part {key!r}; it is {shown(parent)}")
        if depth == len(keys) - 1:
            parent[key] = value
        else:
            parent = parent[key]
    for location in [location for location in tree.origins if location[: len(keys)] == keys]:
        del tree.origins[location]
    tree.origins[keys] = origin


# --- what is wrong, in words ---------------------------------------------------------------------


def _contradictions(spec: Spec, devices: Sequence[str]) -> Iterator[tuple[Location, str]]:
    """What no single value shows."""
    yield from _of_names(spec.models)
    yield from _repeated(("precisions",), spec.precisions, "name it once")
    yield from _repeated(("devices",), [device.label for device in spec.devices], "name it once")
    for index, device in enumerate(spec.devices):
        if device.name not in devices:
            there_are = ", ".join(sorted(set(devices)))
            yield (
                ("devices", index),
                f"there is no device {device.name!r}; there are {there_are}; host is this machine, "
                "and a stack's boards are there for edgejoule run --on stack",
            )
    sets, sources = spec.data.sets, spec.data.sources
    for role, chosen in sets.items():
        if chosen.source not in sources:
            yield (
                ("data", "sets", role, "source"),
                f"there is no source {chosen.source!r} in data.sources{_nearest(chosen.source, sources)}",
            )
    if "evaluation" not in sets:
        yield ("data", "sets"), "there is no evaluation set; without it nothing can be scored"
    quantized = [precision for precision in spec.precisions if precision not in ("fp32", "fp16")]
    trained = [precision for precision in quantized if precision.endswith("-qat")]
    for asking, role, use in (
        (quantized, "calibration", "find the ranges without looking at the test"),
        (quantized, "tuning", "choose the calibrator without looking at the test"),
        (trained, "train", "train the weights"),
    ):
        if asking and role not in sets:
            yield ("data", "sets"), f"precision {asking[0]} needs a {role} set, to {use}"
    yield from _of_repeats(spec)
    detectors = [entry.name for entry in entry_points(group="edgejoule.detectors")]
    for index, model in enumerate(spec.models):
        here = ("models", index)
        if detectors and model.detector not in detectors:
            yield (*here, "detector"), f"there is no detector {model.detector!r}{_nearest(model.detector, detectors)}"
        if model.weights is None and model.train is None:
            yield here, "has neither weights nor train; name a weights file, or say how to train"
        if model.train is not None and "train" not in sets:
            yield (*here, "train"), "training needs a train set in data.sets"


def _of_names(models: Sequence[Model]) -> Iterator[tuple[Location, str]]:
    """What would be called the same: a model's steps by its input, its rows by its batch too."""
    advice, called, written = "give each model a name of its own", dict[str, int](), [model.name for model in models]
    for index, model in enumerate(models):
        for axis, values in (("input", model.input or []), ("batch", model.batch)):
            yield from _repeated(("models", index, axis), values, "name it once")
        at_inputs = [each.name for each in model.at_each_input()]
        at_batches = [at_batch(name, batch) for name in at_inputs for batch in model.batch]
        for name in [*at_inputs, *at_batches]:
            if (first := called.setdefault(name, index)) != index:
                if written[first] == written[index]:
                    said = f"{written[index]!r} is there {written.count(written[index])} times"
                else:
                    said = f"models.{first} and models.{index} would both be called {name!r}, by their input and batch"
                yield ("models", index), f"{said}; {advice}"
                break


def _of_repeats(spec: Spec) -> Iterator[tuple[Location, str]]:
    """What stands against making INT8 anew by other seeds."""
    repeats, sets = spec.repeats, spec.data.sets
    for key, needed in (("calibration", ("int8-ptq", "int8-qat")), ("qat", ("int8-qat",))):
        if getattr(repeats, key) > 1 and not set(needed).intersection(spec.precisions):
            yield ("repeats", key), f"{key}: there is nothing to make anew; precisions has no {' or '.join(needed)}"
    if repeats.qat > repeats.calibration:
        yield (
            ("repeats", "qat"),
            f"qat: {repeats.qat} trainings need as many calibrations to go on from, and repeats.calibration is "
            f"{repeats.calibration}; make it {repeats.qat} or more",
        )
    if repeats.calibration > 1 and "calibration" in sets:
        source = sets["calibration"].source
        for role, chosen in sets.items():
            if chosen.source == source and spec.set_size(role) is None:
                yield (
                    ("data", "sets", role),
                    f"takes all that is left of source {source!r}, and repeats.calibration draws anew from that; "
                    f"give {role} a count",
                )


def _repeated(location: Location, names: Sequence[str | int], advice: str) -> Iterator[tuple[Location, str]]:
    for name, count in Counter(names).items():
        if count > 1:
            second = names.index(name, names.index(name) + 1)
            yield (*location, second), f"{name!r} is there {count} times; {advice}"


def _sentence(detail: ErrorDetails) -> tuple[Location, str]:
    """Where a pydantic error is, and what it says, in the words of a spec's author."""
    location = tuple(part for part in detail["loc"] if part != "[key]")
    said, context = shown(detail["input"]), detail.get("ctx", {})
    key = next((part for part in reversed(location) if isinstance(part, str)), "")  # of a list, what the list is of
    match detail["type"]:
        case "extra_forbidden":
            known = _keys_of(Spec, location[:-1])
            return location, f"unknown key {key!r}{_nearest(str(key), known)}"
        case "missing":
            return location[:-1], f"the key {key!r} is missing"
        case "value_error":
            return location, f"{key}: {context['error']}"
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", str(context["expected"]))
            return location, f"{said} is none of {', '.join(allowed)}{_nearest(str(detail['input']), allowed)}"
        case "string_pattern_mismatch":
            return location, f"{key}: {said} must be letters, digits, '.', '_' or '-', 64 at most"
        case "too_short":
            return location, f"{key}: is empty; name at least one"
        case "model_type" | "model_attributes_type" | "dict_type":
            return location, f"{key}: must be a mapping (key: value), not {said}"
        case _:
            rule = detail["msg"].replace("Input should", "must").replace("a valid integer", "a whole number")
            return location, f"{key}: {rule[0].lower()}{rule[1:]}, not {said}"


def _nearest(word: Any, known: Mapping[str, Any] | Sequence[str]) -> str:
    """``; did you mean 'x'?`` where something is near, else all that is known."""
    near = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(sorted(known))}"


def _keys_of(annotation: Any, location: Location) -> list[str]:
    """The keys that the section at ``location`` may have."""
    if get_origin(annotation) is Annotated:
        return _keys_of(get_args(annotation)[0], location)
    if get_origin(annotation) in (Union, UnionType):
        return [key for option in get_args(annotation) for key in _keys_of(option, location)]
    if get_origin(annotation) in (list, dict):
        return _keys_of(get_args(annotation)[-1], location[1:])
    if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return []
    if location:
        return _keys_of(annotation.model_fields[str(location[0])].annotation, location[1:])
    if annotation is Protocol:
        return ["preset", *(key for key in annotation.model_fields if key not in DERIVED)]
    return list(annotation.model_fields)
