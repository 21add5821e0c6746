from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgejoule.errors import DataError
from edgejoule_evaluator.detections import Detections, merge, read_detections, require_same_images, write_detections
from edgejoule_evaluator.ground_truth import from_dataset, require_known_categories

finite = st.floats(-1e4, 1e4, width=32)


def detections(images: list[int], rows: list[tuple[int, int, float, tuple[float, ...]]]) -> Detections:
    return Detections(
        images=np.array(images, np.int64),
        image_id=np.array([row[0] for row in rows], np.int64),
        category_id=np.array([row[1] for row in rows], np.int64),
        score=np.array([row[2] for row in rows], np.float32),
        bbox=np.array([row[3] for row in rows], np.float32).reshape(-1, 4),
    )


BOX = (1.0, 2.0, 3.0, 4.0)
DATASET = {
    "images": [{"id": 7}, {"id": 3}],
    "categories": [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}],
    "annotations": [{"id": 0, "image_id": 3, "category_id": 90, "bbox": [0, 0, 2, 2], "area": 3.5, "iscrowd": 1}],
}


@st.composite
def any_detections(draw: st.DrawFn) -> Detections:
    images = sorted(draw(st.sets(st.integers(0, 2**40), min_size=1, max_size=5)))
    count = draw(st.integers(0, 8))
    bbox = draw(hnp.arrays(np.float32, (count, 4), elements=finite))
    bbox[:, 2:] = np.abs(bbox[:, 2:])
    return Detections(
        images=np.array(images, np.int64),
        image_id=np.array([draw(st.sampled_from(images)) for _ in range(count)], np.int64),
        category_id=draw(hnp.arrays(np.int64, count, elements=st.integers(0, 1000))),
        score=draw(hnp.arrays(np.float32, count, elements=st.floats(0, 1, width=32))),
        bbox=bbox,
    )


@given(any_detections())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_file_returns_what_was_written_in_the_same_bytes(tmp_path: Path, written: Detections) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_detections(first, written)
    read = read_detections(first)
    for name, array in vars(written).items():
        np.testing.assert_array_equal(getattr(read, name), array)
    write_detections(second, read)
    assert first.read_bytes() == second.read_bytes()


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_that_are_no_detections_are_a_data_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "detections"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a detections file"):
        read_detections(path)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_file_is_a_data_error_or_still_sound(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "detections"
    write_detections(path, detections([1, 2], [(1, 5, 0.5, BOX), (2, 6, 0.25, BOX)]))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    with suppress(DataError):
        assert len(read_detections(path)) == 2


def test_pickled_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "detections"
    empty = np.array([], np.int64)
    with path.open("wb") as file:
        np.savez(file, images=np.array([object()]), image_id=empty, category_id=empty, score=empty, bbox=empty)
    with pytest.raises(DataError, match="allow_pickle"):
        read_detections(path)


def test_missing_array_and_wrong_type_are_named(tmp_path: Path) -> None:
    path = tmp_path / "detections"
    with path.open("wb") as file:
        np.savez(file, images=np.array([1]))
    with pytest.raises(DataError, match="lacks the array 'bbox'"):
        read_detections(path)
    sound = vars(detections([1], []))
    with path.open("wb") as file:
        np.savez(file, **{**sound, "score": np.zeros(0, np.float64)})
    with pytest.raises(DataError, match="'score' is float64"):
        read_detections(path)


@pytest.mark.parametrize(
    ("images", "row", "said"),
    [
        ([1], (2, 1, 0.5, BOX), "names image 2"),
        ([1, 1], (1, 1, 0.5, BOX), "image 1 is listed twice"),
        ([1], (1, 1, float("nan"), BOX), "image 1 has score nan"),
        ([1], (1, 1, 0.5, (0, 0, float("inf"), 1)), "image 1 has score 0.5"),
        ([1], (1, 1, 0.5, (0, 0, -1, 1)), "widths and heights not negative"),
    ],
)
def test_contradictory_detections_are_refused(images: list[int], row: tuple, said: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(DataError, match=said):
        detections(images, [row])


def test_columns_of_different_lengths_are_refused() -> None:
    sound = detections([1], [(1, 1, 0.5, BOX)])
    with pytest.raises(DataError, match=r"bbox has shape \(0, 4\), expected \(1, 4\)"):
        Detections(sound.images, sound.image_id, sound.category_id, sound.score, sound.bbox[:0])


def test_merge_joins_shards_in_order() -> None:
    merged = merge([detections([1, 2], [(2, 9, 0.5, BOX)]), detections([5], [(5, 8, 0.75, BOX), (5, 8, 0.25, BOX)])])
    assert merged.images.tolist() == [1, 2, 5]
    assert merged.image_id.tolist() == [2, 5, 5]
    assert merged.score.tolist() == [0.5, 0.75, 0.25]


def test_merge_refuses_overlapping_shards_and_none_at_all() -> None:
    with pytest.raises(DataError, match="2 images are in more than one shard of the detections: 2, 3"):
        merge([detections([1, 2, 3], []), detections([2, 3, 4], [])])
    with pytest.raises(DataError, match="no detections to score"):
        merge([])


def test_images_must_be_those_of_the_set() -> None:
    require_same_images(detections([3, 1], []), np.array([1, 3]))
    with pytest.raises(
        DataError, match=r"7 of 8 evaluation images were not given to the detector: 2, 3, 4, 5, 6, \.\.\."
    ):
        require_same_images(detections([1], []), np.arange(1, 9))
    with pytest.raises(DataError, match="1 images that are not in the evaluation set: 4"):
        require_same_images(detections([1, 4], []), np.array([1]))


def test_ground_truth_is_sorted_by_id_and_keeps_area_and_crowd() -> None:
    truth = from_dataset(DATASET)
    assert truth.images.tolist() == [3, 7]
    assert truth.names == ("person", "toothbrush")
    assert truth.area.tolist() == [3.5]
    assert truth.crowd.tolist() == [True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"annotations": None}, "no COCO detection data"),
        ({"categories": [{"id": 1}]}, "no COCO detection data"),
        ({"images": [{"id": 3}, {"id": 3}]}, "image id twice"),
        ({"categories": [{"id": 90, "name": "cat"}, {"id": 2, "name": "cat"}]}, "category name twice"),
        ({"images": [{"id": 7}]}, "names image 3"),
        ({"categories": [{"id": 1, "name": "person"}]}, "names category 90"),
    ],
)
def test_broken_ground_truth_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said):
        from_dataset({**DATASET, **change})


def test_categories_unknown_to_the_data_set_are_listed() -> None:
    truth = from_dataset(DATASET)
    require_known_categories(detections([3, 7], [(3, 90, 0.5, BOX)]), truth)
    with pytest.raises(DataError, match="does not list: 80, 91"):
        require_known_categories(detections([3, 7], [(3, 91, 0.5, BOX), (3, 80, 0.5, BOX), (7, 1, 0.5, BOX)]), truth)
