"""The rewards of a variant: functions for TRL's trainer, verified in parallel, which no completion can stall.

>>> from openr1_repro.rewards import load
>>> from openr1_repro.rewards.settings import RewardSettings
>>> rewards = load(RewardSettings(reward_funcs=["accuracy", "format"], verify_workers=1))
>>> completions = [[{"role": "assistant", "content": r"so \\boxed{0.5}"}]]
>>> rewards.reward_funcs[0](completions=completions, solution=[r"$\\frac{1}{2}$"])
[1.0]
>>> rewards.close()
"""

from openr1_repro.rewards.engine import RewardSet, load

__all__ = ["RewardSet", "load"]
