"""The checks that every row of a run must pass: each fault alone, and what the record lacks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgejoule_analyst import hardware, plausibility
from edgejoule_analyst.report import render_report
from edgejoule_analyst.words import row_name

SHA256 = "5" * 64

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "plausibility.md"

NANO = {"board": "Jetson Nano 4 GB", "sm": "5.3", "gpu_hz": {"57000000.gpu": [76800000, 921600000]}}


def checks_of(rows, evidence, variant):
    """The checks of the row of that variant, by name, and the row."""
    row = next(row for row in rows if row.variant == variant)
    return {check.name: check for check in evidence[row_name(row)].checks}, row


def judged(check_cells, cell, *others):
    return checks_of(*check_cells(cell, *others), cell.variant)


@pytest.mark.parametrize(
    ("check", "change", "said"),
    [
        (
            "roofline",
            {"runtime": "tensorrt", "environment": NANO, "gmacs": 8.25, "latency_ms": 45.0, "fast_int8": True},
            "2 x 8.25 GMACs",
        ),
        ("bytes per parameter", {"size_mb": 0.4}, "0.4 MB / 0.95 M parameters = 0.42 bytes each, where int8 takes 1"),
        ("int8 hardware", {"fast_int8": False}, "INT8 ran where the hardware has none: the test says so"),
        ("int8 share", {"int8_share": 0.2}, "only 20% of the multiplications run in INT8"),
        ("idle power", {"power_w": 1.1}, "1.1 W at work, 1.2 W at rest"),
        ("zero variance", {"steady": True}, "latency does not vary at all in trial 0, 1, 2"),
        ("score floor", {"score_floor": 0.25}, "AP is not an AP"),
        ("calibration overlap", {"shared_images": 3}, "are in both 3 by id and 3 by content"),
    ],
)
def test_fault_is_told_by_its_check_and_flagged(cells, check_cells, check, change, said) -> None:
    checks, row = judged(check_cells, replace(cells.int8, **change))
    assert {name for name, found in checks.items() if found.verdict == "implausible"} == {check}
    assert said in checks[check].said
    assert row.flags == [checks[check].said]


def test_usual_int8_row_is_plausible_in_all_that_can_be_checked(cells, check_cells) -> None:
    fast = {"max_frequency_khz": 3_000_000}
    checks, row = judged(check_cells, replace(cells.int8, power_w=2.0, environment=fast))
    assert {check.verdict for check in checks.values()} == {"plausible"}
    assert set(checks) == set(plausibility.EQUATIONS) - {"identical latencies"}
    assert row.flags == []


def test_what_the_record_lacks_is_not_checked_and_says_what(cells, check_cells) -> None:
    checks, _ = judged(check_cells, replace(cells.int8, throttled="unknown"))
    lacking = {name: check.said for name, check in checks.items() if check.verdict == "not checked"}
    assert set(lacking) == {"roofline", "idle power", "throttling"}
    assert lacking["roofline"] == "the host does not tell the clock of its processor"
    assert "RAPL" in lacking["idle power"]


def test_roofline_of_a_processor_takes_its_clock_and_its_threads(cells, check_cells) -> None:
    slow = replace(cells.fp32, environment={"max_frequency_khz": 2_000_000}, gmacs=0.6)
    checks, _ = judged(check_cells, slow)
    assert checks["roofline"].verdict == "implausible"  # 133 of 64 GOPS
    assert "1 threads x 32 operations a clock x 2 GHz = 64.0 GOPS" in checks["roofline"].said


def test_gpu_nobody_knows_is_not_checked(cells, check_cells) -> None:
    unknown = {"board": "A new board", "sm": "12.1", "gpu_hz": {"gpu": [1, 2]}}
    checks, _ = judged(check_cells, replace(cells.int8, runtime="tensorrt", environment=unknown))
    assert checks["roofline"].verdict == "not checked"
    assert "A new board" in checks["roofline"].said


def test_throttled_row_says_so_by_its_status_and_not_twice(cells, check_cells) -> None:
    checks, row = judged(check_cells, replace(cells.fp32, throttled="yes"))
    assert checks["throttling"].verdict == "implausible"
    assert row.status == "throttled"
    assert row.flags == []


def test_equal_latencies_of_ptq_and_qat_are_flagged(cells, check_cells) -> None:
    twin = replace(cells.qat, latency_ms=cells.int8.latency_ms)
    checks, row = judged(check_cells, twin, cells.int8)
    assert checks["identical latencies"].verdict == "implausible"
    assert "to the last digit" in row.flags[0]


def test_different_latencies_of_ptq_and_qat_are_plausible(cells, check_cells) -> None:
    checks, row = judged(check_cells, cells.qat, cells.int8)
    assert checks["identical latencies"].verdict == "plausible"
    assert row.flags == []


def test_row_without_figures_has_no_checks(usual) -> None:
    assert checks_of(usual[0].rows, usual[0].evidence, "fp16")[0] == {}


def test_float_row_is_not_asked_about_int8(usual) -> None:
    checks, _ = checks_of(usual[0].rows, usual[0].evidence, "fp32")
    assert not {"int8 hardware", "int8 share", "calibration overlap"} & set(checks)


def test_report_lists_every_check_and_what_was_not_checked(usual) -> None:
    page = render_report(usual[0], SHA256)
    assert "Can it be?" in page
    assert "the host does not tell the clock of its processor" in page
    assert "Not checked is no consent" in page


def test_every_check_is_documented() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in plausibility.EQUATIONS if f"| {name} |" not in page] == []


@pytest.mark.parametrize(
    ("cores", "hz", "sm", "precision", "tops"),
    [
        (512, 1.377e9, "7.2", "int8", 22.6),  # NVIDIA: 22 TOPS of the GPU of AGX Xavier
        (1024, 1.02e9, "8.7", "int8", 33.4),  # NVIDIA: 67 sparse TOPS of Orin Nano Super, half of it dense
        (128, 0.9216e9, "5.3", "fp16", 0.472),  # NVIDIA: 472 GFLOPS of the Nano
        (128, 0.9216e9, "5.3", "int8", 0.236),  # no 8-bit arithmetic: what is left is fp32
    ],
)
def test_peak_of_a_gpu_is_what_its_maker_says(cores, hz, sm, precision, tops) -> None:
    assert hardware.gpu_peak(cores, hz, sm, [precision]).ops_s / 1e12 == pytest.approx(tops, rel=0.01)
