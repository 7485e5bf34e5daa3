"""The server layout's process: started as TRL's client needs it, waited for, and stopped whatever it does."""

import http.server
import json
import subprocess
import sys
import threading
import time

import pytest
from openr1_repro.gpus import Lease
from openr1_repro.stage import UserError
from openr1_repro.train import server
from openr1_repro.train.settings import TrainSettings

SERVED = {
    "grpo": {"use_vllm": True, "vllm_server_timeout": 30.0},
    "layout": "server",
    "vllm": {"enforce_eager": True},
}


class Health(http.server.BaseHTTPRequestHandler):
    """Answers /health from the third request on."""

    asked = 0

    def do_GET(self):
        Health.asked += 1
        self.send_response(200 if Health.asked > 2 else 503)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_the_command_has_what_trl_s_client_needs_and_the_variant_s_options():
    words = server.command(TrainSettings.model_validate(SERVED), "model", 8123)
    assert words[words.index("--port") + 1] == "8123"
    assert json.loads(words[words.index("--weight-transfer-config") + 1]) == {"backend": "nccl"}
    assert words[words.index("--logprobs-mode") + 1] == "processed_logprobs"
    assert "--enforce-eager" in words


def test_another_layout_serves_nothing(tmp_path):
    with server.serving(TrainSettings(), tmp_path, tmp_path, Lease([], [])) as served:
        assert served.processes == {}


def test_waiting_ends_when_the_server_answers(tmp_path, sleeper):
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health)
    threading.Thread(target=web.serve_forever, daemon=True).start()
    server.wait_until_healthy(f"http://127.0.0.1:{web.server_port}", sleeper, 30, tmp_path / "log", tmp_path / "stop")
    assert Health.asked == 3
    web.shutdown()


@pytest.mark.parametrize(
    ("stop_file", "seconds", "said"),
    [(False, 0.0, "did not answer within"), (True, 60.0, "told to stop before training began")],
)
def test_waiting_ends_in_time_and_when_told_to(tmp_path, sleeper, stop_file, seconds, said):
    if stop_file:
        (tmp_path / "stop").touch()
    url = f"http://127.0.0.1:{server.free_port()}"
    with pytest.raises(UserError, match=said):
        server.wait_until_healthy(url, sleeper, seconds, tmp_path / "log", tmp_path / "stop")


@pytest.mark.skipif(
    bool(__import__("importlib.util").util.find_spec("vllm")), reason="vLLM is installed and would start"
)
def test_a_server_that_cannot_start_shows_the_end_of_its_log(tmp_path):
    with (
        pytest.raises(UserError, match="No module named 'vllm'"),
        server.serving(TrainSettings.model_validate(SERVED), tmp_path, tmp_path, Lease(["0", "1"], [])),
    ):
        pass


def test_stopping_ends_what_ignores_being_asked_and_all_it_started(tmp_path):
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']);"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    deadline = time.time() + 30
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.time() < deadline
        time.sleep(0.05)
    server.stop(process, grace_seconds=0.5)
    assert process.returncode is not None
    pid = (tmp_path / "pid").read_text()
    deadline = time.time() + 30
    while subprocess.run(["ps", "-o", "stat=", "-p", pid], capture_output=True, text=True).stdout.strip() not in (
        "",
        "Z",
    ):
        assert time.time() < deadline
        time.sleep(0.05)
