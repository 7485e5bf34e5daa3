"""open-r1's own ``rewards.py`` from a checkout, without what it imports for code execution; and the facts it gave."""

import contextlib
import importlib.util
import json
import logging
import os
import signal
import sys
import types
from pathlib import Path

FACTS = Path(__file__).parent / "open_r1_verdicts.json"
COSINE = {"min_value_wrong": 0.0, "max_value_wrong": -0.5, "min_value_correct": 0.5, "max_value_correct": 1.0}


def load(checkout: str | os.PathLike[str]) -> types.ModuleType:
    """The module ``open_r1.rewards``; its imports of execution providers are empty."""
    # math-verify's alarms in CPU time, as in our workers: on a busy machine, seconds by the clock would change verdicts
    signal.SIGALRM = signal.SIGPROF
    signal.alarm = lambda seconds: signal.setitimer(signal.ITIMER_PROF, seconds)
    package = Path(checkout) / "src" / "open_r1"
    for name in ("open_r1", "open_r1.utils", "open_r1.utils.code_providers", "open_r1.utils.competitive_programming"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["open_r1"].__path__ = [str(package)]
    sys.modules["open_r1.utils.code_providers"].get_provider = None
    for name in (
        "SubtaskResult", "add_includes", "get_morph_client_from_env", "get_piston_client_from_env", "patch_code",
        "score_submission", "score_subtask",
    ):  # fmt: skip
        setattr(sys.modules["open_r1.utils.competitive_programming"], name, None)
    spec = importlib.util.spec_from_file_location("open_r1.rewards", package / "rewards.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdicts(checkout: str | os.PathLike[str], pairs: list[tuple[str, str]]) -> dict[str, list[float | None]]:
    """What open-r1's functions give for each pair of a gold and a text, each in a call of its own."""
    module = load(checkout)
    functions = {
        "accuracy": module.accuracy_reward,
        "cosine": module.get_cosine_scaled_reward(**COSINE, max_len=1000),
        "length": module.len_reward,
        "format": module.format_reward,
        "tag_count": module.tag_count_reward,
        "reasoning_steps": module.reasoning_steps_reward,
        "repetition_penalty": module.get_repetition_penalty_reward(3, -1.0),
        "code_format": module.get_code_format_reward("python"),
    }
    results: dict[str, list[float | None]] = {name: [] for name in functions}
    for gold, text in pairs:
        completion = [{"role": "assistant", "content": text}]
        for name, function in functions.items():
            # length compares within a call: a second, shorter text, so that there are two lengths
            group = [completion, [{"role": "assistant", "content": ""}]] if name == "length" else [completion]
            results[name].append(function(completions=group, solution=[gold] * len(group))[0])
    return results


if __name__ == "__main__":  # python open_r1.py CHECKOUT [OUTPUT]: writes the facts anew
    import corpus

    logging.disable(logging.WARNING)
    with contextlib.redirect_stdout(None):
        found = verdicts(sys.argv[1], corpus.pairs(corpus.PARITY))
    output = Path(sys.argv[2]) if len(sys.argv) > 2 else FACTS
    output.write_text(json.dumps(found, separators=(",", ":")) + "\n")
