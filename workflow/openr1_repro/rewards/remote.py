"""Programs run in E2B's or Morph's cloud, by their SDK or by open-r1's router in front of it.

There a sandbox is a machine of its own: one script a completion runs the program on every test and leaves the share as
its last value.
"""

import base64
import json
import logging
import time
import urllib.request
from typing import Any

from openr1_repro.rewards.programs import Judge, Program
from openr1_repro.stage import UserError

logger = logging.getLogger(__name__)

SCRIPT = """
import base64, json, os, subprocess, tempfile

def judge(language, source, tests, seconds):
    path = os.path.join(tempfile.mkdtemp(), "main")
    open(path, "w").write(source)
    command = {"python": ["python3", path], "javascript": ["node", path], "cpp": [path + ".out"]}[language]
    if language == "cpp":
        build = ["g++", "-x", "c++", "-std=c++17", "-O2", "-o", path + ".out", path]
        if subprocess.run(build, capture_output=True).returncode != 0:
            return 0.0
    passed = 0
    for given, expected in tests:
        try:
            done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired:
            break
        lines = [[line.strip() for line in text.strip().split("\\n")] for text in (done.stdout, expected)]
        passed += done.returncode == 0 and lines[0] == lines[1]
    return passed / len(tests)

judge(*json.loads(base64.b64decode("DATA")))
"""


def script(program: Program, test_seconds: float) -> str:
    """A Python script that judges ``program``; its last expression is the share of tests passed."""
    data = json.dumps([program.language, program.source, program.tests, test_seconds])
    return SCRIPT.replace("DATA", base64.b64encode(data.encode()).decode())


def share(text: str | None) -> float | None:
    """The share in what a script left: its last line as a number; None if it is none."""
    try:
        return float((text or "").strip().splitlines()[-1])
    except (ValueError, IndexError):
        return None


def router_judge(address: str, test_seconds: float) -> Judge:
    """open-r1's routers for E2B and Morph (``scripts/e2b_router.py``, ``morph_router.py``), which share a protocol."""

    def judge(program: Program, end: float) -> float | None:
        left = max(1, int(end - time.monotonic()))
        body = {
            "scripts": [script(program, test_seconds)], "languages": ["python"],
            "timeout": left, "request_timeout": left,
        }  # fmt: skip
        request = urllib.request.Request(
            f"http://{address}/execute_batch", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=left) as response:
            (answer,) = json.load(response)
        if "execution" not in answer:  # Morph
            return share(answer.get("text"))
        results = (answer["execution"] or {}).get("results") or []
        return next((share(r.get("text")) for r in results if r.get("is_main_result")), None)

    return judge


def e2b_judge(test_seconds: float) -> Judge:
    """E2B's SDK: a sandbox a program. Its key is in E2B_API_KEY.

    Raises:
        UserError: if the SDK is not installed.
    """
    try:
        from e2b_code_interpreter import Sandbox
    except ImportError:
        raise UserError("code_provider: e2b needs its SDK: pip install e2b-code-interpreter, and E2B_API_KEY") from None

    def judge(program: Program, end: float) -> float | None:
        def run(left: int) -> str | None:
            box = Sandbox.create(timeout=left)
            try:
                return box.run_code(script(program, test_seconds), timeout=left).text
            finally:
                box.kill()

        return _attempt(run, end)

    return judge


def morph_judge(test_seconds: float) -> Judge:
    """Morph's SDK: a sandbox a program. Its key is in MORPH_API_KEY.

    Raises:
        UserError: if the SDK is not installed.
    """
    try:
        from morphcloud.api import MorphCloudClient
        from morphcloud.sandbox import Sandbox
    except ImportError:
        raise UserError(
            "code_provider: morph needs its SDK with morphcloud.sandbox, which later versions dropped: "
            "pip install morphcloud==0.1.67, and MORPH_API_KEY"
        ) from None
    client = MorphCloudClient()

    def judge(program: Program, end: float) -> float | None:
        def run(left: int) -> str | None:
            box = Sandbox.new(client=client, ttl_seconds=left)
            try:
                return box.run_code(script(program, test_seconds), language="python", timeout=left).text
            finally:
                box.close()
                box.shutdown()

        return _attempt(run, end)

    return judge


def _attempt(run: Any, end: float) -> float | None:
    try:
        return share(run(max(1, int(end - time.monotonic()))))
    except Exception as error:  # whatever an SDK raises, its service failed and not the program
        logger.warning("a program was not judged: %s: %s", type(error).__name__, error)
        return None
