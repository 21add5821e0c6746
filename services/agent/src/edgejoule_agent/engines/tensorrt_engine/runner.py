"""A TensorRT engine as an ``Engine``: both generations of its Python API behind one small interface.

Arguments and returns that the table of names does not tell are in docs/reference/tensorrt.md, with their pages.
"""

import sys
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Tuple

import numpy as np

from edgejoule_agent import host, jetson
from edgejoule_agent.engines import Engine, Throughput
from edgejoule_agent.engines.tensorrt_engine import cuda as cudart
from edgejoule_agent.engines.tensorrt_engine import releases
from edgejoule_agent.engines.tensorrt_engine.log import collector, deserialize, failure, start
from edgejoule_agent.errors import AgentError, EngineError

INPUT, BOXES, SCORES = "image", "boxes", "scores"


class Tensor(NamedTuple):
    """An input or output of an engine; float32, as the engine contract has it."""

    name: str
    is_input: bool
    shape: Tuple[int, ...]


class Memory(NamedTuple):
    """What one loaded engine takes on the device."""

    taken_bytes: int  # fall of the device's free memory while it was loaded; others may move it too
    context_bytes: int  # scratch of one execution context, as TensorRT tells it


def tensors_of(trt: Any, release: releases.Release, engine: Any) -> List[Tensor]:
    """Inputs and outputs in the order of their bindings.

    Raises:
        EngineError: they are not those of the engine contract.
    """
    found = []
    if release.input_output == releases.BINDINGS:
        for index in range(engine.num_bindings):
            name = engine.get_binding_name(index)
            is_input, dtype = engine.binding_is_input(index), engine.get_binding_dtype(index)
            found.append((Tensor(name, is_input, tuple(engine.get_binding_shape(index))), dtype))
    else:
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT
            found.append((Tensor(name, is_input, tuple(engine.get_tensor_shape(name))), engine.get_tensor_dtype(name)))
    for tensor, dtype in found:
        if dtype != trt.DataType.FLOAT or min(tensor.shape) < 1:
            raise EngineError(
                f"the engine's {tensor.name} is {dtype} of shape {tensor.shape}; "
                "the engine contract has float32 of a fixed shape; build it again"
            )
    names = {(tensor.name, tensor.is_input) for tensor, _ in found}
    if names != {(INPUT, True), (BOXES, False), (SCORES, False)}:
        told = ", ".join(tensor.name for tensor, _ in found)
        raise EngineError(f"the engine's inputs and outputs are {told}; the engine contract has image -> boxes, scores")
    return [tensor for tensor, _ in found]


class Lane:
    """One execution context with a stream, pinned buffers and two events of its own."""

    def __init__(
        self, cuda: cudart.Cuda, release: releases.Release, engine: Any, tensors: List[Tensor], log: Any
    ) -> None:
        self._cuda, self._tensors, self._log = cuda, tensors, log
        self._by_index = release.input_output == releases.BINDINGS
        self._freed: List[Any] = []  # what close() undoes, last first
        self.buffers: Dict[str, cudart.Pinned] = {}
        try:
            self._context = engine.create_execution_context()
            if self._context is None:
                raise self._failure("TensorRT made no execution context")
            self.stream = cuda.stream()
            self._freed.append((cuda.destroy_stream, self.stream))
            self.start, self.end, self.done = (self._event() for _ in range(3))
            for tensor in tensors:
                self.buffers[tensor.name] = buffer = cudart.Pinned(cuda, tensor.shape)
                self._freed.append((lambda each: each.free(), buffer))
                if not self._by_index and not self._context.set_tensor_address(tensor.name, buffer.device):
                    raise self._failure(f"TensorRT took no address for {tensor.name}")
        except Exception:
            self.close()
            raise
        self._freed.append((cuda.wait_for_stream, self.stream))  # work under way uses all that is freed
        self._bindings = [self.buffers[tensor.name].device for tensor in tensors]

    def _failure(self, what: str) -> AgentError:
        """By what TensorRT said, which then counts against nothing later."""
        error = failure(what, self._log.lines)
        del self._log.lines[:]
        return error

    def _event(self) -> int:
        event = self._cuda.event()
        self._freed.append((self._cuda.destroy_event, event))
        return event

    def enqueue(self, image: Any) -> None:
        """Put copy, execution and copies back on the stream; events stand around the execution alone."""
        np.copyto(self.buffers[INPUT].array, image)
        for tensor in self._tensors:
            if tensor.is_input:
                buffer = self.buffers[tensor.name]
                self._cuda.to_device(buffer.device, buffer.host, buffer.size, self.stream)
        self._cuda.record(self.start, self.stream)
        if self._by_index:
            ran = self._context.execute_async_v2(bindings=self._bindings, stream_handle=self.stream)
        else:
            ran = self._context.execute_async_v3(stream_handle=self.stream)
        if not ran:
            raise self._failure("TensorRT did not start the inference")
        self._cuda.record(self.end, self.stream)
        for tensor in self._tensors:
            if not tensor.is_input:
                buffer = self.buffers[tensor.name]
                self._cuda.to_host(buffer.host, buffer.device, buffer.size, self.stream)
        self._cuda.record(self.done, self.stream)

    def wait(self) -> None:
        """Until the results are in the host's buffers."""
        self._cuda.wait_for_event(self.done)

    def execution_ms(self) -> float:
        """The last execution by the device's clock, without copies: the paper's t_inf."""
        return self._cuda.elapsed_ms(self.start, self.end)

    def close(self) -> None:
        """Free everything; what fails meanwhile is raised at the end, unless it would hide the error under way."""
        under_way = sys.exc_info()[0] is not None
        errors: List[AgentError] = []
        while self._freed:
            free, what = self._freed.pop()
            try:
                free(what)
            except AgentError as error:
                errors.append(error)
            self._context = None  # after the stream was waited for, before its memory goes
        self._context = None
        if errors and not under_way:
            raise errors[0]


class TensorRtEngine(Engine):
    """A deserialized engine and one lane; more lanes while throughput is measured.

    ``infer`` by wall clock is what it takes to get an answer; ``execution_ms`` after it is the execution alone.
    """

    def __init__(self, content: bytes) -> None:
        self._trt, self._release = releases.load()
        self._cuda = cudart.load()
        before = self._free_bytes()
        self._log = collector(self._trt)
        self._runtime = start(self._trt, "Runtime", self._log)
        self._engine = deserialize(self._trt, self._runtime, content, self._log)
        self.tensors = tensors_of(self._trt, self._release, self._engine)
        self._lane = self._new_lane()
        self.memory = Memory(
            taken_bytes=before - self._free_bytes(),
            context_bytes=int(getattr(self._engine, self._release.context_memory)),
        )
        self.device_memory_bytes = self.memory.taken_bytes if self.memory.taken_bytes > 0 else None

    def _free_bytes(self) -> int:
        """Of the GPU's memory. A Jetson's is the host's, where CUDA tells what lies idle, without what the kernel gives
        back of cached files (CUDA for Tegra application note, "Estimating Total Allocatable Device Memory").
        """
        available = host.memory_available_bytes() if jetson.is_jetson() else None
        return self._cuda.memory_bytes()[0] if available is None else available

    def _new_lane(self) -> Lane:
        return Lane(self._cuda, self._release, self._engine, self.tensors, self._log)

    def infer(self, image: Any) -> Tuple[Any, Any]:
        self._check(image)
        lane = self._lane
        lane.enqueue(image)
        lane.wait()
        self.execution_ms = lane.execution_ms()
        return lane.buffers[BOXES].array, lane.buffers[SCORES].array

    def throughput(self, image: Any, streams: int, window_s: float, tell: Callable[[float], None]) -> Throughput:
        """Images per second with ``streams`` inferences under way at a time, by wall clock, copies included.

        Raises:
            OutOfMemoryError: so many contexts do not fit.
        """
        self._check(image)
        lanes = [self._lane]
        try:
            while len(lanes) < streams:
                lanes.append(self._new_lane())
            for lane in lanes:  # warm: a context's first inference may allocate
                lane.enqueue(image)
                lane.wait()
            inferences, passed_s, start = 0, 0.0, time.perf_counter()
            while inferences < streams or passed_s < window_s:
                lane = lanes[inferences % streams]
                if inferences >= streams:
                    lane.wait()
                lane.enqueue(image)
                inferences += 1
                passed_s = time.perf_counter() - start
                tell(passed_s)
            for lane in lanes:
                lane.wait()
            wall_s = time.perf_counter() - start
        finally:
            for lane in lanes[1:]:
                lane.close()
        return Throughput(inferences * image.shape[0] / wall_s, streams, inferences, wall_s)

    def _check(self, image: Any) -> None:
        wanted = next(tensor.shape for tensor in self.tensors if tensor.is_input)
        if image.shape != wanted or image.dtype != np.float32:
            raise EngineError(
                f"the engine was built for float32{list(wanted)}, the image is {image.dtype}{list(image.shape)}; "
                "prepare it for this engine, or export the model for that batch"
            )

    def close(self) -> None:
        self._lane.close()
        self._engine = self._runtime = None  # in this order: a context needs its engine, an engine its runtime


def open_engine(content: bytes, options: Mapping[str, str], threads: int) -> TensorRtEngine:
    """A TensorRT engine file's bytes, loaded onto the GPU.

    Args:
        options: what it was built with; nothing of it is set again.
        threads: of the CPU; an engine uses none.
    """
    return TensorRtEngine(content)
