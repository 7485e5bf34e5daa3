# Generate with vLLM or transformers, then score with lighteval in its own environment. A run's warm start and every checkpoint in
# one job (group "runs"); the downloaded model once for all variants that would measure the same (group "base").


rule generate:
    input:
        weights=lambda w: (
            f"results/runs/{w.name}/training/checkpoints.json"
            if w.group == "runs"
            else manifest(PROJECT.variants[evaluated(w)].model)
        ),
        warm_start=lambda w: (
            start_of(w.name)
            if w.group == "runs" and PROJECT.warm_start(w.name)
            else []
        ),
        validation=lambda w: prompts(evaluated(w), "validation.parquet"),
        benchmarks=lambda w: [
            manifest(asset) for asset in PROJECT.assets_of_benchmarks(evaluated(w))
        ],
        lock=lambda w: f"envs/{lock_of_training(evaluated(w))}.txt",
    output:
        "results/{group}/{name}/evaluation/responses.parquet",
    log:
        "logs/{group}/{name}/generate.log",
    threads: 16  # scaled down to --cores, or to --max-threads on a cluster
    resources:
        gpu=lambda w: PROJECT.gpus(evaluated(w)),
    params:
        settings=lambda w: as_json(PROJECT.evaluate(evaluated(w))),
        code=code_digest("evaluate.generate"),
        env=lambda w: lock_of_training(evaluated(w)),
        which=lambda w: "training" if w.group == "runs" else "model",
        warm_start=lambda w, input: (
            f"--warm-start {Path(input.warm_start).parent}" if input.warm_start else ""
        ),
    shell:
        job("{params.env}", "'generate {wildcards.name}'")
        + " -m openr1_repro.evaluate.generate --settings {params.settings:q} --assets results/assets"
        " --{params.which} $(dirname {input.weights}) {params.warm_start} --prompts $(dirname {input.validation})"
        " --cache results/.cache/responses --output {output}"


rule score:
    input:
        responses="results/{group}/{name}/evaluation/responses.parquet",
        benchmarks=lambda w: [
            manifest(asset) for asset in PROJECT.assets_of_benchmarks(evaluated(w))
        ],
        lock="envs/lighteval.txt",
    output:
        scores="results/{group}/{name}/evaluation/scores.parquet",
        summary="results/{group}/{name}/evaluation/scores.json",
    log:
        "logs/{group}/{name}/score.log",
    threads: 16  # scaled down to --cores, or to --max-threads on a cluster
    params:
        settings=lambda w: as_json(PROJECT.evaluate(evaluated(w))),
        code=code_digest("evaluate.score"),
    shell:
        job("lighteval", "'score {wildcards.name}'")
        + " -m openr1_repro.evaluate.score --settings {params.settings:q} --assets results/assets"
        " --responses {input.responses} --work results/{wildcards.group}/{wildcards.name}/.work/scoring"
        " --output {output.scores} --summary {output.summary}"
