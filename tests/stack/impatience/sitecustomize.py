"""Mounted into the workers by faults.compose.yml: a step hangs after so many seconds of silence, not ten minutes."""

import edgejoule.kinds

edgejoule.kinds.SILENCE_LIMIT_S = 25.0
