"""Scoring by replay gives what lighteval gives, whatever the text, within its limits."""

import dataclasses
import itertools
import json
import sys
import time

import polars as pl
import pytest
from openr1_repro.evaluate import score
from openr1_repro.stage import UserError

pytestmark = pytest.mark.timeout(1800)  # importing lighteval alone is 20 s on an idle machine

# golds, answers that mean the same, answers that do not
SHAPES = [
    (r"\frac{1}{2}", ["1/2", "0.5", r"\dfrac12", r"50\%"], ["2", r"\frac{1}{3}", "-0.5"]),
    ("12", ["12", "12.0", "x = 12", r"12\text{ cm}"], ["13", "1.2", "twelve"]),
    (r"x^2+2x+1", ["(x+1)^2", "1+2x+x^2"], ["x^2+2x", "(x-1)^2"]),
    (r"\{1,2\}", [r"\{2,1\}", "1, 2"], [r"\{1,3\}", "1"]),
    (r"(1,2)", ["(1, 2)", r"\left(1,2\right)"], ["(2,1)", "[1,2]"]),
    (r"[0,\infty)", [r"[0, \infty)", r"x \ge 0"], [r"(0,\infty)", r"(-\infty,0]"]),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", [r"\begin{bmatrix}1&2\\3&4\end{bmatrix}"], [r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"]),
    (r"\sqrt{8}", [r"2\sqrt{2}", "2.828427"], [r"\sqrt{7}", "8"]),
    ("3,000", ["3000", r"3{,}000"], ["3", "300"]),
    (r"2\pi", [r"2 \pi", "6.283185"], [r"\pi", "6.28"]),
]  # fmt: skip
FORMS = [
    r"So the answer is $\boxed{%s}$.",
    "The final answer is $%s$. I hope it is correct.",
    "%s",
    r"<answer>\boxed{%s}",
    "$%s$ and \\boxed{",
]


def texts_of(shape):
    gold, right, wrong = shape
    return [form % answer for form, answer in itertools.product(FORMS, [*right, *wrong, gold, "", r"\frac{1", "🙂"])]


def responses(rows):
    """Rows of (benchmark, item, sample, gold, text) as generate writes them."""
    return pl.DataFrame([
        {"model": "base", "benchmark": b, "item": i, "sample": s, "seed": 0, "problem": "p", "gold": gold, "prompt": "p",
         "text": text, "num_tokens": 3, "finish_reason": "stop"}
        for b, i, s, gold, text in rows
    ])  # fmt: skip


@pytest.mark.parametrize(("prompt", "text", "answer"), [
    ("p", "4", "4"),
    ("p", "<think>5</think>4", "4"),
    ("p", "<think>5", ""),
    ("p", "<think>a</think>b<think>c</think>d", "d"),
    ("p", "<think>a</think>b<think>c", ""),
    ("p<think>\n", "5</think>4", "4"),
    ("p<think>\n", "5", ""),
    ("what does <think> mean?", "4", "4"),
    ("p", "", ""),
])  # fmt: skip
def test_only_what_follows_the_reasoning_is_scored(prompt, text, answer):
    assert score.answer_of(prompt, text) == answer


@pytest.mark.parametrize(("frame", "message"), [
    (responses([("b", 0, 0, "1", "1")]).head(0), "no responses"),
    (responses([("b", 0, 0, "1", "1")]).drop("text"), "no column text"),
    (responses([("b", 0, 0, "1", "1"), ("b", 1, 0, "1", "1"), ("b", 1, 1, "1", "1")]), "same number of samples"),
])  # fmt: skip
def test_responses_that_cannot_be_scored(frame, message, tmp_path):
    frame.write_parquet(tmp_path / "responses.parquet")
    with pytest.raises(UserError, match=message):
        score.read_responses(tmp_path / "responses.parquet")


def test_a_responses_file_that_is_not_one(tmp_path):
    (tmp_path / "responses.parquet").write_bytes(b"")
    with pytest.raises(UserError, match="run generate again"):
        score.read_responses(tmp_path / "responses.parquet")


@pytest.fixture
def run(tmp_path, monkeypatch, settings):
    """Scores responses as the command line would: the table, the summary, what was printed."""
    pytest.importorskip("lighteval")

    def call(frame, benchmarks, **evaluate):
        frame.write_parquet(tmp_path / "responses.parquet")
        paths = {name: tmp_path / name for name in ("responses.parquet", "work", "scores.parquet", "scores.json")}
        command = [
            "score",
            "--settings",
            settings(benchmarks=benchmarks, **evaluate),
            "--responses",
            paths["responses.parquet"],
        ]
        command += ["--work", paths["work"], "--output", paths["scores.parquet"], "--summary", paths["scores.json"]]
        monkeypatch.setattr(sys, "argv", [str(part) for part in command])
        score.main()
        return pl.read_parquet(paths["scores.parquet"]), json.loads(paths["scores.json"].read_text())

    return call


def direct_run(rows, metric, num_choices, tmp_path):
    """What stock lighteval says when its own pipeline judges these texts with its own metric: mean, and a value a document."""
    from lighteval.logging.evaluation_tracker import EvaluationTracker
    from lighteval.models.model_output import ModelResponse
    from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
    from lighteval.tasks.lighteval_task import LightevalTaskConfig
    from lighteval.tasks.registry import Registry
    from lighteval.tasks.requests import Doc
    from openr1_repro.evaluate.replay import StoredModel

    items = sorted({row[1] for row in rows})
    golds = {row[1]: row[3] for row in rows}
    data = tmp_path / "direct"
    data.mkdir()
    (data / "test.jsonl").write_text("".join(json.dumps({"gold": golds[item]}) + "\n" for item in items))
    letters = list("ABCD")

    def document(line, task_name):
        if num_choices:
            return Doc(task_name=task_name, query="q", choices=letters, gold_index=letters.index(line["gold"]))
        return Doc(task_name=task_name, query="q", choices=[line["gold"]], gold_index=0)

    class Model(StoredModel):
        def greedy_until(self, docs):
            return [ModelResponse(text=[r[4] for r in rows if r[1] == items[int(doc.id)]]) for doc in docs]

    task = LightevalTaskConfig(
        name="direct", prompt_function=document, hf_repo=str(data), hf_subset="default", hf_avail_splits=["test"],
        evaluation_splits=["test"], metrics=[metric],
    )  # fmt: skip
    stock = Registry.load_all_task_configs
    Registry.load_all_task_configs = staticmethod(lambda **_: {"direct": task})
    try:
        pipeline = Pipeline(
            tasks="direct|0", pipeline_parameters=PipelineParameters(launcher_type=ParallelismManager.CUSTOM),
            evaluation_tracker=EvaluationTracker(output_dir=str(tmp_path / "out")), model=Model("direct", {}),
        )  # fmt: skip
        pipeline.evaluate()
    finally:
        Registry.load_all_task_configs = stock
    details = pipeline.get_details()["direct|0"]
    values = {items[int(detail.doc.id)]: next(iter(detail.metric.values())) for detail in details}
    return next(iter(pipeline.get_results()["results"]["direct:0"].values())), values


@pytest.mark.lighteval_env
def test_replay_equals_a_direct_run_of_lighteval(run, tmp_path):
    from lighteval.metrics.metrics import Metrics

    rows = [
        ("b", item, sample, shape[0], text)
        for item, shape in enumerate(SHAPES)
        for sample, text in enumerate(texts_of(shape)[:30])
    ]
    assert len(rows) >= 200
    scores, summary = run(responses(rows), {"b": {"dataset": "d"}})
    mean, values = direct_run(rows, Metrics.pass_at_k_math(sample_params={"k": 1, "n": 30}), 0, tmp_path)
    ours = dict(scores.group_by("item").agg(pl.col("score").mean()).rows())
    assert ours == pytest.approx(values)
    assert summary["lighteval"]["base"]["b"]["pass@k:k=1&n=30"] == pytest.approx(mean)
    assert scores["score"].mean() == pytest.approx(mean)
    assert 0.2 < mean < 0.8  # the texts tell right from wrong
    assert summary["failures"] == {}
    print(f"{len(rows)} responses, mean {mean:.4f}")


@pytest.mark.lighteval_env
def test_replay_equals_a_direct_run_sample_by_sample(run, tmp_path):
    from lighteval.metrics.metrics import Metrics

    rows = [("b", item, 0, shape[0], text) for shape in SHAPES[:4] for item, text in enumerate(texts_of(shape))]
    rows = [(b, item, 0, gold, text) for item, (b, _, _, gold, text) in enumerate(rows)]
    scores, _ = run(responses(rows), {"b": {"dataset": "d", "metric": "expr_gold_metric"}})
    _, values = direct_run(rows, Metrics.expr_gold_metric.value, 0, tmp_path)
    assert dict(scores.select("item", "score").rows()) == values


@pytest.mark.lighteval_env
def test_multiple_choice_equals_a_direct_run(run, tmp_path):
    from lighteval.metrics.metrics import Metrics

    forms = ["Answer: {}", "The answer is ({}).", "{}", "I think {}) fits", "Answer: {} or D", "none"]
    rows = [("b", item, s, "ABCD"[item % 4], form.format(letter)) for item in range(8)
            for s, (form, letter) in enumerate(itertools.product(forms, "AB"))]  # fmt: skip
    choices = ["right", "wrong 1", "wrong 2", "wrong 3"]
    benchmark = {"dataset": "d", "metric": "gpqa_instruct_pass_at_k", "choices": choices}
    scores, _ = run(responses(rows), {"b": benchmark})
    metric = Metrics.gpqa_instruct_pass_at_k(sample_params={"k": 1, "n": 12})
    _, values = direct_run(rows, metric, 4, tmp_path)
    assert dict(scores.group_by("item").agg(pl.col("score").mean()).rows()) == pytest.approx(values)
    assert scores.filter(pl.col("score") == 1)["extracted"].is_in(list("ABCD")).all()


HOSTILE = [
    r"\boxed{9^{9^{9^{9}}}}",
    r"\boxed{" + "9" * 200_000 + "}",
    r"\boxed{" + r"\frac{1}{" * 3000 + "2" + "}" * 3000 + "}",
    r"$\boxed{1}$ " * 10_000,
    "{" * 100_000,
    r"\boxed{\int_0^1 x^{x^{x^{x}}} \sin(e^{x^x}) dx}",
    r"\boxed{" + "+".join(f"x^{{{i}}}" for i in range(3000)) + "}",
    r"\boxed{(" + "+".join("abcdefghijk") + ")^{400}}",
    r"\boxed{\sum_{n=1}^{10^{12}} n!}",
    r"\boxed{10^{10^{10}}}",
    "\u202e\u0000\ud7ff１２" * 1000,
    r"\boxed{factorial(10**9)}",
]


@pytest.mark.lighteval_env
def test_no_text_can_hang_the_scoring(run):
    rows = [("b", item, 0, "12", text) for item, text in enumerate([*HOSTILE, r"\boxed{12}"])]
    started = time.monotonic()
    scores, summary = run(responses(rows), {"b": {"dataset": "d"}}, score_timeout=3, score_memory=512)
    print(f"{time.monotonic() - started:.0f} s, {summary['failures']}")
    assert scores["score"].to_list() == [0.0] * len(HOSTILE) + [1.0]
    assert time.monotonic() - started < 240


@pytest.mark.lighteval_env
def test_a_verdict_that_ran_out_of_time_or_memory_is_said_to(tmp_path, monkeypatch):
    pytest.importorskip("lighteval")
    from openr1_repro.evaluate import verdicts

    claim = verdicts.Claim("pass_at_k_math", 0, "1", "1")
    hostile = {"spin": "while True: pass", "eat": "x = bytearray(4 << 30)", "die": "import os; os._exit(3)"}
    monkeypatch.setattr(
        verdicts, "judge", lambda c: exec(hostile[c.text]) if c.text in hostile else verdicts.Verdict(1.0, "1")
    )
    claims = [dataclasses.replace(claim, text=text) for text in [*hostile, "1"]]
    found = verdicts.judge_all(claims, tmp_path / "v.jsonl", 2, timeout=1, memory=512)
    failures = [found[c].failure for c in claims]
    assert failures[0] == "timeout"
    assert failures[1].startswith("MemoryError")
    assert failures[2].startswith("worker died")
    assert found[claims[3]] == verdicts.Verdict(1.0, "1")


@pytest.mark.lighteval_env
def test_verdicts_are_kept_and_a_torn_line_is_not_trusted(tmp_path, monkeypatch):
    pytest.importorskip("lighteval")
    from openr1_repro.evaluate import verdicts

    claims = [verdicts.Claim("pass_at_k_math", 0, "1", text) for text in ("1", "2", "3")]
    first = verdicts.judge_all(claims[:2], tmp_path / "v.jsonl", 1, 20, 1024)
    assert [first[c].score for c in claims[:2]] == [1, 0]
    store = tmp_path / "v.jsonl"
    store.write_bytes(store.read_bytes()[:-9])  # a kill in the middle of the last line
    judged = []
    real = verdicts.judge
    log = tmp_path / "judged"
    monkeypatch.setattr(verdicts, "judge", lambda c: (log.open("a").write(c.text), real(c))[1])
    again = verdicts.judge_all(claims, store, 1, 20, 1024)
    judged = sorted(log.read_text())
    assert len(judged) == 2  # the torn one and the new one
    assert again | first == again
    assert len(store.read_text().splitlines()) == 3


@pytest.mark.lighteval_env
@pytest.mark.parametrize(
    ("metric", "message"), [("pass_at_k_maths", "no metric"), ("loglikelihood_acc", "single|judge")]
)
def test_a_metric_that_lighteval_lacks(metric, message, run):
    with pytest.raises(UserError, match=message):
        run(responses([("b", 0, 0, "1", "1")]), {"b": {"dataset": "d", "metric": metric}})


@pytest.mark.lighteval_env
def test_a_benchmark_that_is_not_in_the_settings(run):
    with pytest.raises(UserError, match="'other' is not in --settings"):
        run(responses([("other", 0, 0, "1", "1")]), {"b": {"dataset": "d"}})
