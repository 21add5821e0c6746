"""The records as JSON Schema files: ``python -m edgejoule.schemas`` writes them, ``--check`` compares.

Under ``docs/reference/schemas`` for people, and in the agent, which imports nothing of ours, those that it
reads or writes.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from edgejoule.boards import DeviceMessages
from edgejoule.decisions import Recommendation, RunComparison
from edgejoule.generated import bring_up_to_date
from edgejoule.records import BenchmarkRecord, EngineRecord, ModelManifest, PredictRecord, Results, ScoreRecord
from edgejoule.spec import Spec

DOCS = Path("docs/reference/schemas")
AGENT = Path("services/agent/src/edgejoule_agent/schemas")

SCHEMAS: dict[str, type[BaseModel]] = {
    "benchmark_record": BenchmarkRecord,
    "device_messages": DeviceMessages,
    "engine_record": EngineRecord,
    "model_manifest": ModelManifest,
    "predict_record": PredictRecord,
    "recommendation": Recommendation,
    "results": Results,
    "run_comparison": RunComparison,
    "score_record": ScoreRecord,
    "spec": Spec,
}
AGENT_NEEDS = ("benchmark_record", "device_messages", "engine_record", "model_manifest")


def schema_of(name: str) -> str:
    """The JSON Schema (draft 2020-12) of one record."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        # A spec is checked as it is written, a record as it is read: with every field there.
        **SCHEMAS[name].model_json_schema(mode="validation" if name == "spec" else "serialization"),
    }
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def files() -> Iterator[tuple[Path, str]]:
    """Every file, relative to the repository, with its text."""
    for name in SCHEMAS:
        yield DOCS / f"{name}.json", schema_of(name)
    for name in AGENT_NEEDS:
        yield AGENT / f"{name}.json", schema_of(name)


if __name__ == "__main__":
    sys.exit(bring_up_to_date(files(), sys.argv[1:]))
