"""The toy step with a limit to how long it may say nothing."""

from __future__ import annotations

import toy_step

VERSION = 1
QUEUE = "evaluate"
EXCLUSIVE = False
OUTPUTS = ("text",)
SOURCES = ("toy_step",)
SILENCE_LIMIT_S = 0.5

run = toy_step.run
