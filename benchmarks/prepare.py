"""The prepare stage on data of OpenR1-Math-220k's schema, size and lengths, and its decontamination beside open-r1's own.

    python benchmarks/prepare.py                       # all: data (7 GB in a temporary folder), decontamination, funnel, four sizes, answers
    python benchmarks/prepare.py decontaminate funnel  # some

open-r1's ``scripts/decontaminate.py`` runs from the checkout that ``OPEN_R1_CHECKOUT`` names, with the Python that ``TRAIN_PYTHON`` names
(it needs the datasets library); without them the row has no peer.
"""

import argparse
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from common import write_row

ROOT = Path(__file__).parents[1]
ROWS = 225_000
GENERATION_CHARS = 11_000  # of each of two generations: 5 GB in 225,000 rows
BENCHMARKS = {"aime24": 30, "aime25": 30, "math_500": 500, "gpqa": 198, "lcb": 400}
STEMS = [
    "the",
    "of",
    "a",
    "and",
    "is",
    "that",
    "in",
    "to",
    "for",
    "let",
    "find",
    "be",
    "with",
    "if",
    "on",
    "are",
    "number",
    "by",
    "such",
    "each",
    "from",
    "at",
    "has",
    "it",
    "points",
    "triangle",
    "as",
    "all",
    "real",
    "positive",
    "circle",
    "can",
    "integer",
    "sum",
    "value",
    "which",
    "two",
    "line",
    "function",
    "numbers",
    "one",
    "integers",
    "many",
    "there",
    "angle",
    "an",
    "area",
    "equation",
    "first",
    "plane",
    "sides",
    "then",
    "where",
    "given",
    "what",
    "how",
    "side",
    "point",
    "their",
    "have",
    "segment",
    "least",
    "maximum",
    "probability",
    "between",
    "when",
    "than",
    "length",
    "square",
    "prime",
    "ball",
    "people",
    "total",
    "sequence",
    "set",
    "polynomial",
    "root",
    "distance",
    "divided",
    "product",
]


def words_of(rng: np.random.Generator) -> tuple[list[str], np.ndarray]:
    """A vocabulary of 8,000 words with the frequencies of English mathematics: a head of real words, a long tail of made-up ones."""
    letters = list("abcdefghijklmnopqrstuvwxyz")
    tail = ["".join(rng.choice(letters, rng.integers(4, 11))) for _ in range(8_000 - len(STEMS))]
    weight = 1 / np.arange(1, 8_001) ** 0.9
    return STEMS + tail, weight / weight.sum()


def make_problems(count: int, rng: np.random.Generator) -> list[str]:
    """Problems of about 45 words (250 characters), a sixth of them formulas."""
    vocabulary, weight = words_of(np.random.default_rng(0))
    lengths = np.clip(rng.lognormal(3.6, 0.6, count).astype(int), 6, 400)
    picks = rng.choice(len(vocabulary), lengths.sum(), p=weight)
    numbers = rng.integers(1, 200, (lengths.sum(), 2))
    formula = rng.integers(0, 36, lengths.sum())
    shapes = ("${}$", "$x^{{{}}}+{}$", "$\\frac{{{}}}{{{}}}$", "$AB={}$", "{}", "$a_{{{}}}={}$")
    texts, start = [], 0
    for n in lengths.tolist():
        parts = []
        for i in range(start, start + n):
            kind = formula[i]
            parts.append(shapes[kind].format(*numbers[i].tolist()) if kind < 6 else vocabulary[picks[i]])
        texts.append(" ".join(parts).capitalize() + ".")
        start += n
    return texts


def spoil(problems: list[str], answers: list[str], benchmarks: dict[str, list[str]], rng: random.Random) -> None:
    """Give problems what real ones have: copies, near copies, labels, choices, missing figures, benchmark items."""
    items = [p for texts in benchmarks.values() for p in texts]
    for i in range(1, len(problems)):
        draw = rng.random()
        if draw < 0.09:
            original = rng.randrange(i)
            problems[i] = problems[original]
            if draw > 0.03:
                words = problems[i].split()
                words[rng.randrange(len(words))] = "given"
                problems[i] = " ".join(words)
            if rng.random() < 0.9:
                answers[i] = answers[original]
        elif draw < 0.14:
            problems[i] = f"{rng.randrange(1, 40)}. {problems[i]}"
        elif draw < 0.17:
            problems[i] += " As shown in the figure, find the area."
        elif draw < 0.25:
            problems[i] += " (A) 1 (B) 2 (C) 3 (D) 4"
        elif draw < 0.253:
            problems[i] = f"{problems[i][:60]} {rng.choice(items)}"


def make_answers(count: int, rng: random.Random) -> list[str]:
    """Answers in the shares of OpenR1-Math: mostly integers, then fractions, LaTeX, intervals, words."""

    def answer() -> str:
        a, b, draw = rng.randrange(1, 3000), rng.randrange(2, 90), rng.random()
        if draw < 0.55:
            return str(a)
        if draw < 0.65:
            return f"\\frac{{{a}}}{{{b}}}"
        if draw < 0.75:
            return f"{a}\\sqrt{{{b}}}"
        if draw < 0.82:
            return f"({a}, {b})"
        if draw < 0.88:
            return f"x = {a}, y = \\frac{{{b}}}{{7}}"
        if draw < 0.93:
            return f"{a}x^2 + {b}x - {a % 17}"
        if draw < 0.96:
            return f"{a}.{b} \\mathrm{{~cm}}"
        return rng.choice(["proof", "A", "\\text{even}", f"[{a}, \\infty)", f"2^{{{b}}} - {a}"])

    return [answer() for _ in range(count)]


def write_dataset(folder: Path, rows: int, benchmarks: dict[str, list[str]], generation_chars: int, seed: int) -> None:
    """Parquet files of 22,500 rows as the hub has them: snappy, row groups of 1,000."""
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    blob = " ".join(make_problems(40_000, np.random.default_rng(1)))
    folder.mkdir(parents=True)

    def piece(chars: int) -> str:
        start = rng.randrange(len(blob) - 4 * chars)
        return blob[start : start + int(chars * rng.uniform(0.3, 1.7))]

    problems, answers = make_problems(rows, numbers), make_answers(rows, rng)
    spoil(problems, answers, benchmarks, rng)
    per_file = 22_500
    for file in range(0, rows, per_file):
        path = folder / f"train-{seed}-{file // per_file:05d}.parquet"
        with pq.ParquetWriter(path, SCHEMA, compression="snappy") as writer:
            for start in range(file, min(file + per_file, rows), 1_000):
                stop = min(start + 1_000, file + per_file, rows)
                n = stop - start
                right = [[rng.random() < 0.75, rng.random() < 0.75] for _ in range(n)]
                columns = {
                    "problem": problems[start:stop],
                    "solution": [piece(1_300) for _ in range(n)],
                    "answer": [a if rng.random() > 0.01 else None for a in answers[start:stop]],
                    "problem_type": rng.choices(["Algebra", "Geometry", "Number Theory", "Combinatorics", None], k=n),
                    "question_type": rng.choices(["math-word-problem", "MCQ", "proof", None], [85, 8, 5, 2], k=n),
                    "source": rng.choices(
                        ["olympiads", "cn_contest", "aops_forum", "amc_aime", "number_theory"], [60, 15, 15, 7, 3], k=n
                    ),
                    "uuid": [f"{seed:08x}-{i:012x}" for i in range(start, stop)],
                    "is_reasoning_complete": [[rng.random() < 0.95, True] for _ in range(n)],
                    "generations": [[piece(generation_chars), piece(generation_chars)] for _ in range(n)],
                    "correctness_math_verify": [r if rng.random() > 0.02 else None for r in right],
                    "correctness_llama": [None if rng.random() < 0.7 else r for r in right],
                    "finish_reasons": [["stop", "stop"]] * n,
                    "correctness_count": [sum(r) for r in right],
                    "messages": [[{"role": "user", "content": p}] for p in problems[start:stop]],
                }
                writer.write_table(pa.table(columns, schema=SCHEMA))


SCHEMA = pa.schema([
    *((c, pa.string()) for c in ("problem", "solution", "answer", "problem_type", "question_type", "source", "uuid")),
    ("is_reasoning_complete", pa.list_(pa.bool_())), ("generations", pa.list_(pa.string())), ("correctness_math_verify", pa.list_(pa.bool_())),
    ("correctness_llama", pa.list_(pa.bool_())), ("finish_reasons", pa.list_(pa.string())), ("correctness_count", pa.int64()),
    ("messages", pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))),
])  # fmt: skip


def write_tokenizer(folder: Path) -> None:
    """A byte-level BPE of 16,000 tokens with the seed's special tokens: what counts for speed is its size and its regular expression."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer(models.BPE())
    split = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # Qwen2's
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"), byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(make_problems(5_000, np.random.default_rng(3)), trainer)
    tokenizer.add_special_tokens([AddedToken(t, special=True) for t in ("<|begin|>", "<|User|>", "<|Assistant|>")])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<|begin|>"}))


def stage_settings(files: list[str], parse: bool) -> dict[str, object]:
    """Every filter on: the seed's chat template and system prompt, five benchmarks."""
    template = (ROOT / "config/templates/deepseek-r1-reasoning.jinja").read_text()
    system = (
        "You are a helpful AI Assistant that provides well-reasoned and detailed responses. You first think about the reasoning process as an internal "
        "monologue and then provide the user with the answer. Respond in the following format: <think>\n...\n</think>\n<answer>\n...\n</answer>"
    )
    return {
        "chat": {"template": template, "system_prompt": system},
        "prepare": {
            "datasets": [{"asset": "openr1", "files": f} for f in files], "question_types": ["math-word-problem", None], "verified_trace": {},
            "answer": {"parse": parse}, "validation": 500,
        },
        "model": "model", "benchmarks": {name: {"dataset": name} for name in BENCHMARKS},
    }  # fmt: skip


class Data:
    """The assets of one benchmark run, made as they are asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.assets = root, root / "assets"
        self.benchmarks = {
            name: make_problems(count, np.random.default_rng(100 + i))
            for i, (name, count) in enumerate(BENCHMARKS.items())
        }
        for name, problems in self.benchmarks.items():
            folder = self.assets / "datasets" / name / "files"
            folder.mkdir(parents=True, exist_ok=True)
            pl.DataFrame({"problem": problems}).write_ndjson(folder / "test.jsonl")
        write_tokenizer(self.assets / "models/model/files")

    def rows(self, folder: str, rows: int, generation_chars: int, seed: int) -> Path:
        path = self.assets / "datasets/openr1/files" / folder
        if not path.exists():
            start = time.perf_counter()
            write_dataset(path, rows, self.benchmarks, generation_chars, seed)
            size = sum(f.stat().st_size for f in path.iterdir()) / 2**30
            print(f"made {rows:,} rows, {size:.2f} GiB, in {time.perf_counter() - start:.0f} s", flush=True)
        return path

    def funnel(
        self, files: list[str], parse: bool = False, cache: Path | None = None
    ) -> tuple[float, float, float, str]:
        """Seconds, CPU seconds, peak GiB and output of one run of the stage's command."""
        settings = self.root / "settings.json"
        settings.write_text(json.dumps(stage_settings(files, parse)))
        command = [
            sys.executable,
            "-c",
            MEASURE,
            "-m",
            "openr1_repro.prepare",
            "--settings",
            f"@{settings}",
            "--assets",
            str(self.assets),
        ]
        command += ["--output", str(self.root / "prompts"), *(["--cache", str(cache)] if cache else [])]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        seconds, cpu, peak = map(float, done.stderr.splitlines()[-1].split())
        return seconds, cpu, peak, done.stdout


MEASURE = """
import resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.run([sys.executable, *sys.argv[1:]]).returncode
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(time.perf_counter() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20, file=sys.stderr)
sys.exit(code)
"""

# Runs open-r1's script as it is, with its data sets handed over and its upload left out; prints the seconds from the first look at the data to the last.
PEER = """
import json, os, runpy, sys, time
import datasets
datasets.disable_caching(); datasets.disable_progress_bars()
script, rows, folder, output = sys.argv[1:5]
names = {"HuggingFaceH4/aime_2024": "aime24", "yentinglin/aime_2025": "aime25", "HuggingFaceH4/MATH-500": "math_500", "Idavidrein/gpqa": "gpqa",
         "livecodebench/code_generation_lite": "lcb"}
columns = {"gpqa": "Question", "lcb": "question_content"}
def load(path, *args, **kwargs):
    if path == "rows":
        return datasets.Dataset.from_parquet(rows)
    key = names[path]
    problems = [json.loads(line)["problem"] for line in open(os.path.join(folder, key, "files", "test.jsonl"))]
    return datasets.Dataset.from_dict({columns.get(key, "problem"): problems})
datasets.load_dataset = load
plain_map = datasets.Dataset.map
datasets.Dataset.map = lambda self, function, num_proc=None: plain_map(self, function, num_proc=len(os.sched_getaffinity(0)))  # it says 8
datasets.Dataset.push_to_hub = lambda self, *a, **k: self.to_parquet(output) and None
load("rows"); [load(n) for n in names]
sys.argv = [script, "--dataset", "rows"]
start = time.perf_counter()
runpy.run_path(script, run_name="__main__")
print("SECONDS", time.perf_counter() - start)
"""


def decontaminate(data: Data) -> None:
    """The same step on the same 25,000 rows, in turn: ours, open-r1's."""
    from openr1_repro.prepare.contamination import Benchmarks
    from openr1_repro.prepare.settings import Contamination
    from openr1_repro.prepare.text import normal_form

    path = data.root / "problems.parquet"
    problems = pl.read_parquet(
        data.rows("main", ROWS, GENERATION_CHARS, 7) / "train-7-0000[01].parquet", columns=["problem"]
    )[:25_000]
    problems.write_parquet(path)
    checkout, python = os.environ.get("OPEN_R1_CHECKOUT"), os.environ.get("TRAIN_PYTHON", sys.executable)
    ours: list[float] = []
    full: list[float] = []
    peer: list[float] = []
    for _ in range(3):
        for times, settings in ((ours, Contamination(containment_chars=None)), (full, Contamination())):
            start = time.perf_counter()
            rows = problems
            if settings.containment_chars:  # in the funnel the normal form is there anyway; here it counts
                rows = problems.with_columns(normal_form(pl.col("problem")).alias("normal"))
            known = Benchmarks(data.benchmarks, settings)
            verdicts = pl.concat([known.find(batch) for batch in rows.iter_slices(10_000)])  # as the funnel does
            times.append(time.perf_counter() - start)
            if not settings.containment_chars:
                found = verdicts.is_not_null()
        if checkout:
            command = [
                python,
                "-c",
                PEER,
                f"{checkout}/scripts/decontaminate.py",
                str(path),
                str(data.assets / "datasets"),
                str(data.root / "peer.parquet"),
            ]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            peer.append(float(re.search(r"SECONDS (\S+)", done.stdout).group(1)))
            theirs = (
                pl.read_parquet(data.root / "peer.parquet").select(pl.any_horizontal(r"^contaminated_.*$")).to_series()
            )
            assert (theirs == found).all(), "our verdicts differ from open-r1's"
            print(f"{theirs.sum()} of {len(theirs):,} rows contaminated, the same as open-r1's")
    rate = [len(problems) / statistics.median(times) for times in (ours, full, peer) if times]
    theirs_rate = rate[2] if checkout else None
    write_row(
        "prepare.decontaminate",
        "rows/s",
        rate[0],
        "open-r1 decontaminate.py" if checkout else None,
        theirs_rate,
        rows=len(problems),
    )
    write_row(
        "prepare.decontaminate_with_containment",
        "rows/s",
        rate[1],
        "open-r1 decontaminate.py" if checkout else None,
        theirs_rate,
        rows=len(problems),
    )


def funnel(data: Data) -> None:
    """The whole command, without math-verify, on 225,000 rows."""
    data.rows("main", ROWS, GENERATION_CHARS, 7)
    runs = [data.funnel(["main/*"]) for _ in range(3)]
    print(runs[0][3])
    seconds, cpu = (statistics.median(r[i] for r in runs) for i in (0, 1))
    load = os.getloadavg()[0]  # of a machine that others use too; CPU seconds say what the work costs
    write_row("prepare.funnel_seconds", "s", seconds, "goal", 60.0, False, rows=ROWS, cpu_seconds=cpu, load=load)
    write_row("prepare.funnel_peak", "GiB", max(r[2] for r in runs), "goal", 2.0, False, rows=ROWS)


def sizes(data: Data) -> None:
    """CPU seconds a million rows at four sizes; linear if they agree. The generations of these rows are short: nothing reads them."""
    per_million = {}
    for rows in (25_000, 75_000, 225_000, 900_000):
        data.rows(f"size{rows}", rows, 500, rows)
        seconds, cpu, peak, _ = data.funnel([f"size{rows}/*"])
        per_million[rows] = cpu / rows * 1e6
        write_row(
            f"prepare.size_{rows}",
            "CPU s",
            cpu,
            rows=rows,
            seconds=seconds,
            cpu_seconds_per_million=per_million[rows],
            peak_gib=peak,
        )
    print("CPU seconds a million rows:", {rows: round(s, 1) for rows, s in per_million.items()})


def answers(data: Data) -> None:
    """Reading all distinct answers of 225,000 rows: cold, then from the cache. Plain numbers are not read by math-verify."""
    from openr1_repro.prepare.answers import canonical_answers, canonical_plain

    files = data.rows("main", ROWS, GENERATION_CHARS, 7)
    distinct = pl.read_parquet(files / "*.parquet", columns=["answer"])["answer"].drop_nulls().unique().sort().to_list()
    counts = {"answers": len(distinct), "read_by_math_verify": sum(canonical_plain(a) is None for a in distinct)}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "cached"):
            start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
            canonical_answers(distinct, 10.0, Path(cache))
            seconds, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
            rate = len(distinct) / seconds
            write_row(f"prepare.answers_{name}", "answers/s", rate, seconds=seconds, workers_cpu_seconds=cpu, **counts)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "workflow"))
    parts = {f.__name__: f for f in (decontaminate, funnel, sizes, answers)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", choices=[*parts, []], help="default: all")
    parser.add_argument(
        "--folder", type=Path, help="keep the data here, and use what is there; default: a temporary folder"
    )
    arguments = parser.parse_args()
    sys.argv[1:] = arguments.parts  # the rows' command, without a folder of this machine
    with tempfile.TemporaryDirectory() as temporary:
        data = Data(arguments.folder or Path(temporary))
        for name in arguments.parts or parts:
            parts[name](data)
