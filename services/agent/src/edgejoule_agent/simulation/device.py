"""A simulated board as a device: what it says of itself, and how steps come to it.

Its engines and measurements are bound to the board that is simulated and to the host that simulates it, since the
host's processor makes the numbers that come out. ``simulated`` stands in both, so neither passes for a real one.
"""

import contextlib
import os
import tempfile
from typing import Any, Dict, Iterator, Mapping, Optional

from edgejoule_agent import boards, host, jetson
from edgejoule_agent.engines.tensorrt_engine.builder import check_precision
from edgejoule_agent.simulation import trees
from edgejoule_agent.simulation.running import Settings, declared, read_status, root_of, running

FOLDER = "EDGEJOULE_SIMULATED"  # in the environment of steps: the folder of the board that the agent keeps alive
MODEL = 1  # of the simulation; raised when the same load comes out otherwise


def nano() -> Dict[str, Any]:
    """``simulated-nano`` of a spec."""
    return probe("nano")


def orin_nano() -> Dict[str, Any]:
    """``simulated-orin-nano`` of a spec."""
    return probe("orin-nano")


def probe(name: str, root: Optional[str] = None) -> Dict[str, Any]:
    """The simulated board as a device, in the words of ``host.probe``.

    Args:
        root: of the board's tree, if it is alive; what is asked here is the same in any.
    """
    facts = _facts(name, root)
    told = dict(jetson.NOT_TOLD, learnt="TensorRT is not asked, since the board is simulated")
    return {
        "id": f"simulated-{name}",
        "hardware": hardware(name, facts),
        "environment": dict(host.environment(), **facts, simulated=True, simulation=_simulation(name)),
        "precisions": jetson.precisions(facts["soc"], told),
    }


def hardware(name: str, facts: Optional[Mapping[str, Any]] = None) -> Dict[str, Any]:
    """What an engine of the simulated board is bound to; ``facts``: of its tree, if they are known already."""
    facts = facts or _facts(name)
    processor = "{} ({}, SM {})".format(facts["board"], facts["soc"], facts["sm"])
    return dict(host.simulating(processor, facts["l4t"]), board=name)


def hardware_class(name: str) -> Dict[str, Any]:
    """What an engine built for the simulated board is bound to (HardwareClass)."""
    return host.simulating_class(hardware(name))


def refuse(precision: str, name: str) -> None:
    """Refuse what the board's GPU has no arithmetic for, as on the real one.

    Raises:
        UnsupportedError: it has none.
    """
    facts = _facts(name)
    sm = boards.capability(facts["sm"])
    told = {"fast": boards.fast_precisions_of(sm), "sm": sm, "told_by": "the compute capability"}
    check_precision(precision, dict(told, version=facts["tensorrt"]))


def board_of(plan: Optional[Mapping[str, Any]]) -> Optional[str]:
    """Which simulated board a step is for: the one that this agent plays, else the one of the plan; None: a real one.

    Args:
        plan: the device's hardware or environment, as the plan has it.
    """
    if os.environ.get(FOLDER):
        return str(read_status(os.environ[FOLDER])["board"])
    if not plan or not plan.get("simulated"):
        return None
    name: str = plan["simulation"]["board"] if "simulation" in plan else plan["board"]
    return declared(name).name


@contextlib.contextmanager
def alive(name: str) -> Iterator[str]:
    """The folder of a running board: the one that this agent keeps alive, else one for as long as the block lasts."""
    if os.environ.get(FOLDER):
        yield os.environ[FOLDER]
        return
    with running(Settings(name)) as folder:
        yield folder


def _facts(name: str, root: Optional[str] = None) -> Dict[str, Any]:
    """``jetson.probe`` of the board's tree."""
    with contextlib.ExitStack() as stack:
        if root is None:
            root = root_of(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgejoule-board-")))
            trees.write(declared(name).tree, root)
        found = jetson.probe(root)
    if found is None:
        raise AssertionError(f"the tree of {name} is no Jetson's")
    return found


def _simulation(name: str) -> Dict[str, Any]:
    """The constants of the simulation, so that a record says all that its figures come from; faults, if there are."""
    board = declared(name)
    faults = read_status(os.environ[FOLDER]).get("faults") if os.environ.get(FOLDER) else None
    return {
        **({"faults": faults} if faults else {}),
        "board": name,
        "model": MODEL,
        "gpu": dict(board.gpu._asdict()),
        "parts": [dict(part._asdict()) for part in board.parts],
        "thermal": dict(board.thermal._asdict()),
    }
