"""Sampling weights from a flat Dirichlet distribution is the oracle of the exact shares."""

import numpy as np
import pytest

from edgejoule.errors import OptionError
from edgejoule_analyst.claims import load_paper
from edgejoule_analyst.ranking import normalized, parse_weights, weigh, winning_shares

PAPER = {  # Table 9, INT8 QAT, all that it prints: AP50 in percent, ms, W; and their product in mJ
    row.model: (float(row.ap50), float(row.latency_ms), float(row.power_w), float(row.latency_ms * row.power_w))
    for row in load_paper().rows.values()
    if row.variant == "int8-qat"
}
BETTER = [True, False, False, False]


def sampled(scores: np.ndarray, draws: int = 100_000) -> np.ndarray:
    weights = np.random.default_rng(0).dirichlet(np.ones(scores.shape[1]), draws)
    return np.bincount((weights @ scores.T).argmax(axis=1), minlength=len(scores)) / draws


@pytest.mark.parametrize(("seed", "cells", "metrics"), [(0, 4, 2), (1, 6, 3), (2, 12, 4), (3, 25, 5), (4, 8, 6)])
def test_shares_are_those_of_sampled_weights(seed: int, cells: int, metrics: int) -> None:
    scores = normalized(np.random.default_rng(seed).random((cells, metrics)), [True] * metrics)
    shares = winning_shares(scores)
    assert sum(shares) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(shares, sampled(scores), atol=0.007)  # over four standard errors


def test_equals_share_and_dominated_never_win() -> None:
    shares = winning_shares([[1, 0, 0.5], [1, 0, 0.5], [0, 1, 1], [0, 0, 0.4]])
    assert shares[0] == shares[1] > 0
    assert shares[3] == 0
    assert sum(shares) == pytest.approx(1)


def test_all_equal_share_evenly() -> None:
    assert winning_shares(normalized([[3.0, 2.0]] * 4, [True, False])) == [0.25] * 4


def test_papers_own_figures_let_one_cell_win_not_150_percent() -> None:
    """It says that NanoDet-m prevails in 80 % and SSD-Lite-MobileNetV3 in 70 % of "the situations"."""
    shares = {share.name: share for share in weigh(PAPER, BETTER)}
    assert sum(share.share for share in shares.values()) == pytest.approx(1, abs=1e-9)
    assert shares["SSD-Lite-MobileNetV3"].share == pytest.approx(0.506, abs=0.001)
    assert shares["NanoDet-m"].share == pytest.approx(0.433, abs=0.001)
    assert shares["YOLOv5s"].share == pytest.approx(0.061, abs=0.001)
    assert shares["NanoDet-m"].equal_weights_score == pytest.approx(0.75)
    assert shares["SSD-MobileNetV2"].share == shares["EfficientDet-D0"].share == 0


def test_own_weights_rank_by_their_sum_and_change_no_share() -> None:
    weights = parse_weights(["a:7", "b:1", "c:1", "d:1"], "abcd")
    ranked = weigh(PAPER, BETTER, list(weights.values()))
    scaled = dict(zip(PAPER, normalized(list(PAPER.values()), BETTER), strict=True))
    assert ranked[0].name == "YOLOv5s"  # as accuracy alone would have it
    for share in ranked:
        assert share.score == pytest.approx(0.7 * scaled[share.name][0] + 0.1 * scaled[share.name][1:].sum())
    assert [share.score for share in ranked] == sorted((share.score for share in ranked), reverse=True)
    by_name = {share.name: share for share in weigh(PAPER, BETTER)}
    assert all(share.share == by_name[share.name].share for share in ranked)
    assert all(share.score == share.equal_weights_score for share in by_name.values())


def test_weights_are_shares_of_their_sum_however_great() -> None:
    assert parse_weights(["a:1e308", "b:1e308"], "ab") == {"a": 0.5, "b": 0.5}
    assert parse_weights(["b:0", "a:.5"], "ab") == {"b": 0.0, "a": 1.0}
    assert parse_weights([], "ab") == {}


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["c:1", "a:1"], r"--weight c:1: there is no metric 'c' to weigh; there are a, b"),
        (["a", "b:1"], r"--weight a is not METRIC:WEIGHT with a number from 0 on, as in a:2"),
        (["a:much", "b:1"], r"--weight a:much is not"),
        (["a:-1", "b:1"], r"--weight a:-1 is not"),
        (["a:nan", "b:1"], r"--weight a:nan is not"),
        (["a:inf", "b:1"], r"--weight a:inf is not"),
        (["a:1", "a:2"], r"names a more than once"),
        (["a:1"], r"names a alone; name at least two"),
        (["a:0", "b:0"], r"every weight is 0"),
    ],
)
def test_weights_that_are_none_are_refused_in_one_sentence(texts: list[str], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        parse_weights(texts, "ab")
