"""predict and score on a real engine: a tiny graph that tells the same boxes of every picture it finds bright."""

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgejoule.errors import DataError
from edgejoule.job import Job
from edgejoule.records import EngineRecord, PredictRecord, ScoreRecord
from edgejoule_agent.errors import AgentError, EngineError, ImageError
from edgejoule_agent.host import hardware_class
from edgejoule_agent.steps import predict
from edgejoule_analyst import operating
from edgejoule_analyst.average_precision import AccuracyCurves, Matches
from edgejoule_evaluator.detections import read_detections
from edgejoule_evaluator.matching import read_matches
from edgejoule_evaluator.steps import score

OPERATING = {"confidence": 0.25, "nms_iou": 0.45}
# Fractions of the 32 x 32 input; the frames are 64 wide and 32 high, letter-boxed to the top left.
BOXES = [[0.0, 0.0, 0.25, 0.25], [0.05, 0.0, 0.25, 0.25], [0.5, 0.0, 1.0, 0.5], [0.25, 0.25, 0.5, 0.5]]
SCORES = [[0.9, 0.0], [0.8, 0.0], [0.0, 0.6], [0.01, 0.0]]  # of a white picture; a black one has none
LABELS = [{"id": 18, "name": "dog"}, {"id": 47, "name": "cup"}]


def tiny_onnx(weight: float = 1.0) -> bytes:
    """The engine contract in six nodes: scores are SCORES times the picture's mean brightness."""
    constants = {
        "fixed_boxes": np.array([BOXES], np.float32),
        "fixed_scores": np.array([SCORES], np.float32) * np.float32(weight),
        "white": np.array(255, np.float32),
        "lit": np.array(2.0, np.float32),  # half of the input is padding
    }
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["mean", "white"], ["share"]),
        helper.make_node("Mul", ["share", "lit"], ["brightness"]),
        helper.make_node("Mul", ["fixed_scores", "brightness"], ["scores"]),
        helper.make_node("Identity", ["fixed_boxes"], ["boxes"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 32, 32])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 4, 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 4, 2]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def engine_record(**changes: object) -> dict[str, object]:
    nms = {"score_floor": 0.05, "top_k": 1000, "iou": 0.9, "class_wise": True, "limit": 100}
    record = {
        "precision": "fp32",
        "ran_as": "fp32",
        "hardware": hardware_class("onnxruntime"),
        "options": {},
        "size_bytes": 1,
        "int8_share": 0.0,
        "reformat_layers": 0,
        "candidates": [],
        "chosen_because": "the only one",
        "model": {
            "format": 1,
            "detector": "tiny",
            "labels": LABELS,
            "input": {"height": 32, "width": 32},
            "resize": {
                "policy": "letterbox_top_left",
                "interpolation": "bilinear",
                "alignment": "half_pixel",
                "fill_rgb": [0, 0, 0],
            },
            "clip": "before_nms",
            "nms": {"origin": nms, "common": {**nms, "score_floor": 0.3, "iou": 0.5}},
            "params_m": 0.0,
            "gmacs": 0.0,
        },
        "simulated": False,
        "absent": {},
    }
    return EngineRecord.model_validate(record | changes).model_dump(mode="json")


def picture(brightness: int) -> bytes:
    done, content = cv2.imencode(".png", np.full((32, 64, 3), brightness, np.uint8))
    assert done
    return content.tobytes()


def shard(path: Path, images: dict[int, bytes]) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for number, content in images.items():
            member = tarfile.TarInfo(f"{number:012d}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class Bench:
    """A folder in which steps are run; ``said`` is their progress."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.said: list[tuple[float, float, str]] = []

    def file(self, name: str, content: bytes | object) -> Path:
        path = self.root / name
        path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        return path

    def run(self, step, name: str, parameters: dict[str, object], inputs: dict[str, Path]) -> Path:  # type: ignore[no-untyped-def]
        folder = self.root / name
        folder.mkdir()
        step.run(Job(parameters, inputs, folder, self.root, lambda *said: self.said.append(said)))
        assert {path.name for path in folder.iterdir()} == set(step.OUTPUTS)
        return folder

    def predict(self, name: str, images: dict[int, bytes], *, weight: float = 1.0, **changes: object) -> Path:
        inputs = {
            "engine": self.file(f"{name}.onnx", tiny_onnx(weight)),
            "engine_record": self.file(f"{name}.json", engine_record(**changes)),
            "images-000": shard(self.root / f"{name}.tar", images),
        }
        return self.run(predict, name, {"threads": 1, "operating": OPERATING}, inputs)

    def score(self, name: str, shards: list[Path], dataset: object, **more: object) -> Path:
        inputs = {"dataset": self.file(f"{name}-dataset.json", dataset)}
        for n, folder in enumerate(shards):
            inputs |= {f"detections-{n:03d}": folder / "detections", f"operating-{n:03d}": folder / "operating"}
        references = more.pop("references", [])
        inputs |= {f"reference-{n:03d}": path for n, path in enumerate(references)}  # type: ignore[arg-type, var-annotated]
        return self.run(score, name, {"operating": OPERATING, "scorer": "hotcoco", **more}, inputs)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def dataset(categories: list[dict[str, object]] = LABELS) -> dict[str, object]:  # type: ignore[assignment]
    """Two dogs and a cup per white picture, of which the engine finds a dog and the cup; nothing on the black."""
    objects = [
        (image, category, box) for image in (1, 3) for category, box in ((18, [0, 0, 16, 16]), (47, [32, 0, 32, 32]))
    ] + [(1, 18, [40, 0, 10, 10])]
    return {
        "images": [{"id": number, "width": 64, "height": 32} for number in (1, 2, 3)],
        "categories": categories,
        "annotations": [
            {"id": n, "image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            for n, (image, category, box) in enumerate(objects)
        ],
    }


WHITE, BLACK = picture(255), picture(0)


def test_predict_writes_both_lists_in_pixels_of_the_frame(bench: Bench) -> None:
    folder = bench.predict("predicted", {1: WHITE, 2: BLACK})
    everything, shown = read_detections(folder / "detections"), read_detections(folder / "operating")
    assert everything.images.tolist() == shown.images.tolist() == [1, 2]
    assert everything.image_id.tolist() == [1, 1, 1, 1]
    assert everything.category_id.tolist() == [18, 18, 47, 18]
    np.testing.assert_allclose(everything.score, [0.9, 0.8, 0.6, 0.01], rtol=1e-5)
    np.testing.assert_allclose(
        everything.bbox[[0, 2, 3]], [[0, 0, 16, 16], [32, 0, 32, 32], [16, 16, 16, 16]], atol=1e-4
    )
    # NMS at 0.45 takes the second dog, confidence 0.25 the faint one.
    assert shown.category_id.tolist() == [18, 47]
    record = PredictRecord.model_validate_json((folder / "record").read_bytes())
    assert (record.images, record.detections, record.operating) == (2, 4, 2)
    assert (record.nms["detections"].score_floor, record.nms["detections"].iou) == (0.001, 0.9)
    assert (record.nms["operating"].score_floor, record.nms["operating"].iou) == (0.25, 0.45)
    assert bench.said[-1] == (2, 2, "images")


def test_predict_twice_writes_the_same_bytes(bench: Bench) -> None:
    first, second = (bench.predict(name, {1: WHITE, 2: BLACK}) for name in ("first", "second"))
    for output in predict.OUTPUTS:
        assert (first / output).read_bytes() == (second / output).read_bytes()


def test_predict_names_the_image_it_cannot_decode(bench: Bench) -> None:
    with pytest.raises(ImageError, match=r"Image 9: .*cannot be decoded"):
        bench.predict("predicted", {1: WHITE, 9: b"no image"})


def test_predict_refuses_an_engine_of_other_hardware(bench: Bench) -> None:
    other = {**hardware_class("onnxruntime"), "processor": "a Cray"}
    with pytest.raises(AgentError, match="a Cray"):
        bench.predict("predicted", {1: WHITE}, hardware=other)


def test_predict_refuses_what_is_no_engine_record(bench: Bench) -> None:
    inputs = {"engine_record": bench.file("record.json", {"precision": "fp32"})}
    with pytest.raises(EngineError, match="engine's record is not valid: it has no hardware"):
        bench.run(predict, "predicted", {"threads": 1, "operating": OPERATING}, inputs)


@pytest.mark.parametrize("scorer", ["hotcoco", "pycocotools"])
def test_score_of_two_shards(bench: Bench, scorer: str) -> None:
    shards = [bench.predict("one", {1: WHITE, 2: BLACK}), bench.predict("two", {3: WHITE})]
    folder = bench.score("scored", shards, dataset(), scorer=scorer)
    record = ScoreRecord.model_validate_json((folder / "record").read_bytes())
    # Cups: both found, nothing else. Dogs: 2 of 3 found first, so precision 1 up to recall 2/3: 67 of 101 points.
    assert record.accuracy.ap50 == pytest.approx((1 + 67 / 101) / 2)
    assert record.ap_by_category == pytest.approx({"dog": 67 / 101, "cup": 1.0})
    assert record.accuracy.ap_large is None
    assert (record.images, record.detections, record.scorer) == (3, 8, scorer)
    point = record.operating_point
    assert (point.precision, point.recall, point.detections) == (1.0, pytest.approx(4 / 5), 4)
    assert record.fidelity is None
    assert "FP32" in record.absent["fidelity"]
    matches = read_matches(folder / "matches")
    assert matches.gt_count.tolist() == [[2, 1], [0, 0], [1, 1]]
    assert int(matches.tp[0].sum()) == 4


def test_analyst_computes_from_the_matches_what_the_score_says(bench: Bench) -> None:
    folder = bench.score("scored", [bench.predict("one", {1: WHITE, 2: BLACK, 3: WHITE})], dataset())
    record = ScoreRecord.model_validate_json((folder / "record").read_bytes())
    matches, all_images = Matches.load(folder / "matches"), np.ones((1, 3), np.int64)
    curves = AccuracyCurves(matches)
    told = {name: value for name, value in record.accuracy.model_dump().items() if value is not None}
    assert dict(zip(curves.figures, curves.at(all_images)[0], strict=True)) == pytest.approx(told, abs=1e-9)
    assert {"ap_small", "ap_medium"} <= told.keys()
    shown = dict(zip(operating.FIGURES, operating.figures(matches.operating, all_images)[0], strict=True))
    point = record.operating_point
    assert [shown[name] for name in operating.OF_ALL] == [point.precision, point.recall, point.f1]
    for size in ("small", "medium"):
        assert shown[f"recall_{size}"] == point.by_size[size].recall
        assert shown[f"false_positives_per_image_{size}"] == point.by_size[size].false_positives_per_image


def test_score_gives_fidelity_to_the_reference(bench: Bench) -> None:
    reference = bench.predict("reference", {1: WHITE, 2: BLACK, 3: WHITE})
    weaker = bench.predict("weaker", {1: WHITE, 2: BLACK, 3: WHITE}, weight=0.5)
    folder = bench.score(
        "scored", [weaker], dataset(), references=[reference / "detections"], reference="tiny/fp32/host"
    )
    record = ScoreRecord.model_validate_json((folder / "record").read_bytes())
    assert record.fidelity is not None
    assert (record.fidelity.ap, record.fidelity.boxes, record.fidelity.reference) == (1.0, 6, "tiny/fp32/host")
    assert record.operating_point.detections == 4


def test_score_says_why_there_is_no_fidelity_when_the_reference_failed(bench: Bench) -> None:
    outcome = bench.file(
        "outcome", {"outcome": "oom", "reason": "memory ran out", "step": "predict/tiny/fp32/host/000"}
    )
    shards = [bench.predict("one", {1: WHITE, 2: BLACK, 3: WHITE})]
    folder = bench.score("scored", shards, dataset(), references=[outcome], reference="tiny/fp32/host")
    record = ScoreRecord.model_validate_json((folder / "record").read_bytes())
    assert record.absent["fidelity"] == "the reference tiny/fp32/host has no detections: memory ran out"


def test_score_refuses_a_missing_shard_and_unknown_labels(bench: Bench) -> None:
    shards = [bench.predict("one", {1: WHITE, 2: BLACK}), bench.predict("two", {3: WHITE})]
    with pytest.raises(DataError, match="1 of 3 evaluation images were not given to the detector: 3"):
        bench.score("partial", shards[:1], dataset())
    with pytest.raises(DataError, match="in more than one shard"):
        bench.score("doubled", [*shards, shards[1]], dataset())
    other = [{"id": 17, "name": "dog"}, {"id": 47, "name": "cup"}]
    unlabelled = {**dataset(other), "annotations": []}
    with pytest.raises(DataError, match="does not list: 18"):
        bench.score("mislabelled", shards, unlabelled)
