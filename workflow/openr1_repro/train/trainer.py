"""TRL's GRPOTrainer with whole checkpoints, one log line a step, and guards. The algorithm is TRL's, unchanged."""

import contextlib
import json
import resource
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from trl import GRPOTrainer

from openr1_repro.stage import UserError
from openr1_repro.train import checkpoints


class Resumable:
    """What every trainer of this project does beside training: tells that it is alive, saves whole checkpoints, stops when asked.

    Comes before one of TRL's trainers among the bases; ``work`` and ``resumable_checkpoints`` are keywords of its constructor.
    """

    accelerator: Any
    args: Any
    state: TrainerState

    def __init__(self, *args: Any, work: Path, resumable_checkpoints: int = 2, **kwargs: Any) -> None:
        self.work = work
        self.resumable_checkpoints = resumable_checkpoints
        self.stop_signal: int | None = None
        self.step_started = time.perf_counter()
        super().__init__(*args, **kwargs)
        self.heartbeat = work / "heartbeat" / f"rank-{self.accelerator.process_index}"
        self.heartbeat.parent.mkdir(exist_ok=True)
        self.beat("start")
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._on_signal)
        self.add_callback(Stops(self))  # type: ignore[attr-defined]
        self.remove_callback(PrinterCallback)  # type: ignore[attr-defined]  # the step line says it

    def beat(self, phase: str) -> None:
        """Tell the watchdog that this process is alive and what it does."""
        self.heartbeat.write_text(f"step {self.state.global_step + 1}: {phase}")

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.work / "checkpoints" / "tmp")  # `_save_checkpoint` renames what it finds there

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """The stage writes its own card when it publishes."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save as ``tmp/checkpoint-N``, seal with digests, rename to ``step-N``: a reader sees a whole checkpoint or none."""
        self.beat("save")
        folder = self.work / "checkpoints"
        draft, final = (
            folder / "tmp" / f"checkpoint-{self.state.global_step}",
            folder / f"step-{self.state.global_step}",
        )
        if self.accelerator.is_main_process:
            shutil.rmtree(folder / "tmp", ignore_errors=True)
            if saved := checkpoints.listed(folder):
                needed, free = checkpoints.size_of(saved[-1]), shutil.disk_usage(folder).free
                if free < needed:
                    raise UserError(
                        f"{folder}: {free / 2**30:.1f} GiB of disk are free, the next checkpoint takes {needed / 2**30:.1f}; free some, or"
                        f" lower `save_total_limit` or `resumable_checkpoints`, then rerun: it goes on from {saved[-1].name}"
                    )
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        self.save_extra(draft)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            checkpoints.seal(draft)
            shutil.rmtree(final, ignore_errors=True)
            draft.rename(final)
            shutil.rmtree(folder / "tmp")
            checkpoints.prune(folder, self.args.save_total_limit, self.resumable_checkpoints)
        self.accelerator.wait_for_everyone()
        self.step_started = time.perf_counter()  # the next line's seconds are training's alone

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self.args.device.type == "cpu":
            # accelerate numbers the ranks on a CPU (cpu:0, cpu:1), and torch.load knows no such place.
            self.args.__dict__["_setup_devices"] = torch.device("cpu")
        super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]

    def save_extra(self, checkpoint: Path) -> None:
        """Add to a checkpoint what this trainer needs beside the usual."""

    def restore_extra(self, checkpoint: Path) -> None:
        """Put back what `save_extra` saved."""

    def _on_signal(self, number: int, frame: Any) -> None:
        self.stop_signal = number

    def should_stop(self) -> bool:
        """Whether any process was told to stop: by SIGTERM, SIGUSR1 or the supervisor's ``stop`` file."""
        asked = self.stop_signal is not None or (self.work / "stop").exists()
        flag = torch.tensor(int(asked), device=self.accelerator.device)
        return bool(self.accelerator.reduce(flag, reduction="sum").item())


class Trainer(Resumable, GRPOTrainer):
    """GRPOTrainer that measures its phases, saves whole checkpoints and stops with a diagnosis.

    Args:
        max_steps_without_spread: see ``TrainSettings.stop_after_steps_without_spread``.
        old_logprobs_of_sampler: see ``TrainSettings.old_logprobs``.
        autocast_residual: see ``TrainSettings.autocast_residual``.
        reward_statistics: ``RewardSet.statistics``; its rates and latencies stand under ``reward_engine/``.
    """

    def __init__(
        self,
        *args: Any,
        max_steps_without_spread: int | None = None,
        old_logprobs_of_sampler: bool = False,
        autocast_residual: bool = False,
        reward_statistics: Any = dict,
        **kwargs: Any,
    ) -> None:
        self.max_steps_without_spread = max_steps_without_spread
        self.old_logprobs_of_sampler = old_logprobs_of_sampler
        self.reward_statistics = reward_statistics
        self.sampled_logprobs: list[list[float]] | None = None
        self.steps_without_spread = 0
        self.last_zero_spread = 0.0
        self.phases: dict[str, float] = {}
        super().__init__(*args, **kwargs)
        if autocast_residual:
            for model in filter(None, (self.model, self.ref_model)):
                model.get_input_embeddings().register_forward_hook(as_autocast)
        if self.use_vllm:  # TRL calls it in the middle of generating, and times it for wandb alone
            self.vllm_generation.sync_weights = self.phase("sync_weights")(self.vllm_generation.sync_weights)
        self.trained_tokens = torch.zeros((), dtype=torch.long, device=self.accelerator.device)
        self.finite = torch.ones((), dtype=torch.bool, device=self.accelerator.device)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the seconds spent inside to ``time/<name>`` of this step's log line; nested phases count once, in the inner one.

        What is in no phase is ``time/train``: forward and backward passes and the optimizer's step, during which nobody waits for the GPU
        but TRL itself.
        """
        self.beat(name)
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # else a phase is charged with the kernels before it
        started = time.perf_counter()
        inner = sum(self.phases.values())
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        inner = sum(self.phases.values()) - inner
        self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - started - inner

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        with self.phase("generate"):
            return super()._generate_single_turn(*args, **kwargs)

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        with self.phase("rewards"):
            return super()._calculate_rewards(*args, **kwargs)

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        with self.phase(
            "old_logprobs"
        ):  # what is neither generation nor rewards: the forward passes of the old and reference policy
            return super()._generate_and_score_completions(inputs)

    def _generate(self, prompts: Any) -> Any:
        generated = super()._generate(prompts)
        if self.old_logprobs_of_sampler and self.model.training:
            self.sampled_logprobs = generated[4]  # TRL asks for the old policy's next: see below
        return generated

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *args: Any, **kwargs: Any
    ) -> Any:
        if self.sampled_logprobs is None or torch.is_grad_enabled():
            return super()._get_per_token_logps_and_entropies(
                model, input_ids, attention_mask, logits_to_keep, *args, **kwargs
            )
        rows, self.sampled_logprobs = self.sampled_logprobs, None
        padded = torch.zeros(len(rows), logits_to_keep)
        for row, logprobs in zip(padded, rows, strict=True):
            row[: len(logprobs)] = torch.tensor([float("nan") if value is None else value for value in logprobs])
        return padded.to(self.accelerator.device), None, None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """One forward and backward pass."""
        self.beat("train")
        return super().training_step(model, inputs, num_items_in_batch)

    def _compute_loss(self, model: Any, inputs: Any) -> torch.Tensor:
        loss = super()._compute_loss(model, inputs)
        self.trained_tokens += inputs["completion_mask"].sum()
        self.finite &= torch.isfinite(loss.detach())
        return loss

    # --- one line a step -------------------------------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add timings, tokens a second, memory and the rewards' statistics to TRL's metrics; write the line; check the guards.

        Raises:
            UserError: when the loss is not a number, or nothing has been learned for too long.
        """
        if "loss" not in logs:  # the summary at the end of training
            super().log(logs, start_time)
            return
        # A step may be finite and still ruin the weights. ZeRO-3 leaves only the small ones here, or none, to look at.
        if weights := [p.detach() for p in self.model.parameters() if p.numel()]:
            # One answer for all: asked one by one, each would wait for the GPU.
            self.finite &= torch.stack(torch._foreach_norm(weights)).isfinite().all()
        totals = torch.stack([self.trained_tokens, (~self.finite).long()])
        tokens, broken = self.accelerator.reduce(totals, reduction="sum").tolist()
        now = time.perf_counter()  # the GPU has done the step
        seconds, self.step_started = now - self.step_started, now
        self.phases["train"] = seconds - sum(self.phases.values())
        logs["time/step"] = seconds
        for name, spent in self.phases.items():
            logs[f"time/{name}"] = spent
        logs["tokens_per_second"] = tokens / seconds
        logs["trained_tokens"] = tokens
        logs["memory/peak_gib"] = peak_memory() / 2**30
        with contextlib.suppress(Exception):  # no GPU, or one (MIG, a container) that does not tell
            logs["gpu_utilisation"] = torch.cuda.utilization()
        for name, statistics in self.reward_statistics().items():
            for key in (
                "none_rate",
                "timeouts",
                "cache_hits",
                "latency_p50",
                "latency_p99",
            ):  # means and spreads are TRL's
                logs[f"reward_engine/{name}/{key}"] = statistics[key]
        self.phases = {}
        self.trained_tokens.zero_()
        self.finite.fill_(True)
        if self._metrics["train"].get("frac_reward_zero_std"):  # steps that reuse a generation have none
            self.last_zero_spread = self._metrics["train"]["frac_reward_zero_std"][-1]
        super().log(logs, start_time)  # adds TRL's metrics to `logs`
        row = {
            "step": self.state.global_step,
            **{k: v.item() if isinstance(v, torch.Tensor) else v for k, v in logs.items()},
        }
        if self.accelerator.is_main_process:
            with open(self.work / "log.jsonl", "a") as stream:
                stream.write(json.dumps(row) + "\n")
            print(step_line(row, self.state.max_steps), flush=True)
        self._guard(row, broken)

    def _guard(self, row: dict[str, Any], broken: int) -> None:
        norm = row.get("grad_norm") or 0.0
        if broken or norm != norm or norm in (float("inf"), float("-inf")):
            raise UserError(
                f"step {row['step']}: the {'loss or a weight' if broken else 'gradient norm'} is not a finite number;"
                " nothing of this step is saved."
                " Lower `grpo` → `learning_rate`, or set `max_grad_norm`; if it comes at once, the model's weights or `dtype` are at fault"
            )
        no_spread = self.max_steps_without_spread is not None and self.last_zero_spread == 1.0
        self.steps_without_spread = self.steps_without_spread + 1 if no_spread else 0
        if self.max_steps_without_spread is not None and self.steps_without_spread >= self.max_steps_without_spread:
            raise UserError(
                f"step {row['step']}: for {self.steps_without_spread} steps every group got equal rewards (reward {row.get('reward')}),"
                " so nothing is learned. All 0: the rewards never fire on this model's output (look into completions/, and at the chat"
                " template); all at the top: the prompts are too easy. More `num_generations` or a higher `temperature` add spread;"
                " `stop_after_steps_without_spread: null` goes on regardless"
            )

    # --- resuming ---------------------------------------------------------------------------------------------------------

    def save_extra(self, checkpoint: Path) -> None:
        """Between two generations, save what is buffered: generated anew, a resumed run would differ."""
        taken = self.state.global_step * self.args.gradient_accumulation_steps
        if taken % (self.args.steps_per_generation * self.num_iterations) and self._buffered_inputs is not None:
            torch.save(self._buffered_inputs, checkpoint / f"rollout-{self.accelerator.process_index}.pt")

    def restore_extra(self, checkpoint: Path) -> None:
        """Put back what TRL forgets: how far the buffered generation has been used, and the generation itself."""
        self._step = self.state.global_step * self.args.gradient_accumulation_steps
        rollout = checkpoint / f"rollout-{self.accelerator.process_index}.pt"
        if rollout.exists():
            self._buffered_inputs = torch.load(rollout, map_location=self.accelerator.device.type, weights_only=True)


class Stops(TrainerCallback):
    """Resumes, saves and ends at the right steps."""

    def __init__(self, trainer: Resumable) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put back what the trainer itself forgets, and start the clock."""
        if state.global_step:
            self.trainer.restore_extra(self.trainer.work / "checkpoints" / f"step-{state.global_step}")
        self.trainer.step_started = time.perf_counter()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Save the last step whatever the save strategy; save and stop when asked to."""
        self.trainer.beat("step done")
        if self.trainer.should_stop():
            control.should_training_stop = True
        if state.global_step >= state.max_steps or control.should_training_stop:
            control.should_save = True


def as_autocast(module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    """A forward hook: what ``module`` gives, in autocast's type where autocast is on."""
    device = output.device.type
    return output.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else output


def peak_memory() -> int:
    """Peak bytes of this process: on the GPU where there is one, else of memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def step_line(row: dict[str, Any], max_steps: int) -> str:
    """A step for a person to read: rewards, lengths, speed, time left.

    >>> step_line({"step": 3, "reward": 1.5, "completions/mean_length": 100.0, "time/step": 2.0, "tokens_per_second": 640.0}, 10)
    'step 3/10 · reward 1.500 · 100 tokens · 2.0 s (640 tokens/s) · 14 s left'
    """
    parts = [f"step {row['step']}/{max_steps}"]
    if row.get("reward") is not None:
        parts.append(f"reward {row['reward']:.3f}")
    names = [name.split("/")[1] for name in row if name.startswith("rewards/") and name.endswith("/mean")]
    if len(names) > 1:
        parts.append(" ".join(f"{name} {row[f'rewards/{name}/mean'] or 0:.2f}" for name in names))
    if row.get("completions/mean_length"):
        parts.append(f"{row['completions/mean_length']:.0f} tokens")
    if row.get("entropy") is not None:
        parts.append(f"entropy {row['entropy']:.2f}")
    parts.append(f"{row['time/step']:.1f} s ({row['tokens_per_second']:.0f} tokens/s)")
    left = (max_steps - row["step"]) * row["time/step"]
    parts.append(
        f"{left:.0f} s left"
        if left < 120
        else f"{left / 60:.0f} min left"
        if left < 7200
        else f"{left / 3600:.1f} h left"
    )
    return " · ".join(parts)
