"""Run a plan of toy steps in a process of its own: ``run_toy_plan.py STORE RUN PLAN.json``, for tests that kill it.

The plan is a list of {id, kind, parameters, inputs: {name: step}}.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from edgejoule.executor import run_plan
from edgejoule.folder_store import FolderStore
from edgejoule.kinds import Kinds
from edgejoule.plan import Plan, Ref, Step

MODULES = {"toy": "toy_step", "measure": "toy_measure", "limited": "toy_limited", "broken": "toy_broken"}


def read_plan(path: Path) -> Plan:
    """The plan in a JSON file."""
    steps = [
        Step(
            one["id"], one["kind"], one["parameters"], {name: Ref(step, "text") for name, step in one["inputs"].items()}
        )
        for one in json.loads(path.read_text())
    ]
    return Plan({step.id: step for step in steps}, ())


if __name__ == "__main__":
    run_plan(
        read_plan(Path(sys.argv[3])), FolderStore(Path(sys.argv[1])), run=sys.argv[2], kinds=Kinds(MODULES), workers=2
    )
