"""``edgejoule model``: the detectors there are, weights as ONNX, and what 8 bits do to each layer."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgejoule.errors import DataError, ModelError
from edgejoule.progress import bar

if TYPE_CHECKING:
    from torch import Tensor

    from edgejoule_trainer.detectors import Detector
    from edgejoule_trainer.quantize.sensitivity import Sensitivity

app = typer.Typer(
    help="List detectors, export and check ONNX files, find the layers that 8 bits hurt.", no_args_is_help=True
)

WeightsFile = Annotated[
    Path, typer.Argument(help="Weights of ours (.safetensors; see edgejoule weights import).", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Answer in JSON.")]
WORST_SHOWN = 12


@app.callback()
def _group() -> None:
    """List detectors, export and check ONNX files, find the layers that 8 bits hurt."""


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every detector: its input, parameters and multiply-accumulates by our count, and what its authors publish."""
    from edgejoule_trainer.detector_table import COLUMNS, cells, entry_of, notes_on
    from edgejoule_trainer.detectors import names

    entries = [entry_of(name) for name in names()]
    if as_json:
        typer.echo(json.dumps([entry.as_json() for entry in entries], indent=2))
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for index, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if index > 1 else "left", no_wrap=index == 0)
    for entry in entries:
        table.add_row(*cells(entry))
    console = Console()
    console.print(table)
    for note, named in notes_on(entries).items():
        console.print(f"{', '.join(named)}: {note}", style="dim", markup=False, highlight=False)


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="The ONNX file.", show_default=False)],
    as_json: AsJson = False,
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


@app.command()
def export(
    weights: WeightsFile,
    out: Annotated[Path, typer.Option(help="The ONNX file to write.")],
    batch: Annotated[int, typer.Option(min=1, max=256, help="Images that one inference takes.")] = 1,
) -> None:
    """Write weights as a float32 ONNX graph under the engine contract: opset 13, operators of TensorRT 8.2."""
    from edgejoule_trainer.export import export_onnx
    from edgejoule_trainer.weights import read_weights

    detector = read_weights(weights)
    try:
        export_onnx(detector, out, batch=batch)
    except OSError as error:
        raise ModelError(f"{out} cannot be written ({error.strerror}).") from error
    height, width = detector.input_size
    typer.echo(f"{out}: {detector.title}, image float32[{batch},3,{height},{width}], {out.stat().st_size / 1e6:.1f} MB")


@app.command()
def sensitivity(
    weights: WeightsFile,
    images: Annotated[Path, typer.Option(help="A folder of JPEG or PNG pictures like those it will see.")],
    count: Annotated[int, typer.Option(min=1, max=10_000, help="How many of them, spread over the folder.")] = 8,
    calibrator: Annotated[str, typer.Option(help="How scales are chosen; the names are those of a spec.")] = "mse",
    out: Annotated[Path | None, typer.Option(help="A picture of it to write: .svg, or .html with all numbers.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put one layer at a time into 8 bits and tell what it does to each output of the network, the worst first."""
    from edgejoule_trainer.quantize.sensitivity_chart import html, svg
    from edgejoule_trainer.weights import read_weights

    drawn = {".svg": svg, ".html": html}
    if out is not None and out.suffix not in drawn:
        raise ModelError(f"{out} is neither .svg nor .html; name the picture so that its kind is clear.")
    detector = read_weights(weights)
    pictures = _pictures(images, count)
    found = _measure(detector, pictures, calibrator)
    if as_json:
        answer = {"detector": detector.name, "images": len(pictures), "calibrator": calibrator, **found.record()}
        typer.echo(json.dumps(answer, indent=2))
    else:
        _print_sensitivity(found, f"{detector.title}, {len(pictures)} images, scales by {calibrator}")
    if out is not None:
        title = f"{detector.title}: sensitivity to INT8, layer by layer ({len(pictures)} images, {calibrator})"
        try:
            out.write_text(drawn[out.suffix](found, title), encoding="utf-8")
        except OSError as error:
            raise ModelError(f"{out} cannot be written ({error.strerror}).") from error
        typer.echo(f"Wrote {out}.", err=True)


def _pictures(folder: Path, count: int) -> list[Path]:
    """``count`` pictures of a folder, spread evenly over their names in order."""
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not found:
        raise DataError(f"{folder}: there is no JPEG or PNG picture; name a folder that holds some")
    taken = min(count, len(found))
    return [found[index * len(found) // taken] for index in range(taken)]


def _measure(detector: Detector, pictures: list[Path], calibrator: str) -> Sensitivity:
    """Calibrate and round on the pictures, then quantize layer by layer on the same."""
    from edgejoule_trainer.quantize.calibrate import collect_statistics
    from edgejoule_trainer.quantize.fold import fold_batch_norm
    from edgejoule_trainer.quantize.placement import eight_bit_layers, place_quantizers
    from edgejoule_trainer.quantize.rounding import InputMoments, rounded_weights
    from edgejoule_trainer.quantize.scales import CALIBRATORS
    from edgejoule_trainer.quantize.sensitivity import layer_sensitivity

    if calibrator not in CALIBRATORS:
        raise ModelError(f"There is no calibrator named {calibrator!r}; choose one of: {', '.join(CALIBRATORS)}.")
    network = fold_batch_norm(detector.network)
    placement = place_quantizers(network)
    layers = len({node.target for node in eight_bit_layers(network, placement)})
    total = len(pictures) * layers
    moments = InputMoments(network, placement)
    with bar(Console(stderr=True), "calibrating") as told, moments.watching():
        statistics = collect_statistics(network, placement, _inputs(detector, pictures, told))
    scales = {name: CALIBRATORS[calibrator](statistics[name]) for name in placement.scales}
    with bar(Console(stderr=True), "one layer at a time") as told:
        return layer_sensitivity(
            network,
            placement,
            scales,
            _inputs(detector, pictures),
            lambda image, layer: told(image * layers + layer, total, "layers"),
            rounded_weights(network, moments.of),
        )


def _inputs(detector: Detector, pictures: list[Path], told: Any = None) -> Iterator[Tensor]:
    """Each picture as the network's input, float32[1,3,H,W], normalized."""
    import torch

    from edgejoule_agent.preprocess import decode, prepare

    layout = detector.manifest().model_dump(mode="json")
    for number, path in enumerate(pictures, start=1):
        yield detector.normalize(torch.from_numpy(prepare(decode(path.read_bytes()), layout)[0]))
        if told:
            told(number, len(pictures), "images")


def _print_sensitivity(found: Sensitivity, title: str) -> None:
    from edgejoule_trainer.quantize.sensitivity_chart import decibels

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("layer", overflow="fold")
    for column in ("own dB", "own MSQE", "worst dB", "in output", "rank there"):
        table.add_column(column, justify="right")
    ranked = [found.ranked(output) for output in range(len(found.whole))]
    for layer in sorted(found.layers, key=lambda layer: layer.worst_db)[:WORST_SHOWN]:
        which = min(range(len(ranked)), key=lambda output: layer.outputs[output].sqnr_db)
        table.add_row(
            escape(layer.name),
            decibels(layer.own.sqnr_db),
            f"{layer.own.msqe:.2e}",
            decibels(layer.worst_db),
            str(which),
            str(ranked[which].index(layer) + 1),
        )
    Console().print(table)
    if len(found.layers) > WORST_SHOWN:
        typer.echo(f"and {len(found.layers) - WORST_SHOWN} more layers (--json lists all, --out draws them)")
    whole = ", ".join(f"{number}: {error.sqnr_db:.1f} dB" for number, error in enumerate(found.whole))
    typer.echo(f"All {len(found.layers)} layers in 8 bits, by output: {whole}")
