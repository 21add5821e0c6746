"""``edgejoule weights``: what is in a weights file, and whether it fits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Import and check weights files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Import and check weights files."""


@app.command("import")
def import_(
    detector: Annotated[str, typer.Argument(help="Which detector, e.g. nanodet_m.")],
    file: Annotated[Path, typer.Argument(help="The authors' .pth file, or a .safetensors of ours.")],
    into: Annotated[Path | None, typer.Option(help="Write the imported weights here (.safetensors).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Report every tensor mapped, missing and left over; refuse on any that does not fit."""
    from edgejoule_trainer.counting import count_parameters
    from edgejoule_trainer.weights import import_weights, write_weights

    model, report = import_weights(file, detector)
    if into is not None:
        write_weights(into, model)
    if as_json:
        answer = {"detector": report.detector, "mapped": list(report.mapped), "missing": [], "unused": report.unused}
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(
        f"{file}: {len(report.mapped)} tensors mapped onto {report.detector} "
        f"({count_parameters(model) / 1e6:.2f} M parameters, {len(model.labels)} categories), none missing, "
        f"{len(report.unused)} not needed."
    )
    for name, why in sorted(report.unused.items()):
        typer.echo(f"  not needed: {name} ({why})")
    if into is not None:
        typer.echo(f"Wrote {into}.")
