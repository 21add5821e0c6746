"""The command ``edgejoule``. Thin: it reads options, calls the core, and says what came of it.

Exit codes: 0 all well (an ``unsupported`` row is an answer, not an error), 1 an error or a failed row,
2 wrong usage, 130 stopped by ^C; of ``recommend`` and ``compare`` also 3 (the answer is no) and 4 (it cannot be told).
Results go to standard output, all else to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from edgejoule import __version__
from edgejoule.errors import CorruptBlobError, EdgejouleError
from edgejoule.options import (
    Json,
    Out,
    Retry,
    Session,
    Settings,
    SpecFile,
    StorePlace,
    console_on,
    existing_store,
    prepare,
)
from edgejoule.stack import commands as stack

if TYPE_CHECKING:
    from edgejoule.executor import RunOutcome
    from edgejoule.runs import Run
    from edgejoule.store import Store

GROUP = "edgejoule.commands"
FILES = {"results.json": "results", "report.html": "report"}  # what a run writes: outputs of its analysis
LOGS = ("training", "events.out.tfevents.edgejoule")  # and of each step that trains: TensorBoard's folder and file

COMMANDS = {
    "compare": ("edgejoule-analyst", "Did a run get worse than another? With an exit code for CI."),
    "data": ("edgejoule-trainer", "Fetch, generate and check data sets."),
    "devices": ("edgejoule-gateway", "The boards that the gateway serves, and their tokens."),
    "gateway": ("edgejoule-gateway", "Serve boards: the one door between them and the stack."),
    "model": ("edgejoule-trainer", "Check ONNX files."),
    "weights": ("edgejoule-trainer", "Import and check weights files."),
    "audit": ("edgejoule-analyst", "Check published figures against themselves and against what can be."),
    "recommend": ("edgejoule-analyst", "Which row, under these limits?"),
    "report": ("edgejoule-analyst", "Make a report from results."),
}
"""Commands of our other packages: who brings them, and what they do. Loaded only when called."""


class Executor(str, Enum):
    """Who carries out a run."""

    HERE = "here"
    STACK = "stack"


def run(
    spec: SpecFile,
    out: Out = None,
    store: StorePlace = None,
    settings: Settings = [],  # noqa: B006 - typer wants a list and never changes it
    as_json: Json = False,
    retry: Retry = False,
    session: Session = "1",
    on: Annotated[Executor, typer.Option("--on", help="Who carries it out: this process, or the stack's workers.")] = (
        Executor.HERE
    ),
) -> None:
    """Do what a spec asks for. What is done already is not done again; ^C loses nothing that is finished."""
    from edgejoule import runs, tables
    from edgejoule.executor import run_plan
    from edgejoule.plan import Cell
    from edgejoule.progress import display_on
    from edgejoule.reconcile import StepOutcome
    from edgejoule.records import Results
    from edgejoule.store import Manifest

    console = console_on(sys.stderr)
    on_stack = on is Executor.STACK
    prepared, kept, folder = prepare(spec, out, store, settings, session, console, writing=True, on_stack=on_stack)
    folder.mkdir(parents=True, exist_ok=True)
    runs.save(prepared, kept)
    display = display_on(console)

    def tell_row(cell: Cell, outcomes: Mapping[str, StepOutcome]) -> None:
        if not all(outcome.cached for outcome in outcomes.values()):
            display.note(tables.row_line(cell, outcomes, kept))

    def carry_out() -> tuple[RunOutcome, Manifest]:
        if on_stack:
            ended = stack.run_on_stack(prepared, kept, display, tell_row, retry=retry)
        else:
            ended = run_plan(prepared.plan, kept, run=prepared.name, display=display, on_cell=tell_row, retry=retry)
        analysis = ended.outcomes["analyze"]
        if analysis.manifest is None:
            raise EdgejouleError(f"there are no results, because the analysis failed: {analysis.reason}")
        return ended, analysis.manifest

    ended, made = carry_out()
    try:
        files = {name: kept.fetch(made.outputs[output].sha256).read_bytes() for name, output in FILES.items()}
    except CorruptBlobError as error:  # no step reads these, so no step noticed
        display.note(f"{error}; the analysis is done again")
        kept.quarantine(made.key)
        ended, made = carry_out()
        files = {name: kept.fetch(made.outputs[output].sha256).read_bytes() for name, output in FILES.items()}
    for name, content in files.items():
        runs.write_atomically(folder / name, content)
    logs = _write_logs(ended, kept, folder)
    answer = (folder / "results.json").read_text(encoding="utf-8")
    if as_json:
        typer.echo(answer)
    else:
        _load(_announced()["report"])([str(folder)], standalone_mode=False)
        typer.echo(f"{len(ended.executed)} steps carried out, {len(ended.cached)} done before, {ended.elapsed_s:.1f} s")
        typer.echo(f"Report: {folder / 'report.html'}")
        if logs:
            typer.echo(f"Course of the training: tensorboard --logdir {folder / LOGS[0]}")
    results = Results.model_validate_json(answer)
    beside = [failed for failed in ended.failed if not any(failed.step in cell.steps for cell in prepared.plan.cells)]
    for failed in beside:  # a seed's repeat: its row is whole, what was asked for is not
        typer.echo(f"{failed.step}: {failed.outcome}: {failed.reason}", err=True)
    if beside or any(row.status not in ("ok", "unsupported") for row in results.rows):
        raise typer.Exit(1)


def _write_logs(ended: RunOutcome, kept: Store, folder: Path) -> int:
    """Copy out what the run's training steps logged; how many there are. A log that is damaged is no loss."""
    from edgejoule import runs

    written = 0
    for step, outcome in ended.outcomes.items():
        if outcome.manifest is None or "events" not in outcome.manifest.outputs:
            continue
        target = folder / LOGS[0] / step / LOGS[1]
        with suppress(CorruptBlobError):
            content = kept.fetch(outcome.manifest.outputs["events"].sha256).read_bytes()
            target.parent.mkdir(parents=True, exist_ok=True)
            runs.write_atomically(target, content)
            written += 1
    return written


def plan(
    spec: SpecFile,
    out: Out = None,
    store: StorePlace = None,
    settings: Settings = [],  # noqa: B006
    as_json: Json = False,
    session: Session = "1",
) -> None:
    """Show what a run would do, and what is done already. Changes nothing but the store's cache of file hashes."""
    console = console_on(sys.stderr)
    prepared, kept, _ = prepare(spec, out, store, settings, session, console, writing=False)
    _show_steps(prepared, kept, as_json)


def status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="Name of a run; all runs where not given.")] = None,
    store: StorePlace = None,
    as_json: Json = False,
    watch: Annotated[bool, typer.Option("--watch", help="Follow one run, the latest where none is named.")] = False,
) -> None:
    """Show how far runs are, from what is in the store; works while they run and after."""
    from edgejoule import runs, tables
    from edgejoule.kinds import Kinds
    from edgejoule.reconcile import survey

    kept = existing_store(store)
    if watch:
        stack.watch_run(run, kept, console_on(sys.stdout))
        return
    if run is not None:
        _show_steps(runs.load(run, kept), kept, as_json)
        return
    answer = {}
    for name in kept.run_names():
        found = survey(runs.load(name, kept).plan, kept, Kinds())
        answer[name] = [tables.state_of(state) for state in found.values()]
    if as_json:
        typer.echo(json.dumps({name: {s: states.count(s) for s in set(states)} for name, states in answer.items()}))
    for name, states in answer.items() if not as_json else ():
        typer.echo(f"{name}: {runs.count_states(states)}")
    if not answer and not as_json:
        typer.echo(f"There are no runs yet in the store {kept.where}.")


def get(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")],
    step: Annotated[str, typer.Argument(metavar="STEP", help="A step of it, as edgejoule status RUN lists them.")],
    output: Annotated[str | None, typer.Argument(metavar="[OUTPUT]", help="Which; listed where not given.")] = None,
    into: Annotated[
        Path | None, typer.Option(help="File to write, or folder to write it to.", show_default="OUTPUT")
    ] = None,
    store: StorePlace = None,
) -> None:
    """Copy what a step made out of the store: weights, an ONNX graph, an engine, a record."""
    from edgejoule import runs
    from edgejoule.kinds import Kinds
    from edgejoule.reconcile import StepOutcome, survey

    kept = existing_store(store)
    plan = runs.load(run, kept).plan
    if step not in plan.steps:
        raise EdgejouleError(f"run {run!r} has no step {step!r}; edgejoule status {run} lists its steps")
    state = survey(plan, kept, Kinds())[step]
    made = state.manifest if isinstance(state, StepOutcome) else None
    if made is None:
        raise EdgejouleError(
            f"step {step!r} of run {run!r} has made nothing yet; edgejoule status {run} tells how far it is"
        )
    if output is None:
        for name, listed in made.outputs.items():
            typer.echo(f"{name}  {listed.size_bytes} bytes  sha256 {listed.sha256}")
        return
    if (blob := made.outputs.get(output)) is None:
        raise EdgejouleError(f"step {step!r} made no output {output!r}; it made: {', '.join(made.outputs) or 'none'}")
    target = into if into is not None else Path(output)
    target = target / output if target.is_dir() else target
    content = kept.fetch(blob.sha256).read_bytes()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        runs.write_atomically(target, content)
    except OSError as error:
        raise EdgejouleError(f"{target} cannot be written ({error.strerror}): name another file by --into") from error
    typer.echo(f"wrote {target}, {blob.size_bytes} bytes, sha256 {blob.sha256}")


def doctor(store: StorePlace = None, as_json: Json = False) -> None:
    """Print everything a bug report needs."""
    from edgejoule import doctor as examiner
    from edgejoule.runs import find_store

    found = examiner.examine(find_store(None, store, os.environ))
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(examiner.as_lines(found)))


def _show_steps(run: Run, store: Store, as_json: bool) -> None:
    from edgejoule import tables
    from edgejoule.kinds import Kinds
    from edgejoule.reconcile import StepOutcome, survey
    from edgejoule.runs import count_states

    found = survey(run.plan, store, Kinds())
    states = [tables.state_of(state) for state in found.values()]
    if as_json:
        steps = [
            {
                "id": step.id,
                "kind": step.kind,
                "state": tables.state_of(found[step.id]),
                "reason": outcome.reason if isinstance(outcome := found[step.id], StepOutcome) else None,
            }
            for step in run.plan.steps.values()
        ]
        cells = [{"name": cell.name, "steps": list(cell.steps)} for cell in run.plan.cells]
        typer.echo(json.dumps({"run": run.name, "store": store.where, "steps": steps, "cells": cells}, indent=2))
        return
    console_on(sys.stdout).print(tables.plan_table(run.name, run.plan, found))
    typer.echo(f"{len(run.plan.cells)} rows, {len(states)} steps: {count_states(states)}")


# --- the program ---------------------------------------------------------------------------------


def make_app(wanted: Callable[[str], bool]) -> typer.Typer:
    """The whole command; of those that other packages bring, only the ``wanted`` ones are loaded."""
    app = typer.Typer(
        name="edgejoule",
        help="Which detector, at which precision, on which board, and can the number be trusted?",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )

    @app.callback()
    def main_options(
        version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_version, help="Show it.")] = False,
    ) -> None:
        pass

    for command in (run, plan, status, get, doctor, *stack.COMMANDS):
        app.command()(command)
    found = _announced()
    for name in sorted({*COMMANDS, *found}):
        if name in found and wanted(name):
            app.add_typer(_load(found[name]), name=name)
        else:
            package, summary = COMMANDS.get(name, ("", ""))
            app.command(name, help=summary)(_missing(name, package))
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"edgejoule {__version__}")
        raise typer.Exit


def _announced() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _load(entry: EntryPoint) -> typer.Typer:
    try:
        loaded: typer.Typer = entry.load()
    except (ImportError, AttributeError) as error:
        package = entry.dist.name if entry.dist else entry.value
        raise EdgejouleError(f"command {entry.name!r} cannot be loaded ({error}); install {package} again") from error
    return loaded


def _missing(name: str, package: str) -> Callable[[], None]:
    def missing() -> None:
        raise EdgejouleError(f"command {name!r} is not installed; pip install {package}")

    return missing


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command and exit; no mistake of a person's, nor of ours, ends in a traceback on the screen."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    called = next((word for word in words if not word.startswith("-")), None)
    try:
        make_app(lambda name: name == called)(args=words, prog_name="edgejoule")
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - the rim of the program
        print(_last_words(error), file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code if isinstance(error, EdgejouleError) else 1)
    sys.exit(0)


def _last_words(error: Exception) -> str:
    """One sentence (for a spec, one per problem); for a fault of ours, where its traceback went."""
    if isinstance(error, EdgejouleError) or hasattr(error, "outcome"):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = "the output" if error.filename is None else os.fsdecode(error.filename)
        return f"{where}: {error.strerror.lower()}"
    descriptor, path = tempfile.mkstemp(prefix="edgejoule-crash-", suffix=".log")
    with os.fdopen(descriptor, "w", encoding="utf-8") as log:
        log.write(f"edgejoule {__version__}, Python {sys.version}, arguments {sys.argv[1:]}\n")
        traceback.print_exception(error, file=log)
    return (
        f"edgejoule met a fault of its own ({type(error).__name__}); please report it with {path} and edgejoule doctor"
    )
