"""The audit of claimed figures: silent on a table that is right, and finding each single thing that is not."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from fractions import Fraction

import pytest
from control_claims import control
from typer.testing import CliRunner

from edgejoule_analyst import audit, audit_commands, hardware
from edgejoule_analyst.claims import load_known, load_paper


def found(*changes):
    """The names of the checks that object to the control with these changes."""
    return {finding.check for finding in audit.contradicted(audit.audit(*control(*changes)))}


def test_audit_is_silent_on_the_control() -> None:
    findings = audit.audit(*control())
    assert audit.contradicted(findings) == []
    assert {finding.verdict for finding in findings} == {"none found"}, "every check must have compared something"


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("derived columns", [("efficiency.rows.0.fps", "101.0")]),
        ("derived columns", [("efficiency.rows.3.dynamic_w", "2.2")]),
        ("derived columns", [("efficiency.rows.3.energy_mj", "36.3"), ("efficiency.rows.3.map_per_joule", "1088")]),
        ("derived columns", [("efficiency.rows.7.map_per_joule", "659")]),
        ("differences", [("measured.3.rows.0.to_ptq_pp", "1.4")]),
        ("differences", [("surveyed.rows.0.change_pp", "-2.1")]),
        ("repeated figures", [("efficiency.rows.0.latency_std_ms", "0.3")]),
        ("figures in the text", [("figures.0.value", "49.1")]),
        ("figures in the text", [("figures.3.value", "28.5")]),
        ("ranges in the text", [("ranges.0.values", ["3.90"])]),
        ("ranges in the text", [("ranges.1.values", ["2.0", "2.6"])]),
        ("latencies called FPS", [("real_time.0.said", False)]),
        ("settings", [("settings.0.said.1.value", "43")]),
        ("formulas", [("formulas.mean_ap_is", "sum")]),
        ("formulas", [("formulas.optimal_is", "beaten")]),
        ("Pareto lists", [("fronts.0.models", ["A"])]),
        ("guidelines", [("guidelines.rows.1.min_ms", "9")]),
        ("guidelines", [("guidelines.rows.0.max_loss_pp", "0.4")]),
        ("prevalence", [("prevalence.percent.A", "80")]),
        ("practical FPS", [("practical.0.fps", "29")]),
        ("sensitivity classes", [("models.rows.0.ptq_sensitivity", "Low")]),
        ("calibration overlap", [("accuracy.calibrated_on", "val")]),
        ("score floor", [("accuracy.confidence", "0.25")]),
        ("spread of nothing", [("measured.0.rows.0.ap50_std", "0.3")]),
        ("published accuracy", [("known.detectors.A.ap50", "45.0")]),
        ("parameters", [("known.detectors.B.params_m", "4.0")]),
        ("operations", [("known.detectors.B.gmacs", "16.0")]),
        ("releases", [("models.rows.0.release", "1.1")]),
        ("software", [("board.tensorrt", "10.4")]),
        ("roofline", [("known.boards.Board.gpu_cores", 60)]),
        ("bytes per parameter", [("measured.1.rows.0.size_mb", "6.5")]),
        ("idle power", [("known.boards.Board.idle_w", ["5.1", "5.5"])]),
        ("throttling", [("board.throttles_at_c", "60")]),
        (
            "identical latencies",
            [("measured.3.rows.0.latency_ms", "5.0"), ("measured.3.rows.0.power_w", "7.0")],
        ),
    ],
)
def test_audit_finds_what_is_wrong_in_the_control(check, changes) -> None:
    assert check in found(*changes)


@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("settings", ("settings.0.said.1.value", "43")),
        ("score floor", ("accuracy.confidence", "0.25")),
        ("sensitivity classes", ("models.rows.0.ptq_sensitivity", "Low")),
        ("bytes per parameter", ("measured.1.rows.0.size_mb", "6.5")),
        ("derived columns", ("efficiency.rows.0.fps", "101.0")),
        ("prevalence", ("prevalence.percent.A", "80")),
    ],
)
def test_one_fault_is_told_by_one_check(check, change) -> None:
    assert found(change) == {check}


def test_int8_is_faster_only_where_the_hardware_has_it() -> None:
    without = [("known.boards.Board.sm", "5.3")]
    assert "int8 hardware" in found(*without)
    slower = [(f"measured.{table}.rows.{row}.latency_ms", "25.0") for table in (2, 3) for row in (0, 1)]
    assert "int8 hardware" not in found(*without, *slower), "INT8 that gains nothing is what such a board shows"


def test_latency_called_fps_is_recognised() -> None:
    assert {"latencies called FPS", "figures in the text"} <= found(("figures.1.value", "8.2"))


def test_missing_precision_is_told() -> None:
    claims, known = control()
    measured = [table for table in claims.measured if table.where != "Table of fp16"]
    rows = [row for row in claims.efficiency.rows if row.variant != "fp16"]
    less = claims.model_copy(
        update={"measured": measured, "efficiency": claims.efficiency.model_copy(update={"rows": rows})}
    )
    assert [finding.check for finding in audit.contradicted(audit.audit(less, known))] == ["missing precision"]


def test_unknown_board_is_not_checked_rather_than_passed() -> None:
    claims, known = control(("board.name", "Another board"))
    findings = {finding.check: finding for finding in audit.audit(claims, known)}
    for check in ("roofline", "int8 hardware", "software", "idle power", "throttling", "missing precision"):
        assert findings[check].verdict == "not checked"
        assert "Another board" in findings[check].unchecked[0]


def test_unknown_capability_is_not_checked_rather_than_a_fault() -> None:
    findings = {f.check: f for f in audit.audit(*control(("known.boards.Board.sm", "11.0")))}
    assert findings["roofline"].verdict == "not checked"
    assert "11.0" in findings["roofline"].unchecked[0]


# --- the paper -----------------------------------------------------------------------------------

PAPER = {finding.check: finding for finding in audit.audit(load_paper(), load_known())}


def said(check: str) -> str:
    return "\n".join(line.said for line in PAPER[check].contradictions)


@pytest.mark.parametrize(
    ("check", "words"),
    [
        ("int8 hardware", "compute capability 5.3 has no 8-bit product"),
        ("software", "TensorRT 8.4 on Jetson Nano 4 GB, whose newest is 8.2"),
        ("software", "Python 3.8"),
        ("roofline", "16.5 GFLOP / 45 ms = 366.7 GFLOPS > 128 cores x 2 fp32 operations a clock x 0.9216 GHz = 235.9"),
        ("bytes per parameter", "YOLOv5s int8-ptq: 3.6 MB / 7.2 M = 0.5 bytes"),
        ("bytes per parameter", "NanoDet-m int8-ptq: 0.9 MB / 2.5 M = 0.36 bytes"),
        ("parameters", "NanoDet-m: 2.5 M / 0.95 M = 2.63 times"),
        ("releases", "NanoDet-m v3.1; the newest that was tagged is v1.0.0"),
        ("published accuracy", "46.2, its authors 56.8"),
        ("published accuracy", "EfficientDet-D0 fp32: 42.8, its authors 53.0"),
        ("score floor", "0.25 > 0.05"),
        ("calibration overlap", "= 1024 at least in both"),
        ("spread of nothing", "5 trials of one checkpoint"),
        ("throttling", "60 °C, 38.5 K below its trip point of 98.5 °C"),
        ("idle power", "1.2 W at rest, where owners read 1.63 to 1.75 W"),
        ("idle power", "142.9 FPS at 1.8 W"),
        ("identical latencies", "4 of 4 figures equal"),
        ("missing precision", "fp16: 4 operations a core and clock, 2 times fp32; no row has it"),
        ("operations", "EfficientDet-D0: Eq. 1 counts 2 a MAC, 2 x 2.54 G = 5.08 G; printed 2.5 G"),
        ("figures in the text", "the text says 45.1, its tables give 45.3"),
        ("figures in the text", "the text says 1.1, its tables give 0.9"),
        ("figures in the text", "the text says 0.4, its tables give 1.1"),
        ("figures in the text", "the text says 4.8, its tables give 2.7"),
        ("latencies called FPS", "43.3 < 30 is false; read as ms"),
        ("latencies called FPS", "45.1 FPS, where 1000 / 45 ms = 22.2 FPS; as a latency"),
        ("settings", "1000 (Table 5; section 3.3, metrics; section 3.3, trials); 100 (section 3.3, protocol)"),
        ("settings", "equal (section 4.1); more to latency and energy (section 5.1)"),
        ("settings", "118287"),
        ("settings", "most balanced performance: SSD-Lite-MobileNetV3 (abstract); NanoDet-m (section 4.2, to Fig. 10)"),
        ("formulas", "without 1 / 80: a mean of 46.2 % (YOLOv5s fp32) would be a sum of 80 x 46.2 % = 3696.0 %"),
        ("formulas", "that x beats x*; of int8-qat it is SSD-MobileNetV2 (39.3 at 11 ms)"),
        ("settings", "to the nearest (Eq. 2); down (Eq. 8)"),
        ("ranges in the text", "/ 5 = 3.71; said 3.8"),
        ("guidelines", "SSD-Lite-MobileNetV3 int8-qat for 10 to 30 ms takes 9 ms, outside"),
        ("Pareto lists", "said NanoDet-m, SSD-Lite-MobileNetV3; its own figures"),
        ("Pareto lists", "said SSD-Lite-MobileNetV3, YOLOv5s, EfficientDet-D0; its own figures"),
        ("differences", "41.1 - 39.7 = 1.4; printed 2.2"),
        ("prevalence", "150 %"),
        ("practical FPS", "37 ms a frame, so 30 ms before and after 7 ms"),
    ],
)
def test_audit_of_the_paper_finds_with_its_arithmetic(check, words) -> None:
    assert words in said(check)


def test_table_8_only_one_derived_value_does_not_follow() -> None:
    """By fractions, from the table alone: independent of the audit's own formulas and rounding."""
    paper = load_paper()
    ap50 = {key: row.ap50 for key, row in paper.rows.items()}
    wrong = []
    for row in paper.efficiency.rows:
        ms, watts, mj = Fraction(row.latency_ms), Fraction(row.power_w), Fraction(row.energy_mj)
        truth = {
            "fps": 1000 / ms,
            "dynamic_w": watts - Fraction(6, 5),
            "energy_mj": watts * ms,
            "map_per_joule": Fraction(ap50[row.model, row.variant]) * 1000 / mj,
        }
        for name, value in truth.items():
            printed = str(getattr(row, name))
            digits = len(printed.partition(".")[2])
            if abs(Fraction(printed) - value) * 10**digits > Fraction(1, 2):
                wrong.append((row.model, row.variant, name, printed))
    assert wrong == [("SSD-Lite-MobileNetV3", "int8-qat", "map_per_joule", "1574")]
    assert [line.said.partition(":")[0] for line in PAPER["derived columns"].contradictions] == [
        "SSD-Lite-MobileNetV3 int8-qat, mAP/J"
    ]
    assert len(PAPER["derived columns"].lines) == 4 * 15


def test_paper_data_are_whole_and_labelled() -> None:
    paper = load_paper()
    assert paper.label == "claimed"
    assert len(paper.rows) == len(paper.efficiency.rows) == 15
    assert len(paper.models.rows) == len(paper.guidelines.rows) == 5
    assert paper.row("NanoDet-m", "fp32").latency_ms == Decimal(21)


def test_known_agrees_with_the_detectors_and_the_boards_of_other_packages() -> None:
    boards = pytest.importorskip("edgejoule_agent.boards")
    known = load_known()
    for board in boards.BOARDS:
        if boards.soc_named(board.soc).sm in hardware.OPS_PER_CORE_CLOCK:
            assert hardware.GPU_CORES[board.name] == board.gpu_cores
    nano = next(board for board in boards.BOARDS if board.name == "Jetson Nano 4 GB")
    said = known.boards[nano.name]
    assert (said.sm, said.gpu_cores, said.gpu_max_hz) == ("5.3", nano.gpu_cores, nano.gpu_max_hz)
    for sm in hardware.OPS_PER_CORE_CLOCK:
        fast = boards.fast_precisions_of(boards.capability(sm))
        assert hardware.has_fast_int8(sm) == ("int8" in fast) == ("int8" in hardware.OPS_PER_CORE_CLOCK[sm])


def test_reach_holds_every_value_that_the_inputs_may_have_had() -> None:
    least, most = audit.reach(lambda a, b: a / b, Decimal("41.1"), Decimal("0.0261"))
    for a in ("41.05", "41.1", "41.15"):
        for b in ("0.02605", "0.0261", "0.02615"):
            assert least <= Decimal(a) / Decimal(b) <= most


# --- the command ---------------------------------------------------------------------------------


def test_command_prints_every_contradiction_and_exits_with_0() -> None:
    answer = CliRunner().invoke(audit_commands.app, ["paper"])
    assert answer.exit_code == 0
    shown = re.sub(r"\s+", " ", answer.output)
    assert shown.startswith("CLAIMED, not measured")
    assert "366.7 GFLOPS" in shown
    assert all(finding.title.partition(" ")[0] in shown for finding in PAPER.values())
    assert re.search(r"\d+ of 28 checks find something: \d+ of \d+ comparisons do not hold", shown)
    assert max(map(len, answer.output.splitlines())) <= 100


def test_command_in_json_has_every_line_and_the_label() -> None:
    answer = json.loads(CliRunner().invoke(audit_commands.app, ["paper", "--json"]).output)
    assert answer["label"] == "claimed"
    assert len(answer["contradicted"]) >= 9
    assert len(answer["checks"]) == len(audit.CHECKS)
    assert sum(not line["holds"] for check in answer["checks"] for line in check["lines"]) == sum(
        len(finding.contradictions) for finding in PAPER.values()
    )
