# Models, data sets and benchmarks, from whichever source answers, into results/assets.


rule download:
    output:
        "results/assets/{kind}/{asset}/manifest.json",
    log:
        "logs/download/{kind}/{asset}.log",
    params:
        settings=lambda w: as_json(PROJECT.download(w.asset)),
        code=lambda w: code_digest(
            "download.__main__",
            "download.huggingface",  # started by name, not imported
            "download.modelscope",
            *builder_of(w.asset),
        ),
    shell:
        job("workflow", "'download {wildcards.asset}'")
        + " -m openr1_repro.download --settings {params.settings:q}"
        " --output results/assets/{wildcards.kind}/{wildcards.asset}"


rule lock:
    input:
        [
            manifest(asset)
            for asset in dict.fromkeys(
                asset for name in PROJECT.variants for asset in assets_of(name)
            )
        ],
    log:
        "logs/lock.log",
    shell:
        job("workflow", "lock") + " -m openr1_repro.download.lock {input}"
