"""A gateway that knows toy steps: ``run_toy_gateway.py STORE BROKER PORT CERTIFICATE KEY``.

The environment variables TOY_TIMING and TOY_LIMITS hold its times and limits in JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path

from run_toy_stack import MODULES

from edgejoule.kinds import Kinds
from edgejoule.stack.coordination import Coordination, Timing
from edgejoule.stack.metrics import Metrics, showing, workspace_of
from edgejoule.store import open_store
from edgejoule_gateway.app import Gateway
from edgejoule_gateway.assignments import Assignments
from edgejoule_gateway.limits import Limits
from edgejoule_gateway.registry import Registry
from edgejoule_gateway.server import serve


def main() -> None:
    where, broker, port, certificate, key = sys.argv[1:]
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    limits = Limits(**json.loads(os.environ.get("TOY_LIMITS", "{}")))
    store = open_store(where, os.environ)
    coordination = Coordination(broker, Timing(**json.loads(os.environ.get("TOY_TIMING", "{}"))))
    metrics = Metrics("gateway", workspace_of())
    assignments = Assignments(store, coordination, Kinds(MODULES), limits, metrics)
    gateway = Gateway(assignments, Registry(store, limits.registry_s), coordination, limits, metrics=metrics)
    with showing(metrics, pages={"/metrics": gateway.metrics_page, "/devices": gateway.targets}):
        serve(gateway, "127.0.0.1", int(port), Path(certificate), Path(key), limits)


if __name__ == "__main__":
    main()
