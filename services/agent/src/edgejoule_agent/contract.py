"""The engine contract, checked: an ONNX file's manifest, inputs and outputs, before any runtime sees it."""

import json
from typing import Any, Dict, Mapping, Tuple

from edgejoule_agent.errors import ModelError
from edgejoule_agent.optional import require

METADATA_KEY = "edgejoule"
FLOAT = 1  # TensorProto.FLOAT
EXTERNAL = 1  # TensorProto.EXTERNAL


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _fraction(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _one_of(*choices: str) -> Any:
    return lambda value: value in choices


def _colour(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 3 and all(isinstance(part, int) and 0 <= part < 256 for part in value)
    )


_NMS = {
    "score_floor": _fraction,
    "top_k": _count,
    "iou": _fraction,
    "class_wise": lambda value: isinstance(value, bool),
    "limit": _count,
}
_MANIFEST = {
    "format": lambda value: value == 1,
    "detector": _text,
    "labels": lambda value: isinstance(value, list) and len(value) > 0,
    "input": {"height": _count, "width": _count},
    "resize": {
        "policy": _one_of("stretch", "letterbox_centre", "letterbox_top_left"),
        "interpolation": _one_of("bilinear", "area", "bicubic", "nearest"),
        "alignment": _one_of("half_pixel", "corner"),
        "fill_rgb": _colour,
    },
    "clip": _one_of("before_nms", "after_nms"),
    "nms": {"origin": _NMS, "common": _NMS},
    "params_m": _number,
    "gmacs": _number,
}
_LABEL = {"id": lambda value: value is None or isinstance(value, int), "name": _text}


def read_model(path: Any) -> Tuple[Any, Dict[str, Any]]:
    """An ONNX file as (ModelProto, manifest), once it keeps the engine contract.

    Raises:
        ModelError: not ONNX, data outside the file, no or a wrong manifest, other inputs or outputs.
        UnsupportedError: the package onnx is not installed.
    """
    onnx = require("onnx", "onnxruntime")
    try:
        model = onnx.load(str(path), load_external_data=False)
        onnx.checker.check_model(model)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # protobuf's DecodeError and the checker's ValidationError share no base but Exception
        raise ModelError(f"{path}: not a valid ONNX model ({str(error).strip().splitlines()[0][:200]})") from error
    for tensor in model.graph.initializer:
        if tensor.data_location == EXTERNAL:
            raise ModelError(f"{path}: tensor {tensor.name!r} lies outside the file; export it into the file")
    manifest = read_manifest(model, path)
    _check_tensors(model.graph, manifest, path)
    return model, manifest


def read_manifest(model: Any, path: Any) -> Dict[str, Any]:
    """The manifest in a ModelProto's metadata."""
    found = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not found:
        raise ModelError(f"{path}: no metadata {METADATA_KEY!r}; export the model with Edgejoule")
    try:
        manifest = json.loads(found[0])
    except ValueError as error:
        raise ModelError(f"{path}: metadata {METADATA_KEY!r} is not JSON ({error})") from error
    check_manifest(manifest, path)
    return dict(manifest)


def check_manifest(manifest: Any, path: Any) -> None:
    """Refuse what is not a ModelManifest, naming the field."""
    _check(manifest, _MANIFEST, f"{path}: manifest")
    for index, label in enumerate(manifest["labels"]):
        _check(label, _LABEL, f"{path}: manifest.labels.{index}")


def _check(value: Any, expected: Mapping[str, Any], where: str) -> None:
    if not isinstance(value, dict) or set(value) != set(expected):
        found = sorted(value) if isinstance(value, dict) else type(value).__name__
        raise ModelError(f"{where} has {found}, needs exactly {sorted(expected)}; export the model again")
    for key, rule in expected.items():
        if isinstance(rule, dict):
            _check(value[key], rule, f"{where}.{key}")
        elif not rule(value[key]):
            raise ModelError(f"{where}.{key} cannot be {value[key]!r}; export the model again")


def _check_tensors(graph: Any, manifest: Mapping[str, Any], path: Any) -> None:
    initializers = {tensor.name for tensor in graph.initializer}
    inputs = {value.name: value for value in graph.input if value.name not in initializers}
    outputs = {value.name: value for value in graph.output}
    if set(inputs) != {"image"} or set(outputs) != {"boxes", "scores"}:
        raise ModelError(
            f"{path}: inputs {sorted(inputs)} and outputs {sorted(outputs)}; "
            "the engine contract has image -> boxes, scores"
        )
    size = manifest["input"]
    batches = []
    for value, shape in (
        (inputs["image"], (3, size["height"], size["width"])),
        (outputs["boxes"], (None, 4)),
        (outputs["scores"], (None, len(manifest["labels"]))),
    ):
        tensor = value.type.tensor_type
        found = tuple(dimension.dim_value for dimension in tensor.shape.dim)
        fits = len(found) == 1 + len(shape) and all(want in (None, have) for want, have in zip(shape, found[1:]))
        if tensor.elem_type != FLOAT or not fits or found[0] < 1:
            wanted = ", ".join("N" if part is None else str(part) for part in shape)
            raise ModelError(
                f"{path}: {value.name} has shape {list(found)}, the engine contract float32[B, {wanted}] with B fixed"
            )
        batches.append(found[0])
    if len(set(batches)) > 1:
        raise ModelError(f"{path}: image, boxes and scores have batches of {batches}; they must be equal")
