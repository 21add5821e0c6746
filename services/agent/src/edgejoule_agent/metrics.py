"""The metrics that the agent may show: ``metrics.json``, made from core's table (``python -m edgejoule.reference``)."""

import json
import os
from collections import OrderedDict
from typing import Any, Mapping


def load() -> Mapping[str, Mapping[str, Any]]:
    """Metric to its type, help, labels and, of a histogram, buckets (upper bounds); in the table's order."""
    with open(os.path.join(os.path.dirname(__file__), "metrics.json"), encoding="utf-8") as file:
        found: Mapping[str, Mapping[str, Any]] = json.load(file, object_pairs_hook=OrderedDict)
        return found
