"""The processor, as /proc/cpuinfo tells of it."""

import os
from typing import Dict, List

# flags that change which kernels a runtime picks
FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2"),
)


def name(root: str = "/") -> str:
    """The model, with family and stepping where the name alone is vague (virtual machines mask it)."""
    cpu = _info(root)
    numbers = [cpu[key] for key in ("cpu family", "model", "stepping") if key in cpu]
    model = cpu.get("model name") or "CPU part " + cpu.get("CPU part", "unknown")
    return f"{model} ({'/'.join(numbers)})" if numbers else model


def features(root: str = "/") -> List[str]:
    """Those of FEATURES that it has, in their order."""
    cpu = _info(root)
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return [feature for feature in FEATURES if feature in flags]


def _info(root: str) -> Dict[str, str]:
    """The first processor's fields; empty where the file cannot be read."""
    try:
        with open(os.path.join(root, "proc/cpuinfo"), encoding="utf-8", errors="replace") as file:
            lines = file.read().strip().split("\n\n")[0].split("\n")
    except OSError:
        return {}
    pairs: List[List[str]] = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}
