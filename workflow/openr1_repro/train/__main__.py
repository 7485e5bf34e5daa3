"""Train one variant with GRPO, resumably: prepared prompts and a model in, checkpoints, log and completions out.

    python -m openr1_repro.train --settings @settings.json --model results/assets/models/NAME --prompts results/prompts/KEY \\
        --work results/runs/VARIANT/.work --output results/runs/VARIANT/training

A light supervisor: it compares what is asked with what the work folder holds, leases GPUs, starts a vLLM server where the layout has one,
runs ``accelerate launch … -m openr1_repro.train.grpo`` as its child, watches it, and publishes what it leaves. Told to stop (SIGTERM,
SIGUSR1), it has training save at the end of the step and exits with status 75; the same command run again goes on from there.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

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
    write_text,
)
from openr1_repro.train import checkpoints, launch, server
from openr1_repro.train.settings import TrainStage

PACKAGES = (
    "torch",
    "transformers",
    "trl",
    "accelerate",
    "peft",
    "vllm",
    "deepspeed",
    "flash-attn",
    "liger-kernel",
    "math-verify",
)


def main() -> None:
    """Train to the end, or as far as it is let."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_settings_argument(parser)
    parser.add_argument("--model", type=Path, required=True, help="the asset: manifest.json and files/")
    parser.add_argument("--prompts", type=Path, required=True, help="folder of the prepare stage, with train.parquet")
    parser.add_argument(
        "--work", type=Path, required=True, help="working checkpoints; survives failures, owned by this command"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to publish")
    arguments = parser.parse_args()
    stage = parse_settings(arguments.settings, TrainStage)
    settings, work = stage.train, arguments.work.absolute()
    prompts, model = arguments.prompts / "train.parquet", arguments.model / "files"
    manifest = read_json(arguments.model / "manifest.json")
    if not prompts.exists():
        raise UserError(f"{prompts}: missing; run the prepare stage first")

    work.mkdir(parents=True, exist_ok=True)
    asked = fingerprint(stage, manifest, prompts)
    start_afresh_if_changed(work, asked)
    for leftover in ("stop", "failure.json", "facts.json"):
        (work / leftover).unlink(missing_ok=True)
    write_json(work / "settings.json", stage.model_dump(mode="json"))

    if not (work / "finished.json").exists():
        resume = checkpoints.newest_whole(work / "checkpoints")
        cut_log(work, checkpoints.step_of(resume) if resume else 0)
        if resume:
            print(f"resuming from {resume.name}", flush=True)
        sessions = earlier_sessions(work)
        sessions.append({"started": time.time(), "resumed_from": resume.name if resume else None})
        write_json(work / "sessions.json", sessions)
        with (
            launch.stopping_at_signals(work) as signal_name,
            gpus.lease(settings.num_gpus) as lease,
            server.serving(settings, model, work, lease) as served,
        ):
            status = launch.run_training(
                settings,
                work,
                [
                    *("--settings", f"@{work / 'settings.json'}", "--model", str(model.absolute())),
                    *("--prompts", str(prompts.absolute()), "--work", str(work)),
                    *(["--resume", str(resume)] if resume else []),
                ],
                {
                    **served.environment,
                    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # nvidia-smi's order, which the lease counts in
                    "CUDA_VISIBLE_DEVICES": ",".join(lease.devices[: settings.num_gpus - settings.num_serving_gpus]),
                },
                lease.locks,
                served.processes,
            )
        sessions[-1]["seconds"] = time.time() - sessions[-1]["started"]
        write_json(work / "sessions.json", sessions)
        launch.check_finished(work, status, signal_name())
        write_json(work / "finished.json", read_json(work / "facts.json"))

    summary = summarise(work, asked, manifest)
    with replacing(arguments.output) as draft:
        draft.mkdir()
        rows = checkpoints.publish(work, draft, model_card(summary, manifest))
        write_json(draft / "train.json", {**summary, "checkpoints": [row["name"] for row in rows]})
    for checkpoint in checkpoints.listed(work / "checkpoints"):
        if checkpoints.can_resume(checkpoint):  # nothing will resume any more: give back the optimizer's disk space
            checkpoints.drop_resume_state(checkpoint)
    print(
        f"{len(rows)} checkpoints in {arguments.output}/checkpoints: {', '.join(row['name'] for row in rows)}",
        flush=True,
    )


def fingerprint(stage: TrainStage, manifest: dict[str, Any], prompts: Path) -> dict[str, str]:
    """What the checkpoints in a work folder belong to: a digest of each thing that, changed, makes them another training's."""
    versions = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {
        "settings": digest(stage.model_dump(mode="json")),
        "model": digest([[file["path"], file["sha256"]] for file in manifest["files"]]),
        "prompts": file_sha256(prompts)[:12],
        "code": code_digest("train.grpo", "rewards"),
        "packages": digest(versions),
    }


def start_afresh_if_changed(work: Path, asked: dict[str, str]) -> None:
    """Empty ``work`` unless it holds the state of just this training; a changed recipe must not go on from the old weights."""
    file = work / "fingerprint.json"
    if file.exists():
        held = json.loads(file.read_text())
        changed = [name for name, value in asked.items() if held.get(name) != value]
        if not changed:
            return
        print(f"starting afresh: {', '.join(changed)} changed since the work in {work}", flush=True)
    elif any(work.iterdir()):
        raise UserError(f"{work}: holds files but no state of this stage; give --work a folder of its own")
    for entry in work.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    write_json(file, asked)


def cut_log(work: Path, step: int) -> None:
    """Forget what was logged after ``step``: those steps will be done again."""
    log = work / "log.jsonl"
    lines = log.read_text().splitlines(keepends=True) if log.exists() else []
    whole = [line for line in lines if line.endswith("\n")]  # a killed run may leave half a line
    write_text(log, "".join(line for line in whole if json.loads(line)["step"] <= step))
    for file in (work / "completions").glob("completions_*.parquet"):
        if int(file.stem.rsplit("_", 1)[1]) > step:
            file.unlink()


def earlier_sessions(work: Path) -> list[dict[str, Any]]:
    """The commands that have trained here: start, checkpoint gone on from, seconds; a killed one's last until its ranks' last heartbeat."""
    sessions = read_json(work / "sessions.json") if (work / "sessions.json").exists() else []
    if sessions and "seconds" not in sessions[-1]:
        beats = [beat.stat().st_mtime for beat in (work / "heartbeat").glob("rank-*")]
        sessions[-1]["seconds"] = max([sessions[-1]["started"], *beats]) - sessions[-1]["started"]
    return sessions


def summarise(work: Path, asked: dict[str, str], manifest: dict[str, Any]) -> dict[str, Any]:
    """train.json: what ran, on what, for how long."""
    rows = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    sessions = read_json(work / "sessions.json")
    return {
        **read_json(work / "finished.json"),
        "seconds": round(sum(session["seconds"] for session in sessions), 1),
        "step_seconds": round(sum(row["time/step"] for row in rows), 1),
        "trained_tokens": sum(row["trained_tokens"] for row in rows),
        "peak_memory_gib": round(max(row["memory/peak_gib"] for row in rows), 2),
        "resumed_from": [session["resumed_from"] for session in sessions if session["resumed_from"]],
        "model": {name: manifest[name] for name in ("name", "repository", "revision")},
        "fingerprint": asked,
    }


def model_card(summary: dict[str, Any], manifest: dict[str, Any]) -> str:
    """The published checkpoints' README: what this model is made from; ``{step}`` is left for the step."""
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return f"""---
base_model: {manifest["repository"]}
library_name: transformers
tags: [grpo, trl, open-r1]
---

# {manifest["name"]}, GRPO step {{step}}

Trained with TRL's GRPOTrainer from `{manifest["repository"]}` at revision `{manifest["revision"]}`.

| | |
| --- | --- |
| step | {{step}} of {summary["max_steps"]} |
| processes, device | {summary["processes"]}, {summary["device"]} |
| attention | {summary["attn_implementation"]} |
| packages | {versions} |
| settings, prompts, code | {summary["fingerprint"]["settings"]}, {summary["fingerprint"]["prompts"]}, {summary["fingerprint"]["code"]} |
"""


if __name__ == "__main__":
    os.environ.setdefault(
        "HF_HUB_OFFLINE", "1"
    )  # models are folders; a hub that cannot be reached would only cost time-outs
    run(main)
