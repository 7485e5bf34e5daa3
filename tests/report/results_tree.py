"""Writes what the other stages leave behind for a report: files of the real schemas with made-up, seeded numbers."""

import contextlib
import io
import json
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from openr1_repro import stage
from openr1_repro.report.__main__ import main

HOSTILE = (
    "</pre><script>document.title='owned'</script><img src=http://evil.invalid/x onerror=\"document.title='owned'\">"
    "<svg onload=\"document.title='owned'\">{{ 7*7 }} $x^2$ \x00\x1b[31m \u202e evil"
)
BENCHMARKS = {
    "sums": {
        "version": 1, "description": "Sums of two numbers, held out", "dataset": "sums", "metric": "pass_at_k_math",
        "deviations": ["lighteval has no such task"],
    },
    "champ": {"version": 2, "description": "Competition problems", "dataset": "champ", "metric": "pass_at_k_math"},
}  # fmt: skip
STEPS = [25, 50, 75, 100]


def run_command(*arguments: str) -> tuple[int, str, str]:
    """``python -m openr1_repro.report`` in this process: exit status, stdout, stderr."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    given, sys.argv = sys.argv, ["openr1_repro.report", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            stage.run(main)
    except SystemExit as stop:
        status = int(stop.code or 0)
    finally:
        sys.argv = given
    return status, out.getvalue(), err.getvalue()


def report(folder: Path, settings: dict[str, Any], *, check: bool = True) -> tuple[int, str, str]:
    """Write the report of ``settings`` into ``folder/report``, as the workflow does."""
    (folder / "settings.json").write_text(json.dumps(settings))
    done = run_command("--settings", f"@{folder / 'settings.json'}", "--output", str(folder / "report"))
    assert not check or done[0] == 0, done[2]
    return done


def write_results(
    folder: Path,
    variants: dict[str, float],
    problems: dict[str, int] | None = None,
    hostile: bool = False,
    num_steps: int = 100,
    warm_started: Collection[str] = (),
) -> dict[str, Any]:
    """Write a results tree and return the report's ``--settings``.

    ``variants``: name to the share of its unsolved problems that training teaches. ``problems``: benchmark to size.
    ``warm_started``: variants with a supervised start, which teaches a third of that.
    """
    problems = problems or {"sums": 200, "champ": 60}
    settings: dict[str, Any] = {"variants": {}, "locks": {}, "benchmarks": BENCHMARKS}
    scoring = {
        "protocol": {"name": "open-r1", "temperature": 0.6, "top_p": 0.95, "max_new_tokens": 128},
        "versions": {"lighteval": "0.13.0", "sympy": "1.14.0"},
        "failures": {},
    }
    base = folder / "base"
    base.mkdir(parents=True)
    rates = {
        name: np.random.default_rng([7, i]).beta(0.6, 1.2, size)
        for i, (name, size) in enumerate({**problems, "validation": 64}.items())
    }
    _write_scores(base, {"base": 0.0}, rates, seed=1, hostile=hostile)
    for number, (name, gain) in enumerate(variants.items()):
        run = folder / "runs" / name
        training = run / "training"
        (training / "completions").mkdir(parents=True)
        rng = np.random.default_rng([3, number])
        log = []
        for step in range(1, num_steps + 1):
            done = step / num_steps
            accuracy = 0.35 + gain * 0.6 * done + rng.normal(0, 0.05)
            log.append(
                {
                    "step": step,
                    "loss": rng.normal(0, 0.02),
                    "learning_rate": 1e-4 * (1 - done),
                    "reward": accuracy + 0.8,
                    "reward_std": 0.4,
                    "rewards/accuracy/mean": accuracy,
                    "rewards/accuracy/std": 0.45,
                    "rewards/format/mean": min(1.0, 0.8 + 0.2 * done),
                    "rewards/format/std": 0.2,
                    "rewards/length/mean": None if step % 3 else 0.1,
                    "completions/mean_length": 55 + 20 * done + rng.normal(0, 2),
                    "completions/clipped_ratio": 0.05 * (1 - done),
                    "entropy": 0.6 - 0.3 * done,
                    "frac_reward_zero_std": 0.2 + 0.2 * done,
                    "kl": 0.02 * done,
                    "time/step": 2.0,
                    "time/generate": 1.1,
                    "time/rewards": 0.1,
                    "time/train": 0.8,
                    "memory/peak_gib": 1.9,
                    "reward_engine/accuracy": {
                        "none_rate": 0.01,
                        "timeouts": 0,
                        "latency_p50": 0.001,
                        "latency_p99": 0.02,
                    },
                    "tokens_per_second": 3000 + rng.normal(0, 100),
                }
            )
        (training / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in log))
        steps = [s for s in STEPS if s <= num_steps] or [num_steps]
        _json(training / "checkpoints.json", [{"name": f"step-{s}", "step": s, "sha256": "ab" * 32} for s in steps])
        _json(
            training / "train.json",
            {
                "steps": num_steps,
                "seconds": 212.5,
                "trained_tokens": 812345,
                "device": "cpu",
                "attn_implementation": "sdpa",
                "peak_memory_gib": 1.96,
                "resumed_from": [],
                "model": {"name": "tiny", "repository": "openr1-repro/tiny", "revision": "0123456789"},
                "fingerprint": {"settings": "abc"},
                "checkpoints": [],
                "versions": {"torch": "2.13.0", "trl": "1.16.0", "transformers": "5.17.0"},
            },
        )
        for step in (1, num_steps):
            _write_completions(training / "completions" / f"completions_{step:05d}.parquet", step, hostile)
        gains = {f"step-{s}": gain * s / steps[-1] for s in steps}
        if name in warm_started:
            gains = {"warm-start": gain / 3} | gains
        _write_scores(run, gains, rates, seed=2 + number, hostile=hostile)
        _json(run / "scores.json", scoring)
        _json(
            run / "funnel.json",
            FUNNEL if not hostile else json.loads(json.dumps(FUNNEL).replace("Prove that", json.dumps(HOSTILE)[1:-1])),
        )
        for asset, kind in (("tiny", "model"), ("openr1-like", "dataset")):
            _json(
                folder / "assets" / f"{asset}.json",
                {
                    "name": asset,
                    "kind": kind,
                    "source": "embedded",
                    "repository": f"openr1-repro/{asset}",
                    "revision": "0123456789abcdef0123456789abcdef01234567",
                    "files": [{"path": "model.safetensors", "size": 4_200_000, "sha256": "cd" * 32}],
                },
            )
        settings["variants"][name] = {
            "config": {
                "description": HOSTILE if hostile else f"The {name} recipe",
                "model": "tiny",
                "chat": {"template": "{{ messages }}", "system_prompt": "Think first."},
                "train": {
                    "warm_start": {"max_examples": 64} if name in warm_started else None,
                    "learning_rate": 1e-4 * (1 + number),
                    "rewards": {"reward_funcs": ["accuracy", "format", "length"], "reward_weights": [1.0, 0.5, 1.0]},
                },
                "evaluate": {"benchmarks": list(problems)},
            },
            "training": str(training),
            "scores": str(run / "scores.parquet"),
            "base_scores": str(base / "scores.parquet"),
            "scoring": str(run / "scores.json"),
            "responses": str(run / "responses.parquet"),
            "base_responses": str(base / "responses.parquet"),
            "funnel": str(run / "funnel.json"),
            "assets": {asset: str(folder / "assets" / f"{asset}.json") for asset in ("tiny", "openr1-like")},
        }
    return settings


def _write_scores(
    folder: Path, gains: dict[str, float], rates: dict[str, np.ndarray], seed: int, hostile: bool
) -> None:
    rng = np.random.default_rng(seed)
    scores, responses = [], []
    for model, gain in gains.items():
        for benchmark, rate in rates.items():
            learned = rate + (1 - rate) * gain
            for item, p in enumerate(learned):
                for sample in range(4):
                    right = rng.random() < p
                    answer = str(17 + item if right else item)
                    cut = bool(rng.random() < 0.03)
                    common = {"model": model, "benchmark": benchmark, "item": item, "sample": sample}
                    tail = {"num_tokens": int(rng.normal(60, 10)), "finish_reason": "length" if cut else "stop"}
                    scores.append({**common, "score": float(right), "extracted": None if cut else answer, **tail})
                    text = f"<think>\n8 + {9 + item} is {answer}\n</think>\n<answer>\n\\boxed{{{answer}}}\n</answer>"
                    responses.append(
                        {
                            **common,
                            "seed": sample,
                            "problem": f"What is 8 + {9 + item}?" + (HOSTILE if hostile else ""),
                            "gold": str(17 + item),
                            "prompt": "…",
                            "text": (HOSTILE if hostile else "") + text,
                            **tail,
                        }
                    )
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame(scores).write_parquet(folder / "scores.parquet")
    pl.DataFrame(responses).write_parquet(folder / "responses.parquet")


def _write_completions(path: Path, step: int, hostile: bool) -> None:
    rng = np.random.default_rng(step)
    rows = []
    for i in range(32):
        right, tidy = rng.random() < 0.4, rng.random() < 0.8
        answer = i + 5 if right else i + 4
        body = f"<think>\n{i} + 5 = {answer}\n</think>\n<answer>\n{answer}\n</answer>"
        rows.append(
            {
                "step": step,
                "prompt": [
                    {"role": "system", "content": "Think first."},
                    {"role": "user", "content": f"What is {i} + 5?"},
                ],
                "completion": [
                    {"role": "assistant", "content": (HOSTILE if hostile else "") + (body if tidy else body[:30])}
                ],
                "accuracy": float(right and tidy),
                "format": float(tidy),
                "length": None if i % 5 else 0.25,
                "advantage": float(rng.normal()),
            }
        )
    pl.DataFrame(rows).write_parquet(path)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _step(name: str, setting: str, rows_in: int, reasons: dict[str, int], problem: str) -> dict[str, Any]:
    example = {"uuid": "0-1", "source": "olympiads", "row": 17, "problem": problem, "answer": "12"}
    dropped = sum(reasons.values())
    return {
        "name": name,
        "setting": setting,
        "rows_in": rows_in,
        "rows_out": rows_in - dropped,
        "dropped": dropped,
        "reasons": reasons,
        "examples": [{**example, "reason": next(iter(reasons), "")}] * min(dropped, 4),
    }


FUNNEL: dict[str, Any] = {
    "settings": {"contamination": {"ngram": 8, "benchmarks": None}},
    "inputs": [{"asset": "openr1-like", "files": 1, "rows": 4200, "weight": 1.0}],
    "output": {"train": 3360, "validation": 64},
    "sources": {"olympiads": 2000, "cn_k12": 1000, "amc_aime": 424},
    "prompt_tokens": {"bin": 4, "counts": [0, 3, 40, 300, 900, 1100, 700, 250, 100, 31], "median": 22, "max": 71},
    "problem_chars": {"bin": 8, "counts": [10, 500, 1200, 1000, 500, 214], "median": 24, "max": 90},
    "solution_chars": None,
    "kept": [{"uuid": "1-1", "source": "olympiads", "row": 4, "problem": "What is 3 + 4?", "answer": "7"}],
    "steps": [
        _step(
            "a problem and an answer",
            "require_solution",
            4200,
            {"no answer": 130, "no problem": 14},
            "How many apples?",
        ),
        _step("question type", "question_types", 4056, {"proof": 212}, "Prove that 2 is prime."),
        _step("choices", "choices", 3844, {"lists options": 96}, "Which? (A) 1 (B) 2"),
        _step("exact duplicates", "exact_duplicates", 3748, {"same as an earlier row": 205}, "What is 8 + 9?"),
        _step("contamination", "contamination", 3543, {"sums": 31}, "What is 8 + 10?"),
        _step("near duplicates", "near_duplicates", 3512, {"nearly equal": 88}, "What is 8 + 9 ?"),
        _step("prompt length", "max_prompt_tokens", 3424, {}, ""),
    ],
}
