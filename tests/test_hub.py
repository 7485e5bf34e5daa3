"""The embedded hub: its answers are right, its dirt is there, its model is small, and it can be rebuilt."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import jinja2
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from math_verify import parse, verify
from tokenizers import Tokenizer

ROOT = Path(__file__).parents[1]
HUB = ROOT / "workflow/resources/hub"
MODEL = HUB / "models/embedded--tiny-math-1m"
TRAINING = "datasets/embedded--openr1-math-tiny/data/train-00000-of-00001.parquet"
BENCHMARK = "datasets/embedded--tiny-math-bench/data/test-00000-of-00001.parquet"


def solve(problem: str) -> int:
    """The answer, from the words alone."""
    words = " ".join(problem.lower().split())
    first, second = map(int, re.findall(r"\d+", words))
    if re.search(r"\\times|product|boxes of|shelves|a day for", words):
        return first * second
    if "away from" in words:
        return second - first
    if re.search(r"\$\d+ - \d+\$|difference|lost|sells", words):
        return first - second
    assert re.search(r"\$\d+ \+ \d+\$|sum|more|add|box", words), problem
    return first + second


def normal(text: str) -> str:
    words = " ".join(re.sub(r"([.?])", r" \1 ", text.casefold()).split())
    return words.removeprefix("question: ").removesuffix(" thanks!")


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return pq.read_table(HUB / TRAINING).to_pylist()


@pytest.fixture(scope="module")
def benchmark() -> list[dict]:
    return pq.read_table(HUB / BENCHMARK).to_pylist()


@pytest.fixture(scope="module")
def leaked(rows, benchmark) -> set[int]:
    tests = [normal(test["problem"]) for test in benchmark]
    problems = [normal(row["problem"] or "") for row in rows]
    return {index for index, problem in enumerate(problems) if any(test in problem for test in tests)}


@pytest.fixture(scope="module")
def clean(rows, leaked) -> list[dict]:
    """Rows that a careful reader would train on: posed in words, whole, verified, not contradicted, not leaked."""
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(normal(row["problem"] or ""), set()).add(row["answer"])
    return [
        row
        for index, row in enumerate(rows)
        if index not in leaked
        and (row["problem"] or "").strip()
        and row["solution"]
        and (row["answer"] or "").isdigit()
        and row["question_type"] == "math-word-problem"
        and "figure" not in row["problem"]
        and len(row["problem"].split()) < 100
        and row["correctness_count"] > 0
        and len(answers[normal(row["problem"])]) == 1
    ]


def test_answers_are_right(clean, benchmark):
    assert len({normal(row["problem"]) for row in clean}) >= 4000
    assert len(benchmark) >= 200
    for row in [*clean, *benchmark]:
        assert solve(row["problem"]) == int(row["answer"]), row["problem"]
    assert len({test["problem"] for test in benchmark}) == len(benchmark)


def test_gold_answers_and_solutions_parse_to_the_answer(clean, benchmark):
    for row in [*clean[::20], *benchmark[::4]]:
        for text in (f"${row['answer']}$", row["solution"]):
            assert verify(parse(row["answer"]), parse(text, extraction_mode="first_match")), text


def test_no_clean_problem_has_the_numbers_of_a_benchmark_problem(clean, benchmark):
    def key(row: dict) -> tuple:
        return (*sorted(map(int, re.findall(r"\d+", row["problem"]))), row["answer"])

    assert not {key(row) for row in clean} & {key(test) for test in benchmark}


def test_shared_8_grams_mean_a_copied_problem(clean, benchmark):
    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.lower().split()
        return {tuple(words[i : i + 8]) for i in range(len(words) - 7)}

    tests = set().union(*(grams(test["problem"]) for test in benchmark))
    assert all(grams(test["problem"]) for test in benchmark)
    assert not any(grams(row["problem"]) & tests for row in clean)


def test_schema_is_that_of_openr1_math():
    assert pq.read_schema(HUB / TRAINING).remove_metadata() == pa.schema(
        {
            "problem": pa.string(),
            "solution": pa.string(),
            "answer": pa.string(),
            "problem_type": pa.string(),
            "question_type": pa.string(),
            "source": pa.string(),
            "uuid": pa.string(),
            "is_reasoning_complete": pa.list_(pa.bool_()),
            "generations": pa.list_(pa.string()),
            "correctness_math_verify": pa.list_(pa.bool_()),
            "correctness_llama": pa.list_(pa.bool_()),
            "finish_reasons": pa.list_(pa.string()),
            "correctness_count": pa.int64(),
            "messages": pa.list_(pa.struct({"content": pa.string(), "role": pa.string()})),
        }
    )


def test_every_kind_of_dirt_is_there(rows, leaked):
    exact = Counter(row["problem"] for row in rows if row["problem"])
    near = Counter(normal(row["problem"]) for row in rows if row["problem"])
    answers: dict[str, set[str]] = {}
    for row in rows:
        answers.setdefault(row["problem"] or "", set()).add(row["answer"])
    found = {
        "null problem": sum(row["problem"] is None for row in rows),
        "empty problem": sum(row["problem"] is not None and not row["problem"].strip() for row in rows),
        "null lists": sum(row["correctness_math_verify"] is None for row in rows),
        "null generations": sum(row["generations"] is None for row in rows),
        "null answer": sum(row["answer"] is None for row in rows),
        "null solution": sum(row["solution"] is None for row in rows),
        "null type": sum(row["question_type"] is None for row in rows),
        "exact duplicates": sum(count - 1 for count in exact.values()),
        "near duplicates": len(exact) - len(near),
        "contradictory answers": sum(len(found) > 1 for problem, found in answers.items() if problem.strip()),
        "proofs": sum(row["question_type"] == "proof" for row in rows),
        "multiple choice": sum(row["question_type"] == "MCQ" for row in rows),
        "multiple choice, mislabelled": sum(
            row["answer"] in set("ABCD") and row["question_type"] == "math-word-problem"
            for row in rows
            if row["answer"]
        ),
        "unverified traces": sum(row["correctness_count"] == 0 for row in rows),
        "incomplete reasoning": sum(not any(row["is_reasoning_complete"]) for row in rows),
        "over-long prompts": sum(len((row["problem"] or "").split()) > 400 for row in rows),
        "figures": sum("figure" in (row["problem"] or "") for row in rows),
        "leaked benchmark problems": len(leaked),
    }
    assert {kind: count for kind, count in found.items() if count < 10} == {}, found
    vague = {row["answer"] for row in rows if row["answer"] and not re.fullmatch(r"\d+|[A-D]|proof", row["answer"])}
    assert vague
    assert not any(parse(f"${answer}$") and parse(answer) for answer in vague), vague


def test_traces_are_marked_as_what_they_are(rows):
    """A row's verified flags agree with its generations, by the answer in their box."""
    for row in rows:
        if row["generations"] is None or row["correctness_math_verify"] is None or not (row["answer"] or "").isdigit():
            continue
        boxed = [re.findall(r"\\boxed\{(\d+)\}", text) == [row["answer"]] for text in row["generations"]]
        assert boxed == row["correctness_math_verify"], row
        assert sum(boxed) == row["correctness_count"]


def test_data_are_rebuilt_to_the_byte(tmp_path):
    script = ROOT / "workflow/scripts/build_hub"
    subprocess.run([sys.executable, script, "data", "--hub", tmp_path], check=True)
    for path in (TRAINING, BENCHMARK):
        assert (tmp_path / path).read_bytes() == (HUB / path).read_bytes(), path


def test_model_is_small_and_complete():
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["Qwen2ForCausalLM"]
    with open(MODEL / "model.safetensors", "rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    shapes = [tensor["shape"] for name, tensor in header.items() if name != "__metadata__"]
    assert sum(shape[0] * (shape[1] if len(shape) == 2 else 1) for shape in shapes) <= 3_000_000
    assert (MODEL / "model.safetensors").stat().st_size <= 8_000_000
    assert {"README.md", "generation_config.json", "chat_template.jinja", "tokenizer.json"} <= {
        p.name for p in MODEL.iterdir()
    }
    assert sum(path.stat().st_size for path in HUB.rglob("*") if path.is_file()) < 10_000_000


TEXTS = [
    "<think>\nColumns:\n  47+38\n\n</think>\n<answer>\n\\boxed{85}\n</answer>",
    " a  b\n\n c\t d \n",
    "What is $\\frac{1}{2} + 3^{10}$?",
    "数学 é ∑ 🙂",
]


def test_tokenizer_keeps_every_character(rows):
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    for text in TEXTS + [row["problem"] for row in rows[:300] if row["problem"]]:
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=True) == text


def test_chat_template_keeps_the_reasoning_and_prefills_nothing():
    template = jinja2.Environment().from_string((MODEL / "chat_template.jinja").read_text())
    config = json.loads((MODEL / "tokenizer_config.json").read_text())
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1 + 1?"}]
    prompt = template.render(messages=messages, add_generation_prompt=True, bos_token=config["bos_token"])
    assert prompt == "<｜begin▁of▁sentence｜>Be brief.<｜User｜>1 + 1?<｜Assistant｜>"
    reply = {"role": "assistant", "content": TEXTS[0]}
    text = template.render(messages=[*messages, reply], bos_token=config["bos_token"])
    assert text == f"{prompt}{TEXTS[0]}<｜end▁of▁sentence｜>"
    tokens = tokenizer.encode(text, add_special_tokens=False).tokens
    assert tokens[0] == config["bos_token"]
    assert tokens[-1] == config["eos_token"]
    assert {"<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"} <= set(tokens)


@pytest.mark.train_env
def test_transformers_loads_the_same_tokenizer_and_model():
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    raw = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    for text in TEXTS:
        ids = tokenizer(text).input_ids
        assert ids == raw.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL)
    assert model.dtype == torch.float32
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert len(tokenizer) == model.config.vocab_size


@pytest.mark.slow
@pytest.mark.train_env
def test_model_build_runs_and_repeats(tmp_path):
    pytest.importorskip("torch")
    script = ROOT / "workflow/scripts/build_hub"
    for name in ("one", "two"):
        command = [sys.executable, script, "model", "--steps", "4", "--hub", tmp_path / name]
        subprocess.run(command, check=True)
    paths = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()]
    assert Path("models/embedded--tiny-math-1m/model.safetensors") in paths
    for path in paths:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes(), path
