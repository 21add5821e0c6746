"""NanoDet-m: the published counts, the engine contract, the authors' own ONNX where it is at hand."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from edgejoule.errors import SpecError, WeightsError
from edgejoule.records import Label
from edgejoule_trainer.detectors import create
from edgejoule_trainer.detectors.detector import Target
from edgejoule_trainer.detectors.nanodet_m import NanoDetM, interleave

LABELS = [Label(id=3, name="disc"), Label(id=9, name="star")]
SHARED = Path(os.environ.get("EDGEJOULE_SHARED", Path(__file__).parents[4] / "shared"))
GENUINE = SHARED / "data/weights/nanodet_m.pth"
REFERENCE = SHARED / "data/weights/nanodet_m_320.onnx"


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(0)
    return create("nanodet_m", LABELS).eval()


def test_counts_equal_published_ones():
    manifest = create("nanodet_m", NanoDetM.official_labels()).manifest()
    assert manifest.params_m == pytest.approx(0.95, rel=0.01)
    # 0.72 GFLOPs are published, of which the convolutions counted by Eq. 1 are 0.68.
    assert 2 * manifest.gmacs == pytest.approx(0.684, rel=0.01)


def test_outputs_keep_the_engine_contract(detector):
    boxes, scores = detector(torch.rand(2, 3, 320, 320) * 255)
    assert boxes.shape == (2, 2100, 4)
    assert scores.shape == (2, 2100, 2)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert ((scores > 0) & (scores < 1)).all()


def test_decode_gives_the_cell_widened_by_the_mean_distance(detector):
    raw = tuple(torch.zeros(1, 2 + 32, 320 // s, 320 // s) for s in (8, 16, 32))
    boxes, scores = detector.decode(raw)
    # A uniform distribution over 0..7 has mean 3.5 strides; the first cell's centre is 3.5 pixels.
    expected = np.array([3.5 - 28, 3.5 - 28, 3.5 + 28, 3.5 + 28]) / 320
    np.testing.assert_allclose(boxes[0, 0].numpy(), expected, rtol=1e-5)
    assert scores[0, 0].tolist() == [0.5, 0.5]


def test_interleave_equals_concatenation_and_channel_shuffle():
    a, b = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    shuffled = torch.nn.functional.channel_shuffle(torch.cat([a, b], dim=1), 2)
    torch.testing.assert_close(interleave(a, b), shuffled, rtol=0, atol=0)


def test_loss_falls_when_overfitting_one_image():
    torch.manual_seed(1)
    small = create("nanodet_m", LABELS, (64, 64)).train()
    image = torch.rand(2, 3, 64, 64) * 255
    targets = [Target(torch.tensor([[8.0, 8.0, 40.0, 44.0]]), torch.tensor([1]))] * 2
    optimizer = torch.optim.AdamW(small.parameters(), lr=2e-3)
    values = []
    for _ in range(25):
        loss = sum(small.loss(small.network(small.normalize(image)), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.6 * values[0]


def test_loss_is_finite_when_an_image_has_no_objects(detector):
    raw = detector.network(detector.normalize(torch.zeros(1, 3, 320, 320)))
    losses = detector.loss(raw, [Target(torch.empty(0, 4), torch.empty(0, dtype=torch.long))])
    assert all(torch.isfinite(value) for value in losses.values())


def test_odd_input_size_is_refused_with_the_value():
    with pytest.raises(WeightsError, match=r"multiple of 32.*300x320"):
        create("nanodet_m", LABELS, (320, 300))


def test_unknown_detector_names_the_known_ones():
    with pytest.raises(SpecError, match=r"'yolov9'.*nanodet_m"):
        create("yolov9", LABELS)


@pytest.mark.skipif(not GENUINE.exists(), reason="the genuine weights are not on this machine")
def test_genuine_weights_give_the_authors_outputs():
    onnxruntime = pytest.importorskip("onnxruntime")
    state = torch.load(GENUINE, weights_only=True)["state_dict"]
    official = NanoDetM.from_official(state)
    assert official.tensors.keys() | {f"network.{name}" for name in official.unused} == {f"network.{n}" for n in state}
    model = create("nanodet_m", NanoDetM.official_labels()).eval()
    model.load_state_dict(official.tensors)
    image = torch.rand(1, 3, 320, 320, generator=torch.Generator().manual_seed(5)) * 255
    with torch.no_grad():
        normalized = model.normalize(image)
        raw = model.network(normalized)
    reference = onnxruntime.InferenceSession(str(REFERENCE))
    outputs = reference.run(None, {reference.get_inputs()[0].name: normalized.flip(1).numpy()})
    by_shape = {output.shape: output for output in outputs}
    for level in raw:
        flat = level.flatten(2)[0].T
        scores, distances = by_shape[(len(flat), 80)], by_shape[(len(flat), 32)]
        np.testing.assert_allclose(flat[:, :80].sigmoid().numpy(), scores, atol=1e-4)
        np.testing.assert_allclose(flat[:, 80:].numpy(), distances, atol=1e-4)
