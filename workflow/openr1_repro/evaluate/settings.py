"""What can be configured about an evaluation: a variant's ``evaluate`` section and one file of config/benchmarks/."""

from typing import Any, Literal

from pydantic import Field, model_validator

from openr1_repro.stage import Chat, Settings

VALIDATION = "validation"
"""The pseudo-benchmark: prompts held out of training, on which the headline's checkpoint is picked."""
WARM_START = "warm-start"
"""The name, among a run's models, of what GRPO began with after a supervised start."""


class BenchmarkSettings(Settings):
    """config/benchmarks/NAME.yaml: one benchmark, versioned. Add one by adding a file; any change should raise ``version``."""

    version: int = Field(1, ge=1)
    """Raised by every change that can move a score; shown beside the score."""
    description: str = ""
    """One line for the report."""
    dataset: str
    """The asset (config/assets.yaml) that holds the problems."""
    files: str = "**/*"
    """Its files (parquet, jsonl, json, csv), as a glob below the repository's root; rows count through the files in order of name."""
    problem_column: str = "problem"
    """The column with the problem's text; prompts see it as ``problem``."""
    choices: list[str] = []
    """Multiple choice: the column of the right option, then those of the wrong ones. Prompts see ``choices``, in an order fixed by
    the problem's text; the gold is the right one's letter."""
    prompt: str = "{{ problem }}"
    """The user's message, a Jinja text over the row's columns, ``problem`` and ``choices``; the default is what training shows."""
    gold: str = "{{ answer }}"
    """What the metric compares with, a Jinja text over the same; unused with ``choices``."""
    metric: str = "pass_at_k_math"
    """The name in lighteval's ``Metrics`` of the metric that judges one sample."""
    lighteval: str | None = None
    """The lighteval task whose prompt and metric these are; null: lighteval has none."""
    deviations: list[str] = []
    """How this differs from the lighteval task, or from the benchmark's usual form; shown in the report."""
    samples: int = Field(4, ge=1)
    """Samples a problem, where neither the protocol nor the variant says otherwise."""
    max_new_tokens: int | None = Field(None, ge=1)
    """A limit of the benchmark's own, which the protocol's does not lift; null: the protocol's."""
    stop: list[str] = []
    """Texts that end a sample."""
    num_problems: int | None = Field(None, ge=1)
    """Only the first so many rows; null: all. A score over a part is no longer the benchmark's."""


class EvaluateSettings(Settings):
    """A variant's ``evaluate`` section: the same for its base model and its checkpoints."""

    benchmarks: list[str] = Field(min_length=1)
    """Files of config/benchmarks/, without .yaml; the first is the report's headline."""
    protocol: Literal["open-r1", "deepseek", "sober", "lighteval"] = "open-r1"
    """Sampling, token limit, samples and prompt of a published evaluation (docs/evaluate.md); the keys below replace parts of it."""
    temperature: float | None = Field(None, ge=0)
    """0: greedy; null: the protocol's."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Null: the protocol's."""
    top_k: int | None = Field(None, ge=0)
    """0: no limit; null: the protocol's."""
    max_new_tokens: int | None = Field(None, ge=1)
    """Null: the protocol's. Lowered for a model whose positions do not hold prompt and answer; never by cutting the prompt."""
    samples: int | dict[str, int] | None = None
    """Samples a problem, for all benchmarks or by name; null: the protocol's, else the benchmark's."""
    validation_samples: int = Field(4, ge=1)
    """Samples of each held-out training prompt, on which the checkpoint is picked."""
    seed: int = 0
    """Every request's seed follows from it, the benchmark, the problem and the sample."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """Auto: vLLM where it is installed and a GPU is visible."""
    dtype: str = "auto"
    """Of the weights while generating; auto: bfloat16 on GPUs, float32 on a CPU."""
    batch_size: int = Field(256, ge=1)
    """Sequences at once, transformers only. What a kill can lose is one batch."""
    vllm: dict[str, Any] = {}
    """Options of ``vllm.LLM`` under their own names, such as tensor_parallel_size or gpu_memory_utilization."""
    request_seeds: bool = True
    """vLLM: seed each request; false: only the engine, faster with samplers that draw row by row, but a resumed run then continues
    with other draws."""
    score_timeout: float = Field(30, gt=0)
    """Seconds of processor time after which the process that judges a sample is killed and the sample counts as wrong."""
    score_memory: int = Field(2048, ge=256)
    """MiB that judging one sample may take."""

    @model_validator(mode="after")
    def _known_names(self) -> "EvaluateSettings":
        counts = self.samples.values() if isinstance(self.samples, dict) else [self.samples]
        if any(count is not None and count < 1 for count in counts):
            raise ValueError("samples: at least 1 a problem")
        if isinstance(self.samples, dict) and (unknown := set(self.samples) - set(self.benchmarks)):
            raise ValueError(f"samples: {', '.join(sorted(unknown))} is not among benchmarks")
        if len(set(self.benchmarks)) < len(self.benchmarks):
            raise ValueError("benchmarks: a name stands twice")
        if VALIDATION in self.benchmarks:
            raise ValueError(
                f"benchmarks: {VALIDATION!r} is the held-out training prompts' name; call the benchmark otherwise"
            )
        return self


class StageSettings(Settings):
    """All that decides what this stage writes."""

    chat: Chat = Chat()
    """How a problem becomes a prompt: training's own."""
    evaluate: EvaluateSettings
    """The variant's section."""
    benchmarks: dict[str, BenchmarkSettings]
    """Definition of every benchmark to run, by name."""

    @model_validator(mode="after")
    def _defined(self) -> "StageSettings":
        if missing := [name for name in self.evaluate.benchmarks if name not in self.benchmarks]:
            raise ValueError(f"benchmarks: {', '.join(missing)} has no definition")
        return self
