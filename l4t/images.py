"""Which image runs on which L4T release, and why. Standard library and ``edgejoule_agent.l4t`` only."""

from __future__ import annotations

from typing import NamedTuple

from edgejoule_agent import l4t


class Image(NamedTuple):
    """One row: an image for the releases of one line that share drivers."""

    name: str
    folder: str
    """Beside this file, with Dockerfile and requirements.txt."""
    base: str
    made_for: str
    """The oldest L4T that the base may run on: an image must not be newer than its host."""
    python: str
    mounts: tuple[str, ...]
    """What the base leaves to the board, beside the files of ``MOUNTS``."""
    spare_gb: float
    """Free disk we ask for where the base is not there yet. Chosen, not measured."""
    why: str


# Bases: NVIDIA's container catalogue. r32 mounts: tensorrt.csv of nvidia-container-runtime on JetPack 4
#
# None for JetPack 7 (r38, r39) yet. It follows SBSA, so no base of L4T's kind is made for it. Others take the images of
# every ARM server, nvcr.io/nvidia/tensorrt:25.09-py3 on a Thor (tbd-racer/Docker-Env, dockerfiles/
# tbd-racer-thor.dockerfile), and under 7.2 on Orins too (Jonah-May-OSS/wyoming-whisper-trt, pull 1047); which of
# their monthly tags runs on which L4T, we found told nowhere. Surer is Ubuntu 24.04 with NVIDIA's repository of that
# very release, which has its TensorRT (roboflow/inference, docker/dockerfiles/Dockerfile.onnx.jetson.7.1.0 for r38.4,
# and 7.2.0 for r39.2). Neither was tried here.
IMAGES = (
    Image(
        *("r32.7", "r32.7", "nvcr.io/nvidia/l4t-base:r32.7.1", "32.7.1", "3.6"),
        mounts=("/usr/lib/python3.6/dist-packages/tensorrt",),
        spare_gb=3,
        why="all of r32.7 go together; CUDA and TensorRT are the board's own, mounted by the nvidia runtime",
    ),
    Image(
        *("r35", "r35", "nvcr.io/nvidia/l4t-tensorrt:r8.5.2-runtime", "35.1.0", "3.8"),
        mounts=(),
        spare_gb=8,
        why="all of r35 go together; CUDA 11.4 and TensorRT 8.5.2 are in the image",
    ),
    Image(
        *("r36.2", "r36", "nvcr.io/nvidia/l4t-tensorrt:r8.6.2-devel", "36.2.0", "3.10"),
        mounts=(),
        spare_gb=12,
        why="r36 below 36.4 has drivers of its own; CUDA 12.2 and TensorRT 8.6.2 are in the image",
    ),
    Image(
        *("r36.4", "r36", "nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime", "36.4.0", "3.10"),
        mounts=(),
        spare_gb=8,
        why="r36 from 36.4 on has drivers of its own; CUDA 12.6 and TensorRT 10.3 are in the image",
    ),
)

MOUNTS = (
    *("/etc/nv_tegra_release", "/etc/nvpmodel.conf", "/var/lib/nvpmodel"),
    *("/etc/nvfancontrol.conf", "/var/lib/nvfancontrol", "/etc/machine-id"),
)
"""Files of the board by which the agent knows it, read-only. The device tree, /proc and /sys a container has itself."""


class NoImage(Exception):
    """There is no image for a release; in one sentence why, and what to do."""


def image_for(version: str) -> Image:
    """The image for a board with this L4T.

    >>> image_for("36.4.3").base
    'nvcr.io/nvidia/l4t-tensorrt:r10.3.0-runtime'

    Raises:
        NoImage: the release is unknown, or too old or too new for any.
    """
    try:
        release = l4t.release_of(version)
    except ValueError as error:
        raise NoImage(str(error)) from None
    found = next((image for image in IMAGES if l4t.compatible(image.made_for, version)), None)
    if found is not None and release is not None:
        return found
    if found is not None:
        raise NoImage(
            f"L4T {version} looks like one for the image {found.name}, but is in no table here, and what it ships is "
            "not guessed: add it to edgejoule_agent/l4t.py with its JetPack"
        )
    lines = ", ".join(image.name for image in IMAGES)
    if release is not None:
        raise NoImage(f"L4T {version} (JetPack {release.jetpack}) has no image here; there are those for {lines}")
    old = l4t.numbers(version) < (32, 7, 1)
    advice = "bring the board to JetPack 4.6.1 (L4T 32.7.1) or later" if old else "docs/how-to/boards.md has the table"
    raise NoImage(f"L4T {version} is unknown and has no image; there are those for {lines}: {advice}")
