"""Heavy imports, made when needed; their absence is a message that names the extra to install."""

import importlib
from typing import Any

from edgejoule_agent.errors import UnsupportedError


def require(module: str, extra: str) -> Any:
    """Import ``module``, which comes with the agent's extra ``extra``.

    Raises:
        UnsupportedError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UnsupportedError(
            f"{module} is not installed ({error}); install it with: pip install 'edgejoule-agent[{extra}]'"
        ) from error
