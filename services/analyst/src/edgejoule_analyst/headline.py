"""What quantization did to a model: accuracy, speed and size against its FP32, with intervals, in plain words.

Quantization-aware INT8 is held against post-training INT8 too: that is what the training brought.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

from edgejoule.records import Difference, Evidence, Results, Row
from edgejoule_analyst.bootstrap import LEVEL, NO_EVIDENCE
from edgejoule_analyst.figures import OLD_RESULTS, ONE_TRIAL
from edgejoule_analyst.sensitivity import SensitivityClass, sensitivity_class
from edgejoule_analyst.significance import TRIALS_ALIKE, Spread, holm, verdict
from edgejoule_analyst.words import after_holm, factor, interval, level, row_name, signed_points, variant_name

NOT_JUDGED = "not judged"
NOT_SHOWN: Literal["not shown"] = "not shown"
AS_CARDS = 3
"""More comparisons than these are told in a table, not each in a sentence."""


@dataclass(frozen=True)
class Speed:
    """How many times as fast as its reference: the ratio of the geometric means of the trials' latencies."""

    value: float
    low: float | None
    high: float | None
    """By Welch's test of the trials' logarithms, as ``edgejoule compare``; not corrected."""
    p: float | None
    p_holm: float | None
    """Corrected for every speed that the run compares."""
    why_not_judged: str | None = None

    @property
    def verdict(self) -> str:
        """``faster``, ``slower``, no evidence of a difference, or ``not judged``."""
        if self.p_holm is None:
            return NOT_JUDGED
        return {"lower": "slower", "higher": "faster"}.get(said := verdict(self.value - 1, self.p_holm), said)

    @property
    def interval(self) -> str | None:
        """``95 % interval 1.25× to 1.40×``; None where it is not judged."""
        if self.low is None or self.high is None:
            return None
        return f"{level(LEVEL)} interval {factor(self.low)} to {factor(self.high)}"


@dataclass(frozen=True)
class Comparison:
    """One row beside a reference of the same model and device."""

    row: Row
    against: Row
    ap: Difference
    speed: Speed | str
    """Or why there is none."""
    ap50: Difference | None
    """None in results of before it was tested."""
    size: float | None
    """Bytes of the reference / bytes of the row."""

    @property
    def to_float(self) -> bool:
        """Whether the reference is the model's FP32."""
        return self.against.variant == "fp32"

    @property
    def sensitivity(self) -> SensitivityClass | Literal["not shown"] | None:
        """The paper's class of what post-training INT8 lost in AP50; None for anything else.

        It is shown where the corrected test finds a difference, or where the whole interval is of one class.
        """
        if self.row.variant != "int8-ptq" or not self.to_float or self.row.ap50 is None or self.against.ap50 is None:
            return None
        if self.ap50 is None:
            return NOT_SHOWN
        lost = (self.against.ap50 - self.row.ap50, -self.ap50.low, -self.ap50.high)
        # .401 - .376 is above .025 in binary
        found, *of_ends = (sensitivity_class(round(100 * loss, 9)) for loss in lost)
        is_shown = self.ap50.verdict != NO_EVIDENCE or set(of_ends) == {found}
        return found if is_shown else NOT_SHOWN

    @property
    def sentence(self) -> str:
        """All of it in plain words."""
        variants = f"{variant_name(self.row.variant)} against {variant_name(self.against.variant)}"
        parts = [accuracy_in_words(self.ap), speed_in_words(self.speed), size_in_words(self.size)]
        return f"{self.row.model} on {self.row.device}, {variants}: {'; '.join(parts)}."


def comparisons(results: Results) -> list[Comparison]:
    """Each difference between two rows, in the order of the rows."""
    rows = {row_name(row): row for row in results.rows}
    of_ap50 = {(each.row, each.against): each for each in results.differences if each.metric == "ap50"}
    found = [
        Comparison(
            row=rows[difference.row],
            against=rows[difference.against],
            ap=difference,
            speed=_speed(*((rows[name], results.evidence[name]) for name in (difference.row, difference.against))),
            ap50=of_ap50.get((difference.row, difference.against)),
            size=_size(rows[difference.row], rows[difference.against]),
        )
        for difference in results.differences
        if difference.metric == "ap"
    ]
    p_values = [each.speed.p for each in found if isinstance(each.speed, Speed) and each.speed.p is not None]
    corrected = iter(holm(p_values))
    return [
        replace(each, speed=replace(each.speed, p_holm=next(corrected)))
        if isinstance(each.speed, Speed) and each.speed.p is not None
        else each
        for each in found
    ]


def accuracy_in_words(difference: Difference) -> str:
    """The verdict, and what it rests on.

    >>> found = Difference(metric="ap", row="m/int8-ptq/d", against="m/fp32/d", difference=-0.012, low=-0.018,
    ...                    high=-0.006, level=0.95, resamples=2000, images=300, p=0.002, p_holm=0.004, verdict="lower")
    >>> accuracy_in_words(found)
    'AP is lower by 1.20 points (95 % interval −1.80 to −0.60, p = 0.004 after Holm)'
    """
    said = interval(difference) + ("" if difference.p_holm is None else f", {after_holm(difference.p_holm)}")
    if difference.verdict == NO_EVIDENCE:
        return f"{NO_EVIDENCE} in AP ({signed_points(difference.difference)} points, {said})"
    return f"AP is {difference.verdict} by {100 * abs(difference.difference):.2f} points ({said})"


def speed_in_words(speed: Speed | str) -> str:
    """
    >>> speed_in_words(Speed(1.31, 1.25, 1.4, p=0.001, p_holm=0.002))
    '1.31× as fast (95 % interval 1.25× to 1.40×, p = 0.002 after Holm)'
    >>> speed_in_words(Speed(1.01, 0.9, 1.1, p=0.7, p_holm=1.0))
    'no evidence of a difference in speed (1.01×; 95 % interval 0.90× to 1.10×, p = 1.000 after Holm)'
    >>> speed_in_words(Speed(1.31, None, None, p=None, p_holm=None, why_not_judged="one trial"))
    'speed is not judged (1.31×): one trial'
    >>> speed_in_words("m/fp32/d is throttled")
    'speed was not compared: m/fp32/d is throttled'
    """
    if isinstance(speed, str):
        return f"speed was not compared: {speed}"
    if speed.p_holm is None:
        return f"speed is not judged ({factor(speed.value)}): {speed.why_not_judged}"
    rests_on = f"{speed.interval}, {after_holm(speed.p_holm)}"
    if speed.verdict == NO_EVIDENCE:
        return f"{NO_EVIDENCE} in speed ({factor(speed.value)}; {rests_on})"
    return f"{factor(speed.value)} as fast ({rests_on})"


def size_in_words(size: float | None) -> str:
    """
    >>> size_in_words(3.5), size_in_words(0.5), size_in_words(None)
    ('3.50× smaller', '2.00× larger', 'size was not compared')
    """
    if size is None:
        return "size was not compared"
    return f"{factor(size)} smaller" if size >= 1 else f"{factor(1 / size)} larger"


def _speed(*sides: tuple[Row, Evidence]) -> Speed | str:
    """Of a row and its reference, or why there is none: a figure of a throttled row is of the heat too."""
    for side, _ in sides:
        if side.latency_ms is None:
            return side.absent["latency_ms"]
        if side.status != "ok":
            return f"{row_name(side)} is {side.status}: {side.reason}"
    row, against = (evidence.trial_means_ms for _, evidence in sides)
    if not row or not against:
        return OLD_RESULTS
    if min(*row, *against) == 0:
        return "a trial's mean latency is 0 ms"
    logs = [[math.log(ms) for ms in trials] for trials in (row, against)]
    value = math.exp(fmean(logs[1]) - fmean(logs[0]))
    if min(map(len, logs)) < 2:
        return Speed(value, None, None, None, None, ONE_TRIAL)
    found = Spread.of(logs[1]).less(Spread.of(logs[0]))
    if not found.scattered:
        return Speed(value, None, None, None, None, TRIALS_ALIKE)
    low, high = found.interval(LEVEL)
    return Speed(value, math.exp(low), math.exp(high), found.p, None)


def _size(row: Row, against: Row) -> float | None:
    return None if row.size_mb is None or against.size_mb is None else against.size_mb / row.size_mb


# --- what several rows have to say ---------------------------------------------------------------

Shared = list[tuple[list[Row], str]]


def shared_endings(rows: Sequence[Row]) -> Shared:
    """Rows that did not end well, by how and why.

    >>> from types import SimpleNamespace as Made
    >>> rows = [Made(status="failed", reason="no memory"), Made(status="failed", reason="no memory"), Made(status="ok")]
    >>> [(len(alike), said) for alike, said in shared_endings(rows)]
    [(2, 'failed: no memory')]
    """
    return _alike((row, text, text) for row in rows if row.status != "ok" for text in [f"{row.status}: {row.reason}"])


def shared_flags(rows: Sequence[Row]) -> Shared:
    """Rows by what speaks against their figures.

    >>> from types import SimpleNamespace as Made
    >>> rows = [Made(flags=["contended: 31 % of CPU"]), Made(flags=["contended: 12 % of CPU"])]
    >>> [(len(alike), said) for alike, said in shared_flags(rows)]
    [(2, 'contended: 31 % of CPU (figures of the first row)')]
    """
    return _alike((row, flag.partition(":")[0], flag) for row in rows for flag in row.flags)


def _alike(said: Iterable[tuple[Row, str, str]]) -> Shared:
    """(row, kind, text) by kind, with the text of the first."""
    kinds: dict[str, tuple[list[Row], list[str]]] = {}
    for row, kind, text in said:
        rows, texts = kinds.setdefault(kind, ([], []))
        rows.append(row)
        texts.append(text)
    return [
        (rows, texts[0] + (" (figures of the first row)" if len(set(texts)) > 1 else ""))
        for rows, texts in kinds.values()
    ]
