"""The whole workflow on a tiny variant: every stage runs, and one edit reruns exactly what depends on it."""

import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
TINY = """\
base: quickstart
train:
  grpo:
    max_steps: 4
    save_steps: 2
    num_generations: 4
    per_device_train_batch_size: 16
    gradient_accumulation_steps: 1
evaluate:
  samples: 1
  validation_samples: 1
  max_new_tokens: 24
"""
AFTER_TRAINING = {"generate": 1, "score": 1, "report": 1}
AFTER_PROMPTS = {"train": 1, "generate": 2, "score": 2, "report": 1}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project after one run of the variant ``tiny``."""
    root = tmp_path_factory.mktemp("project") / "project"
    root.mkdir()
    for name in ("Snakefile", "pyproject.toml"):
        shutil.copy(ROOT / name, root)
    for name in ("config", "envs", "profiles", "workflow"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "config/variants/tiny.yaml").write_text(TINY)
    (root / "config/config.yaml").write_text("variants:\n  - tiny\n")
    done = snakemake(root, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    return root


def snakemake(root: Path, *arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    environment = {"OPENR1_REPRO_ENVS": str(ROOT / ".envs"), **os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("PYTHONPATH", None)
    return subprocess.run(
        ["snakemake", "--cores", "2", *arguments],
        cwd=root,
        env=environment,
        text=True,
        capture_output=True,
        timeout=timeout,
    )


def planned(root: Path, *arguments: str) -> dict[str, int]:
    """The rules that a call would run, with how often."""
    done = snakemake(root, "--dry-run", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+)\s+(\d+)$", done.stdout.partition("Job stats:")[2].partition("total")[0], re.M)
    return {rule: int(count) for rule, count in rows if rule != "all"}


@pytest.fixture
def edit(project: Path) -> Iterator[Callable[[str, str, str], None]]:
    """Replace text in a file of the project; undone after the test."""
    before: dict[Path, tuple[str, os.stat_result]] = {}

    def change(name: str, old: str, new: str) -> None:
        path = project / name
        before.setdefault(path, (path.read_text(), path.stat()))
        text = path.read_text()
        assert old in text, f"{old!r} is not in {name}"
        path.write_text(text.replace(old, new, 1) if old else text + new)

    yield change
    for path, (text, status) in before.items():
        path.write_text(text)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_every_stage_left_its_outputs(project: Path) -> None:
    run = project / "results/runs/tiny"
    assert [c["step"] for c in json.loads((run / "training/checkpoints.json").read_text())] == [2, 4]
    log = [json.loads(line) for line in (run / "training/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert (run / "training/checkpoints/step-4/model.safetensors").stat().st_size > 10_000
    assert (run / "evaluation/scores.parquet").exists()
    summary = json.loads((project / "results/report/summary.json").read_text())
    assert summary["scores"]
    page = (project / "results/report/index.html").read_text()
    assert "tiny" in page
    assert "</html>" in page


def test_what_was_dropped_can_be_asked_for(project: Path) -> None:
    (dropped,) = (project / "results/prompts").glob("*/dropped.parquet")
    target = str(dropped.relative_to(project))
    assert planned(project, target) == {}
    aside = dropped.rename(project / "dropped.parquet")
    assert planned(project, target) == {"prepare": 1}
    aside.rename(dropped)


def test_answers_are_read_once(project: Path, edit: Callable[[str, str, str], None]) -> None:
    """Another key, other settings: math-verify is asked for no answer again."""
    section = "prepare: {question_types: null, answer: {reject: []}, max_prompt_tokens: 63}\ntrain:"
    edit("config/variants/tiny.yaml", "train:", section)
    counts = []
    for tokens in ("63", "62"):
        edit("config/variants/tiny.yaml", "63", tokens)
        done = snakemake(project, "--until", "prepare")
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
        counts += re.findall(r"([\d,]+) for math-verify to read", done.stdout)
    assert counts[0] > "0" and counts[1] == "0"


def test_second_run_does_nothing_quickly(project: Path) -> None:
    began = time.monotonic()
    done = snakemake(project)
    assert "Nothing to be done" in done.stdout + done.stderr
    assert time.monotonic() - began < 30  # the README has the figure; here only a hang fails


EDITS = {
    "learning rate": (("config/variants/tiny.yaml", "max_steps: 4", "max_steps: 4\n    learning_rate: 1.0e-5"), {"train": 1, **AFTER_TRAINING}),
    "reward weight": (
        ("config/variants/tiny.yaml", "train:", "train:\n  rewards: {reward_weights: [1.0, 0.5, 0.5]}"),
        {"train": 1, **AFTER_TRAINING},
    ),
    "prepare filter": (("config/variants/tiny.yaml", "train:", "prepare: {max_prompt_tokens: 60}\ntrain:"), {"prepare": 1, **AFTER_PROMPTS}),
    "samples": (("config/variants/tiny.yaml", "samples: 1", "samples: 2"), {"generate": 2, "score": 2, "report": 1}),
    "comment in a stage": (("workflow/openr1_repro/prepare/funnel.py", "", "\n# a thought\n"), {}),
    "docstring in a shared module": (("workflow/openr1_repro/stage.py", '"""What every', '"""All that every'), {}),
    "code of prepare": (("workflow/openr1_repro/prepare/funnel.py", "", "\nNEW = 1\n"), {"prepare": 1, **AFTER_PROMPTS}),
    "code of train": (("workflow/openr1_repro/train/grpo.py", "", "\nNEW = 1\n"), {"train": 1, **AFTER_TRAINING}),
    "code of score": (("workflow/openr1_repro/evaluate/score.py", "", "\nNEW = 1\n"), {"score": 2, "report": 1}),
    "code of report": (("workflow/openr1_repro/report/page.py", "", "\nNEW = 1\n"), {"report": 1}),
    "lock of lighteval": (("envs/lighteval.txt", "", "# newer\n"), {"score": 2, "report": 1}),
    "lock of train": (("envs/train.txt", "", "# newer\n"), {"train": 1, "generate": 2, "score": 2, "report": 1}),
    "model's revision": (
        ("config/assets.yaml", "repo: embedded/tiny-math-1m", "repo: embedded/tiny-math-1m\n  revision: v2"),
        {"download": 1, "prepare": 1, **AFTER_PROMPTS},
    ),
    "variant's description": (("config/variants/tiny.yaml", "base:", "description: shorter\nbase:"), {"report": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_one_edit_reruns_what_depends_on_it(project: Path, edit: Callable[[str, str, str], None], name: str) -> None:
    change, expected = EDITS[name]
    edit(*change)
    assert planned(project) == expected


def test_benchmark_added(project: Path, edit: Callable[[str, str, str], None]) -> None:
    benchmark = project / "config/benchmarks/again.yaml"
    benchmark.write_text((project / "config/benchmarks/tiny-math-bench.yaml").read_text())
    edit("config/variants/tiny.yaml", "samples: 1", "samples: 1\n  benchmarks: [tiny-math-bench, again]")
    assert planned(project) == {"generate": 2, "score": 2, "report": 1}


def test_touched_input_reruns_nothing(project: Path) -> None:
    for manifest in (project / "results/assets").rglob("manifest.json"):
        manifest.touch()
    assert planned(project) == {}


def test_variant_added_shares_prompts_and_base(project: Path) -> None:
    (project / "config/variants/other.yaml").write_text("base: tiny\ntrain:\n  grpo:\n    learning_rate: 1.0e-5\n")
    assert planned(project, "--config", "variants=[tiny,other]") == {"train": 1, **AFTER_TRAINING}


def test_one_stage_and_forced_rule(project: Path) -> None:
    assert planned(project, "--forcerun", "train", "--until", "train") == {"train": 1}
    target = "results/runs/tiny/evaluation/scores.parquet"
    assert planned(project, target) == {}
    assert planned(project, target, "--forcerun", "generate") == {"generate": 1, "score": 1}  # not the base model's


def test_seed_s_variants_plan_on_any_machine(project: Path) -> None:
    plan = planned(project, "--config", "variants=[seed,openr1]")
    assert plan["train"] == 2
    assert plan["prepare"] == 1
    assert plan["generate"] == 3  # one base for both
    plan = planned(project, "--config", "variants=[modern]")
    assert (plan["prepare"], plan["pass_rate"]) == (2, 1)  # candidates, their pass rates, then the prompts
    plan = planned(project, "plan", "--config", "variants=[seed,modern]")
    assert (plan["prepare"], plan["plan"]) == (2, 1)
    assert "pass_rate" not in plan  # it takes a GPU


def test_gpus_that_are_not_there_are_refused_before_any_job(project: Path) -> None:
    done = snakemake(project, "--config", "variants=[seed]")
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "seed asks for 8 GPUs" in text
    assert "Traceback" not in text
    assert not (project / "results/assets/models/deepseek-r1-distill-qwen-1.5b").exists()


def test_what_needs_no_gpu_runs_without_one(project: Path) -> None:
    (project / "config/variants/gpu.yaml").write_text("base: tiny\ntrain:\n  grpo:\n    use_cpu: false\n")
    done = snakemake(project, "--config", "variants=[gpu]", "--until", "prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    refused = snakemake(project, "--config", "variants=[gpu]")
    assert "gpu asks for 1 GPUs" in refused.stdout + refused.stderr


def test_bad_config_stops_before_any_job(project: Path) -> None:
    (project / "config/variants/bad.yaml").write_text("base: tiny\ntrain:\n  grpo:\n    learning_rat: 1\n")
    done = snakemake(project, "--config", "variants=[bad]")
    assert done.returncode != 0
    assert "config/variants/bad.yaml:4: train.grpo.learning_rat" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert "localrule" not in done.stdout + done.stderr


def test_failed_stage_explains_itself(project: Path, edit: Callable[[str, str, str], None]) -> None:
    edit("workflow/openr1_repro/report/page.py", "", "\nraise RuntimeError('broken on purpose')\n")
    done = snakemake(project)
    text = done.stdout + done.stderr
    assert done.returncode != 0
    assert "broken on purpose" in text
    assert "to run this step alone" in text
    assert "-m openr1_repro.report" in text


def test_assets_are_pinned(project: Path) -> None:
    done = snakemake(project, "lock")
    assert done.returncode == 0, done.stdout + done.stderr
    lock = project / "config/assets.lock.json"
    assert set(json.loads(lock.read_text())) == {"tiny-math", "openr1-math-tiny", "tiny-math-bench"}
    try:
        assert planned(project, "--until", "download") == {"download": 3}  # each is checked against its pin, once
        pins = json.loads(lock.read_text())
        pins["tiny-math"]["files"][0]["sha256"] = "0" * 64
        lock.write_text(json.dumps(pins))
        done = snakemake(project, "--until", "download")
        assert done.returncode != 0
        assert pins["tiny-math"]["files"][0]["path"] in done.stdout + done.stderr
    finally:
        lock.unlink()


@pytest.mark.slow
def test_optional_stages(project: Path) -> None:
    """Pass rates before training, and a supervised start."""
    (project / "config/variants/whole.yaml").write_text("""\
base: tiny
prepare:
  validation: 8
  pass_rate: {k: 4, candidates: 48, max_new_tokens: 48}
train:
  warm_start:
    max_examples: 32
    sft: {use_cpu: true, max_steps: 2, per_device_train_batch_size: 8}
""")
    done = snakemake(project, "--config", "variants=[whole]", timeout=900)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    (rates,) = (project / "results/pass-rates").glob("*.parquet")
    assert 0 < pl.read_parquet(rates)["rate"].mean() < 1
    assert list((project / "results/warm-starts").glob("*/manifest.json"))
    scores = pl.read_parquet(project / "results/runs/whole/evaluation/scores.parquet")
    assert set(scores["model"]) == {"warm-start", "step-2", "step-4"}
    assert "; of these by GRPO " in done.stdout + done.stderr
    assert planned(project, "--config", "variants=[whole]") == {}


@pytest.mark.slow
def test_pretrained_model_without_a_hub(project: Path) -> None:
    """``smollm2`` from Python packages through every stage: two GRPO steps and one benchmark on a CPU."""
    done = snakemake(project, "--config", "variants=[smollm2-cpu]", timeout=1500)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    summary = json.loads((project / "results/report/summary.json").read_text())
    assert summary["scores"]["variants"]["smollm2-cpu"]["benchmarks"]["arithmetic-words"]["problems"] == 100
