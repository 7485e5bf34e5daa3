# What every rule uses: the checked configuration, and functions from it to inputs, params and resources.
import functools
import json
import os

from snakemake.exceptions import WorkflowError

from openr1_repro import config as project_config
from openr1_repro.code import code_digest
from openr1_repro import gpus
from openr1_repro.stage import UserError

ROOT = Path(workflow.basedir)
# Commands say `python -m …`: the Python that runs Snakemake, and this project's package.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
os.environ["PYTHONPATH"] = str(ROOT / "workflow")

try:
    PROJECT = project_config.load(ROOT, config, [Path(f) for f in workflow.configfiles])
except UserError as error:
    print(f"error: {error}".replace("\n", "\nerror: "), file=sys.stderr)
    raise SystemExit(1)

VARIANT_OF_PROMPTS = {PROJECT.prompts_key(name): name for name in PROJECT.variants}
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


def prompts(variant, name):
    return f"results/prompts/{PROJECT.prompts_key(variant)}/{name}"


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
