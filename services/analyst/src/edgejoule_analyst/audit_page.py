"""The audit of the paper as a page: ``python -m edgejoule_analyst.audit_page`` writes it, ``--check`` compares."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path

from edgejoule.generated import bring_up_to_date
from edgejoule_analyst.audit import Finding, Nature, agrees, audit, contradicted, number
from edgejoule_analyst.audit_commands import closing_words
from edgejoule_analyst.claims import Claims, Known, load_known, load_paper

PAGE = Path("docs/reference/paper-audit.md")

_HEAD = """<!-- made by python -m edgejoule_analyst.audit_page; change the code or the data, not this page -->
# The paper's figures, audited

Edgejoule follows the protocol of a paper, and lets measurements contradict it. Here the paper's own figures are held
against themselves and against what can be. They ship as reference data under the label **claimed**: nothing on this
page was measured by Edgejoule. `edgejoule audit paper` prints the same, `--json` every comparison, those that hold too,
and `--html FILE` writes a page that has the figures themselves, drawn and in tables, each beside
[what is found of it](../how-to/report.md#the-papers-own-figures); the exit code is 0 whatever is found.

The paper: {title}. {journal}. [doi {doi}](https://doi.org/{doi}).

- A printed figure is good to half of its last place. What is computed from printed figures is rounded as the figure
  that it is compared with. Where rounding of the inputs might explain a difference, the line says so.
- The checks of hardware, size, power and overlap are those that every row of a run must pass
  ([plausibility](plausibility.md)).
- Numbers that are not the paper's are listed [at the end](#what-is-known-and-from-whom), each with its source.

**{sum}**
"""

NATURES: dict[Nature, str] = {
    "cannot be": "What cannot be",
    "is implausible": "What hardly can be",
    "contradicts itself": "Where the paper contradicts itself",
    "differs from what is known": "Where it differs from what others know",
}


def page(claims: Claims, known: Known) -> str:
    """The whole page, in Markdown."""
    findings = audit(claims, known)
    parts = [_HEAD.format(**claims.source.model_dump(), sum=closing_words(findings)[-1]), _overview(findings)]
    for nature, title in NATURES.items():
        parts += [f"## {title}\n"]
        parts += [_section(finding) for finding in contradicted(findings) if finding.nature == nature]
    parts += ["## Where nothing was found\n", *(_held(f) for f in findings if f.verdict == "none found"), ""]
    unchecked = [f"- {finding.check}: {why}" for finding in findings for why in finding.unchecked]
    parts += ["## Not checked\n", "\n".join(unchecked or ["Nothing was left out."]) + "\n"]
    parts += ["## Table 8, recomputed\n", _table_8(claims)]
    parts += [
        "## What is known, and from whom\n",
        "\n".join([*(f"- {said}" for said in known_lines(claims, known)), ""]),
    ]
    return "\n".join(parts)


def _overview(findings: Sequence[Finding]) -> str:
    rows = ["| check | verdict | do not hold |", "| --- | --- | ---: |"]
    for finding in findings:
        name = f"[{finding.title}](#{_anchor(finding.title)})" if finding.contradictions else finding.title
        rows.append(f"| {name} | {finding.verdict} | {len(finding.contradictions)} of {len(finding.lines)} |")
    return "\n".join([*rows, ""])


def _anchor(title: str) -> str:
    return "".join(c for c in title.lower().replace(" ", "-") if c.isalnum() or c == "-")


def _section(finding: Finding) -> str:
    lines = [f"### {finding.title}", "", f"`{finding.equation}`", ""]
    lines += [f"- {line.where}: {line.said}" for line in finding.contradictions]
    return "\n".join([*lines, ""])


def _held(finding: Finding) -> str:
    return f"- {finding.title}: none of {len(finding.lines)} (`{finding.equation}`)"


def _table_8(claims: Claims) -> str:
    """Every derived value beside its own inputs; what does not follow is bold."""
    idle = claims.board.idle_power_w
    rows = [
        "Each cell: printed / computed from the printed inputs.",
        "",
        "| model | precision | FPS | P_dynamic, W | energy, mJ | mAP/J |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
    ]
    for row in claims.efficiency.rows:
        ap50 = claims.row(row.model, row.variant).ap50
        pairs = (
            (row.fps, 1000 / row.latency_ms),
            (row.dynamic_w, row.power_w - idle),
            (row.energy_mj, row.power_w * row.latency_ms),
            (row.map_per_joule, 1000 * ap50 / row.energy_mj),
        )
        cells = [_pair(printed, computed) for printed, computed in pairs]
        rows.append(f"| {row.model} | {row.variant} | {' | '.join(cells)} |")
    return "\n".join([*rows, ""])


def _pair(printed: Decimal, computed: Decimal) -> str:
    shown = f"{printed} / {number(computed, 6)}"
    return shown if agrees(printed, computed) else f"**{shown}**"


def known_lines(claims: Claims, known: Known) -> list[str]:
    """What is not the paper's, each with its source."""
    board = known.boards[claims.board.name]
    least, most = board.idle_w
    lines = [
        f"{claims.board.name}: {board.gpu_cores} cores at {board.gpu_max_hz / 1e6:g} MHz, compute capability"
        f" {board.sm} ({board.gpu_source}); TensorRT to {board.tensorrt}, Python {board.python}"
        f" ({board.software_source}); throttles from {board.throttle_trip_c} °C ({board.throttle_source}); {least} to"
        f" {most} W at rest ({board.idle_source}); its GPU alone takes {board.gpu_busy_w} W when busy"
        f" ({board.gpu_busy_source})"
    ]
    for name, detector in known.detectors.items():
        more = f", AP50 {detector.ap50}" if detector.ap50 is not None else ""
        lines.append(f"{name}: {detector.params_m} M parameters, {detector.gmacs} GMACs{more} ({detector.source})")
    return lines


def files() -> Iterator[tuple[Path, str]]:
    """The page, relative to the repository, with its text."""
    yield PAGE, page(load_paper(), load_known())


if __name__ == "__main__":
    sys.exit(bring_up_to_date(files(), sys.argv[1:]))
