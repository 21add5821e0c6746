import numpy as np
import pytest

from edgejoule_agent.errors import EngineError
from edgejoule_agent.postprocess import detect
from edgejoule_agent.preprocess import Frame

FRAME = Frame(480, 320, 48, 32, 0.1, 0.1, 0.0, 0.0)  # the whole input, ten original pixels to one


def fractions(*boxes):
    """Boxes in original pixels as fractions of the input."""
    return np.array(boxes, dtype=np.float32) / np.array([480, 320, 480, 320], dtype=np.float32)


def test_detect_gives_pixels_and_category_ids_best_first(manifest):
    boxes = fractions((10, 20, 110, 220), (200, 100, 300, 300))
    scores = np.array([[0.2, 0.0], [0.0, 0.9]], dtype=np.float32)
    found = detect(boxes, scores, FRAME, manifest)
    assert found.category_id.tolist() == [90, 7]
    assert found.score.tolist() == [np.float32(0.9), np.float32(0.2)]
    assert np.allclose(found.bbox, [[200, 100, 100, 200], [10, 20, 100, 200]], atol=1e-3)
    assert (found.category_id.dtype, found.score.dtype, found.bbox.dtype) == (np.int64, np.float32, np.float32)


def test_detect_takes_the_batch_dimension_off(manifest):
    boxes, scores = fractions((10, 20, 110, 220))[None], np.array([[[0.5, 0.1]]], dtype=np.float32)
    assert len(detect(boxes, scores, FRAME, manifest).score) == 2


def test_detect_suppresses_within_a_class_only_when_class_wise(manifest):
    boxes = fractions((0, 0, 100, 100), (0, 0, 100, 90))
    scores = np.array([[0.9, 0.0], [0.0, 0.8]], dtype=np.float32)
    assert len(detect(boxes, scores, FRAME, manifest).score) == 2
    nms = dict(manifest["nms"]["origin"], class_wise=False)
    assert detect(boxes, scores, FRAME, manifest, nms).category_id.tolist() == [7]


def test_detect_orders_equal_scores_by_box_then_class(manifest):
    boxes = fractions((0, 0, 50, 50), (100, 100, 150, 150))
    scores = np.full((2, 2), 0.5, dtype=np.float32)
    found = detect(boxes, scores, FRAME, manifest, dict(manifest["nms"]["origin"], top_k=3))
    assert found.category_id.tolist() == [7, 90, 7]
    assert found.bbox[:, 0].tolist() == [0, 0, 100]


def test_detect_keeps_a_score_equal_to_the_floor_and_honours_the_limit(manifest):
    boxes = fractions(*[(60 * i, 0, 60 * i + 50, 50) for i in range(6)])
    scores = np.zeros((6, 2), dtype=np.float32)
    scores[:, 0] = [0.05, 0.04, 0.9, 0.8, 0.7, 0.6]
    assert len(detect(boxes, scores, FRAME, manifest).score) == 5
    limited = detect(boxes, scores, FRAME, manifest, dict(manifest["nms"]["origin"], limit=2))
    assert limited.bbox[:, 0].round().tolist() == [120, 180]


@pytest.mark.parametrize(("clip", "kept"), [("before_nms", 1), ("after_nms", 2)])
def test_detect_clips_in_the_order_of_the_manifest(manifest, clip, kept):
    # inside the frame the two cover the same pixels; beyond it they part
    boxes = fractions((400, 0, 480, 100), (400, 0, 900, 100))
    scores = np.array([[0.9, 0.0], [0.8, 0.0]], dtype=np.float32)
    manifest["clip"] = clip
    found = detect(boxes, scores, FRAME, manifest)
    assert len(found.score) == kept
    assert (found.bbox[:, 0] + found.bbox[:, 2] <= 480).all()


def test_detect_drops_boxes_outside_the_frame_and_without_area(manifest):
    boxes = fractions((500, 10, 600, 50), (10, 10, 10, 50), (50, 50, 40, 60), (1, 1, 2, 2))
    scores = np.full((4, 2), 0.5, dtype=np.float32)
    assert detect(boxes, scores, FRAME, manifest).bbox.round().tolist() == [[1, 1, 1, 1]] * 2


def test_detect_gives_nothing_for_nothing(manifest):
    found = detect(fractions((0, 0, 1, 1)), np.zeros((1, 2), dtype=np.float32), FRAME, manifest)
    assert found.bbox.shape == (0, 4)
    assert found.score.shape == (0,)


@pytest.mark.parametrize("where", ["boxes", "scores"])
def test_detect_refuses_what_is_not_a_number(manifest, where):
    arrays = {"boxes": fractions((0, 0, 10, 10)), "scores": np.full((1, 2), 0.5, dtype=np.float32)}
    arrays[where].flat[0] = np.nan
    with pytest.raises(EngineError, match=f"{where} hold NaN"):
        detect(arrays["boxes"], arrays["scores"], FRAME, manifest)
