"""Every error the agent raises on purpose, as one small tree.

    AgentError                  one clear sentence: what, with which value, what to do
      ShardError                an image archive is broken or hostile
      ImageError                an image cannot be decoded
      ModelError                an ONNX graph breaks the engine contract
      EngineError               an engine does not load, does not fit this host, or gives wrong numbers
      SensorError               a sensor has no value to give; the message is the reason
      UnsupportedError          the hardware or the runtime lacks what was asked: a row, not a fault
      OutOfMemoryError          the step was ended for memory, or would have been
      TimeLimitError            the step outran its limit
      ConditionsChangedError    the device was not the same before and after: the trial is void
      SettingsError             the agent cannot start as it was told to
      OutOfReachError           the gateway does not answer, or not now
        TokenRefusedError       it answers, and lets this board not in
        MessageRefusedError     it answers, and takes these very words from nobody
      JobGoneError              the gateway wants nothing of this job any more
      UnreadableError           a file on this host's own disk is gone, hurt or cut short
      HostError                 this host cannot carry on (a full disk): nothing is wrong with the step

``outcome`` is the status that the rows depending on a failed step get; ``transient`` says whether
trying again could help.
"""

import errno
import re
from typing import Optional

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
# of np.save, whose errors have no errno: where room is asked for beforehand, and where a write is cut short
FULL_DISK_WORDS = re.compile(r"Not enough free space to write|\d+ requested and \d+ written")


def is_full_disk(error: Optional[BaseException]) -> bool:
    """Whether the error, or one that it came of, is a full disk: this host's fault, not the step's."""
    if error is None:
        return False
    if isinstance(error, OSError) and (error.errno in FULL_DISK or FULL_DISK_WORDS.match(str(error))):
        return True
    return is_full_disk(error.__cause__ or error.__context__)


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


class SensorError(AgentError):
    """A sensor has no value to give: absent, unreadable, stuck or absurd. The message is the reason."""


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


class SettingsError(AgentError):
    """The agent cannot start as it was told to."""


class OutOfReachError(AgentError):
    """The gateway does not answer, or says that it cannot serve now."""


class TokenRefusedError(OutOfReachError):
    """The gateway lets nobody in with this token."""


class MessageRefusedError(OutOfReachError):
    """The gateway does not take a message for what it says, and would not take it later either."""


class JobGoneError(AgentError):
    """The gateway knows nothing of a job, or wants nothing of it any more."""


class UnreadableError(AgentError):
    """A file on this host's own disk is gone, cannot be read, or is shorter than it was."""

    transient = True


class HostError(AgentError):
    """This host cannot carry on; nothing is wrong with the step."""

    transient = True
