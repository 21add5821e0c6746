"""The paper's classes of PTQ sensitivity."""

import pytest

from edgejoule_analyst.sensitivity import sensitivity_class

# AP50 lost by INT8 PTQ, in percentage points (Table 7), and the class that Table 4 gives
PAPER = {
    "SSD-MobileNetV2": (2.5, "Medium"),
    "SSD-Lite-MobileNetV3": (1.8, "Medium"),
    "YOLOv5s": (3.2, "High"),
    "EfficientDet-D0": (2.7, "High"),
    "NanoDet-m": (1.1, "Low"),
}


@pytest.mark.parametrize("model", PAPER)
def test_sensitivity_class_is_that_of_table_4(model) -> None:
    loss, expected = PAPER[model]
    assert sensitivity_class(loss) == expected


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (float("-inf"), "Low"),
        (1.4999, "Low"),
        (1.5, "Medium"),
        (2.5, "Medium"),
        (2.5001, "High"),
        (float("inf"), "High"),
    ],
)
def test_sensitivity_class_changes_at_the_papers_bounds(loss, expected) -> None:
    assert sensitivity_class(loss) == expected


def test_sensitivity_class_refuses_what_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="not a number"):
        sensitivity_class(float("nan"))
