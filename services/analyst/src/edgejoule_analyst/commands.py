"""``edgejoule report``: the table and the report again, from results.json alone."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from edgejoule.errors import DataError
from edgejoule.records import Results
from edgejoule.runs import write_atomically

app = typer.Typer(
    help="Show the results of a run again, or write their report.",
    invoke_without_command=True,
    context_settings={"allow_interspersed_args": True},
    rich_markup_mode=None,
)

RESULTS_FILE = "results.json"


@app.callback(invoke_without_command=True)
def report(
    path: Annotated[Path, typer.Argument(metavar="RESULTS", help="A results.json, or the folder of a run.")],
    html: Annotated[Path | None, typer.Option("--html", help="Write the report to this file.")] = None,
    export: Annotated[
        Path | None,
        typer.Option(
            "--export", help="Write figures (SVG, PNG, PDF), tables (CSV, LaTeX), methods and BibTeX into this folder."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json in place of the table.")] = False,
) -> None:
    """Show the results of a run again, or write their report."""
    from rich.console import Console

    from edgejoule_analyst.report import render_report
    from edgejoule_analyst.table import WIDTH, render_table

    results = read_results(path)
    if html is not None:
        write_page(html, render_report(results, hash_of_results(path)))
    if export is not None:
        _export(results, hash_of_results(path), export)
    if as_json:
        typer.echo(results.model_dump_json())
        return
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(render_table(results.model_dump(mode="json")))
    if html is not None:
        typer.echo(f"Report: {html}")
    if export is not None:
        typer.echo(f"Figures, tables, methods and BibTeX: {export}")


def _export(results: Results, sha256: str, folder: Path) -> None:
    from edgejoule.options import console_on
    from edgejoule.progress import bar
    from edgejoule_analyst import exports

    written = "no file"
    try:
        with _writing(), bar(console_on(sys.stderr), "Writing") as on_progress:

            def tell(done: int, total: int) -> None:
                nonlocal written
                written = f"{done} of {total} files"
                on_progress(done, total, "files")

            exports.export(results, sha256, folder, tell, write_atomically)
    except KeyboardInterrupt:
        typer.echo(f"Stopped with {written} written into {folder}. The same command writes them all.", err=True)
        raise


def write_page(file: Path, text: str) -> None:
    """The whole page, or what was there before.

    Raises:
        DataError: the file cannot be written.
    """
    with _writing():
        write_atomically(file, text.encode())


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(f"{error.filename} cannot be written ({error.strerror}): name another place") from error


def hash_of_results(path: Path) -> str:
    """SHA-256 of the bytes of a results.json that ``read_results`` has read."""
    return hashlib.sha256(_results_file(path).read_bytes()).hexdigest()


def _results_file(path: Path) -> Path:
    return path / RESULTS_FILE if path.is_dir() else path


def read_results(path: Path) -> Results:
    """The results in a file, or in ``results.json`` of a run's folder.

    Raises:
        DataError: there is none, or it is not of the published schema.
    """
    file = _results_file(path)
    try:
        return Results.model_validate_json(file.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"there is no {file}; give a results.json or the folder that edgejoule run wrote") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise DataError(f"{file} is no results file of this version: {where}: {first['msg']}") from error
