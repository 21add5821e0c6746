"""Every error Edgejoule raises on purpose, as one small tree.

    EdgejouleError              one clear sentence: what, with which value, what to do
      SpecError                 the spec file or an option says something that cannot be run
        OptionError             a command's words say something that cannot be asked: wrong usage
      DataError                 images or annotations are wrong, or sets overlap
      DownloadError             a file cannot be fetched, or is another one than it should be
      WeightsError              a weights file does not fit the detector, or is hostile
      ModelError                an ONNX graph breaks the engine contract
      StoreError                the store cannot be read or written (permission, full disk, lock)
        CorruptBlobError        bytes in the store do not have the hash they are named by
        CorruptManifestError    a manifest cannot be read, or points at blobs that are gone
      StepError                 a step ended without its result
        UnsupportedError        the hardware or the runtime lacks what was asked: a row, not a fault
        OutOfMemoryError        the step was ended for memory
        TimeLimitError          the step outran its limit

An error has an ``outcome``, the status that the rows depending on a failed step get, says
whether trying again could help (``transient``), and has the ``exit_code`` of a command that it ends.
The agent, which imports nothing of ours, has a tree of its own whose classes carry the first two.
"""

from __future__ import annotations

from typing import ClassVar


class EdgejouleError(Exception):
    """Base of every error that is told to a person without a traceback."""

    outcome: ClassVar[str] = "failed"
    transient: ClassVar[bool] = False
    exit_code: ClassVar[int] = 1


class SpecError(EdgejouleError):
    """The spec, or an option that overrides it, cannot be run as it stands."""


class OptionError(SpecError):
    """What a command is asked cannot be asked so, whatever the files say."""

    exit_code = 2


class DataError(EdgejouleError):
    """Images or annotations are wrong, or two sets that must be disjoint overlap."""


class DownloadError(EdgejouleError):
    """A file cannot be fetched, or is another one than it should be."""


class WeightsError(EdgejouleError):
    """A weights file does not fit the detector it is meant for, or is not safe to read."""


class ModelError(EdgejouleError):
    """An ONNX graph does not keep the engine contract."""


class StoreError(EdgejouleError):
    """The store cannot be read or written."""


class CorruptBlobError(StoreError):
    """The bytes of a blob do not have the hash they are named by."""


class CorruptManifestError(StoreError):
    """A manifest cannot be read, or points at blobs that are gone: its step does not count as done."""


class StepError(EdgejouleError):
    """A step ended without its result."""


class UnsupportedError(StepError):
    """The hardware or the runtime lacks what was asked for."""

    outcome = "unsupported"


class OutOfMemoryError(StepError):
    """The step was ended because memory ran out; it may have been others who took it."""

    outcome = "oom"
    transient = True


class TimeLimitError(StepError):
    """The step outran its time limit."""

    transient = True
