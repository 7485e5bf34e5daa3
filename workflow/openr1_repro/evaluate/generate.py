"""Generate: every sample of every benchmark problem, for the base model or for all checkpoints of a run, to one table.

    python -m openr1_repro.evaluate.generate --settings @evaluate.json --assets results/assets \\
        --training results/runs/quickstart/training --prompts results/prompts/KEY \\
        --cache results/.cache/responses --output responses.parquet

A checkpoint is loaded once for all its benchmarks. Every response is stored in --cache as it comes and found again by the weights, the
prompt, the sampling and the seed, so a rerun generates only what is missing: after a kill, for more samples or benchmarks, or where another
variant has asked the same model the same.
"""

import argparse
import importlib.util
import time
from pathlib import Path
from typing import Any

import polars as pl
import transformers

from openr1_repro import stage
from openr1_repro.evaluate.problems import Problem, load_problems, load_validation
from openr1_repro.evaluate.protocol import sampling_of
from openr1_repro.evaluate.responses import Request, ResponseCache, fingerprint
from openr1_repro.evaluate.settings import WARM_START, StageSettings

SCHEMA = {
    "model": pl.String, "benchmark": pl.String, "item": pl.Int64, "sample": pl.Int64, "seed": pl.Int64, "problem": pl.String,
    "gold": pl.String, "prompt": pl.String, "text": pl.String, "num_tokens": pl.Int64, "finish_reason": pl.String,
}  # fmt: skip


def main() -> None:
    """Read the problems, then answer them with every model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    stage.add_settings_argument(parser)
    parser.add_argument("--assets", type=Path, required=True, help="folder of the download stage")
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help='folder of a downloaded model: evaluated as "base"')
    model.add_argument("--training", type=Path, help="folder of the train stage: every checkpoint of it")
    parser.add_argument(
        "--warm-start", type=Path, help="folder of the model that GRPO began with, where it had a supervised start"
    )
    parser.add_argument("--prompts", type=Path, help="folder of the prepare stage, for its held-out prompts")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder that keeps responses, whatever asked for them"
    )
    parser.add_argument("--output", type=Path, required=True, help="parquet file to write")
    args = parser.parse_args()
    settings = stage.parse_settings(args.settings, StageSettings)

    problems = load_problems(settings, args.assets)
    if args.prompts:
        problems += load_validation(args.prompts)
    rows: list[dict[str, Any]] = []
    for name, folder in models_of(args.model, args.training, args.warm_start):
        rows += answer(settings, problems, name, folder, args.cache)
    with stage.replacing(args.output) as draft:
        pl.DataFrame(rows, schema=SCHEMA).write_parquet(draft)


def models_of(model: Path | None, training: Path | None, warm_start: Path | None) -> list[tuple[str, Path]]:
    """Name and folder of the models to evaluate: ``base``, or a run's warm start, if any, and checkpoints by step."""
    if model is not None:
        return [("base", model / "files")]
    assert training is not None
    checkpoints = stage.read_json(training / "checkpoints.json")
    if not checkpoints:
        raise stage.UserError(f"{training / 'checkpoints.json'}: no checkpoint; let training save one (save_steps)")
    trained = [(c["name"], training / "checkpoints" / c["name"]) for c in sorted(checkpoints, key=lambda c: c["step"])]
    return [(WARM_START, warm_start / "files"), *trained] if warm_start else trained


def answer(
    settings: StageSettings, problems: list[Problem], name: str, folder: Path, store: Path
) -> list[dict[str, Any]]:
    """All samples of all problems by one model, generated or found in ``store``: rows of the output table."""
    weights = fingerprint(folder)
    tokenizer = load_tokenizer(folder)
    requests, by_item = [], {}
    for problem in problems:
        by_item[problem.benchmark, problem.item] = problem
        sampling, samples = sampling_of(
            problem.benchmark, settings.benchmarks.get(problem.benchmark), settings.evaluate
        )
        prompt = render(tokenizer, problem, settings.chat.template, folder)
        requests += [Request(problem.benchmark, problem.item, sample, prompt, sampling) for sample in range(samples)]

    engine: Any
    if pick_engine(settings.evaluate.engine) == "vllm":
        from openr1_repro.evaluate import vllm_engine as engine
    else:
        from openr1_repro.evaluate import transformers_engine as engine
    planned = engine.plan(requests, settings.evaluate)
    cache = ResponseCache(store, weights, engine.identity(settings.evaluate))
    todo = sum(cache.get(request) is None for request in planned)
    print(f"{name}: {len(planned)} samples, {len(planned) - todo} of them stored, {todo} to generate", flush=True)
    started, tokens = time.monotonic(), 0
    try:
        for answers in engine.generate(folder, tokenizer, planned, settings.evaluate, cache.get):
            if not answers:  # it has started
                started = time.monotonic()
                continue
            cache.add(answers)
            tokens += sum(response.num_tokens for _, response in answers)
            todo -= len(answers)
            seconds = time.monotonic() - started
            print(f"{name}: {max(todo, 0)} to go, {tokens / seconds:.0f} tokens/s", flush=True)
    finally:
        cache.close()

    rows = []
    for request in sorted(planned, key=lambda r: (r.benchmark, r.item, r.sample)):
        problem, response = by_item[request.benchmark, request.item], cache.get(request)
        assert response is not None
        rows.append({
            "model": name, "benchmark": request.benchmark, "item": request.item, "sample": request.sample, "seed": request.seed,
            "problem": problem.problem, "gold": problem.gold, "prompt": request.prompt, "text": response.text,
            "num_tokens": response.num_tokens, "finish_reason": response.finish_reason,
        })  # fmt: skip
    return rows


def load_tokenizer(folder: Path) -> Any:
    """The model's own tokenizer.

    Raises:
        UserError: if it cannot be loaded.
    """
    try:
        return transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a damaged folder makes transformers raise
        raise stage.UserError(f"{folder}: its tokenizer cannot be loaded: {error}") from error


def render(tokenizer: Any, problem: Problem, template: str | None, folder: Path) -> str:
    """The text that the model sees: as TRL's trainers render a prompt, with the template they trained with."""
    if template is None and tokenizer.chat_template is None:
        raise stage.UserError(f"{folder}: the tokenizer has no chat template; set chat.template in the variant")
    return tokenizer.apply_chat_template(
        problem.messages, chat_template=template, tokenize=False, add_generation_prompt=True
    )


def pick_engine(engine: str) -> str:
    """``auto`` resolved for this machine."""
    if engine != "auto":
        return engine
    import torch

    return "vllm" if torch.cuda.is_available() and importlib.util.find_spec("vllm") else "transformers"


if __name__ == "__main__":
    stage.run(main)
