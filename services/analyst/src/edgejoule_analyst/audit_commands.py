"""``edgejoule audit``: does a published table follow from itself, and can it be?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgejoule.options import Json

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from edgejoule_analyst.audit import Finding
    from edgejoule_analyst.claims import Claims

app = typer.Typer(help="Check published figures against themselves and against what can be.", rich_markup_mode=None)

WIDTH = 100
PLACE_WIDTH = 14
STYLES = {
    "cannot be": "red",
    "is implausible": "red",
    "contradicts itself": "magenta",
    "differs from what is known": "yellow",
}


@app.callback()
def audit() -> None:
    """Check published figures against themselves and against what can be."""


@app.command()
def paper(
    html: Annotated[
        Path | None,
        typer.Option("--html", help="Write a page to this file: its figures and charts, what was found beside each."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the figures of the paper that this project follows, each with its arithmetic.

    They ship as reference data labelled "claimed"; nothing of them was measured here. The exit code is 0 whatever is
    found: contradictions are the answer. The same page is docs/reference/paper-audit.md.
    """
    from rich.console import Console

    from edgejoule_analyst import audit as auditor
    from edgejoule_analyst.claims import load_known, load_paper

    claims, known = load_paper(), load_known()
    findings = auditor.audit(claims, known)
    if html is not None:
        from edgejoule_analyst.claims_page import render_claims
        from edgejoule_analyst.commands import write_page

        write_page(html, render_claims(claims, known))
    if as_json:
        typer.echo(json.dumps(as_answer(claims, findings), ensure_ascii=False, indent=2))
        return
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(as_text(claims, findings))
    typer.echo("\n".join(closing_words(findings)))
    if html is not None:
        typer.echo(f"Page: {html}")


def as_answer(claims: Claims, findings: Sequence[Finding]) -> dict[str, Any]:
    """The answer in JSON: every check with every line, those that hold too."""
    return {
        "label": claims.label,
        "source": claims.source.model_dump(),
        "contradicted": [finding.check for finding in findings if finding.contradictions],
        "checks": [{**asdict(finding), "verdict": finding.verdict} for finding in findings],
    }


def as_text(claims: Claims, findings: Sequence[Finding]) -> Group:
    """What does not hold, check by check, and then all checks in a table."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text(f"CLAIMED, not measured: {claims.source.title} (doi {claims.source.doi})", style="bold")]
    for finding in findings:
        if finding.contradictions:
            name = Text(f"\n{finding.title}: ", style="bold").append(finding.verdict, style=STYLES[finding.nature])
            lines = Table.grid(padding=(0, 1))
            lines.add_column(style="dim", width=PLACE_WIDTH, overflow="fold")
            lines.add_column(overflow="fold", ratio=1)
            before = ""
            for line in finding.contradictions:
                lines.add_row(line.where if line.where != before else "", Text(line.said))
                before = line.where
            parts += [name, Padding(Text(finding.equation, style="dim"), (0, 2)), Padding(lines, (0, 2))]
    return Group(*parts, Text(), _summary(findings))


def _summary(findings: Sequence[Finding]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("Check", "Verdict"):
        table.add_column(heading, overflow="fold")
    table.add_column("Do not hold", justify="right", no_wrap=True)
    for finding in findings:
        verdict = Text(finding.verdict, style=STYLES.get(finding.verdict, "green"))
        table.add_row(finding.title, verdict, f"{len(finding.contradictions)} of {len(finding.lines)}")
    return table


def closing_words(findings: Sequence[Finding]) -> list[str]:
    """What could not be checked, and the sum."""
    lines = [line for finding in findings for line in finding.lines]
    wrong = [line for line in lines if not line.holds]
    found = [finding for finding in findings if finding.contradictions]
    return [
        *(f"Not checked, {finding.check}: {why}." for finding in findings for why in finding.unchecked),
        f"{len(found)} of {len(findings)} checks find something: {len(wrong)} of {len(lines)} comparisons do not hold.",
    ]
