"""Working checkpoints: whole or not used, pruned, published as plain folders."""

import json
import shutil

import pytest
from openr1_repro.train import checkpoints


def make(folder, step, resumable=True):
    checkpoint = folder / "checkpoints" / f"step-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights %d" % step * 100)
    (checkpoint / "config.json").write_text("{}")
    if resumable:
        (checkpoint / "optimizer.pt").write_bytes(b"moments" * 50)
        (checkpoint / "trainer_state.json").write_text("{}")
    checkpoints.seal(checkpoint)
    return checkpoint


def flip(checkpoint):
    data = bytearray((checkpoint / "model.safetensors").read_bytes())
    data[7] ^= 1
    (checkpoint / "model.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "differs"),
        (lambda c: (c / "optimizer.pt").write_bytes(b"half"), "bytes"),
        (lambda c: (c / "config.json").unlink(), "missing"),
        (lambda c: (c / checkpoints.DIGESTS).unlink(), "half-written"),
        (lambda c: (c / checkpoints.DIGESTS).write_text('{"a"'), "half-written"),
    ],
)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys, damage, said):
    make(tmp_path, 10)
    make(tmp_path, 20)
    damage(tmp_path / "checkpoints" / "step-20")
    assert checkpoints.newest_whole(tmp_path / "checkpoints").name == "step-10"
    assert said in capsys.readouterr().out


def test_none_whole_is_none(tmp_path):
    assert checkpoints.newest_whole(tmp_path / "checkpoints") is None
    flip(make(tmp_path, 1))
    (tmp_path / "checkpoints" / "tmp").mkdir()
    assert checkpoints.newest_whole(tmp_path / "checkpoints") is None


def test_old_checkpoints_lose_the_optimizer_then_go(tmp_path):
    for step in (5, 10, 100, 20):
        make(tmp_path, step)
    checkpoints.prune(tmp_path / "checkpoints", limit=3, resumable=1)
    left = checkpoints.listed(tmp_path / "checkpoints")
    assert [c.name for c in left] == ["step-10", "step-20", "step-100"]
    assert [checkpoints.can_resume(c) for c in left] == [False, False, True]
    assert all(checkpoints.fault(c) is None for c in left)


def test_published_folders_are_models_and_nothing_else(tmp_path):
    make(tmp_path, 5)
    (tmp_path / "log.jsonl").write_text('{"step": 5}\n')
    output = tmp_path / "out"
    output.mkdir()
    rows = checkpoints.publish(tmp_path, output, "step {step}")
    assert {f.name for f in (output / "checkpoints" / "step-5").iterdir()} == {
        "model.safetensors",
        "config.json",
        "README.md",
    }
    assert (output / "checkpoints" / "step-5" / "README.md").read_text() == "step 5"
    assert json.loads((output / "checkpoints.json").read_text()) == rows
    shutil.rmtree(tmp_path / "checkpoints")
    assert (output / "checkpoints" / "step-5" / "model.safetensors").exists()
