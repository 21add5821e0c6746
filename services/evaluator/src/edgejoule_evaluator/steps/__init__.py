"""The step kinds of the evaluator: ``predict`` and ``score``."""
