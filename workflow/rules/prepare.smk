# From data sets to trainable prompts; variants with equal settings share one folder. Where a variant asks for a pass rate, the
# starting model first samples the prompts that every other filter keeps.


rule prepare:
    input:
        assets=lambda w: [
            manifest(asset) for asset in PROJECT.assets_of_prompts(prepared(w.key)[0])
        ],
        pass_rates=lambda w: pass_rates(w.key),
    output:
        train="results/prompts/{key}/train.parquet",
        validation="results/prompts/{key}/validation.parquet",
        dropped="results/prompts/{key}/dropped.parquet",
        funnel="results/prompts/{key}/funnel.json",
        card="results/prompts/{key}/card.html",
    log:
        "logs/prepare/{key}.log",
    threads: 16  # scaled down to --cores, or to --max-threads on a cluster
    params:
        settings=lambda w: as_json(prepared(w.key)[1]),
        pass_rates=lambda w, input: [
            f"--pass-rates {file}" for file in input.pass_rates
        ],
        code=code_digest("prepare.__main__"),
    shell:
        job("workflow", "prepare")
        + " -m openr1_repro.prepare --settings {params.settings:q} --assets results/assets"
        " {params.pass_rates} --output results/prompts/{wildcards.key} --cache results/.cache/answers"


rule pass_rate:
    input:
        model=lambda w: manifest(PROJECT.variants[VARIANT_OF_PASS_RATES[w.key]].model),
        prompts=lambda w: f"results/prompts/{PROJECT.candidates_key(VARIANT_OF_PASS_RATES[w.key])}/train.parquet",
        lock=lambda w: f"envs/{lock_of_training(VARIANT_OF_PASS_RATES[w.key])}.txt",
    output:
        "results/pass-rates/{key}.parquet",
    log:
        "logs/pass-rates/{key}.log",
    threads: 16  # scaled down to --cores, or to --max-threads on a cluster
    resources:
        gpu=lambda w: PROJECT.gpus(VARIANT_OF_PASS_RATES[w.key]),
    params:
        settings=lambda w: as_json(PROJECT.pass_rate(VARIANT_OF_PASS_RATES[w.key])),
        code=code_digest("prepare.pass_rate"),
        env=lambda w: lock_of_training(VARIANT_OF_PASS_RATES[w.key]),
    shell:
        job("{params.env}", "'pass rate'")
        + " -m openr1_repro.prepare.pass_rate --settings {params.settings:q} --model $(dirname {input.model})"
        " --prompts $(dirname {input.prompts}) --cache results/.cache/responses --output {output}"
