"""Contest problems judged by a Piston server with open-r1's packages: IOI subtasks and Codeforces problems.

A request holds the submission and what the package's judge needs; the answer's standard output is the score. The
packages are ``cms_ioi``, ``cf_python3`` and ``c++17`` of github.com/guipenedo/piston; `piston_server` speaks the same.
"""

import logging
import os
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from openr1_repro.rewards import functions
from openr1_repro.rewards.piston import Piston
from openr1_repro.rewards.programs import extract
from openr1_repro.stage import UserError

logger = logging.getLogger(__name__)


def rows(columns: dict[str, Any], count: int) -> list[dict[str, Any]]:
    """One dictionary a completion from TRL's one list a column; what is no column (trainer_state …) is left out."""
    lists = {name: values for name, values in columns.items() if isinstance(values, list) and len(values) == count}
    return [{name: values[index] for name, values in lists.items()} for index in range(count)]


def ioi_scores(
    texts: list[str], problems: list[dict[str, Any]], client: Piston, batch: int, seconds: float
) -> list[Any]:
    """The score of each text's C++ program in its subtask, 0…1: the worst of its tests; no program: 0."""
    return _in_parallel(ioi_score, texts, problems, client, batch, seconds)


def cf_scores(
    texts: list[str], problems: list[dict[str, Any]], client: Piston, batch: int, seconds: float, *options: Any
) -> list[Any]:
    """The score of each text's program in its Codeforces problem; see `cf_score`."""
    return _in_parallel(cf_score, texts, problems, client, batch, seconds, *options)


def _in_parallel(
    function: Any, texts: list[str], problems: list[Any], client: Piston, batch: int, seconds: float, *options: Any
) -> list[Any]:
    end = time.monotonic() + seconds

    def one(text: str, problem: dict[str, Any]) -> float | None:
        try:
            return function(text, problem, client, batch, end, *options)
        except OSError as error:  # open-r1: 0; but a server that is away says nothing about the program
            logger.warning("a program was not judged: %s", error)
            return None

    with ThreadPoolExecutor(client.slots) as executor:
        return list(executor.map(one, texts, problems))


def ioi_score(text: str, problem: dict[str, Any], client: Piston, batch: int, end: float) -> float | None:
    """A row of open-r1/ioi: id, test_names, test_cases, grader_files, time_limit, memory_limit, score_precision."""
    source = extract(text, "cpp")
    if not source:
        return 0.0
    if not problem.get("test_cases"):
        raise UserError("ioi_code: the prompts need a column test_cases; join open-r1/ioi-test-cases in prepare")
    name = problem["id"].lower()
    source = with_headers(source, problem["id"])
    cases = problem["test_cases"]
    cases = [cases[test] for test in problem["test_names"]] if isinstance(cases, dict) else cases
    scores = []
    for some in _batches(cases, batch):
        requests = [
            {
                "language": "cms_ioi", "version": "*",
                "files": [
                    {"name": f"graders/{name}.cpp", "content": source},
                    {"name": "input.txt", "content": given},
                    *([{"name": "correct_output.txt", "content": expected}] if expected else []),
                    *({"name": file, "content": content} for file, content in problem["grader_files"] if content),
                ],
                "run_timeout": round((problem["time_limit"] + 3) * 1000),  # the package keeps the problem's own limit
                "run_memory_limit": problem["memory_limit"],
            }
            for given, expected in some
        ]  # fmt: skip
        for answer in _execute(client, requests, end):
            failed = (answer.get("compile") or {}).get("code") or not answer["run"]["stdout"].strip()
            scores.append(0.0 if failed else float(answer["run"]["stdout"]))
        if min(scores) == 0.0:
            break
    return functions.ioi_code([scores], problem.get("score_precision", 2))[0]


def cf_score(
    text: str, problem: dict[str, Any], client: Piston, batch: int, end: float,
    scoring_mode: str, patch: bool, tests_folder: str | None,
) -> float | None:  # fmt: skip
    """A problem as in open-r1/codeforces: pass_fail 0 or 1, partial the share, weighted_sum pass_fail + share / 10.

    No program: -1; one that does not compile: -0.1; a problem without tests or with another language: None.
    """
    language = problem.get("language")
    if language not in ("python", "cpp"):
        return None
    tests = [*(problem["official_tests"] or ()), *_generated_tests(problem["id"], tests_folder)]
    if not tests:
        return None
    source = extract(text, language)
    if not source:
        return -1.0
    source = patch_code(source, language) if patch else source
    passed = 0
    for some in _batches(tests, batch):
        requests = [_cf_request(problem, source, language, test["input"], test["output"]) for test in some]
        answers = _execute(client, requests, end)
        if any((answer.get("compile") or {}).get("code") for answer in answers):
            return -0.1
        right = [a["run"]["code"] == 0 and a["run"]["stdout"].strip() == "1" for a in answers]
        if scoring_mode == "pass_fail" and not all(right):
            break
        passed += sum(right)
    return functions.cf_code([(passed, len(tests))], scoring_mode)[0]


def _cf_request(problem: dict[str, Any], source: str, language: str, given: str, expected: str) -> dict[str, Any]:
    limits = {"TIME_LIMIT": "time_limit", "MEMORY_LIMIT": "memory_limit", "INPUT_MODE": "input_mode"}
    files = {
        f"main.{language}": source, "checker.py": problem.get("generated_checker"), "input.txt": given,
        "correct_output.txt": expected,
        "grader_config": "\n".join(f"{name}={problem[column]}" for name, column in limits.items()),
    }  # fmt: skip
    return {
        "language": "cf_python3" if language == "python" else "c++17", "version": "*",
        "files": [{"name": name, "content": content} for name, content in files.items() if content is not None],
        "run_timeout": round((problem["time_limit"] + 10) * 1000),
    }  # fmt: skip


def _execute(client: Piston, requests: list[dict[str, Any]], end: float) -> list[dict[str, Any]]:
    with ThreadPoolExecutor(len(requests)) as executor:
        return list(executor.map(lambda request: client.execute(request, end), requests))


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    size = size if size > 0 else max(1, len(items))
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _generated_tests(problem_id: str, folder: str | None) -> list[dict[str, str]]:
    folder = folder or os.environ.get("CF_TESTS_FOLDER")
    return _contest_tests(folder, int(problem_id.split("/")[0])).get(problem_id, []) if folder else []


@lru_cache(maxsize=32)
def _contest_tests(folder: str, contest: int) -> dict[str, list[dict[str, str]]]:
    import pyarrow.parquet as parquet

    path = Path(folder) / f"test_cases_{contest:04d}.parquet"
    if not Path(folder).is_dir():
        raise UserError(f"cf_tests_folder: {folder} is not a folder; download open-r1/codeforces's generated tests")
    found: dict[str, list[dict[str, str]]] = {}
    if path.exists():
        for row in parquet.read_table(path, columns=["problem_id", "input", "output"]).to_pylist():
            found.setdefault(row["problem_id"], []).append({"input": row["input"], "output": row["output"]})
    return found


def with_headers(source: str, header: str | None = None) -> str:
    """C++ with the headers that models forget: the standard library, the problem's own, and ``using namespace std``."""
    lines = ["#include <bits/stdc++.h>"]
    if header and f'#include "{header}.h"' not in source:
        lines.append(f'#include "{header}.h"')
    if "std::" not in source and "using namespace std;" not in source:
        lines.append("using namespace std;")
    return "\n".join([*lines, source])


_MOVED = [  # what newer Pythons have moved or removed, and submissions still use
    (r"from collections import ((?:Mutable)?(?:Mapping|Sequence|Set)|Container)\b", r"from collections.abc import \1"),
    (r"\bfractions\.gcd\b", "__import__('math').gcd"),
    (r"from fractions import gcd\b(?!\s*,)", "from math import gcd"),
    (r"from fractions import gcd\s*,\s*(.+)", r"from math import gcd; from fractions import \1"),
    (r"from fractions import (.+?)\s*,\s*gcd\b", r"from math import gcd; from fractions import \1"),
    (r"\basyncio\.async\(", "asyncio.ensure_future("),
    (r"\binspect\.getargspec\b", "inspect.getfullargspec"),
]


def patch_code(source: str, language: str) -> str:
    """Mend what fails for no fault of the algorithm: C++ headers, moved Python names, the limit on long numbers."""
    if language == "cpp":
        return with_headers(source)
    for pattern, replacement in _MOVED:
        source = re.sub(pattern, replacement, source)
    if "from __future__" in source:  # must stay first
        return source
    return f"import sys; sys.set_int_max_str_digits(0)\n{source}"
