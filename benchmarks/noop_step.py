"""A step kind that does nothing, for ``stack_overhead.py``: it notes when it began and ended."""

from __future__ import annotations

import time
from typing import Any

VERSION = 1
QUEUE = "evaluate"
EXCLUSIVE = False
OUTPUTS = ("times",)
SOURCES = ()


def run(job: Any) -> None:
    began = time.time()
    job.output("times").write_text(f"{began} {time.time()}")
