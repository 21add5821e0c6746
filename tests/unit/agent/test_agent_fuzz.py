import contextlib
import io
import tarfile

import numpy as np
import pytest

from edgejoule_agent.errors import ShardError
from edgejoule_agent.postprocess import suppress, top_candidates
from edgejoule_agent.shards import ShardReader

hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")

QUICK = hypothesis.settings(max_examples=100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@QUICK
@hypothesis.given(st.lists(st.tuples(st.integers(0, 1500), st.binary(min_size=1, max_size=12)), max_size=4), st.data())
def test_shards_open_or_say_why_whatever_the_bytes(folder, patches, data):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("1.jpg")
        info.size = 600
        archive.addfile(info, io.BytesIO(b"x" * 600))
    content = bytearray(packed.getvalue())
    for offset, patch in patches:
        content[offset : offset + len(patch)] = patch
    path = folder / "a.tar"
    path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    with contextlib.suppress(ShardError), ShardReader(path) as reader:
        for image_id, image in reader:
            assert image_id >= 0
            assert len(image) <= len(content)


def naive_suppress(boxes, groups, iou, limit):
    """The textbook loop, one pair at a time."""
    kept = []
    for i, a in enumerate(boxes):
        if len(kept) == limit:
            break
        for j in kept:
            b = boxes[j]
            width = max(0, min(a[2], b[2]) - max(a[0], b[0]))
            height = max(0, min(a[3], b[3]) - max(a[1], b[1]))
            union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
            if (groups is None or groups[i] == groups[j]) and width * height / union > iou:
                break
        else:
            kept.append(i)
    return kept


BOX = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 12), st.integers(1, 12))


@QUICK
@hypothesis.given(
    st.lists(st.tuples(BOX, st.integers(0, 2)), max_size=25),
    st.sampled_from([0.25, 0.5, 0.75]),
    st.integers(1, 10),
    st.booleans(),
)
def test_suppress_equals_the_textbook_loop(candidates, iou, limit, class_wise):
    boxes = [(x, y, x + w, y + h) for (x, y, w, h), _ in candidates]
    groups = [group for _, group in candidates] if class_wise else None
    found = suppress(
        np.array(boxes, dtype=np.float64).reshape(-1, 4), None if groups is None else np.array(groups), iou, limit
    )
    assert found.tolist() == naive_suppress(boxes, groups, iou, limit)


@QUICK
@hypothesis.given(st.lists(st.integers(0, 8), max_size=60), st.integers(0, 8), st.integers(1, 12))
def test_top_candidates_equals_a_full_sort_with_ties_by_index(eighths, floor, top_k):
    scores = np.array(eighths, dtype=np.float32) / 8
    wanted = sorted((i for i, s in enumerate(eighths) if s >= floor), key=lambda i: (-eighths[i], i))[:top_k]
    assert top_candidates(scores, floor / 8, top_k).tolist() == wanted
