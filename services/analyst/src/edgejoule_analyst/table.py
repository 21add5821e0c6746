"""The rows of a run as a table for the terminal, 100 columns wide at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from edgejoule.records import Difference, Results, Row
from edgejoule_analyst.headline import AS_CARDS, Comparison, comparisons, shared_endings, shared_flags
from edgejoule_analyst.plausibility import unchecked
from edgejoule_analyst.repeats import in_short, sentences
from edgejoule_analyst.words import level, p_value, points, row_name, signed_points

WIDTH = 100
STYLES = {"ok": "green", "unsupported": "yellow", "throttled": "yellow", "unreachable": "yellow"}
NOT_MEASURED = "–"


def render_table(results: dict[str, Any]) -> Table:
    """The parsed ``results.json`` as a table; what is no number says why.

    Raises:
        pydantic.ValidationError: ``results`` is not of the published schema.
    """
    parsed = Results.model_validate(results)
    against = {row_name(comparison.row): comparison for comparison in comparisons(parsed) if comparison.to_float}
    table = Table(title=_title(parsed), caption=_caption(parsed), box=SIMPLE_HEAD, pad_edge=False)
    table.collapse_padding = True
    table.show_edge = False
    table.title_justify = table.caption_justify = "left"
    table.caption_style = table.title_style = ""
    table.min_width = table.width = WIDTH
    table.add_column("Row", overflow="fold", ratio=1)
    table.add_column("Status", no_wrap=True)
    with_energy = any(row.energy_mj is not None for row in parsed.rows)  # then FPS, which latency tells, gives way
    for heading in ("AP", "AP50", "Latency, ms", "mJ/image" if with_energy else "FPS", "MB", "ΔAP to FP32"):
        table.add_column(heading, justify="right", no_wrap=True)
    several_devices = len({row.device for row in parsed.rows}) > 1
    for row in parsed.rows:
        table.add_row(*_cells(row, against.get(row_name(row)), with_device=several_devices, with_energy=with_energy))
    return table


def _cells(row: Row, comparison: Comparison | None, with_device: bool, with_energy: bool) -> list[Text | str]:
    latency = row.latency_ms
    break_ = "\n" if with_energy else ""  # better there than in the middle of a device's name
    name = Text(f"{row.model}/{row.variant}" + (f"/{break_}{row.device}" if with_device else ""))
    if row.pareto:
        name.append(" ★", style="bold yellow")
    return [
        name,
        Text(row.status, style=STYLES.get(row.status, "red")),
        NOT_MEASURED if row.ap is None else points(row.ap),
        NOT_MEASURED if row.ap50 is None else points(row.ap50),
        NOT_MEASURED if latency is None else f"{latency.mean:.2f} ± {latency.std:.2f}",
        _energy(row) if with_energy else NOT_MEASURED if row.fps is None else f"{row.fps:.0f}",
        NOT_MEASURED if row.size_mb is None else f"{row.size_mb:.2f}",
        NOT_MEASURED if comparison is None else _difference(comparison.ap),
    ]


def _energy(row: Row) -> str:
    energy_mj, half_width = row.per_image(row.energy_mj), row.per_image(row.energy_uncertainty_mj)
    if energy_mj is None:
        return NOT_MEASURED
    return f"{energy_mj:.1f}" + ("" if half_width is None else f" ± {half_width:.1f}")


def _difference(ap: Difference) -> str:
    said = f"{signed_points(ap.difference)} [{signed_points(ap.low)}, {signed_points(ap.high)}]"
    if ap.p is None or ap.p_holm is None:
        return said
    return f"{said}\np {p_value(ap.p)}, Holm {p_value(ap.p_holm)}"


def _title(results: Results) -> str:
    marks = []
    if any(row.simulated for row in results.rows):
        marks.append("SIMULATED")
    if any(not row.comparable for row in results.rows):
        marks.append("NOT COMPARABLE")
    return f"{results.run}{' – ' if marks else ''}{', '.join(marks)}"


def _caption(results: Results) -> Text:
    """What the figures mean, the answer in words, and what each row without figures, or with doubts, has to say."""
    interval = "; ".join(
        sorted({f"brackets: {level(d.level)} interval over images, not corrected" for d in results.differences})
    )
    caption = Text(style="not italic")
    caption.append("AP in points of 100; latency: mean ± std of inferences; ★: on the Pareto front", style="dim")
    if any(row.energy_mj is not None for row in results.rows):
        caption.append("; energy: per image ± half-width at 95 %", style="dim")
    caption.append(f"; {interval}" if interval else "", style="dim")
    if any(row.batch > 1 for row in results.rows):
        caption.append("; latency of rows -bN: of one inference, which takes N images", style="dim")
    told = comparisons(results)
    for comparison in told if len(told) <= AS_CARDS else ():
        caption.append(f"\n• {comparison.sentence}")
    of_seeds = list(sentences(results))
    for sentence in of_seeds if len(of_seeds) <= AS_CARDS else [in_short(results)]:
        caption.append(f"\n• {sentence}")
    for rows, text in shared_endings(results.rows):
        caption.append(f"\n• {_names(rows)}: {text}", style=STYLES.get(rows[0].status, "red"))
    for rows, text in shared_flags(results.rows):
        caption.append(f"\n! {_names(rows)}: {text}", style="yellow")
    if names := list(dict.fromkeys(name for name, _, _ in unchecked(results))):
        caption.append(f"\nNot checked in every row: {', '.join(names)}; the report says why", style="dim")
    return caption


def _names(rows: Sequence[Row]) -> str:
    more = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
    return row_name(rows[0]) + more
