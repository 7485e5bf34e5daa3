# What all stages use. The checked configuration, and functions from it to inputs, params and resources.
import json
import os

from snakemake.exceptions import WorkflowError

from openr1_repro import config as project_config
from openr1_repro.code import code_digest
from openr1_repro import gpus
from openr1_repro.stage import UserError

ROOT = Path(workflow.basedir)
# Commands say `python -m …`: the Python that runs Snakemake, and this project's package.
os.environ.update(
    PATH=os.pathsep.join([str(Path(sys.executable).parent), *os.get_exec_path()]),
    PYTHONPATH=str(ROOT / "workflow"),
)

try:
    PROJECT = project_config.load(ROOT, config, [Path(f) for f in workflow.configfiles])
except UserError as error:
    print(f"error: {error}".replace("\n", "\nerror: "), file=sys.stderr)
    raise SystemExit(1)

VARIANT_OF_PROMPTS = {PROJECT.prompts_key(name): name for name in PROJECT.variants}
VARIANT_OF_CANDIDATES = {
    PROJECT.candidates_key(name): name
    for name in PROJECT.variants
    if PROJECT.candidates(name)
}
VARIANT_OF_PASS_RATES = {
    PROJECT.pass_rate_key(name): name for name in VARIANT_OF_CANDIDATES.values()
}
VARIANT_OF_WARM_START = {
    PROJECT.warm_start_key(name): name
    for name in PROJECT.variants
    if PROJECT.warm_start(name)
}
VARIANT_OF_BASE = {PROJECT.base_key(name): name for name in PROJECT.variants}


wildcard_constraints:
    kind="models|datasets",
    asset=r"[\w.-]+",
    variant="|".join(PROJECT.variants),
    key="[0-9a-f]{12}",
    group="runs|base",


def as_json(section):
    """A section of the config as one stable line: what a stage gets, and what Snakemake compares to decide on a rerun."""
    return json.dumps(section, sort_keys=True, ensure_ascii=False)


def manifest(asset):
    """The file that says an asset is complete; rules depend on it, never on the folder beside it."""
    return f"results/assets/{PROJECT.assets[asset].kind}s/{asset}/manifest.json"


def assets_of(variant):
    """Everything that a variant downloads."""
    return list(
        dict.fromkeys(
            [
                *PROJECT.assets_of_prompts(variant),
                *PROJECT.assets_of_benchmarks(variant),
            ]
        )
    )


def prompts(variant, name):
    return f"results/prompts/{PROJECT.prompts_key(variant)}/{name}"


def prompts_to_plan(variant):
    """The prompts that a plan counts: where a pass rate will drop some, those before it, since sampling it takes a GPU."""
    if PROJECT.candidates(variant):
        return f"results/prompts/{PROJECT.candidates_key(variant)}/train.parquet"
    return prompts(variant, "train.parquet")


def prepared(key):
    """The variant behind a folder of prompts, and the settings that make it."""
    if key in VARIANT_OF_PROMPTS:
        return VARIANT_OF_PROMPTS[key], PROJECT.prepare(VARIANT_OF_PROMPTS[key])
    return VARIANT_OF_CANDIDATES[key], PROJECT.candidates(VARIANT_OF_CANDIDATES[key])


def pass_rates(key):
    """The file of pass rates that a folder of prompts is filtered by, if it is."""
    variant, settings = prepared(key)
    return (
        [f"results/pass-rates/{PROJECT.pass_rate_key(variant)}.parquet"]
        if settings["prepare"]["pass_rate"]
        else []
    )


def start_of(variant):
    """The manifest of the weights that GRPO starts from: the downloaded model's, or the warm-started one's."""
    if PROJECT.warm_start(variant):
        return f"results/warm-starts/{PROJECT.warm_start_key(variant)}/manifest.json"
    return manifest(PROJECT.variants[variant].model)


def lock_of_training(variant):
    """GPU extras (vLLM, DeepSpeed, Liger) only where a variant uses a GPU."""
    return "train-gpu" if PROJECT.gpus(variant) else "train"


PROJECT_LOCKS = sorted({lock_of_training(name) for name in PROJECT.variants})


def job(env, label):
    """How every stage is started: in its environment, with a log that also shows on the terminal."""
    return f"python -m openr1_repro.job --env {env} --log {{log}} --label {label} --"


def refuse_impossible():
    """Before the first job, on this machine's own executor: GPUs that a variant asks for and that are not there."""
    if not workflow.local_exec:
        return  # the cluster's scheduler knows its own machines
    if not any(job.resources.get("gpu") for job in workflow.dag.needrun_jobs()):
        return  # downloading and preparing for a GPU machine takes none
    there = len(gpus.visible())
    short = [
        f"{name} asks for {PROJECT.gpus(name)}"
        for name in PROJECT.variants
        if PROJECT.gpus(name) > there
    ]
    if short:
        raise WorkflowError(
            f"{'; '.join(short)} GPUs, this machine has {there}. Choose other variants (config/config.yaml, or "
            "--config 'variants=[quickstart]'), lower train.num_processes, or run on a cluster (--profile profiles/slurm). "
            "`snakemake -n` shows the plan without a GPU."
        )


def builder_of(asset):
    """The module, named in the config alone, that makes an asset out of a Python package."""
    package = PROJECT.assets[asset].package
    return (
        [package.builder.partition(":")[0].removeprefix("openr1_repro.")]
        if package
        else []
    )


def evaluated(w):
    """The variant whose settings an evaluation follows."""
    return w.name if w.group == "runs" else VARIANT_OF_BASE[w.name]


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
        assets = assets_of(name)
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
