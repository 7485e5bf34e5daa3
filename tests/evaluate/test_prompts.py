"""The definitions in config/benchmarks say the same as the lighteval tasks they name."""

import importlib
import random
from pathlib import Path

import polars as pl
import pytest
import yaml
from openr1_repro.evaluate.problems import load_problems
from openr1_repro.evaluate.settings import BenchmarkSettings, EvaluateSettings, StageSettings

CONFIG = Path(__file__).parents[2] / "config" / "benchmarks"
DEFINITIONS = {path.stem: yaml.safe_load(path.read_text()) for path in sorted(CONFIG.glob("*.yaml"))}

ROWS = {
    "aime24": {"problem": "Find $x$ if {x} = 3.", "answer": "003", "solution": "so"},
    "math-500": {"problem": "What is $1+1$?", "answer": "2", "solution": "It is $\\boxed{2}$."},
    "gsm8k": {"question": "Tom has 2 apples.", "answer": "He has 2.\n#### 2"},
    "gpqa-diamond": {
        "Question": " Which? \n", "Correct Answer": "this\n", "Incorrect Answer 1": "a", "Incorrect Answer 2": " b",
        "Incorrect Answer 3": "c",
    },
}  # fmt: skip
ROWS["aime25"] = ROWS["aime24"]
OLYMPIAD = {"question": "Find all $n$.", "final_answer": ["$2$", "$3$"], "subject": "Math", "language": "English"}


def problem_of(name, row, tmp_path, protocol="open-r1"):
    """The row as the only problem of the named benchmark."""
    definition = BenchmarkSettings.model_validate(DEFINITIONS[name] | {"dataset": "d", "files": "*.parquet"})
    folder = tmp_path / "datasets" / "d" / "files"
    folder.mkdir(parents=True, exist_ok=True)
    pl.DataFrame([row]).write_parquet(folder / "rows.parquet")
    settings = StageSettings(
        evaluate=EvaluateSettings(benchmarks=[name], protocol=protocol), benchmarks={name: definition}
    )
    (problem,) = load_problems(settings, tmp_path)
    return problem


@pytest.mark.parametrize("name", DEFINITIONS)
def test_every_definition_is_valid(name):
    definition = BenchmarkSettings.model_validate(DEFINITIONS[name])
    assert definition.description
    assert definition.lighteval or definition.prompt == "{{ problem }}" or definition.deviations


@pytest.mark.lighteval_env
@pytest.mark.parametrize(("name", "module", "function"), [
    ("aime24", "aime", "aime_prompt"), ("aime25", "aime", "aime_prompt"), ("math-500", "math_500", "math_500_prompt"),
    ("gsm8k", "gsm8k", "gsm8k_prompt"),
])  # fmt: skip
def test_prompt_and_gold_are_lightevals(name, module, function, tmp_path):
    task = pytest.importorskip(f"lighteval.tasks.tasks.{module}")
    doc = getattr(task, function)(ROWS[name], "task")
    problem = problem_of(name, ROWS[name], tmp_path)
    assert problem.messages[-1]["content"] == doc.query
    assert [problem.gold] == doc.get_golds()


@pytest.mark.lighteval_env
@pytest.mark.parametrize(("answer_type", "several", "unit"), [
    ("Numerical", False, None), ("Expression", False, "cm"), ("Numerical", True, None), ("Tuple", False, None),
    ("Numerical,Expression", True, None), ("Equation,Equation", True, "m"), ("Need_human_evaluate", True, None),
])  # fmt: skip
def test_olympiad_prompt_is_lightevals(answer_type, several, unit, tmp_path):
    task = pytest.importorskip("lighteval.tasks.tasks.olympiade_bench")
    row = OLYMPIAD | {"answer_type": answer_type, "is_multiple_answer": several, "unit": unit}
    doc = task.olympiad_bench_prompt(row, "olympiad_bench:OE_TO_maths_en_COMP")
    problem = problem_of("olympiadbench", row, tmp_path)
    assert problem.messages[-1]["content"] == doc.query
    assert problem.gold == "$2$, $3$"


@pytest.mark.lighteval_env
def test_gpqa_prompt_is_lightevals_but_for_the_order(tmp_path):
    task = pytest.importorskip("lighteval.tasks.tasks.gpqa")
    problem = problem_of("gpqa-diamond", ROWS["gpqa-diamond"], tmp_path)
    prompts = set()
    for seed in range(200):
        random.seed(seed)
        # lighteval keeps the order of the wrong options; put ours, in our order, around the right one
        ours = [line[3:] for line in problem.messages[-1]["content"].splitlines()[-4:]]
        wrong = [option for option in ours if option != "this"]
        row = ROWS["gpqa-diamond"] | {f"Incorrect Answer {i + 1}": text for i, text in enumerate(wrong)}
        doc = task.gpqa_instruct_prompt(row, "task")
        prompts.add((doc.query, doc.get_golds()[0]))
    assert (problem.messages[-1]["content"], problem.gold) in prompts


@pytest.mark.lighteval_env
@pytest.mark.parametrize("name", [name for name in DEFINITIONS if DEFINITIONS[name].get("lighteval")])
def test_metric_is_the_tasks_own_or_the_deviation_is_named(name):
    pytest.importorskip("lighteval")
    metrics = importlib.import_module("lighteval.metrics.metrics").Metrics
    modules = {"aime24": "aime", "aime25": "aime", "math-500": "math_500", "gsm8k": "gsm8k", "gpqa-diamond": "gpqa"}
    metrics[DEFINITIONS[name]["metric"]]
    if name == "olympiadbench":
        assert any("pass_at_k_math" in line for line in DEFINITIONS[name]["deviations"])
        return
    module = importlib.import_module(f"lighteval.tasks.tasks.{modules[name]}")
    (task,) = [task for task in module.TASKS_TABLE if task.name == DEFINITIONS[name]["lighteval"]]
    own = metrics[DEFINITIONS[name]["metric"]].value.metric_name
    assert own in [metric.metric_name.split(":")[0] for metric in task.metrics]


def test_choices_are_in_an_order_that_only_the_problem_decides(tmp_path):
    first = problem_of("gpqa-diamond", ROWS["gpqa-diamond"], tmp_path)
    again = problem_of("gpqa-diamond", ROWS["gpqa-diamond"], tmp_path)
    assert first == again
    assert first.messages[-1]["content"].splitlines()["ABCD".index(first.gold) - 4].endswith(") this")
    letters = {
        problem_of("gpqa-diamond", ROWS["gpqa-diamond"] | {"Question": f"q {i}"}, tmp_path).gold for i in range(40)
    }
    assert letters == set("ABCD")


@pytest.mark.parametrize(("protocol", "start", "end"), [
    ("deepseek", "Which", "put your final answer within \\boxed{}."), ("sober", "Solve the following", "Which"),
    ("open-r1", "\nSolve the following", "Which\n"),
])  # fmt: skip
def test_a_protocol_brings_its_prompt(protocol, start, end, tmp_path):
    problem = problem_of("aime24", {"problem": "Which", "answer": "1"}, tmp_path, protocol)
    assert problem.messages[-1]["content"].startswith(start)
    assert problem.messages[-1]["content"].endswith(end)
