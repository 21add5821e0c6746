"""INT8 latency at one thread: our engines beside every other way to get one, in one run, in turns.

    python benchmarks/int8_latency.py [--detector NAME]... [--weights DETECTOR=FILE]... [--images FOLDER] [--rounds 40]

Contenders, for each detector from the same weights and calibration images:
    float        ONNX Runtime, OpenVINO (INFERENCE_PRECISION_HINT=f32)
    ours         what step ``build`` makes of our Q/DQ graph
    plain Q/DQ   the same graph given to both runtimes as it is
    static       onnxruntime.quantization.quantize_static, its defaults
    NNCF         nncf.quantize on OpenVINO, its defaults (pip install nncf==3.4.0; left out where absent)
Then OpenVINO's own counters say which operators the time of the float and of our engine goes to.
``dB``: the signal-to-error ratio of the scores against the float detector; a fast engine with few dB is wrong.

Without ``--weights`` a detector's are random, its batch norms calibrated on some of the images so that no layer
starves or explodes. Latency hardly depends on weights or images, so it holds all the same; the dB then say little:
deep random networks answer chaotically to any rounding.
"""

import argparse
import collections
import contextlib
import io
import logging
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import openvino
import torch
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from edgejoule_agent.build import build, signal_to_error_db
from edgejoule_agent.engines import open_engine
from edgejoule_agent.engines.openvino_engine import FULL_PRECISION, compile_model
from edgejoule_agent.preprocess import decode, prepare
from edgejoule_trainer.detectors import Detector, create, detector_class, names
from edgejoule_trainer.export import export_onnx
from edgejoule_trainer.quantize.ptq import quantize_detector
from edgejoule_trainer.weights import import_weights

DETECTORS = ("ssd_mobilenet_v2", "ssdlite_mobilenet_v3", "yolov5s", "efficientdet_d0", "nanodet_m")
THREADS = 1
SETTLING = 8  # images that random weights see with batch norm in training mode
CALIBRATION, TUNING = 64, 16  # images
INFERENCES = 5  # of one contender in a round, after one that fills the caches again
LISTED = 8  # operators
PEERS = ("static", "NNCF")


class Contender(NamedTuple):
    infer: Callable[[np.ndarray], Any]
    scores: Callable[[], np.ndarray]


def engine(runtime: str, content: bytes, options: dict[str, str]) -> Contender:
    """One of the agent's engines."""
    opened = open_engine(runtime, content, options, THREADS)
    last: list[np.ndarray] = []

    def infer(image: np.ndarray) -> None:
        last[:] = opened.infer(image)

    return Contender(infer, lambda: last[1].copy())


def nncf_engine(float_path: Path, images: list[np.ndarray]) -> Contender | None:
    """NNCF's INT8 on OpenVINO, or None where NNCF is not installed."""
    try:
        import nncf  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError:
        return None
    logging.getLogger("nncf").setLevel(logging.ERROR)
    samples = nncf.Dataset(images, lambda image: {"image": image})
    with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
        quantized = nncf.quantize(openvino.Core().read_model(float_path), samples, subset_size=len(images))
    properties = {**FULL_PRECISION, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(THREADS)}
    request = openvino.Core().compile_model(quantized, "CPU", properties).create_infer_request()

    def infer(image: np.ndarray) -> None:
        request.infer({"image": image}, share_inputs=True, share_outputs=True)

    return Contender(infer, lambda: request.get_tensor("scores").data.copy())


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Calibration images for ``quantize_static``."""

    def __init__(self, images: list[np.ndarray]) -> None:
        self._images: Iterator[np.ndarray] = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": image}


def race(contenders: dict[str, Contender], image: np.ndarray, rounds: int) -> dict[str, float]:
    """Median milliseconds of each, taken in turns so that a slow moment of the host meets all alike."""
    times_ms: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            contender.infer(image)
            for _ in range(INFERENCES):
                start = time.perf_counter()
                contender.infer(image)
                times_ms[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(samples) for name, samples in times_ms.items()}


def operators_ms(content: bytes, image: np.ndarray, repeats: int = 20) -> dict[tuple[str, str], float]:
    """Milliseconds of one inference by (operator, kernel), by OpenVINO's counters; what takes most first."""
    request = compile_model(content, {**FULL_PRECISION, "PERF_COUNT": "YES"}, THREADS).create_infer_request()
    spent: collections.Counter[tuple[str, str]] = collections.Counter()
    for _ in range(repeats):
        request.infer({"image": image})
        for entry in request.profiling_info:
            if entry.status == openvino.ProfilingInfo.Status.EXECUTED:
                milliseconds = 1e3 * entry.real_time.total_seconds()
                spent[entry.node_type, entry.exec_type] += milliseconds / repeats
    return dict(spent.most_common())


def load_detector(name: str, weights: Path | None, images: Callable[[Detector], list[np.ndarray]]) -> Detector:
    """From its authors' file, or with random weights settled on images."""
    if weights:
        return import_weights(weights, name)[0]
    torch.manual_seed(0)
    detector = create(name, detector_class(name).official_labels())
    settle(detector, images(detector)[:SETTLING])
    return detector.eval()


def settle(detector: Detector, images: list[np.ndarray]) -> None:
    """Give every batch norm the mean and variance of what it sees, so that random weights keep a signal alive."""
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
    detector.train()
    with torch.no_grad():
        for image in map(torch.from_numpy, images):
            detector.network(detector.normalize(torch.cat([image, image.flip(3)])))


def load_images(files: list[Path], detector: Detector) -> list[np.ndarray]:
    """Inputs float32[1,3,H,W] from image files, or random ones."""
    if not files:
        random = np.random.default_rng(0)
        shape = (1, 3, *detector.input_size)
        return [random.uniform(0, 255, shape).astype(np.float32) for _ in range(CALIBRATION + TUNING)]
    layout = detector.manifest().model_dump(mode="json")
    return [prepare(decode(path.read_bytes()), layout)[0] for path in files]


def write_shard(files: list[Path], path: Path) -> Path:
    """An image shard, on which ``build`` checks what its candidates answer."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as shard:
        for number, file in enumerate(files):
            shard.add(file, arcname=f"{number:012d}{file.suffix}")
    return path


def prepare_contenders(
    detector: Detector, images: list[np.ndarray], files: list[Path], folder: Path
) -> tuple[dict[str, Contender], dict[str, bytes], str]:
    """Every contender, the OpenVINO graphs whose operators are worth a look, and why ours is the engine it is."""
    calibration, tuning = images[:CALIBRATION], images[CALIBRATION:]
    float_path, int8_path, static_path = (folder / name for name in ("float.onnx", "int8.onnx", "static.onnx"))
    export_onnx(detector, float_path)
    quantized = quantize_detector(detector, map(torch.from_numpy, calibration), map(torch.from_numpy, tuning))
    export_onnx(quantized.detector, int8_path, detector.manifest())
    quantize_static(float_path, static_path, Reader(calibration))

    shards = [write_shard(files, folder / "images.tar")] if files else []
    record = build(int8_path, "int8", THREADS, shards, folder / "engine", lambda done, total, unit: None)
    runtime = record["hardware"]["runtime"]
    ours = (folder / "engine").read_bytes()
    contenders = {
        "float, ONNX Runtime": engine("onnxruntime", float_path.read_bytes(), {}),
        "float, OpenVINO": engine("openvino", float_path.read_bytes(), dict(FULL_PRECISION)),
        "ours": engine(runtime, ours, record["options"]),
        "plain Q/DQ, ONNX Runtime": engine("onnxruntime", int8_path.read_bytes(), {}),
        "plain Q/DQ, OpenVINO": engine("openvino", int8_path.read_bytes(), dict(FULL_PRECISION)),
        "static, ONNX Runtime": engine("onnxruntime", static_path.read_bytes(), {}),
    }
    if (nncf := nncf_engine(float_path, calibration)) is not None:
        contenders["NNCF, OpenVINO"] = nncf
    graphs = {"float": float_path.read_bytes()}
    if runtime == "openvino":
        graphs["ours"] = ours
    return contenders, graphs, record["chosen_because"]


class Standing(NamedTuple):
    """One detector's line of the summary, milliseconds."""

    detector: str
    fastest_float: float
    ours: float
    best_peer: str
    best_peer_ms: float


def measure(name: str, weights: Path | None, files: list[Path], rounds: int) -> Standing:
    """Race one detector's contenders and print what came of it."""
    detector = load_detector(name, weights, lambda made: load_images(files, made))
    images = load_images(files, detector)
    with tempfile.TemporaryDirectory() as folder:
        contenders, graphs, because = prepare_contenders(detector, images, files, Path(folder))
        image = images[-1]
        latency_ms = race(contenders, image, rounds)
        reference = contenders["float, ONNX Runtime"].scores()

        height, width = detector.input_size
        print(f"\n{detector.title}, {width}x{height}, {'weights of ' + weights.name if weights else 'random weights'}")
        print(f"ours: {because}")
        print(f"{'':26}{'ms':>8}{'x float':>9}{'dB':>7}")
        fastest_float = min(time_ms for label, time_ms in latency_ms.items() if label.startswith("float"))
        for label, time_ms in sorted(latency_ms.items(), key=lambda item: item[1]):
            ratio_db = signal_to_error_db(reference, contenders[label].scores())
            print(f"{label:26}{time_ms:8.2f}{fastest_float / time_ms:9.2f}{ratio_db:7.1f}")
        for label, content in graphs.items():
            spent = operators_ms(content, image)
            total = sum(spent.values())
            print(f"where the time goes on OpenVINO: {label}, {total:.1f} ms under its counters")
            for (operator, kernel), time_ms in list(spent.items())[:LISTED]:
                print(f"  {operator:20}{kernel:26}{time_ms:7.2f} ms {time_ms / total:5.0%}")
    peer = min((label for label in latency_ms if label.startswith(PEERS)), key=lambda label: latency_ms[label])
    return Standing(detector.title, fastest_float, latency_ms["ours"], peer, latency_ms[peer])


def named_weights(text: str) -> tuple[str, Path]:
    """``DETECTOR=FILE`` of the command line."""
    name, separator, path = text.partition("=")
    if not separator or name not in names():
        raise argparse.ArgumentTypeError(f"{text!r} is not DETECTOR=FILE with a DETECTOR of {', '.join(names())}")
    return name, Path(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detector", action="append", choices=names(), help="one of them; all five when left out")
    parser.add_argument(
        "--weights", action="append", type=named_weights, default=[], metavar="DETECTOR=FILE", help="its authors' file"
    )
    parser.add_argument("--images", type=Path, help=f"a folder of at least {CALIBRATION + TUNING} JPEG files")
    parser.add_argument("--rounds", type=int, default=40)
    arguments = parser.parse_args()

    torch.set_num_threads(THREADS)
    weights = dict(arguments.weights)
    files = sorted(arguments.images.glob("*.jpg"))[: CALIBRATION + TUNING] if arguments.images else []
    versions = f"onnxruntime {onnxruntime.__version__}, openvino {openvino.__version__.split('-')[0]}"
    print(f"{THREADS} thread, {versions}, onnx {onnx.__version__}, {len(files) or 'random'} images")
    chosen = arguments.detector or DETECTORS
    standings = [measure(name, weights.get(name), files, arguments.rounds) for name in chosen]

    print(f"\n{'':24}{'float':>8}{'ours':>8}{'x float':>9}{'best peer':>11}{'ours / best peer':>18}")
    for each in standings:
        print(
            f"{each.detector:24}{each.fastest_float:8.2f}{each.ours:8.2f}{each.fastest_float / each.ours:9.2f}"
            f"{each.best_peer_ms:11.2f}{each.ours / each.best_peer_ms:18.2f}  {each.best_peer}"
        )


if __name__ == "__main__":
    main()
