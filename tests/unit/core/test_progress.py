"""What a person sees: on a terminal, in a log, and how much time is said to be left."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from edgejoule.durations import AT_FIRST_S, Durations
from edgejoule.kinds import PACKAGES
from edgejoule.progress import Display, LiveDisplay, PlainDisplay, Tally, Work, clock, display_on, remaining_s
from edgejoule.reconcile import StepOutcome

KEY = "0" * 64


def ended(
    step: str, outcome: str = "ok", reason: str | None = None, *, origin: str = "", cached: bool = False
) -> StepOutcome:
    log = Path("attempts/1.log") if outcome == "failed" and not cached else None
    return StepOutcome(step, outcome, reason, origin or step, KEY, cached=cached, duration_s=12.3, log=log)


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    return Console(
        file=file, force_terminal=terminal, width=100, color_system=None if not terminal else "truecolor"
    ), file


def show(display: Display) -> None:
    display.begin(
        {"a": Work("build", 1), "b": Work("score", 1), "c": Work("score", 1)}, {"build": 60.0, "score": 4.0}, 2
    )
    display.start("a", Work("build", 1))
    display.wait("a", "for a measurement on this host")
    display.tick()
    display.wait("a", None)
    display.advance("a", 3, 4, "layers")
    display.tick()
    display.finish(ended("a"))
    display.finish(ended("b", "failed", "x[/]y"))
    display.finish(ended("c", "failed", "x[/]y", origin="b"))
    display.end()


def test_plain_display_has_a_line_for_each_ended_step_and_no_control_characters() -> None:
    on, file = console(terminal=False)
    display = display_on(on)
    assert type(display) is PlainDisplay
    display.finish(ended("z", cached=True))
    display.finish(ended("f", "failed", "broken", cached=True))
    show(display)

    assert file.getvalue().splitlines() == [
        "failed                f: broken (as before; --retry tries again)",
        "done          12.3 s  a",
        "failed        12.3 s  b: x[/]y (log: attempts/1.log)",
        "steps done before: 1",
    ]


def test_plain_display_tells_now_and_then_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    on, file = console(terminal=False)
    display = display_on(on)
    display.begin({"a": Work("train", 1), "b": Work("score", 1)}, {"score": 4.0}, 2)
    display.start("a", Work("train", 1))
    display.advance("a", 100, 400, "iterations")
    for _ in range(60):
        now[0] += 1
        display.tick()

    assert file.getvalue().splitlines() == [
        "running         1:00  a: 100/400 iterations",
        "all steps       1:00  0/2 done, about 3:00 left",
    ]


def test_live_display_shows_the_run_and_each_running_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgejoule.progress.SHOWN_AFTER_S", 0.0)
    on, file = console(terminal=True)
    display = display_on(on)
    assert type(display) is LiveDisplay
    show(display)
    seen = file.getvalue()

    for words in ("all steps", "1/3 steps", "a: waits for a measurement", "3/4 layers", "left", "b: x[/]y"):
        assert words in seen


def test_live_display_shows_no_bar_when_all_is_over_soon() -> None:
    on, file = console(terminal=True)
    show(display_on(on))

    assert "all steps" not in file.getvalue()
    assert "\x1b[?25l" not in file.getvalue()  # the cursor was not even hidden
    assert "done" in file.getvalue()


def test_live_display_shows_a_step_that_is_done_again() -> None:
    on, file = console(terminal=True)
    display = display_on(on)
    display.finish(ended("a", cached=True))
    display.begin({"b": Work("score", 1)}, {}, 2)
    for _ in range(2):
        display.start("b", Work("score", 1))
    display.start("a", Work("build", 1))
    display.finish(ended("a"))
    display.finish(ended("b"))
    display.end()

    assert file.getvalue().count("done  ") == 2


def test_remaining_time_is_unknown_when_a_kind_was_never_seen() -> None:
    assert remaining_s([Work("build", 1), Work("knit", 1)], Durations({"build": 1.0}), 2) is None


def test_remaining_time_is_a_guess_until_each_kind_was_timed() -> None:
    work = [Work("build", 1), Work("train", 1)]
    assert remaining_s(work, Durations({"build": 1.0}), 1) == (1.0 + AT_FIRST_S["train"], False)
    known = Durations({"build": 1.0})
    known.learn("train", "a", 5.0)
    assert remaining_s(work, known, 2) == (5.0, True)


def test_first_steps_of_a_model_tell_how_heavy_it_is() -> None:
    known = Durations({})
    for kind, subject, seconds in (("export", "small", 10.0), ("ptq", "small", 4.0), ("build", "small", 2.0)):
        known.learn(kind, subject, seconds)
    known.learn("export", "large", 50.0)
    left = remaining_s([Work("ptq", 1, "large"), Work("build", 1, "large")], known, 1)
    assert left == (pytest.approx(5 * 4.0 + 5 * 2.0), True)


def test_pace_of_the_first_training_tells_how_long_the_others_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("edgejoule.progress.time.monotonic", lambda: now[0])
    a, b = Work("train", 2, "a", amount=2000.0), Work("train", 2, "b", amount=1000.0)
    tally = Tally({"a": a, "b": b}, {}, 2)
    tally.start("a", a)
    now[0] = 60.0
    assert tally.left() == f"at a guess {clock(3000 * AT_FIRST_S['train'] - 60)} left"
    tally.advance("a", 10, 100, "iterations")
    assert tally.left() == f"about {clock(540 + 300)} left"


def test_length_of_trainings_says_nothing_of_how_heavy_a_model_is() -> None:
    known = Durations({})
    known.learn("train", "tuned", 10.0, amount=128.0)  # a short training of the one
    known.learn("train", "trained", 480.0, amount=14400.0)  # and a long one of the other
    known.learn("ptq", "tuned", 10.0)
    assert remaining_s([Work("ptq", 1, "trained")], known, 1) == (10.0, True)


def test_earlier_trainings_of_unknown_length_tell_nothing_of_the_next() -> None:
    earlier = Durations({"train": 9.8})
    assert remaining_s([Work("train", 1, "a", amount=14400.0)], earlier, 1) == (14400 * AT_FIRST_S["train"], False)


def test_remaining_time_is_at_least_that_of_the_longest_step() -> None:
    assert remaining_s([Work("ptq", 1), Work("build", 1)], Durations({"ptq": 100.0, "build": 2.0}), 4) == (
        100.0,
        True,
    )


def test_remaining_time_of_an_exclusive_step_takes_all_threads() -> None:
    assert remaining_s([Work("benchmark", 4)] * 3, Durations({"benchmark": 10.0}), 4) == (30.0, True)


def test_every_kind_has_a_duration_to_begin_with() -> None:
    assert AT_FIRST_S.keys() == PACKAGES.keys()
