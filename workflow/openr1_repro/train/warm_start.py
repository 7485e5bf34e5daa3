"""A supervised start before GRPO, as open-r1's first step: a model and verified traces in, a model asset out.

    python -m openr1_repro.train.warm_start --settings @settings.json --model results/assets/models/NAME \\
        --dataset results/assets/datasets/NAME --prompts results/prompts/KEY --work WORK --output results/warm-starts/KEY

``settings.json``: ``{"chat": …, "warm_start": …, "accelerate": …}``. The output is laid out as a downloaded model is (manifest.json,
files/), so that GRPO starts from it as from any other. It resumes as the train stage does.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from openr1_repro import gpus
from openr1_repro.code import code_digest
from openr1_repro.stage import (
    UserError,
    add_settings_argument,
    digest,
    file_sha256,
    parse_settings,
    read_json,
    replacing,
    run,
    write_json,
)
from openr1_repro.train import checkpoints, launch, traces
from openr1_repro.train.__main__ import start_afresh_if_changed
from openr1_repro.train.settings import TrainSettings, WarmStartStage


def main() -> None:
    """Collect the traces, train on them, publish the model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings_argument(parser)
    parser.add_argument("--model", type=Path, required=True, help="the asset: manifest.json and files/")
    parser.add_argument(
        "--dataset", type=Path, required=True, action="append", help="an asset with traces; may be repeated"
    )
    parser.add_argument("--prompts", type=Path, required=True, help="folder of the prepare stage, with train.parquet")
    parser.add_argument("--work", type=Path, required=True, help="working checkpoints; survives failures")
    parser.add_argument("--output", type=Path, required=True, help="folder to publish")
    arguments = parser.parse_args()
    stage = parse_settings(arguments.settings, WarmStartStage)
    manifest = read_json(arguments.model / "manifest.json")
    work = arguments.work.absolute()
    work.mkdir(parents=True, exist_ok=True)
    start_afresh_if_changed(
        work,
        {
            "settings": digest(stage.model_dump(mode="json")),
            "model": digest([[file["path"], file["sha256"]] for file in manifest["files"]]),
            "prompts": file_sha256(arguments.prompts / "train.parquet")[:12],
            "dataset": digest([read_json(dataset / "manifest.json")["files"] for dataset in arguments.dataset]),
            "code": code_digest("train.sft", "train.traces"),
        },
    )
    for leftover in ("stop", "failure.json", "facts.json"):
        (work / leftover).unlink(missing_ok=True)
    write_json(work / "settings.json", stage.model_dump(mode="json"))
    if not (work / "traces.parquet").exists():
        count = collect(arguments.dataset, arguments.prompts, stage.warm_start.max_examples, work / "traces.parquet")
        print(f"{count} verified traces", flush=True)

    settings = TrainSettings(
        grpo={"use_cpu": stage.warm_start.sft.get("use_cpu", False)}, accelerate=stage.accelerate, watchdog_minutes=60
    )
    resume = checkpoints.newest_whole(work / "checkpoints")
    if not (work / "finished.json").exists():
        with launch.stopping_at_signals(work) as signal_name, gpus.lease(settings.num_gpus) as lease:
            status = launch.run_training(
                settings,
                work,
                ["--settings", f"@{work / 'settings.json'}", "--model", str((arguments.model / "files").absolute())]
                + ["--traces", str(work / "traces.parquet"), "--work", str(work)]
                + (["--resume", str(resume)] if resume else []),
                {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(lease.devices)},
                lease.locks,
                module="openr1_repro.train.sft",
            )
        launch.check_finished(work, status, signal_name())
        write_json(work / "finished.json", {"step": checkpoints.step_of(checkpoints.listed(work / "checkpoints")[-1])})

    with replacing(arguments.output) as draft:
        publish(checkpoints.listed(work / "checkpoints")[-1], draft, manifest)
    print(f"the warm-started model is {arguments.output}", flush=True)


def collect(datasets: list[Path], prompts: Path, limit: int | None, output: Path) -> int:
    """Write (prompt, completion) rows in the prompts' order, as TRL's SFTTrainer reads them; their number."""
    rows = pq.read_table(prompts / "train.parquet", columns=["prompt", "uuid"]).to_pylist()
    found = dict(traces.verified(datasets, {row["uuid"] for row in rows}))
    examples = [
        {"prompt": row["prompt"], "completion": [{"role": "assistant", "content": found[row["uuid"]]}]}
        for row in rows
        if row["uuid"] in found
    ][:limit]
    if not examples:
        raise UserError(
            f"{datasets[0]}: none of the {len(rows)} prompts has a verified trace; take `warm_start` out of the variant"
        )
    draft = output.with_suffix(".tmp")
    pq.write_table(pa.Table.from_pylist(examples), draft)
    draft.rename(output)
    return len(examples)


def publish(checkpoint: Path, output: Path, base: dict[str, Any]) -> None:
    """Lay a checkpoint out as an asset."""
    (output / "files").mkdir(parents=True)
    for file in sorted(checkpoint.iterdir()):
        if file.is_file() and not any(file.match(pattern) for pattern in checkpoints.RESUME_ONLY):
            checkpoints.link(str(file), str(output / "files" / file.name))
    files = [
        {"path": file.name, "size": file.stat().st_size, "sha256": file_sha256(file)}
        for file in sorted((output / "files").iterdir())
    ]
    write_json(
        output / "manifest.json",
        {
            **base,
            "name": f"{base['name']}-warm-start",
            "source": "warm start",
            "revision": digest(files),
            "files": files,
        },
    )


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    run(main)
