"""Recommendations and comparisons as a table and a few sentences for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgejoule.decisions import Change, Figure, Recommendation, RunComparison, Weighting
from edgejoule_analyst.figures import METRICS
from edgejoule_analyst.regression import PAIRED
from edgejoule_analyst.words import level, signed_points

WIDTH = 100
NAME_WIDTH = 21  # of the longest detector's name and its slash; longer names are folded
STYLES = {
    "deployable": "green",
    "review": "yellow",
    "blocked": "red",
    "worse": "red",
    "better": "green",
    "not judged": "yellow",
}
COLUMNS = ("ap50", "latency", "energy", "memory", "size")
UNKNOWN = "–"
ALWAYS = ("ap50", "latency", "energy")
"""Metrics whose changes are shown even where nothing changed."""


def show(table: Table, words: Sequence[Text]) -> None:
    """Both, to standard output."""
    console = Console()
    console.width = max(console.width, WIDTH)
    console.print(table)
    for line in words:
        console.print(line)


def _table(title: str, first: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, show_edge=False, title_justify="left", title_style="")
    table.collapse_padding = True
    table.add_column(first, overflow="fold", min_width=NAME_WIDTH)
    return table


def _in_lines(name: str) -> str:
    """A row's name broken where its parts end, so that a narrow column breaks it nowhere else.

    >>> _in_lines("yolov5s/int8-ptq/nano").splitlines()
    ['yolov5s/int8-ptq/', 'nano']
    >>> _in_lines("ssdlite_mobilenet_v3/int8-ptq/nano").splitlines()
    ['ssdlite_mobilenet_v3/', 'int8-ptq/nano']
    """
    model, _, rest = name.partition("/")
    front, slash, device = name.rpartition("/")
    if len(front) < NAME_WIDTH:
        return f"{front}{slash}\n{device}" if slash else name
    return f"{model}/\n{rest}"


def _short(metric: str) -> str:
    """A metric's title, or its name on the command line where that is shorter.

    >>> _short("ap50"), _short("energy")
    ('AP50', 'energy')
    """
    return min(METRICS[metric].title, metric, key=len)


# --- recommend -----------------------------------------------------------------------------------


def recommendation_table(answer: Recommendation) -> Table:
    """Every cell with its verdict and figures, each with a bound on either side where it has an error."""
    limits = ", ".join(
        f"{METRICS[limit.metric].title} {limit.side} {METRICS[limit.metric].show(limit.bound)}"
        for limit in answer.limits
    )
    asked = list(dict.fromkeys([answer.objective, *(limit.metric for limit in answer.limits), *COLUMNS]))[:6]
    table = _table(f"{answer.run}: {limits or 'no limits'}, at {level(answer.confidence)} confidence", "Row")
    table.add_column("Verdict", no_wrap=True)
    for metric in asked:
        table.add_column(f"{_short(metric)}, {METRICS[metric].unit}".rstrip(", "), justify="right")
    rank = {answer.best: " ★", answer.runner_up: " (2nd)"}
    for cell in answer.cells:
        name = Text(_in_lines(cell.name) + rank.get(cell.name, "") + ("\n(simulated)" if cell.simulated else ""))
        verdict = Text(cell.verdict, style=STYLES[cell.verdict])
        table.add_row(name, verdict, *(_figure(cell.figures.get(metric), metric) for metric in asked))
    return table


def _figure(figure: Figure | None, metric: str) -> str:
    if figure is None or figure.value is None:
        return UNKNOWN
    scale = METRICS[metric].scale
    digits = 1 if scale != 1 or figure.value >= 100 else 2
    text = f"{scale * figure.value:.{digits}f}"
    if figure.low is None or figure.high is None or figure.low == figure.high:
        return text
    return f"{text} [{scale * figure.low:.{digits}f}, {scale * figure.high:.{digits}f}]"


def recommendation_words(answer: Recommendation) -> list[Text]:
    """The answer, why, and what rules out each other cell."""
    metric = METRICS[answer.objective]
    marked = {cell.name: cell.name + (" (simulated)" if cell.simulated else "") for cell in answer.cells}
    lines = []
    if answer.best is None:
        lines.append(Text(f"No recommendation: {answer.absent['best']}.", style="bold"))
    else:
        kind = "Best" if answer.answer == "deployable" else "Best to review"
        lines.append(Text(f"{kind} by {metric.title}: {marked[answer.best]}", style="bold"))
    if answer.runner_up is not None:
        lines.append(Text(f"Runner-up: {marked[answer.runner_up]}; {answer.runner_up_needs}."))
    lines += [Text(f"• {marked[other.name]}: {other.says}") for other in answer.against_best]
    for cell in answer.cells:
        if cell.verdict != "deployable":
            lines.append(Text(f"{cell.name} ({cell.verdict}): {'; '.join(cell.reasons)}", STYLES[cell.verdict]))
    if answer.weighting.weights:
        lines.append(_by_weights(answer.weighting, marked))
    if answer.weighting.shares:
        told = ", ".join(METRICS[name].title for name in answer.weighting.metrics)
        most = sorted(answer.weighting.shares, key=lambda share: -share.share)
        won = ", ".join(f"{marked[share.name]} {share.share:.0%}" for share in most if share.share >= 0.005)
        lines.append(Text(f"Of all weightings of {told}, wins: {won}.", style="dim"))
    return lines + [Text(f"Note: {note}.", style="dim") for note in answer.notes]


def _by_weights(weighting: Weighting, marked: Mapping[str, str]) -> Text:
    """The ranking by the weights asked for, or why there is none."""
    asked = ", ".join(f"{METRICS[name].title} {weight:.0%}" for name, weight in (weighting.weights or {}).items())
    if not weighting.shares:
        return Text(f"Not ranked by your weights ({asked}): {weighting.absent['shares']}.", "yellow")
    ranked = ", ".join(
        f"{rank}. {marked[share.name]} {share.score:.2f}" for rank, share in enumerate(weighting.shares, 1)
    )
    return Text(f"By your weights ({asked}), of 1: {ranked}.")


# --- compare -------------------------------------------------------------------------------------


def comparison_table(answer: RunComparison) -> Table:
    """Every change that was judged, and those gated that were not; quiet ones of ungated metrics are left out."""
    table = _table(f"{answer.run_a} → {answer.run_b}, at {level(answer.confidence)} confidence", "Row, and its figures")
    for heading in ("A", "B", "Change", "p (Holm)"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("Verdict")
    gated = _gated(answer)
    shown = [
        change
        for change in answer.changes
        if change.metric in (*gated, *ALWAYS) or change.verdict in ("better", "worse")
    ]
    for name, changes in groupby(shown, key=lambda change: change.cell):
        table.add_row(Text(_in_lines(name), style="bold"))
        for change in changes:
            table.add_row(*_change(change))
        table.add_section()
    return table


def _gated(answer: RunComparison) -> set[str]:
    return {gate.partition(":")[0] for gate in answer.fail_on}


def _change(change: Change) -> list[Text | str]:
    metric = METRICS[change.metric]
    verdict = Text(change.verdict + (" ✗" if change.fails else ""), style=STYLES.get(change.verdict, ""))
    return [
        f"  {_short(change.metric)}",
        *(UNKNOWN if value is None else metric.show(value) for value in (change.a, change.b)),
        change_in_words(change),
        UNKNOWN if change.p_holm is None else f"{change.p_holm:.2g}",
        verdict,
    ]


def change_in_words(change: Change) -> str:
    """The change with its interval: points for AP, percent for all else."""
    if change.change is None or change.low is None or change.high is None:
        return UNKNOWN
    if change.metric in PAIRED:
        texts = [signed_points(value) for value in (change.change, change.low, change.high)]
    else:
        texts = [f"{100 * (value - 1):+.1f} %".replace("-", "−") for value in (change.change, change.low, change.high)]
    return texts[0] if change.low == change.high else f"{texts[0]} [{texts[1]}, {texts[2]}]"


def comparison_words(answer: RunComparison) -> list[Text]:
    """What fails, what could not be judged and why, what changed its status."""
    lines = [
        Text(f"{status.cell}: {status.says}", style="red" if status.fails else "yellow")
        for status in answer.statuses
        if status.a != status.b
    ]
    gated = _gated(answer)
    reasons: dict[str, list[str]] = {}
    for change in answer.changes:
        if change.verdict == "not judged" and change.metric not in gated:
            reasons.setdefault(change.absent["change"], []).append(f"{change.cell} {METRICS[change.metric].title}")
    for reason, who in reasons.items():
        more = f" and {len(who) - 1} more" if len(who) > 1 else ""
        lines.append(Text(f"not judged, {who[0]}{more}: {reason}", style="yellow"))
    lines += [Text(f"not judged, {why}", style="bold yellow") for why in answer.not_judged]
    fails = [change for change in answer.changes if change.fails]
    lines += [
        Text(f"✗ {change.cell}: {METRICS[change.metric].title} is worse, {change_in_words(change)}", style="bold red")
        for change in fails
    ]
    said = {
        "passed": f"Passed: nothing that --fail-on names ({', '.join(answer.fail_on) or 'nothing'}) got worse.",
        "regressed": "Regressed.",
        "not judged": "Not judged: something that --fail-on names cannot be told, for the reasons above.",
    }
    lines.append(Text(said[answer.answer], style="bold"))
    return lines + [Text(f"Note: {note}", style="dim") for note in answer.notes]
