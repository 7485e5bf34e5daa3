"""The statistics against closed forms, brute force and simulation."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from openr1_repro.evaluate import statistics
from openr1_repro.evaluate.statistics import NO_DIFFERENCE


def table(matrix, model="base", benchmark="b", tokens=10):
    """Scores (problems × samples) as the score stage writes them."""
    matrix = np.asarray(matrix, dtype=float)
    items, samples = np.indices(matrix.shape)
    return pl.DataFrame({
        "model": model, "benchmark": benchmark, "item": items.ravel(), "sample": samples.ravel(), "score": matrix.ravel(),
        "extracted": ["right" if score else "wrong" for score in matrix.ravel()], "num_tokens": tokens, "finish_reason": "stop",
    })  # fmt: skip


def skills(rng, n, mean, spread):
    """Chances of n problems to be solved, beta distributed: benchmarks have many that are nearly always or never solved."""
    return rng.beta(mean * spread, (1 - mean) * spread, n)


def draw(rng, p, k):
    return rng.random((len(p), k)) < p[:, None]


# --- closed forms and brute force


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    for n, right in itertools.product(range(1, 8), range(8)):
        if right > n:
            continue
        row = np.array([[1] * right + [0] * (n - right)])
        for k in range(1, n + 1):
            subsets = list(itertools.combinations(row[0], k))
            assert statistics.pass_at_k(row, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_equals_the_published_estimator():
    def published(n, c, k):  # Chen et al. 2021, figure 3
        return 1.0 if n - c < k else 1.0 - np.prod(1.0 - k / np.arange(n - c + 1, n + 1))

    rng = np.random.default_rng(0)
    matrix = draw(rng, rng.random(50), 64).astype(int)
    for k in (1, 2, 7, 32, 64):
        expected = np.mean([published(64, c, k) for c in matrix.sum(axis=1)])
        assert statistics.pass_at_k(matrix, k) == pytest.approx(expected)
    assert statistics.pass_at_k(matrix, 1) == pytest.approx(matrix.mean())


def test_pass_at_k_needs_k_samples():
    with pytest.raises(ValueError, match="at least 5 samples"):
        statistics.pass_at_k(np.ones((3, 4)), 5)


def test_standard_error_is_clustered_by_problem():
    rng = np.random.default_rng(1)
    matrix = draw(rng, skills(rng, 40, 0.5, 1), 16)
    row = statistics.summarise(table(matrix))[0]
    means = matrix.mean(axis=1)
    assert row["se"] == pytest.approx(scipy.stats.sem(means))
    naive = scipy.stats.sem(matrix.ravel())
    assert row["se"] > 2 * naive  # what treating 640 samples as independent would claim


def test_the_interval_agrees_with_t_where_that_holds():
    means = np.random.default_rng(2).normal(0.5, 0.1, 60)
    low, high = statistics.interval(means)
    expected = scipy.stats.t.interval(0.95, 59, means.mean(), scipy.stats.sem(means))
    assert (low, high) == pytest.approx(expected, abs=0.003)


def test_all_right_is_not_certain():
    row = statistics.summarise(table(np.ones((30, 4))))[0]
    assert row["avg"] == row["high"] == 1
    assert row["low"] == pytest.approx(0.8843, abs=1e-3)  # exact binomial bound of 30 of 30


def test_majority():
    scores = pl.DataFrame({
        "model": "m", "benchmark": "b", "item": [0, 0, 0, 1, 1, 1, 2, 2, 2], "sample": [0, 1, 2] * 3,
        "score": [1.0, 1, 0, 0, 0, 1, 0, 0, 0],
        "extracted": ["4", "4", "5", "7", None, "8", None, None, None], "num_tokens": 1, "finish_reason": "length",
    })  # fmt: skip
    # right; a tie of a wrong and a right answer; no answer at all
    assert statistics.summarise(scores)[0]["maj"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert statistics.summarise(scores)[0]["truncated"] == 1


def test_holm_equals_its_definition():
    assert statistics.holm([0.01, 0.02, 0.03, 0.04]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert statistics.holm([0.5]) == [0.5]
    assert statistics.holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_between_p_and_bonferroni(p_values):
    adjusted = statistics.holm(p_values)
    assert all(p <= a <= min(1, p * len(p_values)) for p, a in zip(p_values, adjusted, strict=True))


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=11))
def test_permutation_test_is_exact_for_few_problems(differences):
    observed = abs(sum(differences))
    flips = list(itertools.product((1, -1), repeat=len(differences)))
    extreme = sum(abs(sum(s * d for s, d in zip(flip, differences, strict=True))) >= observed for flip in flips)
    assert statistics.permutation_p(np.array(differences, dtype=float)) == pytest.approx(extreme / len(flips))


def test_permutation_test_agrees_with_scipy():
    differences = np.random.default_rng(3).normal(0.05, 0.2, 40)
    result = scipy.stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=20000, rng=1)
    assert statistics.permutation_p(differences) == pytest.approx(result.pvalue, abs=0.015)


# --- comparisons


def test_a_clear_gain_and_its_mirror_image():
    rng = np.random.default_rng(4)
    p = skills(rng, 100, 0.4, 2)
    a, b = table(draw(rng, p, 8)), table(draw(rng, np.clip(p + 0.2, 0, 1), 8))
    gain, loss = statistics.compare(a, b), statistics.compare(b, a)
    assert gain["verdict"] == "gain"
    assert loss["verdict"] == "loss"
    assert gain["low"] > 0
    assert gain["difference"] == pytest.approx(-loss["difference"])


def test_a_gain_whose_interval_holds_zero_is_called_no_difference_shown():
    a = np.zeros((30, 1))
    b = a.copy()
    b[0] = 1  # one problem of AIME: 3.3 points
    result = statistics.compare(table(a), table(b))
    assert result["difference"] == pytest.approx(1 / 30)
    assert result["low"] <= 0 < result["high"]
    assert result["verdict"] == NO_DIFFERENCE == "no difference shown"


def test_correction_can_take_a_difference_away():
    one = {"difference": 0.1, "low": 0.01, "high": 0.2, "p": 0.03, "different": True, "verdict": "gain"}
    corrected = statistics.correct({"aime24": one, "aime25": one | {"p": 0.6}, "amc23": one | {"p": 0.001}})
    assert [c["p_holm"] for c in corrected.values()] == pytest.approx([0.06, 0.6, 0.003])
    assert [c["verdict"] for c in corrected.values()] == [NO_DIFFERENCE, NO_DIFFERENCE, "gain"]


def test_other_problems_are_refused():
    with pytest.raises(ValueError, match="not answered the same problems"):
        statistics.compare(table(np.ones((3, 2))), table(np.ones((4, 2))))


def test_uneven_samples_are_refused():
    scores = table(np.ones((3, 2)))
    with pytest.raises(ValueError, match="with 1 and with 2 samples"):
        statistics.summarise(scores.head(5))


def test_order_of_rows_changes_nothing():
    rng = np.random.default_rng(6)
    scores = table(draw(rng, rng.random(20), 4))
    shuffled = scores.sample(fraction=1, shuffle=True, seed=1)
    assert statistics.summarise(shuffled) == statistics.summarise(scores)


# --- which checkpoint


def row(model, benchmark, avg):
    return {
        "model": model, "benchmark": benchmark, "avg": avg, "low": avg - 0.1, "high": avg + 0.1, "num_problems": 50, "num_samples": 4
    }  # fmt: skip


def test_the_checkpoint_is_picked_on_validation_alone():
    rows = [row("step-1", "validation", 0.5), row("step-2", "validation", 0.4), row("step-2", "aime24", 0.9)]
    picked = statistics.pick_checkpoint(rows, ["step-1", "step-2"])
    assert picked["model"] == "step-1"
    assert "held-out" in picked["reason"]


def test_the_earlier_checkpoint_wins_a_tie_and_the_last_without_validation():
    rows = [row("step-1", "validation", 0.5), row("step-2", "validation", 0.5), row("base", "validation", 0.9)]
    assert statistics.pick_checkpoint(rows, ["step-1", "step-2"])["model"] == "step-1"
    nothing = statistics.pick_checkpoint([row("step-2", "aime24", 0.9)], ["step-1", "step-2"])
    assert nothing == {"model": "step-2", "reason": "the last one: no held-out prompts were scored"}


# --- simulation: benchmarks/evaluate_statistics.py does the same at full size

SIZES = {"AIME": (30, 64, 0.3, 0.8), "MATH-500": (500, 4, 0.85, 0.6)}


@pytest.mark.parametrize("size", SIZES)
def test_coverage_of_the_interval(size):
    n, k, mean, spread = SIZES[size]
    rng = np.random.default_rng(7)
    evaluations = 500
    covered = 0
    for seed in range(evaluations):
        means = draw(rng, skills(rng, n, mean, spread), k).mean(axis=1)
        low, high = statistics.interval(means, seed, resamples=499)
        covered += low <= mean <= high
    assert 0.92 <= covered / evaluations <= 0.98  # 2.5 standard errors of 500 around 93 to 97 %


@pytest.mark.parametrize("size", SIZES)
def test_equal_models_are_seldom_called_different(size):
    n, k, mean, spread = SIZES[size]
    rng = np.random.default_rng(8)
    different = 0
    for seed in range(300):
        p = skills(rng, n, mean, spread)
        differences = draw(rng, p, k).mean(axis=1) - draw(rng, p, k).mean(axis=1)
        different += statistics.permutation_p(differences, seed, 499) <= 0.05
    assert different / 300 <= 0.08  # 5 % and 2.4 standard errors


def test_the_detectable_difference_is_detected_four_times_in_five():
    rng = np.random.default_rng(9)
    n, k = 200, 8
    p = skills(rng, n, 0.5, 4) * 0.8 + 0.05
    smallest = statistics.planned_difference(draw(rng, p, k))
    found = 0
    for seed in range(200):
        differences = draw(rng, p + smallest, k).mean(axis=1) - draw(rng, p, k).mean(axis=1)
        found += statistics.permutation_p(differences, seed, 499) <= 0.05
    assert 0.7 <= found / 200 <= 0.9
    assert not math.isnan(smallest)
