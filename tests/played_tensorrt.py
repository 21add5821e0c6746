"""The Python module ``tensorrt`` of boards that tests play: the double of the agent's tests. Python 3.6 can read it."""

import json
import pathlib

DOUBLE = pathlib.Path(__file__).resolve().parent / "unit" / "agent" / "tensorrt_double.py"
NAMES = DOUBLE.parents[2] / "fixtures" / "tensorrt_names.json"
RELEASES = {"jp4": "8.2", "jp5": "8.5", "jp6": "10.3"}  # what boards of each JetPack bring


def write(folder, board=None, double=DOUBLE):
    """Make ``folder/tensorrt``, to be imported by processes that have ``folder`` on their path.

    Args:
        board: of ``simulation.trees``, whose TensorRT it plays; the one that TENSORRT_DOUBLE names when None.
        double: where those processes find the double.
    """
    package = pathlib.Path(str(folder)) / "tensorrt"
    package.mkdir(parents=True)
    named = ""
    if board is not None:
        world = {"release": RELEASES[board.rpartition("_")[2]], "fast_int8": not board.startswith("nano")}
        named = f"os.environ['TENSORRT_DOUBLE'] = {json.dumps(world)!r}"
    package.joinpath("__init__.py").write_text(
        f"import importlib.util\nimport os\n\n{named}\n"
        f"_spec = importlib.util.spec_from_file_location('tensorrt_double', {str(double)!r})\n"
        "_double = importlib.util.module_from_spec(_spec)\n"
        "_spec.loader.exec_module(_double)\n"
        "_double.install(globals())\n"
    )
    return package
