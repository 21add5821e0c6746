"""Reference pages made from code: ``python -m edgejoule.reference`` writes them, ``--check`` compares.

``docs/reference/cli.md`` from the command's own options, ``docs/reference/spec.md`` from the spec's models,
``docs/reference/metrics.md`` and the agent's table of metrics from ours.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
import typer.main
from pydantic import BaseModel

from edgejoule.cli import make_app
from edgejoule.generated import bring_up_to_date
from edgejoule.metrics import METRICS, Metric, agents_table
from edgejoule.protocols import PRESETS, Protocol
from edgejoule.spec import Spec

CLI = Path("docs/reference/cli.md")
SPEC = Path("docs/reference/spec.md")
METRICS_PAGE = Path("docs/reference/metrics.md")
AGENTS_METRICS = Path("services/agent/src/edgejoule_agent/metrics.json")

_MADE = "<!-- made by python -m edgejoule.reference; change the code, not this page -->\n"

_CLI_HEAD = """# The command line

Results go to standard output, progress and errors to standard error. Exit codes: 0 all well (an `unsupported`
row is an answer, not an error), 1 an error or a failed row, 2 wrong usage, 130 stopped by ^C; of `recommend` and
`compare` also 3 (the answer is no) and 4 (it cannot be told). The store is the folder or bucket that `--store` or the
environment variable `EDGEJOULE_STORE` names, else `.store` beside the output folder.
"""

_SPEC_HEAD = """# The spec

A YAML file that says what you want: models x precisions x devices, on these data, by this protocol. An unknown
key is an error that names the nearest known one; every problem is told with file and line before anything runs.

A relative path is relative to the spec file. In a path, `${NAME}` is the environment variable's value and
`${NAME:-default}` has a default; inside `{ }` put such a path in quotes. `--set KEY=VALUE` on the command line
overrides a value, e.g. `--set protocol.iterations=100` or `--set models.0.input=416`; the value is read as YAML.

[`examples/demo.yaml`](../../examples/demo.yaml) runs on generated data,
[`examples/coco-nanodet.yaml`](../../examples/coco-nanodet.yaml) on your copy of COCO.

A set without `count` takes what is left of its source after those with one were drawn; `calibration` takes the
protocol's `calibration_images`, and `tuning` 64. No image is in two sets, neither by id nor by content.
Calibration finds the ranges of INT8, tuning chooses the calibrator, and only evaluation is scored.
"""

_PROTOCOL_HEAD = """## Protocol

`protocol: NAME`, or `protocol: {preset: NAME, key: value, ...}` to change some values; the protocol's name then
carries a `*`, so that rows of one name were measured alike. `paper` is Table 5 and section 3.3 of the paper,
`standard` ours, `quick` for a look: its rows say that they are not comparable.
"""


def cli_page() -> str:
    """Every command with its arguments and options."""
    parts = [_MADE, _CLI_HEAD]
    parts += [_command(name, command) for name, command in _commands("edgejoule", typer.main.get_command(_app()))]
    return "\n".join(parts)


def _app() -> typer.Typer:
    return make_app(lambda name: True)


def _commands(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    if children := getattr(command, "commands", None):
        for name, child in children.items():
            yield from _commands(f"{path} {name}", child)
    else:
        yield path, command


def _command(path: str, command: Any) -> str:
    parameters = [parameter for parameter in command.params if parameter.name != "help"]
    arguments = [_argument(parameter) for parameter in parameters if not _is_option(parameter)]
    lines = [
        f"## {path}",
        "",
        f"    {' '.join([path, *arguments, '[OPTIONS]' * any(map(_is_option, parameters))])}",
        "",
    ]
    lines += [inspect.cleandoc(command.help or ""), ""]
    for parameter in parameters:
        names = ", ".join(f"`{name}`" for name in (*parameter.opts, *parameter.secondary_opts))
        name = names if _is_option(parameter) else f"`{_argument(parameter)}`"
        lines.append(f"- {name}: {parameter.help or ''}{_default(parameter)}")
    return "\n".join([*lines, ""])


def _argument(parameter: Any) -> str:
    return str(parameter.metavar or (parameter.name.upper() if parameter.required else f"[{parameter.name.upper()}]"))


def _is_option(parameter: Any) -> bool:
    return bool(parameter.param_type_name == "option")


def _default(parameter: Any) -> str:
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    variable = f" Environment: `{parameter.envvar}`." if parameter.envvar else ""
    is_said = isinstance(shown, str | int | float) and not isinstance(shown, bool) and _is_option(parameter)
    return f" Default: {shown}.{variable}" if is_said else variable


def spec_page() -> str:
    """Every key of every section."""
    parts = [_MADE, _SPEC_HEAD]
    parts += [_section(title, model) for title, model in _sections("", Spec)]
    parts += [_PROTOCOL_HEAD, _presets()]
    return "\n".join(parts)


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path or "the whole", model
    for name, field in model.model_fields.items():
        for inner in _models_in(field.annotation):
            if inner is not Protocol:
                yield from _sections(f"{path}.{name}".lstrip("."), inner)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models_in(part)


def _section(title: str, model: type[BaseModel]) -> str:
    lines = [
        f"## {title[0].upper()}{title[1:]}" if " " in title else f"## `{title}`",
        "",
        inspect.getdoc(model) or "",
        "",
    ]
    lines += ["| key | values | default | |", "| --- | --- | --- | --- |"]
    schema = model.model_json_schema(mode="validation")
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _code(field.get_default(call_default_factory=True))
        lines.append(
            f"| `{name}` | {_values(schema['properties'][name], schema)} | {default} | {field.description or ''} |"
        )
    return "\n".join([*lines, ""])


def _code(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, Protocol):
        return f"`{value.name}`"
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, list):
        value = [each.model_dump() if isinstance(each, BaseModel) else each for each in value]
    return f"`{value}`".lower() if isinstance(value, bool) else f"`{value}`".replace("'", "")


def _values(schema: Any, whole: Any) -> str:
    """A field's type in words."""
    if "$ref" in schema:
        return _values(whole["$defs"][schema["$ref"].rsplit("/", 1)[1]], whole)
    if options := [option for option in schema.get("anyOf", ()) if option.get("type") != "null"]:
        return _values(options[0], whole)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    match schema.get("type"):
        case "array":
            items = schema.get("items") or {}
            return f"list of: {_values(items, whole)}" if items else "list of numbers"
        case "object":
            return "mapping"
        case "integer":
            return "whole number" + _bounds(schema)
        case "number":
            return "number" + _bounds(schema)
        case "boolean":
            return "`true`, `false`"
        case _:
            return "path" if "path" in schema.get("format", "") else "text"


def _bounds(schema: Any) -> str:
    words = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    said = [f"{word} {schema[name]}" for name, word in words.items() if name in schema]
    said += [f"a multiple of {schema['multipleOf']}"] if "multipleOf" in schema else []
    return f", {', '.join(said)}" if said else ""


def _presets() -> str:
    lines = [f"| key | {' | '.join(f'`{name}`' for name in PRESETS)} | |", f"| --- |{' --- |' * len(PRESETS)} --- |"]
    for name, field in Protocol.model_fields.items():
        values = " | ".join(_preset_value(getattr(preset, name)) for preset in PRESETS.values())
        if name != "name":
            lines.append(f"| `{name}` | {values} | {field.description or ''} |")
    return "\n".join([*lines, ""])


def _preset_value(value: Any) -> str:
    """As YAML has it."""
    return str(list(value)) if isinstance(value, tuple) else str(value).lower()


_METRICS_HEAD = """# Metrics

What the processes of Edgejoule show to Prometheus at `/metrics`, where [`EDGEJOULE_METRICS`](settings.md) says so.
Energy is a counter of joules beside a counter of the seconds that were observed; over any window their quotient is the
mean power, `rate(edgejoule_board_energy_joules_total[1m]) / rate(edgejoule_board_energy_observed_seconds_total[1m])`.
A value that could not be read is absent, never 0. A device's metrics get the label `device` from the gateway's list of
devices when they are scraped; no label tells of a run, a step or an image.

The live view is a view: results come from records, never from here.
"""


def metrics_page() -> str:
    """Every metric of the table, by who shows it."""
    parts = [_MADE, _METRICS_HEAD]
    for title, exporter in _EXPORTERS:
        parts.append(f"## {title}\n\n| metric | type | unit | labels | |\n| --- | --- | --- | --- | --- |")
        parts[-1] += "".join(f"\n{_metric(metric)}" for metric in METRICS if exporter in metric.exporters) + "\n"
    return "\n".join(parts)


_EXPORTERS = (
    ("A device: edgejoule-agent", "agent"),
    ("The conductor", "conductor"),
    ("A worker", "worker"),
    ("The gateway", "gateway"),
)


def _metric(metric: Metric) -> str:
    labels = "; ".join(f"`{name}`: {values}" for name, values in metric.labels.items())
    bounds = f" Buckets up to {', '.join(f'{bound:g}' for bound in metric.buckets)}." if metric.buckets else ""
    return f"| `{metric.name}` | {metric.kind} | {metric.unit} | {labels} | {metric.help}{bounds} |"


def files() -> Iterator[tuple[Path, str]]:
    """Every page, relative to the repository, with its text."""
    yield CLI, cli_page()
    yield SPEC, spec_page()
    yield METRICS_PAGE, metrics_page()
    yield AGENTS_METRICS, agents_table()


if __name__ == "__main__":
    sys.exit(bring_up_to_date(files(), sys.argv[1:]))
