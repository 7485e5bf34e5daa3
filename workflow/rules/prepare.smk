# From data sets to trainable prompts; variants with equal settings share one folder.


rule prepare:
    input:
        lambda w: [
            manifest(asset)
            for asset in PROJECT.assets_of_prompts(VARIANT_OF_PROMPTS[w.key])
        ],
    output:
        train="results/prompts/{key}/train.parquet",
        validation="results/prompts/{key}/validation.parquet",
        funnel="results/prompts/{key}/funnel.json",
        card="results/prompts/{key}/card.html",
    log:
        "logs/prepare/{key}.log",
    threads: 16  # scaled down to --cores, or to --max-threads on a cluster
    params:
        settings=lambda w: as_json(PROJECT.prepare(VARIANT_OF_PROMPTS[w.key])),
        code=code_digest("prepare.__main__"),
    shell:
        job("workflow", "prepare")
        + " -m openr1_repro.prepare --settings {params.settings:q} --assets results/assets"
        " --output results/prompts/{wildcards.key}"
