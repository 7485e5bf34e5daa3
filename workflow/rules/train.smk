# An optional supervised start, then GRPO, both by TRL. Working checkpoints live in an undeclared folder that outlasts failures;
# the stage decides what it can resume.


rule plan:
    input:
        models=[manifest(PROJECT.variants[name].model) for name in PROJECT.variants],
        prompts=[prompts_to_plan(name) for name in PROJECT.variants],
    log:
        "logs/plan.log",
    params:
        settings=as_json(
            [
                {
                    "variant": name,
                    "train": PROJECT.train(name)["train"],
                    "model": f"results/assets/models/{PROJECT.variants[name].model}/files/config.json",
                    "prompts": prompts_to_plan(name),
                }
                for name in PROJECT.variants
            ]
        ),
        machine=PROJECT.settings.plan.options(),
    shell:
        job("workflow", "plan")
        + " -m openr1_repro.train.plan --settings {params.settings:q} {params.machine}"


rule warm_start:
    input:
        model=lambda w: manifest(PROJECT.variants[VARIANT_OF_WARM_START[w.key]].model),
        prompts=lambda w: prompts(VARIANT_OF_WARM_START[w.key], "train.parquet"),
        datasets=lambda w: [
            manifest(part.asset)
            for part in PROJECT.variants[VARIANT_OF_WARM_START[w.key]].prepare.datasets
        ],
        lock=lambda w: f"envs/{lock_of_training(VARIANT_OF_WARM_START[w.key])}.txt",
    output:
        "results/warm-starts/{key}/manifest.json",
    log:
        "logs/warm-starts/{key}.log",
    threads: 16  # scaled down to --cores, or to --max-threads on a cluster
    resources:
        gpu=lambda w: PROJECT.gpus_of_training(VARIANT_OF_WARM_START[w.key]),
    params:
        settings=lambda w: as_json(PROJECT.warm_start(VARIANT_OF_WARM_START[w.key])),
        datasets=lambda w, input: [
            f"--dataset {Path(path).parent}" for path in input.datasets
        ],
        code=code_digest("train.warm_start", "train.sft"),
        env=lambda w: lock_of_training(VARIANT_OF_WARM_START[w.key]),
    shell:
        job("{params.env}", "'warm start'")
        + " -m openr1_repro.train.warm_start --settings {params.settings:q} --model $(dirname {input.model})"
        " {params.datasets} --prompts $(dirname {input.prompts}) --work results/warm-starts/.work-{wildcards.key}"
        " --output results/warm-starts/{wildcards.key}"


rule train:
    input:
        model=lambda w: start_of(w.variant),
        prompts=lambda w: prompts(w.variant, "train.parquet"),
        lock=lambda w: f"envs/{lock_of_training(w.variant)}.txt",
    output:
        "results/runs/{variant}/training/checkpoints.json",
        "results/runs/{variant}/training/log.jsonl",
        "results/runs/{variant}/training/train.json",
    log:
        "logs/{variant}/train.log",
    threads: 16  # scaled down to --cores, or to --max-threads on a cluster
    resources:
        gpu=lambda w: PROJECT.gpus_of_training(w.variant),
    params:
        settings=lambda w: as_json(PROJECT.train(w.variant)),
        code=code_digest("train.__main__", "train.grpo"),
        env=lambda w: lock_of_training(w.variant),
    shell:
        job("{params.env}", "'train {wildcards.variant}'")
        + " -m openr1_repro.train --settings {params.settings:q} --model $(dirname {input.model})"
        " --prompts $(dirname {input.prompts}) --work results/runs/{wildcards.variant}/.work"
        " --output results/runs/{wildcards.variant}/training"
