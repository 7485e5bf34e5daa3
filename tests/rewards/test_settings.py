"""Settings are refused with the fix, before anything starts."""

import sys
import types

import pytest
from openr1_repro.rewards import load
from openr1_repro.rewards.settings import REWARD_NAMES, RewardSettings
from openr1_repro.stage import UserError
from pydantic import ValidationError

from .conftest import completions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reward_funcs": ["acuracy"]}, "no reward is called acuracy; choose from accuracy, format"),
        ({"reward_funcs": []}, "at least 1"),
        ({"reward_funcs": ["format", "format"]}, "named twice"),
        ({"reward_weights": [1.0]}, "1 weights for 3 reward_funcs"),
        ({"repetition_max_penalty": 0.5}, "max_penalty 0.5 should not be positive"),
        ({"soft_punish_cache": 200, "max_completion_len": 100}, "larger than max_completion_len"),
        ({"verify_timeout": 0}, "greater than 0"),
        ({"cosine_max_length": 5}, "Extra inputs"),
    ],
)
def test_mistakes_are_named(fields, message):
    with pytest.raises(ValidationError, match=message):
        RewardSettings(**fields)


def test_every_reward_has_an_engine():
    for name in REWARD_NAMES:
        if name not in ("code", "binary_code", "ioi_code", "cf_code"):
            rewards = load(RewardSettings(reward_funcs=[name], verify_workers=1))
            rewards.close()
            assert rewards.reward_funcs[0].__name__ == name


def test_weights_default_to_one():
    rewards = load(RewardSettings(reward_funcs=["format", "tag_count"]))
    assert rewards.reward_weights == [1.0, 1.0]
    assert load(RewardSettings(reward_funcs=["format"], reward_weights=[0.5])).reward_weights == [0.5]


def test_a_reward_of_ones_own():
    sys.modules["my_rewards"] = module = types.ModuleType("my_rewards")
    module.shout = lambda completions, **columns: [float(c[0]["content"].isupper()) for c in completions]
    rewards = load(RewardSettings(reward_funcs=["format", "my_rewards:shout"]))
    assert rewards.reward_funcs[1].__name__ == "shout"
    assert rewards.reward_funcs[1](prompts=["?"] * 2, completions=completions("A", "a"), solution=["1"] * 2) == [
        1.0,
        0.0,
    ]
    assert rewards.statistics()["shout"]["mean"] == 0.5


@pytest.mark.parametrize("path", ["no_such_module:f", "math:no_such_function", "math:pi"])
def test_a_reward_that_is_not_there(path):
    with pytest.raises(UserError, match=path):
        load(RewardSettings(reward_funcs=[path]))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"reward_funcs": ["ioi_code"]}, "piston_endpoints: no Piston server"),
        ({"reward_funcs": ["code"], "code_provider": "e2b"}, "pip install e2b-code-interpreter"),
        ({"reward_funcs": ["code"], "code_provider": "morph"}, "pip install morphcloud"),
    ],
)
def test_a_provider_that_is_not_there(fields, message, monkeypatch):
    monkeypatch.delenv("PISTON_ENDPOINTS", raising=False)
    for name in ("e2b_code_interpreter", "morphcloud", "morphcloud.api"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=message):
        load(RewardSettings(**fields))


def test_without_bubblewrap_nothing_runs(monkeypatch, tmp_path):
    from openr1_repro.rewards import sandbox

    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox.check_available.cache_clear()
    with pytest.raises(UserError, match="apt-get install bubblewrap"):
        load(RewardSettings(reward_funcs=["code"]))
    sandbox.check_available.cache_clear()
