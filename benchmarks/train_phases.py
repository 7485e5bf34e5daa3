"""Where a step's time goes on one GPU, each phase by itself and kernel by kernel; the model and shapes of benchmarks/train_gpu.py.

    python benchmarks/train_phases.py training [--variants flash_attention_4,flash_attention_4+residual] [--out FOLDER]
    python benchmarks/train_phases.py generation [--engines '{"base": {}, "fp8": {"kv_cache_dtype": "fp8"}}'] [--out FOLDER]

training: a real `train.trainer.Trainer` whose completions are random tokens, so that no engine has to start; every variant of attention (by
transformers' names, ``+residual``: `autocast_residual`, ``+compile``: the layers by torch.compile) gets four optimizer steps in one process,
then four more with a profile of the third. Before them: how far each attention's log-probabilities and gradients are from PyTorch's.

generation: 256 sequences of 2,048 tokens by an engine as `train.engine` starts it, with these options of vLLM's EngineArgs; the second time
with a profile of 40 token steps in the middle. Engines start together and are timed in turn.

Writes ``<name>.txt`` (kernels by time) beside the figures it prints.
"""

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import train_gpu  # which puts this project's folders first on the path
from openr1_repro.train import engine
from train_gpu import INPUTS

os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:3], os.environ.get("PYTHONPATH", "")])  # for vLLM's worker
TOKENS = 2048


def kernels(profiler: Any, steps: int = 1) -> str:
    """The kernels of a profile, the longest first: milliseconds a step, share, calls, name."""
    found = [
        (event.self_device_time_total / 1e3 / steps, event.count, event.key)
        for event in profiler.key_averages()
        if event.device_type != torch.autograd.DeviceType.CPU and not event.is_user_annotation
    ]
    total = sum(ms for ms, _, _ in found) or 1.0
    lines = [f"kernels take {total:.2f} ms a step"]
    lines += [f"{ms:9.3f} ms {100 * ms / total:5.1f} % {n:6d} {name[:160]}" for ms, n, name in sorted(found)[:-61:-1]]
    return "\n".join(lines) + "\n"


# --- training ------------------------------------------------------------------------------------------------------------------


def make_trainer(attention: str, tokens: int, options: dict[str, Any]) -> Any:
    """A Trainer on random completions of ``tokens`` tokens with rewards of their own."""
    import pyarrow.parquet
    from datasets import Dataset
    from openr1_repro import rewards
    from openr1_repro.stage import Chat
    from openr1_repro.train import grpo
    from openr1_repro.train.settings import TrainStage
    from openr1_repro.train.trainer import Trainer

    class RandomCompletions(Trainer):
        def _generate_single_turn(self, prompt_ids: Any, *args: Any) -> Any:
            ids = torch.randint(300, self.model.config.vocab_size, (len(prompt_ids), tokens))
            for row, length in zip(ids, torch.randint(tokens, (len(ids),)).tolist(), strict=True):
                row[:length:2] = digit  # what the reward counts
            return ids.tolist(), [[-11.9] * tokens] * len(ids)

    grpo_options = {**train_gpu.COMMON, **train_gpu.BATCHED, "use_vllm": False, "max_steps": 1000, **options}
    del grpo_options["generation_kwargs"]
    section = {"grpo": grpo_options, "rewards": {"reward_funcs": ["tiny:digits"]}}
    settings = TrainStage.model_validate({"train": section}).train
    tokenizer = grpo.load_tokenizer(INPUTS / "model" / "files", Chat())
    digit = tokenizer.encode("7")[0]
    scored = rewards.load(settings.rewards)
    work = Path(tempfile.mkdtemp())
    return RandomCompletions(
        model=str(INPUTS / "model" / "files"), reward_funcs=list(scored.reward_funcs), work=work, old_logprobs_of_sampler=True,
        args=grpo.grpo_config(settings, work, attention, scored.reward_weights), processing_class=tokenizer,
        train_dataset=Dataset(pyarrow.parquet.read_table(INPUTS / "prompts" / "train.parquet")), reward_statistics=scored.statistics,
    )  # fmt: skip


def compare(model: Any, attentions: list[str]) -> str:
    """Log-probabilities and gradients of one batch with padding, each attention's against PyTorch's."""
    ids = torch.randint(300, model.config.vocab_size, (4, 1024), device=model.device)
    mask = torch.ones_like(ids)
    for row in range(4):
        mask[row, : row * 128] = 0
    lines, exact = [], None
    for attention in ["sdpa", *attentions]:
        model.set_attn_implementation(attention)
        model.zero_grad(set_to_none=True)
        with torch.autocast(model.device.type, dtype=torch.bfloat16):
            output = model(
                input_ids=ids, attention_mask=mask, labels=ids.masked_fill(mask == 0, -100), fused_lm_head=True
            )
        output.loss.backward()
        weights = {f"{i}.{name}": getattr(model.model.layers[i].self_attn, name).weight
                   for i in (0, len(model.model.layers) - 1) for name in ("q_proj", "k_proj", "v_proj")}  # fmt: skip
        gradients = {name: weight.grad.clone() for name, weight in weights.items()}
        exact = exact or (output.log_probs.detach(), gradients)
        apart = {name: ((gradients[name] - exact[1][name]).norm() / exact[1][name].norm()).item() for name in gradients}
        lines.append(
            f"{attention}: log-probabilities {(output.log_probs.detach() - exact[0]).abs().mean().item():.4f} from sdpa's, gradients "
            + " ".join(f"{name} {value:.4f}" for name, value in apart.items())
        )
    model.zero_grad(set_to_none=True)
    return "\n".join(lines)


def training(variants: list[str], out: Path, tokens: int = TOKENS, **options: Any) -> None:
    """Time and profile training alone."""
    import transformers
    from openr1_repro.train.trainer import as_autocast

    attentions = [variant.split("+")[0] for variant in variants]
    trainer = make_trainer(attentions[0], tokens, options)
    model = trainer.model
    print(compare(model, sorted({*attentions} - {"sdpa"})), flush=True)
    plan = [(variant, False) for variant in variants] + [(variant, True) for variant in variants]
    seconds: dict[tuple[str, bool], list[float]] = {}
    hook, profiler = None, None

    class Windows(transformers.TrainerCallback):
        """Four steps for each entry of ``plan``."""

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            nonlocal hook, profiler
            variant, is_profiled = plan[state.global_step // 4]
            if state.global_step % 4 == 0:
                attention, *more = variant.split("+")
                model.set_attn_implementation(attention)
                if hook:
                    hook.remove()
                hook = model.get_input_embeddings().register_forward_hook(as_autocast) if "residual" in more else None
                for layer in model.model.layers:
                    layer._compiled_call_impl = None
                    if "compile" in more:
                        layer.compile()
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
            if is_profiled and state.global_step % 4 == 2:
                profiler = torch.profiler.profile()
                profiler.__enter__()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            nonlocal profiler
            if profiler:
                profiler.__exit__(None, None, None)
                (out / f"{plan[(state.global_step - 1) // 4][0]}.txt").write_text(kernels(profiler))
                profiler = None
            control.should_training_stop = state.global_step >= 4 * len(plan)

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
            if "time/train" in logs:
                variant = plan[(state.global_step - 1) // 4]
                seconds.setdefault(variant, []).append(logs["time/train"])
                if len(seconds[variant]) == 4 and not variant[1]:
                    median = statistics.median(seconds[variant][1:])
                    print(
                        f"{variant[0]}: {median:.3f} s of training a step, {logs['memory/peak_gib']:.1f} GiB",
                        flush=True,
                    )

    trainer.add_callback(Windows())
    trainer._save_checkpoint = lambda *args: None
    trainer.train()


# --- generation ----------------------------------------------------------------------------------------------------------------


class Profiled(engine.TrainerExtension):
    """The trainer's extension of vLLM's worker, with a profile of some of its steps."""

    def profile_steps(self, first: int, last: int) -> None:
        """Profile the worker's steps from now on numbered ``first`` to ``last``."""
        execute, count, self.kernels = self.model_runner.execute_model, 0, ""  # type: ignore[attr-defined]
        profiler = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal count
            count += 1
            if count == first:
                profiler.__enter__()
            output = execute(*args, **kwargs)
            if count == last:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                profiler.__exit__(None, None, None)
                self.kernels = kernels(profiler, last - first)
            return output

        self.model_runner.execute_model = counted  # type: ignore[attr-defined]

    def profile_found(self) -> str:
        """What the profile holds."""
        return self.kernels


def one_engine(name: str, options: dict[str, Any], out: Path, tokens: int, ready: Any, turn: Any, done: Any) -> None:
    """Start an engine, wait for its turn, time it."""
    from vllm import LLM, SamplingParams

    try:
        llm = LLM(
            model=str(INPUTS / "model" / "files"), max_model_len=2304, logprobs_mode="processed_logprobs",
            worker_extension_cls=f"train_phases.{Profiled.__name__}",
            **{"kv_cache_memory_bytes": 15 << 30, "max_num_seqs": 256, **engine.DEFAULTS, **options},
        )  # fmt: skip
        llm.collective_rpc("keep_logprobs")
        prompts = [{"prompt_token_ids": list(range(300 + i, 340 + i + i % 30))} for i in range(256)]

        def seconds(tokens: int) -> float:
            parameters = SamplingParams(temperature=0.7, max_tokens=tokens, logprobs=0, flat_logprobs=True, detokenize=False, ignore_eos=True)  # fmt: skip
            started = time.perf_counter()
            llm.generate(prompts, parameters, use_tqdm=False)
            llm.collective_rpc("take_logprobs")
            return time.perf_counter() - started

        seconds(64)
        ready.set()
        turn.wait()
        print(f"{name} {options}: {seconds(tokens):.2f} s for 256 x {tokens} tokens", flush=True)
        llm.collective_rpc("profile_steps", args=(tokens // 2, tokens // 2 + 40))
        seconds(tokens)
        (out / f"{name}.txt").write_text(llm.collective_rpc("profile_found")[0])
    finally:
        ready.set()
        done.set()


def generation(engines: dict[str, dict[str, Any]], out: Path, tokens: int = TOKENS) -> None:
    """Time and profile generation alone."""
    os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    context = multiprocessing.get_context("spawn")
    events = {name: [context.Event() for _ in range(3)] for name in engines}
    started = [
        context.Process(target=one_engine, args=(name, engines[name], out, tokens, *events[name])) for name in engines
    ]
    for process in started:
        process.start()
    for ready, _, _ in events.values():
        ready.wait(600)
    for _, turn, done in events.values():
        turn.set()
        done.wait(300)
    for process in started:
        process.join(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("phase", choices=["training", "generation"])
    parser.add_argument(
        "--variants", default="flash_attention_4,flash_attention_4+residual", help="with commas between"
    )
    parser.add_argument("--engines", type=json.loads, default={"base": {}, "fp8": {"kv_cache_dtype": "fp8"}})
    parser.add_argument("--out", type=Path, default=Path("/tmp/train_phases"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train_gpu.make_inputs(INPUTS)
    if arguments.phase == "training":
        training(arguments.variants.split(","), arguments.out)
    else:
        generation(arguments.engines, arguments.out)


if __name__ == "__main__":
    main()
