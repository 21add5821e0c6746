"""Every error the agent raises on purpose, as one small tree.

    AgentError                  one clear sentence: what, with which value, what to do
      ShardError                an image archive is broken or hostile
      ImageError                an image cannot be decoded
      ModelError                an ONNX graph breaks the engine contract
      EngineError               an engine does not load, does not fit this host, or gives wrong numbers
      UnsupportedError          the hardware or the runtime lacks what was asked: a row, not a fault
      OutOfMemoryError          the step was ended for memory, or would have been
      TimeLimitError            the step outran its limit
      ConditionsChangedError    the device was not the same before and after: the trial is void

``outcome`` is the status that the rows depending on a failed step get; ``transient`` says whether
trying again could help.
"""


class AgentError(Exception):
    """Base of every error that is told to a person without a traceback."""

    outcome = "failed"
    transient = False


class ShardError(AgentError):
    """An image archive is broken or hostile."""


class ImageError(AgentError):
    """An image cannot be decoded."""


class ModelError(AgentError):
    """An ONNX graph does not keep the engine contract."""


class EngineError(AgentError):
    """An engine does not load, does not fit this host, or gives wrong numbers."""


class UnsupportedError(AgentError):
    """The hardware or the runtime lacks what was asked for."""

    outcome = "unsupported"


class OutOfMemoryError(AgentError):
    """The step was ended because memory ran out, or refused because it would."""

    outcome = "oom"


class TimeLimitError(AgentError):
    """The step outran its time limit."""

    transient = True


class ConditionsChangedError(AgentError):
    """The device's probe differs before and after: the trial is void, another may not be."""

    transient = True
