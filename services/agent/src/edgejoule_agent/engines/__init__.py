"""Engines: one small interface over the runtimes, and ``load``, which refuses what was built elsewhere."""

import importlib
from typing import Any, Callable, Dict, Mapping, NamedTuple, Optional, Tuple

from edgejoule_agent.errors import EngineError
from edgejoule_agent.host import hardware_class, resident_memory_bytes, simulating_class


class Throughput(NamedTuple):
    """A run of many inferences on several streams."""

    images_per_s: float
    streams: int
    inferences: int
    wall_s: float


class Engine:
    """A loaded engine; a context manager.

    Attributes:
        execution_ms: of the last inference, by the device's or the runtime's own clock and without copies; None where
            the runtime does not tell it.
        device_memory_bytes: what loading it took of a GPU's memory; None where it takes none.
        host_memory_bytes: by how much loading it grew this process's resident memory, with the runtime's libraries
            where it was the first of its runtime; 0 before it is loaded.
    """

    execution_ms: Optional[float] = None
    device_memory_bytes: Optional[int] = None
    host_memory_bytes: int = 0

    def infer(self, image: Any) -> Tuple[Any, Any]:
        """One inference; B is the batch of the graph, ``recorded_batch`` its record.

        Args:
            image: float32[B,3,H,W], contiguous, from ``preprocess.prepare``.

        Returns:
            boxes float32[B,N,4] and scores float32[B,N,C], valid until the next call; post-processing takes
            them image by image.
        """
        raise NotImplementedError

    def throughput(
        self, image: Any, streams: int, window_s: float, tell: Callable[[float], None]
    ) -> Optional[Throughput]:
        """How fast with ``streams`` inferences under way at a time; None where a runtime has no streams.

        Args:
            window_s: inferences are begun for so long, one on each stream at least.
            tell: called with the seconds that have passed after each that was begun; it takes no time worth counting.

        Raises:
            OutOfMemoryError: so many do not fit.
        """
        return None

    def close(self) -> None:
        """Free the runtime's memory."""
        raise NotImplementedError

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


class Deferred(Engine):
    """An engine that is opened by its first inference: until then it takes no memory beside others."""

    def __init__(self, opener: Callable[[], Engine]) -> None:
        self._opener = opener
        self._engine: Optional[Engine] = None

    @property
    def is_open(self) -> bool:
        return self._engine is not None

    def infer(self, image: Any) -> Tuple[Any, Any]:
        if self._engine is None:
            self._engine = self._opener()
            self.device_memory_bytes = self._engine.device_memory_bytes
            self.host_memory_bytes = self._engine.host_memory_bytes
        found = self._engine.infer(image)
        self.execution_ms = self._engine.execution_ms
        return found

    def throughput(
        self, image: Any, streams: int, window_s: float, tell: Callable[[float], None]
    ) -> Optional[Throughput]:
        if self._engine is None:
            self.infer(image)
        return self._engine.throughput(image, streams, window_s, tell) if self._engine is not None else None

    def close(self) -> None:
        """Free the runtime's memory; the next inference opens the engine anew."""
        if self._engine is not None:
            self._engine.close()
            self._engine = self.device_memory_bytes = None
            self.host_memory_bytes = 0


def recorded_batch(record: Mapping[str, Any]) -> int:
    """How many images an inference takes, by its EngineRecord; those of before there was a choice say nothing."""
    return int(record.get("batch", 1))


def open_engine(runtime: str, content: bytes, options: Mapping[str, str], threads: int) -> Engine:
    """An engine of a runtime (``onnxruntime``, ``openvino``, ``tensorrt`` or ``simulated``) from a file's bytes.

    Raises:
        EngineError: the runtime does not take these bytes.
        UnsupportedError: the runtime is not installed.
    """
    module = importlib.import_module(f"edgejoule_agent.engines.{runtime}_engine")
    before = resident_memory_bytes()
    engine: Engine = module.open_engine(content, options, threads)
    engine.host_memory_bytes = resident_memory_bytes() - before
    return engine


def load(path: Any, record: Mapping[str, Any], threads: int) -> Engine:
    """The engine of a ``build`` step, by its file and its EngineRecord.

    Raises:
        EngineError: it was built for another hardware class, or the runtime refuses it.
        UnsupportedError: the runtime is not installed.
    """
    built_for = record["hardware"]
    here = simulating_class(built_for) if built_for.get("simulated") else hardware_class(built_for["runtime"])
    if _told(here) != _told(built_for):
        raise EngineError(f"{path}: built for {describe(built_for)}, but this host is {describe(here)}; build it here")
    with open(str(path), "rb") as file:
        return open_engine(built_for["runtime"], file.read(), record["options"], threads)


def _told(hardware: Mapping[str, Any]) -> Dict[str, Any]:
    """Without what is null, which core writes and hosts that have no such thing leave out."""
    return {key: value for key, value in hardware.items() if value is not None}


def describe(hardware: Mapping[str, Any]) -> str:
    """A hardware class in one line."""
    words = "{machine} {processor} [{features}] with {runtime} {runtime_version}".format(
        **dict(hardware, features=" ".join(hardware["features"]))
    )
    if hardware.get("gpu"):
        words += f" on {hardware['gpu']}"
    return f"{words} on L4T {hardware['l4t']}" if hardware.get("l4t") else words
