"""A run's figures and tables as files for a paper: SVG, PNG and PDF; CSV and LaTeX; methods and BibTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import get_args

from edgejoule.records import Results, Row
from edgejoule_analyst import drawing
from edgejoule_analyst.charts import all_charts
from edgejoule_analyst.methods import bibtex, methods
from edgejoule_analyst.words import NO_GAPS, points, row_name, signed_points

Table = list[list[str]]
"""Header and lines; what nobody measured is empty, and its reason is in the row's last cell."""

CSV_FIELDS = (
    *("detector", "model", "variant", "device", "batch", "status", "runtime", "ran_as"),
    *("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large", "ar100"),
    *("fps", "size_mb", "params_m", "gmacs", "int8_share", "power_w", "energy_mj", "energy_uncertainty_mj"),
    *("energy_above_idle_mj", "energy_above_idle_uncertainty_mj", "map_per_joule", "memory_peak_mb"),
    *("throttled", "contended", "simulated", "pareto", "protocol", "comparable"),
)
LATENCIES = ("mean", "std", "p50", "p90", "p99", "n", "trials")
SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "★": r"$\star$",
}


def rows_table(results: Results) -> Table:
    """Every row with its figures in the units of results.json, its intervals, and why what is missing is missing."""
    intervals = [f"{metric}_{end}" for metric in ("ap", "ap50") for end in ("low", "high")]
    head = ["row", *CSV_FIELDS, *intervals, *(f"latency_{name}_ms" for name in LATENCIES[:5]), *LATENCIES[5:]]
    table = [[*head, "flags", "reason"]]
    for row in results.rows:
        evidence = results.evidence[row_name(row)]
        ends = [
            getattr(found, end) if (found := getattr(evidence, f"{metric}_interval")) else None
            for metric in ("ap", "ap50")
            for end in ("low", "high")
        ]
        latency = [getattr(row.latency_ms, name) if row.latency_ms else None for name in LATENCIES]
        cells = [row_name(row), *(getattr(row, field) for field in CSV_FIELDS), *ends, *latency, "; ".join(row.flags)]
        gaps = [f"{field}: {reason}" for field, reason in row.absent.items() if field not in NO_GAPS]
        why = row.reason or "; ".join(gaps)
        table.append([*(_plain(cell) for cell in cells), why])
    return table


def differences_table(results: Results) -> Table:
    """Every difference in accuracy as a fraction, with its interval and verdict."""
    head = ["row", "against", "metric", "difference", "low", "high", "level", "resamples", "images", "verdict"]
    return [head, *([_plain(getattr(found, name)) for name in head] for found in results.differences)]


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
    head = ["Model", "Variant", "Device", "AP", "AP50", "Latency, ms", "Size, MB", "Energy per image, mJ", "mAP/J"]
    lines = [
        [
            row.model,
            row.variant,
            row.device + (" (simulated)" if row.simulated else ""),
            *(_with_interval(results, row, metric) for metric in ("ap", "ap50")),
            f"{row.latency_ms.mean:.2f} ± {row.latency_ms.std:.2f}" if row.latency_ms else "–",
            _number(row.size_mb, 2),
            _number(row.per_image(row.energy_mj), 1, row.per_image(row.energy_uncertainty_mj)),
            _number(row.map_per_joule, 0),
        ]
        if row.ap is not None or row.latency_ms is not None
        else [row.model, row.variant, row.device, row.status, *["–"] * 5]
        for row in results.rows
    ]
    return _latex(head, lines, "lll" + "r" * 6, _why_missing(results))


def differences_latex(results: Results) -> str:
    """The differences for a paper, in points."""
    head = ["Row", "Against", "Metric", "Difference", "Interval", "Verdict"]
    lines = [
        [d.row, d.against, d.metric.upper(), signed_points(d.difference),
         f"[{signed_points(d.low)}, {signed_points(d.high)}]", d.verdict]
        for d in results.differences
    ]  # fmt: skip
    return _latex(head, lines, "lllrrl", [])


def export(results: Results, folder: Path, progress: Callable[[int, int], None]) -> list[Path]:
    """Write everything into ``folder``, over what lies there; the files.

    Args:
        progress: is told how many files of how many are written.

    Raises:
        OSError: a file cannot be written.
    """
    files: dict[str, Callable[[], bytes]] = {
        "tables/rows.csv": lambda: to_csv(rows_table(results)).encode(),
        "tables/rows.tex": lambda: rows_latex(results).encode(),
        "tables/differences.csv": lambda: to_csv(differences_table(results)).encode(),
        "tables/differences.tex": lambda: differences_latex(results).encode(),
        "methods.txt": lambda: f"{methods(results)}\n".encode(),
        "cite.bib": lambda: bibtex(results).encode(),
    }
    for chart in all_charts(results):
        for form in get_args(drawing.Format):
            files[f"figures/{chart.name}.{form}"] = partial(drawing.draw, chart.spec, form)
    for number, (name, make) in enumerate(files.items(), 1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
        progress(number, len(files))
    return [folder / name for name in files]


def _plain(value: object) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _with_interval(results: Results, row: Row, metric: str) -> str:
    value, interval = getattr(row, metric), getattr(results.evidence[row_name(row)], f"{metric}_interval")
    if value is None:
        return "–"
    return points(value) + (f" [{points(interval.low)}, {points(interval.high)}]" if interval else "")


def _number(value: float | None, digits: int, half_width: float | None = None) -> str:
    if value is None:
        return "–"
    return f"{value:.{digits}f}" + ("" if half_width is None else f" ± {half_width:.{digits}f}")


def _why_missing(results: Results) -> Iterator[str]:
    """Comment lines: why each row has no figures."""
    for row in results.rows:
        if row.status != "ok":
            yield f"{row_name(row)}: {row.status}: {row.reason}"


def _latex(
    head: Sequence[str], lines: Sequence[Sequence[str]], columns: str, remarks: Iterator[str] | list[str]
) -> str:
    body = [" & ".join(map(_tex, line)) + r" \\" for line in lines]
    said = ["% " + " ".join(remark.split()) for remark in remarks]
    top = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", " & ".join(map(_tex, head)) + r" \\", r"\midrule"]
    return "\n".join([*said, *top, *body, r"\bottomrule", r"\end{tabular}", ""])


def _tex(text: str) -> str:
    r"""
    >>> _tex("ssd_mobilenet_v2, 50 %")
    'ssd\\_mobilenet\\_v2, 50 \\%'
    """
    return "".join(SPECIAL.get(character, character) for character in text)
