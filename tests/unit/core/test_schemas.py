"""Files made from code are current, and the schemas accept what they describe."""

import json
import subprocess
import sys

import jsonschema
import pytest
import yaml
from pydantic import ValidationError

from edgejoule import generated, reference, schemas
from edgejoule.records import Latency, Measured


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_schema_is_itself_valid(name):
    jsonschema.Draft202012Validator.check_schema(json.loads(schemas.schema_of(name)))


@pytest.mark.parametrize("files", [schemas.files, reference.files], ids=["schemas", "pages"])
def test_generated_files_are_current(files):
    assert generated.stale(files()) == []


def test_results_schema_describes_every_field_as_there():
    schema = json.loads(schemas.schema_of("results"))
    assert set(schema["$defs"]["Latency"]["required"]) == set(Latency.model_fields)
    row = schema["$defs"]["Row"]
    # empty where there is nothing to say; 1 in results of before there was a choice
    assert set(row["properties"]) - set(row["required"]) == {"absent", "flags", "batch"}


class Young(Measured):
    """A record with a field that those of before do not have."""

    old: float | None
    young: float | None = None


def test_record_of_before_a_field_was_there_says_that_it_does_not_tell_it():
    read = Young.model_validate({"old": None, "absent": {"old": "no sensor"}})
    assert read.absent == {"old": "no sensor", "young": "the version that wrote this did not tell"}
    assert Young.model_validate_json(read.model_dump_json()) == read
    assert Young(old=1.0, young=2.0).absent == {}
    with pytest.raises(ValidationError, match="no reason in absent for young"):
        Young(old=1.0, young=None)
    with pytest.raises(ValidationError, match="absent"):
        Young.model_validate({"old": 1.0, "absent": 7})


def test_spec_schema_accepts_the_examples():
    schema = json.loads(schemas.schema_of("spec"))
    for path in sorted((generated.REPOSITORY / "examples").glob("*.yaml")):
        jsonschema.validate(yaml.safe_load(path.read_text()), schema)


def test_check_names_what_is_not_current(tmp_path, monkeypatch):
    (tmp_path / "old.md").write_text("before")
    monkeypatch.setattr(generated, "REPOSITORY", tmp_path)
    made = [(generated.Path("old.md"), "after"), (generated.Path("new/page.md"), "text")]
    assert generated.stale(made, tmp_path) == [path for path, _ in made]


def test_check_option_exits_with_0_when_current():
    done = subprocess.run([sys.executable, "-m", "edgejoule.schemas", "--check"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
