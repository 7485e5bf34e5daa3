"""The report as its command writes it: numbers, headline, errors. What a browser makes of it: test_page.py."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from results_tree import report, run_command, write_results

ROOT = Path(__file__).parents[2]
# Small and few: what is tested is what is said, not how well 9,999 resamples fill an interval.
SMALL = {"sums": 30, "champ": 12}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    folder = tmp_path_factory.mktemp("two")
    settings = write_results(folder, {"learns": 0.5, "does-not": 0.0}, SMALL)
    settings["published"] = str(ROOT / "config" / "published.yaml")
    return folder / "report", settings, report(folder, settings)[1]


def test_writes_all_four_files_and_says_the_headline(written):
    output, _, said = written
    assert sorted(p.name for p in output.iterdir()) == ["REPORT.md", "index.html", "metrics.csv", "summary.json"]
    lines = said.splitlines()
    assert lines[0] == f"report: {output / 'index.html'}"
    assert lines[1].startswith("learns, sums: ")
    assert "95 % interval" in lines[1]
    assert "no difference shown" not in lines[1]
    assert lines[2].endswith(": no difference shown")
    assert run_command("--show", str(output)) == (0, said, "")


def test_no_difference_shown_stands_wherever_such_a_gain_stands(written):
    output, _, _ = written
    summary = json.loads((output / "summary.json").read_text())
    html, text = (output / "index.html").read_text(), (output / "REPORT.md").read_text()
    variants = summary["scores"]["variants"]
    unshown = [
        model["difference"]
        for result in variants.values()
        for name, benchmark in result["benchmarks"].items()
        for model in benchmark["models"].values()
        if model["difference"] and not model["difference"]["different"]
    ]
    assert unshown
    pairs = sum(not c["difference"]["different"] for c in summary["scores"]["comparisons"])
    headlines = sum(not result["headline"]["difference"]["different"] for result in variants.values())
    in_results = sum(
        not benchmark["models"][result["checkpoint"]]["difference"]["different"]
        for result in variants.values()
        for name, benchmark in result["benchmarks"].items()
        if name != "validation"
    )
    # headline, table of results, table of pairs, tables of checkpoints
    assert html.count('class="none"') == headlines + in_results + pairs + len(unshown)
    assert text.count("no difference shown") == headlines + pairs + len(unshown)


def test_what_grpo_added_to_a_supervised_start_is_told_apart(tmp_path):
    settings = write_results(tmp_path, {"both": 0.9, "plain": 0.6}, SMALL, warm_started=["both"])
    said = report(tmp_path, settings)[1].splitlines()
    scores = json.loads((tmp_path / "report" / "summary.json").read_text())["scores"]["variants"]
    models = scores["both"]["benchmarks"]["sums"]["models"]
    assert list(models)[:2] == ["base", "warm-start"]
    part = scores["both"]["headline"]["from_warm_start"]
    assert part["difference"] == pytest.approx(
        models[scores["both"]["checkpoint"]]["avg"] - models["warm-start"]["avg"]
    )
    assert scores["both"]["checkpoint"] != "warm-start"
    assert f"; of these by GRPO {100 * part['difference']:+.1f} (" in said[1]
    assert scores["plain"]["headline"]["from_warm_start"] is None
    assert "by GRPO" not in said[2]
    html = (tmp_path / "report" / "index.html").read_text()
    assert html.count("Of these by GRPO") == 1
    assert "| sums | warm-start |" in (tmp_path / "report" / "REPORT.md").read_text()


def test_a_warm_start_that_was_not_scored_is_missed(tmp_path):
    settings = write_results(tmp_path, {"alone": 0.5}, SMALL)
    settings["variants"]["alone"]["config"]["train"]["warm_start"] = {"max_examples": 64}
    status, _, said = report(tmp_path, settings, check=False)
    assert status == 1
    assert "no scores of warm-start; rerun the evaluate stage" in said


def test_scores_are_means_of_the_samples_and_the_checkpoint_is_chosen_on_validation(written):
    output, settings, _ = written
    result = json.loads((output / "summary.json").read_text())["scores"]["variants"]["learns"]
    files = settings["variants"]["learns"]
    scores = pl.concat([pl.read_parquet(files["base_scores"]), pl.read_parquet(files["scores"])])
    means = {(m, b): v for m, b, v in scores.group_by("model", "benchmark").agg(pl.col("score").mean()).iter_rows()}
    for name, benchmark in result["benchmarks"].items():
        for model, row in benchmark["models"].items():
            assert row["avg"] == pytest.approx(means[model, name])
            assert row["low"] <= row["avg"] <= row["high"]
    checkpoints = [model for model, name in means if name == "validation" and model != "base"]
    assert result["checkpoint"] == max(checkpoints, key=lambda model: means[model, "validation"])
    assert "held-out" in result["why"]
    trained = means[result["checkpoint"], "sums"] - means["base", "sums"]
    assert result["headline"]["difference"]["difference"] == pytest.approx(trained)


def test_the_same_scores_give_the_same_summary_and_csv(written, tmp_path):
    output, settings, _ = written
    report(tmp_path, settings)
    again = tmp_path / "report"
    first, second = (json.loads((o / "summary.json").read_text())["scores"] for o in (output, again))
    assert json.dumps(first) == json.dumps(second)
    assert (output / "metrics.csv").read_bytes() == (again / "metrics.csv").read_bytes()
    assert (output / "REPORT.md").read_bytes() == (again / "REPORT.md").read_bytes()


def test_csv_has_every_model_benchmark_and_measure(written):
    output, _, _ = written
    rows = list(csv.DictReader((output / "metrics.csv").open()))
    assert {row["variant"] for row in rows} == {"learns", "does-not"}
    assert {row["benchmark"] for row in rows} == {"sums", "champ", "validation"}
    assert {row["metric"] for row in rows} >= {"avg", "pass@1", "pass@4", "maj", "truncated", "difference", "p_holm"}
    assert {row["model"] for row in rows if row["chosen"] == "1"} <= {"step-25", "step-50", "step-75", "step-100"}


def test_page_is_small_and_holds_the_provenance(written):
    output, _, _ = written
    html = (output / "index.html").read_text()
    assert len(html.encode()) < 2_000_000
    for text in ("0123456789abcdef0123456789abcdef01234567", "ab" * 32, "openr1-repro/tiny", "sdpa", "lighteval"):
        assert text in html


def test_configs_are_compared_key_by_key(written):
    html = (written[0] / "index.html").read_text()
    section = html[html.index("What their configs set differently") : html.index('<section id="benchmarks"')]
    assert "train.learning_rate" in section
    assert "train.rewards" not in section


def test_one_variant_has_no_comparison(tmp_path):
    settings = write_results(tmp_path, {"alone": 0.3}, {"sums": 10})
    report(tmp_path, settings)
    assert 'id="variants"' not in (tmp_path / "report" / "index.html").read_text()
    assert json.loads((tmp_path / "report" / "summary.json").read_text())["scores"]["comparisons"] == []


def test_published_numbers_stand_apart_and_enter_no_statistic(tmp_path):
    settings = write_results(tmp_path, {"alone": 0.3}, {"sums": 10})
    published = tmp_path / "published.yaml"
    published.write_text("- {model: M, source: S, protocol: greedy, scores: {sums: 98.7}}\n")
    report(tmp_path, {**settings, "published": str(published)})
    html = (tmp_path / "report" / "index.html").read_text()
    assert "98.7" in html[html.index("Published elsewhere") :]
    assert "98.7" not in html[: html.index("Published elsewhere")]
    assert "98.7" not in (tmp_path / "report" / "summary.json").read_text()


def test_without_validation_the_last_checkpoint_is_taken_and_the_report_says_so(tmp_path):
    settings = write_results(tmp_path, {"alone": 0.3}, {"sums": 10})
    for key in ("scores", "base_scores"):
        path = settings["variants"]["alone"][key]
        pl.read_parquet(path).filter(pl.col("benchmark") != "validation").write_parquet(path)
    report(tmp_path, settings)
    result = json.loads((tmp_path / "report" / "summary.json").read_text())["scores"]["variants"]["alone"]
    assert result["checkpoint"] == "step-100"
    assert "no held-out prompts" in result["why"]


def test_orphans_of_an_older_save_steps_are_left_out(tmp_path):
    settings = write_results(tmp_path, {"alone": 0.3}, {"sums": 10})
    path = Path(settings["variants"]["alone"]["training"]) / "checkpoints.json"
    path.write_text(json.dumps([c for c in json.loads(path.read_text()) if c["step"] in (50, 100)]))
    report(tmp_path, settings)
    assert "step-25" not in (tmp_path / "report" / "index.html").read_text()


def _cut_log(files: dict[str, Any]) -> None:
    path = Path(files["training"]) / "log.jsonl"
    path.write_text(path.read_text()[:-20])


def _drop_sample(files: dict[str, Any]) -> None:
    frame = pl.read_parquet(files["scores"])
    frame.slice(1).write_parquet(files["scores"])


def _other_problems(files: dict[str, Any]) -> None:
    frame = pl.read_parquet(files["base_scores"])
    frame.with_columns(pl.col("item") + 1).write_parquet(files["base_scores"])


def _no_checkpoint_scores(files: dict[str, Any]) -> None:
    frame = pl.read_parquet(files["scores"])
    frame.filter(pl.col("model") != "step-75").write_parquet(files["scores"])


def _truncated_parquet(files: dict[str, Any]) -> None:
    path = Path(files["scores"])
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (_cut_log, "log.jsonl:100: not JSON"),
        (_drop_sample, "scores.parquet: step-25 on sums: problems with 3 and with 4 samples"),
        (_other_problems, "step-25 on sums: the two have not answered the same problems"),
        (_no_checkpoint_scores, "no scores of step-75"),
        (_truncated_parquet, "scores.parquet: cannot be read"),
        (lambda files: Path(files["funnel"]).unlink(), "funnel.json: missing"),
        (lambda files: Path(files["assets"]["tiny"]).write_text("{"), "not valid JSON"),
    ],
)
def test_damaged_input_is_named_and_the_old_report_stays(tmp_path, damage, says):
    settings = write_results(tmp_path, {"alone": 0.3}, {"sums": 4})
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "index.html").write_text("old")
    damage(settings["variants"]["alone"])
    status, _, errors = report(tmp_path, settings, check=False)
    assert status == 1
    assert says in errors
    assert [p.read_text() for p in (tmp_path / "report").iterdir()] == ["old"]


def test_as_a_command_it_explains_itself_and_leaves_no_traceback(tmp_path):
    command = [sys.executable, "-m", "openr1_repro.report", "--settings", "{}", "--output", str(tmp_path / "report")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "workflow")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "error: --settings: variants: Field required\n")
