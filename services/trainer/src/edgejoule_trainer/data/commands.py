"""``edgejoule data``: make, fetch, check and look at data sets."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from edgejoule.errors import DataError
from edgejoule.progress import bar

app = typer.Typer(help="Make, fetch, check and look at data sets.", no_args_is_help=True)

AnnotationsFile = Annotated[Path, typer.Argument(help="The COCO-format JSON file.", show_default=False)]
ImagesFolder = Annotated[Path, typer.Argument(help="The folder its images lie in.", show_default=False)]


@app.callback()
def _group() -> None:
    """Make, fetch, check and look at data sets."""


@app.command()
def generate(
    into: Annotated[Path, typer.Option(help="A new folder; a complete one of the same recipe is left alone.")],
    train: Annotated[int, typer.Option(min=1, max=999_999, help="Images of the split train.")] = 600,
    val: Annotated[int, typer.Option(min=1, max=999_999, help="Images of the split val.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Names the data set: same seed, same pictures.")] = 0,
) -> None:
    """Draw a detection data set: six shapes on textured grounds, with exact boxes. Needs no network."""
    from edgejoule_trainer.data.generate import CATEGORIES
    from edgejoule_trainer.data.generate import generate as draw_all

    with bar(Console(stderr=True), "generating") as progress:
        draw_all(into, {"train": train, "val": val}, seed, progress)
    typer.echo(f"{into}: {train} + {val} images of {len(CATEGORIES)} kinds of shape, annotations/{{train,val}}.json")


@app.command()
def coco(
    into: Annotated[Path, typer.Option(help="Folder that gets annotations/, val2017/ and train2017/.")],
    only: Annotated[str, typer.Option(help="Which archives, separated by commas.")] = "annotations,val2017,train2017",
    base_url: Annotated[str | None, typer.Option(help="A mirror, in place of COCO's own server.")] = None,
) -> None:
    """Fetch the official COCO 2017 archives (20 GB in all), resuming where an earlier try stopped."""
    from edgejoule_trainer.data.fetch import BASE_URL, LICENCE, fetch_coco
    from edgejoule_trainer.downloads import bars

    names = [name.strip() for name in only.split(",") if name.strip()]
    typer.echo(LICENCE, err=True)
    with bars() as begin:
        fetched = fetch_coco(into, names, begin, base_url=base_url or BASE_URL)
    for name in names:
        typer.echo(f"{into}: {name} {'fetched' if name in fetched else 'was there already'}")


@app.command()
def check(
    annotations: AnnotationsFile,
    images: ImagesFolder,
    as_json: Annotated[bool, typer.Option("--json", help="Answer in JSON, with every finding.")] = False,
) -> None:
    """Read a COCO-format data set, decode every image, and tell everything that is wrong.

    The exit code is 1 if anything is.
    """
    from edgejoule_trainer.data import coco as reading

    truth = reading.read(annotations)
    if not images.is_dir():
        raise DataError(f"{images}: there is no such images folder")
    with bar(Console(stderr=True), "decoding") as progress:
        _, found = reading.check_pictures(truth.pictures.values(), images, progress)
    findings = [*truth.findings, *found]
    summary = {
        "images": len(truth.pictures),
        "boxes": sum(not annotation.iscrowd for annotation in truth.annotations),
        "crowd_boxes": sum(annotation.iscrowd for annotation in truth.annotations),
        "categories": len(truth.categories),
        "boxes_clipped_to_the_frame": truth.clipped,
    }
    if as_json:
        typer.echo(json.dumps({**summary, "findings": [finding.as_json() for finding in findings]}, indent=2))
    else:
        counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in summary.items())
        typer.echo(f"{annotations}: {counts}")
        _print_findings(findings, reading.SHOWN)
    if findings:
        raise typer.Exit(1)


@app.command()
def show(
    annotations: AnnotationsFile,
    images: ImagesFolder,
    out: Annotated[Path, typer.Option(help="The PNG file to write.")],
    count: Annotated[int, typer.Option(min=1, max=100, help="How many images.")] = 12,
    seed: Annotated[int, typer.Option(help="Which ones.")] = 0,
) -> None:
    """Draw some images with their boxes onto one sheet, to see with one's own eyes what the data are."""
    from edgejoule_trainer.data import coco as reading
    from edgejoule_trainer.data.sheet import contact_sheet

    truth = reading.read(annotations)
    shown = contact_sheet(truth, images, count, seed)
    try:
        out.write_bytes(shown.png)
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror})") from error
    typer.echo(f"{out}: {len(shown.ids)} images, ids {', '.join(map(str, shown.ids))}")


def _print_findings(findings: list[Any], limit: int) -> None:
    if not findings:
        typer.echo("Nothing wrong was found.")
        return
    kinds = Counter(finding.kind for finding in findings)
    table = Table("file", "entry", "kind", "problem", title=f"{len(findings)} findings", title_justify="left")
    for finding in findings[:limit]:
        table.add_row(*map(escape, (finding.file, f"{finding.subject} {finding.id}", finding.kind, finding.problem)))
    Console().print(table)
    if len(findings) > limit:
        typer.echo(f"and {len(findings) - limit} more (--json lists all)")
    typer.echo("In all: " + ", ".join(f"{number} {kind}" for kind, number in kinds.most_common()))
