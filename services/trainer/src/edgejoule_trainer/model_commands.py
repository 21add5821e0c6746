"""``edgejoule model``: whether an ONNX file keeps the engine contract, and whether boards can build it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check ONNX files.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Check ONNX files."""


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON.")] = False,
) -> None:
    """Check an ONNX file against the engine contract and the Q/DQ rules of TensorRT 8.2; exit code 1 if it fails."""
    from edgejoule_agent.contract import read_model
    from edgejoule_trainer.quantize.lint import violations

    model, manifest = read_model(file)
    found = violations(model)
    quantizers = sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    if as_json:
        answer = {"file": str(file), "violations": found, "quantizers": quantizers, "model": manifest}
        typer.echo(json.dumps(answer, indent=2))
    else:
        size = manifest["input"]
        typer.echo(
            f"{file}: {manifest['detector']}, {size['width']}x{size['height']}, {len(manifest['labels'])} categories, "
            f"{manifest['params_m']:.2f} M parameters, {manifest['gmacs']:.2f} GMACs, "
            f"{f'INT8 by {quantizers} quantizers' if quantizers else 'float32'}"
        )
        for violation in found:
            typer.echo(f"- {violation}")
        typer.echo(f"breaks {len(found)} rule(s)" if found else "keeps every rule")
    if found:
        raise typer.Exit(1)
