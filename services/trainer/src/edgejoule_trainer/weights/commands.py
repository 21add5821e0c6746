"""``edgejoule weights``: fetch the official files, see what is in them, and whether it fits."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Fetch, import and check weights files.", no_args_is_help=True)

DetectorName = Annotated[str, typer.Argument(help="Which detector, e.g. nanodet_m.", show_default=False)]


@app.callback()
def _group() -> None:
    """Fetch, import and check weights files."""


@app.command("import")
def import_(
    detector: DetectorName,
    file: Annotated[
        Path,
        typer.Argument(
            help="The authors' file: .pth or .pt (a state dict or a whole model), .onnx, a TensorFlow.js model.json "
            "or its folder, a TensorFlow checkpoint's prefix or folder; or a .safetensors of ours.",
            show_default=False,
        ),
    ],
    into: Annotated[Path | None, typer.Option(help="Write the imported weights here (.safetensors).")] = None,
    input_: Annotated[
        int | None,
        typer.Option("--input", min=32, max=4096, help="Side of the square input in pixels; else the detector's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, every tensor named.")] = False,
) -> None:
    """Report every tensor mapped, missing and left over; refuse on any that does not fit. Runs nothing in the file."""
    from edgejoule_trainer.counting import count_macs, count_parameters
    from edgejoule_trainer.weights import import_weights, write_weights

    model, report = import_weights(file, detector, (input_, input_) if input_ else None)
    if into is not None:
        write_weights(into, model)
    parameters, gmacs = count_parameters(model), count_macs(model.network, (1, 3, *model.input_size)) / 1e9
    height, width = model.input_size
    if as_json:
        answer = {
            "detector": report.detector,
            "mapped": list(report.mapped),
            "missing": [],
            "left_over": [],
            "unused": report.unused,
            "categories": len(model.labels),
            "input": {"height": height, "width": width},
            "parameters": parameters,
            "gmacs": gmacs,
            "published": asdict(model.published),
        }
        typer.echo(json.dumps(answer, indent=2))
        return
    typer.echo(
        f"{file}: {len(report.mapped)} tensors mapped onto {report.detector}, none missing, none left over, "
        f"{len(report.unused)} not needed."
    )
    for name, why in sorted(report.unused.items()):
        typer.echo(f"  not needed: {name} ({why})")
    published = model.published
    typer.echo(
        f"{model.title}: {parameters / 1e6:.2f} M parameters, {gmacs:.2f} GMACs at {width}x{height}, "
        f"{len(model.labels)} categories."
    )
    own_height, own_width = model.own_input_size
    typer.echo(
        f"Published, for COCO at {own_width}x{own_height}: {published.params_m:g} M parameters, "
        f"{published.gmacs:g} GMACs, AP {published.ap:.3f} on {published.ap_on}; {published.source}."
    )
    if into is not None:
        typer.echo(f"Wrote {into}.")


@app.command()
def fetch(
    detector: DetectorName,
    into: Annotated[Path, typer.Option(help="Folder for the files; it is made.")] = Path("weights"),
    base_url: Annotated[
        str | None, typer.Option(help="A mirror with the files under their own names, in place of the authors' server.")
    ] = None,
) -> None:
    """Fetch the authors' official file, resuming where an earlier try stopped, and check its hash."""
    from edgejoule_trainer.downloads import bars
    from edgejoule_trainer.official_weights import fetch_weights, official_weights

    weights = official_weights(detector)
    typer.echo(f"Licence: {weights.licence}", err=True)
    with bars() as begin:
        fetched = fetch_weights(weights, into, begin, base_url=base_url)
    for file in fetched:
        came = "was there already" if file.was_there else "fetched"
        known = "as it must be" if file.checked else "the authors publish none to compare it with"
        typer.echo(f"{file.path}: {came}; SHA-256 {file.sha256}, {known}")
    typer.echo(f"Next: edgejoule weights import {detector} {into / weights.folder if weights.folder else file.path}")
