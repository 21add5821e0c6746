import ctypes
import glob
import os
import re

import numpy as np
import pytest

from edgejoule_agent.engines.tensorrt_engine import cuda
from edgejoule_agent.errors import EngineError, OutOfMemoryError, UnsupportedError


@pytest.fixture
def runtime(cudart, monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARIES", ["libcudart-that-is-not-here.so", str(cudart)])
    return cuda.load()


@pytest.fixture
def alive(cudart):
    """How many allocations, streams and events there are in the stand-in."""
    return ctypes.CDLL(str(cudart)).stand_in_alive


def test_a_pinned_array_goes_to_the_device_and_back_whole(runtime, alive):
    before = alive()
    first, second = cuda.Pinned(runtime, (3, 5)), cuda.Pinned(runtime, (3, 5))
    stream = runtime.stream()
    first.array[:] = np.arange(15, dtype=np.float32).reshape(3, 5)
    runtime.to_device(first.device, first.host, first.size, stream)
    runtime.to_host(second.host, first.device, second.size, stream)
    runtime.wait_for_stream(stream)
    assert first.size == 60
    assert first.device > 2**32  # a pointer that an int of 32 bits would have cut off
    assert np.array_equal(first.array, second.array)
    runtime.destroy_stream(stream)
    first.free()
    second.free()
    assert alive() == before


def test_a_copy_over_the_end_of_a_buffer_is_an_error_that_names_the_function(runtime):
    buffer, stream = cuda.Pinned(runtime, (4,)), runtime.stream()
    with pytest.raises(EngineError, match=r"^cudaMemcpyAsync: invalid argument \(CUDA error 1\)$"):
        runtime.to_device(buffer.device, buffer.host, buffer.size + 1, stream)
    buffer.free()
    with pytest.raises(EngineError, match="cudaFree: invalid argument"):
        runtime.free(buffer.device)
    runtime.destroy_stream(stream)
    with pytest.raises(EngineError, match="cudaStreamSynchronize: invalid resource handle"):
        runtime.wait_for_stream(stream)


def test_memory_of_more_than_4_gib_is_asked_for_as_such_and_refused_as_out_of_memory(runtime):
    free, total = runtime.memory_bytes()
    assert 0 < free <= total == 2**30
    for size in (2**32 + 8, 2**31):  # as 32 bits these would be 8, or negative
        with pytest.raises(OutOfMemoryError, match="cudaMalloc: out of memory"):
            runtime.malloc(size)


def test_an_error_that_was_raised_is_not_left_for_others_to_find(runtime, cudart):
    library = ctypes.CDLL(str(cudart))
    assert library.cudaPeekAtLastError() == 0
    with pytest.raises(OutOfMemoryError):
        runtime.malloc(2**32)
    assert library.cudaPeekAtLastError() == 0
    assert library.cudaMalloc(None, ctypes.c_size_t(1)) == library.cudaGetLastError() == 1  # the stand-in keeps one


def test_a_pinned_array_that_does_not_fit_leaves_nothing_behind(runtime, alive, monkeypatch):
    before = alive()
    with pytest.raises(OutOfMemoryError):
        cuda.Pinned(runtime, (2**29,))

    def refuse(size):
        raise OutOfMemoryError("cudaMallocHost: out of memory")

    monkeypatch.setattr(runtime, "malloc_host", refuse)
    with pytest.raises(OutOfMemoryError):
        cuda.Pinned(runtime, (4,))
    assert alive() == before


def test_events_measure_the_time_between_them(runtime):
    stream, start, end = runtime.stream(), runtime.event(), runtime.event()
    with pytest.raises(EngineError, match="cudaEventElapsedTime: invalid resource handle"):
        runtime.elapsed_ms(start, end)
    runtime.record(start, stream)
    sum(range(100_000))
    runtime.record(end, stream)
    runtime.wait_for_event(end)
    assert 0.1 < runtime.elapsed_ms(start, end) < 1000
    for event in (start, end):
        runtime.destroy_event(event)
    runtime.destroy_stream(stream)


def test_compute_capability_is_the_gpus(runtime, monkeypatch):
    assert runtime.compute_capability() == (5, 3)
    with pytest.raises(EngineError, match=r"cudaDeviceGetAttribute: .* \(CUDA error 101\)"):
        runtime.compute_capability(device=7)


def test_no_cuda_library_says_what_was_tried(monkeypatch):
    monkeypatch.setattr(cuda, "LIBRARIES", ["libcudart-that-is-not-here.so"])
    with pytest.raises(UnsupportedError, match=r"libcudart-that-is-not-here\.so.*--runtime nvidia"):
        cuda.load()


def test_nvidias_own_library_has_every_function_that_is_used():
    """Where it is installed; it needs no GPU to be loaded, and says that there is none."""
    if not any(os.path.exists(path) for path in (cuda.LIBRARIES[-1], *glob.glob("/usr/local/cuda*/lib*/libcudart.so"))):
        pytest.skip("CUDA is not installed here")
    runtime = cuda.load()
    try:
        assert runtime.compute_capability() >= (5, 0)
    except EngineError as error:
        assert re.match(r"cudaDeviceGetAttribute: .*(driver|device).* \(CUDA error \d+\)", str(error))  # noqa: PT017
