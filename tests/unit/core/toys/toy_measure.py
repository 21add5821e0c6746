"""The toy step as a measurement: it wants the host for itself."""

from __future__ import annotations

import toy_step

VERSION = 1
QUEUE = "device"
EXCLUSIVE = True
OUTPUTS = ("text",)
SOURCES = ("toy_step",)

run = toy_step.run
