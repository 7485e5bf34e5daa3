"""How often the base model solves each problem: samples k times a prompt and verifies as the accuracy reward does.

    python -m openr1_repro.prepare.pass_rate --settings @settings.json --model results/assets/models/NAME \\
        --prompts results/prompts/KEY --work results/pass-rates/.KEY --output results/pass-rates/KEY.parquet

Runs in the training environment, with vLLM on a GPU and transformers on a CPU. ``--prompts`` is what the prepare stage
wrote with `PrepareSettings.before_pass_rate`; the output (columns uuid, rate, k) goes to it as ``--pass-rates``.
Samples are kept in ``--work``: after a kill only what is missing is generated.
"""

import argparse
from pathlib import Path

import polars as pl

from openr1_repro.stage import (
    Chat,
    Settings,
    UserError,
    add_settings_argument,
    parse_settings,
    replacing,
    run,
)

from .settings import PassRate


class StageSettings(Settings):
    """All that decides a pass rate, beside prompts and model."""

    chat: Chat = Chat()
    """How a problem becomes a prompt."""
    pass_rate: PassRate
    """Of the variant's `prepare` section."""
    gold_column: str = "solution"
    """`train.rewards.gold_column`: where the accuracy reward reads the truth."""


def main() -> None:
    """Sample every prompt, verify every sample, average."""
    from openr1_repro.evaluate.generate import answer
    from openr1_repro.evaluate.problems import Problem
    from openr1_repro.evaluate.settings import VALIDATION, EvaluateSettings
    from openr1_repro.evaluate.settings import StageSettings as GenerateSettings
    from openr1_repro.rewards import load
    from openr1_repro.rewards.settings import RewardSettings

    parser = argparse.ArgumentParser(
        prog="python -m openr1_repro.prepare.pass_rate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_settings_argument(parser)
    parser.add_argument("--model", type=Path, required=True, help="folder of a downloaded model")
    parser.add_argument("--prompts", type=Path, required=True, help="folder of the prepare stage")
    parser.add_argument(
        "--cache", type=Path, required=True, help="folder that keeps responses, whatever asked for them"
    )
    parser.add_argument("--output", type=Path, required=True, help="parquet file to write")
    a = parser.parse_args()
    settings = parse_settings(a.settings, StageSettings)
    wanted = settings.pass_rate

    path = a.prompts / "train.parquet"
    try:
        prompts = pl.read_parquet(path, columns=["uuid", "prompt", "problem", "answer", "solution"])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}); run the prepare stage again") from None
    problems = [
        Problem(VALIDATION, item, row["problem"], row["prompt"], row["answer"])
        for item, row in enumerate(prompts.iter_rows(named=True))
    ]
    generate = GenerateSettings(
        chat=settings.chat,
        evaluate=EvaluateSettings(
            benchmarks=["unused"], validation_samples=wanted.k, temperature=wanted.temperature, top_p=1.0,
            max_new_tokens=wanted.max_new_tokens, engine=wanted.engine, vllm=wanted.vllm,
        ),
        benchmarks={"unused": {"dataset": "unused"}},
    )  # fmt: skip
    samples = pl.DataFrame(answer(generate, problems, "base", a.model / "files", a.cache))
    texts, items = samples["text"].to_list(), samples["item"].to_list()

    rewards = load(RewardSettings.model_validate({"reward_funcs": ["accuracy"], "gold_column": settings.gold_column}))
    try:
        scores = rewards.reward_funcs[0](
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            **{column: [prompts[column][i] for i in items] for column in ("solution", "answer")},
        )
    finally:
        rewards.close()
    rates = (
        pl.DataFrame({"item": items, "score": scores}, schema={"item": pl.Int64, "score": pl.Float64})
        .group_by("item", maintain_order=True)
        .agg(pl.col("score").mean().alias("rate"), pl.col("score").count().cast(pl.Int64).alias("k"))
    )
    table = rates.select(prompts["uuid"].gather(rates["item"]).alias("uuid"), "rate", "k")
    with replacing(a.output) as draft:
        table.write_parquet(draft)
    inside = table.filter((pl.col("rate") > wanted.above) & (pl.col("rate") < wanted.below)).height
    print(f"{a.output}: {table.height:,} problems, {inside:,} in the band", flush=True)


if __name__ == "__main__":
    run(main)
