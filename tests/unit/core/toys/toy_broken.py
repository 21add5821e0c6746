"""A step kind that forgot to say its version."""

QUEUE = "evaluate"
EXCLUSIVE = False
OUTPUTS = ()
SOURCES = ()
