"""Mounted into the workers by faults.compose.yml: a step hangs after a minute of silence, not ten."""

import edgejoule.kinds

edgejoule.kinds.SILENCE_LIMIT_S = 60.0
