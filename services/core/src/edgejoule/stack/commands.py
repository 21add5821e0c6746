"""The commands of the stack. Thin, and light: what needs Celery or Redis is imported when it is called."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from edgejoule.errors import EdgejouleError
from edgejoule.options import Retry, Session, Settings, SpecFile, StorePlace, console_on, existing_store, prepare

if TYPE_CHECKING:
    from rich.console import Console

    from edgejoule.executor import OnCell, RunOutcome
    from edgejoule.progress import Display
    from edgejoule.runs import Run
    from edgejoule.stack.coordination import Coordination
    from edgejoule.store import Store

RunName = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run.")]


def worker(
    queues: Annotated[
        list[str], typer.Argument(metavar="QUEUE...", help="train, evaluate, analyze or device.NAME; one or more.")
    ],
    store: StorePlace = None,
    idle_exit: Annotated[
        float | None,
        typer.Option(min=1, help="End after so many seconds without a step: for workers that are started on demand."),
    ] = None,
) -> None:
    """Carry out steps for the stack, one at a time, until told to stop."""
    with stack() as (coordination, broker):
        from edgejoule.kinds import Kinds
        from edgejoule.stack.worker import serve

        kept = store_of_stack(store)
        code = serve(
            queues,
            broker=broker,
            store=kept,
            coordination=coordination,
            kinds=Kinds(),
            alive=alive_file(),
            idle_exit_s=idle_exit,
        )
    raise typer.Exit(code)


def conductor(store: StorePlace = None) -> None:
    """Find out what is ready and send it to the workers, until told to stop; a second one stands by."""
    with stack() as (coordination, broker):
        from edgejoule.kinds import Kinds
        from edgejoule.stack.annotations import annotations_of
        from edgejoule.stack.app import Sender
        from edgejoule.stack.conductor import Conductor
        from edgejoule.stack.health import watched
        from edgejoule.stack.metrics import Metrics, showing, workspace_of

        logging.basicConfig(level=logging.INFO, format="[%(asctime)s: %(levelname)s] %(message)s")
        stopping = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda number, frame: stopping.set())
        kept, metrics = store_of_stack(store), Metrics("conductor", workspace_of())
        told = annotations_of(os.environ)
        with showing(metrics), watched(metrics, kept, coordination):
            Conductor(kept, coordination, Sender(broker), Kinds(), stopping, metrics, told).serve(alive_file())


def alive() -> None:
    """Exit with 0 when the worker or conductor of this workspace is well: for health checks."""
    from edgejoule.stack.alive import STALE_S, is_alive

    if (file := alive_file()) is None:
        raise EdgejouleError("EDGEJOULE_WORKSPACE is not set, so nobody can say there that it is well: set it")
    if not is_alive(file):
        raise EdgejouleError(f"nobody touched {file} for {STALE_S:g} s: the worker or conductor is not well")


def submit(
    spec: SpecFile,
    store: StorePlace = None,
    settings: Settings = [],  # noqa: B006 - typer wants a list and never changes it
    retry: Retry = False,
    session: Session = "1",
) -> None:
    """Hand a spec over to the stack: what reads your files is done here, the rest by the workers."""
    with stack() as (coordination, _):
        from edgejoule.kinds import Kinds
        from edgejoule.progress import display_on
        from edgejoule.stack.submit import do_local_part, hand_over

        console = console_on(sys.stderr)
        prepared, kept, _ = prepare(spec, None, store, settings, session, console, writing=True, on_stack=True)
        do_local_part(prepared, kept, kinds=Kinds(), display=display_on(console), retry=retry)
        hand_over(prepared, kept, coordination)
        typer.echo(f"Submitted as {prepared.name}. Follow it: edgejoule status {prepared.name} --watch")


def cancel(run: RunName, store: StorePlace = None) -> None:
    """Have the stack stop a run; what is finished is kept, and edgejoule retry has it go on."""
    with stack() as (coordination, _):
        from edgejoule.stack.submit import cancel as cancel_run

        cancel_run(run, existing_store(store), coordination)
        typer.echo(f"Cancelled {run}; steps under way stop within seconds.")


def retry(run: RunName, store: StorePlace = None) -> None:
    """Have the stack try a run's failed steps again; a cancelled run goes on."""
    with stack() as (coordination, _):
        from edgejoule.kinds import Kinds
        from edgejoule.stack.submit import retry as retry_run

        forgotten = retry_run(run, store_of_stack(store), coordination, kinds=Kinds())
        typer.echo(f"{run} goes on; steps that had failed: {', '.join(forgotten) or 'none'}.")


def logs(
    step: Annotated[str, typer.Argument(metavar="STEP", help="Id of a step, as edgejoule status RUN shows it.")],
    run: Annotated[str | None, typer.Option(help="Name of its run.", show_default="the latest")] = None,
    store: StorePlace = None,
) -> None:
    """Print what each attempt at a step printed."""
    from edgejoule.kinds import Kinds
    from edgejoule.stack.submit import read_logs

    kept = existing_store(store)
    for heading, text in read_logs(step, _run_name(run, kept), kept, Kinds()):
        typer.echo(f"--- {step}, {heading}", err=True)
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()


COMMANDS = (submit, cancel, retry, logs, worker, conductor, alive)


def watch_run(run: str | None, store: Store, console: Console) -> None:
    """``edgejoule status --watch``: also for a run without a stack, of which then only results are seen."""
    from edgejoule import runs
    from edgejoule.kinds import Kinds
    from edgejoule.stack.watch import watch

    name = _run_name(run, store)
    plan = runs.load(name, store).plan
    if os.environ.get("EDGEJOULE_BROKER"):
        with stack() as (coordination, _):
            watch(name, plan, store, coordination, Kinds(), console)
    else:
        watch(name, plan, store, None, Kinds(), console)


def run_on_stack(run: Run, store: Store, display: Display, on_cell: OnCell, *, retry: bool) -> RunOutcome:
    """``edgejoule run --on stack``: submit, and follow until the run has ended."""
    with stack() as (coordination, _):
        from edgejoule.kinds import Kinds
        from edgejoule.stack.submit import do_local_part, hand_over
        from edgejoule.stack.watch import Watcher, follow

        kinds = Kinds()
        local = do_local_part(run, store, kinds=kinds, display=display, retry=retry)
        watcher = Watcher(run.plan, store, coordination, kinds)
        watcher.look()
        hand_over(run, store, coordination)
        try:
            return follow(run.name, watcher, store, local.outcomes, display=display, on_cell=on_cell)
        except KeyboardInterrupt:
            name = run.name
            display.note(
                f"The stack goes on. edgejoule status {name} --watch follows it, edgejoule cancel {name} stops it."
            )
            raise


@contextmanager
def stack() -> Iterator[tuple[Coordination, str]]:
    """What is agreed on in the stack's Redis, and the address of that.

    Raises:
        EdgejouleError: a package or the setting is missing, or Redis does not answer.
    """
    try:
        import celery  # noqa: F401 - to say at once what is missing
        import redis
    except ImportError as error:
        raise EdgejouleError(
            f"the stack needs {error.name}, which is missing: pip install 'edgejoule[stack]'"
        ) from error
    from edgejoule.stack.coordination import Coordination

    broker = os.environ.get("EDGEJOULE_BROKER", "")
    parts = urlsplit(broker)
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        said = "is not set" if not broker else "is no address of a Redis"
        raise EdgejouleError(
            f"EDGEJOULE_BROKER {said}: set it to redis://:PASSWORD@HOST:6379/0, as the stack's .env has it"
        )
    coordination = Coordination(broker)
    try:
        coordination.ping()
        yield coordination, broker
    except redis.RedisError as error:
        where = f"{parts.hostname}:{parts.port or 6379}"
        raise EdgejouleError(
            f"the stack's Redis at {where} cannot be used ({error}): see whether it runs and EDGEJOULE_BROKER is right"
        ) from error
    finally:
        coordination.close()


def store_of_stack(store: str | None) -> Store:
    """The store of the stack, to be written to."""
    from edgejoule.store import open_store

    if store is None:
        raise EdgejouleError("EDGEJOULE_STORE is not set: set it to the store of the stack, such as s3://edgejoule")
    return open_store(store, os.environ)


def _run_name(run: str | None, store: Store) -> str:
    """The run that is meant: the latest where none is named."""
    if run is not None:
        return run
    if not (names := store.run_names()):
        raise EdgejouleError(f"there are no runs yet in the store {store.where}")
    return names[0]


def alive_file() -> Path | None:
    """What a process of the stack touches while it is well; see ``edgejoule alive``."""
    workspace = os.environ.get("EDGEJOULE_WORKSPACE")
    return Path(workspace) / f"alive-{socket.gethostname()}" if workspace else None  # replicas may share it
