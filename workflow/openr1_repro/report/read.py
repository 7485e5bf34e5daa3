"""What the other stages left, read and checked: one `Run` for each variant."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from openr1_repro import stage
from openr1_repro.evaluate.settings import WARM_START
from openr1_repro.report.settings import VariantFiles

SCORE_COLUMNS = ["model", "benchmark", "item", "sample", "score", "extracted", "num_tokens", "finish_reason"]


@dataclass
class Run:
    """Everything known about one variant."""

    name: str
    files: VariantFiles
    log: list[dict[str, Any]]
    """One dict a logged step, with ``step``."""
    checkpoints: list[dict[str, Any]]
    """``{"name", "step", ...}``, by step."""
    train: dict[str, Any]
    """The train stage's summary."""
    funnel: dict[str, Any]
    assets: dict[str, dict[str, Any]]
    """Manifest by asset name."""
    scoring: dict[str, Any]
    """scores.json of the checkpoints."""
    scores: pl.DataFrame
    """A row a sample, of the base model, the warm start if there was one, and every checkpoint."""

    @property
    def steps(self) -> dict[str, int]:
        """The training step of every model, in order: ``base`` at 0, or at -1 before a warm start at 0, then the checkpoints."""
        start = {"base": -1, WARM_START: 0} if warm_started(self.files) else {"base": 0}
        return start | {c["name"]: c["step"] for c in self.checkpoints}


def warm_started(files: VariantFiles) -> bool:
    """Whether GRPO began with a supervised start."""
    return bool(files.config["train"].get("warm_start"))


def read_run(name: str, files: VariantFiles) -> Run:
    """Read one variant.

    Raises:
        UserError: naming the file that is missing, empty or of another shape.
    """
    checkpoints = sorted(stage.read_json(files.training / "checkpoints.json"), key=lambda c: c["step"])
    if not checkpoints:
        raise stage.UserError(
            f"{files.training / 'checkpoints.json'}: no checkpoint; let training save one (save_steps)"
        )
    base = _read_scores(files.base_scores, ["base"])
    start = [WARM_START] if warm_started(files) else []
    trained = _read_scores(files.scores, [*start, *(c["name"] for c in checkpoints)])
    return Run(
        name=name,
        files=files,
        log=_read_log(files.training / "log.jsonl"),
        checkpoints=checkpoints,
        train=stage.read_json(files.training / "train.json"),
        funnel=stage.read_json(files.funnel),
        assets={asset: stage.read_json(path) for asset, path in files.assets.items()},
        scoring=stage.read_json(files.scoring),
        scores=pl.concat([base, trained]),
    )


def read_texts(path: Path, model: str, benchmark: str, items: Iterable[int]) -> list[dict[str, Any]]:
    """One model's responses to some problems: ``item, sample, problem, gold, text, num_tokens, finish_reason``."""
    wanted = (pl.col("model") == model) & (pl.col("benchmark") == benchmark) & pl.col("item").is_in(list(items))
    columns = ["item", "sample", "problem", "gold", "text", "num_tokens", "finish_reason"]
    return pl.scan_parquet(path).filter(wanted).select(columns).sort("item", "sample").collect().to_dicts()


def read_completions(training: Path, step: str) -> tuple[pl.DataFrame, list[str]]:
    """The training completions of the ``"first"`` or ``"last"`` logged step, and the names of the reward columns.

    The files are TRL's: ``step, prompt, completion``, a column for each reward function, ``advantage``.
    """
    paths = sorted((training / "completions").glob("*.parquet"))
    if not paths:
        return pl.DataFrame(), []
    frame = pl.read_parquet(paths[0 if step == "first" else -1])
    wanted = frame["step"].min() if step == "first" else frame["step"].max()
    return frame.filter(pl.col("step") == wanted), [c for c in frame.columns if c in _reward_names(training)]


def _reward_names(training: Path) -> set[str]:
    return {key.split("/")[1] for row in _read_log(training / "log.jsonl") for key in row if key.startswith("rewards/")}


def _read_log(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise stage.UserError(f"{path}: cannot be read ({error.strerror}); run the train stage first") from None
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise stage.UserError(f"{path}:{number}: not JSON ({error.msg}); rerun the train stage") from None
    return [row for row in rows if "step" in row]


def _read_scores(path: Path, models: list[str]) -> pl.DataFrame:
    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise stage.UserError(
            f"{path}: cannot be read ({str(error).splitlines()[0]}); rerun the evaluate stage"
        ) from None
    if missing := [column for column in SCORE_COLUMNS if column not in frame.columns]:
        raise stage.UserError(f"{path}: no column {', '.join(missing)}; rerun the evaluate stage")
    present = set(frame["model"].unique())
    if absent := [model for model in models if model not in present]:
        raise stage.UserError(f"{path}: no scores of {', '.join(absent)}; rerun the evaluate stage")
    frame = frame.filter(pl.col("model").is_in(models))  # not of a checkpoint that an older save_steps left
    bad = frame.filter(pl.col("score").is_null() | pl.col("score").is_nan())
    if bad.height:
        row = bad.row(0, named=True)
        raise stage.UserError(
            f"{path}: no score for {row['model']}, {row['benchmark']}, item {row['item']}, sample {row['sample']}; "
            "rerun the evaluate stage"
        )
    return frame.select(
        pl.col("model", "benchmark").cast(pl.String),
        pl.col("item", "sample", "num_tokens").cast(pl.Int64),
        pl.col("score").cast(pl.Float64),
        pl.col("extracted", "finish_reason").cast(pl.String),
    )
