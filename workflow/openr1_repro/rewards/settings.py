"""The ``rewards`` section of a variant: which rewards, their weights and parameters, the limits on what judges them."""

from typing import Literal, Self

from pydantic import Field, model_validator

from openr1_repro.stage import Settings

REWARD_NAMES = (
    "accuracy", "format", "tag_count", "reasoning_steps", "length", "cosine", "repetition_penalty",
    "soft_overlong_punishment", "code", "binary_code", "ioi_code", "cf_code", "code_format",
)  # fmt: skip


class RewardSettings(Settings):
    """Rewards of a variant. Where open-r1 or TRL has an option, the name is theirs."""

    reward_funcs: list[str] = Field(["accuracy", "format", "tag_count"], min_length=1)
    """Rewards by name (accuracy, format, tag_count, reasoning_steps, length, cosine, repetition_penalty,
    soft_overlong_punishment, code, binary_code, ioi_code, cf_code, code_format), or your own as `module:function`."""
    reward_weights: list[float] | None = None
    """One weight a reward, in the same order; null: 1 each."""

    format_whole_text: bool = True
    """Format, code format: nothing may follow `</answer>`. false: more lines may follow, as open-r1's multi-line
    regular expression lets them."""

    gold_column: Literal["solution", "answer"] = "solution"
    """The column with the truth: the worked solution, from which math-verify takes the answer as open-r1 does, or the
    short answer, read as the content of a box."""
    length_and_cosine_verdict: Literal["accuracy", "open-r1"] = "accuracy"
    """What right means to `length` and `cosine`. accuracy: the same verdict, verified once, none if the gold does not
    parse. open-r1: a second verification that reads golds in LaTeX only and takes one that does not parse for right."""

    cosine_min_value_wrong: float = 0.0
    """Cosine: reward of the shortest wrong completion."""
    cosine_max_value_wrong: float = -0.5
    """Cosine: reward of a wrong completion of length `cosine_max_len`."""
    cosine_min_value_correct: float = 0.5
    """Cosine: reward of a right completion of length `cosine_max_len`."""
    cosine_max_value_correct: float = 1.0
    """Cosine: reward of the shortest right completion."""
    cosine_max_len: int = Field(1000, gt=0)
    """Cosine: the length at which the cosine has made its half turn."""
    cosine_unit: Literal["characters", "tokens"] = "characters"
    """Cosine: what a length counts. characters: open-r1, and the cosine turns back beyond the maximum.
    tokens: TRL, and it stays at the maximum's value."""

    repetition_n_grams: int = Field(3, gt=0)
    """Repetition penalty: size of the n-grams."""
    repetition_max_penalty: float = -1.0
    """Repetition penalty: the reward where everything repeats; not positive."""
    repetition_language: Literal["en", "zh", "tokens"] = "en"
    """Repetition penalty: what an n-gram is made of: words between spaces (en), words by jieba (zh), or token ids
    (tokens: TRL's rule)."""

    max_completion_len: int = Field(16384, gt=0)
    """Soft overlong punishment: tokens from which on the reward is -1."""
    soft_punish_cache: int = Field(4096, ge=0)
    """Soft overlong punishment: the last tokens before the maximum, over which the reward falls from 0 to -1."""

    code_language: str = "python"
    """Code format: the fenced block's language where the data set has no `language` column."""
    code_provider: Literal["local", "e2b", "morph", "piston"] = "local"
    """Where `code` and `binary_code` run programs. local: bubblewrap on this machine (python, cpp, javascript)."""
    parallel_code_exec_per_proc: int = Field(2, gt=0)
    """Programs that run at the same time, for each training process."""
    enforce_same_language: bool = False
    """Refuse a batch whose problems ask for different languages."""
    e2b_router_url: str | None = None
    """host:port of open-r1's E2B router; null: E2B's own SDK."""
    morph_router_url: str | None = None
    """host:port of open-r1's Morph router; null: Morph's own SDK."""
    ioi_provider: Literal["piston"] = "piston"
    """Where `ioi_code` runs programs."""
    piston_endpoints: list[str] | None = None
    """Addresses of Piston servers (`http://host:port/api/v2`); null: the environment's PISTON_ENDPOINTS."""
    code_eval_test_batch_size: int = 1
    """ioi_code, cf_code: test cases that run at the same time before a failed one ends it; -1: all."""
    code_eval_scoring_mode: Literal["pass_fail", "partial", "weighted_sum"] = "weighted_sum"
    """cf_code: 1 if all tests pass; the share that passes; or the first plus a tenth of the second."""
    cf_patch_code: bool = False
    """cf_code: mend imports and includes that models forget, as open-r1's `patch_code`."""
    cf_tests_folder: str | None = None
    """cf_code: folder with the generated tests of open-r1/codeforces; null: the environment's CF_TESTS_FOLDER, or the
    official tests alone."""

    verify_workers: int | None = Field(None, gt=0)
    """Processes that verify answers, for each training process; null: this process's share of the cores."""
    verify_timeout: float = Field(10.0, gt=0)
    """CPU seconds for one answer, after which its worker is killed and the answer counts as wrong. math-verify itself
    gives up a single step at half of it, which is open-r1's 5 seconds at the default."""
    verify_memory_mb: int = Field(1024, gt=0)
    """Memory that verifying one answer may take beyond what a worker has when it starts."""
    verify_batch_timeout: float = Field(120.0, gt=0)
    """Seconds by the clock for a batch of answers; those not judged by then get no reward (None)."""
    code_test_timeout: float = Field(5.0, gt=0)
    """Seconds for one test case of `code` and `binary_code`."""
    code_memory_mb: int = Field(512, gt=0)
    """Memory for one program in the local sandbox."""
    code_batch_timeout: float = Field(300.0, gt=0)
    """Seconds for a batch of programs; those not judged by then get no reward (None)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        unknown = [n for n in self.reward_funcs if n not in REWARD_NAMES and ":" not in n]
        if unknown:
            raise ValueError(
                f"reward_funcs: no reward is called {', '.join(unknown)}; "
                f"choose from {', '.join(REWARD_NAMES)}, or name your own as module:function"
            )
        if len(set(self.reward_funcs)) != len(self.reward_funcs):
            raise ValueError("reward_funcs: a reward is named twice; set its weight in reward_weights instead")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"reward_weights: {len(self.reward_weights)} weights for {len(self.reward_funcs)} reward_funcs"
            )
        if self.repetition_max_penalty > 0:
            raise ValueError(f"repetition_max_penalty {self.repetition_max_penalty} should not be positive")
        if self.soft_punish_cache > self.max_completion_len:
            raise ValueError("soft_punish_cache: larger than max_completion_len")
        return self
