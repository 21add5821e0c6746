"""From spec to plan: which steps there are, what they read, and what their keys depend on."""

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgejoule.canonical import canonical_json, hash_json
from edgejoule.devices import Device
from edgejoule.folder_store import FolderStore
from edgejoule.matrix import make_plan, shuffled
from edgejoule.plan import Cell, Ref, Source, step_key
from edgejoule.runs import Run, load, save
from edgejoule.spec import check_spec
from edgejoule.yamltree import Tree

EACH = ["fp32", "fp16", "int8-ptq", "int8-qat", "fp16-qat"]
HOST = Device("host", "host-1", {"machine": "x86_64"}, {"runtime": "1.0"})


def spec_of(folder, **changes):
    """A spec in a folder that has the files it names."""
    for name in ("images", "photos"):
        (folder / name).mkdir(exist_ok=True)
    for name in ("a.json", "b.json", "w.pth"):
        (folder / name).touch()
    value = {
        "name": "test",
        "models": [{"detector": "nanodet_m", "weights": "w.pth"}],
        "precisions": ["fp32", "fp16", "int8-ptq"],
        "data": {
            "sources": {
                "a": {"images": "images", "annotations": "a.json"},
                "b": {"images": "photos", "annotations": "b.json"},
            },
            "sets": {
                "calibration": {"source": "a", "count": 8},
                "tuning": {"source": "a", "count": 4},
                "evaluation": {"source": "b"},
            },
            "shards": 2,
        },
        "protocol": "standard",
        **changes,
    }
    return check_spec(Tree(value, {(): "spec"}), folder, {})


def plan_of(spec, device=HOST, **options):
    return make_plan(
        spec, {"host": device}, lambda path: Source(path, hash_json(path.name)), {"name": "test"}, **options
    )


def keys_of(plan):
    """The key of each step, as if every step's outputs were a function of its key."""
    keys = {}
    for step in plan.steps.values():
        hashes = {
            name: hash_json([keys[given.step], given.output]) if isinstance(given, Ref) else given.sha256
            for name, given in step.inputs.items()
        }
        keys[step.id] = step_key(step.kind, 1, step.parameters, hashes)
    return keys


def changed_kinds(before, after):
    old, new = keys_of(before), keys_of(after)
    return {after.steps[step].kind for step in new if old.get(step) != new[step]}


def test_another_workspace_builds_engines_of_tensorrt_anew_and_no_others(tmp_path):
    spec, other = spec_of(tmp_path), spec_of(tmp_path, protocol={"preset": "standard", "workspace_mb": 256})
    board = Device("host", "host-1", {"machine": "aarch64", "runtimes": {"tensorrt": "8.2.1"}}, {})
    builds = [step for step in plan_of(other, board).steps.values() if step.kind == "build"]
    assert {step.parameters["workspace_mb"] for step in builds} == {256}
    anew = {"build", "benchmark", "predict", "score", "analyze"}
    assert changed_kinds(plan_of(spec, board), plan_of(other, board)) == anew
    assert changed_kinds(plan_of(spec), plan_of(other)) == {"analyze"}  # which says that a preset was changed


def test_plan_has_every_step_once_per_what_it_is_for(tmp_path):
    plan = plan_of(spec_of(tmp_path))
    assert Counter(step.kind for step in plan.steps.values()) == {
        "import-data": 1,
        "import-weights": 1,
        "export": 1,
        "ptq": 1,
        "build": 3,
        "benchmark": 15,
        "predict": 6,
        "score": 3,
        "analyze": 1,
    }
    assert [cell.name for cell in plan.cells] == [f"nanodet_m/{v}/host" for v in ("fp32", "fp16", "int8-ptq")]


@pytest.mark.parametrize("protocol", ["standard", "quick"])
def test_every_step_comes_after_those_it_reads(tmp_path, protocol):
    plan = plan_of(spec_of(tmp_path, protocol=protocol))
    seen = set()
    for step in plan.steps.values():
        assert {ref.step for ref in step.upstream()} <= seen
        seen.add(step.id)
    assert all(set(cell.steps) <= seen for cell in plan.cells)


@pytest.mark.parametrize("protocol", ["standard", "quick"])
def test_precisions_may_come_in_any_order(tmp_path, protocol):
    plan = plan_of(spec_of(tmp_path, precisions=["int8-ptq", "fp32"], protocol=protocol))
    seen = set()
    for step in plan.steps.values():
        assert all(ref.step in seen for ref in step.upstream())
        seen.add(step.id)


def test_more_trials_void_none_and_a_renamed_protocol_neither(tmp_path):
    before = keys_of(plan_of(spec_of(tmp_path, protocol="standard")))
    after = keys_of(plan_of(spec_of(tmp_path, protocol={"preset": "standard", "trials": 6, "nms_iou": 0.5})))
    taken = {step: key for step, key in before.items() if step.startswith("benchmark/")}
    assert len(taken) == 15
    assert taken.items() <= after.items()


def test_every_parameter_is_json(tmp_path):
    for step in plan_of(spec_of(tmp_path)).steps.values():
        canonical_json(dict(step.parameters))


def test_int8_is_built_of_the_quantized_graph_and_the_rest_of_the_exported(tmp_path):
    plan = plan_of(spec_of(tmp_path))
    made_by = {cell.variant: plan.steps[f"build/{cell.name}"].inputs["onnx"].step for cell in plan.cells}
    assert made_by == {"fp32": "export/nanodet_m", "fp16": "export/nanodet_m", "int8-ptq": "ptq/nanodet_m"}
    assert plan.steps["build/nanodet_m/int8-ptq/host"].parameters["precision"] == "int8"


def test_quantization_never_reads_the_evaluation_set(tmp_path):
    plan = plan_of(spec_of(tmp_path))
    outputs = {ref.output for ref in plan.steps["ptq/nanodet_m"].upstream()}
    assert outputs == {"weights", "calibration", "calibration-images-000", "tuning", "tuning-images-000"}


def test_fp32_is_the_reference_of_the_others(tmp_path):
    plan = plan_of(spec_of(tmp_path))
    reference = plan.steps["score/nanodet_m/int8-ptq/host"].inputs["reference-001"]
    assert reference == Ref("predict/nanodet_m/fp32/host/001", "detections", tolerant=True)
    assert "reference-000" not in plan.steps["score/nanodet_m/fp32/host"].inputs


def test_there_is_no_reference_without_fp32(tmp_path):
    plan = plan_of(spec_of(tmp_path, precisions=["int8-ptq"]))
    assert "reference-000" not in plan.steps["score/nanodet_m/int8-ptq/host"].inputs


def test_training_starts_from_the_imported_weights(tmp_path):
    models = [{"detector": "nanodet_m", "weights": "w.pth", "train": {"iterations": 5}}]
    sets = {"train": {"source": "a"}, "evaluation": {"source": "b"}}
    data = {**spec_of(tmp_path).model_dump(mode="json")["data"], "sets": sets}
    plan = plan_of(spec_of(tmp_path, models=models, data=data, precisions=["fp32"]))
    train = plan.steps["train/nanodet_m"]
    assert train.inputs["weights"] == Ref("import-weights/nanodet_m", "weights")
    assert (train.parameters["recipe"]["iterations"], train.parameters["recipe"]["seed"]) == (5, 42)
    assert plan.steps["export/nanodet_m"].inputs["weights"] == Ref("train/nanodet_m", "weights")
    assert "train/nanodet_m" in plan.cells[0].steps


def test_analysis_runs_whatever_became_of_the_cells(tmp_path):
    analyze = plan_of(spec_of(tmp_path)).steps["analyze"]
    assert all(ref.tolerant for ref in analyze.upstream())
    assert {"build-2", "score-2", "matches-2", "benchmark-2-4", "samples-2-4", "onnx-2", "weights-2", "data"} <= set(
        analyze.inputs
    )
    quantizations = {name: ref for name, ref in analyze.inputs.items() if name.startswith("quantization-")}
    assert quantizations == {"quantization-2": Ref("ptq/nanodet_m", "record", tolerant=True)}
    assert [cell["precision"] for cell in analyze.parameters["cells"]] == ["fp32", "fp16", "int8"]


# --- what keys depend on -------------------------------------------------------------------------


def test_equal_specs_have_equal_keys(tmp_path):
    assert keys_of(plan_of(spec_of(tmp_path))) == keys_of(plan_of(spec_of(tmp_path)))


def test_another_session_measures_anew_and_does_nothing_else_again(tmp_path):
    spec = spec_of(tmp_path)
    assert changed_kinds(plan_of(spec), plan_of(spec, session="2")) == {"benchmark", "analyze"}


def test_another_device_of_the_same_class_keeps_the_engines(tmp_path):
    spec = spec_of(tmp_path)
    other = Device("host", "host-2", HOST.hardware, HOST.environment)
    assert changed_kinds(plan_of(spec), plan_of(spec, other)) == {"benchmark", "analyze"}


def test_changed_environment_measures_anew(tmp_path):
    spec = spec_of(tmp_path)
    other = Device("host", "host-1", HOST.hardware, {"runtime": "1.1"})
    assert changed_kinds(plan_of(spec), plan_of(spec, other)) == {"benchmark", "analyze"}


def test_more_trials_keep_those_that_are_done(tmp_path):
    three = plan_of(spec_of(tmp_path, protocol={"preset": "standard", "trials": 3}))
    four = plan_of(spec_of(tmp_path, protocol={"preset": "standard", "trials": 4}))
    new = set(keys_of(four).values()) - set(keys_of(three).values())
    assert len(new) == 3 + 1  # one trial for each of three cells, and the analysis


def test_another_precision_keeps_what_is_done(tmp_path):
    less = plan_of(spec_of(tmp_path, precisions=["fp32"]))
    more = plan_of(spec_of(tmp_path, precisions=["fp32", "int8-ptq"]))
    kept = set(keys_of(less).values()) & set(keys_of(more).values())
    assert len(kept) == len(less.steps) - 1  # all but the analysis


def test_another_iteration_count_keeps_accuracy(tmp_path):
    more = plan_of(spec_of(tmp_path, protocol={"preset": "standard", "iterations": 401}))
    assert changed_kinds(plan_of(spec_of(tmp_path)), more) == {"benchmark", "analyze"}


def test_moved_data_change_no_key(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    assert keys_of(plan_of(spec_of(here))) == keys_of(plan_of(spec_of(there)))


# --- input and batch -----------------------------------------------------------------------------

MODEL = {"detector": "nanodet_m", "weights": "w.pth"}
SIDES = st.lists(st.sampled_from([96, 320, 416]), min_size=1, max_size=3, unique=True)
BATCHES = st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=3, unique=True)


@given(SIDES, BATCHES)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_inputs_are_trained_and_quantized_apart_and_batches_share_it_all(tmp_path, sides, batches):
    training = {**MODEL, "train": {"iterations": 5}}
    single = plan_of(qat_spec(tmp_path, EACH, models=[training]))
    plan = plan_of(qat_spec(tmp_path, EACH, models=[{**training, "input": sides, "batch": batches}]))
    kinds, once = (Counter(step.kind for step in each.steps.values()) for each in (plan, single))
    for kind in ("import-weights", "train", "export", "ptq", "qat"):
        assert kinds[kind] == len(sides) * once[kind]
    for kind in ("build", "benchmark", "predict", "score"):
        assert kinds[kind] == len(sides) * len(batches) * once[kind]
    made_by = ("export", "ptq", "qat", "export-qat")  # fp16 is built of the graph of fp32
    assert kinds["batch"] == len(sides) * len(made_by) * sum(batch > 1 for batch in batches)
    seen = set()
    for step in plan.steps.values():
        assert {ref.step for ref in step.upstream()} <= seen
        seen.add(step.id)
    assert all(set(cell.steps) <= seen for cell in plan.cells)
    assert len({cell.name for cell in plan.cells}) == len(plan.cells) == len(sides) * len(batches) * len(EACH)
    assert len(set(keys_of(plan).values())) == len(plan.steps)  # no work that other work repeats


def test_another_batch_does_again_what_the_batch_decides_and_no_more(tmp_path):
    one = plan_of(spec_of(tmp_path, models=[MODEL]))
    both = plan_of(spec_of(tmp_path, models=[{**MODEL, "batch": [1, 4]}]))
    old, new = keys_of(one), keys_of(both)
    assert {step for step in old if new.get(step) != old[step]} == {"analyze"}
    assert {both.steps[step].kind for step in new.keys() - old.keys()} == {
        "batch",
        "build",
        "benchmark",
        "predict",
        "score",
    }
    assert [cell.name for cell in both.cells[:3]] == [cell.name for cell in one.cells]
    assert [cell.name for cell in both.cells[3:]] == [cell.name.replace("/", "-b4/", 1) for cell in one.cells]
    int8 = both.steps["build/nanodet_m-b4/int8-ptq/host"].inputs["onnx"]
    assert int8 == Ref("batch/nanodet_m-b4/ptq", "onnx")
    assert both.steps[int8.step].parameters == {"batch": 4}
    assert both.steps[int8.step].inputs == {"onnx": Ref("ptq/nanodet_m", "onnx")}
    reference = both.steps["score/nanodet_m-b4/int8-ptq/host"].inputs["reference-000"]
    assert reference == Ref("predict/nanodet_m-b4/fp32/host/000", "detections", tolerant=True)
    told = both.steps["analyze"].parameters["cells"]
    assert [(cell["model"], cell.get("batch")) for cell in told] == [
        *[("nanodet_m", None)] * 3,
        *[("nanodet_m-b4", 4)] * 3,
    ]


def test_what_says_nothing_new_changes_no_key(tmp_path):
    plain = keys_of(plan_of(spec_of(tmp_path, models=[{**MODEL, "input": 96}])))
    assert keys_of(plan_of(spec_of(tmp_path, models=[{**MODEL, "input": [96], "batch": [1]}]))) == plain


def test_each_input_is_a_model_of_its_own_name(tmp_path):
    two = [{**MODEL, "name": f"small-{side}", "input": side, "batch": 2} for side in (96, 320)]
    listed = [{**MODEL, "name": "small", "input": [96, 320], "batch": 2}]
    written, short = (plan_of(spec_of(tmp_path, models=models)) for models in (two, listed))
    assert short.steps == written.steps
    assert {cell.row_model for cell in short.cells} == {"small-96-b2", "small-320-b2"}


def test_repeats_are_scored_at_the_first_batch(tmp_path):
    spec = spec_of(tmp_path, models=[{**MODEL, "batch": [2, 4]}], repeats={"calibration": 2})
    plan = plan_of(spec)
    again = [step for step in plan.steps if step.endswith("/seed-43")]
    assert [step for step in again if step.startswith(("batch/", "build/"))] == [
        "batch/nanodet_m-b2/ptq/seed-43",
        "build/nanodet_m-b2/int8-ptq/host/seed-43",
    ]
    assert plan.steps[again[-1]].kind == "score"
    told = {cell["name"]: cell["why_no_repeats"] for cell in plan.steps["analyze"].parameters["cells"]}
    assert told["nanodet_m-b2/int8-ptq/host"] is None
    assert "scored at batch 2 alone" in told["nanodet_m-b4/int8-ptq/host"]


# --- order ---------------------------------------------------------------------------------------


def test_each_trial_measures_all_cells_before_the_next_begins(tmp_path):
    plan = plan_of(spec_of(tmp_path))
    trials = [step.parameters["trial"] for step in plan.steps.values() if step.kind == "benchmark"]
    assert trials == sorted(trials)


def test_quick_finishes_one_row_after_the_other(tmp_path):
    plan = plan_of(spec_of(tmp_path, protocol="quick"))
    rows = [step.id.split("/")[2] for step in plan.steps.values() if step.kind in ("build", "benchmark", "score")]
    assert list(dict.fromkeys(rows)) == ["fp32", "fp16", "int8-ptq"]
    assert rows == sorted(rows, key=["fp32", "fp16", "int8-ptq"].index)


@given(st.integers(1, 6), st.integers(0, 2**32 - 1), st.integers(0, 9))
def test_shuffled_is_a_permutation_that_the_seed_decides(count, seed, trial):
    cells = [Cell(str(index), "d", "base", "fp32", "host", ()) for index in range(count)]
    once = shuffled(cells, seed, trial)
    assert sorted(once, key=lambda cell: cell.model) == cells
    assert shuffled(cells, seed, trial) == once


def test_trials_differ_in_order():
    cells = [Cell(str(index), "d", "base", "fp32", "host", ()) for index in range(5)]
    assert len({tuple(cell.model for cell in shuffled(cells, 42, trial)) for trial in range(5)}) > 1


# --- what a run leaves in the store --------------------------------------------------------------


def test_saved_run_is_loaded_equal(tmp_path):
    store = FolderStore(tmp_path / "store")
    run = Run("test", {"name": "test"}, plan_of(spec_of(tmp_path)))
    save(run, store)
    loaded = load("test", store)
    assert loaded.plan == run.plan
    assert isinstance(loaded.plan.steps["import-data"].inputs["images.a"].path, Path)


# --- quantization-aware training -------------------------------------------------------------------


def qat_spec(folder, precisions, **changes):
    data = spec_of(folder).model_dump(mode="json", exclude_none=True)["data"]
    data["sets"]["train"] = {"source": "a", "count": 6}
    return spec_of(folder, precisions=precisions, data=data, **changes)


def test_qat_goes_on_from_ptq_and_has_a_name_at_each_precision(tmp_path):
    plan = plan_of(qat_spec(tmp_path, ["fp32", "int8-qat", "fp16-qat", "fp32-qat"]))
    qat = plan.steps["qat/nanodet_m"]
    assert qat.inputs["ptq"] == Ref("ptq/nanodet_m", "record")
    assert qat.inputs["rounded"] == Ref("ptq/nanodet_m", "weights")
    assert qat.inputs["weights"] == Ref("import-weights/nanodet_m", "weights")
    assert plan.steps["export-qat/nanodet_m"].inputs == {"weights": Ref("qat/nanodet_m", "weights")}
    made_from = {cell.variant: plan.steps[f"build/{cell.name}"].inputs["onnx"].step for cell in plan.cells}
    assert made_from == {
        "fp32": "export/nanodet_m",
        "int8-qat": "qat/nanodet_m",
        "fp16-qat": "export-qat/nanodet_m",
        "fp32-qat": "export-qat/nanodet_m",
    }
    weights = [plan.steps["analyze"].inputs[f"weights-{index}"].step for index in range(4)]
    assert weights == ["import-weights/nanodet_m", *["qat/nanodet_m"] * 3]
    seen = set()
    for step in plan.steps.values():
        assert {ref.step for ref in step.upstream()} <= seen
        seen.add(step.id)


def test_recipe_of_qat_decides_qat_and_nothing_before_it(tmp_path):
    before = plan_of(qat_spec(tmp_path, ["fp32", "int8-ptq", "int8-qat"]))
    after = plan_of(qat_spec(tmp_path, ["fp32", "int8-ptq", "int8-qat"], qat={"preset": "short"}))
    assert "ptq" not in changed_kinds(before, after)
    assert {"qat", "build"} <= changed_kinds(before, after)


# --- INT8 by other seeds ---------------------------------------------------------------------------

INT8 = ["fp32", "int8-ptq", "int8-qat"]


@given(st.integers(1, 6), st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_repeats_add_what_makes_and_scores_int8_anew_and_move_nothing_else(tmp_path, calibrations, data):
    trainings = data.draw(st.integers(1, calibrations))
    before = plan_of(qat_spec(tmp_path, INT8))
    after = plan_of(qat_spec(tmp_path, INT8, repeats={"calibration": calibrations, "qat": trainings}))
    old, new = keys_of(before), keys_of(after)
    assert {step for step in old if new[step] != old[step]} <= {"analyze"}
    again, trained = calibrations - 1, trainings - 1
    assert Counter(after.steps[step].kind for step in new.keys() - old.keys()) == Counter(
        {
            "import-data": again,
            "ptq": again,
            "qat": trained,
            "build": again + trained,
            "predict": 2 * (again + trained),
            "score": again + trained,
        }
    )
    assert len(set(new.values())) == len(new)  # no work that other work repeats
    assert after.cells == before.cells
    seen = set()
    for step in after.steps.values():
        assert {ref.step for ref in step.upstream()} <= seen
        seen.add(step.id)


def test_more_repeats_keep_those_that_are_done(tmp_path):
    three = keys_of(plan_of(qat_spec(tmp_path, INT8, repeats={"calibration": 3, "qat": 2})))
    four = keys_of(plan_of(qat_spec(tmp_path, INT8, repeats={"calibration": 4, "qat": 2})))
    assert set(three.values()) - set(four.values()) == {three["analyze"]}


def test_repeat_is_calibrated_on_a_draw_of_its_own_and_trained_by_its_own_seed(tmp_path):
    plan = plan_of(qat_spec(tmp_path, INT8, repeats={"calibration": 3, "qat": 2}))
    draw, ptq, qat = (plan.steps[f"{step}/seed-43"] for step in ("import-data", "ptq/nanodet_m", "qat/nanodet_m"))
    assert draw.parameters["sets"] == {"calibration": {"source": "a", "count": 8}}
    assert (draw.parameters["seed"], qat.parameters["recipe"]["seed"]) == (43, 43)
    assert plan.steps["qat/nanodet_m"].parameters["recipe"]["seed"] == 42
    assert {name for name in draw.inputs if name.startswith("apart-")} == {
        "apart-evaluation",
        "apart-train",
        "apart-tuning",
    }
    assert ptq.inputs["calibration-images-000"] == Ref("import-data/seed-43", "calibration-images-000")
    assert ptq.inputs["tuning"] == Ref("import-data", "tuning")
    assert qat.inputs["ptq"] == Ref("ptq/nanodet_m/seed-43", "record")
    assert qat.inputs["train"] == Ref("import-data", "train")
    build = plan.steps["build/nanodet_m/int8-qat/host/seed-43"]
    assert build.inputs["onnx"] == Ref("qat/nanodet_m/seed-43", "onnx")
    assert "qat/nanodet_m/seed-44" not in plan.steps


def test_repeats_are_scored_by_the_analysis_whatever_became_of_them(tmp_path):
    analyze = plan_of(qat_spec(tmp_path, INT8, repeats={"calibration": 3, "qat": 2})).steps["analyze"]
    asked = {name: ref for name, ref in analyze.inputs.items() if name.startswith(("rebuild-", "rescore-"))}
    assert asked == {
        f"re{kind}-{row}-{seed}": Ref(f"{kind}/nanodet_m/{variant}/host/seed-{seed}", "record", tolerant=True)
        for kind in ("build", "score")
        for row, variant, seed in ((1, "int8-ptq", 43), (1, "int8-ptq", 44), (2, "int8-qat", 43))
    }
    fp32, ptq, qat = analyze.parameters["cells"]
    assert (fp32["seeds"], ptq["seeds"], qat["seeds"]) == ([42], [42, 43, 44], [42, 43])
    assert "only INT8" in fp32["why_no_repeats"]
    assert ptq["why_no_repeats"] is None


def test_repeats_that_were_not_asked_for_are_absent_for_that_reason(tmp_path):
    cells = plan_of(qat_spec(tmp_path, INT8, repeats={"calibration": 2})).steps["analyze"].parameters["cells"]
    assert [cell["seeds"] for cell in cells] == [[42], [42, 43], [42]]
    assert "does not ask to train anew" in cells[2]["why_no_repeats"]


def test_the_last_seed_is_followed_by_the_first(tmp_path):
    spec = spec_of(tmp_path, seed=2**32 - 1, repeats={"calibration": 3})
    assert spec.seeds(3) == [2**32 - 1, 0, 1]


def test_repeats_are_scored_on_the_first_device_that_computes_int8(tmp_path):
    old, new, newest = (
        Device(name, f"{name}-1", {"machine": name}, {}, precisions)
        for name, precisions in (
            ("simulated-nano", {"fast_int8": False}),
            ("simulated-orin-nano", {"fast_int8": True}),
            ("host", None),
        )
    )
    spec = spec_of(tmp_path, devices=[old.name, new.name, newest.name], repeats={"calibration": 2})
    devices = {device.name: device for device in (old, new, newest)}
    plan = make_plan(spec, devices, lambda path: Source(path, hash_json(path.name)), {"name": "test"})
    built = [step for step in plan.steps if step.startswith("build/") and step.endswith("/seed-43")]
    assert built == ["build/nanodet_m/int8-ptq/simulated-orin-nano/seed-43"]
    told = {cell["name"]: cell["why_no_repeats"] for cell in plan.steps["analyze"].parameters["cells"]}
    assert told["nanodet_m/int8-ptq/simulated-orin-nano"] is None
    assert "on simulated-orin-nano alone" in told["nanodet_m/int8-ptq/host"]
