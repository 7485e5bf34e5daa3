"""What scores are worth: estimates with intervals, comparisons with tests, and what a benchmark of this size can show at all.

The unit is the problem. Samples of one problem are alike, so the spread that counts is that of the problems' means (Miller 2024,
"Adding Error Bars to Evals"); each mean carries its samples' noise with it. Intervals are percentile bootstraps over problems
(``scipy.stats.bootstrap``), widened for few problems as Hesterberg (2015, "What Teachers Should Know About the Bootstrap") advises.
Resampling the samples within each resampled problem as well would count their noise twice; docs/evaluate.md has the measured coverage.

>>> import polars as pl
>>> scores = pl.DataFrame({"model": "base", "benchmark": "sums", "item": [0, 0, 1, 1], "sample": [0, 1, 0, 1],
...     "score": [1.0, 0.0, 0.0, 0.0], "extracted": ["4", "5", "1", None], "num_tokens": 9, "finish_reason": "stop"})
>>> row = summarise(scores)[0]
>>> row["avg"], row["pass"], row["maj"]
(0.25, {1: 0.25, 2: 0.5}, 0.25)
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import scipy.stats

Array = np.ndarray[Any, np.dtype[Any]]

CONFIDENCE = 0.95
RESAMPLES = 9999
NO_DIFFERENCE = "no difference shown"


# --- of one model on one benchmark ----------------------------------------------------------------------------------------------


def summarise(scores: pl.DataFrame, seed: int = 0) -> list[dict[str, Any]]:
    """Every (model, benchmark) of a table of scores, in order of first appearance.

    Args:
        scores: a row a sample with ``model, benchmark, item, sample, score, extracted, num_tokens, finish_reason``.
        seed: of the bootstrap.

    Returns:
        A dict each: ``model, benchmark, num_problems, num_samples`` (a problem), ``avg`` (avg@k), ``se`` (clustered by problem),
        ``low, high`` (95 % over problems and samples), ``low_same, high_same`` (95 % over samples of the same problems: what a rerun
        with other seeds would give; None with one sample), ``pass`` ({j: pass@j} for 1, 2, 4, … k), ``maj`` (maj@k), ``truncated``
        (share of samples that met the token limit), ``mean_tokens``, ``detectable`` (smallest difference that two runs of this size
        could show: see :func:`detectable_difference`).
    """
    rows = []
    for (model, benchmark), part in scores.group_by("model", "benchmark", maintain_order=True):
        matrix = score_matrix(part)
        means = matrix.mean(axis=1)
        low, high = interval(means, seed)
        low_same, high_same = interval_same_problems(matrix, seed)
        n, k = matrix.shape
        rows.append({
            "model": model, "benchmark": benchmark, "num_problems": n, "num_samples": k,
            "avg": float(means.mean()), "se": standard_error(means), "low": low, "high": high,
            "low_same": low_same, "high_same": high_same,
            "pass": {j: pass_at_k(matrix, j) for j in sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k})},
            "maj": majority(part),
            "truncated": part.select((pl.col("finish_reason") == "length").mean()).item(),
            "mean_tokens": part.select(pl.col("num_tokens").mean()).item(),
            "detectable": planned_difference(matrix),
        })  # fmt: skip
    return rows


def score_matrix(part: pl.DataFrame) -> Array:
    """Scores of one model on one benchmark as problems × samples, both in order.

    Raises:
        ValueError: if a problem has more or fewer samples than another.
    """
    counts = sorted(set(part.group_by("item").len()["len"].to_list()))
    if len(counts) != 1:
        raise ValueError(f"problems with {counts[0]} and with {counts[-1]} samples cannot be summarised together")
    return part.sort("item", "sample")["score"].to_numpy().reshape(-1, counts[0])


def standard_error(means: Array) -> float:
    """Standard error of the mean over problems, from the problems' means: clustered by problem."""
    return float(means.std(ddof=1) / math.sqrt(len(means))) if len(means) > 1 else math.nan


def interval(means: Array, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """95 % interval of the mean over problems like these, each mean with its samples' noise."""
    if np.ptp(means) == 0:  # nothing to resample: all right or all wrong
        return _interval_of_constant(means)
    n = len(means)
    # the percentile interval is too short by about sqrt((n - 1) / n) and by normal against t: take a wider level
    tail = scipy.stats.norm.cdf(-math.sqrt(n / (n - 1)) * scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1))
    result = scipy.stats.bootstrap(
        (means,),
        np.mean,
        n_resamples=resamples,
        confidence_level=1 - 2 * tail,
        method="percentile",
        batch=_batch(n),
        rng=seed,
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def _interval_of_constant(means: Array) -> tuple[float, float]:
    """All problems alike: a bootstrap would give no width. Exact binomial bounds for 0 of n or n of n problems; else a point."""
    value, n = float(means[0]), len(means)
    if value in (0.0, 1.0):
        bounds = scipy.stats.binomtest(round(value * n), n).proportion_ci(CONFIDENCE, method="exact")
        return float(bounds.low), float(bounds.high)
    return value, value


def interval_same_problems(matrix: Array, seed: int = 0) -> tuple[float | None, float | None]:
    """95 % interval of the mean over these very problems: samples resampled within each problem; (None, None) for one sample."""
    n, k = matrix.shape
    if k < 2:
        return None, None

    def mean(*problems: Array, axis: int) -> Array:
        return np.mean([problem.mean(axis=axis) for problem in problems], axis=0)

    spread = [problem for problem in matrix if np.ptp(problem) > 0]
    if not spread:
        return float(matrix.mean()), float(matrix.mean())
    fixed = (matrix.mean() * n - sum(problem.mean() for problem in spread)) / n
    result = scipy.stats.bootstrap(
        spread, mean, n_resamples=1999, confidence_level=CONFIDENCE, method="percentile", rng=seed
    )
    # resampling k of k shrinks each problem's variance by (k - 1) / k
    centre, widen = float(matrix.mean()), math.sqrt(k / (k - 1))
    share = len(spread) / n
    low, high = (fixed + share * float(bound) for bound in result.confidence_interval)
    return float(centre - (centre - low) * widen), float(centre + (high - centre) * widen)


def pass_at_k(matrix: Array, k: int) -> float:
    """Unbiased pass@k: the chance that one of k samples is right, 1 − C(n − c, k) / C(n, k) with c of n right (Chen et al. 2021).

    >>> pass_at_k(np.array([[1, 0, 0, 0]]), 2)
    0.5
    """
    n = matrix.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples a problem, not {n}")
    wrong = n - matrix.sum(axis=1)
    # product of (wrong - i) / (n - i): no large factorials
    factors = np.clip(wrong[:, None] - np.arange(k), 0, None) / (n - np.arange(k))
    return float((1 - factors.prod(axis=1)).mean())


def majority(part: pl.DataFrame) -> float:
    """maj@k: the score of the answer that most of a problem's samples gave, as text in lighteval's normal form.

    Samples without an answer do not vote; where answers tie, the mean of the tied ones (what drawing one of them would give).
    """
    votes = (
        part.filter(pl.col("extracted").is_not_null())
        .group_by("item", "extracted", maintain_order=True)  # a sum in another order differs in its last digit
        .agg(pl.len().alias("votes"), pl.col("score").mean())
    )
    winners = votes.filter(pl.col("votes") == pl.col("votes").max().over("item"))
    return float(
        winners.group_by("item", maintain_order=True).agg(pl.col("score").mean())["score"].sum()
        / part["item"].n_unique()
    )


# --- of two models on the same problems -----------------------------------------------------------------------------------------


def compare(scores_a: pl.DataFrame, scores_b: pl.DataFrame, seed: int = 0) -> dict[str, Any]:
    """Two models (or variants) on one benchmark, paired over its problems: B minus A.

    Args:
        scores_a: rows of one model and benchmark, as for :func:`summarise`.
        scores_b: the same problems by another model; the number of samples may differ.
        seed: of the resampling.

    Returns:
        ``difference``, ``se``, ``low, high`` (95 %, paired bootstrap over problems), ``p`` (permutation test, two-sided),
        ``detectable``, ``num_problems``, ``different`` and ``verdict``: "gain", "loss" or "no difference shown". Different means both
        that the interval leaves out 0 and that p ≤ 0.05; over several benchmarks pass the results to :func:`correct`.

    Raises:
        ValueError: if the problems are not the same.
    """
    items = [scores["item"].unique().sort() for scores in (scores_a, scores_b)]
    if not items[0].equals(items[1]):
        raise ValueError("the two have not answered the same problems")
    differences = score_matrix(scores_b).mean(axis=1) - score_matrix(scores_a).mean(axis=1)
    low, high = (float(differences[0]),) * 2 if np.ptp(differences) == 0 else interval(differences, seed)
    result = {
        "num_problems": len(differences), "difference": float(differences.mean()), "se": standard_error(differences),
        "low": low, "high": high, "p": permutation_p(differences, seed), "detectable": detectable_difference(differences),
    }  # fmt: skip
    return result | _verdict(result, result["p"])


def correct(comparisons: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """The comparisons of one pair over several benchmarks, their p-values Holm-corrected (``p_holm``) and the verdicts by it."""
    adjusted = holm([comparison["p"] for comparison in comparisons.values()])
    return {
        name: {**comparison, "p_holm": p, **_verdict(comparison, p)}
        for (name, comparison), p in zip(comparisons.items(), adjusted, strict=True)
    }


def _verdict(comparison: Mapping[str, Any], p: float) -> dict[str, Any]:
    outside = comparison["low"] > 0 or comparison["high"] < 0
    different = bool(outside and p <= 1 - CONFIDENCE)
    word = "gain" if comparison["difference"] > 0 else "loss"
    return {"different": different, "verdict": word if different else NO_DIFFERENCE}


def permutation_p(differences: Array, seed: int = 0, resamples: int = RESAMPLES) -> float:
    """Two-sided p of a paired permutation test: were the models equal, each problem's difference could as well have the other sign.

    Exact by enumeration where that takes no more than ``resamples`` sign patterns (13 problems that differ, or fewer).
    """
    differing = differences[differences != 0]  # a flipped 0 stays 0
    if len(differing) == 0:
        return 1.0
    if 2 ** len(differing) <= resamples:
        signs = 1 - 2 * ((np.arange(2 ** len(differing))[:, None] >> np.arange(len(differing))) & 1)
        sums, extra = signs @ differing, 0
    else:
        rng = np.random.default_rng(seed)
        signs = rng.integers(0, 2, (resamples, len(differing)), dtype=np.int8)
        sums, extra = differing.sum() - 2 * (signs @ differing), 1  # the observed one counts among the permutations
    extreme = np.count_nonzero(np.abs(sums) >= abs(differing.sum()) - 1e-9)
    return float((extreme + extra) / (len(sums) + extra))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that hold for all tests together.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = np.argsort(p_values)
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def detectable_difference(differences: Array, power: float = 0.8) -> float:
    """The smallest true difference that a paired test at 5 % would show with ``power``, given how the problems' differences spread."""
    n = len(differences)
    if n < 2:
        return math.nan
    quantiles = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) + scipy.stats.t.ppf(power, n - 1)
    return float(quantiles * standard_error(differences))


def planned_difference(matrix: Array, power: float = 0.8) -> float:
    """:func:`detectable_difference` for a second model of the same skill at every problem: what size and k allow at best.

    Each problem's difference then spreads by its samples alone, by 2 p (1 − p) / k. NaN with one sample, which cannot tell.
    """
    n, k = matrix.shape
    if n < 2 or k < 2:
        return math.nan
    variance = 2 * matrix.var(axis=1, ddof=1).mean() / k
    quantiles = scipy.stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) + scipy.stats.t.ppf(power, n - 1)
    return float(quantiles * math.sqrt(variance / n))


# --- which checkpoint -----------------------------------------------------------------------------------------------------------


def pick_checkpoint(
    rows: Sequence[Mapping[str, Any]], order: Sequence[str], benchmark: str = "validation"
) -> dict[str, Any]:
    """The checkpoint for the headline: the best on the held-out training prompts, never on a reported benchmark.

    Args:
        rows: of :func:`summarise`.
        order: the checkpoints from first to last; the earlier wins a tie.
        benchmark: the name of the held-out prompts.

    Returns:
        ``{"model", "reason"}``; without validation scores the last checkpoint, and the reason says so.
    """
    scores = {row["model"]: row for row in rows if row["benchmark"] == benchmark and row["model"] in order}
    if not scores:
        return {"model": order[-1], "reason": "the last one: no held-out prompts were scored"}
    best = max((model for model in order if model in scores), key=lambda model: scores[model]["avg"])
    row = scores[best]
    reason = (
        f"the best of {len(scores)} on {row['num_problems']} held-out training prompts: {100 * row['avg']:.1f} % "
        f"({100 * row['low']:.1f} to {100 * row['high']:.1f}) at {row['num_samples']} samples each"
    )
    return {"model": best, "reason": reason}


def _batch(n: int) -> int:
    """Resamples at once: about 32 MB."""
    return max(1, 4_000_000 // n)
