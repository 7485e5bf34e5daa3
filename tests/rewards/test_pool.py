"""Workers: what they hold, how they end, and that nothing waits for one for ever."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from openr1_repro.rewards.pool import Item, Pool

SOURCE = Path(__file__).parents[2] / "workflow"
TRAINER = """
import sys, time
from openr1_repro.rewards import load
from openr1_repro.rewards.settings import RewardSettings
rewards = load(RewardSettings(reward_funcs=["accuracy"], verify_workers=2))
call = lambda text: rewards.reward_funcs[0](completions=[[{"role": "assistant", "content": text}]], solution=["$7$"])
print(call(r"\\boxed{7}"), [rewards._pool.nursery.pid] + [w.pid for w in rewards._pool.workers if w.pid], flush=True)
"""


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids, seconds=60):
    end = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(alive, pids))


def trainer(more, **environment):
    return subprocess.Popen(
        [sys.executable, "-c", TRAINER + more], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def pool():
    pool = Pool(workers=2, timeout=5, memory_mb=512, batch_timeout=200)
    yield pool
    pool.close()


def test_a_worker_holds_no_torch(pool):
    assert pool.check([Item("$7$", r"\boxed{7}")])[0].verdict is True
    for pid in (pool.nursery.pid, *(worker.pid for worker in pool.workers if worker.pid)):
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "torch" not in maps
        assert "cuda" not in maps


def test_a_killed_worker_is_replaced_and_its_items_are_judged(pool):
    pool.check([Item("$7$", r"\boxed{7}")])
    timer = threading.Timer(0.02, os.kill, (pool.workers[0].pid, signal.SIGKILL))
    items = [Item("$7$", rf"{n} \boxed{{\frac{{{n}}}{{1}}}}") for n in range(300)]  # to be parsed: it takes a while
    timer.start()
    results = pool.check(items)
    assert not timer.is_alive()
    wrong = [n for n, result in enumerate(results) if result.verdict is not (n == 7)]
    assert len(wrong) <= 1  # the one it was at, if any, counts as wrong
    os.kill(pool.workers[0].pid, signal.SIGKILL)  # idle this time
    assert pool.check(items[:3])[0].verdict is False
    assert len(pool.workers) == 2


def test_a_killed_nursery_is_replaced(pool):
    items = [Item("$7$", rf"{n} \boxed{{{n}}}") for n in range(100)]
    pool.check(items)
    pool.nursery.kill()
    wrong = [n for n, result in enumerate(pool.check(items)) if result.verdict is not (n == 7)]
    assert len(wrong) <= 2  # those that its workers were at
    assert [result.verdict for result in pool.check(items)].count(True) == 1


def test_calls_from_several_threads(pool):
    verdicts = {}

    def call(number):
        verdicts[number] = [r.verdict for r in pool.check([Item(f"${number}$", rf"\boxed{{{n}}}") for n in range(20)])]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(200)
    assert verdicts == {number: [n == number for n in range(20)] for number in range(4)}


def test_closing_twice_and_asking_afterwards():
    pool = Pool(workers=1, timeout=5, memory_mb=512, batch_timeout=100)
    pool.check([Item("$7$", "7")])
    pids = [*(worker.pid for worker in pool.workers), pool.nursery.pid]
    pool.close()
    pool.close()
    assert wait_until_gone(pids)
    with pytest.raises(RuntimeError, match="closed"):
        pool.check([Item("$7$", "7")])


@pytest.mark.parametrize(
    "how",
    [
        "end", "SIGTERM", "SIGKILL", pytest.param("exception", marks=pytest.mark.slow),
        pytest.param("SIGINT", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_workers_end_with_the_trainer(how):
    more = {"end": "", "exception": "raise ValueError"}.get(how, "call(r'\\boxed{10^{10^{10}}}')\ntime.sleep(600)")
    with trainer(more) as process:
        line = process.stdout.readline()
        assert line.startswith("[1.0]")
        pids = json.loads(line.removeprefix("[1.0] "))
        if how.startswith("SIG"):
            time.sleep(0.3)  # in the middle of an endless item
            process.send_signal(getattr(signal, how))
        assert process.wait(timeout=100) is not None
    assert wait_until_gone(pids)


def test_a_forked_child_leaves_the_workers_alone():
    more = """
import os
child = os.fork()
if child == 0:
    rewards.close()
    sys.exit(0)
os.waitpid(child, 0)
print(call(r"so \\boxed{7}"), flush=True)
"""
    with trainer(more) as process:
        assert process.stdout.readline().startswith("[1.0]")
        assert process.stdout.readline().startswith("[1.0]")


@pytest.mark.slow
def test_several_ranks_share_the_cores():
    code = "from openr1_repro.rewards.engine import local_share_of_cores as f; print(f())"
    for ranks in (1, 2, 64):
        environment = {**os.environ, "PYTHONPATH": str(SOURCE), "LOCAL_WORLD_SIZE": str(ranks)}
        found = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
        assert int(found.stdout) == max(1, len(os.sched_getaffinity(0)) // ranks)
    processes = [trainer("", LOCAL_WORLD_SIZE="3", LOCAL_RANK=str(rank)) for rank in range(3)]
    for process in processes:
        with process:
            assert process.stdout.readline().startswith("[1.0]")
            assert process.wait(timeout=200) == 0


def test_a_worker_that_cannot_start_is_an_error(monkeypatch, tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(broken))
    pool = Pool(workers=1, timeout=5, memory_mb=512, batch_timeout=100)
    with pytest.raises(RuntimeError, match="did not start"):
        pool.check([Item("$7$", "7")])
    pool.close()
