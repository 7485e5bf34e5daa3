"""From `RewardSettings` to the functions that the trainer calls, with what they share: workers, cache, statistics."""

import hashlib
import importlib
import importlib.util
import inspect
import json
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from openr1_repro.rewards import contests, functions, programs
from openr1_repro.rewards.functions import Completions, Rewards
from openr1_repro.rewards.piston import Piston, piston_judge
from openr1_repro.rewards.pool import Item, Pool, Result
from openr1_repro.rewards.remote import e2b_judge, morph_judge, router_judge
from openr1_repro.rewards.settings import RewardSettings
from openr1_repro.stage import UserError

CACHED = 65536
"""Verdicts that are remembered: more than the completions of any step, so that rewards that share one find it."""
CACHED_PROGRAMS = 1024


@dataclass
class _Samples:
    """What one reward function gave since the last `RewardSet.statistics`."""

    rewards: Rewards = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    timeouts: int = 0
    cache_hits: int = 0


class RewardSet:
    """``reward_funcs`` and ``reward_weights`` as TRL's trainer takes them. Made by `load`."""

    def __init__(self, settings: RewardSettings):
        self.settings = settings
        self.reward_weights = settings.reward_weights or [1.0] * len(settings.reward_funcs)
        self.reward_funcs: list[Callable[..., Any]] = []
        self._samples: dict[str, _Samples] = {}
        self._verdicts: OrderedDict[bytes, Result] = OrderedDict()
        self._shares: OrderedDict[programs.Program, float | None] = OrderedDict()
        self._pool: Pool | None = None
        for name in settings.reward_funcs:
            self._add(name.rpartition(":")[2], own_reward(name) if ":" in name else getattr(self, f"_{name}"))
        if settings.repetition_language == "zh" and importlib.util.find_spec("jieba") is None:
            raise UserError("repetition_language: zh needs the package jieba: pip install jieba")
        if {"accuracy", "length", "cosine"} & set(settings.reward_funcs):
            workers = settings.verify_workers or local_share_of_cores()
            # waits for no worker: they import SymPy while the trainer loads its model
            self._pool = Pool(
                workers, settings.verify_timeout, settings.verify_memory_mb, settings.verify_batch_timeout
            )
        if {"code", "binary_code"} & set(settings.reward_funcs):
            self._judge = code_judge(settings)
        if {"ioi_code", "cf_code"} & set(settings.reward_funcs):
            self._piston = Piston(settings.piston_endpoints)

    def _add(self, name: str, function: Callable[..., Rewards]) -> None:
        samples = self._samples[name] = _Samples()

        def reward(prompts: Any = None, completions: Any = None, completion_ids: Any = None, **columns: Any) -> Rewards:
            started, before = time.perf_counter(), len(samples.latencies)
            rewards = function(prompts=prompts, completions=completions, completion_ids=completion_ids, **columns)
            if len(samples.latencies) == before and rewards:  # nothing measured item by item
                samples.latencies += [(time.perf_counter() - started) / len(rewards)] * len(rewards)
            samples.rewards += rewards
            return rewards

        reward.__name__ = reward.__qualname__ = name
        # TRL awaits an asynchronous function of the user's own beside the others; it has no statistics here
        self.reward_funcs.append(function if inspect.iscoroutinefunction(function) else reward)

    def statistics(self) -> dict[str, dict[str, float]]:
        """What each reward function gave in this process since the last call: name to mean, std, rates and latencies.

        ``latency_p50``, ``latency_p99``: seconds for one completion; ``none_rate`` in 0…1; ``timeouts``: completions
        whose judging was stopped; ``cache_hits``: completions that had been judged before. Functions that were not
        called are left out; mean and std are NaN if every reward was None.
        """
        statistics = {}
        for name, samples in self._samples.items():
            if samples.rewards:
                values = [reward for reward in samples.rewards if reward is not None]
                mean = math.fsum(values) / len(values) if values else math.nan
                variance = math.fsum((v - mean) ** 2 for v in values) / len(values) if values else math.nan
                latencies = sorted(samples.latencies) or [0.0]
                statistics[name] = {
                    "mean": mean,
                    "std": math.sqrt(variance),
                    "none_rate": 1 - len(values) / len(samples.rewards),
                    "timeouts": samples.timeouts,
                    "cache_hits": samples.cache_hits,
                    "latency_p50": latencies[len(latencies) // 2],
                    "latency_p99": latencies[min(len(latencies) - 1, int(0.99 * len(latencies)))],
                }
            samples.__init__()  # type: ignore[misc]
        return statistics

    def close(self) -> None:
        """End the worker processes; also done at exit. Harmless when repeated."""
        if self._pool:
            self._pool.close()

    def _verify(self, name: str, completions: Completions, columns: dict[str, Any]) -> list[bool | None]:
        rule = "accuracy" if name == "accuracy" or self.settings.length_and_cosine_verdict == "accuracy" else "length"
        column = self.settings.gold_column
        if column not in columns:
            raise UserError(
                f"rewards: {name} needs the column {column!r} (gold_column) in the prompts; found {sorted(columns)}"
            )
        golds = [gold or "" for gold in columns[column]]
        if column == "answer":
            golds = [gold if not gold or "\\boxed" in gold else f"\\boxed{{{gold}}}" for gold in golds]
        items = [
            Item(gold, completion[0]["content"] or "", rule)
            for gold, completion in zip(golds, completions, strict=True)
        ]
        keys = [
            hashlib.blake2b("\0".join((i.gold, i.text, i.rule)).encode("utf-8", "surrogatepass")).digest()
            for i in items
        ]
        fresh = {key: item for key, item in zip(keys, items, strict=True) if key not in self._verdicts}
        assert self._pool
        results = self._pool.check(list(fresh.values()))
        self._verdicts.update(zip(fresh, results, strict=True))
        samples = self._samples[name]
        samples.latencies += [result.seconds for result in results]
        samples.timeouts += sum(result.fault is not None for result in results)
        samples.cache_hits += len(items) - len(fresh)
        verdicts = [self._verdicts[key].verdict for key in keys]
        while len(self._verdicts) > CACHED:
            self._verdicts.popitem(last=False)
        return verdicts

    def _accuracy(self, completions: Completions, **columns: Any) -> Rewards:
        return functions.accuracy(self._verify("accuracy", completions, columns))

    def _format(self, completions: Completions, **columns: Any) -> Rewards:
        return functions.format(completions, self.settings.format_whole_text)

    def _tag_count(self, completions: Completions, **columns: Any) -> Rewards:
        return functions.tag_count(completions)

    def _reasoning_steps(self, completions: Completions, **columns: Any) -> Rewards:
        return functions.reasoning_steps(completions)

    def _length(self, completions: Completions, prompts: Any = None, **columns: Any) -> Rewards:
        verdicts = self._verify("length", completions, columns)
        if self.settings.length_and_cosine_verdict == "open-r1":
            verdicts = [verdict is not False for verdict in verdicts]
        groups = None if prompts is None else [json.dumps(prompt, sort_keys=True) for prompt in prompts]
        return functions.length(completions, verdicts, groups)

    def _cosine(self, completions: Completions, completion_ids: Any = None, **columns: Any) -> Rewards:
        s = self.settings
        verdicts = self._verify("cosine", completions, columns)
        if s.cosine_unit == "tokens":
            lengths = [min(len(ids), s.cosine_max_len) for ids in completion_ids]
        else:
            lengths = [len(completion[0]["content"]) for completion in completions]
        rewards = functions.cosine(
            lengths, verdicts, s.cosine_min_value_wrong, s.cosine_max_value_wrong, s.cosine_min_value_correct,
            s.cosine_max_value_correct, s.cosine_max_len,
        )  # fmt: skip
        return [1.0 if r is None else r for r in rewards] if s.length_and_cosine_verdict == "open-r1" else rewards

    def _repetition_penalty(self, completions: Completions, completion_ids: Any = None, **columns: Any) -> Rewards:
        s = self.settings
        if s.repetition_language == "tokens":
            from trl.rewards import get_repetition_penalty_reward

            return get_repetition_penalty_reward(s.repetition_n_grams, s.repetition_max_penalty)(completion_ids)
        return functions.repetition_penalty(
            completions, s.repetition_n_grams, s.repetition_max_penalty, s.repetition_language
        )

    def _soft_overlong_punishment(self, completion_ids: list[list[int]], **columns: Any) -> Rewards:
        return functions.soft_overlong_punishment(
            completion_ids, self.settings.max_completion_len, self.settings.soft_punish_cache
        )

    def _code_format(
        self, completions: Completions, language: list[str | None] | None = None, **columns: Any
    ) -> Rewards:
        default = self.settings.code_language
        languages = [name or default for name in language or [None] * len(completions)]
        return functions.code_format(completions, languages, self.settings.format_whole_text)

    def _code(self, completions: Completions, verification_info: list[Any] | None = None, **columns: Any) -> Rewards:
        return functions.code(self._passed_shares(completions, verification_info))

    def _binary_code(
        self, completions: Completions, verification_info: list[Any] | None = None, **columns: Any
    ) -> Rewards:
        return functions.binary_code(self._passed_shares(completions, verification_info))

    def _passed_shares(self, completions: Completions, verification_info: list[Any] | None) -> Rewards:
        s = self.settings
        if verification_info is None:
            raise UserError("rewards: code needs the column verification_info (language, test_cases) in the prompts")
        items = [
            programs.program(completion[-1]["content"], info)
            for completion, info in zip(completions, verification_info, strict=True)
        ]
        asked = {item.language for item in items if item}
        if s.enforce_same_language and len(asked) > 1:
            raise UserError(f"enforce_same_language: this batch asks for {', '.join(sorted(asked))}")
        fresh = list({item: None for item in items if item and item not in self._shares})
        shares = programs.shares(fresh, self._judge, s.parallel_code_exec_per_proc, s.code_batch_timeout)
        self._shares.update(zip(fresh, shares, strict=True))
        found = [self._shares[item] if item else None for item in items]
        while len(self._shares) > CACHED_PROGRAMS:
            self._shares.popitem(last=False)
        return found

    def _ioi_code(self, completions: Completions, **columns: Any) -> Rewards:
        s, texts = self.settings, [completion[-1]["content"] for completion in completions]
        problems = contests.rows(columns, len(texts))
        return contests.ioi_scores(texts, problems, self._piston, s.code_eval_test_batch_size, s.code_batch_timeout)

    def _cf_code(self, completions: Completions, **columns: Any) -> Rewards:
        s, texts = self.settings, [completion[-1]["content"] for completion in completions]
        problems = contests.rows(columns, len(texts))
        return contests.cf_scores(
            texts, problems, self._piston, s.code_eval_test_batch_size, s.code_batch_timeout,
            s.code_eval_scoring_mode, s.cf_patch_code, s.cf_tests_folder,
        )  # fmt: skip


def code_judge(settings: RewardSettings) -> programs.Judge:
    """What runs the programs of `code`, as ``code_provider`` says.

    Raises:
        UserError: if the provider cannot work here.
    """
    seconds, memory_mb = settings.code_test_timeout, settings.code_memory_mb
    if settings.code_provider == "local":
        return programs.local_judge(seconds, memory_mb)
    if settings.code_provider == "piston":
        return piston_judge(Piston(settings.piston_endpoints), seconds, memory_mb)
    if settings.code_provider == "e2b":
        return router_judge(settings.e2b_router_url, seconds) if settings.e2b_router_url else e2b_judge(seconds)
    return router_judge(settings.morph_router_url, seconds) if settings.morph_router_url else morph_judge(seconds)


def load(settings: RewardSettings) -> RewardSet:
    """Start the reward engine of this process: once, before training; `RewardSet.close` or the program's end stops it.

    Raises:
        UserError: if a reward cannot work here, naming the setting and the fix.
    """
    return RewardSet(settings)


def own_reward(path: str) -> Callable[..., Rewards]:
    """The function that ``module:function`` names, called as TRL calls a reward.

    Raises:
        UserError: if there is no such module or function.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"reward_funcs: {path}: {error}; is the module's folder in PYTHONPATH?") from None
    if not callable(function):
        raise UserError(f"reward_funcs: {path}: not a function")
    return function


def local_share_of_cores() -> int:
    """The cores of this machine that one training process may use: all of them by the number of local processes."""
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, len(os.sched_getaffinity(0)) // processes)
