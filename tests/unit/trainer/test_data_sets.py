"""The four sets: a stable draw, and no image in two of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgejoule.errors import DataError
from edgejoule_trainer.data.sets import ROLES, Member, Wish, draw, require_choice, require_disjoint, stable_order

IDS = st.lists(st.integers(0, 10**6), unique=True, min_size=1, max_size=60)


@given(ids=IDS, seed=st.integers(0, 2**32), data=st.data())
def test_stable_order_moves_no_other_image_when_one_leaves(ids, seed, data):
    gone = data.draw(st.sampled_from(ids))
    rest = [id_ for id_ in ids if id_ != gone]
    assert stable_order(rest, seed) == [id_ for id_ in stable_order(ids, seed) if id_ != gone]


@given(ids=IDS, seed=st.integers(0, 2**32), data=st.data())
def test_draw_gives_disjoint_sets_of_the_sizes_asked_for(ids, seed, data):
    left, wishes = len(ids), {}
    for role in data.draw(st.permutations(ROLES)):
        count = data.draw(st.integers(0, left))
        if count:
            wishes[role] = Wish("all", count)
            left -= count
    drawn = draw(wishes, {"all": ids}, seed)
    assert {role: len(chosen) for role, chosen in drawn.items()} == {role: w.count for role, w in wishes.items()}
    together = [id_ for chosen in drawn.values() for id_ in chosen]
    assert len(together) == len(set(together))
    assert set(together) <= set(ids)
    assert all(chosen == sorted(chosen) for chosen in drawn.values())


def test_draw_gives_the_rest_to_the_set_without_a_count():
    drawn = draw({"train": Wish("s", None), "calibration": Wish("s", 3)}, {"s": range(10)}, seed=0)
    assert len(drawn["calibration"]) == 3
    assert sorted(drawn["calibration"] + drawn["train"]) == list(range(10))


def test_draw_takes_a_whole_source_and_another_order_for_another_seed():
    assert draw({"evaluation": Wish("s", None)}, {"s": [3, 1, 2]}, seed=0) == {"evaluation": [1, 2, 3]}
    picks = {tuple(draw({"tuning": Wish("s", 5)}, {"s": range(100)}, seed)["tuning"]) for seed in range(5)}
    assert len(picks) == 5


@pytest.mark.parametrize(
    ("wishes", "complaint"),
    [
        ({"test": Wish("s", 1)}, "set 'test' is unknown"),
        ({"train": Wish("t", 1)}, "source 't', which is not given"),
        ({"train": Wish("s", 0)}, "train asks for 0 images"),
        ({"train": Wish("s", 11)}, "train asks for 11 of source 's', which has 10 usable images; lower the count"),
        (
            {"evaluation": Wish("s", 10), "calibration": Wish("s", 4)},
            "calibration asks for 4 .* gives 10 to evaluation; 0 are left, and an image may be in one set only",
        ),
        ({"evaluation": Wish("s", None), "tuning": Wish("s", None)}, "tuning asks for the rest .* 10 to evaluation"),
    ],
)
def test_draw_refuses_what_the_source_cannot_give(wishes, complaint):
    with pytest.raises(DataError, match=complaint):
        draw(wishes, {"s": range(10)}, seed=0)


def test_require_disjoint_accepts_equal_ids_of_different_data_sets():
    require_disjoint({"train": [Member("a", 1, "x"), Member("a", 2, "y")], "evaluation": [Member("b", 1, "z")]})


def test_require_disjoint_lists_an_id_that_is_in_two_sets_of_one_file():
    sets = {"calibration": [Member("a", 7, "x")], "evaluation": [Member("a", 7, "x"), Member("a", 8, "y")]}
    with pytest.raises(DataError, match=r"calibration \(image 7\) and evaluation \(image 7\): same id in") as error:
        require_disjoint(sets)
    assert "1 image is in two" in str(error.value)


def test_require_disjoint_finds_a_copy_by_its_content():
    with pytest.raises(DataError, match=r"train \(image 1\) and evaluation \(image 900\): same content"):
        require_disjoint({"train": [Member("a", 1, "x")], "evaluation": [Member("b", 900, "x")]})


def test_require_disjoint_leaves_copies_within_one_set_alone():
    require_disjoint({"train": [Member("a", 1, "x"), Member("a", 2, "x")]})


def test_require_disjoint_lists_twenty_and_counts_the_rest():
    members = [Member("a", id_, f"{id_}") for id_ in range(25)]
    with pytest.raises(DataError, match="25 images are in two") as error:
        require_disjoint({"calibration": members, "evaluation": members})
    assert "and 5 more" in str(error.value)
    assert str(error.value).count("same id") == 20


def test_set_drawn_anew_needs_twice_as_many_images():
    wishes = {"calibration": Wish("s", 4)}
    require_choice(wishes, {"s": range(8)})
    with pytest.raises(
        DataError, match="calibration draws 4 images anew from source 's', where the other sets leave 7;"
    ):
        require_choice(wishes, {"s": range(7)})
