"""A tiny model under the engine contract and an image shard, for tests that want real engines."""

import io
import tarfile

import cv2
import numpy as np
import onnx
from onnx import helper

from edgejoule.records import ModelManifest

NMS = {"score_floor": 0.05, "top_k": 100, "iou": 0.5, "class_wise": True, "limit": 100}
MANIFEST = ModelManifest.model_validate(
    {
        "detector": "toy",
        "labels": [{"id": 1, "name": "person"}],
        "input": {"height": 32, "width": 32},
        "resize": {"policy": "stretch", "interpolation": "bilinear", "alignment": "half_pixel", "fill_rgb": (0, 0, 0)},
        "clip": "before_nms",
        "nms": {"origin": NMS, "common": NMS},
        "params_m": 0.0,
        "gmacs": 0.0,
    }
)


WIDTH = 256  # channels of what makes a model work


def write_model(path, depth=0):
    """One convolution to 64 boxes with one class each, under the engine contract.

    Args:
        depth: so many convolutions of 1.2 GFLOPs each before it, for a latency of milliseconds.
    """
    random = np.random.default_rng(0)
    nodes, weights, image, channels = [], [], "image", 3
    for number in range(depth + 1 if depth else 0):  # the first brings the channels
        weight = random.standard_normal((WIDTH, channels, 3, 3)).astype(np.float32) / (3 * channels**0.5)
        weights.append(onnx.numpy_helper.from_array(weight, f"weight-{number}"))
        nodes.append(
            helper.make_node("Conv", [image, weights[-1].name], [f"deep-{number}"], f"deep-{number}", pads=[1, 1, 1, 1])
        )
        image, channels = f"deep-{number}", WIDTH
    weight = random.standard_normal((5, channels, 4, 4)).astype(np.float32) / 1000
    nodes += [
        helper.make_node("Conv", [image, "weight", "bias"], ["cells"], name="conv", strides=[4, 4]),
        helper.make_node("Reshape", ["cells", "shape"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[0, 2, 1]),
        helper.make_node("Sigmoid", ["columns"], ["fractions"]),
        helper.make_node("Split", ["fractions", "parts"], ["boxes", "scores"], axis=2),
    ]
    bias = np.array([-2, -2, 2, 2, 0], np.float32)  # boxes that have an area
    constants = {"weight": weight, "bias": bias, "shape": np.array([1, 5, 64]), "parts": np.array([4, 1])}
    shapes = {"image": [1, 3, 32, 32], "boxes": [1, 64, 4], "scores": [1, 64, 1]}
    tensors = {name: helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()}
    graph = helper.make_graph(
        nodes,
        "toy",
        [tensors["image"]],
        [tensors["boxes"], tensors["scores"]],
        weights + [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    model.metadata_props.add(key="edgejoule", value=MANIFEST.model_dump_json())
    path.write_bytes(model.SerializeToString())


def write_shard(path):
    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    content = cv2.imencode(".png", picture)[1].tobytes()
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("000000000001.png")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
