"""Generation on a CPU by a tiny random model: prompts as trained, texts reproducible, resumable, never stale."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from openr1_repro.stage import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
from openr1_repro.evaluate.generate import main  # noqa: E402

pytestmark = pytest.mark.train_env
torch.set_num_threads(1)


@pytest.fixture
def run(assets, tmp_path, monkeypatch, capsys):
    """Calls the stage as its command line would: gives the table and the number of samples that were generated."""

    def call(settings, *arguments, work=tmp_path):
        output = tmp_path / "responses.parquet"
        command = ["generate", "--settings", settings, "--assets", assets, "--cache", work, "--output", output]
        monkeypatch.setattr(sys, "argv", [str(part) for part in [*command, *arguments]])
        capsys.readouterr()
        main()
        lines = [line for line in capsys.readouterr().out.splitlines() if "to generate" in line]
        return pl.read_parquet(output), sum(int(line.split()[-3]) for line in lines)

    return call


def texts(rows):
    return dict(((*row[:3],), row[3]) for row in rows.select("benchmark", "item", "sample", "text").rows())


def test_every_sample_of_every_problem(settings, tiny_model, run):
    rows, generated = run(settings(), "--model", tiny_model())
    assert rows.columns == [
        "model", "benchmark", "item", "sample", "seed", "problem", "gold", "prompt", "text", "num_tokens",
        "finish_reason",
    ]  # fmt: skip
    assert generated == rows.height == 24
    assert rows.select("item", "sample").rows() == [(item, sample) for item in range(12) for sample in range(2)]
    assert rows["model"].unique().to_list() == ["base"]
    assert rows["gold"][2] == "4"
    assert rows["prompt"][0] == "<|user|>What is 0 + 0?<|assistant|>"
    assert set(rows["finish_reason"]) <= {"stop", "length"}
    assert rows.filter(pl.col("finish_reason") == "length")["num_tokens"].unique().to_list() in ([], [12])
    assert rows["text"].n_unique() > 20  # sampled, not copied


# --- the same seed, the same text; only what is missing


def test_the_same_seed_gives_the_same_text(settings, tiny_model, run, tmp_path):
    model = tiny_model()
    first, _ = run(settings(), "--model", model, work=tmp_path / "1")
    again, generated = run(settings(), "--model", model, work=tmp_path / "2")
    assert generated == 24
    assert first.equals(again)
    other, _ = run(settings(seed=1), "--model", model, work=tmp_path / "1")
    assert texts(other) != texts(first)


def test_a_rerun_generates_nothing(settings, tiny_model, run):
    model = tiny_model()
    first, _ = run(settings(), "--model", model)
    again, generated = run(settings(), "--model", model)
    assert generated == 0
    assert first.equals(again)


def test_more_samples_and_benchmarks_generate_only_those(settings, tiny_model, run, assets, tmp_path):
    model = tiny_model()
    first, _ = run(settings(), "--model", model)
    shutil.copytree(assets / "datasets" / "sums", assets / "datasets" / "more")
    both = {"sums": {"dataset": "sums"}, "more": {"dataset": "more", "num_problems": 5}}
    grown, generated = run(settings(benchmarks=both, samples={"sums": 3, "more": 1}), "--model", model)
    assert generated == 12 + 5
    assert texts(first).items() <= texts(grown).items()
    afresh, _ = run(settings(benchmarks=both, samples={"sums": 3, "more": 1}), "--model", model, work=tmp_path / "new")
    assert afresh.equals(grown)  # what was added later is what would have been there from the start


def test_what_another_run_has_asked_changes_no_text(settings, tiny_model, run, tmp_path):
    model = tiny_model()
    few = {"sums": {"dataset": "sums", "num_problems": 5}}
    afresh, _ = run(settings(benchmarks=few), "--model", model, work=tmp_path / "new")
    run(settings(), "--model", model)  # the same problems among others, in larger batches
    after, _ = run(settings(benchmarks=few), "--model", model)
    assert after.equals(afresh)


@pytest.mark.parametrize("lost", ["half a line", "all but three lines"])
def test_after_a_kill_the_texts_are_the_same(lost, settings, tiny_model, run, tmp_path):
    model = tiny_model()
    first, _ = run(settings(batch_size=5), "--model", model)
    (store,) = tmp_path.glob("*.jsonl")
    lines = store.read_bytes().splitlines(keepends=True)
    store.write_bytes(store.read_bytes()[:-20] if lost == "half a line" else b"".join(lines[:3]))
    again, generated = run(settings(batch_size=5), "--model", model)
    assert generated == (1 if lost == "half a line" else 21)
    assert again.equals(first)


# --- nothing stale: FIELD's traps of result caches


def test_other_weights_under_the_same_path(settings, tiny_model, run):
    model, other = tiny_model(), tiny_model(seed=1)
    first, _ = run(settings(), "--model", model)
    shutil.copy(other / "files" / "model.safetensors", model / "files" / "model.safetensors")
    os.utime(model / "files" / "model.safetensors", (0, 0))  # nor does an old date hide them
    again, generated = run(settings(), "--model", model)
    assert generated == 24
    assert texts(again) != texts(first)


def test_another_tokenizer_or_end_of_text_under_the_same_path(settings, tiny_model, run):
    model = tiny_model()
    run(settings(), "--model", model)
    path = model / "files" / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"eos_token_id": [5, 256]}))
    assert run(settings(), "--model", model)[1] == 24


def test_another_problem_in_the_data(settings, tiny_model, run, assets):
    model = tiny_model()
    first, _ = run(settings(), "--model", model)
    path = assets / "datasets" / "sums" / "files" / "data" / "test.parquet"
    rows = pl.read_parquet(path)
    rows[3, "problem"] = "What is 9 + 9?"
    rows.write_parquet(path)
    again, generated = run(settings(), "--model", model)
    assert generated == 24  # the batches that it is in
    changed = {key for key, text in texts(again).items() if texts(first)[key] != text}
    assert changed <= {("sums", 3, 0), ("sums", 3, 1)}


def test_another_answer_in_the_data_needs_no_new_text(settings, tiny_model, run, assets):
    model = tiny_model()
    run(settings(), "--model", model)
    path = assets / "datasets" / "sums" / "files" / "data" / "test.parquet"
    rows = pl.read_parquet(path)
    rows[3, "answer"] = "77"
    rows.write_parquet(path)
    again, generated = run(settings(), "--model", model)
    assert generated == 0
    assert again.filter(pl.col("item") == 3)["gold"].to_list() == ["77", "77"]


@pytest.mark.parametrize("change", [
    {"temperature": 0.5}, {"top_p": 0.5}, {"top_k": 3}, {"max_new_tokens": 13}, {"seed": 5}, {"dtype": "bfloat16"},
    {"chat": {"template": "{% for m in messages %}{{ m['content'] }}{% endfor %}"}},
    {"protocol": "open-r1", "chat": {"system_prompt": "Think."}},
])  # fmt: skip
def test_another_sampling_template_or_system_prompt(change, settings, tiny_model, run):
    model = tiny_model()
    run(settings(), "--model", model)
    assert run(settings(**change), "--model", model)[1] == 24


# --- prompts as trained


TEMPLATES = {
    "own": None,
    "other": "{{ bos_token or '' }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]<think>\n{% endif %}",
}


@pytest.mark.parametrize("template", TEMPLATES)
def test_the_prompts_bytes_equal_trainings(template, settings, tiny_model, run, tmp_path):
    trl = pytest.importorskip("trl")
    datasets = pytest.importorskip("datasets")
    from openr1_repro.evaluate.generate import load_tokenizer

    messages = [
        [{"role": "system", "content": "Think.\n"}, {"role": "user", "content": f" Wie viel ist {i} × 3? 𝑥"}]
        for i in range(4)
    ]
    pl.DataFrame({"prompt": messages, "problem": ["p"] * 4, "answer": ["1"] * 4}).write_parquet(
        tmp_path / "validation.parquet"
    )
    model = tiny_model()
    chosen = settings(chat={"template": TEMPLATES[template], "system_prompt": "Think.\n"}, max_new_tokens=4)
    rows, _ = run(chosen, "--model", model, "--prompts", tmp_path)
    rows = rows.filter((pl.col("benchmark") == "validation") & (pl.col("sample") == 0)).sort("item")

    tokenizer = load_tokenizer(model / "files")
    tokenizer.chat_template = TEMPLATES[template] or tokenizer.chat_template
    trainer = trl.GRPOTrainer(
        model=str(model / "files"), reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=trl.GRPOConfig(output_dir=str(tmp_path / "out"), use_cpu=True, bf16=False, report_to="none", num_generations=2,
                            per_device_train_batch_size=2),
        train_dataset=datasets.Dataset.from_dict({"prompt": messages}), processing_class=tokenizer,
    )  # fmt: skip
    trained = trainer._tokenize_prompts(messages)[0]
    assert [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in rows["prompt"]] == trained
    assert [tokenizer.decode(ids) for ids in trained] == rows["prompt"].to_list()


def test_a_plain_benchmark_is_asked_as_in_training(settings, tiny_model, run, tmp_path):
    prompt = [{"role": "system", "content": "Think."}, {"role": "user", "content": "What is 0 + 0?"}]
    pl.DataFrame({"prompt": [prompt], "problem": ["p"], "answer": ["0"]}).write_parquet(tmp_path / "validation.parquet")
    chosen = settings(chat={"system_prompt": "Think."}, protocol="open-r1")
    rows, _ = run(chosen, "--model", tiny_model(), "--prompts", tmp_path)
    validation = rows.filter(pl.col("benchmark") == "validation")["prompt"].unique().to_list()
    assert (
        validation == rows.filter((pl.col("benchmark") == "sums") & (pl.col("item") == 0))["prompt"].unique().to_list()
    )


# --- what a batch must not change


def test_a_response_depends_neither_on_padding_nor_on_its_neighbours(settings, tiny_model, run, assets, tmp_path):
    path = assets / "datasets" / "sums" / "files" / "data" / "test.parquet"
    rows = pl.DataFrame([{"problem": "a" * length, "answer": "1"} for length in (1, 60, 7, 33)])
    rows.write_parquet(path)
    model = tiny_model()
    together, _ = run(settings(temperature=0, samples=1), "--model", model, work=tmp_path / "1")
    alone, _ = run(settings(temperature=0, samples=1, batch_size=1), "--model", model, work=tmp_path / "2")
    assert texts(together) == texts(alone)


def test_the_end_of_the_text_ends_it(settings, tiny_model, run):
    model = tiny_model()
    path = model / "files" / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": list(range(0, 250)), "temperature": 0.01, "top_k": 1}))
    rows, _ = run(settings(), "--model", model)
    assert rows["num_tokens"].mean() < 3
    assert rows.filter(pl.col("finish_reason") == "stop").height > 20
    assert rows["text"].n_unique() > 5  # the model's own top_k does not rule


def test_the_token_limit_yields_to_the_models_positions_and_never_to_the_prompt(settings, tiny_model, run):
    rows, _ = run(settings(max_new_tokens=500), "--model", tiny_model(positions=64))
    assert rows["num_tokens"].max() <= 64 - 16
    assert rows["prompt"].str.starts_with("<|user|>What is").all()


# --- every checkpoint of a run


@pytest.fixture
def training(tiny_model, tmp_path):
    folder = tmp_path / "training"
    for step in (10, 5):
        shutil.copytree(tiny_model(seed=step) / "files", folder / "checkpoints" / f"step-{step}")
    (folder / "checkpoints.json").write_text(
        json.dumps([{"name": f"step-{s}", "step": s, "sha256": ""} for s in (10, 5)])
    )
    return folder


def test_every_checkpoint_by_step(settings, training, run):
    rows, generated = run(settings(), "--training", training)
    assert generated == 48
    assert rows["model"].unique(maintain_order=True).to_list() == ["step-5", "step-10"]
    by_model = rows.partition_by("model", as_dict=True)
    assert texts(by_model["step-5",]) != texts(by_model["step-10",])


def test_the_warm_start_comes_before_the_checkpoints(settings, training, tiny_model, run):
    rows, generated = run(settings(), "--training", training, "--warm-start", tiny_model(seed=3))
    assert generated == 72
    assert rows["model"].unique(maintain_order=True).to_list() == ["warm-start", "step-5", "step-10"]


# --- bad input


def test_a_checkpoint_that_does_not_load_keeps_what_was_finished(settings, training, run):
    weights = training / "checkpoints" / "step-10" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="step-10: transformers cannot load this model"):
        run(settings(), "--training", training)
    weights.write_bytes(whole)
    assert run(settings(), "--training", training)[1] == 24  # step-5 was kept


@pytest.mark.parametrize(("break_it", "message"), [
    (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer cannot be loaded"),
    (lambda folder: (folder / "model.safetensors").unlink(), "no weights"),
    (lambda folder: (folder / "config.json").write_text("{}"), "cannot"),
])  # fmt: skip
def test_a_damaged_model(break_it, message, settings, tiny_model, run):
    model = tiny_model()
    break_it(model / "files")
    with pytest.raises(UserError, match=message):
        run(settings(), "--model", model)


def test_a_tokenizer_without_template(settings, tiny_model, run):
    model = tiny_model(template=None)
    with pytest.raises(UserError, match="no chat template; set chat.template"):
        run(settings(), "--model", model)
    assert run(settings(chat={"template": "{{ messages[-1]['content'] }}"}), "--model", model)[1] == 24


def test_a_prompt_that_does_not_fit(settings, tiny_model, run):
    with pytest.raises(UserError, match="leaves no room in the model's 8 positions"):
        run(settings(), "--model", tiny_model(positions=8))


@pytest.mark.parametrize(("benchmark", "message"), [
    ({"problem_column": "question"}, r"sums.yaml: no column 'question' in .*it has 'problem', 'answer'"),
    ({"gold": "{{ solution }}"}, r"sums.yaml: prompt or gold: 'solution' is undefined"),
    ({"prompt": "{{ problem"}, r"sums.yaml: prompt or gold is not Jinja"),
    ({"files": "*.csv"}, r"sums.yaml: files: '\*.csv' matches no"),
    ({"dataset": "absent"}, r"sums.yaml: files"),
])  # fmt: skip
def test_a_benchmark_that_does_not_fit_its_data(benchmark, message, settings, tiny_model, run):
    with pytest.raises(UserError, match=message):
        run(settings(benchmarks={"sums": {"dataset": "sums"} | benchmark}), "--model", tiny_model())


def test_a_null_problem_is_named(settings, tiny_model, run, assets):
    path = assets / "datasets" / "sums" / "files" / "data" / "test.parquet"
    rows = pl.read_parquet(path)
    rows[3, "problem"] = None
    rows.write_parquet(path)
    with pytest.raises(UserError, match="row 3: problem must be text"):
        run(settings(), "--model", tiny_model())


def test_no_checkpoints(settings, run, tmp_path):
    (tmp_path / "checkpoints.json").write_text("[]")
    with pytest.raises(UserError, match="no checkpoint; let training save one"):
        run(settings(), "--training", tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_kill_nine_loses_no_finished_batch(settings, tiny_model, run, assets, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "workflow"))
    model = tiny_model()
    chosen = settings(samples=40, max_new_tokens=60, batch_size=12)
    expected, _ = run(chosen, "--model", model, work=tmp_path / "unbroken")
    command = [sys.executable, "-m", "openr1_repro.evaluate.generate", "--settings", chosen, "--assets", assets]
    command += ["--model", model, "--cache", tmp_path / "killed", "--output", tmp_path / "x.parquet"]
    kills = 0
    while not (tmp_path / "x.parquet").exists():
        process = subprocess.Popen(list(map(str, command)), start_new_session=True)
        before = sum(path.stat().st_size for path in (tmp_path / "killed").rglob("*.jsonl")) if kills else 0
        while process.poll() is None and kills < 2:
            time.sleep(0.02)
            if sum(path.stat().st_size for path in (tmp_path / "killed").rglob("*.jsonl")) > before + 3000:
                os.killpg(process.pid, signal.SIGKILL)
                kills += 1
                break
        assert process.wait() in (0, -signal.SIGKILL)
    assert kills == 2
    assert pl.read_parquet(tmp_path / "x.parquet").equals(expected)


def test_two_jobs_at_once_with_the_same_weights_generate_everything_once(
    settings, tiny_model, assets, tmp_path, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2] / "workflow"))
    model = tiny_model()
    command = [
        sys.executable,
        "-m",
        "openr1_repro.evaluate.generate",
        "--assets",
        assets,
        "--model",
        model,
        "--cache",
        tmp_path / "cache",
    ]
    jobs = [(settings(samples=3), tmp_path / "3.parquet"), (settings(samples=4), tmp_path / "4.parquet")]
    running = [
        subprocess.Popen(
            list(map(str, [*command, "--settings", chosen, "--output", output])), stdout=subprocess.PIPE, text=True
        )
        for chosen, output in jobs
    ]
    said = [process.communicate(timeout=240)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    few, many = (pl.read_parquet(output) for _, output in jobs)
    assert (few.height, many.height) == (36, 48)
    assert texts(few).items() <= texts(many).items()
    (file,) = (tmp_path / "cache").iterdir()
    assert len(file.read_text().splitlines()) == 48


# --- vLLM's side that needs no vLLM (the rest: test_vllm_engine.py)


@pytest.mark.parametrize(("leased", "size", "groups"), [
    ("0", 1, ["0"]), ("3,5", 1, ["3", "5"]), ("0,1,2,3", 2, ["0,1", "2,3"]), ("0,1,2", 2, ["0,1"]),
    ("GPU-a, GPU-b", 1, ["GPU-a", "GPU-b"]), ("", 1, [""]),
])  # fmt: skip
def test_leased_gpus_make_engines(leased, size, groups, monkeypatch):
    from openr1_repro.evaluate.vllm_engine import gpu_groups

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", leased)
    assert gpu_groups(size) == groups


def test_too_few_gpus_for_one_engine(monkeypatch):
    from openr1_repro.evaluate.vllm_engine import gpu_groups

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match="tensor_parallel_size × pipeline_parallel_size is 2, but 1 GPU"):
        gpu_groups(2)


def test_every_request_has_a_seed_of_its_own():
    from openr1_repro.evaluate import vllm_engine
    from openr1_repro.evaluate.protocol import Sampling
    from openr1_repro.evaluate.responses import Request
    from openr1_repro.evaluate.settings import EvaluateSettings

    sampling = Sampling(temperature=1, top_p=1, top_k=0, max_new_tokens=1, stop=[])
    requests = [Request(b, i, s, "p", sampling) for b in "ab" for i in range(20) for s in range(5)]
    planned = vllm_engine.plan(requests, EvaluateSettings(benchmarks=["a"]))
    assert len({request.seed for request in planned}) == 200
    few = vllm_engine.plan(requests[:7], EvaluateSettings(benchmarks=["a"]))
    assert {r.seed for r in few} < {r.seed for r in planned}  # whatever else is asked
