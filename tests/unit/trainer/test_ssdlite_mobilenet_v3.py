"""SSDLite-MobileNetV3: the published counts, the engine contract; ``tests/faithfulness`` has torchvision beside it."""

import math

import pytest
import torch

from edgejoule.errors import WeightsError
from edgejoule.records import Label
from edgejoule_trainer.detectors import create
from edgejoule_trainer.detectors.detector import Target
from edgejoule_trainer.detectors.ssdlite_mobilenet_v3 import SsdliteMobileNetV3, map_sizes, prior_shapes
from edgejoule_trainer.losses.boxes import iou

LABELS = [Label(id=3, name="disc"), Label(id=9, name="star")]


@pytest.fixture(scope="module")
def official():
    torch.manual_seed(0)
    return create("ssdlite_mobilenet_v3", SsdliteMobileNetV3.official_labels()).eval()


def test_counts_equal_published_ones(official):
    manifest = official.manifest()
    assert round(manifest.params_m * 1e6) == 3440060
    assert manifest.gmacs == pytest.approx(0.583, rel=0.001)


def test_tensors_are_those_of_torchvision(official):
    names = official.state_dict().keys()
    assert len(names) == 476
    assert {name.split(".")[0] for name in names} == {"network"}
    assert official.network.backbone.features[0][13][0].weight.shape == (672, 112, 1, 1)
    assert official.network.backbone.features[1][0].get_submodule("2").fc1.weight.shape == (168, 672, 1, 1)


@pytest.mark.parametrize(("size", "priors"), [((320, 320), 3234), ((192, 256), 1548)])
def test_outputs_keep_the_engine_contract(size, priors):
    boxes, scores = create("ssdlite_mobilenet_v3", LABELS, size).eval()(torch.rand(2, 3, *size) * 255)
    assert boxes.shape == (2, priors, 4)
    assert scores.shape == (2, priors, 2)
    assert (boxes[..., 2:] >= boxes[..., :2]).all()
    assert ((scores > 0) & (scores < 1)).all()


@pytest.mark.parametrize("size", [(320, 320), (300, 300), (97, 130)])
def test_map_sizes_are_those_of_the_maps(size):
    detector = create("ssdlite_mobilenet_v3", LABELS, size).eval()
    with torch.no_grad():
        maps = detector.network.backbone(torch.zeros(1, 3, *size))
    assert [tuple(level.shape[2:]) for level in maps] == map_sizes(size)


def test_priors_have_the_configured_scales_and_aspects():
    levels = prior_shapes()
    assert levels[0][:2] == [pytest.approx((0.2, 0.2)), pytest.approx((math.sqrt(0.07), math.sqrt(0.07)))]
    assert levels[1][4:] == [
        pytest.approx((0.35 * math.sqrt(3), 0.35 / math.sqrt(3))),
        pytest.approx((0.35 / math.sqrt(3), 0.35 * math.sqrt(3))),
    ]
    assert levels[5][2] == pytest.approx((1.0, 0.95 / math.sqrt(2)))  # 1.34 wide, cut at the input's side


def test_trained_on_one_image_it_finds_the_objects_there():
    """In evaluation mode, so with the statistics that batch norm kept."""
    torch.manual_seed(0)
    small = create("ssdlite_mobilenet_v3", LABELS, (64, 64)).train()
    image = torch.rand(2, 3, 64, 64) * 60
    image[:, 0, 8:44, 8:40] = 250.0
    targets = [Target(torch.tensor([[8.0, 8.0, 40.0, 44.0]]), torch.tensor([1]))] * 2
    optimizer = torch.optim.AdamW(small.parameters(), lr=2e-3)
    values = []
    for _ in range(80):
        loss = sum(small.loss(small.network(small.normalize(image)), targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.1 * values[0]
    with torch.no_grad():
        boxes, scores = small.eval()(image[:1])
    best = scores[0].amax(dim=1).argmax()
    assert scores[0, best, 1] > 0.5 > scores[0, best, 0]
    assert iou(boxes[0, best] * 64, targets[0].boxes[0]) > 0.6


def test_loss_is_zero_and_differentiable_when_an_image_has_no_objects():
    detector = create("ssdlite_mobilenet_v3", LABELS, (64, 64)).eval()
    raw = detector.network(detector.normalize(torch.zeros(1, 3, 64, 64)))
    losses = detector.loss(raw, [Target(torch.empty(0, 4), torch.empty(0, dtype=torch.long))])
    sum(losses.values()).backward()
    assert all(value == 0 for value in losses.values())


def test_state_of_something_else_is_refused():
    with pytest.raises(WeightsError, match="not a SSDLite-MobileNetV3 of torchvision"):
        SsdliteMobileNetV3.from_official({"backbone.features.0.0.0.weight": torch.ones(1)})
