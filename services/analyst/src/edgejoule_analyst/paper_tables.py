"""The tables of the paper, made from a run: what INT8 costs and what training brings back, ratios, and efficiency.

Each value is ``None`` where a row has nothing to make it from; the row's own ``absent`` says why. AP50 and its
differences are fractions here, as everywhere in the records.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from edgejoule.records import InputSize, Results, Row
from edgejoule_analyst import efficiency
from edgejoule_analyst.words import model_name, row_name


@dataclass(frozen=True)
class ModelFacts:
    """What a model is, whatever it runs on: the paper's Table 4."""

    model: str
    params_m: float
    gmacs: float | None
    """Of one image."""
    input: InputSize | None
    """None in results of before it was written down."""

    @property
    def kmacs_per_pixel(self) -> float | None:
        """Multiply-accumulates for each pixel of the input, the paper's normalized FLOPs (two of which are one MAC).

        >>> round(ModelFacts("nanodet_m", 0.95, 0.36, InputSize(height=320, width=320)).kmacs_per_pixel, 2)
        3.52
        """
        if self.gmacs is None or self.input is None:
            return None
        return 1e6 * self.gmacs / (self.input.height * self.input.width)


@dataclass(frozen=True)
class Loss:
    """What quantization cost one model on one device in AP50: the paper's Tables 1, 7 and 9."""

    model: str
    device: str
    fp32: float
    ptq: float | None
    qat: float | None
    is_certain: bool
    """Whether the corrected test finds post-training INT8 lower."""
    gain_is_certain: bool = False
    """Whether it finds quantization-aware INT8 higher than that."""

    @property
    def ptq_loss(self) -> float | None:
        """AP50 of FP32 less that of post-training INT8."""
        return None if self.ptq is None else self.fp32 - self.ptq

    @property
    def qat_loss(self) -> float | None:
        """AP50 of FP32 less that of quantization-aware INT8."""
        return None if self.qat is None else self.fp32 - self.qat

    @property
    def gain(self) -> float | None:
        """What quantization-aware training brought: AP50 of it less that of post-training INT8."""
        return None if self.qat is None or self.ptq is None else self.qat - self.ptq

    @property
    def recovered(self) -> float | None:
        """Gain / loss; None where it is not certain that anything was lost, and that anything was brought back.

        >>> round(Loss("yolov5s", "nano", 0.462, 0.430, 0.453, is_certain=True, gain_is_certain=True).recovered, 3)
        0.719
        """
        if self.gain is None or self.ptq_loss is None or self.ptq_loss <= 0:
            return None
        if not self.is_certain or not self.gain_is_certain:
            return None
        return self.gain / self.ptq_loss


@dataclass(frozen=True)
class Ratios:
    """How many times as small and as fast as the model's FP32 on the device: the paper's Tables 6 and 7."""

    row: Row
    size: float | None
    speed: float | None
    """None too where one of the two throttled: it would be of the heat."""


@dataclass(frozen=True)
class Efficiency:
    """A timed row's throughput, power and energy: the paper's Table 8."""

    row: Row
    dynamic_w: float | None
    """P_loaded - P_idle."""

    @property
    def practical_fps(self) -> float | None:
        """By the time from pixels to detections (Eq. 11), not of the inference alone; None where no stage was timed."""
        return efficiency.practical_fps(self.row.stages_ms) if self.row.stages_ms else None

    @property
    def images_per_joule(self) -> float | None:
        """1 / energy per image; at batch 1 the paper's inferences per joule."""
        energy_mj = self.row.per_image(self.row.energy_mj)
        return None if not energy_mj else inferences_per_joule(energy_mj)


def dynamic_power(loaded_w: float, idle_w: float) -> float:
    """P_dynamic = P_loaded - P_idle, in watts (section 4.1, Table 8).

    >>> round(dynamic_power(1.8, 1.2), 1)  # the paper's NanoDet-m, INT8
    0.6
    """
    return loaded_w - idle_w


def inferences_per_joule(energy_mj: float) -> float:
    """1 / energy per inference (section 4.2, to Fig. 8).

    >>> round(inferences_per_joule(12.6), 1)  # the paper's NanoDet-m, INT8
    79.4
    """
    return 1000 / energy_mj


def ratio(fp32: float | None, value: float | None) -> float | None:
    """FP32 / value: r_s of a size, the speed-up of a latency (section 4.1, Tables 6 and 7); None where one is missing.

    >>> round(ratio(13.7, 3.6), 1), round(ratio(142.0, 45.0), 1)  # the paper's YOLOv5s, PTQ: MB and ms
    (3.8, 3.2)
    """
    return None if fp32 is None or not value else fp32 / value


def models(results: Results) -> list[ModelFacts]:
    """One for each model at each of its input sizes, of its FP32 row where it has one."""
    found: dict[str, ModelFacts] = {}
    for row in sorted(results.rows, key=lambda row: row.variant != "fp32"):
        if row.params_m is not None:
            facts = ModelFacts(model_name(row), row.params_m, row.gmacs, results.evidence[row_name(row)].input)
            found.setdefault(facts.model, facts)
    order = dict.fromkeys(map(model_name, results.rows))
    return [found[name] for name in order if name in found]


def losses(results: Results) -> list[Loss]:
    """One for each model and device with an AP50 in FP32 and in some INT8."""
    verdicts = {(d.row, d.against): d.verdict for d in results.differences if d.metric == "ap50"}
    ap50 = {(row.model, row.device, row.variant): row.ap50 for row in results.rows}
    found = []
    for row in results.rows:
        if row.variant == "fp32" and row.ap50 is not None:
            ptq, qat = (ap50.get((row.model, row.device, variant)) for variant in ("int8-ptq", "int8-qat"))
            if ptq is not None or qat is not None:
                names = {variant: f"{row.model}/{variant}/{row.device}" for variant in ("fp32", "int8-ptq", "int8-qat")}
                is_certain = verdicts.get((names["int8-ptq"], names["fp32"])) == "lower"
                gained = verdicts.get((names["int8-qat"], names["int8-ptq"])) == "higher"
                found.append(Loss(row.model, row.device, row.ap50, ptq, qat, is_certain, gained))
    return found


def ratios(results: Results) -> list[Ratios]:
    """One for each row that is not FP32 and whose model has an FP32 row on the device, where either can be compared."""
    base = {(row.model, row.device): row for row in results.rows if row.variant == "fp32"}
    found = [
        Ratios(row, ratio(against.size_mb, row.size_mb), ratio(_ok_ms(against), _ok_ms(row)))
        for row in results.rows
        if row.variant != "fp32" and (against := base.get((row.model, row.device)))
    ]
    return [each for each in found if each.size is not None or each.speed is not None]


def mean_ratios(found: list[Ratios]) -> Iterator[tuple[str, str, int, float | None, float | None]]:
    """(variant, device, rows, mean size ratio, mean speed-up) over models: what the paper calls its average."""
    for variant, device in dict.fromkeys((each.row.variant, each.row.device) for each in found):
        alike = [each for each in found if (each.row.variant, each.row.device) == (variant, device)]
        yield variant, device, len(alike), _mean([r.size for r in alike]), _mean([r.speed for r in alike])


def efficiencies(results: Results) -> list[Efficiency]:
    """One for each timed row."""
    found = []
    for row in results.rows:
        if row.latency_ms is not None:
            idle_w = results.evidence[row_name(row)].idle_power_w
            dynamic_w = None if row.power_w is None or idle_w is None else dynamic_power(row.power_w, idle_w)
            found.append(Efficiency(row, dynamic_w))
    return found


def _ok_ms(row: Row) -> float | None:
    return row.latency_ms.mean if row.latency_ms is not None and row.status == "ok" else None


def _mean(values: list[float | None]) -> float | None:
    """None where a part is missing: a mean of the rest would be of other models than it says."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
