"""The walls between the packages, as the architecture draws them, read from the source of every module."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

MAY_IMPORT = {
    "edgejoule": set(),
    "edgejoule_agent": set(),
    "edgejoule_trainer": {"edgejoule", "edgejoule_agent"},
    "edgejoule_evaluator": {"edgejoule", "edgejoule_agent"},
    "edgejoule_gateway": {"edgejoule"},
    "edgejoule_analyst": {"edgejoule"},
}
"""Package to those of ours that it may import."""

TRAINS = {"torch", "torchvision"}
INFERS = {"onnx", "onnxruntime", "onnxslim", "openvino", "tensorrt"}
MUST_NOT_IMPORT = {
    "edgejoule": TRAINS | INFERS | {"cv2", "matplotlib"},
    "edgejoule_agent": TRAINS | {"pydantic", "typer", "rich", "yaml"},
    "edgejoule_trainer": set(),
    "edgejoule_evaluator": TRAINS,
    "edgejoule_gateway": TRAINS | INFERS,
    "edgejoule_analyst": TRAINS | INFERS,
}
"""Package to what it must do without, even inside a function."""

HEAVY = ("torch", "onnx", "onnxruntime", "openvino", "tensorrt", "matplotlib", "celery", "kombu", "redis", "boto3")
"""What may be imported only once there is work for it."""

COMES_ALONG = {"tensorrt", "pkg_resources", "pydantic_core"}
"""Of a board's system, of Python 3.6 itself, of pydantic: no pyproject.toml need ask for them."""

PACKAGES = sorted(path.name for path in ROOT.glob("services/*/src/*") if (path / "__init__.py").is_file())


def imported_by(path: Path) -> Iterator[str]:
    """Top-level names of the modules that the file imports anywhere, lazily too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.partition(".")[0]
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("importlib.import_module", "require"):
            yield from (a.value.partition(".")[0] for a in node.args[:1] if _is_text(a))


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def imports_of(package: str) -> dict[str, set[Path]]:
    """Top-level name to the files of the package that import it."""
    found: dict[str, set[Path]] = {}
    (folder,) = ROOT.glob(f"services/*/src/{package}")
    for path in sorted(folder.rglob("*.py")):
        for name in imported_by(path):
            found.setdefault(name, set()).add(path.relative_to(ROOT))
    return found


def declared_by(package: str) -> set[str]:
    """Distributions that the package's pyproject.toml names, extras included, in normal form."""
    (folder,) = ROOT.glob(f"services/*/src/{package}")
    text = (folder.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    project = text[: text.index("[tool.")]
    return {normal(name) for name in re.findall(r'"([A-Za-z][\w.-]*)(?:\[[^\]]*\])?[<>=~!]=', project)}


def normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def test_packages_every_one_has_its_walls() -> None:
    assert PACKAGES
    assert set(PACKAGES) <= set(MAY_IMPORT)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_stay_within_the_walls(package: str) -> None:
    ours = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    trespasses = {name: files for name, files in imports_of(package).items() if name in ours | MUST_NOT_IMPORT[package]}
    assert not trespasses


@pytest.mark.parametrize("package", PACKAGES)
def test_third_party_imports_are_declared_in_the_packages_own_pyproject(package: str) -> None:
    known = set(sys.stdlib_module_names) | set(MAY_IMPORT) | COMES_ALONG
    distributions = packages_distributions()
    undeclared = {
        name: files
        for name, files in imports_of(package).items()
        if name not in known and not {normal(d) for d in distributions.get(name, [name])} & declared_by(package)
    }
    assert not undeclared


def modules_read_before_work() -> list[str]:
    """The command line, and every step module: the plan imports them to read their versions."""
    steps = re.compile(r'^[\w-]+ = "(edgejoule_\w+\.steps\.\w+)"$', re.MULTILINE)
    announced = [name for path in ROOT.glob("services/*/pyproject.toml") for name in steps.findall(path.read_text())]
    return ["edgejoule.cli", *sorted(announced)]


@pytest.mark.parametrize("module", modules_read_before_work())
def test_import_leaves_heavy_packages_alone(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps([n for n in {HEAVY} if n in sys.modules]))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == []
