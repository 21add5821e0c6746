"""Fixtures of the agent's tests; everything is made here, nothing is fetched. Valid on Python 3.6."""

import copy
import io
import tarfile

import cv2
import numpy as np
import pytest

MANIFEST = {
    "format": 1,
    "detector": "toy",
    "labels": [{"id": 7, "name": "train"}, {"id": 90, "name": "toothbrush"}],
    "input": {"height": 32, "width": 48},
    "resize": {
        "policy": "letterbox_centre",
        "interpolation": "bilinear",
        "alignment": "half_pixel",
        "fill_rgb": [1, 2, 3],
    },
    "clip": "before_nms",
    "nms": {
        "origin": {"score_floor": 0.05, "top_k": 1000, "iou": 0.5, "class_wise": True, "limit": 100},
        "common": {"score_floor": 0.25, "top_k": 1000, "iou": 0.45, "class_wise": True, "limit": 100},
    },
    "params_m": 0.001,
    "gmacs": 0.001,
}


@pytest.fixture
def manifest():
    return copy.deepcopy(MANIFEST)


def encode(image):
    """RGB uint8[h,w,3] as PNG bytes."""
    return cv2.imencode(".png", image[:, :, ::-1])[1].tobytes()


def write_tar(path, members):
    """A tar of (name, content) pairs."""
    with tarfile.open(str(path), "w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def tar():
    return write_tar


@pytest.fixture
def shard(tmp_path):
    """A shard of three pictures with structure."""
    random = np.random.RandomState(1)
    pictures = [np.kron(random.randint(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8) for _ in range(3)]
    return write_tar(tmp_path / "shard.tar", [(f"{i + 5:012d}.png", encode(p)) for i, p in enumerate(pictures)])


@pytest.fixture
def pretend(tmp_path):
    """A function that writes files (path -> text) under a folder to be taken for ``/``."""

    def write(files):
        for name, text in files.items():
            path = tmp_path / "root" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return str(tmp_path / "root")

    return write
