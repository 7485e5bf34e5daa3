"""The code rewards through the public way in: on this machine, over Piston's protocol, over the routers' protocol."""

import http.server
import json
import shutil
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openr1_repro.rewards import contests, load, piston_server, programs, remote, sandbox
from openr1_repro.rewards.settings import RewardSettings

from .conftest import completions

needs_bubblewrap = pytest.mark.skipif(shutil.which("bwrap") is None, reason="bubblewrap is not installed")

SUMS = [{"input": "1 2\n", "output": "3\n"}, {"input": "5 7\n", "output": "12"}]
PYTHON = "print(sum(map(int, input().split())))"
CPP = '#include <cstdio>\nint main(){int a,b;scanf("%d %d",&a,&b);printf("%d\\n",a+b);}'
JAVASCRIPT = "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number); console.log(a + b)"


def block(language, source):
    return f"<think>\nadd\n</think>\n<answer>\n```{language}\n{source}\n```\n</answer>"


def info(language, tests=SUMS):
    return {"language": language, "test_cases": tests}


def rewards_of(name, texts, infos, **settings):
    rewards = load(RewardSettings(reward_funcs=[name, "code_format"], code_test_timeout=10.0, **settings))
    return rewards.reward_funcs[0](completions=completions(*texts), verification_info=infos)


def test_extract():
    assert programs.extract("```python\na\n``` ```python\nb\n```", "python") == "b\n"
    assert programs.extract("```cpp\na\n```", "python") == ""
    assert programs.extract("```c++\na\n```", "c++") == "a\n"


@given(st.lists(st.text(alphabet="ab \t", max_size=4), max_size=5))
def test_same_output_ignores_spaces_at_ends_only(lines):
    text = "\n".join(lines)
    assert programs.same_output(text + "\n\n", text)
    assert not programs.same_output(text + "\nc", text)
    assert not programs.same_output("c\n" + text, text)


@needs_bubblewrap
def test_code_in_three_languages():
    texts = [
        block("python", PYTHON), block("cpp", CPP), block("javascript", JAVASCRIPT), block("python", "print(3)"),
        block("python", "print(3"), block("cpp", "int main(){"), "no program", block("python", "while True: pass"),
        block("python", PYTHON), block("brainfuck", "+"),
    ]  # fmt: skip
    infos = [
        info("python"), info("cpp"), info("javascript"), info("python"), info("python"), info("cpp"), info("python"),
        info("python"), None, info("brainfuck"),
    ]  # fmt: skip
    infos[0] = json.dumps(infos[0])  # as some data sets have it
    rewards = load(RewardSettings(reward_funcs=["code", "binary_code"], code_test_timeout=10.0))
    code, binary = rewards.reward_funcs
    assert code(completions=completions(*texts), verification_info=infos) == [1, 1, 1, 0.5, 0, 0, 0, 0, None, None]
    assert binary(completions=completions(*texts), verification_info=infos) == [1, 1, 1, 0, 0, 0, 0, 0, None, None]


@needs_bubblewrap
def test_a_batch_of_programs_is_bounded():
    texts = [block("python", f"import time; time.sleep(60 + {n})") for n in range(8)]
    rewards = load(RewardSettings(reward_funcs=["code"], code_test_timeout=1.0, code_batch_timeout=6.0))
    import time

    start = time.monotonic()
    found = rewards.reward_funcs[0](completions=completions(*texts), verification_info=[info("python")] * 8)
    assert time.monotonic() - start < 6 + 1 * 4 + 15
    assert None in found
    assert all(reward in (0.0, None) for reward in found)


def test_problems_of_one_language_only():
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    with pytest.raises(Exception, match="this batch asks for cpp, python"):
        rewards_of("code", ["", ""], [info("python"), info("cpp")], enforce_same_language=True)


@pytest.fixture(scope="module")
def piston():
    """Our own Piston server on bubblewrap, at a loopback address."""
    if shutil.which("bwrap") is None:
        pytest.skip("bubblewrap is not installed")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), piston_server.Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/api/v2"
    server.shutdown()


def test_code_on_piston(piston):
    texts = [
        block("python", PYTHON),
        block("cpp", CPP),
        block("python", "print(3)"),
        block("cpp", "int main(){"),
        "none",
    ]
    infos = [info("python"), info("cpp"), info("python"), info("cpp"), info("python")]
    found = rewards_of("code", texts, infos, code_provider="piston", piston_endpoints=[piston])
    assert found == [1.0, 1.0, 0.5, 0.0, 0.0]


def test_a_piston_server_that_is_away_says_nothing():
    found = rewards_of(
        "code", [block("python", PYTHON)], [info("python")], code_provider="piston",
        piston_endpoints=["http://127.0.0.1:9/api/v2"], code_batch_timeout=3.0,
    )  # fmt: skip
    assert found == [None]


IOI = {
    "id": "Adding", "subtask": "01", "score": 20.0, "score_precision": 2, "time_limit": 10.0, "memory_limit": 256,
    "test_names": ["t1", "t2"], "test_cases": [["1 2\n", "3\n"], ["5 7\n", "12\n"]],
    "grader_files": [
        ["graders/adding.h", "int add(int a, int b);\n"],
        ["graders/grader.cpp", '#include "adding.h"\n' + CPP.replace("a+b", "add(a,b)")],
    ],
}  # fmt: skip


def test_ioi(piston, monkeypatch):
    monkeypatch.setenv("PISTON_ENDPOINTS", piston)
    texts = [
        block("cpp", '#include "adding.h"\nint add(int a, int b) { return a + b; }'),
        block("cpp", '#include "adding.h"\nint add(int a, int b) { return 3; }'),
        block("cpp", '#include "adding.h"\nint add(int a'),
        "no program",
    ]
    problem = {**IOI, "id": "adding"}
    rewards = load(RewardSettings(reward_funcs=["ioi_code"]))
    columns = {name: [value] * len(texts) for name, value in problem.items()}
    assert rewards.reward_funcs[0](completions=completions(*texts), trainer_state=object(), **columns) == [
        1.0,
        0.0,
        0.0,
        0.0,
    ]


CODEFORCES = {
    "id": "1/A", "time_limit": 10.0, "memory_limit": 256.0, "input_mode": "stdio", "generated_checker": None,
    "official_tests": SUMS,
}  # fmt: skip
CHECKER = "import sys\nprint(int(abs(int(open(sys.argv[3]).read()) - int(open(sys.argv[2]).read())) <= 1))\n"


@pytest.mark.parametrize(("mode", "half"), [("pass_fail", 0.0), ("partial", 0.5), ("weighted_sum", 0.05)])
def test_codeforces(piston, mode, half, monkeypatch):
    monkeypatch.setenv("PISTON_ENDPOINTS", piston)
    texts = [block("python", PYTHON), block("python", "print(3)"), "none", block("python", PYTHON)]
    languages = ["python", "python", "python", None]
    rewards = load(RewardSettings(reward_funcs=["cf_code"], code_eval_scoring_mode=mode, code_eval_test_batch_size=-1))
    columns = {name: [value] * len(texts) for name, value in CODEFORCES.items()}
    found = rewards.reward_funcs[0](completions=completions(*texts), language=languages, **columns)
    assert found == [1.1 if mode == "weighted_sum" else 1.0, half, -1.0, None]


def test_codeforces_with_a_checker_and_generated_tests(piston, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.table({"problem_id": ["1/A", "1/B"], "input": ["8 9\n", "x"], "output": ["18\n", "y"]})
    parquet.write_table(table, tmp_path / "test_cases_0001.parquet")  # 17 is within the checker's tolerance
    problem = {**CODEFORCES, "generated_checker": CHECKER}
    rewards = load(
        RewardSettings(
            reward_funcs=["cf_code"],
            piston_endpoints=[piston],
            cf_tests_folder=str(tmp_path),
            code_eval_scoring_mode="partial",
        )
    )
    columns = {name: [value] for name, value in problem.items()}
    texts = completions(block("cpp", CPP))
    assert rewards.reward_funcs[0](completions=texts, language=["cpp"], **columns) == [1.0]
    broken = completions(block("cpp", "int main(){"))
    assert rewards.reward_funcs[0](completions=broken, language=["cpp"], **columns) == [-0.1]


@pytest.mark.parametrize(
    "source",
    ["from fractions import gcd\nprint(gcd(4, 6))", "from fractions import Fraction, gcd\nprint(gcd(4, 6))",
     "import fractions\nprint(fractions.gcd(4, 6))", "from collections import Mapping\nprint(2)",
     "print(len(str(10**5000)) - 4999)"],
)  # fmt: skip
def test_moved_names_are_mended(source, capsys):
    exec(contests.patch_code(source, "python"), {})
    assert capsys.readouterr().out == "2\n"


class Router(http.server.BaseHTTPRequestHandler):
    """open-r1's ``execute_batch``, E2B's answer or Morph's, with the script run in our sandbox."""

    morph = False

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answers = []
        for script in body["scripts"]:
            limits = sandbox.Limits(20.0)
            # a notebook shows its last expression
            *lines, last = script.strip().split("\n")
            outcome = sandbox.run(
                sandbox.command("python", limits), {"main": "\n".join([*lines, f"print({last})"]).encode()}, b"", limits
            )
            text = outcome.stdout.decode()
            result = {"text": text, "is_main_result": True}
            answers.append(
                {"text": text, "exception_str": None} if self.morph else {"execution": {"results": [result]}}
            )
        body = json.dumps(answers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@needs_bubblewrap
@pytest.mark.parametrize("provider", ["e2b", "morph"])
def test_routers(provider):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), type("R", (Router,), {"morph": provider == "morph"}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"127.0.0.1:{server.server_port}"
    texts = [block("python", PYTHON), block("python", "print(3)"), block("python", "x")]
    found = rewards_of(
        "code", texts, [info("python")] * 3, code_provider=provider, **{f"{provider}_router_url": address}
    )
    server.shutdown()
    assert found == [1.0, 0.5, 0.0]


@pytest.mark.parametrize(
    ("text", "expected"), [("0.5", 0.5), ("a\n1.0\n", 1.0), ("", None), (None, None), ("Error", None)]
)
def test_the_share_in_what_a_script_left(text, expected):
    assert remote.share(text) == expected


class Notebook(http.server.BaseHTTPRequestHandler):
    """What E2B's client talks to in its debug mode: ``/execute``, answered line by line; the script runs in our sandbox."""

    def do_POST(self):
        code = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["code"]
        *lines, last = code.strip().split("\n")
        source = "\n".join([*lines, f"print({last})"])
        limits = sandbox.Limits(20.0)
        outcome = sandbox.run(sandbox.command("python", limits), {"main": source.encode()}, b"", limits)
        result = {"type": "result", "text": outcome.stdout.decode().strip(), "is_main_result": True}
        body = "".join(json.dumps(line) + "\n" for line in (result, {"type": "end_of_execution"})).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@needs_bubblewrap
def test_e2b_by_its_own_client(monkeypatch):
    client = pytest.importorskip("e2b_code_interpreter")
    monkeypatch.setenv("E2B_DEBUG", "true")  # the client then takes a sandbox at localhost instead of making one
    monkeypatch.setenv("E2B_API_KEY", "e2b_" + "0" * 40)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", client.constants.JUPYTER_PORT), Notebook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    texts = [block("python", PYTHON), block("python", "print(3)"), "none"]
    found = rewards_of("code", texts, [info("python")] * 3, code_provider="e2b")
    server.shutdown()
    assert found == [1.0, 0.5, 0.0]
