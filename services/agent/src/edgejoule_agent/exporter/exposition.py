"""Readings as Prometheus' text format, version 0.0.4 (prometheus.io, "Exposition formats")."""

from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple, Union

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Distribution(NamedTuple):
    """The value of a histogram: how many fell into each bucket, the last one without a bound; and their sum."""

    counts: Sequence[int]
    sum: float


Value = Union[float, Distribution]
Readings = Dict[str, List[Tuple[Mapping[str, str], Value]]]  # metric -> its samples; one that is absent is not there


def render(table: Mapping[str, Mapping[str, Any]], readings: Readings) -> str:
    """The text of a scrape, in the order of the table.

    Raises:
        KeyError: a metric is not in the table, or has other labels there.

    >>> table = {"up": {"type": "gauge", "help": "Whether.", "labels": ["name"]}}
    >>> print(render(table, {"up": [({"name": 'a "b"'}, 0.5)]}), end="")
    # HELP up Whether.
    # TYPE up gauge
    up{name="a \\"b\\""} 0.5
    """
    unknown = set(readings) - set(table)
    if unknown:
        raise KeyError(f"not in the table of metrics: {', '.join(sorted(unknown))}")
    lines: List[str] = []
    for name, metric in table.items():
        samples = readings.get(name, [])
        if samples:
            lines += [f"# HELP {name} {_escaped(metric['help'])}", f"# TYPE {name} {metric['type']}"]
        for labels, value in samples:
            if set(labels) != set(metric["labels"]):
                raise KeyError(f"{name} has the labels {sorted(labels)}, in the table {sorted(metric['labels'])}")
            ordered = [(label, labels[label]) for label in metric["labels"]]
            if isinstance(value, Distribution):
                lines += _histogram(name, ordered, value, metric["buckets"])
            else:
                lines.append(f"{name}{_labels(ordered)} {number(value)}")
    return "\n".join(lines) + "\n"


def number(value: float) -> str:
    """A value as the format has it: as few digits as tell it from every other.

    >>> number(3.0), number(0.1), number(float("inf"))
    ('3', '0.1', '+Inf')
    """
    if value != value or value in (float("inf"), float("-inf")):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[str(value)]
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _histogram(name: str, labels: List[Tuple[str, str]], value: Distribution, bounds: Sequence[float]) -> Iterator[str]:
    own, below = _labels(labels), 0
    others = own[1:-1] + "," if own else ""  # written once, since most lines of a scrape are a histogram's
    for bound, count in zip([*map(number, bounds), "+Inf"], value.counts):
        below += count
        yield f'{name}_bucket{{{others}le="{bound}"}} {below}'
    yield f"{name}_sum{own} {number(value.sum)}"
    yield f"{name}_count{own} {below}"


def _labels(labels: Sequence[Tuple[str, str]]) -> str:
    if not labels:
        return ""
    return "{" + ",".join('{}="{}"'.format(name, _escaped(value).replace('"', '\\"')) for name, value in labels) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
