"""A client of Piston's HTTP protocol, version 2 (github.com/engineer-man/piston): several servers, used evenly."""

import json
import os
import queue
import random
import time
import urllib.error
import urllib.request
from typing import Any

from openr1_repro.rewards.programs import Judge, Program, same_output
from openr1_repro.stage import UserError

LANGUAGES = {"python": "python", "cpp": "c++", "javascript": "javascript"}
RETRIES = 5


class Piston:
    """``endpoints`` such as ``http://host:2000/api/v2``; a training process takes its share, if there are enough."""

    def __init__(self, endpoints: list[str] | None):
        found = endpoints or [e for e in os.environ.get("PISTON_ENDPOINTS", "").split(",") if e]
        if not found:
            raise UserError(
                "piston_endpoints: no Piston server is named; set it, or PISTON_ENDPOINTS, to addresses such as "
                "http://host:2000/api/v2 (`python -m openr1_repro.rewards.piston_server` starts one here)"
            )
        rank, ranks = int(os.environ.get("LOCAL_RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        mine = sorted(found)[rank::ranks] or found
        random.Random(rank).shuffle(mine)
        self.free: queue.Queue[str] = queue.Queue()
        self.slots = len(mine) * int(os.environ.get("PISTON_MAX_REQUESTS_PER_ENDPOINT", "1"))
        for slot in range(self.slots):
            self.free.put(mine[slot % len(mine)].rstrip("/"))

    def execute(self, request: dict[str, Any], end: float) -> dict[str, Any]:
        """POST ``request`` to a free server's ``execute``, again after a failure, until `time.monotonic` is ``end``.

        Raises:
            OSError: if no server answers.
        """
        body, failure = json.dumps(request).encode(), "all servers busy"
        for attempt in range(RETRIES + 1):
            left = end - time.monotonic()
            try:
                endpoint = self.free.get(timeout=max(0.0, left))
            except queue.Empty:
                break
            try:
                message = urllib.request.Request(
                    f"{endpoint}/execute", data=body, headers={"Content-Type": "application/json"}
                )
                with urllib.request.urlopen(message, timeout=max(0.1, end - time.monotonic())) as response:
                    answer = json.load(response)
                run = (answer or {}).get("run") or {}
                if answer and "Resource temporarily unavailable" not in (run.get("stderr") or ""):
                    return answer
                failure = "overloaded or empty answer"
            except urllib.error.HTTPError as error:
                failure = f"{error.code} {error.read(500).decode(errors='replace')}"
                if 400 <= error.code < 500:
                    raise OSError(f"{endpoint}: {failure}") from None
            except (OSError, ValueError) as error:
                failure = str(error)
            finally:
                self.free.put(endpoint)
            if time.monotonic() + 2**attempt >= end:
                break
            time.sleep(min(2**attempt, 10))
        raise OSError(f"Piston: no answer in time ({failure})")


def piston_judge(client: Piston, test_seconds: float, memory_mb: int) -> Judge:
    """Run programs on Piston servers, a request a test; outputs are compared here."""

    def judge(program: Program, end: float) -> float | None:
        if program.language not in LANGUAGES:
            return None
        passed = 0
        for given, expected in program.tests:
            answer = client.execute(
                {
                    "language": LANGUAGES[program.language], "version": "*",
                    "files": [{"name": "main", "content": program.source}], "stdin": given,
                    "run_timeout": round(test_seconds * 1000), "run_memory_limit": memory_mb * 2**20,
                },
                end,
            )  # fmt: skip
            if (answer.get("compile") or {}).get("code"):
                return 0.0
            run = answer["run"]
            if run.get("signal") == "SIGKILL":
                break
            passed += run["code"] == 0 and same_output(run["stdout"], expected)
        return passed / len(program.tests)

    return judge
