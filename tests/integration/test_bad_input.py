"""Bad input ends in one clear sentence, a non-zero exit code, and no traceback."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import bad_input
from started_once import StartedOnce


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    folder = tmp_path_factory.mktemp("template")
    bad_input.make_template(folder)
    return folder


@pytest.fixture(scope="module")
def program():
    with StartedOnce(bad_input.environment()) as program:
        yield program


@pytest.mark.parametrize("case", bad_input.CASES, ids=lambda case: f"{case.group}: {case.title}")
def test_mistake_ends_in_one_sentence(case, program, template, tmp_path):
    result, sentence = bad_input.outcome(case, program, template, tmp_path)
    output = result.stdout + result.stderr
    assert result.returncode not in (0, -9), output
    assert sentence, output
    assert "Traceback" not in output
    assert "fault of its own" not in output
    assert not (tmp_path / "was-run").exists()
    assert f"| {bad_input._cell(sentence)} |" in bad_input.PAGE.read_text(encoding="utf-8"), (
        f"docs/reference/errors.md does not say {sentence!r}; run make docs"
    )


def test_there_are_at_least_forty_kinds():
    assert len({(case.group, case.title) for case in bad_input.CASES}) == len(bad_input.CASES) >= 40
