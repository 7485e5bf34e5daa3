# One page for all variants of this call, side by side.


def files_of(variant):
    """A variant's files, as the report's settings name them."""
    run, base = f"results/runs/{variant}", f"results/base/{PROJECT.base_key(variant)}"
    return {
        "training": f"{run}/training/log.jsonl",
        "scores": f"{run}/evaluation/scores.parquet",
        "base_scores": f"{base}/evaluation/scores.parquet",
        "responses": f"{run}/evaluation/responses.parquet",
        "base_responses": f"{base}/evaluation/responses.parquet",
        "scoring": f"{run}/evaluation/scores.json",
        "funnel": prompts(variant, "funnel.json"),
    }


def report_settings():
    """Everything the report shows, and where it lies."""
    variants = {}
    for name in PROJECT.variants:
        assets = dict.fromkeys(
            [*PROJECT.assets_of_prompts(name), *PROJECT.assets_of_benchmarks(name)]
        )
        variants[name] = {
            **files_of(name),
            "training": f"results/runs/{name}/training",
            "config": PROJECT.variants[name].model_dump(mode="json"),
            "assets": {asset: manifest(asset) for asset in assets},
        }
    return {
        "variants": variants,
        "benchmarks": {
            name: PROJECT.benchmarks[name].model_dump(mode="json")
            for name in PROJECT.benchmarks_shown()
        },
        "published": "config/published.yaml",
        "locks": {
            name: f"envs/{name}.txt"
            for name in ("workflow", "lighteval", *PROJECT_LOCKS)
        },
        "report": PROJECT.settings.report.model_dump(mode="json"),
    }


rule report:
    input:
        files=[path for name in PROJECT.variants for path in files_of(name).values()],
        assets=[
            path
            for v in report_settings()["variants"].values()
            for path in v["assets"].values()
        ],
        published="config/published.yaml",
        look=[
            "workflow/openr1_repro/report/page.html",
            "workflow/openr1_repro/report/page.css",
        ],
    output:
        page=report(
            "results/report/index.html",
            caption="../report/report.rst",
            category="Report",
        ),
        summary=report(
            "results/report/summary.json",
            caption="../report/summary.rst",
            category="Report",
        ),
        metrics=report(
            "results/report/metrics.csv",
            caption="../report/metrics.rst",
            category="Report",
        ),
        text="results/report/REPORT.md",
    log:
        "logs/report.log",
    params:
        settings=lambda w: json.dumps(report_settings(), ensure_ascii=False),  # variants in the order of the config
        code=code_digest("report.__main__"),
    shell:
        job("workflow", "report")
        + " -m openr1_repro.report --settings {params.settings:q} --output results/report"
