"""One reward engine for all tests that want the same settings: a worker takes seconds of processor time to start."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from openr1_repro.rewards import RewardSet, load
from openr1_repro.rewards.settings import RewardSettings


def completions(*texts: str) -> list[list[dict[str, str]]]:
    """Texts as TRL hands them to a reward."""
    return [[{"role": "assistant", "content": text}] for text in texts]


@pytest.fixture(scope="session")
def engine() -> Iterator[Callable[..., RewardSet]]:
    """A function from `RewardSettings`'s fields to a started `RewardSet`."""
    started: dict[str, RewardSet] = {}

    def get(*names: str, **fields: Any) -> RewardSet:
        settings = RewardSettings(reward_funcs=list(names), verify_workers=2, **fields)
        key = settings.model_dump_json()
        if key not in started:
            started[key] = load(settings)
        return started[key]

    yield get
    for rewards in started.values():
        rewards.close()


@pytest.fixture(scope="session")
def reward(engine: Callable[..., RewardSet]) -> Callable[..., Any]:
    """A function that calls one reward on texts: ``reward("format", ["text"], solution=[...])``."""

    def call(name: str, texts: list[str], *, settings: dict[str, Any] | None = None, **columns: Any) -> Any:
        rewards = engine(name, **(settings or {}))
        return rewards.reward_funcs[0](completions=completions(*texts), **columns)

    return call
