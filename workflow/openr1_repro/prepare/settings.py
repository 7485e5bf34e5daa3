"""What the prepare stage can be asked for. A filter set to null is off; the fields stand in the funnel's order."""

from typing import Any, Literal

from pydantic import Field, model_validator

from openr1_repro.stage import Chat, Settings


class DatasetPart(Settings):
    """One data set of the mixture."""

    asset: str
    """Name of the data set in `config/assets.yaml`."""
    files: str = "**/*.parquet"
    """Which of its parquet files, as a glob below the repository's root: this is how a configuration is chosen
    (OpenR1-Math-220k: `data/train-*`, `extended/train-*`, `all/*`)."""
    weight: float = Field(1.0, gt=0, le=1)
    """Share to keep of the rows that are left after all filters, drawn at random: `weight` of open-r1's mixtures."""
    columns: dict[str, str] = Field({})
    """Where columns have other names: `{problem: question}` reads this data set's `question` as `problem`."""


class VerifiedTrace(Settings):
    """Keep a problem only if enough of its published traces are right: an answer that no trace found may be wrong."""

    columns: list[str] = Field(["correctness_math_verify", "correctness_llama"], min_length=1)
    """Boolean lists, an entry a trace; a trace is right if any of them says so."""
    min: int = Field(1, ge=1)
    """How many right traces a problem needs."""
    complete: bool = True
    """Count a trace only if `is_reasoning_complete` holds for it too."""


class AnswerFilter(Settings):
    """What a gold answer has to be."""

    max_chars: int = Field(200, ge=1)
    """Longest answer, in characters: longer ones are proofs or essays."""
    reject: list[str] = Field(
        ["proof", "notfound", "not found", "none", "n/a", "na", "nan", "null", "unknown", "no answer", "see solution"]
    )
    """Texts, compared without case, that stand for a missing answer; math-verify reads them as products of letters."""
    parse: bool = True
    """Let math-verify parse every distinct answer; keep it only if the answer in a box is judged equal to itself."""
    timeout: float = Field(10.0, gt=0)
    """Seconds of CPU time after which the process that parses an answer is killed, and the answer dropped."""


class Contamination(Settings):
    """Drop problems that occur in a benchmark."""

    benchmarks: list[str] | None = None
    """Which (files of config/benchmarks/); null: those that the variant is evaluated on."""
    ngram: int | None = Field(8, ge=1)
    """Words in a row that a problem shares with a benchmark problem (s1 and open-r1: 8). null: containment only, for
    data made from templates, where eight words in a row mean nothing."""
    containment_chars: int | None = Field(40, ge=1)
    """A problem that contains a benchmark problem of so many letters, digits and signs (spaces and markup do not
    count), or is contained in one, is dropped; a shorter one only if equal. null: n-grams only, as open-r1."""


class NearDuplicates(Settings):
    """Keep one of problems that differ in a few words only."""

    threshold: float = Field(0.8, gt=0, le=1)
    """Jaccard similarity of the two sets of shingles."""
    shingle: int = Field(3, ge=1)
    """Words, numbers and signs in a shingle."""
    num_perm: int = Field(64, ge=16)
    """MinHash permutations."""
    bands: int = Field(16, ge=1)
    """LSH bands, among which `num_perm` is divided."""
    same_facts: bool = True
    """The mathematical rule: problems whose numbers, signs (+ - * / ^ = < >) or telling words (maximum, even, sin,
    three …) differ, in their order, are different problems."""
    same_answer: bool = True
    """Problems with different answers are different problems."""

    @model_validator(mode="after")
    def _bands_divide(self) -> "NearDuplicates":
        if self.num_perm % self.bands:
            raise ValueError(f"bands ({self.bands}) must divide num_perm ({self.num_perm})")
        return self


class PassRate(Settings):
    """Keep problems that the base model solves sometimes: all right or all wrong teaches GRPO nothing."""

    k: int = Field(8, ge=2)
    """Samples a problem."""
    above: float = Field(0.0, ge=0, lt=1)
    """Keep rates greater than this."""
    below: float = Field(1.0, gt=0, le=1)
    """Keep rates less than this."""
    candidates: int | None = Field(None, ge=1)
    """How many of the problems that passed the other filters to sample, at random; the rest is dropped. null: all."""
    temperature: float = Field(0.7, ge=0)
    """Best that of training."""
    max_new_tokens: int = Field(2048, ge=1)
    """Best training's `max_completion_length`: an answer that would be cut off there counts as wrong here too."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Auto: vLLM where it is installed and a GPU is visible."""
    vllm: dict[str, Any] = Field({})
    """Options of `vllm.LLM` under their own names."""

    @model_validator(mode="after")
    def _band(self) -> "PassRate":
        if self.above >= self.below:
            raise ValueError(f"above ({self.above}) must be less than below ({self.below})")
        return self


class Sample(Settings):
    """Keep `size` rows of what is left."""

    size: int = Field(ge=1)
    """How many rows."""
    order: str | None = None
    """A numeric column of the data set: keep the rows where it is greatest (top-n). null: at random."""
    stratify: str | None = None
    """A column of the data set whose shares are kept, such as `source` or `problem_type`; null: none."""


class PrepareSettings(Settings):
    """The `prepare` section of a variant."""

    datasets: list[DatasetPart] = Field(min_length=1)
    """What to train on; several make a mixture."""
    keep_columns: list[str] = Field([])
    """Further columns to hand to the rewards as they are, e.g. `verification_info`."""
    max_text_chars: int = Field(1_000_000, ge=1)
    """A problem, solution or answer longer than this means a damaged file, and stops the stage."""
    require_solution: bool = False
    """Drop rows without a solution too (a problem and an answer are always needed)."""
    question_types: list[str | None] | None = None
    """Values of `question_type` to keep, null for rows that have none; null: all."""
    problem_types: list[str | None] | None = None
    """Values of `problem_type` to keep, null for rows that have none; null: all."""
    sources: list[str | None] | None = None
    """Values of `source` to keep, null for rows that have none; null: all."""
    verified_trace: VerifiedTrace | None = None
    """Ask for traces that were judged right; null: do not."""
    self_contained: bool = True
    """Drop problems that need a figure, or refer to another part or problem."""
    choices: Literal["keep", "drop"] = "drop"
    """Problems that list answers (A), (B), (C) to choose from: a letter can be guessed."""
    answer: AnswerFilter | None = AnswerFilter()
    """What a gold answer has to be; null: anything that is not empty."""
    contradictions: bool = True
    """Drop problems that occur with different answers."""
    exact_duplicates: bool = True
    """Keep one of problems that are equal after normalisation."""
    contamination: Contamination | None = Contamination()
    """Drop what occurs in any of the variant's benchmarks; null: do not."""
    near_duplicates: NearDuplicates | None = NearDuplicates()
    """Keep one of problems that are nearly equal; null: keep all."""
    max_prompt_tokens: int | None = Field(512, ge=1)
    """Longest prompt in tokens of the model's tokenizer, chat template and system prompt included; null: any."""
    pass_rate: PassRate | None = None
    """Ask for problems that the base model solves sometimes; null: do not."""
    sample: Sample | None = None
    """Keep this many; null: all."""
    validation: int = Field(0, ge=0)
    """Rows to hold back for choosing a checkpoint; whole clusters of near duplicates: no twin in training."""
    seed: int = 42
    """Decides what is drawn, held back and first, by a hash of (seed, uuid): new rows do not reorder the rest."""

    def before_pass_rate(self) -> "PrepareSettings":
        """The settings whose prompts `prepare.pass_rate` samples: the same funnel up to there."""
        size = self.pass_rate.candidates if self.pass_rate else None
        sample = Sample(size=size) if size else None
        return self.model_copy(update={"pass_rate": None, "sample": sample, "validation": 0})


class BenchmarkProblems(Settings, extra="ignore"):
    """What decontamination needs to know of a benchmark: a part of `evaluate`'s `BenchmarkSettings`."""

    dataset: str
    """Name of the data set in `config/assets.yaml`."""
    files: str = "**/*"
    """Its files (parquet, jsonl, json, csv) as a glob below the repository's root."""
    problem_column: str = "problem"
    """The column that holds the problem."""


class StageSettings(Settings):
    """All that decides what this stage writes."""

    chat: Chat = Chat()
    """How a problem becomes a prompt."""
    prepare: PrepareSettings
    """The funnel."""
    model: str
    """Name of the model in `config/assets.yaml`, for its tokenizer."""
    benchmarks: dict[str, BenchmarkProblems] = Field({})
    """Benchmarks to keep out of the training data."""
