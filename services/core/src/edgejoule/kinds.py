"""Step kinds: the modules that services announce under the entry-point group ``edgejoule.steps``.

Reading a kind imports its module, which is cheap: step modules import what is heavy inside ``run``.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import entry_points
from typing import Literal

from edgejoule.errors import StepError

GROUP = "edgejoule.steps"
TIME_LIMIT_S = 6 * 3600.0
SILENCE_LIMIT_S = 600.0
_QUEUES = ("train", "evaluate", "analyze", "device")

PACKAGES = {
    "import-data": "edgejoule-trainer",
    "import-weights": "edgejoule-trainer",
    "train": "edgejoule-trainer",
    "export": "edgejoule-trainer",
    "batch": "edgejoule-trainer",
    "ptq": "edgejoule-trainer",
    "qat": "edgejoule-trainer",
    "build": "edgejoule-agent",
    "benchmark": "edgejoule-agent",
    "predict": "edgejoule-agent",
    "score": "edgejoule-evaluator",
    "analyze": "edgejoule-analyst",
}
"""Which package announces a kind, to say what to install when it is missing."""


@dataclass(frozen=True)
class StepKind:
    """What a step module says of itself (see ``edgejoule.job``).

    Attributes:
        time_limit_s: an attempt that takes longer is ended.
        on_boards: for the row of a board it is the board's step, whatever its queue.
        silence_limit_s: an attempt that says nothing of its progress for so long hangs, and is ended.
    """

    name: str
    module: str
    version: int
    queue: Literal["train", "evaluate", "analyze", "device"]
    exclusive: bool
    outputs: tuple[str, ...]
    sources: tuple[str, ...]
    time_limit_s: float
    silence_limit_s: float
    on_boards: bool


class Kinds:
    """Step kinds by name, each loaded when first asked for.

    Args:
        modules: kind to module name; what the installed packages announce when not given.
    """

    def __init__(self, modules: Mapping[str, str] | None = None) -> None:
        self._given = modules
        self._loaded: dict[str, StepKind] = {}

    @cached_property
    def modules(self) -> dict[str, str]:
        """Kind to module name, of every kind that can be had."""
        if self._given is not None:
            return dict(self._given)
        return {point.name: point.value for point in entry_points(group=GROUP)}

    def __getitem__(self, name: str) -> StepKind:
        """The kind called ``name``.

        Raises:
            StepError: no package announces it, or its module cannot be imported or lacks a constant.
        """
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def _load(self, name: str) -> StepKind:
        if (module_name := self.modules.get(name)) is None:
            package = PACKAGES.get(name)
            advice = f"install it with: pip install {package}" if package else f"known are {sorted(self.modules)}"
            raise StepError(f"no installed package announces the step kind {name!r}; {advice}")
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            raise StepError(
                f"the step kind {name!r} cannot be loaded: importing {module_name} ended in {error!r}; "
                f"install {PACKAGES.get(name, 'the package that announces it')} again"
            ) from error
        try:
            kind = StepKind(
                name=name,
                module=module_name,
                version=module.VERSION,
                queue=module.QUEUE,
                exclusive=module.EXCLUSIVE,
                outputs=tuple(module.OUTPUTS),
                sources=tuple(module.SOURCES),
                time_limit_s=float(getattr(module, "TIME_LIMIT_S", TIME_LIMIT_S)),
                silence_limit_s=float(getattr(module, "SILENCE_LIMIT_S", SILENCE_LIMIT_S)),
                on_boards=bool(getattr(module, "ON_BOARDS", module.QUEUE == "device")),
            )
        except AttributeError as error:
            raise StepError(f"the step kind {name!r} is broken: {error}; every step module must define it") from error
        if kind.queue not in _QUEUES or not callable(getattr(module, "run", None)):
            raise StepError(f"the step kind {name!r} is broken: {module_name} needs run(job) and a QUEUE of {_QUEUES}")
        return kind
