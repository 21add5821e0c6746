"""Step ``analyze``: every cell's records and matches to ``results`` (results.json) and ``report`` (report.html).

Parameters: ``cells`` (see ``measurements.Cell``), ``run``, ``spec``. Inputs: ``data`` (record of the import),
``evaluation`` and ``calibration`` (the sets: for their hashes, and whether they overlap), and per cell index i
``weights-i``, ``onnx-i``, ``engine-i``, ``build-i``, ``score-i``, ``matches-i``, ``benchmark-i-trial``,
``samples-i-trial``, of an INT8 cell ``quantization-i`` (record of the step that made its graph), and of the cell made
anew by another seed ``rebuild-i-seed`` and ``rescore-i-seed``. Any may be an outcome file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from edgejoule.job import Job

if TYPE_CHECKING:
    from edgejoule_analyst.measurements import Cell
    from edgejoule_analyst.plausibility import Images

VERSION = 4
QUEUE = "analyze"
EXCLUSIVE = False
OUTPUTS = ("results", "report")
SOURCES = (
    "edgejoule.decisions",
    "edgejoule_analyst.average_precision",
    "edgejoule_analyst.bootstrap",
    "edgejoule_analyst.chart_parts",
    "edgejoule_analyst.charts",
    "edgejoule_analyst.comparison",
    "edgejoule_analyst.drawing",
    "edgejoule_analyst.efficiency",
    "edgejoule_analyst.exports",
    "edgejoule_analyst.figures",
    "edgejoule_analyst.hardware",
    "edgejoule_analyst.headline",
    "edgejoule_analyst.latency",
    "edgejoule_analyst.layer_errors",
    "edgejoule_analyst.measurements",
    "edgejoule_analyst.methods",
    "edgejoule_analyst.operating",
    "edgejoule_analyst.page",
    "edgejoule_analyst.paper_tables",
    "edgejoule_analyst.pareto",
    "edgejoule_analyst.permutation",
    "edgejoule_analyst.pictures",
    "edgejoule_analyst.plausibility",
    "edgejoule_analyst.ranking",
    "edgejoule_analyst.repeats",
    "edgejoule_analyst.report",
    "edgejoule_analyst.rows",
    "edgejoule_analyst.sensitivity",
    "edgejoule_analyst.significance",
    "edgejoule_analyst.words",
)


def run(job: Job) -> None:
    """Judge all cells.

    Raises:
        DataError: an input is not what it should be, or compared cells were scored on different images.
    """
    from edgejoule import __version__
    from edgejoule.records import Results
    from edgejoule_analyst.bootstrap import RESAMPLES
    from edgejoule_analyst.comparison import differences, measure
    from edgejoule_analyst.layer_errors import graph_errors
    from edgejoule_analyst.measurements import Cell, Trial, read_cell
    from edgejoule_analyst.operating import intervals as operating_intervals
    from edgejoule_analyst.plausibility import checked
    from edgejoule_analyst.repeats import doubts, seed_tests
    from edgejoule_analyst.report import render_report
    from edgejoule_analyst.rows import fronts, make_evidence, make_row, with_pareto, with_unchanged_flagged

    cells = [Cell.model_validate(cell) for cell in job.parameters["cells"]]
    spec = job.parameters["spec"]
    measured = {
        cell.name: read_cell(index, job.inputs, quantized=cell.precision == "int8", seeds=cell.seeds)
        for index, cell in enumerate(cells)
    }
    scored = {name: found.matches for name, found in measured.items() if found.matches is not None}
    accuracy = {
        name: measure(
            matches, count=RESAMPLES, seed=spec["seed"], progress=_teller(job, number, len(scored) * RESAMPLES)
        )
        for number, (name, matches) in enumerate(scored.items())
    }
    shown = {
        name: operating_intervals(matches.operating, count=RESAMPLES, seed=spec["seed"])
        for name, matches in scored.items()
    }
    intervals = {name: of_cell.intervals() for name, of_cell in accuracy.items()}
    rows = [make_row(cell, measured[cell.name], intervals.get(cell.name)) for cell in cells]
    rows, evidence = checked(
        with_pareto(with_unchanged_flagged(rows)),
        {name: make_evidence(found, accuracy.get(name), shown.get(name)) for name, found in measured.items()},
        {name: [trial for trial in found.trials if isinstance(trial, Trial)] for name, found in measured.items()},
        *(_images(job, role) for role in ("evaluation", "calibration")),
    )
    tests = seed_tests(cells, rows)
    results = Results(
        run=job.parameters["run"],
        edgejoule_version=__version__,
        spec=spec,
        rows=rows,
        differences=differences(
            cells,
            accuracy,
            seed=spec["seed"],
            progress=lambda done, total: job.progress(done, total, "tosses"),
        ),
        seed_tests=tests,
        fronts=fronts(rows),
        evidence=evidence,
        quantization=graph_errors(cells, measured),
        data=job.read_json("data"),
        notes=[*_notes(cells, over_seeds=bool(tests)), *doubts(rows, measured)],
    )
    job.write_json("results", results.model_dump(mode="json"))
    file = job.output("results").read_bytes()
    written = Results.model_validate_json(file)  # as a later reader will have it
    page = render_report(written, hashlib.sha256(file).hexdigest())
    job.output("report").write_text(page, encoding="utf-8")


def _images(job: Job, role: str) -> Images | None:
    """The images of a set; None where the spec has none, or where importing it failed."""
    from edgejoule_analyst.measurements import read_ending
    from edgejoule_analyst.plausibility import Images

    path = job.inputs.get(role)
    return None if path is None or read_ending(path) else Images.of(job.read_json(role))


def _teller(job: Job, number: int, total: int) -> Callable[[int], None]:
    from edgejoule_analyst.bootstrap import RESAMPLES

    return lambda done: job.progress(number * RESAMPLES + done, total, "resamples")


def _notes(cells: Sequence[Cell], *, over_seeds: bool) -> list[str]:
    """What every reader of the figures should know, beside what each row says of itself."""
    from edgejoule_analyst.bootstrap import LEVEL
    from edgejoule_analyst.words import level

    notes = [
        f"Intervals are {level(LEVEL)} bootstrap intervals over the evaluation images: percentile intervals, on paired"
        " resamples, for differences; basic intervals for an AP or AR on its own; percentile intervals at the operating"
        " point. They speak of the choice of images only, not of training, calibration or build. Each is of its own"
        " figure, not corrected for how many there are.",
        "Whether two rows differ in accuracy is judged by a paired permutation test over the images, p-values corrected"
        f" by Holm over all differences of the run, AP and AP50, at {1 - LEVEL:.2g}. An interval, not corrected, may"
        " leave out 0 where the corrected test finds no evidence of a difference.",
        "AP runs high when images are few, so an interval of AP may reach further down than up. Hold APs of different"
        " evaluation sets against each other with care.",
    ]
    if over_seeds:
        notes.append(
            "Tests over seeds speak of other calibrations and trainings on these evaluation images: paired t-tests by"
            " seed, one-sample t-tests against FP32, p-values corrected by Holm over all of them."
        )
    if any(not cell.comparable for cell in cells):
        notes.insert(0, "Measured by a protocol for looking, not for comparing: too few inferences and trials.")
    return notes
