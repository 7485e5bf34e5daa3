"""What the report takes: the files of every variant, and how much of them to show."""

from pathlib import Path
from typing import Any

from pydantic import Field

from openr1_repro.stage import Settings


class ReportSettings(Settings):
    """How the report looks; never what it measures."""

    title: str = "GRPO training of a maths reasoning model"
    """Title of the page."""
    headline: str | None = None
    """Benchmark of the headline; null: the first benchmark of each variant."""
    num_completions: int = Field(3, ge=0, le=50)
    """Training completions shown with the highest and the lowest reward, of the first and the last logged step."""
    num_answers: int = Field(3, ge=0, le=50)
    """Benchmark problems shown with base and trained model's answer: so many gained, lost, and never right."""
    num_examples: int = Field(3, ge=0, le=50)
    """Dropped rows shown for each filter of the prepare stage."""
    max_characters: int = Field(1600, ge=100)
    """Longer texts are shown with their middle left out, and the number of characters left out."""


class VariantFiles(Settings):
    """One variant: its resolved config and where the other stages left their outputs."""

    config: dict[str, Any]
    """The resolved config, as shown and compared between variants."""
    training: Path
    """Output folder of the train stage: log.jsonl, train.json, checkpoints.json, completions/."""
    scores: Path
    """scores.parquet of the checkpoints."""
    base_scores: Path
    """scores.parquet of the base model."""
    responses: Path
    """responses.parquet of the checkpoints, for answers to read."""
    base_responses: Path
    """responses.parquet of the base model, for answers to read."""
    scoring: Path
    """scores.json of the checkpoints: protocol and versions."""
    funnel: Path
    """funnel.json of the prepare stage."""
    assets: dict[str, Path] = Field(default_factory=dict)
    """manifest.json of every model and data set used."""


class Inputs(Settings):
    """``--settings`` of the report."""

    variants: dict[str, VariantFiles] = Field(min_length=1)
    """By name, in the order shown."""
    benchmarks: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Definitions of the benchmarks."""
    published: Path | None = None
    """YAML with results published elsewhere; null: none."""
    locks: dict[str, Path] = Field(default_factory=dict)
    """Lock file of every environment; their digests go into the provenance."""
    report: ReportSettings = ReportSettings()
    """How the report looks."""
