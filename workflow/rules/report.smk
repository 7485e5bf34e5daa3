# One page for all variants of this call, side by side.


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
