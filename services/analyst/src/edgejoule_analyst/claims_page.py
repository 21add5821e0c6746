"""The figures that a paper claims as a page: each with what the audit finds of it; made as the report of a run is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from edgejoule import __version__
from edgejoule_analyst import page
from edgejoule_analyst.audit import Finding, Place, audit, contradicted
from edgejoule_analyst.audit_commands import closing_words
from edgejoule_analyst.audit_page import known_lines
from edgejoule_analyst.claims import ClaimedEfficiency, ClaimedRow, Claims, Known
from edgejoule_analyst.claims_charts import all_charts

COLUMNS = {
    "ap50": "AP50",
    "to_fp32_pp": "to FP32",
    "to_ptq_pp": "to PTQ",
    "latency_ms": "Latency, ms",
    "fps": "FPS",
    "power_w": "Power, W",
    "dynamic_w": "Dyn., W",
    "energy_mj": "Energy, mJ",
    "map_per_joule": "mAP/J",
    "size_mb": "Size, MB",
}
"""What is printed of a row, by its name in the claims."""
DEVIATIONS = {"ap50": "ap50_std", "latency_ms": "latency_std_ms", "power_w": "power_std_w"}
OF_MODELS = {
    "params_m": "Parameters, M",
    "gflops": "GFLOPs",
    "input_px": "Input, px",
    "ptq_sensitivity": "PTQ sensitivity",
    "release": "Release",
}
NOT_PRINTED = "not printed"
NO_DIFFERENCE = "–"
"""Of a row to itself, or to what it comes before."""


@dataclass(frozen=True)
class Doubt:
    """What the audit says of one figure."""

    number: int
    """Of the finding, as the page counts them."""
    finding: Finding
    where: str
    said: str


@dataclass(frozen=True)
class Cell:
    """One figure as it is printed."""

    column: str
    value: Decimal | None
    text: str
    where: str
    """The table that it is printed in."""
    doubts: Sequence[Doubt]


@dataclass(frozen=True)
class Printed:
    """A row, or a model, with its figures."""

    model: str
    variant: str
    cells: Sequence[Cell]

    @property
    def name(self) -> str:
        return f"{self.model}/{self.variant}" if self.variant else self.model


def render_claims(claims: Claims, known: Known) -> str:
    """The whole page. Equal claims give equal bytes."""
    findings = audit(claims, known)
    found = list(enumerate(contradicted(findings), 1))
    doubts = _doubts(found)
    rows = list(_rows(claims, doubts))
    return page.render(
        "claims.html.j2",
        name="claimed",
        figures=all_charts(claims),
        csv_table=_csv(rows, claims),
        claims=claims,
        columns=COLUMNS,
        rows=rows,
        model_columns=OF_MODELS,
        models=list(_models(claims, doubts)),
        found=found,
        silent=[finding for finding in findings if finding.verdict == "none found"],
        unchecked=[(finding, why) for finding in findings for why in finding.unchecked],
        known=known_lines(claims, known),
        sum=closing_words(findings)[-1],
        choices={
            "model": list(dict.fromkeys(row.model for row in rows)),
            "variant": list(dict.fromkeys(row.variant for row in rows)),
        },
        version=__version__,
    )


def _doubts(found: Sequence[tuple[int, Finding]]) -> dict[Place, list[Doubt]]:
    doubts: dict[Place, list[Doubt]] = {}
    for number, finding in found:
        for line in finding.contradictions:
            for place in line.of:
                doubts.setdefault(place, []).append(Doubt(number, finding, line.where, line.said))
    return doubts


def _rows(claims: Claims, doubts: dict[Place, list[Doubt]]) -> Iterator[Printed]:
    """Every measured row, those of a model together."""
    derived: dict[tuple[str, str], ClaimedEfficiency] = {
        (row.model, row.variant): row for row in claims.efficiency.rows
    }
    for model in claims.models.rows:
        for (name, variant), row in claims.rows.items():
            if name == model.model:
                cells = [
                    _cell(column, row, derived.get((name, variant)), claims, doubts.get((name, variant, column), []))
                    for column in COLUMNS
                ]
                yield Printed(name, variant, cells)


def _cell(
    column: str, row: ClaimedRow, derived: ClaimedEfficiency | None, claims: Claims, doubts: Sequence[Doubt]
) -> Cell:
    of_row = column in ClaimedRow.model_fields
    value: Decimal | None = getattr(row if of_row else derived, column, None)
    where = claims.table_of[row.model, row.variant] if of_row else claims.efficiency.where
    if value is None:
        return Cell(column, None, NO_DIFFERENCE if column.startswith("to_") else NOT_PRINTED, where, doubts)
    text = f"{value:+}".replace("-", "−") if column.startswith("to_") else str(value)
    if column in DEVIATIONS:
        text += f" ± {getattr(row, DEVIATIONS[column])}"
    return Cell(column, value, text, where, doubts)


def _models(claims: Claims, doubts: dict[Place, list[Doubt]]) -> Iterator[Printed]:
    for model in claims.models.rows:
        cells = []
        for column in OF_MODELS:
            value = getattr(model, column)
            text = NOT_PRINTED if value is None else str(value)
            cells.append(Cell(column, None, text, claims.models.where, doubts.get((model.model, "", column), [])))
        yield Printed(model.model, "", cells)


def _csv(rows: Sequence[Printed], claims: Claims) -> list[list[str]]:
    """As printed; what is not is empty. Every line says that it is claimed, and what the audit finds of its figures."""
    deviations = [DEVIATIONS[column] for column in COLUMNS if column in DEVIATIONS]
    table = [["row", "label", "model", "variant", *COLUMNS, *deviations, "printed_in", "findings"]]
    for row in rows:
        said = [f"{cell.column}: {doubt.finding.verdict}: {doubt.said}" for cell in row.cells for doubt in cell.doubts]
        values = ["" if cell.value is None else str(cell.value) for cell in row.cells]
        claimed = claims.row(row.model, row.variant)
        spreads = [str(getattr(claimed, name)) for name in deviations]
        where = "; ".join(dict.fromkeys(cell.where for cell in row.cells if cell.value is not None))
        table.append([row.name, claims.label, row.model, row.variant, *values, *spreads, where, "; ".join(said)])
    return table
