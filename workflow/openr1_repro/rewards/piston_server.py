"""A server of Piston's protocol whose programs run in bubblewrap: ``python -m openr1_repro.rewards.piston_server``.

Runtimes: python, javascript, c++, and the judges of open-r1's packages: ``cms_ioi`` (batch tasks whose output is
compared; none with a manager or a checker), ``cf_python3`` and ``c++17`` (with input.txt, and correct_output.txt or
checker.py). It listens on the loopback address: it has no authentication.
"""

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from openr1_repro.rewards import sandbox
from openr1_repro.rewards.programs import COMPILE_LIMITS, same_output
from openr1_repro.rewards.sandbox import Limits, Outcome

RUNTIMES = {
    "python": "python", "javascript": "javascript", "c++": "cpp", "cms_ioi": "cpp", "cf_python3": "python",
    "c++17": "cpp",
}  # fmt: skip
MEGABYTE = 2**20


def execute(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a body of ``/api/v2/execute``.

    Raises:
        ValueError: if the request is not one that Piston would take.
    """
    name, files = request.get("language"), request.get("files")
    if name not in RUNTIMES:
        raise ValueError(f"{name}-* runtime is unknown")
    if not isinstance(files, list) or not files:
        raise ValueError("files is required as an array")
    contents = {file.get("name", "main"): file["content"].encode() for file in files}
    language = RUNTIMES[name]
    answer: dict[str, Any] = {"language": name, "version": "1.0.0"}
    limits = Limits(
        request.get("run_timeout", 3000) / 4000,
        max(16, _megabytes(request.get("run_memory_limit", -1))),
        address_space=language != "javascript",
    )
    config = dict(line.split("=", 1) for line in contents.get("grader_config", b"").decode().split("\n") if "=" in line)
    if config:
        limits = Limits(float(config["TIME_LIMIT"]), int(float(config["MEMORY_LIMIT"])))
    source = next(iter(contents.values())) if name != "cms_ioi" else b""
    if language == "cpp":
        sources = {"main": source} if source else _one_unit(contents)
        binary, compiled = sandbox.compile_program("cpp", sources, COMPILE_LIMITS)
        answer["compile"] = _report(compiled, stdout=b"")
        if binary is None:
            answer["compile"]["code"] = answer["compile"]["code"] or 1
            answer["run"] = _report(Outcome(1, b"", b"", 0.0))
            return answer
        program = {"program": binary}
    else:
        program = {"main": source}
    given = contents.get("input.txt", request.get("stdin", "").encode())
    outcome = sandbox.run(sandbox.command(language, limits), program, given, limits)
    judged = "input.txt" in contents
    answer["run"] = _verdict(outcome, contents) if judged else _report(outcome)
    return answer


def _megabytes(limit: int) -> int:
    # Piston counts bytes; cms_ioi's requests say it in bytes too, and below a megabyte it can only be megabytes
    return 512 if limit <= 0 else limit if limit < MEGABYTE else limit // MEGABYTE


def _one_unit(contents: dict[str, bytes]) -> dict[str, bytes]:
    """The files of an IOI task, flat, with a main file that includes the grader and the submission."""
    flat = {name.removeprefix("graders/"): content for name, content in contents.items() if name.startswith("graders/")}
    units = [name for name in flat if name.endswith(".cpp")]
    flat["main"] = "".join(f'#include "{name}"\n' for name in units).encode()
    return flat


def _verdict(outcome: Outcome, contents: dict[str, bytes]) -> dict[str, Any]:
    """A judge's report: the score on standard output, the reason on standard error."""
    if outcome.stopped == "time":
        return {**_report(outcome), "stdout": "0", "stderr": "Time limit exceeded", "code": 0}
    if outcome.code != 0:
        reason = "Memory limit exceeded" if outcome.stopped == "memory" else "Execution killed"
        return {**_report(outcome), "stdout": "0", "stderr": reason, "code": 0}
    expected = contents.get("correct_output.txt", b"")
    if checker := contents.get("checker.py"):
        files = {
            "main": checker, "input.txt": contents["input.txt"], "correct_output.txt": expected,
            "output.txt": outcome.stdout,
        }  # fmt: skip
        limits = Limits(10.0)
        paths = [f"/box/{name}" for name in ("input.txt", "correct_output.txt", "output.txt")]
        judged = sandbox.run([*sandbox.command("python", limits), *paths], files, b"", limits)
        score = judged.stdout.decode(errors="replace").strip() or "0"
    else:
        score = str(int(same_output(outcome.stdout.decode(errors="replace"), expected.decode())))
    return {
        **_report(outcome),
        "stdout": score,
        "stderr": "Output is correct" if score == "1" else "Output isn't correct",
    }


def _report(outcome: Outcome, stdout: bytes | None = None) -> dict[str, Any]:
    out = (outcome.stdout if stdout is None else stdout).decode(errors="replace")
    err = outcome.stderr.decode(errors="replace")
    killed = "SIGKILL" if outcome.stopped else None
    return {"stdout": out, "stderr": err, "output": out + err, "code": outcome.code, "signal": killed}


class Handler(BaseHTTPRequestHandler):
    """``GET /api/v2/runtimes`` and ``POST /api/v2/execute``."""

    def do_GET(self) -> None:
        """List the runtimes."""
        self._send(200, [{"language": name, "version": "1.0.0", "aliases": []} for name in RUNTIMES])

    def do_POST(self) -> None:
        """Run a program."""
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._send(200, execute(body))
        except (ValueError, KeyError, TypeError) as error:
            self._send(400, {"message": str(error)})

    def _send(self, status: int, value: Any) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: a line a test case would fill the log."""


def main() -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=2000)
    port = parser.parse_args().port
    sandbox.check_available()
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"PISTON_ENDPOINTS=http://127.0.0.1:{server.server_port}/api/v2", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
