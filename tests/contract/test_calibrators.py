"""The calibrators that a spec may name are those that the quantizer has, in the same order."""

from edgejoule.spec import CALIBRATORS as SPEC_NAMES
from edgejoule_trainer.quantize.scales import CALIBRATORS


def test_spec_names_every_calibrator_there_is() -> None:
    assert tuple(CALIBRATORS) == SPEC_NAMES
