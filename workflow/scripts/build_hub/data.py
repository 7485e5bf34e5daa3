"""The embedded data: a held-out benchmark, and a training set with OpenR1-Math-220k's schema and dirt."""

import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from problems import ITEMS, NAMES, Problem, columns, draw_problem, draw_trace

Row = dict[str, Any]
Operands = tuple[str, int, int]

BENCHMARK_SIZE = 240
TRAINING_SCHEMA = pa.schema(
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
SOURCES = {"+": "tiny_sums", "-": "tiny_differences", "*": "tiny_products"}


def draw_distinct(rng: random.Random, count: int, taken: set[Operands]) -> list[Problem]:
    """``count`` problems whose operands are not in ``taken``; adds theirs to it."""
    problems = []
    while len(problems) < count:
        problem = draw_problem(rng)
        if problem.operands not in taken:
            taken.add(problem.operands)
            problems.append(problem)
    return problems


def draw_benchmark(seed: int) -> list[Problem]:
    """The held-out problems: no training problem, and nothing in the model's pre-training, has their operands."""
    return draw_distinct(random.Random(f"benchmark {seed}"), BENCHMARK_SIZE, set())


def solution_of(problem: Problem) -> str:
    """A model solution, ending in the boxed answer."""
    a, b = max(problem.a, problem.b), min(problem.a, problem.b)
    lines, _ = columns(random.Random(0), problem.op, a, b, slip=0)
    return "Column by column, from the right: " + ", ".join(lines) + f". The answer is $\\boxed{{{problem.answer}}}$."


def training_row(rng: random.Random, problem: Problem) -> Row:
    """A clean row: two generations, the first of them complete and verified; null where the real one often is."""
    right = wrong = None
    while right is None or wrong is None:
        trace, answer = draw_trace(rng, problem)
        if answer != problem.answer:
            wrong = trace
        elif trace.endswith("</answer>"):
            right = trace
    second = rng.choice([right, wrong])
    verified = [True, second is right]
    return {
        "problem": problem.text,
        "solution": solution_of(problem),
        "answer": problem.answer,
        "problem_type": "Arithmetic",
        "question_type": "math-word-problem",
        "source": SOURCES[problem.op],
        "uuid": new_uuid(rng),
        "is_reasoning_complete": [True, second.endswith("</answer>")],
        "generations": [right, second],
        "correctness_math_verify": verified,
        "correctness_llama": verified if rng.random() < 0.2 else None,
        "finish_reasons": ["stop", "stop"] if rng.random() < 0.5 else None,
        "correctness_count": sum(verified),
        "messages": [{"role": "user", "content": problem.text}, {"role": "assistant", "content": right}],
    }


def new_uuid(rng: random.Random) -> str:
    """A random identifier that the seed decides."""
    return str(uuid.UUID(int=rng.getrandbits(128), version=4))


def reword(rng: random.Random, text: str) -> str:
    """The same problem to a reader, other bytes to a computer."""
    changes: list[Callable[[str], str]] = [
        str.upper,
        lambda text: f"  {text.replace(' ', '  ')}\n",
        lambda text: f"Question: {text}",
        lambda text: f"{text} Thanks!",
        lambda text: text.replace(".", " .").replace("?", " ?"),
    ]
    return rng.choice(changes)(text)


def ramble(rng: random.Random) -> str:
    """About 600 words that do not matter."""
    return " ".join(f"{rng.choice(NAMES)} looks at the {rng.choice(ITEMS)}." for _ in range(120))


def with_problem(row: Row, text: str) -> Row:
    """``row`` with its problem reworded, in the messages too."""
    return row | {"problem": text, "messages": [{"role": "user", "content": text}, row["messages"][1]]}


def unverified(rng: random.Random, problem: Problem) -> Row:
    """A row whose generations are all wrong."""
    traces: list[str] = []
    while len(traces) < 2:
        trace, answer = draw_trace(rng, problem)
        if answer != problem.answer:
            traces.append(trace)
    return training_row(rng, problem) | {
        "generations": traces,
        "is_reasoning_complete": [trace.endswith("</answer>") for trace in traces],
        "correctness_math_verify": [False, False],
        "correctness_llama": None,
        "correctness_count": 0,
    }


def incomplete(rng: random.Random, problem: Problem) -> Row:
    """A row whose generations were all cut at the length limit."""
    row = training_row(rng, problem)
    return row | {
        "generations": [trace[: trace.index("\n", 10)] for trace in [row["generations"][0]] * 2],
        "is_reasoning_complete": [False, False],
        "correctness_math_verify": [False, False],
        "correctness_llama": None,
        "finish_reasons": ["length", "length"],
        "correctness_count": 0,
    }


def contradiction(rng: random.Random, problem: Problem) -> list[Row]:
    """The problem twice, once with a wrong answer that its trace agrees with."""
    row = training_row(rng, problem)
    wrong = str(int(problem.answer) + rng.choice([1, 9, 10]))
    trace = f"<think>\nGuess.\n</think>\n<answer>\n\\boxed{{{wrong}}}\n</answer>"
    return [
        row,
        training_row(rng, problem)
        | {
            "answer": wrong,
            "solution": f"The answer is $\\boxed{{{wrong}}}$.",
            "generations": [trace, trace],
            "is_reasoning_complete": [True, True],
            "correctness_math_verify": [True, True],
            "correctness_llama": None,
            "correctness_count": 2,
            "messages": [row["messages"][0], {"role": "assistant", "content": trace}],
        },
    ]


def multiple_choice(rng: random.Random, problem: Problem) -> Row:
    """The problem with four options; the answer is a letter. One in six is labelled as a word problem."""
    right = int(problem.answer)
    options = [right, right + 1, right + 10, right + 11]
    rng.shuffle(options)
    listed = " ".join(f"({letter}) {option}" for letter, option in zip("ABCD", options, strict=True))
    letter = "ABCD"[options.index(right)]
    return with_problem(training_row(rng, problem), f"{problem.text}\n{listed}") | {
        "answer": letter,
        "solution": f"The answer is $\\boxed{{{letter}}}$.",
        "question_type": "MCQ" if rng.random() < 5 / 6 else "math-word-problem",
    }


def proof(rng: random.Random, problem: Problem) -> Row:
    """Something to prove, which has no answer to check."""
    sign = {"+": "+", "-": "-", "*": "\\times"}[problem.op]
    claim = f"${problem.a} {sign} {problem.b} = {problem.answer}$"
    return with_problem(training_row(rng, problem), f"Prove that {claim}.") | {
        "answer": "proof",
        "solution": f"{solution_of(problem).split('. The')[0]}, which proves {claim}.",
        "question_type": "proof",
    }


def draw_training_set(seed: int, benchmark: list[Problem]) -> list[Row]:
    """Clean rows and each kind of dirt, shuffled."""
    rng = random.Random(f"training {seed}")
    taken = {problem.operands for problem in benchmark}

    def some(count: int) -> list[Problem]:
        return draw_distinct(rng, count, taken)

    clean = [training_row(rng, problem) for problem in some(4200)]
    rows = clean.copy()
    # Whole columns missing.
    rows += [training_row(rng, problem) | {"answer": None} for problem in some(40)]
    rows += [training_row(rng, problem) | {"solution": None} for problem in some(30)]
    rows += [training_row(rng, problem) | {"problem": rng.choice([None, "", "  \n"])} for problem in some(60)]
    rows += [training_row(rng, problem) | {"problem_type": None, "question_type": None} for problem in some(20)]
    rows += [training_row(rng, problem) | {"correctness_math_verify": None} for problem in some(60)]
    rows += [training_row(rng, problem) | {"generations": None, "messages": None} for problem in some(20)]
    # The same problem again: to the byte, nearly, or with another answer.
    rows += [row | {"uuid": new_uuid(rng)} for row in rng.sample(clean, 150)]
    rows += [with_problem(row, reword(rng, row["problem"])) | {"uuid": new_uuid(rng)} for row in rng.sample(clean, 150)]
    rows += [row for problem in some(60) for row in contradiction(rng, problem)]
    # Nothing to check an answer against.
    rows += [proof(rng, problem) for problem in some(100)]
    rows += [multiple_choice(rng, problem) for problem in some(120)]
    vague = ["see the solution", "it cannot be determined", "none of these", "?"]
    rows += [training_row(rng, problem) | {"answer": rng.choice(vague), "solution": None} for problem in some(80)]
    # Traces that nobody verified, or that never ended.
    rows += [unverified(rng, problem) for problem in some(300)]
    rows += [incomplete(rng, problem) for problem in some(150)]
    # Problems that cannot be posed: too long, or about a picture.
    for problem in some(60):
        rows.append(with_problem(training_row(rng, problem), f"{ramble(rng)} {problem.text}"))
    for problem in some(60):
        figure = rng.choice(["As shown in the figure. ", "![](https://cdn.example.org/figure.png)\n"])
        rows.append(with_problem(training_row(rng, problem), figure + problem.text))
    # Problems of the benchmark: to the byte, nearly, and inside a longer text.
    leaked = rng.sample(benchmark, 100)
    rows += [training_row(rng, problem) for problem in leaked[:60]]
    for problem in leaked[60:80]:
        rows.append(with_problem(training_row(rng, problem), reword(rng, problem.text)))
    for problem in leaked[80:]:
        text = f"{rng.choice(NAMES)} found this in an old exam. {problem.text} Explain your answer."
        rows.append(with_problem(training_row(rng, problem), text))
    rng.shuffle(rows)
    return rows


def write_data(hub: Path, seed: int) -> None:
    """Write both data sets under ``hub/datasets``; the same seed gives the same bytes."""
    benchmark = draw_benchmark(seed)
    rows = draw_training_set(seed, benchmark)
    write_parquet(
        pa.Table.from_pylist(rows, TRAINING_SCHEMA),
        hub / "datasets/embedded--openr1-math-tiny/data/train-00000-of-00001.parquet",
    )
    tests = [
        {
            "problem": problem.text,
            "solution": solution_of(problem),
            "answer": problem.answer,
            "subject": SOURCES[problem.op],
            "level": 1 if max(problem.a, problem.b) < 100 else 2,
            "unique_id": f"test/{index}",
        }
        for index, problem in enumerate(benchmark)
    ]
    write_parquet(
        pa.Table.from_pylist(tests), hub / "datasets/embedded--tiny-math-bench/data/test-00000-of-00001.parquet"
    )


def write_parquet(table: pa.Table, path: Path) -> None:
    """Write a table small, and the same to the byte for the same table and pyarrow."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="zstd", compression_level=9)
