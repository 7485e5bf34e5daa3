"""A pytest plugin that gives open-r1's own tests our rewards under open-r1's names: ``pytest -p as_open_r1``."""

import functools
import os
import sys
import types

from openr1_repro.rewards import load
from openr1_repro.rewards.settings import RewardSettings

NAMES = {"length": "len_reward", "cosine": "cosine_scaled_reward"}
OPEN_R1 = {"format_whole_text": False, "length_and_cosine_verdict": "open-r1"}


@functools.cache
def _function(name, **fields):
    function = load(RewardSettings(reward_funcs=[name], verify_workers=1, **OPEN_R1, **fields)).reward_funcs[0]

    def call(completions=None, solution=None, completion_ids=None, **columns):
        columns |= {"solution": solution} if solution is not None else {}
        return function(completions=completions, completion_ids=completion_ids, **columns)

    call.__name__ = NAMES.get(name, f"{name}_reward")
    return call


def get_cosine_scaled_reward(**fields):
    bounds = {f"cosine_{field}": value for field, value in fields.items()}
    return _function("cosine", **bounds)


def get_repetition_penalty_reward(ngram_size, max_penalty, language="en"):
    return _function(
        "repetition_penalty",
        repetition_n_grams=ngram_size,
        repetition_max_penalty=max_penalty,
        repetition_language=language,
    )


def get_soft_overlong_punishment(max_completion_len, soft_punish_cache):
    function = _function(
        "soft_overlong_punishment", max_completion_len=max_completion_len, soft_punish_cache=soft_punish_cache
    )
    return lambda completion_ids: function(completion_ids=completion_ids)


def get_reward_funcs(arguments):
    os.environ.setdefault("PISTON_ENDPOINTS", "http://127.0.0.1:9/api/v2")
    return [_function(name) for name in arguments.reward_funcs]


for module in ("open_r1", "open_r1.configs", "open_r1.rewards", "dotenv"):
    sys.modules[module] = types.ModuleType(module)
sys.modules["dotenv"].load_dotenv = lambda: None
sys.modules["open_r1.configs"].GRPOScriptArguments = types.SimpleNamespace
vars(sys.modules["open_r1.rewards"]).update(
    accuracy_reward=_function("accuracy"),
    format_reward=_function("format"),
    len_reward=_function("length"),
    reasoning_steps_reward=_function("reasoning_steps"),
    tag_count_reward=_function("tag_count"),
    get_code_format_reward=lambda language="python": _function("code_format", code_language=language),
    get_cosine_scaled_reward=get_cosine_scaled_reward,
    get_repetition_penalty_reward=get_repetition_penalty_reward,
    get_soft_overlong_punishment=get_soft_overlong_punishment,
    get_reward_funcs=get_reward_funcs,
)
