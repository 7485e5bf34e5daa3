"""What the download stage promises, through its command, with the hubs' own clients against hubs on loopback."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import termios
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from . import faults
from .conftest import ROOT, Job, environment, model_files, repository
from .hubs import Fault, Hubs

WANTED = {path: data for path, data in model_files().items() if path != "README.md"}


def wait_for_the_dead(folder):
    """What the user reads of a hub that never answers, and the seconds from its being asked to that line."""
    sound = Hubs({"models/org/tiny": repository(model_files())})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        job = Job(folder)
        job.download = {
            "huggingface_endpoint": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "modelscope_endpoint": sound.endpoint,
        }
        process = job.start()
        connection, _ = silent.accept()
        start = time.monotonic()
        line = process.stdout.readline()
        seconds = time.monotonic() - start
        process.communicate()
        connection.close()
    sound.close()
    assert job.files() == WANTED
    return line, seconds


@pytest.fixture(scope="module", autouse=True)
def dead_network(request, tmp_path_factory):
    """Begun with the first test here, asked by the last: ten seconds of waiting that cost none."""
    with ThreadPoolExecutor(1) as pool:
        asked = any(item.name == "test_dead_network_costs_little" for item in request.session.items)
        yield pool.submit(wait_for_the_dead, tmp_path_factory.mktemp("dead")) if asked else None


@pytest.mark.parametrize("source", ["huggingface", "modelscope"])
def test_whole_asset_and_manifest(job, hubs, source):
    job.asset["sources"] = [source]
    job.run()
    assert job.files() == WANTED
    manifest = job.manifest()
    assert list(manifest) == ["name", "kind", "source", "repository", "revision", "files"]
    assert (manifest["source"], manifest["repository"]) == (source, "org/tiny")
    assert manifest["revision"] == hubs[0].repositories["models/org/tiny"].commit
    assert {f["path"]: f["size"] for f in manifest["files"]} == {path: len(data) for path, data in WANTED.items()}
    assert sorted(p.name for p in job.output.iterdir()) == [".asset.json", ".lock", "files", "manifest.json"]


def test_second_run_opens_no_connection(job, hubs):
    job.run()
    before = job.manifest()
    for hub in hubs:
        hub.requests.clear()
        hub.close()
    job.output.joinpath("manifest.json").unlink()  # as Snakemake does before it runs a job again
    job.run()
    assert job.manifest() == before
    assert not hubs[0].requests
    assert not hubs[1].requests


def test_damaged_file_is_fetched_again_and_only_that(job, hubs):
    job.run()
    damaged = job.output / "files" / "model-00002-of-00003.safetensors"
    damaged.write_bytes(bytes(300_000))
    hubs[0].requests.clear()
    job.run()
    assert job.files() == WANTED
    assert {r.path for r in hubs[0].requests if r.method == "GET" and r.route != "list"} == {damaged.name}


def test_new_revision_fetches_what_changed(job, hubs):
    job.run()
    files = model_files() | {"config.json": b'{"model_type": "llama"}'}
    hubs[0].repositories["models/org/tiny"] = repository(files, commit="b" * 40)
    hubs[0].requests.clear()
    job.asset["revision"] = "b" * 40
    job.run()
    assert job.files()["config.json"] == files["config.json"]
    assert {r.path for r in hubs[0].requests if r.method == "GET" and r.route != "list"} == {"config.json"}


def test_default_order_and_mirror(job, hubs):
    """Hugging Face out of reach, a mirror configured: it is next, before ModelScope, and gets no token."""
    job.download |= {"huggingface_endpoint": "http://127.0.0.1:9", "mirrors": [hubs[0].endpoint]}
    job.env["HF_TOKEN"] = "hf_" + "s" * 30
    said = job.run()
    assert "huggingface (http://127.0.0.1:9): connection refused" in said
    assert job.manifest()["source"] == "mirror"
    assert not hubs[1].requests
    assert not any(r.authorization for r in hubs[0].requests)


def test_folder_filled_by_hand_comes_first(job, hubs):
    folder = job.folder / "downloads" / "models" / "org--tiny"
    folder.mkdir(parents=True)
    for path, data in model_files().items():
        (folder / path).write_bytes(data)
    job.run()
    assert job.files() == WANTED
    assert job.manifest()["source"] == "folder"
    assert not hubs[0].requests


def test_folder_with_a_part_missing_is_passed_over(job, hubs):
    folder = job.folder / "downloads" / "models" / "org--tiny"
    folder.mkdir(parents=True)
    for path, data in model_files().items():
        if "00002" not in path:
            (folder / path).write_bytes(data)
    assert "folder: model-00002-of-00003.safetensors is missing" in job.run()
    assert job.manifest()["source"] == "huggingface"


def test_folder_with_a_link_that_leads_out_is_refused(job, hubs):
    folder = job.folder / "downloads" / "models" / "org--tiny"
    folder.mkdir(parents=True)
    (folder / "config.json").symlink_to("/etc/passwd")
    assert "a link that leads out" in job.run()
    assert job.manifest()["source"] == "huggingface"


def test_embedded_assets(tmp_path):
    job = Job(tmp_path)
    job.asset = {"kind": "dataset", "repo": "embedded/openr1-math-tiny", "sources": ["embedded"]}
    job.run()
    original = ROOT / "workflow/resources/hub/datasets/embedded--openr1-math-tiny/data"
    assert job.files() == {f"data/{p.name}": p.read_bytes() for p in original.iterdir()}


def test_package_source(tmp_path):
    """A builder is handed a folder and its options, in a Python that has the locked packages."""
    wheel = tmp_path / "toy-1.5-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("toy.py", "def build(to, options):\n    (to / 'config.json').write_text(str(options['n']))\n")
        archive.writestr("toy-1.5.dist-info/METADATA", "Metadata-Version: 2.1\nName: toy\nVersion: 1.5\n")
        archive.writestr("toy-1.5.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr("toy-1.5.dist-info/RECORD", "")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (tmp_path / "packages.txt").write_text(f"toy @ {wheel.as_uri()} --hash=sha256:{digest}\n")
    job = Job(tmp_path)
    job.env["UV_OFFLINE"] = "1"
    package = {"requirement": "toy", "builder": "toy:build", "options": {"n": 3}}
    job.asset |= {"sources": ["package"], "package": package | {"requirements": str(tmp_path / "packages.txt")}}
    job.run()
    assert job.files() == {"config.json": b"3"}
    assert (job.manifest()["repository"], job.manifest()["revision"]) == ("toy", "1.5")

    job.output = job.folder / "again"
    job.asset["package"]["builder"] = "toy:no_such"
    assert "package: AttributeError" in job.run(status=1)


def test_package_source_opens_no_connection_offline(tmp_path):
    (tmp_path / "packages.txt").write_text(f"toy==1.5 --hash=sha256:{'0' * 64}\n")
    job = Job(tmp_path)
    package = {"requirement": "toy", "builder": "toy:build", "requirements": str(tmp_path / "packages.txt")}
    job.asset |= {"sources": ["package"], "package": package}
    with socket.create_server(("127.0.0.1", 0)) as index:
        job.env = {"HF_HUB_OFFLINE": "1", "UV_DEFAULT_INDEX": f"http://127.0.0.1:{index.getsockname()[1]}/simple"}
        assert "package: " in job.run(status=1)
        index.setblocking(False)
        with pytest.raises(BlockingIOError):
            index.accept()


@pytest.mark.parametrize("first", ["huggingface", "modelscope"])
def test_begun_at_one_hub_finished_at_the_other(job, hubs, first):
    """The bytes that the first hub sent before it broke are not fetched again from the second."""
    broken, sound = hubs if first == "huggingface" else hubs[::-1]
    cut = Fault("storage", lambda handler, blob: handler.send_blob(*_tiny(handler), {}, length=200_000), times=10**9)
    cut.path = "00001"
    broken.faults.append(cut)
    broken.faults.append(Fault("storage", lambda handler, blob: handler.cut(), path="00001", skip=0))
    cut.times = 1
    job.download["retries"] = 0
    job.asset["sources"] = [first, "modelscope" if first == "huggingface" else "huggingface"]
    job.run()
    assert job.files() == WANTED
    resumed = [r for r in sound.requests if r.route == "storage" and "00001" in r.path]
    assert [r.start for r in resumed] == [pytest.approx(200_000, abs=70_000)]
    assert resumed[0].start > 0


def _tiny(handler):
    return handler.server.hubs.repositories["models/org/tiny"], handler.note.path


def test_what_another_hub_began_with_wrong_bytes_is_begun_anew(job, hubs):
    """The checksum decides: a wrong beginning left by a broken hub does not spoil what the next one sends."""
    wrong = {path: bytes(len(data)) if "00001" in path else data for path, data in model_files().items()}
    lying = repository(wrong)
    right = hubs[0].repositories["models/org/tiny"]
    name = "model-00001-of-00003.safetensors"
    lying.listed = {name: {"sha256": right.files[name].sha256}}
    lying.files[name].__dict__["sha256"] = right.files[name].sha256
    hubs[0].repositories["models/org/tiny"] = lying
    hubs[0].faults.append(
        Fault(
            "storage",
            lambda handler, blob: handler.send_blob(*_tiny(handler), {}, length=100_000),
            path="00001",
            times=1,
        )
    )
    hubs[0].faults.append(Fault("storage", lambda handler, blob: handler.cut(), path="00001"))
    job.download["retries"] = 0
    job.run()
    assert job.files() == WANTED
    assert job.manifest()["source"] == "modelscope"


def test_lock_pins_every_byte(job, hubs, tmp_path):
    job.run()
    lock = tmp_path / "assets.lock.json"
    command = [sys.executable, "-m", "openr1_repro.download.lock", "--output", str(lock)]
    env = environment(tmp_path)
    subprocess.run([*command, str(job.output / "manifest.json")], check=True, env=env)
    job.lock = json.loads(lock.read_text())["tiny"]

    changed = model_files() | {"config.json": b'{"model_type": "other"}', "extra.json": b"{}"}
    job.output = job.folder / "again"
    hubs[0].repositories["models/org/tiny"] = repository(changed)
    said = job.run()
    assert "config.json: " in said
    assert "lock" in said or "announced" in said
    assert job.manifest()["source"] == "modelscope"
    assert job.files() == WANTED

    job.output = job.folder / "third"
    hubs[1].repositories["models/org/tiny"] = repository(changed)
    said = job.run(status=1)
    assert said.count("config.json") >= 2
    assert not (job.output / "manifest.json").exists()


def test_only_what_is_needed(tmp_path):
    files = {
        **{f"{config}/train-0000{i}-of-00002.parquet": os.urandom(2000) for config in ("data", "all") for i in (0, 1)},
        "README.md": b"card", "script.py": b"evil()",
    }  # fmt: skip
    hub = Hubs({"datasets/org/tiny": repository(files)})
    job = Job(tmp_path, hub.endpoint)
    job.asset = {"kind": "dataset", "repo": "org/tiny", "allow": ["data/train-*.parquet"]}
    job.run()
    assert sorted(job.files()) == [f"data/train-0000{i}-of-00002.parquet" for i in range(2)]
    assert hub.bytes_sent() == 4000
    hub.close()


def test_no_second_weights_format(job, hubs):
    more = {
        "pytorch_model.bin": b"x",
        "consolidated.safetensors": b"y",
        "onnx/model.json": b"{}",
        "modeling_x.py": b"evil()",
    }
    hubs[0].repositories["models/org/tiny"] = repository(model_files() | more)
    job.run()
    assert job.files() == WANTED


def test_pickles_are_refused_unless_named(job, hubs):
    pickled = {"config.json": b"{}", "pytorch_model.bin": b"\x80\x04."}
    for hub in hubs:
        hub.repositories["models/org/tiny"] = repository(pickled)
    assert "can run code when they are loaded (pytorch_model.bin)" in job.run(status=1)
    job.asset["allow_pickle"] = ["pytorch_model.bin"]
    job.run()
    assert job.files() == pickled


def test_the_hubs_own_cache_is_used(job, hubs):
    """What ``hf download`` or ``modelscope download`` fetched before is not fetched again."""
    bin = os.path.dirname(sys.executable)
    env = environment(job.folder / "home", HF_ENDPOINT=hubs[0].endpoint, MODELSCOPE_ENDPOINT=hubs[1].endpoint)
    for command in (["hf", "download", "org/tiny"], ["modelscope", "download", "--model", "org/tiny"]):
        subprocess.run([f"{bin}/{command[0]}", *command[1:]], env=env, check=True, capture_output=True)
    for source, hub in zip(("huggingface", "modelscope"), hubs, strict=True):
        hub.requests.clear()
        job.asset["sources"] = [source]
        job.output = job.folder / source
        job.run()
        assert job.files() == WANTED
        assert {r.route for r in hub.requests} == {"list"}
        hub.requests.clear()
    # Offline, the Hugging Face client's cache says itself what is whole; ModelScope's needs the lock.
    job.env["HF_HUB_OFFLINE"] = "1"
    for source, hub in zip(("huggingface", "modelscope"), hubs, strict=True):
        job.asset["sources"], job.output = [source], job.folder / f"{source}-offline"
        job.lock = None if source == "huggingface" else json.loads((job.folder / source / "manifest.json").read_text())
        job.run()
        assert job.files() == WANTED
        assert not hub.requests


@pytest.mark.parametrize("wish", [{"HF_HUB_OFFLINE": "on"}, {"TRANSFORMERS_OFFLINE": "1"}])
def test_offline_without_the_asset_opens_nothing(job, hubs, wish):
    job.env |= wish
    said = job.run(status=1)
    assert "huggingface" in said
    assert "modelscope" in said
    assert not hubs[0].requests
    assert not hubs[1].requests


def test_token_goes_to_its_hub_and_nowhere_else(job, hubs):
    token = "hf_" + "S3cret" * 6
    job.env |= {"HF_TOKEN": token, "MODELSCOPE_API_TOKEN": "ms-" + "S3cret" * 6}
    for hub in hubs:
        hub.repositories["models/org/tiny"].gated = True
    # The first hub takes the token and then fails, so that the second is asked too, and messages are written.
    hubs[0].faults.append(Fault("storage", lambda handler, blob: handler.send_json({"message": token}, 500)))
    job.download["retries"] = 0
    process = job.start()
    lines = set()
    while process.poll() is None:
        lines.update(subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout.splitlines())
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert not any("S3cret" in line for line in lines)
    written = "".join(p.read_text(errors="replace") for p in job.output.rglob("*.json"))
    assert "S3cret" not in out + err + written
    assert "SECRET" not in out + err + written  # signatures of storage addresses
    assert any(token in r.authorization for r in hubs[0].requests if r.route == "list")
    assert not any(r.authorization for hub in hubs for r in hub.requests if r.route == "storage")


def test_token_of_a_login_is_used_and_hidden(job, hubs):
    """As ``hf auth login`` stores it; a message that repeats it is shown without."""
    token = "hf_" + "S3cret" * 6
    stored = job.folder / "home/.cache/huggingface/token"
    stored.parent.mkdir(parents=True)
    stored.write_text(token)
    hubs[0].repositories["models/org/tiny"].gated = True
    hubs[0].faults.append(Fault("list", lambda handler, blob: handler.send_json({"error": token}, 418)))
    said = job.run()
    assert "huggingface" in said
    assert token in hubs[0].requests[0].authorization
    assert "S3cret" not in job.everything


def test_gated_repository_without_a_token(job, hubs):
    for hub in hubs:
        hub.repositories["models/org/tiny"].gated = True
    said = job.run(status=1)
    assert said.count("403: access refused; a gated repository wants its terms accepted and a login") >= 2
    assert "HF_TOKEN" in said
    assert "downloads/models/org--tiny/" in said


def test_two_downloads_of_one_asset_wait_for_each_other(job, hubs):
    hubs[0].rate = 400_000
    first, second = job.start(), job.start()
    said = [process.communicate(timeout=60) for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "waiting for another download" in "".join(out for out, _ in said)
    assert job.files() == WANTED
    assert hubs[0].bytes_sent("0000") == 900_000


def test_progress_on_a_terminal(job, hubs):
    """Bytes, time left, speed."""
    hubs[0].rate = 200_000
    terminal, end = os.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    home = job.folder / "home"
    home.mkdir()
    process = subprocess.Popen(job.command(), cwd=job.folder, env=environment(home), stderr=end)
    os.close(end)
    shown = b""
    with contextlib.suppress(OSError):  # how a terminal's other side ends
        while piece := os.read(terminal, 4096):
            shown += piece
    os.close(terminal)
    assert process.wait() == 0
    assert re.search(rb"tiny: +\d+%.* \d+k/900k \[00:0\d<00:0\d, +[\d.]+kB/s\]", shown), shown


def endless_pages(handler, blob):
    """Each page of a data set's tree is full, whichever is asked for."""
    number, size = int(handler.query["PageNumber"]), int(handler.query["PageSize"])
    files = [{"Path": f"{number}/{i}.json", "Name": f"{i}.json", "Type": "blob", "Size": 2} for i in range(size)]
    handler.send_json({"Code": 200, "Success": True, "Data": {"Files": files, "TotalCount": 10**9}})


@pytest.mark.parametrize(
    ("source", "kind", "endless", "reads"),
    [
        ("huggingface", "model", faults.endless_list, "its listing does not end"),
        ("modelscope", "model", faults.endless_list, "its listing does not end"),
        ("modelscope", "dataset", endless_pages, "no answer in 2 s|its listing does not end"),
    ],
)
def test_listing_without_end_takes_little_memory_and_time(job, hubs, source, kind, endless, reads):
    for hub in hubs:
        hub.repositories[f"{kind}s/org/tiny"] = repository({})
        hub.faults.append(Fault("list", endless))
    job.asset |= {"kind": kind, "sources": [source]}
    job.download["answer_seconds"] = 2 if endless is endless_pages else 10
    start, peak = time.monotonic(), 0
    process = job.start()
    while process.poll() is None:
        with contextlib.suppress(psutil.Error):
            everyone = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            peak = max(peak, sum(each.memory_info().rss for each in everyone))
        time.sleep(0.02)
    assert time.monotonic() - start < 15
    assert peak < 700e6  # the bound of client.LISTING_MEMORY, and both processes themselves
    assert re.search(reads, process.communicate()[1])


@faults.needs_mount
def test_full_disk_made_free_goes_on(job, hubs):
    """What arrived before the disk was full is not fetched again."""
    faults.fills(hubs[0], job)
    try:
        job.download["workers"] = 1
        job.run(status=1)
        done = {p.name for p in (job.output / ".work/files").iterdir()}
        assert "model-00001-of-00003.safetensors" in done
        (job.output / "other").unlink()
        hubs[0].faults.clear()
        hubs[0].requests.clear()
        job.run()
        assert job.files() == WANTED
        assert not done & {r.path for r in hubs[0].requests if r.method == "GET"}
    finally:
        subprocess.run(["umount", job.output], check=True)


def test_dead_network_costs_little(dead_network):
    """Nothing answers, at the default patience: the next source is asked at most 15 s after the silent one."""
    line, seconds = dead_network.result()
    assert "no answer in 10 s" in line
    assert seconds < 15
