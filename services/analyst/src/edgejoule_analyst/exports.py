"""A run's figures and tables as files for a paper: SVG, PNG and PDF; CSV and LaTeX; methods and BibTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar, get_args

from edgejoule.records import Evidence, Interval, Results, Row, SizeErrors, SizeIntervals
from edgejoule_analyst import drawing
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.figures import (
    AT_OPERATING_POINT,
    METRICS,
    OVER_IMAGES,
    Known,
    Unknown,
    image_figure,
    image_interval,
    interval_of,
)
from edgejoule_analyst.layer_errors import TENSORS, sqnr_db
from edgejoule_analyst.methods import bibtex, methods
from edgejoule_analyst.paper_tables import efficiencies, losses, models, ratios
from edgejoule_analyst.words import NO_GAPS, field_name, p_value, points, row_name, signed_points, simulated_devices

T = TypeVar("T")
Table = list[list[str]]
"""Header and lines; what nobody measured is empty, and its reason is in the row's last cell."""

CSV_FIELDS = (
    *("detector", "model", "variant", "device", "batch", "status", "runtime", "ran_as"),
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100"),
    *("fps", "size_mb", "params_m", "gmacs", "int8_share", "power_w", "energy_mj", "energy_uncertainty_mj"),
    *("energy_above_idle_mj", "energy_above_idle_uncertainty_mj", "map_per_joule", "memory_peak_mb"),
    *("throttled", "contended", "simulated", "pareto", "protocol", "comparable"),
)
PER_IMAGE = {"energy_mj": "energy_per_image_mj", "energy_uncertainty_mj": "energy_per_image_uncertainty_mj"}
"""Fields that are of one inference, and what they are called as an image's share."""
LATENCIES = ("mean", "std", "p50", "p90", "p99", "n", "trials")
INTERVALS = {
    "latency": ("latency_mean_low_ms", "latency_mean_high_ms"),
    **{f"latency-{name}": (f"latency_{name}_low_ms", f"latency_{name}_high_ms") for name in ("p50", "p90", "p99")},
    "fps": ("fps_low", "fps_high"),
    "power": ("power_low_w", "power_high_w"),
    "energy": ("energy_per_image_low_mj", "energy_per_image_high_mj"),
    "map-per-joule": ("map_per_joule_low", "map_per_joule_high"),
}
"""Figures whose 95 % intervals come of the trials, and what the ends are called."""
SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "★": r"$\star$",
    "†": r"$\dagger$",
    "<": "$<$",
    ">": "$>$",
}
SEED_TEST_FIELDS = ("difference", "low", "high", "level", "effect", "t", "freedom", "p", "p_holm", "verdict")


def rows_table(results: Results) -> Table:
    """Every row with its figures in the units of results.json, its intervals, and why what is missing is missing."""
    intervals = [f"{field}_{end}" for field in OVER_IMAGES for end in ("low", "high")]
    head = ["row", *CSV_FIELDS, *PER_IMAGE.values(), *intervals, *_with_ends(AT_OPERATING_POINT)]
    head += [*(f"latency_{name}_ms" for name in LATENCIES[:5]), *LATENCIES[5:]]
    table = [[*head, *(end for pair in INTERVALS.values() for end in pair), "flags", "reason"]]
    for row in results.rows:
        evidence = results.evidence[row_name(row)]
        over_images = {field_name(field): image_interval(field, row, evidence) for field in OVER_IMAGES}
        shown = {field_name(field): image_interval(field, row, evidence) for field in AT_OPERATING_POINT}
        latency = [getattr(row.latency_ms, name) if row.latency_ms else None for name in LATENCIES]
        energies = [row.per_image(getattr(row, field)) for field in PER_IMAGE]
        over_trials = {METRICS[name].title: interval_of(name, row, evidence) for name in INTERVALS}
        cells = [row_name(row), *(getattr(row, field) for field in CSV_FIELDS), *energies, *_ends(over_images.values())]
        cells += [*_values_and_ends(AT_OPERATING_POINT, row, evidence), *latency, *_ends(over_trials.values())]
        cells.append("; ".join(row.flags))
        gaps = [f"{field}: {reason}" for field, reason in row.absent.items() if field not in NO_GAPS]
        why = row.reason or "; ".join([*gaps, *_no_intervals(row, {**over_images, **shown, **over_trials})])
        table.append([*(_plain(cell) for cell in cells), why])
    return table


def _ends(found: Iterable[Interval | Known | Unknown | None]) -> Iterator[float | None]:
    """Low and high of each; None where there is no interval."""
    for interval in found:
        yield from (interval.low, interval.high) if isinstance(interval, Interval | Known) else (None, None)


def _with_ends(fields: Sequence[str]) -> list[str]:
    """The names of what ``_values_and_ends`` tells."""
    return [f"{field}{end}" for field in fields for end in ("", "_low", "_high")]


def _values_and_ends(fields: Sequence[str], row: Row, evidence: Evidence) -> Iterator[float | None]:
    """Each figure over images with the ends of its interval."""
    for field in fields:
        value = image_figure(field, row)
        yield None if isinstance(value, Unknown) else value
        yield from _ends([image_interval(field, row, evidence)])


def _no_intervals(row: Row, found: Mapping[str, Interval | Known | Unknown]) -> Iterator[str]:
    """Why figures that are there have no interval, by title; why one is not there is told of the figure itself."""
    lacking: dict[str, list[str]] = {}
    for title, interval in found.items():
        if isinstance(interval, Unknown) and interval.reason not in row.absent.values():
            lacking.setdefault(interval.reason, []).append(title)
    yield from (f"interval of {', '.join(names)}: {reason}" for reason, names in lacking.items())


def differences_table(results: Results) -> Table:
    """Every difference in accuracy as a fraction, with its interval and verdict."""
    head = ["row", "against", "metric", "difference", "low", "high", "level", "resamples", "images"]
    head += ["p", "p_holm", "verdict"]
    lines = ([_plain(getattr(found, name)) for name in head] for found in results.differences)
    return _with_simulated(results, [head, *lines])


def fronts_table(results: Results) -> Table:
    """Each device's Pareto front of AP against mean latency, and its hypervolume up to the reference point."""
    head = ["device", "hypervolume_ap_ms", "reference_ap", "reference_latency_ms"]
    lines = ([*(_plain(getattr(found, name)) for name in head), "; ".join(found.rows)] for found in results.fronts)
    return _with_simulated(results, [[*head, "rows"], *lines])


def models_table(results: Results) -> Table:
    """Each model's parameters, input and cost, whole and by the pixel of the input: the paper's Table 4."""
    table = [["model", "params_m", "input_width", "input_height", "gmacs", "kmacs_per_pixel"]]
    for found in models(results):
        size = (found.input.width, found.input.height) if found.input else (None, None)
        table.append([found.model, *map(_plain, (found.params_m, *size, found.gmacs, found.kmacs_per_pixel))])
    return table


def losses_table(results: Results) -> Table:
    """What INT8 costs in AP50 and what training brings back, as fractions: the paper's Tables 1, 7 and 9."""
    head = ["model", "device", "fp32", "ptq", "ptq_loss", "qat", "qat_loss", "gain", "recovered"]
    return _with_simulated(
        results, [head, *([_plain(getattr(loss, name)) for name in head] for loss in losses(results))]
    )


def ratios_table(results: Results) -> Table:
    """How many times as small and as fast as FP32: the paper's Tables 6 and 7."""
    lines = ([row_name(found.row), _plain(found.size), _plain(found.speed)] for found in ratios(results))
    return _with_simulated(results, [["row", "size_ratio", "speed_ratio"], *lines])


def efficiency_table(results: Results) -> Table:
    """Throughput, power and energy of every timed row: the paper's Table 8. Why one is missing is in rows.csv."""
    head = ["row", "batch", "latency_ms", "fps", "practical_fps", "power_w", "dynamic_w"]
    table = [[*head, "energy_per_image_mj", "images_per_joule", "map_per_joule"]]
    for found in efficiencies(results):
        row, mean_ms = found.row, found.row.latency_ms and found.row.latency_ms.mean
        values = [row.batch, mean_ms, row.fps, found.practical_fps, row.power_w, found.dynamic_w]
        values += [row.per_image(row.energy_mj), found.images_per_joule, row.map_per_joule]
        table.append([row_name(row), *map(_plain, values)])
    return _with_simulated(results, table)


def accuracy_table(results: Results) -> Table:
    """COCO's figures of every scored row as fractions, each with its interval. Why one is missing is in rows.csv."""
    return _over_images(results, OVER_IMAGES)


def deployed_table(results: Results) -> Table:
    """Precision, recall and F1 of every scored row at its operating point as fractions, each with its interval."""
    return _over_images(results, AT_OPERATING_POINT)


def _over_images(results: Results, fields: Sequence[str]) -> Table:
    scored = [row for row in results.rows if row.ap is not None]
    evidence = results.evidence
    lines = ([row_name(row), *_values_and_ends(fields, row, evidence[row_name(row)])] for row in scored)
    table = [["row", *_with_ends(fields)], *([_plain(cell) for cell in line] for line in lines)]
    return _with_simulated(results, table)


def errors_table(results: Results) -> Table:
    """Objects found and false positives at the operating point, by size of the object and of the detection."""
    fields = ("objects", "found", "recall", "shown", "false_positives", "false_positives_per_image")
    with_interval = ("recall", "false_positives_per_image")
    table = [["row", "size", *fields, *(f"{field}_{end}" for field in with_interval for end in ("low", "high"))]]
    for row, size, errors, intervals in _by_size(results):
        cells = [getattr(errors, field) for field in fields]
        ends = _ends(getattr(intervals, field, None) for field in with_interval)
        table.append([row_name(row), size, *map(_plain, [*cells, *ends])])
    return _with_simulated(results, table)


def _by_size(results: Results) -> Iterator[tuple[Row, str, SizeErrors, SizeIntervals | None]]:
    """Errors of each size of each row, with their intervals where results have them."""
    for row in results.rows:
        intervals = results.evidence[row_name(row)].errors_by_size
        for size, errors in (row.operating_point.by_size if row.operating_point else {}).items():
            yield row, size, errors, intervals.get(size)


def seeds_table(results: Results) -> Table:
    """What INT8 by each seed scores, as fractions: what the tests over seeds are made from."""
    lines = (
        [row_name(row), *map(str, (again.seed, again.ap, again.ap50, again.runtime, again.ran_as))]
        for row in results.rows
        for again in row.repeats or ()
    )
    return _with_simulated(results, [["row", "seed", "ap", "ap50", "runtime", "ran_as"], *lines])


def layers_table(results: Results) -> Table:
    """Every layer of every INT8 graph with the error of its weights and its input, or why it has none."""
    ends = ("msqe", "power", "sqnr_db")
    table = [
        ["model", "variant", "number", "layer", *(f"{of}_{end}" for of in TENSORS for end in ends), "float_because"]
    ]
    for graph in results.quantization:
        for number, layer in enumerate(graph.error.layers if graph.error else (), 1):
            cells: list[object] = [graph.model, graph.variant, number, layer.name]
            for of in (layer.weights, layer.input):
                cells += [None] * len(ends) if of is None else [of.msqe, of.power, sqnr_db(of)]
            table.append([*map(_plain, cells), layer.float_because or ""])
    return table


def seed_tests_table(results: Results) -> Table:
    """Every test over seeds, its difference as a fraction; where there is nothing to judge by, the reason."""
    lines = (
        [found.row, found.against, found.metric, found.test, " ".join(map(str, found.seeds))]
        + [_plain(getattr(found, name)) for name in SEED_TEST_FIELDS]
        + [found.absent.get("p", "")]
        for found in results.seed_tests
    )
    head = ["row", "against", "metric", "test", "seeds", *SEED_TEST_FIELDS, "reason"]
    return _with_simulated(results, [head, *lines])


def _with_simulated(results: Results, table: Table) -> Table:
    """With a last column that says whether the line's device is simulated; it names a row or, without one, a device."""
    head, *lines = table
    column = head.index("row" if "row" in head else "device")
    simulated = simulated_devices(results.rows)
    return [[*head, "simulated"], *([*line, _plain(line[column].rpartition("/")[2] in simulated)] for line in lines)]


def to_csv(table: Table) -> str:
    """
    >>> to_csv([["row", "ap"], ["a, b", ""]])
    'row,ap\\n"a, b",\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(table)
    return text.getvalue()


def rows_latex(results: Results) -> str:
    """The matrix for a paper: packages booktabs and no other."""
    head = ["Model", "Variant", "Device", "AP", "AP50", "Latency, ms", "Size, MB", "mJ/image", "mAP/J"]
    lines = [
        [
            row.model + _dagger(results, row),
            row.variant,
            _told(results, row.device),
            *(_with_interval(results, row, metric) for metric in ("ap", "ap50")),
            f"{row.latency_ms.mean:.2f} ± {row.latency_ms.std:.2f}" if row.latency_ms else "–",
            _number(row.size_mb, 2),
            _number(row.per_image(row.energy_mj), 1, row.per_image(row.energy_uncertainty_mj)),
            _number(row.map_per_joule, 0),
        ]
        if row.ap is not None or row.latency_ms is not None
        else [row.model, row.variant, _told(results, row.device), row.status, *["–"] * 5]
        for row in results.rows
    ]
    remarks = [*_of_batches(results), *_why_missing(results)]
    return _latex(head, lines, "lll" + "r" * 6, remarks, _notes(results, results.rows))


def differences_latex(results: Results) -> str:
    """The differences for a paper, in points; intervals are not corrected, the verdict is by Holm's p."""
    head = ["Row", "Against", "Metric", "Difference", "Interval", "p", "p, Holm", "Verdict"]
    lines = [
        [_told(results, d.row), d.against, d.metric.upper(), signed_points(d.difference),
         f"[{signed_points(d.low)}, {signed_points(d.high)}]",
         *("–" if p is None else p_value(p) for p in (d.p, d.p_holm)), d.verdict]
        for d in results.differences
    ]  # fmt: skip
    return _latex(head, lines, "lllrrrrl", [])


def fronts_latex(results: Results) -> str:
    """The fronts for a paper."""
    head = ["Device", "On the front", "Hypervolume, AP ms", "up to AP", "and ms"]
    lines = [
        [_told(results, found.device), ", ".join(name.rpartition("/")[0] for name in found.rows),
         *(f"{value:.3g}" for value in (found.hypervolume_ap_ms, found.reference_ap, found.reference_latency_ms))]
        for found in results.fronts
    ]  # fmt: skip
    return _latex(head, lines, "llrrr", [])


def models_latex(results: Results) -> str:
    """What the models are, for a paper."""
    lines = [
        [
            *(found.model, f"{found.params_m:.2f}"),
            f"{found.input.width} × {found.input.height}" if found.input else "–",
            *(_number(found.gmacs, 2), _number(found.kmacs_per_pixel, 2)),
        ]
        for found in models(results)
    ]
    return _latex(["Model", "Parameters, M", "Input, pixels", "GMACs", "kMACs/pixel"], lines, "lrrrr", [])


def losses_latex(results: Results) -> str:
    """The losses for a paper, in points of AP50."""
    head = ["Model", "Device", "FP32", "PTQ", "to FP32", "QAT", "to FP32", "to PTQ", "brought back"]
    lines = []
    for loss in losses(results):
        to_fp32 = [None if lost is None else -lost for lost in (loss.ptq_loss, loss.qat_loss)]
        lines.append(
            [
                *(loss.model, _told(results, loss.device), points(loss.fp32)),
                *(_points(loss.ptq), _signed(to_fp32[0]), _points(loss.qat), _signed(to_fp32[1]), _signed(loss.gain)),
                "–" if loss.recovered is None else f"{loss.recovered:.0%}",
            ]
        )
    return _latex(head, lines, "llrrrrrrr", [])


def ratios_latex(results: Results) -> str:
    """The ratios for a paper."""
    lines = [
        [_told(results, row_name(found.row)), _number(found.size, 2), _number(found.speed, 2)]
        for found in ratios(results)
    ]
    return _latex(["Row", "FP32 size / size", "FP32 latency / latency"], lines, "lrr", [])


def efficiency_latex(results: Results) -> str:
    """Throughput, power and energy for a paper."""
    head = ["Row", "Latency, ms", "FPS", "Practical FPS", "Power, W", "Dynamic, W", "mJ/image", "Images/J", "mAP/J"]
    lines = [
        [
            _told(results, row_name(row)) + _dagger(results, row),
            f"{row.latency_ms.mean:.2f} ± {row.latency_ms.std:.2f}" if row.latency_ms else "–",
            *(_number(row.fps, 1), _number(found.practical_fps, 1)),
            *(_number(row.power_w, 2), _number(found.dynamic_w, 2)),
            _number(row.per_image(row.energy_mj), 1, row.per_image(row.energy_uncertainty_mj)),
            *(_number(found.images_per_joule, 1), _number(row.map_per_joule, 0)),
        ]
        for found in efficiencies(results)
        for row in [found.row]
    ]
    return _latex(
        head, lines, "l" + "r" * 8, _of_batches(results), _notes(results, [e.row for e in efficiencies(results)])
    )


def accuracy_latex(results: Results) -> str:
    """COCO's figures for a paper, in points."""
    return _over_images_latex(results, OVER_IMAGES)


def deployed_latex(results: Results) -> str:
    """The operating point for a paper, in points."""
    return _over_images_latex(results, AT_OPERATING_POINT)


def _over_images_latex(results: Results, fields: Sequence[str]) -> str:
    lines = [
        [_told(results, row_name(row)), *(_with_interval(results, row, field) for field in fields)]
        for row in results.rows
        if row.ap is not None
    ]
    heads = [name[0].upper() + name[1:] for name in map(field_name, fields)]
    return _latex(["Row", *heads], lines, "l" + "r" * len(fields), [])


def errors_latex(results: Results) -> str:
    """Errors by size for a paper."""
    head = ["Row", "Size", "Objects", "Found", "Recall", "Shown", "Wrong", "Wrong per image"]
    lines = [
        [
            *(_told(results, row_name(row)), size, str(errors.objects), str(errors.found)),
            _points(errors.recall) + _bracketed(getattr(intervals, "recall", None), points),
            *(str(errors.shown), str(errors.false_positives)),
            f"{errors.false_positives_per_image:.2f}"
            + _bracketed(getattr(intervals, "false_positives_per_image", None), "{:.2f}".format),
        ]
        for row, size, errors, intervals in _by_size(results)
    ]
    return _latex(head, lines, "llrrrrrr", [])


def seed_tests_latex(results: Results) -> str:
    """The tests over seeds for a paper, in points; p after Holm's correction."""
    head = ["Row", "Against", "Metric", "Test", "Seeds", "Difference", "Interval", "d_z", "p (Holm)", "Verdict"]
    lines = [
        [
            *(_told(results, test.row), test.against, test.metric.upper(), test.test, str(len(test.seeds))),
            signed_points(test.difference),
            f"[{signed_points(test.low)}, {signed_points(test.high)}]"
            if test.low is not None and test.high is not None
            else "–",
            _number(test.effect, 1),
            "–" if test.p_holm is None else p_value(test.p_holm),
            test.verdict,
        ]
        for test in results.seed_tests
    ]
    return _latex(head, lines, "llllrrrrrl", [])


def export(
    results: Results,
    sha256: str,
    folder: Path,
    progress: Callable[[int, int], None],
    write: Callable[[Path, bytes], object] = Path.write_bytes,
) -> list[Path]:
    """Write everything into ``folder``, over what lies there; the files.

    Args:
        sha256: of the file that has the results.
        write: puts a file there.
        progress: is told how many files of how many are written, at first that there is none.

    Raises:
        OSError: a file cannot be written.
    """
    files: dict[str, Callable[[], bytes]] = {
        "methods.txt": lambda: f"{methods(results)}\n".encode(),
        "cite.bib": lambda: bibtex(results, sha256).encode(),
    }
    for name, (table, latex) in TABLES.items():
        if len(made := table(results)) > 1:
            files[f"tables/{name}.csv"] = partial(_encoded, to_csv, made)
            files[f"tables/{name}.tex"] = partial(_encoded, latex, results)
    for name, table in CSV_ONLY.items():
        if len(made := table(results)) > 1:
            files[f"tables/{name}.csv"] = partial(_encoded, to_csv, made)
    for chart in all_charts(results):
        for form in get_args(drawing.Format):
            files[f"figures/{chart.name}.{form}"] = partial(drawing.draw, chart.spec, form)
    progress(0, len(files))
    for number, (name, make) in enumerate(files.items(), 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, make())
        progress(number, len(files))
    return [folder / name for name in files]


TABLES: dict[str, tuple[Callable[[Results], Table], Callable[[Results], str]]] = {
    "rows": (rows_table, rows_latex),
    "differences": (differences_table, differences_latex),
    "fronts": (fronts_table, fronts_latex),
    "models": (models_table, models_latex),
    "losses": (losses_table, losses_latex),
    "ratios": (ratios_table, ratios_latex),
    "efficiency": (efficiency_table, efficiency_latex),
    "accuracy": (accuracy_table, accuracy_latex),
    "deployed": (deployed_table, deployed_latex),
    "errors": (errors_table, errors_latex),
    "seed_tests": (seed_tests_table, seed_tests_latex),
}
"""By the name of its files: a table as CSV and as LaTeX; written where it has a line."""


CSV_ONLY: dict[str, Callable[[Results], Table]] = {"seeds": seeds_table, "layers": layers_table}
"""Tables too long for a page of paper."""


def _encoded(write: Callable[[T], str], what: T) -> bytes:
    return write(what).encode()


def _plain(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _with_interval(results: Results, row: Row, field: str) -> str:
    value, found = image_figure(field, row), image_interval(field, row, results.evidence[row_name(row)])
    if isinstance(value, Unknown):
        return "–"
    return points(value) + _bracketed(None if isinstance(found, Unknown) else found, points)


def _bracketed(interval: Interval | None, form: Callable[[float], str]) -> str:
    return f" [{form(interval.low)}, {form(interval.high)}]" if interval else ""


def _points(value: float | None) -> str:
    return "–" if value is None else points(value)


def _signed(value: float | None) -> str:
    return "–" if value is None else signed_points(value)


def _number(value: float | None, digits: int, half_width: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if half_width is None else f" ± {half_width:.{digits}f}")


def _told(results: Results, name: str) -> str:
    """The name of a row or a device, and whether it is simulated."""
    return name + (" (simulated)" if name.rpartition("/")[2] in simulated_devices(results.rows) else "")


def _dagger(results: Results, row: Row) -> str:
    """A mark on a row that has figures and something that speaks against them."""
    checks = results.evidence[row_name(row)].checks
    return "†" if row.status != "ok" or any(check.verdict == "implausible" for check in checks) else ""


def _notes(results: Results, rows: Sequence[Row]) -> list[str]:
    """What a reader of the table must see of the figures of these rows."""
    with_figures = [row for row in rows if row.ap is not None or row.latency_ms is not None]
    notes = ["† Something speaks against these figures: rows.csv says what."]
    if not any(_dagger(results, row) for row in with_figures):
        notes = []
    protocols = dict.fromkeys(row.protocol for row in with_figures if not row.comparable)
    return notes + ([f"Protocol {', '.join(protocols)}: for looking, not for comparing."] if protocols else [])


def _why_missing(results: Results) -> Iterator[str]:
    """Comment lines: why each row has no figures."""
    for row in results.rows:
        if row.status != "ok":
            yield f"{row_name(row)}: {row.status}: {row.reason}"


def _of_batches(results: Results) -> list[str]:
    """A comment line: what latency is of where some rows take several images at once."""
    if all(row.batch == 1 for row in results.rows):
        return []
    return ["Latency is of one inference, in rows -bN with all its N images; FPS counts images."]


def _latex(
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    columns: str,
    remarks: list[str],
    notes: Sequence[str] = (),
) -> str:
    """A tabular; ``remarks`` are comments of its source, ``notes`` lines below it for its readers."""
    body = [" & ".join(map(_tex, line)) + r" \\" for line in lines]
    said = ["% " + " ".join(remark.split()) for remark in remarks]
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(map(_tex, head)) + r" \\", r"\midrule"]
    below = [rf"\multicolumn{{{len(columns)}}}{{l}}{{{_tex(note)}}} \\" for note in notes]
    return "\n".join([*said, *top, *body, r"\bottomrule", *below, r"\end{tabular}", ""])


def _tex(text: str) -> str:
    r"""
    >>> _tex("ssd_mobilenet_v2, 50 %")
    'ssd\\_mobilenet\\_v2, 50 \\%'
    """
    return "".join(SPECIAL.get(character, character) for character in text)
