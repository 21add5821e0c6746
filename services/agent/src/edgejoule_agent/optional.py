"""Heavy imports, made when needed; their absence is a message that names the extra to install."""

import importlib
from typing import Any

from edgejoule_agent.errors import UnsupportedError

# what older releases (onnx 1.11 on Python 3.6) do not import by themselves
SUBMODULES = {"onnx": ("checker", "helper", "numpy_helper", "shape_inference")}


def require(module: str, extra: str) -> Any:
    """Import ``module``, which comes with the agent's extra ``extra``.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        for part in SUBMODULES.get(module, ()):
            importlib.import_module(f"{module}.{part}")
        return importlib.import_module(module)
    except ImportError as error:
        raise UnsupportedError(
            f"{module} is not installed ({error}); install it with: pip install 'edgejoule-agent[{extra}]'"
        ) from error
