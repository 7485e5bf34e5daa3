"""A pytest plugin that gives TRL's own tests our rewards in place of TRL's: ``pytest -p as_trl``.

``think_format_reward`` and ``reasoning_accuracy_reward`` stay TRL's: the seed has no such rewards.
"""

import functools
import importlib

from openr1_repro.rewards import load
from openr1_repro.rewards.settings import RewardSettings


@functools.cache
def _engine(json):
    return load(RewardSettings.model_validate_json(json))


class Reward:
    """Our reward of these settings; started when first called, so that it can be pickled, as TRL's can."""

    def __init__(self, name, title, **fields):
        self.__name__ = title
        self.json = RewardSettings(reward_funcs=[name], verify_workers=1, **fields).model_dump_json()

    positional = ("completion_ids",)

    def __call__(self, *arguments, **columns):
        return _engine(self.json).reward_funcs[0](**dict(zip(self.positional, arguments, strict=False)), **columns)


class Verified(Reward):
    positional = ("completions", "solution", "completion_ids")


def get_cosine_scaled_reward(max_len, min_value_wrong=-1.0, **fields):
    bounds = {"min_value_wrong": min_value_wrong, "max_len": max_len, **fields}
    return Verified(
        "cosine",
        "cosine_scaled_reward",
        cosine_unit="tokens",
        **{f"cosine_{name}": value for name, value in bounds.items()},
    )


def get_repetition_penalty_reward(ngram_size=3, max_penalty=-1.0):
    return Reward(
        "repetition_penalty", "repetition_penalty_reward", repetition_language="tokens",
        repetition_n_grams=ngram_size, repetition_max_penalty=max_penalty,
    )  # fmt: skip


def get_soft_overlong_punishment(max_completion_len, soft_punish_cache):
    return Reward(
        "soft_overlong_punishment", "soft_overlong_punishment_reward",
        max_completion_len=max_completion_len, soft_punish_cache=soft_punish_cache,
    )  # fmt: skip


def _absent(name):
    """What an older checkout's helpers ask the installed TRL for, and it no longer has: no such package."""
    if name.startswith("is_"):
        return lambda: False
    raise AttributeError(name)


importlib.import_module("trl.import_utils").__getattr__ = _absent

OURS = {
    "accuracy_reward": Verified("accuracy", "accuracy_reward"),
    "get_cosine_scaled_reward": get_cosine_scaled_reward,
    "get_repetition_penalty_reward": get_repetition_penalty_reward,
    "get_soft_overlong_punishment": get_soft_overlong_punishment,
}


def pytest_collection_modifyitems(items):
    for module in {item.module for item in items}:
        vars(module).update(OURS)
