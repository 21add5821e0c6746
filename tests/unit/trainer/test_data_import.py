"""Step import-data: checked, disjoint, packed, and the same bytes each time."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import pytest

from edgejoule.errors import DataError
from edgejoule.job import Job
from edgejoule_agent.shards import ShardReader
from edgejoule_trainer.data import generate, sets, shards
from edgejoule_trainer.steps import import_data

REAL = Path(os.environ.get("EDGEJOULE_SHARED", Path(__file__).parents[4] / "shared")) / "data" / "coco"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A generated data set: 12 images to train on, 6 to judge on."""
    folder = tmp_path_factory.mktemp("made")
    generate.generate(folder, {"train": 12, "val": 6}, seed=0)
    return folder


@pytest.fixture
def own(made, tmp_path):
    """A copy of it that a test may spoil."""
    for path in made.rglob("*"):
        target = tmp_path / "own" / path.relative_to(made)
        if path.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return tmp_path / "own"


def run(folder, into, sets, *, sources=("train", "val"), skip_bad=False, seed=0, apart=None, **parts):
    into.mkdir(parents=True)
    parameters = {
        "sets": {role: {"source": source, "count": count} for role, (source, count) in sets.items()},
        "shards": {role: parts.get(role, 1) for role in sets},
        "seed": seed,
        "skip_bad": skip_bad,
    }
    inputs = {f"annotations.{name}": folder / "annotations" / f"{name}.json" for name in sources}
    inputs |= {f"images.{name}": folder / name for name in sources}
    if apart is not None:
        inputs |= {"apart": apart / "record"}
        inputs |= {f"apart-{role}": apart / role for role in read(apart, "record")["sets"] if role not in sets}
    import_data.run(Job(parameters, inputs, into, into, lambda *_: None))
    return into


def read(into, name):
    return json.loads((into / name).read_text())


FOUR = {
    "train": ("train", None),
    "calibration": ("train", 4),
    "tuning": ("train", 2),
    "evaluation": ("val", None),
}


def test_import_writes_four_disjoint_sets(made, tmp_path):
    out = run(made, tmp_path / "out", FOUR, evaluation=2)
    ids = {role: [image["id"] for image in read(out, role)["images"]] for role in FOUR}
    assert {role: len(chosen) for role, chosen in ids.items()} == {
        "train": 6,
        "calibration": 4,
        "tuning": 2,
        "evaluation": 6,
    }
    assert len(set().union(*ids.values())) == 18
    record = read(out, "record")
    assert record["sets"]["evaluation"]["images"] == 6
    assert record["sets"]["evaluation"]["boxes"] == len(read(out, "evaluation")["annotations"])
    assert record["sources"]["val"]["left_out"] == []


def test_import_writes_annotations_as_the_source_has_them(made, tmp_path):
    dataset = read(run(made, tmp_path / "out", {"evaluation": ("val", None)}, sources=("val",)), "evaluation")
    source = json.loads((made / "annotations" / "val.json").read_text())
    assert dataset["annotations"] == sorted(source["annotations"], key=lambda annotation: annotation["id"])
    assert dataset["categories"] == source["categories"]


def test_the_agent_reads_the_shards_that_import_packs(made, tmp_path):
    out = run(made, tmp_path / "out", {"train": ("train", 11)}, sources=("train",), train=3)
    images = read(out, "train")["images"]
    found = {}
    for number, size in enumerate((4, 4, 3)):
        with ShardReader(out / f"train-images-{number:03d}") as shard:
            assert len(shard) == size
            found |= dict(shard)
    assert list(found) == [image["id"] for image in images] == sorted(found)
    assert [hashlib.sha256(content).hexdigest() for content in found.values()] == [i["sha256"] for i in images]


def test_import_writes_the_same_bytes_again(made, tmp_path):
    first, again = run(made, tmp_path / "a", FOUR), run(made, tmp_path / "b", FOUR)
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_import_packs_only_the_sets_asked_for(made, tmp_path):
    out = run(made, tmp_path / "out", {"tuning": ("val", 2)}, sources=("val",))
    assert sorted(path.name for path in out.iterdir()) == ["record", "tuning", "tuning-images-000"]


def truncate(folder, name):
    path = folder / name
    path.write_bytes(path.read_bytes()[:-100])


def spoil(folder):
    """Two bad images and one bad box among the six of val; gives the ids."""
    truncate(folder, "val/000001000002.jpg")
    (folder / "val" / "000001000004.jpg").unlink()
    path = folder / "annotations" / "val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["bbox"][2] = 0
    path.write_text(json.dumps(content))
    return content["annotations"][0]["id"]


def test_import_stops_at_a_bad_annotation_file_before_any_image_is_read(own, tmp_path):
    box = spoil(own)
    with pytest.raises(DataError, match=f"1 problem .*\n.*val.json: annotation {box} has a box of 0 x"):
        run(own, tmp_path / "out", {"evaluation": ("val", None)}, sources=("val",))


def test_a_bad_box_matters_only_if_its_image_is_drawn(own, tmp_path):
    """The official train2017 has two boxes without area among 118,000 images."""
    path = own / "annotations" / "val.json"
    content = json.loads(path.read_text())
    drawn = sets.stable_order((image["id"] for image in content["images"]), seed=0)
    for annotation in content["annotations"]:
        if annotation["image_id"] == drawn[-1]:
            annotation["area"] = 0
    path.write_text(json.dumps(content))
    out = run(own, tmp_path / "out", {"tuning": ("val", 5)}, sources=("val",))
    assert read(out, "record")["sources"]["val"]["left_out"] == []
    with pytest.raises(DataError, match="has area 0"):
        run(own, tmp_path / "all", {"tuning": ("val", 6)}, sources=("val",))


def test_import_names_every_bad_image(own, tmp_path):
    truncate(own, "val/000001000002.jpg")
    (own / "val" / "000001000004.jpg").unlink()
    with pytest.raises(DataError, match=r"2 problems") as error:
        run(own, tmp_path / "out", {"evaluation": ("val", None)}, sources=("val",))
    assert "000001000002.jpg: image 1000002 is a truncated JPEG" in str(error.value)
    assert "000001000004.jpg: image 1000004 is not in the folder" in str(error.value)


def test_import_leaves_bad_entries_out_and_records_them_when_told_to(own, tmp_path):
    box = spoil(own)
    out = run(own, tmp_path / "out", {"evaluation": ("val", None)}, sources=("val",), skip_bad=True)
    dataset = read(out, "evaluation")
    assert [image["id"] for image in dataset["images"]] == [1000001, 1000003, 1000005, 1000006]
    assert box not in [annotation["id"] for annotation in dataset["annotations"]]
    assert {annotation["image_id"] for annotation in dataset["annotations"]} <= {1000001, 1000003, 1000005, 1000006}
    left_out = read(out, "record")["sources"]["val"]["left_out"]
    assert [(entry["kind"], entry["id"]) for entry in left_out] == [
        ("no-area", box),
        ("truncated-image", 1000002),
        ("missing-image", 1000004),
    ]


def test_import_draws_good_images_in_place_of_bad_ones(own, tmp_path):
    spoil(own)
    out = run(own, tmp_path / "out", {"evaluation": ("val", 4)}, sources=("val",), skip_bad=True)
    assert len(read(out, "evaluation")["images"]) == 4
    with pytest.raises(DataError, match="evaluation asks for 5 of source 'val', which has 4 usable images"):
        run(own, tmp_path / "more", {"evaluation": ("val", 5)}, sources=("val",), skip_bad=True)


def test_import_finds_an_image_that_is_in_two_sources(own, tmp_path):
    """What calibrating on the evaluation images, kept in two folders, comes to."""
    content = (own / "train" / "000000000003.jpg").read_bytes()
    (own / "val" / "000001000005.jpg").write_bytes(content)
    annotations = json.loads((own / "annotations" / "val.json").read_text())
    train = json.loads((own / "annotations" / "train.json").read_text())["images"][2]
    annotations["images"][4].update(width=train["width"], height=train["height"])
    annotations["annotations"] = [a for a in annotations["annotations"] if a["image_id"] != 1000005]
    (own / "annotations" / "val.json").write_text(json.dumps(annotations))
    with pytest.raises(DataError, match=r"evaluation \(image 1000005\) and train \(image 3\): same content"):
        run(own, tmp_path / "out", {"evaluation": ("val", None), "train": ("train", None)})


def test_import_finds_one_source_under_two_names(made, tmp_path):
    parameters = {
        "sets": {"evaluation": {"source": "a", "count": None}, "calibration": {"source": "b", "count": 2}},
        "shards": {"evaluation": 1, "calibration": 1},
        "seed": 0,
        "skip_bad": False,
    }
    inputs = {}
    for name in "ab":
        inputs |= {f"annotations.{name}": made / "annotations" / "val.json", f"images.{name}": made / "val"}
    with pytest.raises(DataError, match=r"2 images are in two .*\n.*same id in the same annotation file"):
        import_data.run(Job(parameters, inputs, tmp_path, tmp_path, lambda *_: None))


def test_import_needs_the_same_categories_in_every_source(own, tmp_path):
    path = own / "annotations" / "val.json"
    content = json.loads(path.read_text())
    content["categories"][1]["name"] = "box"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="must have the same categories, and differ in 1, for one in 2"):
        run(own, tmp_path / "out", FOUR)


def test_import_numbers_annotations_from_one_as_the_scorer_needs(own, tmp_path):
    path = own / "annotations" / "val.json"
    content = json.loads(path.read_text())
    content["annotations"][0]["id"] = 0
    path.write_text(json.dumps(content))
    out = run(own, tmp_path / "out", {"evaluation": ("val", None)}, sources=("val",))
    assert min(annotation["id"] for annotation in read(out, "evaluation")["annotations"]) == 1
    assert read(out, "record")["sources"]["val"]["annotation_ids_raised_by"] == 1


def test_import_names_a_folder_that_is_not_there(own, tmp_path):
    for path in (own / "val").iterdir():
        path.unlink()
    (own / "val").rmdir()
    with pytest.raises(DataError, match="there is no such images folder"):
        run(own, tmp_path / "out", {"evaluation": ("val", None)}, sources=("val",))


def test_split_needs_an_image_for_each_shard():
    assert shards.split("abcde", 5) == list("abcde")
    for parts in (0, 6):
        with pytest.raises(DataError, match=r"set data\.shards to at most 5"):
            shards.split("abcde", parts)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real COCO images are not here")
def test_import_takes_real_coco_with_its_crowds(tmp_path):
    parameters = {
        "sets": {"evaluation": {"source": "v", "count": 30}, "calibration": {"source": "t", "count": 20}},
        "shards": {"evaluation": 2, "calibration": 1},
        "seed": 1,
        "skip_bad": False,
    }
    inputs = {
        "annotations.v": REAL / "annotations" / "instances_val2017_official206.json",
        "images.v": REAL / "val2017",
        "annotations.t": REAL / "annotations" / "instances_train2017_all343.json",
        "images.t": REAL / "train2017",
    }
    import_data.run(Job(parameters, inputs, tmp_path, tmp_path, lambda *_: None))
    record = read(tmp_path, "record")
    assert record["sets"]["evaluation"]["images"] == 30
    assert record["sets"]["evaluation"]["categories"] == 80
    assert record["sources"]["v"]["left_out"] == record["sources"]["t"]["left_out"] == []


# --- a set drawn anew ------------------------------------------------------------------------------


COUNTED = {**FOUR, "train": ("train", 3), "calibration": ("train", 3)}
ANEW = {"calibration": ("train", 3)}


def ids_of(out, role):
    return {image["id"] for image in read(out, role)["images"]}


def test_calibration_drawn_anew_stays_apart_from_the_other_sets(made, tmp_path):
    first = run(made, tmp_path / "first", COUNTED)
    taken = ids_of(first, "tuning") | ids_of(first, "train")
    free = ids_of(run(made, tmp_path / "all", {"train": ("train", None)}, sources=("train",)), "train") - taken
    draws = []
    for seed in range(1, 21):
        out = run(made, tmp_path / str(seed), ANEW, sources=("train",), seed=seed, apart=first)
        assert sorted(path.name for path in out.iterdir()) == ["calibration", "calibration-images-000", "record"]
        draws.append(ids_of(out, "calibration"))
        assert len(draws[-1]) == 3
        assert draws[-1] <= free
    assert set().union(*draws) == free  # of 7, among them those of the first calibration
    assert len({frozenset(drawn) for drawn in draws}) > 10


def test_set_is_drawn_anew_only_where_it_can_differ(made, tmp_path):
    first = run(made, tmp_path / "first", {**COUNTED, "calibration": ("train", 4)})
    with pytest.raises(DataError, match="draws 4 images anew from source 'train', where the other sets leave 7; 8 are"):
        run(made, tmp_path / "anew", {"calibration": ("train", 4)}, sources=("train",), seed=1, apart=first)


def test_set_drawn_anew_holds_no_copy_of_what_is_judged_on(made, tmp_path):
    """Six of the seven images that are free have the content of an evaluation image, under other ids."""
    first = run(made, tmp_path / "first", COUNTED)
    taken = ids_of(first, "tuning") | ids_of(first, "train")
    files = json.loads((made / "annotations" / "train.json").read_text())["images"]
    free = [made / "train" / image["file_name"] for image in files if image["id"] not in taken]
    judged = read(first, "evaluation")
    for image, path in zip(judged["images"], free, strict=False):
        image["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (first / "evaluation").write_text(json.dumps(judged))
    with pytest.raises(DataError, match=r"evaluation \(image \d+\) and calibration \(image \d+\): same content"):
        run(made, tmp_path / "anew", ANEW, sources=("train",), seed=1, apart=first)
