"""The stage from files to files: what it writes, what it refuses, and that cores do not matter."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from openr1_repro.stage import UserError

from .conftest import World, row

FAST = {"answer": {"parse": False}}


def sums(count: int) -> list[dict]:
    return [row(f"Solve $x + {n} = {2 * n}$.", str(n)) for n in range(count)]


def test_runs_and_explains_itself(world: World) -> None:
    world.dataset([*sums(20), row("What?", None), row(None)])
    result = world.run(
        benchmarks=world.benchmark("aime", ["Solve  $x+3=6$"]), validation=4, chat={"system_prompt": "Think."}
    )
    assert (len(result.train), len(result.validation)) == (15, 4)
    assert result.step("empty answer")["dropped"] == result.step("contamination")["dropped"] == 1
    (example,) = result.step("contamination")["examples"]
    assert example == {
        "uuid": "r3", "source": "olympiads", "row": 3, "problem": "Solve $x + 3 = 6$.", "answer": "3",
        "reason": "aime: item 0: equal to it",
    }  # fmt: skip
    for split in (result.train, result.validation):
        for r in split.iter_rows(named=True):
            assert r["prompt"] == [{"role": "system", "content": "Think."}, {"role": "user", "content": r["problem"]}]
            assert r["solution"] == f"We see it is {r['answer']}." and r["source"] == "olympiads"
    columns = ["prompt", "problem", "solution", "answer", "uuid", "source", "problem_type", "prompt_tokens"]
    assert result.train.columns == columns
    assert {p.name for p in result.folder.iterdir()} == {
        "train.parquet", "validation.parquet", "dropped.parquet", "funnel.json", "card.html",
    }  # fmt: skip
    steps = result.funnel["steps"]
    assert all(a["rows_out"] == b["rows_in"] for a, b in itertools.pairwise(steps))
    assert len(result.dropped) + 19 == 22


def test_reads_whole_files_from_the_command_line(world: World, tmp_path: Path) -> None:
    world.dataset(sums(5))
    done = world.command(tmp_path / "out", **FAST)
    assert done.returncode == 0, done.stderr
    assert "5 to train on" in done.stdout
    done = world.command(tmp_path / "out", seed="x", sample={"sise": 3})
    assert done.returncode == 1
    assert "prepare.seed" in done.stderr and "prepare.sample.sise" in done.stderr and "Traceback" not in done.stderr


def test_bytes_do_not_depend_on_cores(world: World, tmp_path: Path) -> None:
    rows = sums(300) + [
        row(f"A farmer counts {n % 40} sheep on {'his' if n % 2 else 'the'} farm every single day.", str(n % 40))
        for n in range(300)
    ]
    world.dataset(rows[:250], file="data/a.parquet")
    world.dataset(rows[250:], file="data/b.parquet")
    settings = json.dumps(world.settings(validation=20, sample={"size": 200, "stratify": "source"}, verified_trace={}))
    digests = []
    for threads in ("1", "2"):
        output = tmp_path / f"threads{threads}"
        command = [
            sys.executable,
            "-m",
            "openr1_repro.prepare",
            "--settings",
            settings,
            "--assets",
            str(world.assets),
            "--output",
            str(output),
        ]
        limits = {
            "POLARS_MAX_THREADS": threads,
            "RAYON_NUM_THREADS": threads,
            "PYTHONHASHSEED": threads,
            "PYTHONPATH": "workflow",
        }
        subprocess.run(command, env=os.environ | limits, check=True, capture_output=True)
        digests.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in output.iterdir()})
    assert digests[0] == digests[1]


def test_no_long_column_is_read(world: World) -> None:
    path = world.dataset(sums(4))
    table = pq.read_table(path)
    broken = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(table.column_names.index("generations"))
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    path.write_bytes(
        broken[:start] + b"\xff" * chunk.total_compressed_size + broken[start + chunk.total_compressed_size :]
    )
    assert len(world.run(**FAST).train) == 4


def refused(world: World, **settings: object) -> str:
    before = sorted(world.root.rglob("*"))
    with pytest.raises(UserError) as error:
        world.run(**(FAST | settings))
    assert sorted(world.root.rglob("*")) == before, "something was written"
    return str(error.value)


def test_truncated_file(world: World) -> None:
    path = world.dataset(sums(50))
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{path}: not a whole parquet file" in refused(world)


def test_damaged_page(world: World) -> None:
    path = world.dataset(sums(50))
    data = bytearray(path.read_bytes())
    data[4:60] = b"\xff" * 56
    path.write_bytes(data)
    assert str(path) in refused(world)


def test_missing_column(world: World) -> None:
    path = world.dataset(sums(3))
    pq.write_table(pq.read_table(path).drop_columns(["answer"]), path)
    message = refused(world)
    assert f"{path}: no column 'answer'" in message and "problem" in message and "columns" in message
    world.dataset(sums(3))
    assert "no column 'verification_info'" in refused(world, keep_columns=["verification_info"])


def test_other_type(world: World) -> None:
    path = world.dataset(sums(3))
    table = pq.read_table(path)
    index = table.column_names.index("answer")
    pq.write_table(table.set_column(index, "answer", pa.array([1, 2, 3])), path)
    assert f"{path}: column 'answer' is Int64, not text" in refused(world)
    index = table.column_names.index("correctness_math_verify")
    pq.write_table(table.set_column(index, "correctness_math_verify", pa.array(["yes"] * 3)), path)
    assert "'correctness_math_verify' is String, not lists of booleans" in refused(world, verified_trace={})


def test_invalid_utf8(world: World) -> None:
    path = world.dataset(sums(5))
    table = pq.read_table(path)
    bad = pa.array([b"fine", b"fine", b"caf\xe9", b"fine", b"fine"]).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("problem"), "problem", bad), path)
    message = refused(world)
    assert f"{path}: row 2: column 'problem' is not valid UTF-8" in message and "0xe9" in message


def test_invalid_utf8_in_a_late_column(world: World) -> None:
    path = world.dataset(sums(5))
    table = pq.read_table(path)
    bad = pa.array([b"fine", b"fine", b"fine", b"caf\xe9", b"fine"]).view(pa.string())
    pq.write_table(table.set_column(table.column_names.index("solution"), "solution", bad), path)
    assert f"{path}: row 3: column 'solution' is not valid UTF-8" in refused(world)


def test_huge_text(world: World) -> None:
    path = world.dataset([*sums(2), row("x" * 50_000_000)])
    assert f"{path}: row 2: column 'problem' holds 50,000,000 characters" in refused(world)


def test_lists_of_different_lengths(world: World) -> None:
    path = world.dataset([*sums(2), row("Find 1.", is_reasoning_complete=[True])])
    assert (
        f"{path}: row 2: columns correctness_math_verify, correctness_llama, is_reasoning_complete differ"
        in refused(world, verified_trace={})
    )


def test_no_rows_left_names_the_filter(world: World) -> None:
    world.dataset(sums(3))
    message = refused(world, sources=["aops"])
    assert "prepare.sources: no row is left after 'source' dropped 3" in message and "olympiads" in message


def test_no_rows_at_all(world: World) -> None:
    path = world.dataset([])
    assert f"{path}: no rows" in refused(world)
    path.unlink()
    assert "no file matches" in refused(world)


def test_validation_takes_everything(world: World) -> None:
    world.dataset(sums(3))
    assert "prepare.validation: 3 rows to hold back, 3 are left" in refused(world, validation=3)


def test_a_failed_run_leaves_the_old_output(world: World) -> None:
    world.dataset(sums(3))
    before = world.run(**FAST)
    refused(world, sources=["aops"])
    assert pl.read_parquet(before.folder / "train.parquet").equals(before.train)


def test_benchmark_without_column(world: World) -> None:
    world.dataset(sums(3))
    benchmarks = world.benchmark("aime", ["x"])
    benchmarks["aime"]["problem_column"] = "Question"
    assert "no column 'Question' (it has: problem)" in refused(world, benchmarks=benchmarks)


def test_twins_do_not_cross_the_split(world: World) -> None:
    texts = [
        f"A farmer counts {n} sheep on {w} farm every single day of the long and cold winter in the north."
        for n in range(40)
        for w in ("the", "his")
    ]
    world.dataset([row(t, str(i)) for i, t in enumerate(texts)])  # answers differ, so all are kept
    result = world.run(validation=11, near_duplicates={"threshold": 0.6}, **FAST)
    assert len(result.validation) == 10  # whole pairs only
    numbers = [set(split["problem"].str.extract(r"(\d+)")) for split in (result.train, result.validation)]
    assert not numbers[0] & numbers[1]


def test_mixture_and_columns(world: World) -> None:
    world.dataset(sums(100))
    path = world.dataset([row(f"Count {n} sheep.", str(n)) for n in range(50)], name="sheep")
    pq.write_table(pq.read_table(path).select(["problem", "answer"]).rename_columns(["question", "final"]), path)
    parts = [
        {"asset": "openr1", "weight": 0.25},
        {"asset": "sheep", "columns": {"problem": "question", "answer": "final"}},
    ]
    result = world.run(datasets=parts, **FAST)
    sheep = result.train.filter(pl.col("problem").str.contains("sheep"))
    assert (len(result.train), len(sheep)) == (75, 50)
    assert sheep["solution"].null_count() == 50 and sheep["uuid"].n_unique() == 50


def test_types_and_sources(world: World) -> None:
    """Values that are listed stay; null in the list stands for rows without a value."""
    types, sources = ["Algebra", "Geometry", None], ["olympiads", "aops_forum", None]
    world.dataset([row(f"Count {n} sheep.", problem_type=types[n % 3], source=sources[n // 3]) for n in range(9)])
    assert world.run(problem_types=["Algebra"], **FAST).uuids == {"r0", "r3", "r6"}
    assert world.run(problem_types=["Geometry", None], sources=[None], **FAST).uuids == {"r7", "r8"}
    result = world.run(sources=["olympiads"], **FAST)
    assert result.step("source")["reasons"] == {"aops_forum": 3, "none": 3}


def test_at_least_so_many_right_traces(world: World) -> None:
    said = [([True, True], None), ([True, False], [False, True]), ([True, False], None), ([False, False], [True, True])]
    world.dataset([
        row(f"Count {n} sheep.", correctness_math_verify=verify, correctness_llama=llama, is_reasoning_complete=[n != 3, True])
        for n, (verify, llama) in enumerate(said)
    ])  # fmt: skip
    assert world.run(verified_trace={"min": 2}, **FAST).uuids == {"r0", "r1"}
    assert world.run(verified_trace={"min": 2, "complete": False}, **FAST).uuids == {"r0", "r1", "r3"}
    assert world.run(verified_trace={"columns": ["correctness_llama"]}, **FAST).uuids == {"r1", "r3"}


def test_text_in_other_encodings(world: World) -> None:
    """As a dictionary (pandas' categories), as large strings, and a column of nulls."""
    path = world.dataset(sums(4))
    table = pq.read_table(path)
    for name, values in {
        "problem": table["problem"].dictionary_encode(), "source": table["source"].dictionary_encode(),
        "solution": table["solution"].cast(pa.large_string()), "problem_type": pa.nulls(4),
    }.items():  # fmt: skip
        table = table.set_column(table.column_names.index(name), name, values)
    pq.write_table(table, path)
    train = world.run(**FAST).train
    assert sorted(train["problem"]) == sorted(r["problem"] for r in sums(4))
    assert train["solution"].null_count() == 0 and train["problem_type"].null_count() == 4
    assert set(train["source"]) == {"olympiads"}


def test_every_row_finds_its_long_columns_again(world: World) -> None:
    """More rows than a row group of the output, out of several files, in random order."""
    for file in range(3):
        rows = [row(f"Count {n} sheep.", str(n), correctness_count=n) for n in range(file, 12_000, 3)]
        world.dataset([r | {"uuid": f"u{r['answer']}"} for r in rows], file=f"data/{file}.parquet")
    kept = ["correctness_count", "messages", "uuid"]
    train = world.run(keep_columns=kept, near_duplicates=None, max_prompt_tokens=None, **FAST).train
    number = pl.col("answer")
    assert train.height == 12_000
    assert train.select((pl.format("Count {} sheep.", number) == pl.col("problem")).all()).item()
    assert train.select((pl.format("We see it is {}.", number) == pl.col("solution")).all()).item()
    assert train.select((pl.format("u{}", number) == pl.col("uuid")).all()).item()
    assert train.select((number.cast(pl.Int64) == pl.col("correctness_count")).all()).item()
    assert train["messages"].list.first().struct.field("content").equals(train["problem"])


def test_kept_columns_of_several_types(world: World) -> None:
    paths = [world.dataset([row(f"Count {n} {name}.", uuid=f"{name}{n}") for n in range(3)], name) for name in "ab"]
    table = pq.read_table(paths[1])
    index = table.column_names.index("correctness_count")
    pq.write_table(table.set_column(index, "correctness_count", pa.array([1.5, None, 2.5])), paths[1])
    parts = {"datasets": [{"asset": "a"}, {"asset": "b"}], "keep_columns": ["correctness_count"]}
    train = world.run(**parts, **FAST).train.sort("uuid")
    assert train["correctness_count"].to_list() == [1.0, 1.0, 1.0, 1.5, None, 2.5]
    pq.write_table(table.set_column(index, "correctness_count", pa.array([["one"]] * 3)), paths[1])
    message = refused(world, **parts)
    assert f"{paths[1]}: column 'correctness_count' is List(String), elsewhere Int64" in message
    assert "prepare.keep_columns" in message


def test_draws_do_not_move_when_rows_are_added(world: World) -> None:
    world.dataset(sums(60))
    before = world.run(sample={"size": 30}, **FAST).train["uuid"].to_list()
    world.dataset([*sums(60), row("Count 3 sheep.")])
    after = world.run(sample={"size": 30}, **FAST).train["uuid"].to_list()
    assert len(set(before) - set(after)) <= 1
    assert [u for u in after if u in before] == [u for u in before if u in after]
    assert set(world.run(sample={"size": 30}, seed=7, **FAST).train["uuid"]) != set(after)


def test_sampling_stratified_and_top(world: World) -> None:
    world.dataset([row(f"Count {n} sheep.", source="a" if n % 4 else "b", correctness_count=n) for n in range(80)])
    result = world.run(sample={"size": 20, "stratify": "source"}, contradictions=False, **FAST)
    assert result.funnel["sources"] == {"a": 15, "b": 5}
    result = world.run(sample={"size": 20, "order": "correctness_count"}, contradictions=False, **FAST)
    assert result.uuids == {f"r{n}" for n in range(60, 80)}


def test_pass_rates(world: World, tmp_path: Path) -> None:
    world.dataset(sums(6))
    rates = pl.DataFrame({"uuid": ["r0", "r1", "r2", "r3"], "rate": [0.0, 0.5, 1.0, 0.25], "k": [8] * 4})
    rates.write_parquet(tmp_path / "rates.parquet")
    result = world.run(pass_rate={"k": 8}, pass_rates=tmp_path / "rates.parquet", **FAST)
    assert result.uuids == {"r1", "r3"}
    reasons = {"not sampled": 2, "solved too rarely": 1, "solved too often": 1}
    assert result.step("pass rate")["reasons"] == reasons
    with pytest.raises(UserError, match="give --pass-rates"):
        world.run(pass_rate={"k": 8}, **FAST)


def test_every_filter_can_be_off(world: World) -> None:
    problem = "As shown in the figure, (A) 1 (B) 2 (C) 3."
    world.dataset([row(problem, "proof"), row(problem, "4"), row(problem, "4")])
    result = world.run(
        benchmarks=world.benchmark("aime", [problem]), self_contained=False, choices="keep", answer=None, contradictions=False,
        exact_duplicates=False, contamination=None, near_duplicates=None, max_prompt_tokens=None,
    )  # fmt: skip
    assert len(result.train) == 3 and result.train["prompt_tokens"].null_count() == 3


def test_card_is_whole_and_escapes(world: World) -> None:
    world.dataset([*sums(5), row("<script>alert(1)</script> & in the figure")])
    card = (world.run(**FAST).folder / "card.html").read_text()
    assert "<script" not in card and "http" not in card.replace("http://www.w3.org", "") and "&lt;script&gt;" in card
    open_tags: list[str] = []

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attrs: object) -> None:
            open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

        def handle_startendtag(self, tag: str, attrs: object) -> None:
            pass

    Check().feed(card)
    assert not open_tags
    parts = ["Rows left after every filter", "Prompt, tokens", "Problem, characters", "Rows of every source"]
    assert all(part in card for part in [*parts, "Kept, for example", "self-contained: 1 (needs a figure 1)"])
