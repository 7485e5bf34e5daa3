"""Published evaluation protocols by name, and what a benchmark's requests look like under one."""

from openr1_repro.evaluate.settings import VALIDATION, BenchmarkSettings, EvaluateSettings
from openr1_repro.stage import Settings

# Hochlehnert et al. 2025, lighteval_tasks.py: lighteval's AIME prompt for every benchmark, without its outer newlines.
_SOBER_PROMPT = (
    "Solve the following math problem efficiently and clearly.  The last line of your response should be of the following format: "
    "'Therefore, the final answer is: $\\boxed{ANSWER}$. I hope it is correct' (without quotes) where ANSWER is just the final "
    "number or expression that solves the problem. Think step by step before answering.\n\n{{ problem }}"
)


class Protocol(Settings):
    """How somebody evaluated: enough to do the same."""

    temperature: float
    top_p: float = 1.0
    top_k: int = 0
    max_new_tokens: int = 32768
    samples: dict[str, int] = {}
    """By benchmark; ``*`` for those not named; others take the benchmark's own number."""
    prompt: str | None = None
    """In place of every benchmark's own prompt, but multiple choice's."""
    system_prompt: bool = False
    """Whether the system prompt of training is shown."""
    source: str
    """Where this is written."""


PROTOCOLS = {
    "open-r1": Protocol(
        temperature=0.6, top_p=0.95, samples={"aime24": 64, "aime25": 64, "aime26": 64, "math-500": 4, "gpqa-diamond": 8},
        system_prompt=True, source="huggingface/open-r1 README and slurm/evaluate.slurm: lighteval's prompts, training's system prompt",
    ),
    "deepseek": Protocol(
        temperature=0.6, top_p=0.95, samples={"*": 64},
        prompt="{{ problem }}\nPlease reason step by step, and put your final answer within \\boxed{}.",
        source="DeepSeek-R1 README, usage recommendations; 64 responses a query estimate pass@1",
    ),
    "sober": Protocol(
        temperature=0.8, top_p=0.9,
        samples={"aime24": 10, "aime25": 10, "aime26": 10, "amc23": 10, "math-500": 3, "minerva": 3, "olympiadbench": 3},
        prompt=_SOBER_PROMPT, source="Hochlehnert et al. 2025 (arXiv 2504.07086) and bethgelab/sober-reasoning: 10 seeds or 3",
    ),
    "lighteval": Protocol(temperature=0.0, samples={"*": 1}, source="lighteval 0.13 defaults: greedy, one sample, the task's prompt"),
}  # fmt: skip


class Sampling(Settings):
    """What every request of one benchmark shares; part of what a stored response is found by."""

    temperature: float
    top_p: float
    top_k: int
    max_new_tokens: int
    stop: list[str]


def sampling_of(name: str, benchmark: BenchmarkSettings | None, settings: EvaluateSettings) -> tuple[Sampling, int]:
    """The sampling of a benchmark's requests and the number of samples a problem; ``benchmark`` None: the validation prompts."""
    protocol = PROTOCOLS[settings.protocol]
    limit = settings.max_new_tokens or protocol.max_new_tokens
    if benchmark is not None and benchmark.max_new_tokens is not None:
        limit = min(limit, benchmark.max_new_tokens)
    if benchmark is None:
        samples = settings.validation_samples
    elif isinstance(settings.samples, int):
        samples = settings.samples
    else:
        published = protocol.samples.get(name, protocol.samples.get("*", benchmark.samples))
        samples = (settings.samples or {}).get(name, published)
    sampling = Sampling(
        temperature=protocol.temperature if settings.temperature is None else settings.temperature,
        top_p=protocol.top_p if settings.top_p is None else settings.top_p,
        top_k=protocol.top_k if settings.top_k is None else settings.top_k,
        max_new_tokens=limit,
        stop=benchmark.stop if benchmark else [],
    )
    return sampling, samples


def describe(settings: EvaluateSettings) -> dict[str, object]:
    """The protocol in force with the variant's replacements named, for ``scores.json`` and the report."""
    protocol = PROTOCOLS[settings.protocol]
    keys = ("temperature", "top_p", "top_k", "max_new_tokens", "samples")
    replaced = {key: getattr(settings, key) for key in keys if getattr(settings, key) is not None}
    return {
        "name": settings.protocol, **protocol.model_dump(), **replaced, "replaced": sorted(replaced), "seed": settings.seed,
        "validation_samples": settings.validation_samples, "pick_on": VALIDATION,
    }  # fmt: skip
