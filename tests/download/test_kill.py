"""Kill -9 at random moments: nothing finished is fetched twice, and the asset is the same in the end."""

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from .conftest import Job, repository
from .hubs import Hubs


@pytest.fixture(scope="module")
def runs(request, tmp_path_factory):
    """The selected tests side by side: they mostly wait."""
    items = [item for item in request.session.items if item.originalname == "test_killed_at_random_moments"]
    cases = [(item.callspec.params["source"], item.callspec.params["kills"]) for item in items]
    with ThreadPoolExecutor(2) as pool:
        yield {case: pool.submit(killed_at_random_moments, tmp_path_factory.mktemp("killed"), *case) for case in cases}


@pytest.mark.parametrize(
    ("source", "kills"),
    [
        pytest.param("huggingface", 4),
        pytest.param("modelscope", 4),
        pytest.param("huggingface", 20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
        pytest.param("modelscope", 20, marks=[pytest.mark.slow, pytest.mark.timeout(1800)]),
    ],
)
def test_killed_at_random_moments(runs, source, kills):
    runs[source, kills].result()


def killed_at_random_moments(folder, source, kills):
    # Large and slow enough for every kill to find something unfinished, small enough for some files to be finished.
    pause, rate = (3, 200_000) if kills == 20 else (1, 1_200_000)  # seconds at most; bytes a second for each file
    size = int(kills * pause * rate * 0.1)
    files = {f"data/train-{i:05}-of-00048.parquet": random.Random(i).randbytes(size) for i in range(48)}
    hub = Hubs({"datasets/org/tiny": repository(files)})
    hub.rate = rate
    job = Job(folder, hub.endpoint, hub.endpoint)
    job.asset = {"kind": "dataset", "repo": "org/tiny", "sources": [source]}
    job.download["workers"] = 4
    draw = random.Random(kills)
    finished_at: dict[str, int] = {}  # file -> how many requests there had been when it was seen finished
    for _ in range(kills):
        before = len(hub.requests)
        process = job.start()
        while not any(r.route == "storage" for r in hub.requests[before:]) and process.poll() is None:
            time.sleep(0.01)
        time.sleep(draw.uniform(0, pause))
        assert process.poll() is None, "it was too fast to be killed"
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(0.3)  # the client notices that its parent is gone
        now = len(hub.requests)
        for path in (job.output / ".work/files").rglob("*.parquet"):
            finished_at.setdefault(path.relative_to(job.output / ".work/files").as_posix(), now)
        assert not (job.output / "manifest.json").exists()
    hub.rate = 0
    job.run()
    assert job.files() == files
    assert job.manifest()["files"][0]["path"] == "data/train-00000-of-00048.parquet"
    assert finished_at
    for path, seen in finished_at.items():
        assert not [r for r in hub.requests[seen:] if r.path == path and r.method == "GET"]
    assert any(r.start > 0 for r in hub.requests)  # unfinished ones went on from where they were
    hub.close()
