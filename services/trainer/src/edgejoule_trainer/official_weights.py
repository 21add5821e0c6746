"""The files that the detectors' authors publish, and fetching them.

Hashes. SSDLite-MobileNetV3 and EfficientDet: their names carry the first eight digits of the SHA-256, and projects
that use them publish all of it. YOLOv5: several projects publish the same hashes of the files of release v7.0.
SSD-MobileNetV2: computed here from a copy, and published by others. NanoDet: no one publishes a hash.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgejoule.errors import DownloadError, SpecError
from edgejoule.job import Progress
from edgejoule_trainer.downloads import connected, digest_of, download


@dataclass(frozen=True)
class OfficialFile:
    """name: of the local file. url: the authors' own. sha256: None where it is not known."""

    name: str
    url: str
    sha256: str | None


@dataclass(frozen=True)
class OfficialWeights:
    """What ``weights import`` takes of one detector: a file, or a folder of several.

    licence: a sentence or two.
    """

    files: tuple[OfficialFile, ...]
    licence: str
    folder: str | None = None


@dataclass(frozen=True)
class Fetched:
    """One file that is here now; ``checked``: against a hash that was known before."""

    path: Path
    sha256: str
    checked: bool
    was_there: bool


_YOLOV5_LICENCE = (
    "AGPL-3.0, which Ultralytics says holds for all of its models: whoever passes on a work that holds them, or lets "
    "others use it over a network, must offer its whole source under the same licence. "
    "Ultralytics sells other terms: https://www.ultralytics.com/license"
)


def _yolov5(size: str, sha256: str) -> OfficialWeights:
    url = f"https://github.com/ultralytics/yolov5/releases/download/v7.0/yolov5{size}.pt"
    return OfficialWeights((OfficialFile(f"yolov5{size}.pt", url, sha256),), _YOLOV5_LICENCE)


def _tfjs(name: str, sha256: str) -> OfficialFile:
    return OfficialFile(
        name, f"https://storage.googleapis.com/tfjs-models/savedmodel/ssdlite_mobilenet_v2/{name}", sha256
    )


OFFICIAL = {
    "ssd_mobilenet_v2": OfficialWeights(
        (
            _tfjs("model.json", "3770b2528339b1e3340cb74360e1e40401816b009779aeb8d0cce3a4353ea3a9"),
            _tfjs("group1-shard1of5", "0e7af0f713e98521252321f7f84892c31cefccccec3ac64c84e5065b75ed5646"),
            _tfjs("group1-shard2of5", "74cc6cfc2c4510c9cd81b8ad4cebf6f6a8f305119bb365ce0eb96276da38519a"),
            _tfjs("group1-shard3of5", "50383033f893eae136392a403e8f70ade5efd90867df5695c4ca5ac640e14f38"),
            _tfjs("group1-shard4of5", "d856dc534c780068bbf6c666ce1516df2c8433d87578aa31fcdf197de7058cc2"),
            _tfjs("group1-shard5of5", "3d356f1fb6dfca6af78c56db34d9326706d0196e303f9de6b04f236ca79ed309"),
        ),
        "Apache-2.0 (TensorFlow.js models).",
        folder="ssdlite_mobilenet_v2_tfjs",
    ),
    "ssdlite_mobilenet_v3": OfficialWeights(
        (
            OfficialFile(
                "ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
                "https://download.pytorch.org/models/ssdlite320_mobilenet_v3_large_coco-a79551df.pth",
                "a79551df90c79834bcd3bb3845ef9d966b5449a3a9b2833ae8404778ca5d65d2",
            ),
        ),
        "BSD-3-Clause (torchvision, which adds that a model may also carry terms of the data it was trained on).",
    ),
    "yolov5n": _yolov5("n", "4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3"),
    "yolov5s": _yolov5("s", "8b3b748c1e592ddd8868022e8732fde20025197328490623cc16c6f24d0782ee"),
    "yolov5m": _yolov5("m", "61d933360ba5a7733a36764996c800287d973889d875227f5beedd2473a97a56"),
    "yolov5l": _yolov5("l", "2f603b7354c25454d1270663a14d8ddc1eea98e5eebc1d84ce0c6e3150fa155f"),
    "yolov5x": _yolov5("x", "9f27a794fa0308e2606f90565164571d6f0a0ba18a3ce2e5e5d323b71c157859"),
    "efficientdet_d0": OfficialWeights(
        (
            OfficialFile(
                "tf_efficientdet_d0_34-f153e0cf.pth",
                "https://github.com/rwightman/efficientdet-pytorch/releases/download/v0.1/"
                "tf_efficientdet_d0_34-f153e0cf.pth",
                "f153e0cfe3c987981ab2d02ce32c8a5fa0b4092bc97abcf95c887e2e05bd4003",
            ),
        ),
        "Apache-2.0 (efficientdet-pytorch, after Google's AutoML).",
    ),
    "nanodet_m": OfficialWeights(
        (
            OfficialFile(
                "nanodet_m.ckpt",  # the README of RangiLyu/nanodet links to this document
                "https://drive.google.com/uc?export=download&id=1ZkYucuLusJrCb_i63Lid0kYyyLvEiGN3",
                None,
            ),
        ),
        "Apache-2.0 (RangiLyu/nanodet).",
    ),
}


def official_weights(detector: str) -> OfficialWeights:
    """What the authors of ``detector`` publish.

    Raises:
        SpecError: there is no such detector, or nothing of it to fetch.
    """
    if detector not in OFFICIAL:
        raise SpecError(f"There are no official weights of {detector!r} to fetch; there are of {', '.join(OFFICIAL)}.")
    return OFFICIAL[detector]


def fetch_weights(
    weights: OfficialWeights,
    into: Path,
    progress: Callable[[str], Progress],
    *,
    base_url: str | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> list[Fetched]:
    """Fetch what is not there yet. A file gets its name only once it is whole and its hash is right.

    Args:
        into: folder; of several files, their own folder is made in it.
        progress: begins a line such as "yolov5s.pt: fetching" on the display.
        base_url: a mirror that has the files under their names, in place of the authors' servers.
        pause: waits between tries, in seconds.

    Raises:
        DownloadError: no connection after several tries, a refusal, another file than the known one, or no place
            to write.
    """
    folder = into / weights.folder if weights.folder else into
    fetched = []
    for file in weights.files:
        target = folder / file.name
        url = f"{base_url.rstrip('/')}/{file.name}" if base_url else file.url
        was_there = target.exists()
        new = target if was_there else target.with_name(target.name + ".unchecked")
        with connected(url, folder) as client:
            if not was_there:
                download(client, url, new, progress(f"{file.name}: fetching"), pause)
            sha256 = digest_of(new, "sha256", progress(f"{file.name}: checking"))
            if was_there and file.sha256 not in (None, sha256):
                raise DownloadError(f"{target} is there and is another file: {_other(sha256, file)}; delete it first")
            if not was_there and (fault := _fault(new, sha256, file)):
                new.unlink()
                raise DownloadError(f"{url}: {fault}; nothing was kept, and --base-url names another mirror")
            new.replace(target)
        fetched.append(Fetched(target, sha256, file.sha256 is not None, was_there))
    return fetched


def _fault(path: Path, sha256: str, file: OfficialFile) -> str:
    """What is wrong with a file that came; empty when nothing is known to be."""
    with open(path, "rb") as content:
        if content.read(64).lstrip()[:1] == b"<":
            return f"a web page came in place of {file.name}"
    return "" if file.sha256 in (None, sha256) else _other(sha256, file)


def _other(sha256: str, file: OfficialFile) -> str:
    return f"its SHA-256 is {sha256} and must be {file.sha256}"
