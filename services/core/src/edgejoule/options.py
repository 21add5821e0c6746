"""What several commands share: options, and how a spec or a store becomes what they work on."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgejoule.errors import EdgejouleError

if TYPE_CHECKING:
    from rich.console import Console

    from edgejoule.runs import Run
    from edgejoule.store import Store

SpecFile = Annotated[Path, typer.Argument(metavar="SPEC", help="The spec, a YAML file; see docs/reference/spec.md.")]
Out = Annotated[
    Path | None,
    typer.Option(help="Folder for results.json, report.html and training logs.", show_default="runs/NAME"),
]
StorePlace = Annotated[
    str | None,
    typer.Option(
        envvar="EDGEJOULE_STORE",
        help="What keeps every finished step, for all runs: a folder, or s3://BUCKET/PREFIX.",
        show_default=".store beside the output folder",
    ),
]
Settings = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. protocol.trials=3. Repeatable.")
]
Session = Annotated[str, typer.Option(help="Measuring session; a new name measures everything measured anew.")]
Retry = Annotated[bool, typer.Option("--retry", help="Try steps again that failed for good.")]
Json = Annotated[bool, typer.Option("--json", help="Answer in JSON on standard output.")]


def prepare(
    spec_file: Path,
    out: Path | None,
    store: str | None,
    settings: Sequence[str],
    session: str,
    console: Console,
    *,
    writing: bool,
    on_stack: bool = False,
) -> tuple[Run, Store, Path]:
    """The spec made a plan, the store it runs in, and the folder its results go to.

    Args:
        on_stack: take each device that the gateway serves as it last said of itself; this host's own probe else.
    """
    from edgejoule.boards import as_reported
    from edgejoule.devices import Device, probe
    from edgejoule.errors import SpecError, UnsupportedError
    from edgejoule.matrix import make_plan
    from edgejoule.progress import bar
    from edgejoule.runs import Run, find_store
    from edgejoule.spec import as_written, check_spec, read_tree
    from edgejoule.store import open_store

    tree = read_tree(spec_file, settings)
    place = find_store(out, store, os.environ)
    # the stack's store is there already; another is made only for a spec without faults
    boards = open_store(place, os.environ, writing=writing).device_names() if on_stack else []
    spec = check_spec(tree, spec_file.absolute().parent, served=boards)
    folder = out if out is not None else Path("runs") / spec.name
    kept = open_store(place, os.environ, writing=writing)
    written = as_written(spec, tree)
    names = dict.fromkeys(choice.name for choice in spec.devices)
    found = {name: (as_reported(name, kept) if on_stack else None) or probe(name) for name in names}
    devices: dict[str, Device] = {}
    for index, choice in enumerate(spec.devices):
        device = found[choice.name]
        try:
            devices[choice.label] = device if choice.power_mode is None else device.in_mode(choice.power_mode)
        except UnsupportedError as error:
            raise SpecError(f"{tree.where(('devices', index, 'power_mode'))}: {error}") from None
    with bar(console, "hashing the data") as progress:
        made = make_plan(spec, devices, lambda path: kept.hashes.source(path, progress), written, session)
    return Run(spec.name, written, made), kept, folder


def existing_store(store: str | None) -> Store:
    """The store that ``--store`` or the environment names; none is made."""
    from edgejoule.runs import find_store
    from edgejoule.store import open_store

    where = find_store(None, store, os.environ)
    if "://" not in where and not Path(where).is_dir():
        raise EdgejouleError(f"there is no store {where}; name it with --store or EDGEJOULE_STORE, or run a spec first")
    return open_store(where, os.environ, writing=False)


def console_on(file: Any) -> Console:
    """A console that prints there."""
    from rich.console import Console

    return Console(file=file)
