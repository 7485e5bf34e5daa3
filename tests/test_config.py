"""The configuration: what ships is right, and every mistake is reported at once, with file, line, key and the fix."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from openr1_repro import config, reference
from openr1_repro.stage import UserError

ROOT = Path(__file__).parents[1]
VARIANTS = sorted(path.stem for path in (ROOT / "config" / "variants").glob("*.yaml"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    shutil.copytree(ROOT / "config", tmp_path / "config")
    return tmp_path


def messages(root: Path, *variants: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        config.load(root, {"variants": list(variants)})
    return str(caught.value).splitlines()


@pytest.mark.parametrize("variant", VARIANTS)
def test_shipped_variant_is_valid(variant: str) -> None:
    project = config.load(ROOT, {"variants": [variant]})
    assert list(project.variants) == [variant]


def test_seed_is_the_document_s_recipe() -> None:
    seed = config.load(ROOT, {"variants": ["seed"]}).variants["seed"]
    assert seed.train.num_gpus == 8
    assert seed.train.num_processes == 7
    assert seed.train.completions == 2 * 32 * 7
    assert seed.train.rewards.reward_funcs == ["accuracy", "format", "tag_count"]
    assert seed.train.grpo["learning_rate"] == pytest.approx(1e-6)
    assert "</think>\n<answer>" in (seed.chat.system_prompt or "")
    assert "<think>" not in (seed.chat.template or "")


def test_openr1_differs_from_seed_only_where_its_author_changed_it() -> None:
    variants = config.load(ROOT, {"variants": ["seed", "openr1"]}).variants
    seed, openr1 = (variants[name].model_dump(exclude={"description"}) for name in ("seed", "openr1"))
    changed = {key for key, value in openr1["train"]["grpo"].items() if seed["train"]["grpo"].get(key) != value}
    assert changed == {
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "num_generations",
        "use_liger_kernel",
    }
    for variant in (seed, openr1):
        del variant["train"]["grpo"]
    assert seed == openr1


def test_every_mistake_at_once(project: Path) -> None:
    (project / "config/variants/bad.yaml").write_text(
        """\
base: seed
model: deepsek-r1-distill-qwen-1.5b
descripton: typo
chat:
  template: config/templates/missing.jinja
prepare:
  max_prompt_tokns: 512
  seed: many
train:
  grpo:
    learning_rate: "1e-6"
    num_generations: 5
    learning_rat: 1.0
  rewards:
    reward_funcs: [acuracy]
    reward_weights: [1.0]
evaluate:
  benchmarks: [math-500, aime2024]
  temperature: -1
"""
    )
    found = messages(project, "bad", "nowhere")
    expected = {
        ("bad.yaml:2:", "model", "did you mean", "deepseek-r1-distill-qwen-1.5b"),
        ("bad.yaml:3:", "descripton", 'did you mean "description"'),
        ("bad.yaml:5:", "chat.template", "missing.jinja"),
        ("bad.yaml:7:", "prepare.max_prompt_tokns", 'did you mean "max_prompt_tokens"'),
        ("bad.yaml:8:", "prepare.seed", "integer"),
        ("bad.yaml:11:", "train.grpo.learning_rate", "text, not a number", "1e-06"),
        ("bad.yaml:13:", "train.grpo.learning_rat", "learning_rate"),
        ("bad.yaml:15:", "train.rewards", "acuracy"),
        ("bad.yaml:18:", "evaluate.benchmarks", "aime2024"),
        ("bad.yaml:19:", "evaluate.temperature", "greater than or equal to 0"),
        ("config.yaml", "nowhere"),
    }
    for parts in expected:
        assert any(all(part in line for part in parts) for line in found), f"{parts} not in\n" + "\n".join(found)


@pytest.mark.parametrize("samples", ["0", "{math-500: 0}", "-3"])
def test_no_samples(project: Path, samples: str) -> None:
    (project / "config/variants/bad.yaml").write_text(f"base: seed\nevaluate:\n  samples: {samples}\n")
    assert messages(project, "bad") == ["config/variants/bad.yaml:3: evaluate.samples: at least 1 a problem"]


def test_batch_that_does_not_divide(project: Path) -> None:
    (project / "config/variants/bad.yaml").write_text("base: seed\ntrain:\n  grpo:\n    num_generations: 5\n")
    (line,) = messages(project, "bad")
    assert line.startswith("config/variants/bad.yaml:4: train.grpo.num_generations:")
    assert "448" in line


def test_number_without_a_point_is_a_number(project: Path) -> None:
    (project / "config/variants/ok.yaml").write_text("base: seed\ntrain:\n  grpo:\n    learning_rate: 1e-6\n")
    loaded = config.load(project, {"variants": ["ok"]})
    assert loaded.variants["ok"].train.grpo["learning_rate"] == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("base: loop\n", "its own base"),
        ("base: nowhere\n", "no 'nowhere' in config/variants"),
        ("a: [1\n", "not valid YAML"),
        ("- 1\n", "must be a mapping"),
        ("model: x\nmodel: y\n", "not valid YAML"),
    ],
)
def test_broken_file(project: Path, text: str, says: str) -> None:
    (project / "config/variants/loop.yaml").write_text(text)
    assert any(line.startswith("config/variants/loop.yaml:") and says in line for line in messages(project, "loop"))


def test_overlay_merges_mappings_and_replaces_the_rest(project: Path) -> None:
    (project / "config/variants/over.yaml").write_text(
        "base: openr1\ntrain:\n  rewards:\n    reward_funcs: [accuracy]\n    reward_weights: [1.0]\n"
    )
    over = config.load(project, {"variants": ["over"]}).variants["over"]
    assert over.train.rewards.reward_funcs == ["accuracy"]
    assert over.train.grpo["num_generations"] == 16


def test_variants_share_what_they_share(project: Path) -> None:
    (project / "config/variants/faster.yaml").write_text("base: seed\ntrain:\n  grpo:\n    learning_rate: 2e-6\n")
    loaded = config.load(project, {"variants": ["seed", "faster", "openr1"]})
    assert len({loaded.prompts_key(v) for v in loaded.variants}) == 1
    assert len({loaded.base_key(v) for v in loaded.variants}) == 1


def test_reference_is_current() -> None:
    assert (ROOT / "docs/config.md").read_text() == reference.reference(), (
        "python -m openr1_repro.reference > docs/config.md"
    )


def test_no_torch_in_the_workflow() -> None:
    code = "import sys, openr1_repro.config; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT / "workflow")}).returncode == 0
