"""vLLM beside the trainer on its GPU, in a process of its own, asked for nothing that GRPO does not use.

TRL's colocated engine runs in the trainer's process: scheduling, detokenization and a Python object for every token's log-probability take
turns with the kernels. Here they run beside them: the engine has its own process, token ids are not turned into text (TRL does that itself,
in one batch), and log-probabilities stay on the GPU until all completions are done. Weights go over through memory that both processes map
(CUDA IPC), so nothing is copied through the host. What the trainer gets is what TRL's own class gives it.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import re
import signal
import threading
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.multiprocessing.reductions import reduce_tensor
from trl.generation.vllm_generation import VLLMGeneration

from openr1_repro.process import die_with_parent
from openr1_repro.stage import UserError

BUCKET_BYTES = 1 << 30
# Options of vLLM's EngineArgs that the variant's take the place of.
DEFAULTS = {
    "max_num_batched_tokens": 8192,
    "distributed_executor_backend": "mp",  # the worker in a process, too: scheduling runs beside launching kernels
}
ENGINE_PROCESS = "OPENR1_REPRO_ENGINE"
# What torchrun tells a rank. An engine that took it for its own would wait for ever, a client of a store that nobody serves.
DISTRIBUTED = re.compile("(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|ROLE_NAME|MASTER_(ADDR|PORT)|TORCHELASTIC_.*")


if ENGINE_PROCESS in os.environ:  # vLLM imports this module for `TrainerExtension` before anything that takes long
    die_with_parent()


class TrainerExtension:
    """What the engine's worker learns to do (vLLM's `worker_extension_cls`)."""

    def load_shared(self, packed: bytes) -> None:
        """Load weights from memory that the trainer shares.

        Args:
            packed: pickle of (rebuild, its arguments, [(name, shape, offset)]), from `OwnProcessEngine.sync_weights`.
        """
        rebuild, arguments, places = pickle.loads(packed)
        device = self.device.index or 0  # type: ignore[attr-defined]
        # The trainer's own number of this GPU (7th argument) means another GPU here, where only this one is visible.
        buffer = rebuild(*arguments[:6], device, *arguments[7:])
        weights = [
            (name, buffer[offset : offset + torch.Size(shape).numel()].view(shape)) for name, shape, offset in places
        ]
        self.model_runner.model.load_weights(weights)  # type: ignore[attr-defined]
        torch.cuda.synchronize()  # the trainer fills the buffer anew as soon as this returns

    def keep_logprobs(self) -> None:
        """From now on keep the log-probabilities of sampled tokens on the GPU for `take_logprobs`, in place of sending each step's.

        Sent a step at a time they are three arrays a sequence to write, read and append in Python, which takes longer than the model does.
        Only vLLM's second model runner, its default for dense models, has a `sample` to extend; the first one goes on sending.
        """
        self.kept: list[tuple[Any, ...]] = []
        self.numbers: dict[str, int] = {}
        sample = getattr(self.model_runner, "sample", None)  # type: ignore[attr-defined]
        if sample is None:
            return

        def sample_and_keep(hidden_states: Any, input_batch: Any, grammar_output: Any) -> Any:
            output, *counts = sample(hidden_states, input_batch, grammar_output)
            if output.logprobs_tensors is not None:
                numbers = [self.numbers.setdefault(name, len(self.numbers)) for name in input_batch.req_ids]
                lengths = input_batch.seq_lens[: len(numbers)].clone()  # a buffer that the next step overwrites
                logprobs = output.logprobs_tensors.logprobs[:, 0]
                self.kept.append((numbers, lengths, output.num_sampled, output.sampled_token_ids[:, 0], logprobs))
                output.logprobs_tensors = None
            return output, *counts

        self.model_runner.sample = sample_and_keep  # type: ignore[attr-defined]

    def take_logprobs(self) -> bytes | None:
        """What was kept since the last call, pickled, None if nothing was: an array each, a row for each sequence and step.

        Before them the requests' names, then each row's index among those, the sequence's length before the sampled token, how many tokens
        were sampled (0 in the middle of a prompt), the sampled token, its log-probability.
        """
        kept, names = self.kept, list(self.numbers)
        self.kept, self.numbers = [], {}
        if not kept:
            return None
        numbers, *columns = zip(*kept, strict=True)
        return pickle.dumps((names, np.concatenate(numbers), *(torch.cat(column).cpu().numpy() for column in columns)))


class EngineProcess:
    """The engine's process, watched: vLLM (0.26 to 0.31) waits for ever for an engine that was killed while it was asked."""

    def __init__(self, processes: Collection[Any]) -> None:
        self.processes = processes
        self.is_asked = False
        signal.signal(signal.SIGRTMIN, self._on_death)
        threading.Thread(target=self._watch, daemon=True).start()

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """While inside, in the main thread, the engine's death is an error.

        Raises:
            UserError: if it dies, or has died before.
        """
        self.is_asked = True
        try:
            if not all(process.is_alive() for process in self.processes):
                self._on_death()
            yield
        finally:
            self.is_asked = False

    def _watch(self) -> None:
        multiprocessing.connection.wait([process.sentinel for process in self.processes])
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGRTMIN)  # wakes it, whatever it waits for

    def _on_death(self, *_: Any) -> None:
        if self.is_asked:
            raise UserError(
                "the vLLM engine died; its own words, if it had any, stand above. If memory ran out, lower `grpo` →"
                " `vllm_gpu_memory_utilization` or `per_device_train_batch_size`; then rerun: it goes on from the last checkpoint"
            )


class OwnProcessEngine(VLLMGeneration):
    """TRL's VLLMGeneration for one GPU a process, with the engine in a process of its own.

    Args:
        engine_options: of vLLM's EngineArgs; see ``TrainSettings.vllm``.
    """

    def __init__(self, *args: Any, engine_options: Mapping[str, Any], **kwargs: Any) -> None:
        self.engine_options = engine_options
        super().__init__(*args, **kwargs)

    def _init_vllm(self) -> None:
        from vllm import LLM

        children = set(multiprocessing.active_children())
        with only_gpu(self.accelerator.device.index or 0):
            self.llm = LLM(
                model=self.model.name_or_path,
                gpu_memory_utilization=self.gpu_memory_utilization,
                max_model_len=self.max_model_length,
                enable_sleep_mode=self.enable_sleep_mode,
                model_impl=self.model_impl,
                seed=self.accelerator.process_index,
                logprobs_mode="processed_logprobs",  # after temperature and truncation: the policy that was sampled from
                trust_remote_code=self.trust_remote_code,
                worker_extension_cls=f"{TrainerExtension.__module__}.{TrainerExtension.__name__}",
                **{"max_num_seqs": self.max_num_seqs, **DEFAULTS, **self.engine_options},
            )
        self.engine = EngineProcess(set(multiprocessing.active_children()) - children)
        self.llm.collective_rpc("keep_logprobs")
        self.dtype = self.llm.llm_engine.model_config.dtype
        self.buffer = torch.empty(0, dtype=self.dtype, device=self.accelerator.device)
        if self.enable_sleep_mode:
            self.llm.sleep(level=2)
        self._llm_weights_sleeping = self.enable_sleep_mode
        self.accelerator.wait_for_everyone()

    def sync_weights(self) -> None:
        """Give the engine the trainer's weights, a bucket at a time."""
        if self.enable_sleep_mode:
            torch.cuda.empty_cache()
            self.llm.wake_up(tags=["weights"])
            self._llm_weights_sleeping = False
        places: list[tuple[str, list[int], int]] = []
        used = 0
        for name, weight in self._iter_named_params():
            if used + weight.numel() > self.buffer.numel():
                self._send(places)
                places, used = [], 0
                wanted = max(weight.numel(), BUCKET_BYTES // self.dtype.itemsize)
                if wanted > self.buffer.numel():
                    self.buffer = torch.empty(wanted, dtype=self.dtype, device=self.accelerator.device)
            self.buffer[used : used + weight.numel()].copy_(weight.reshape(-1))
            places.append((name, list(weight.shape), used))
            used += -(-weight.numel() // 128) * 128  # views stay aligned
        self._send(places)
        self.llm.reset_prefix_cache()

    def _send(self, places: list[tuple[str, list[int], int]]) -> None:
        if places:
            torch.cuda.synchronize()
            with self.engine.asked():
                self.llm.collective_rpc("load_shared", args=(pickle.dumps((*reduce_tensor(self.buffer), places)),))

    def generate(self, prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None) -> tuple:
        """One completion for each of ``prompts`` (TRL repeats a prompt for its group).

        Returns:
            As TRL's: (prompt ids, completion ids, log-probabilities as [sequence][token][1] to iterate over once, None).
        """
        from vllm import SamplingParams

        if images is not None:
            raise NotImplementedError("images: set `fast_generation: false`")
        if self.enable_sleep_mode:
            if self._llm_weights_sleeping:
                self.sync_weights()
            self.llm.wake_up(tags=["kv_cache"])
        parameters = SamplingParams(
            **{
                "n": 1,
                "repetition_penalty": self.repetition_penalty,
                "temperature": self.temperature,
                "top_p": self.top_p,
                "top_k": self.top_k,
                "min_p": self.min_p or 0.0,
                "max_tokens": self.max_completion_length,
                "logprobs": self.logprobs,
                "flat_logprobs": True,
                "detokenize": False,
                **self.generation_kwargs,
            }
        )
        with profiler or contextlib.nullcontext(), self.engine.asked():
            outputs = self.llm.generate([{"prompt_token_ids": ids} for ids in prompts], parameters, use_tqdm=False)
            (packed,) = self.llm.collective_rpc("take_logprobs")
        if self.enable_sleep_mode:
            self.llm.sleep(level=2)
            self._llm_weights_sleeping = True
        completions = [output.outputs[0] for output in outputs]
        ids = [list(completion.token_ids) for completion in completions]
        if packed is None:
            # With `logprobs=0` each position holds the sampled token's alone: the flat list has one number a token.
            logprobs = [completion.logprobs.logprobs for completion in completions]
        else:
            names = [output.request_id for output in outputs]
            logprobs = sort_logprobs(packed, names, [len(prompt) for prompt in prompts], ids)
        # `zip` makes the innermost lists, one number each, as TRL takes them apart; half a million at once would keep Python's
        # garbage collector busy for a second.
        return prompts, ids, [zip(row) for row in logprobs], None


def sort_logprobs(packed: bytes, names: list[str], starts: list[int], ids: list[list[int]]) -> list[list[float]]:
    """The log-probabilities of ``ids``, by sequence, from what `TrainerExtension.take_logprobs` kept by step.

    Args:
        packed: what it returned.
        names: the requests' names, which vLLM's core lengthens by "-" and a random word.
        starts: the prompts' lengths in tokens.
        ids: the completions' token ids.

    Raises:
        RuntimeError: if what was kept does not belong to these completions.
    """
    requests, numbers, lengths, sampled, tokens, values = pickle.loads(packed)
    index = {name: i for i, name in enumerate(names)}
    numbers = np.array([index[name] if name in index else index[name.rpartition("-")[0]] for name in requests])[numbers]
    counts = np.array([len(row) for row in ids])
    positions = lengths - np.array(starts)[numbers]
    # Not asked for: the last step of a partly read prompt, and a step that was under way when its sequence ended.
    wanted = (sampled > 0) & (positions >= 0) & (positions < counts[numbers])
    place = (np.cumsum(counts) - counts)[numbers[wanted]] + positions[wanted]
    logprobs = np.full(counts.sum(), np.nan, dtype=np.float32)
    logprobs[place] = values[wanted]
    kept = np.full(counts.sum(), -1, dtype=np.int64)
    kept[place] = tokens[wanted]
    if not np.array_equal(kept, np.concatenate([np.array(row, dtype=np.int64) for row in ids])):
        raise RuntimeError(
            "the log-probabilities that vLLM kept are of other tokens than its completions: set `fast_generation: false`, and report this"
        )
    return [part.tolist() for part in np.split(logprobs, np.cumsum(counts)[:-1])]


@contextlib.contextmanager
def only_gpu(index: int) -> Iterator[None]:
    """Let a child that is started inside see only this process's GPU, and nothing of its process group."""
    before = dict(os.environ)
    named = before.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = named.split(",")[index] if named else str(index)
    os.environ[ENGINE_PROCESS] = "1"
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package_root(), before.get("PYTHONPATH")]))
    for name in filter(DISTRIBUTED.fullmatch, before):
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def package_root() -> str:
    """The folder that holds this package, for the engine's process to import it from."""
    return os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
