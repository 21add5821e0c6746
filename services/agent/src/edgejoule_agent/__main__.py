"""The command ``edgejoule-agent``, also as ``python3 -m edgejoule_agent``: serve this board's gateway."""

import argparse
import contextlib
import fcntl
import functools
import json
import logging
import os
import signal
import sys
import threading
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

from edgejoule_agent import host, jetson, live, power_mode
from edgejoule_agent.connection import Connection
from edgejoule_agent.errors import AgentError, SettingsError
from edgejoule_agent.exporter.board import Board
from edgejoule_agent.exporter.server import serving
from edgejoule_agent.service import Service
from edgejoule_agent.simulation import device as simulated
from edgejoule_agent.simulation.declared import BOARDS
from edgejoule_agent.simulation.running import Settings, root_of, running


def main(arguments: Optional[List[str]] = None) -> int:
    """Serve until SIGTERM or SIGINT; the exit code."""
    options = _options(arguments)
    if options.probe:
        found = host.probe()
        if jetson.is_jetson():
            found["power_mode_refusal"] = power_mode.why_not()
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: stopping.set())
    try:
        token, heard = _token(options.token_file, os.environ), os.path.join(options.state, "heard")
        os.environ["EDGEJOULE_AGENT_STATE"] = options.state  # for the steps, each in a process of its own
        connection = Connection(options.gateway, token, options.ca, options.plain, heard)
        with contextlib.ExitStack() as stack:
            stack.enter_context(_alone(options.state))
            probe, root = stack.enter_context(_device(options.simulate, options.faults, options.state))
            port = stack.enter_context(_metrics(options.metrics, options.state, root))
            cache_bytes = int(options.cache_gb * 1e9)
            Service(connection, options.state, cache_bytes, stopping, probe=probe, metrics_port=port).serve()
    except AgentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


def _options(arguments: Optional[List[str]]) -> Any:
    parser = argparse.ArgumentParser(
        prog="edgejoule-agent", description="Take jobs from the gateway, one at a time, carry them out here, deliver."
    )
    given = os.environ.get
    parser.add_argument(
        "--gateway",
        metavar="URL",
        default=given("EDGEJOULE_GATEWAY"),
        help="address of the gateway, https://HOST:PORT (EDGEJOULE_GATEWAY)",
    )
    parser.add_argument(
        "--token-file",
        metavar="FILE",
        default=given("EDGEJOULE_TOKEN_FILE"),
        help="file with this board's token (EDGEJOULE_TOKEN_FILE; EDGEJOULE_TOKEN may hold the token itself)",
    )
    parser.add_argument(
        "--ca",
        metavar="FILE",
        default=given("EDGEJOULE_GATEWAY_CA"),
        help="certificate to trust, where it is not one of the system's (EDGEJOULE_GATEWAY_CA)",
    )
    parser.add_argument(
        "--state",
        metavar="FOLDER",
        default=power_mode.state_folder(),
        help="folder for inputs, and results that wait (EDGEJOULE_AGENT_STATE; ~/.edgejoule-agent)",
    )
    parser.add_argument(
        "--cache-gb",
        metavar="GB",
        type=float,
        default=float(given("EDGEJOULE_CACHE_GB") or 8),
        help="what inputs may take up there (EDGEJOULE_CACHE_GB; 8)",
    )
    parser.add_argument(
        "--simulate",
        metavar="BOARD",
        default=given("EDGEJOULE_SIMULATE"),
        help=f"play a board that is not there: {', '.join(sorted(BOARDS))} (EDGEJOULE_SIMULATE)",
    )
    parser.add_argument(
        "--faults",
        metavar="WORDS",
        default=given("EDGEJOULE_SIMULATE_FAULTS"),
        help="what goes wrong with the board that is played, and from when to when in seconds, with blanks between: "
        "off:VDD_IN@60-90 loose:sink@120 (EDGEJOULE_SIMULATE_FAULTS; nothing)",
    )
    parser.add_argument(
        "--metrics",
        metavar="HOST:PORT",
        default=given("EDGEJOULE_METRICS"),
        help="where to show metrics to Prometheus, as in 0.0.0.0:9464 (EDGEJOULE_METRICS; nowhere)",
    )
    parser.add_argument("--plain", action="store_true", help="allow http:// beyond this host")
    parser.add_argument("--probe", action="store_true", help="print what this device says of itself, as JSON, and end")
    options = parser.parse_args(arguments)
    if options.gateway is None and not options.probe:
        parser.error("which gateway? give --gateway URL")
    if options.probe and options.simulate:
        parser.error("--probe tells of this device, not of a simulated one: leave --simulate out")
    if options.faults and not options.simulate:
        parser.error("only a simulated board has faults to order: give --simulate BOARD, or leave --faults out")
    return options


def _token(path: Optional[str], environment: Mapping[str, str]) -> str:
    """The board's token, from its file or else from EDGEJOULE_TOKEN.

    Raises:
        SettingsError: there is none.
    """
    if path is None:
        if not environment.get("EDGEJOULE_TOKEN"):
            raise SettingsError("this board has no token: give --token-file, from edgejoule devices create")
        return environment["EDGEJOULE_TOKEN"].strip()
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read(4096).strip()
    except OSError as error:
        raise SettingsError(f"the token file {path} cannot be read ({error.strerror})") from error


@contextlib.contextmanager
def _device(
    board: Optional[str], faults: Optional[str], state: str
) -> Iterator[Tuple[Callable[[], Dict[str, Any]], str]]:
    """What says what this device is, and where its files lie: this host, or a board simulated while the block lasts.

    Raises:
        SettingsError: no such board can be simulated.
    """
    if not board:
        yield host.probe, "/"
        return
    settings = Settings(board, faults=(faults or "").split())
    with running(settings, os.path.join(state, "board")) as folder:
        os.environ[simulated.FOLDER] = folder  # for the steps, each in a process of its own
        try:
            yield functools.partial(simulated.probe, board, root_of(folder)), root_of(folder)
        finally:
            del os.environ[simulated.FOLDER]


@contextlib.contextmanager
def _metrics(address: Optional[str], state: str, root: str) -> Iterator[Optional[int]]:
    """Show metrics while the block lasts, and have trials tell theirs; gives the port, or None where nobody wants any.

    Raises:
        SettingsError: they cannot be shown there.
    """
    if not address:
        yield None
        return
    board = Board(root, simulated=root != "/", agent=host.installed_version("edgejoule-agent") or "unknown")
    with serving(address, state, board) as port:
        os.environ[live.VARIABLE] = state
        try:
            yield port
        finally:
            del os.environ[live.VARIABLE]


@contextlib.contextmanager
def _alone(state: str) -> Iterator[None]:
    """Have the state folder to ourselves, readable by nobody else.

    Raises:
        SettingsError: another agent has it, or there can be no such folder.
    """
    try:
        os.makedirs(state, mode=0o700, exist_ok=True)
        descriptor = os.open(os.path.join(state, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise SettingsError(f"the folder {state} cannot be used ({error.strerror}): name another") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SettingsError(f"another agent works in {state}: name another folder") from None
        yield
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    sys.exit(main())
