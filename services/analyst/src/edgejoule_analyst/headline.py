"""What quantization did to a model: accuracy, speed and size against its FP32, with intervals, in plain words.

Quantization-aware INT8 is held against post-training INT8 too: that is what the training brought.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from edgejoule.records import Difference, Results, Row
from edgejoule_analyst.bootstrap import NO_EVIDENCE
from edgejoule_analyst.sensitivity import SensitivityClass, sensitivity_class
from edgejoule_analyst.words import after_holm, factor, interval, row_name, signed_points, variant_name

AS_CARDS = 3
"""More comparisons than these are told in a table, not each in a sentence."""


@dataclass(frozen=True)
class Ratio:
    """How many times as fast, or as small; ``low`` and ``high`` from the least and greatest trial means."""

    value: float
    low: float
    high: float

    @property
    def settled(self) -> bool:
        """Whether every pair of trials agrees on the direction."""
        return self.low > 1 or self.high < 1


@dataclass(frozen=True)
class Comparison:
    """One row beside a reference of the same model and device."""

    row: Row
    against: Row
    ap: Difference
    speed: Ratio | None
    size: float | None
    """Bytes of the reference / bytes of the row."""

    @property
    def to_float(self) -> bool:
        """Whether the reference is the model's FP32."""
        return self.against.variant == "fp32"

    @property
    def sensitivity(self) -> SensitivityClass | None:
        """The paper's class of what post-training INT8 lost in AP50; None for anything else."""
        if self.row.variant != "int8-ptq" or not self.to_float or self.row.ap50 is None or self.against.ap50 is None:
            return None
        return sensitivity_class(
            round(100 * (self.against.ap50 - self.row.ap50), 9)
        )  # .401 - .376 is above .025 in binary

    @property
    def sentence(self) -> str:
        """All of it in plain words."""
        variants = f"{variant_name(self.row.variant)} against {variant_name(self.against.variant)}"
        parts = [accuracy_in_words(self.ap), speed_in_words(self.speed), size_in_words(self.size)]
        return f"{self.row.model} on {self.row.device}, {variants}: {'; '.join(parts)}."


def comparisons(results: Results) -> list[Comparison]:
    """Each difference between two rows, in the order of the rows."""
    rows = {row_name(row): row for row in results.rows}
    return [
        Comparison(
            row=rows[difference.row],
            against=rows[difference.against],
            ap=difference,
            speed=_speed(results, difference),
            size=_size(rows[difference.row], rows[difference.against]),
        )
        for difference in results.differences
        if difference.metric == "ap"
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


def speed_in_words(speed: Ratio | None) -> str:
    """
    >>> speed_in_words(Ratio(1.31, 1.25, 1.4))
    '1.31× as fast (1.25× to 1.40× between trials)'
    >>> speed_in_words(Ratio(1.01, 0.9, 1.1))
    'no clear difference in speed (1.01×; 0.90× to 1.10× between trials)'
    """
    if speed is None:
        return "speed was not compared"
    between = f"{factor(speed.low)} to {factor(speed.high)} between trials"
    if not speed.settled:
        return f"no clear difference in speed ({factor(speed.value)}; {between})"
    return f"{factor(speed.value)} as fast ({between})"


def size_in_words(size: float | None) -> str:
    """
    >>> size_in_words(3.5), size_in_words(0.5), size_in_words(None)
    ('3.50× smaller', '2.00× larger', 'size was not compared')
    """
    if size is None:
        return "size was not compared"
    return f"{factor(size)} smaller" if size >= 1 else f"{factor(1 / size)} larger"


def _speed(results: Results, difference: Difference) -> Ratio | None:
    row = results.evidence[difference.row].trial_means_ms
    against = results.evidence[difference.against].trial_means_ms
    if not row or not against or min(*row, *against) == 0:
        return None
    value = (sum(against) / len(against)) / (sum(row) / len(row))
    return Ratio(value, min(against) / max(row), max(against) / min(row))


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
