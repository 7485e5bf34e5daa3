# GRPO by TRL. Working checkpoints live in an undeclared folder that outlasts failures; the stage decides what it can resume.


rule train:
    input:
        model=lambda w: start_of(w.variant),
        prompts=lambda w: prompts(w.variant, "train.parquet"),
        lock=lambda w: f"envs/{lock_of_training(w.variant)}.txt",
    output:
        "results/runs/{variant}/training/checkpoints.json",
        "results/runs/{variant}/training/log.jsonl",
        "results/runs/{variant}/training/train.json",
    params:
        settings=lambda w: as_json(PROJECT.train(w.variant)),
        code=code_digest("train.__main__", "train.grpo"),
        env=lambda w: lock_of_training(w.variant),
    log:
        "logs/{variant}/train.log",
    threads: workflow.cores
    resources:
        gpu=lambda w: PROJECT.gpus(w.variant),
    shell:
        job("{params.env}", "'train {wildcards.variant}'")
        + " -m openr1_repro.train --settings {params.settings:q} --model $(dirname {input.model})"
        " --prompts $(dirname {input.prompts}) --work results/runs/{wildcards.variant}/.work"
        " --output results/runs/{wildcards.variant}/training"
