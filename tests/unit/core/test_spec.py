"""The spec: what it accepts, and that each mistake is told with its place and the way out."""

import os
import re
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgejoule.errors import SpecError
from edgejoule.protocols import PRESETS
from edgejoule.spec import Qat, as_written, check_spec, load_spec, read_tree
from edgejoule.yamltree import MAX_BYTES, parse_yaml

GOOD = """\
name: shapes
models:
  - detector: nanodet_m
    weights: nanodet.pth
precisions: [fp32, int8-ptq]
data:
  sources:
    train: {images: train, annotations: train.json}
    val: {images: "${VAL:-val}", annotations: val.json}
  sets:
    calibration: {source: train}
    tuning: {source: train}
    evaluation: {source: val}
protocol: quick
"""
EXAMPLES = Path(__file__).parents[3] / "examples"
FILE = "demo.yaml"  # one that is there


@pytest.fixture
def folder(tmp_path):
    for name in ("train", "val"):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.json").write_text("{}")
    (tmp_path / "nanodet.pth").write_bytes(b"weights")
    return tmp_path


def write(folder, text):
    path = folder / "spec.yaml"
    path.write_text(textwrap.dedent(text))
    return path


def problems(folder, text, *settings, environment=None):
    with pytest.raises(SpecError) as caught:
        load_spec(write(folder, text), settings, environment or {})
    return [line.removeprefix(f"{folder}/") for line in str(caught.value).splitlines()]


def test_spec_has_defaults_and_absolute_paths(folder):
    spec = load_spec(write(folder, GOOD), environment={})
    assert spec.models[0].name == "nanodet_m"
    assert spec.models[0].weights == folder / "nanodet.pth"
    assert [device.label for device in spec.devices] == ["host"]
    assert spec.random_seed == 42
    assert (spec.set_size("calibration"), spec.set_size("tuning"), spec.set_size("evaluation")) == (64, 64, None)


def test_weights_may_be_a_folder(folder):
    spec = load_spec(write(folder, GOOD.replace("nanodet.pth", "train")), environment={})
    assert spec.models[0].weights == folder / "train"


def test_environment_is_put_into_paths(folder):
    (folder / "elsewhere").mkdir()
    spec = load_spec(write(folder, GOOD), environment={"VAL": str(folder / "elsewhere")})
    assert spec.data.sources["val"].images == folder / "elsewhere"


def test_unset_variable_is_named(folder):
    text = GOOD.replace("nanodet.pth", "${WEIGHTS}/nanodet.pth")
    said = "environment variable WEIGHTS is not set or empty; export it, or write ${WEIGHTS:-default}"
    assert problems(folder, text) == [f"spec.yaml:4: weights: {said}"]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("precisions:", "precision:", "spec.yaml:5: unknown key 'precision'; did you mean 'precisions'?"),
        ("precisions:", "precision:", "spec.yaml: the key 'precisions' is missing"),
        ("    weights:", "    wieghts:", "spec.yaml:4: unknown key 'wieghts'; did you mean 'weights'?"),
        (
            "int8-ptq",
            "int8_ptq",
            "spec.yaml:5: 'int8_ptq' is none of fp32, fp16, int8-ptq, int8-qat, fp32-qat, fp16-qat; "
            "did you mean 'int8-ptq'?",
        ),
        ("nanodet.pth", "nanodet.pt", "spec.yaml:4: weights: there is no file {folder}/nanodet.pt"),
        (
            "nanodet.pth",
            "val.json",
            "{folder}/val.json needs the files beside it; give the folder they lie in, {folder}",
        ),
        ("train.json}", "train}", "annotations: {folder}/train is a folder, not a file"),
        ("{images: train,", "{images: train.json,", "images: {folder}/train.json is a file, not a folder"),
        ("protocol: quick", "protocol: qick", "protocol: there is no preset 'qick'; did you mean 'quick'?"),
        ("protocol: quick", "protocol: [1]", "must be a preset (paper, standard, quick) or a mapping, not a list of 1"),
        ("protocol: quick", "protocol: {comparable: true}", "'comparable' follows from the preset and cannot be set"),
        ("protocol: quick", "protocol: {itertions: 5}", "unknown key 'itertions'; did you mean 'iterations'?"),
        ("protocol: quick", "protocol: {trials: 0}", "trials: must be greater than or equal to 1, not 0"),
        ("protocol: quick", "threads: two", "spec.yaml:14: threads: must be a whole number, not 'two'"),
        ("protocol: quick", "threads: true", "spec.yaml:14: threads: must be a whole number, not True"),
        ("protocol: quick", "threads: .nan", "spec.yaml:14: threads: must be a whole number, not nan"),
        ("protocol: quick", "devices: [nano]", "spec.yaml:14: there is no device 'nano'; there are host"),
        ("protocol: quick", "devices: [host, host]", "'host' is there 2 times; name it once"),
        (
            "protocol: quick",
            "devices: [{name: host, power_mod: 5W}]",
            "unknown key 'power_mod'; did you mean 'power_mode'",
        ),
        ("protocol: quick", "devices: [{power_mode: 5W}]", "the key 'name' is missing"),
        ("protocol: quick", "devices: [{name: host, power_mode: 5 W}]", "power_mode: '5 W' must be letters, digits"),
        ("protocol: quick", "devices: [7]", "devices: must be a mapping (key: value), not 7"),
        ("protocol: quick", "protocol: {start_temp_c: [60, 5]}", "must be two temperatures, the lower first"),
        ("protocol: quick", "protocol: {power_window_s: 0}", "power_window_s: must be greater than 0, not 0"),
        (
            "tuning: {source: train}",
            "tuning: {source: trian}",
            "no source 'trian' in data.sources; did you mean 'train'",
        ),
        ("    tuning: {source: train}\n", "", "spec.yaml:10: precision int8-ptq needs a tuning set"),
        ("    calibration: {source: train}\n", "", "spec.yaml:10: precision int8-ptq needs a calibration set"),
        ("    evaluation: {source: val}\n", "", "spec.yaml:10: there is no evaluation set"),
        ("tuning:", "tunning:", "'tunning' is none of train, calibration, tuning, evaluation; did you mean 'tuning'?"),
        ("    weights: nanodet.pth\n", "", "spec.yaml:3: has neither weights nor train"),
        ("    weights: nanodet.pth\n", "    train: {iterations: 1}\n", "training needs a train set in data.sets"),
        (
            "name: shapes",
            "name: ../up",
            "spec.yaml:1: name: '../up' must be letters, digits, '.', '_' or '-', 64 at most",
        ),
        ("name: shapes", "name: shapes\nname: again", "spec.yaml:2: the key 'name' is there twice"),
        ('"${VAL:-val}"', "${VAL:-val}", "inside { } or [ ], put ${NAME} in quotes"),
        ("nanodet.pth", "nanodet.pth\n    input: 100", "spec.yaml:5: input: must be a multiple of 32, not 100"),
        ("nanodet.pth", "nanodet.pth\n    input: [320, 100]", "spec.yaml:5: input: must be a multiple of 32, not 100"),
        ("nanodet.pth", "nanodet.pth\n    input: []", "spec.yaml:5: input: is empty; name at least one"),
        ("nanodet.pth", "nanodet.pth\n    input: {}", "input: must be a whole number, not an empty mapping"),
        ("nanodet.pth", "nanodet.pth\n    batch: 0", "spec.yaml:5: batch: must be greater than or equal to 1, not 0"),
        ("nanodet.pth", "nanodet.pth\n    batch: [1, 257]", "batch: must be less than or equal to 256, not 257"),
        ("nanodet.pth", "nanodet.pth\n    batch: true", "spec.yaml:5: batch: must be a whole number, not True"),
        ("nanodet.pth", "nanodet.pth\n    batch:", "spec.yaml:5: batch: must be a whole number, not nothing"),
        ("nanodet.pth", "nanodet.pth\n    batch: [4, 1, 4]", "spec.yaml:5: 4 is there 2 times; name it once"),
        (
            "protocol: quick",
            "repeats: {calibration: 0}",
            "spec.yaml:14: calibration: must be greater than or equal to 1",
        ),
        ("protocol: quick", "repeats: {calibraton: 3}", "unknown key 'calibraton'; did you mean 'calibration'?"),
        (
            "protocol: quick",
            "repeats: {calibration: 3, qat: 3}",
            "spec.yaml:14: qat: there is nothing to make anew; precisions has no int8-qat",
        ),
        (
            "[fp32, int8-ptq]",
            "[fp32]\nrepeats: {calibration: 3}",
            "spec.yaml:6: calibration: there is nothing to make anew; precisions has no int8-ptq or int8-qat",
        ),
        (
            "protocol: quick",
            "repeats: {calibration: 2, qat: 3}",
            "spec.yaml:14: qat: 3 trainings need as many calibrations to go on from, and repeats.calibration is 2",
        ),
        (
            "protocol: quick",
            "    train: {source: train}\nrepeats: {calibration: 3}",
            "spec.yaml:14: takes all that is left of source 'train', and repeats.calibration draws anew from that; "
            "give train a count",
        ),
    ],
)
def test_mistake_is_told_with_its_line(folder, old, new, said):
    assert old in GOOD
    assert said.replace("{folder}", str(folder)) in "\n".join(problems(folder, GOOD.replace(old, new, 1)))


def test_all_problems_are_told_at_once(folder):
    text = GOOD.replace("fp32", "fp23").replace("nanodet.pth", "absent.pth").replace("protocol:", "protocoll:")
    assert len(problems(folder, text)) == 3


def test_two_models_need_two_names(folder):
    text = GOOD.replace("precisions", "  - {detector: nanodet_m, weights: nanodet.pth}\nprecisions", 1)
    assert problems(folder, text) == ["spec.yaml:5: 'nanodet_m' is there 2 times; give each model a name of its own"]


def test_name_that_an_axis_makes_may_not_be_there_already(folder):
    weights = "weights: nanodet.pth"
    text = GOOD.replace(weights, f"{weights}\n    batch: [2, 4]\n    input: [320, 416]")
    named = "  - {detector: nanodet_m, weights: nanodet.pth, name: NAME}\nprecisions"
    for name in ("nanodet_m-320", "nanodet_m-416-b4"):  # a training of another, and a row of another
        found = problems(folder, text.replace("precisions", named.replace("NAME", name), 1))
        said = f"models.0 and models.1 would both be called '{name}', by their input and batch"
        assert found == [f"spec.yaml:7: {said}; give each model a name of its own"]
    for name in ("nanodet_m-b4", "nanodet_m"):  # rows of the first say their input too
        fine = text.replace("precisions", named.replace("NAME", name), 1)
        assert len(load_spec(write(folder, fine), environment={}).models) == 2


@given(
    st.none() | st.lists(st.integers(1, 128).map(lambda n: 32 * n), min_size=1, max_size=4, unique=True),
    st.lists(st.integers(1, 256), min_size=1, max_size=4, unique=True),
    st.booleans(),
)
def test_axes_of_a_model_are_a_value_or_a_list_and_are_quoted_as_short_as_can_be(inputs, batches, short):
    tree = parse_yaml(GOOD.replace("nanodet.pth", "."), "spec.yaml", lines=True)
    tree.value["data"]["sources"] = {name: {"images": ".", "annotations": FILE} for name in ("train", "val")}
    model, plain = tree.value["models"][0], as_written(check_spec(tree, EXAMPLES, {}), tree)
    for key, values in (("input", inputs), ("batch", batches)):
        model[key] = values[0] if short and values and len(values) == 1 else values
    spec = check_spec(tree, EXAMPLES, {})
    singles = spec.models[0].at_each_input()
    sides = inputs or [None]
    several = len(sides) > 1
    assert [single.side for single in singles] == sides
    assert [single.name for single in singles] == [f"nanodet_m-{side}" if several else "nanodet_m" for side in sides]
    assert all(single.batch == batches for single in singles)
    written = as_written(spec, tree)["models"][0]
    assert written.pop("batch", 1) == (batches[0] if len(batches) == 1 else batches)
    assert written.pop("input") == (inputs if several else sides[0])
    if inputs is None and batches == [1]:  # as before there were axes
        assert as_written(spec, tree) == plain
        assert "batch" not in plain["models"][0]


def test_setting_overrides_a_value(folder):
    settings = ["protocol.iterations=7", "models.0.name=mine", "threads=2", "data.sets.tuning.count=3"]
    spec = load_spec(write(folder, GOOD), settings, {})
    assert (spec.protocol.name, spec.protocol.iterations, spec.protocol.comparable) == ("quick*", 7, False)
    assert (spec.models[0].name, spec.threads, spec.set_size("tuning")) == ("mine", 2, 3)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("threads=0", "--set threads=0: threads: must be greater than or equal to 1, not 0"),
        ("thread=1", "--set thread=1: unknown key 'thread'; did you mean 'threads'?"),
        ("models.5.name=x", "--set models.5.name=x: models has no part 5; it is a list of 1"),
        ("name.x=1", "--set name.x=1: name has no part 'x'; it is 'shapes'"),
        ("threads", "--set threads: must look like key.subkey=value"),
        ("=1", "--set =1: must look like key.subkey=value"),
        ("name=[", "--set name=[: is not YAML"),
    ],
)
def test_wrong_setting_is_named(folder, setting, said):
    assert problems(folder, GOOD, setting)[0].startswith(said)


def test_preset_keeps_its_name_only_unchanged(folder):
    same = load_spec(write(folder, GOOD), ["protocol.iterations=50"], {})
    assert same.protocol == PRESETS["quick"]


def test_seed_of_the_spec_goes_before_the_protocols(folder):
    assert load_spec(write(folder, GOOD), ["seed=7"], {}).random_seed == 7
    assert load_spec(write(folder, GOOD), ["protocol.seed=8"], {}).random_seed == 8


def test_results_quote_paths_as_written(folder):
    tree = read_tree(write(folder, GOOD))
    written = as_written(check_spec(tree, folder, {}), tree)
    assert written["models"][0]["weights"] == "nanodet.pth"
    assert written["data"]["sources"]["val"]["images"] == "${VAL:-val}"
    assert written["protocol"]["iterations"] == 50
    assert str(folder) not in str(written)


# --- files that are no specs ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "a spec is a mapping (name:, models:, ...), not nothing"),
        (b"- 1\n", "a spec is a mapping (name:, models:, ...), not a list of 1"),
        (b"\x80\x81", "is not UTF-8 text (byte 1); is it really a spec?"),
        (b"name: \x00", "is not text: character #x0000 at 6"),
        (b"a: [1", "spec.yaml:1: is not YAML"),
        (b"a: b: c", "spec.yaml:1: is not YAML: mapping values are not allowed here"),
        (b"a: 1\n--- \nb: 2", "expected a single document"),
        (b"a: !!python/object:os.system x", "could not determine a constructor"),
        (b"a: &a [*a]", "spec.yaml:1: an anchor (&name) contains itself"),
        (b"? [1]\n: 2", "spec.yaml:1: a key must be a word, not a list or a mapping"),
        (b"a: 2001-99-99", "spec.yaml:1: '2001-99-99' is not a value"),
        (b"a: " + b"9" * 5000, "is not a value"),
        (b"[" * 5000, "is nested too deeply to be a spec"),
        (b"#" * (MAX_BYTES + 1), "is larger than 1000000 bytes; a spec is a short text"),
    ],
)
def test_file_that_is_no_spec_is_one_sentence(tmp_path, content, said):
    path = tmp_path / "spec.yaml"
    path.write_bytes(content)
    with pytest.raises(SpecError, match=re.escape(said)) as caught:
        load_spec(path)
    assert "\n" not in str(caught.value)


def test_alias_bomb_is_refused(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(SpecError, match=r"the aliases .* unfold to more than 100000 values"):
        load_spec(path)


def test_missing_file_and_folder_are_told_apart(tmp_path):
    with pytest.raises(SpecError, match="there is no such file"):
        load_spec(tmp_path / "absent.yaml")
    with pytest.raises(SpecError, match="is a folder; name the spec file in it"):
        load_spec(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_told(tmp_path):
    path = tmp_path / "spec.yaml"
    path.touch(mode=0)
    with pytest.raises(SpecError, match="cannot be read: Permission denied"):
        load_spec(path)


@given(st.text(max_size=60))
def test_any_text_is_parsed_or_refused_in_words(text):
    with pytest.raises(SpecError, match=r"^spec\.yaml"):
        check_spec(parse_yaml(text, "spec.yaml", lines=True), Path("/nonexistent"), {})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


@given(
    st.sampled_from(["name", "models", "precisions", "devices", "data", "protocol", "quantization", "seed", "threads"]),
    VALUES,
)
def test_any_value_anywhere_is_accepted_or_refused_in_words(key, value):
    tree = parse_yaml(GOOD, "spec.yaml", lines=True)
    tree.value[key] = value
    with pytest.raises(SpecError) as caught:
        check_spec(tree, Path("/nonexistent"), {})
    assert all(line.startswith("spec.yaml:") for line in str(caught.value).splitlines())


# --- presets and examples ------------------------------------------------------------------------


def paper():
    shared = Path(os.environ.get("EDGEJOULE_SHARED", Path(__file__).parents[4] / "shared"))
    path = shared / "reference" / "paper.txt"
    if not path.is_file():
        pytest.skip("the paper's text is not here; EDGEJOULE_SHARED names its folder")
    return path.read_text(encoding="utf-8")


def test_paper_preset_is_the_papers_table_5():
    table = paper().split("**Table 5.**")[1].split("Note:")[0]
    rows = dict(line.split("\t", 1) for line in table.splitlines() if "\t" in line)
    measured = re.fullmatch(r"Mean over ([\d,]+) iterations \((\d+)-iteration warmup\)", rows["Latency measurement"])
    preset = PRESETS["paper"]
    assert preset.iterations == int(measured[1].replace(",", ""))
    assert preset.warmup_iterations == int(measured[2])
    assert preset.confidence == float(rows["Confidence threshold"])
    assert preset.nms_iou == float(rows["NMS threshold"])
    assert preset.calibration_images == int(rows["PTQ calibration subset"].split()[0].replace(",", ""))
    assert preset.seed == int(rows["Random seed"].split()[0])
    assert preset.workspace_mb == 1000 * int(rows["TensorRT workspace"].split()[0])


def test_paper_preset_is_the_papers_protocol_in_the_text():
    text = paper()
    assert f"sampled at {PRESETS['paper'].power_sampling_ms}ms intervals" in text
    assert re.search(r"averaged across all (\d) trials", text)[1] == str(PRESETS["paper"].trials)


def test_only_quick_is_not_comparable():
    assert [name for name, preset in PRESETS.items() if not preset.comparable] == ["quick"]


@pytest.mark.parametrize("name", sorted(path.stem for path in EXAMPLES.glob("*.yaml")))
def test_example_is_a_spec(tmp_path, name):
    """Each example, beside files that it names."""
    text = (EXAMPLES / f"{name}.yaml").read_text()
    here = tmp_path / "examples"
    here.mkdir()
    for run in ("demo", "demo-full", "learnability"):
        data = tmp_path / "runs" / run / "data"
        for folder in ("train", "val", "annotations"):
            (data / folder).mkdir(parents=True)
        for split in ("train", "val"):
            (data / "annotations" / f"{split}.json").touch()
    for detector in ("ssdlite_mobilenet_v3", "efficientdet_d0"):  # what shapes-qat.yaml says to fetch first
        (tmp_path / "runs/learnability" / f"{detector}.safetensors").touch()
    for folder in ("train2017", "val2017", "annotations", "ssd"):
        (tmp_path / folder).mkdir()
    for file in ("annotations/instances_train2017.json", "annotations/instances_val2017.json"):
        (tmp_path / file).touch()
    for start in EXAMPLES.glob("*.safetensors"):
        (here / start.name).touch()
    (here / f"{name}.yaml").write_text(text)
    environment = {
        "COCO": str(tmp_path),
        "NANODET_WEIGHTS": str(here / "nanodet_m_shapes.safetensors"),
        "SSD_WEIGHTS": str(tmp_path / "ssd"),
    }
    spec = load_spec(here / f"{name}.yaml", environment=environment)
    assert spec.name == name
    assert spec.precisions[0] == "fp32"


# --- quantization-aware training -------------------------------------------------------------------


def test_qat_is_the_papers_recipe_where_nothing_is_said():
    recipe = Qat().recipe()
    # Table 5: Adam (AdamW without decay), 1e-4, batch 16, 10,000 iterations, flip .5, scale .5-1.5, jitter .2
    assert recipe == {
        "iterations": 10_000,
        "batch": 16,
        "learning_rate": 1e-4,
        "weight_decay": 0.0,
        "warmup_iterations": 0,
        "average_decay": 0.0,
        "distillation": 0.0,
        "augmentation": {"flip": 0.5, "zoom": [0.5, 1.5], "jitter": 0.2},
    }


def test_qat_preset_gives_values_that_the_spec_may_change(folder):
    text = GOOD.replace("[fp32, int8-ptq]", "[int8-qat]") + "qat: {preset: short, iterations: 7}\n"
    text = text.replace("    tuning: {source: train}", "    tuning: {source: train}\n    train: {source: train}")
    (folder / "qat.yaml").write_text(text)
    spec = load_spec(folder / "qat.yaml", (), {})
    assert (spec.qat.iterations, spec.qat.distillation, spec.qat.augmentation.zoom) == (7, 1.0, (0.8, 1.2))
    assert spec.qat.augmentation.flip == 0.5


def test_unknown_qat_preset_is_told_with_the_nearest(folder):
    found = "\n".join(problems(folder, GOOD + "qat: papr\n"))
    assert "qat: there is no preset 'papr'; did you mean 'paper'?" in found


def test_qat_without_a_train_set_is_refused(folder):
    found = "\n".join(problems(folder, GOOD.replace("[fp32, int8-ptq]", "[int8-qat]")))
    assert "precision int8-qat needs a train set, to train the weights" in found
