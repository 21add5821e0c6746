"""The report: one HTML file that needs no network and no script, made from results.json alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgejoule.records import Evidence, Results, Row
from edgejoule_analyst import charts, headline, paper_tables, plausibility, words

HASH_DIGITS = 12


@dataclass(frozen=True)
class Gap:
    """Figures that are null for one and the same reason."""

    number: int
    reason: str
    fields: list[str]
    rows: list[str]


def render_report(results: Results) -> str:
    """The whole page. Equal results give equal bytes."""
    environment = Environment(
        loader=PackageLoader("edgejoule_analyst"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "points": words.points,
        "signed_points": words.signed_points,
        "factor": words.factor,
        "variant": words.variant_name,
        "row_name": words.row_name,
        "field_name": words.field_name,
        "level": words.level,
        "interval": words.interval,
        "facts": facts,
        "plain": _plain,
    }
    gaps = find_gaps(results)
    return environment.get_template("report.html.j2").render(
        results=results,
        comparisons=headline.comparisons(results),
        as_cards=headline.AS_CARDS,
        gaps=gaps,
        gap_of={(row, field): gap.number for gap in gaps for row in gap.rows for field in gap.fields},
        endings=headline.shared_endings(results.rows),
        charts=charts,
        devices=_with_both(results.rows),
        scored=_scored(results.rows),
        environments=_environments(results),
        protocol=results.spec.get("protocol", {}),
        flags=headline.shared_flags(results.rows),
        checks=_checks(results),
        losses=paper_tables.losses(results),
        ratios=(ratios := paper_tables.ratios(results)),
        mean_ratios=list(paper_tables.mean_ratios(ratios)),
        efficiencies=paper_tables.efficiencies(results),
        unchecked=plausibility.unchecked(results),
        digits=HASH_DIGITS,
    )


def find_gaps(results: Results) -> list[Gap]:
    """What was not measured in rows that have figures, by reason; rows without any say so themselves."""
    found: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for row, field, reason in _absences(results.rows):
        fields, rows = found.setdefault(reason, ({}, {}))
        fields[field] = rows[words.row_name(row)] = None
    numbered = enumerate(found.items(), 1)
    return [Gap(number, reason, list(fields), list(rows)) for number, (reason, (fields, rows)) in numbered]


def _absences(rows: list[Row]) -> Iterator[tuple[Row, str, str]]:
    for row in rows:
        if row.ap is not None or row.latency_ms is not None:
            fields = [field for field in Row.model_fields if field in row.absent and field != "pareto"]
            yield from ((row, field, row.absent[field]) for field in fields)


def _with_both(rows: list[Row]) -> list[str]:
    """Devices with at least one row that has accuracy and latency."""
    return list(dict.fromkeys(row.device for row in rows if row.ap is not None and row.latency_ms is not None))


def _scored(rows: list[Row]) -> list[tuple[str, str]]:
    """(model, device) of every scored row, once each."""
    return list(dict.fromkeys((row.model, row.device) for row in rows if row.ap is not None))


def _checks(results: Results) -> list[tuple[str, str, dict[str, int]]]:
    """Every check that a row had: its name, what it asks, and how many rows got each verdict."""
    counts: dict[str, dict[str, int]] = {}
    for evidence in results.evidence.values():
        for check in evidence.checks:
            of_check = counts.setdefault(check.name, dict.fromkeys(("plausible", "implausible", "not checked"), 0))
            of_check[check.verdict] += 1
    return [(name, asked, counts[name]) for name, asked in plausibility.EQUATIONS.items() if name in counts]


def facts(probe: Mapping[str, Any]) -> dict[str, Any]:
    """A probe's facts by name, those of its sections brought to the top."""
    found: dict[str, Any] = {}
    for name, value in probe.items():
        found |= facts(value) if isinstance(value, dict) else {name: value}
    return found


def _environments(results: Results) -> dict[str, Evidence]:
    """Device to the evidence of its first row that was timed."""
    found: dict[str, Evidence] = {}
    for row in results.rows:
        if row.latency_ms is not None:
            found.setdefault(row.device, results.evidence[words.row_name(row)])
    return found


def _plain(value: Any) -> str:
    """A value of a free-form record as a person reads it."""
    if value is None:
        return "not told"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(part)}" for key, part in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(_plain(part) for part in value) or "none"
    return str(value)
