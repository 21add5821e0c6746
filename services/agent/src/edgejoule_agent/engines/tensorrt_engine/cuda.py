"""The few functions of the CUDA runtime that running an engine takes, by ctypes: no package beside libcudart.

Signatures and error numbers: CUDA Runtime API reference (docs.nvidia.com/cuda/cuda-runtime-api), sections Error
Handling, Device, Stream, Event and Memory Management. A handle or a device address is a Python int; every status is
checked, and an error names the function and what CUDA says.
"""

import contextlib
import ctypes
import os
from typing import Any, Iterable, List, Tuple

import numpy as np

from edgejoule_agent.errors import EngineError, OutOfMemoryError, UnsupportedError

OUT_OF_MEMORY = 2  # cudaErrorMemoryAllocation
HOST_TO_DEVICE, DEVICE_TO_HOST = 1, 2  # enum cudaMemcpyKind
CAPABILITY_MAJOR, CAPABILITY_MINOR = 75, 76  # enum cudaDeviceAttr

# the sonames of CUDA 13, 12, 11 and 10.2, and where Debian packages and JetPack put the library
LIBRARIES = [
    *("libcudart.so.13", "libcudart.so.12", "libcudart.so.11.0", "libcudart.so.10.2", "libcudart.so"),
    "/usr/local/cuda/lib64/libcudart.so",
]

_int, _size, _float = ctypes.c_int, ctypes.c_size_t, ctypes.c_float
_pointer = ctypes.c_void_p
_out = ctypes.POINTER

SIGNATURES = {
    "cudaMalloc": (_out(_pointer), _size),
    "cudaFree": (_pointer,),
    "cudaMallocHost": (_out(_pointer), _size),
    "cudaFreeHost": (_pointer,),
    "cudaMemcpyAsync": (_pointer, _pointer, _size, _int, _pointer),
    "cudaMemGetInfo": (_out(_size), _out(_size)),
    "cudaStreamCreate": (_out(_pointer),),
    "cudaStreamSynchronize": (_pointer,),
    "cudaStreamDestroy": (_pointer,),
    "cudaEventCreate": (_out(_pointer),),
    "cudaEventRecord": (_pointer, _pointer),
    "cudaEventSynchronize": (_pointer,),
    "cudaEventElapsedTime": (_out(_float), _pointer, _pointer),
    "cudaEventDestroy": (_pointer,),
    "cudaDeviceGetAttribute": (_out(_int), _int, _int),
    "cudaGetLastError": (),
}


class Cuda:
    """The CUDA runtime, on the current device."""

    def __init__(self, library: Any) -> None:
        self._library = library
        library.cudaGetErrorString.argtypes, library.cudaGetErrorString.restype = (_int,), ctypes.c_char_p
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _int

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status == 0:
            return
        self._library.cudaGetLastError()  # CUDA keeps it, and the next to ask would take it for its own
        told = self._library.cudaGetErrorString(status).decode("utf-8", "replace")
        if status == OUT_OF_MEMORY:
            raise OutOfMemoryError(f"{name}: {told} (CUDA error {status}); close other engines or free memory")
        raise EngineError(f"{name}: {told} (CUDA error {status})")

    def _made(self, name: str, *arguments: Any) -> int:
        """What a function writes through its first argument: an address or a handle."""
        made = _pointer()
        self._call(name, ctypes.byref(made), *arguments)
        return int(made.value or 0)

    def malloc(self, size: int) -> int:
        """Device memory of ``size`` bytes."""
        return self._made("cudaMalloc", size)

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def malloc_host(self, size: int) -> int:
        """Page-locked (pinned) host memory of ``size`` bytes: the only kind that copies without a stop-over."""
        return self._made("cudaMallocHost", size)

    def free_host(self, address: int) -> None:
        self._call("cudaFreeHost", address)

    def to_device(self, device: int, host: int, size: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", device, host, size, HOST_TO_DEVICE, stream)

    def to_host(self, host: int, device: int, size: int, stream: int) -> None:
        self._call("cudaMemcpyAsync", host, device, size, DEVICE_TO_HOST, stream)

    def memory_bytes(self) -> Tuple[int, int]:
        """Free and total memory of the device; on a Jetson the host's own."""
        free, total = _size(), _size()
        self._call("cudaMemGetInfo", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def stream(self) -> int:
        return self._made("cudaStreamCreate")

    def wait_for_stream(self, stream: int) -> None:
        self._call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: int) -> None:
        self._call("cudaStreamDestroy", stream)

    def event(self) -> int:
        return self._made("cudaEventCreate")

    def record(self, event: int, stream: int) -> None:
        self._call("cudaEventRecord", event, stream)

    def wait_for_event(self, event: int) -> None:
        self._call("cudaEventSynchronize", event)

    def elapsed_ms(self, start: int, end: int) -> float:
        """Time between two recorded events, ms, with a resolution of about 0.5 us."""
        found = _float()
        self._call("cudaEventElapsedTime", ctypes.byref(found), start, end)
        return float(found.value)

    def destroy_event(self, event: int) -> None:
        self._call("cudaEventDestroy", event)

    def compute_capability(self, device: int = 0) -> Tuple[int, int]:
        """The GPU's SM version, such as (8, 7)."""
        found: List[int] = []
        for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR):
            value = _int()
            self._call("cudaDeviceGetAttribute", ctypes.byref(value), attribute, device)
            found.append(value.value)
        return found[0], found[1]


class Pinned:
    """A page-locked array, and as much memory on the device."""

    def __init__(self, cuda: Cuda, shape: Iterable[int]) -> None:
        self._cuda = cuda
        shape = tuple(shape)
        self.size = 4 * int(np.prod(shape, dtype=np.int64))  # float32
        self.device = cuda.malloc(self.size)
        try:
            self.host = cuda.malloc_host(self.size)
        except OutOfMemoryError:
            cuda.free(self.device)
            raise
        memory: Any = (ctypes.c_ubyte * self.size).from_address(self.host)
        self.array = np.frombuffer(memory, dtype=np.float32).reshape(shape)

    def free(self) -> None:
        try:
            self._cuda.free(self.device)
        finally:
            self._cuda.free_host(self.host)


def load() -> Cuda:
    """The CUDA runtime library of this host.

    Raises:
        UnsupportedError: there is none.
    """
    for name in LIBRARIES:
        with contextlib.suppress(OSError):
            return Cuda(ctypes.CDLL(name))
    places = os.environ.get("LD_LIBRARY_PATH") or "not set"
    raise UnsupportedError(
        f"no CUDA runtime library here (tried {', '.join(LIBRARIES)}; LD_LIBRARY_PATH is {places}); "
        "in a container, start it with --runtime nvidia"
    )
