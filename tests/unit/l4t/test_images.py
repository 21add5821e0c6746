"""The table of images: every release has the one that fits its drivers and its Python, or a sentence."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

from context import AGENT, HERE, agent_wheel, context_of
from edgejoule_agent import l4t
from images import IMAGES, NoImage, image_for
from plan import STATE


@pytest.mark.parametrize("release", l4t.RELEASES, ids=lambda release: release.l4t)
def test_release_has_an_image_of_its_drivers_and_python_or_is_refused(release: l4t.Release) -> None:
    if release.l4t.startswith(("38", "39")):
        with pytest.raises(NoImage, match=f"L4T {release.l4t} .* has no image here"):
            image_for(release.l4t)
        return
    image = image_for(release.l4t)
    assert l4t.compatible(image.made_for, release.l4t)
    assert l4t.numbers(image.made_for) <= l4t.numbers(release.l4t), "an image must not be newer than its host"
    assert image.python == release.python


@pytest.mark.parametrize(
    ("version", "name"), [("32.7.6", "r32.7"), ("35.6.4", "r35"), ("36.3.0", "r36.2"), ("36.4.0", "r36.4")]
)
def test_image_is_of_the_releases_island(version: str, name: str) -> None:
    assert image_for(version).name == name


@pytest.mark.parametrize(
    ("version", "sentence"),
    [
        ("32.6.1", "is unknown and has no image.*bring the board to JetPack 4.6.1"),
        ("36.9.9", "looks like one for the image r36.4, but is in no table"),
        ("34.1.1", "is unknown and has no image"),
        ("x", "is no L4T version"),
    ],
)
def test_release_without_image_is_told_in_one_sentence(version: str, sentence: str) -> None:
    with pytest.raises(NoImage, match=sentence) as error:
        image_for(version)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_image_has_what_it_is_built_from(image) -> None:  # type: ignore[no-untyped-def]
    dockerfile = (HERE / image.folder / "Dockerfile").read_text()
    requirements = (HERE / image.folder / "requirements.txt").read_text()
    pins = [line for line in requirements.splitlines() if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[\d.]+", line) for line in pins)
    project = (AGENT / "pyproject.toml").read_text()
    declared = re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S)
    extra = re.search(r"^onnxruntime = \[(.*)\]$", project, re.M)
    assert declared
    assert extra, "without it no graph can be read, so no engine be built"
    names = set(re.findall(r'"([a-z0-9-]+)[<>=]', declared.group(1) + extra.group(1)))
    whole = {"flatbuffers", "protobuf", "typing-extensions"} if "--no-deps $index" in dockerfile else set()
    assert {line.partition("==")[0] for line in pins} == names | whole
    assert "USER 10001:10001" in dockerfile
    assert f"VOLUME {STATE}\n" in dockerfile
    assert f" CUDA_CACHE_PATH={STATE}/" in dockerfile, "CUDA's cache would lie in /tmp, which is in memory and lost"
    assert 'ENTRYPOINT ["edgejoule-agent"]' in dockerfile
    assert "--mount" not in re.sub(r"(?m)^#.*", "", dockerfile), "the builder of JetPack 4's Docker knows none"


def test_context_is_the_same_to_the_byte_and_says_what_it_is() -> None:
    image = image_for("36.3.0")
    made = context_of(image, image.base)
    assert made == context_of(image, image.base)
    assert made.sha256 != context_of(image, "another:base").sha256
    with tarfile.open(fileobj=BytesIO(made.archive)) as archive:
        names = archive.getnames()
        file = archive.extractfile("Dockerfile")
        assert file
        dockerfile = file.read().decode()
    assert sorted(names) == ["Dockerfile", agent_wheel(AGENT)[0], "requirements.txt"]
    assert f"\nARG BASE_IMAGE={image.base}\n" in dockerfile
    assert f'edgejoule.context="{made.sha256}" edgejoule.l4t="36.2.0"' in dockerfile


def test_wheel_is_one_for_pip_and_holds_the_agent(tmp_path: Path) -> None:
    name, data = agent_wheel(AGENT)
    (tmp_path / name).write_bytes(data)
    pip = [sys.executable, "-m", "pip", "--isolated", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(tmp_path / "site"), str(tmp_path / name)], check=True)
    source = AGENT / "src"
    modules = {path.relative_to(source).as_posix() for path in source.rglob("*.py")}
    with zipfile.ZipFile(BytesIO(data)) as wheel:
        assert modules <= set(wheel.namelist())
        assert not [item for item in wheel.namelist() if "__pycache__" in item or "egg-info" in item]
    assert (tmp_path / "site" / "bin" / "edgejoule-agent").exists()
    code = "import importlib.metadata as m, edgejoule_agent.l4t as l; print(m.version('edgejoule-agent'), l.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.startswith(f"{name.split('-')[1]} {tmp_path / 'site'}")
