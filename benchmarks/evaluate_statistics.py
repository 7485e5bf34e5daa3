"""Coverage and error rates of openr1_repro.evaluate.statistics over 2,000 simulated evaluations, at AIME's and MATH-500's sizes.

    PYTHONPATH=workflow python benchmarks/evaluate_statistics.py

About ten minutes on one core. Rows: evaluate.coverage.* (goal 0.93 to 0.97) and evaluate.false_difference.* (goal at most 0.05).
"""

import sys
from pathlib import Path

import numpy as np
import polars as pl
import scipy.stats

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
from common import write_row
from openr1_repro.evaluate import statistics

EVALUATIONS = 2000
SIZES = {  # problems, samples, mean score, spread of the problems' chances (beta with this many pseudo-counts)
    "aime": (30, 64, 0.3, 0.8),
    "math500": (500, 4, 0.85, 0.6),
}


def chances(rng, n, mean, spread):
    return rng.beta(mean * spread, (1 - mean) * spread, n)


def draw(rng, p, k):
    return (rng.random((len(p), k)) < p[:, None]).astype(float)


def table(matrix):
    items, samples = np.indices(matrix.shape)
    return pl.DataFrame({"item": items.ravel(), "sample": samples.ravel(), "score": matrix.ravel().astype(float)})


def two_stage(matrix, seed):
    """Problems and, within each, samples resampled: shown for comparison."""
    rng = np.random.default_rng(seed)
    n, k = matrix.shape
    estimates = [matrix[rng.integers(0, n, n)[:, None], rng.integers(0, k, (n, k))].mean() for _ in range(499)]
    return np.quantile(estimates, [0.025, 0.975])


def main():
    for size, (n, k, mean, spread) in SIZES.items():
        rng = np.random.default_rng(0)
        covered = dict.fromkeys(("ours", "same", "plain", "two_stage", "naive"), 0)
        different = 0
        for seed in range(EVALUATIONS):
            p = chances(rng, n, mean, spread)
            matrix = draw(rng, p, k)
            means = matrix.mean(axis=1)

            def holds(bounds, truth=mean):
                return bounds[0] <= truth <= bounds[1]

            covered["ours"] += holds(statistics.interval(means, seed, resamples=999))
            if seed < 500:
                covered["same"] += 4 * holds(statistics.interval_same_problems(matrix, seed), p.mean())
            plain = scipy.stats.bootstrap((means,), np.mean, n_resamples=999, method="percentile", rng=seed)
            covered["plain"] += holds(plain.confidence_interval)
            if seed < 500:
                covered["two_stage"] += 4 * holds(two_stage(matrix, seed))
            error = 1.96 * scipy.stats.sem(matrix.ravel())
            covered["naive"] += holds((means.mean() - error, means.mean() + error))

            a, b = table(matrix), table(draw(rng, p, k))
            different += statistics.compare(a, b, seed)["different"] if seed < 1000 else 0
        share = {name: count / EVALUATIONS for name, count in covered.items()}
        print(size, share)
        write_row(
            f"evaluate.coverage.{size}", "share of 2,000 intervals that hold the truth", share["ours"], evaluations=EVALUATIONS,
            goal="0.93 to 0.97", same_problems=share["same"], plain_percentile=share["plain"], problems_and_samples=share["two_stage"],
            samples_as_if_independent=share["naive"],
        )  # fmt: skip
        write_row(
            f"evaluate.false_difference.{size}", "share of 1,000 equal pairs called different", different / 1000, evaluations=1000,
            goal="at most 0.05",
        )  # fmt: skip


if __name__ == "__main__":
    main()
