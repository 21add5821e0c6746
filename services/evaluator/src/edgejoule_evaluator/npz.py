"""Reading of ``.npz`` files, as ``edgejoule_agent.npz`` writes them."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgejoule.errors import DataError

Array = npt.NDArray[Any]


def read_npz(path: Path, dtypes: Mapping[str, npt.DTypeLike], what: str) -> dict[str, Array]:
    """Read exactly the arrays named in ``dtypes``; ``what`` names the file's kind in errors.

    Raises:
        DataError: not an npz, an array is missing, or one has another type than the format says.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, not an archive of arrays")
            if missing := sorted(set(dtypes) - set(file.files)):
                raise ValueError(f"it lacks the array {missing[0]!r}")
            arrays = {name: file[name] for name in dtypes}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:  # zipfile raises them all
        raise DataError(f"{path.name} is not a {what} file: {error}. Run the step that made it again.") from error
    for name, dtype in dtypes.items():
        if arrays[name].dtype != np.dtype(dtype):
            raise DataError(
                f"{path.name}: array {name!r} is {arrays[name].dtype}, but in a {what} file it is {np.dtype(dtype)}. "
                "Run the step that made it again."
            )
    return arrays
