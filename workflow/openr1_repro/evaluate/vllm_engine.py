"""Generation by vLLM: an engine for each group of leased GPUs, fed as it goes, every response handed over when it is finished.

A worker process owns the GPUs of one engine (``tensor_parallel_size`` of them). The parent keeps each supplied with a few more requests
than it can hold, so that no engine idles while another has work left, and turns tokens into text, which costs the engines nothing.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import transformers

from openr1_repro.evaluate.responses import Request, Response, seed_of
from openr1_repro.evaluate.settings import EvaluateSettings
from openr1_repro.stage import UserError

Answers = list[tuple[Request, Response]]

# The project's choices; ``evaluate.vllm`` replaces any of them.
DEFAULTS = {"gpu_memory_utilization": 0.9, "max_num_seqs": 512, "distributed_executor_backend": "mp"}
HAND_OVER_SECONDS = 0.5
"""How long a finished response may wait in a worker: what a kill loses."""


def identity(settings: EvaluateSettings) -> str:
    """What of the engine decides a text, for the response cache."""
    import vllm  # here: neither planning nor the GPUs' groups need it

    options = {**DEFAULTS, **settings.vllm}
    # how the work is spread changes no more than the batches do, which are never the same twice
    numeric = {
        key: options[key] for key in sorted(options) if key in ("quantization", "kv_cache_dtype", "hf_overrides")
    }
    return f"vllm {vllm.__version__} {settings.dtype} {numeric or ''}"


def plan(requests: Iterable[Request], settings: EvaluateSettings) -> list[Request]:
    """The requests, sample by sample, each with its seed."""
    planned = []
    for request in sorted(requests, key=lambda r: (r.sample, r.benchmark, r.item)):
        seed = seed_of(settings.seed, request.benchmark, request.item, request.sample)
        planned.append(replace(request, seed=seed))
    return planned


def generate(
    folder: Path,
    tokenizer: Any,
    planned: list[Request],
    settings: EvaluateSettings,
    stored: Callable[[Request], Response | None],
) -> Iterator[Answers]:
    """Answer the requests not yet ``stored``, in the order in which they finish; first nothing, when the engines are up.

    Raises:
        UserError: if an engine does not start or dies; what was handed over before is kept by the caller.
    """
    todo = [request for request in planned if stored(request) is None]
    if not todo:
        return
    options = {**DEFAULTS, "dtype": "bfloat16" if settings.dtype == "auto" else settings.dtype, **settings.vllm}
    if not settings.request_seeds:
        options.setdefault("seed", settings.seed)
    groups = gpu_groups(int(options.get("tensor_parallel_size", 1)) * int(options.get("pipeline_parallel_size", 1)))
    groups = groups[: len(todo)]
    tokens = {r.prompt: tokenizer(r.prompt, add_special_tokens=False)["input_ids"] for r in todo}
    longest = max(map(len, tokens.values()))
    positions = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).max_position_embeddings
    if longest >= positions:
        raise UserError(f"{folder}: a prompt of {longest} tokens leaves no room in the model's {positions} positions")
    options.setdefault("max_model_len", min(positions, longest + max(r.sampling.max_new_tokens for r in todo)))
    numbered = list(enumerate(todo))[::-1]
    unanswered: dict[int, Request] = {}

    def feed(worker: Worker, count: int) -> None:
        batch = [numbered.pop() for _ in range(min(count, len(numbered)))]
        unanswered.update(batch)
        if batch:
            worker.send([
                (number, tokens[r.prompt], {**r.sampling.model_dump(), "seed": r.seed if settings.request_seeds else None})
                for number, r in batch
            ])  # fmt: skip

    workers = [Worker(folder, options, group) for group in groups]
    try:
        for worker in workers:
            worker.receive()
        yield []  # the engines are up
        share = -(-len(todo) // len(workers))
        for worker in workers:
            feed(worker, min(int(options["max_num_seqs"]) * 3 // 2, share))
        by_pipe: dict[Any, Worker] = {worker.pipe: worker for worker in workers}
        while unanswered:
            for pipe in multiprocessing.connection.wait(list(by_pipe)):
                finished = by_pipe[pipe].receive()
                feed(by_pipe[pipe], len(finished))
                answers: Answers = []
                for number, ids, reason in finished:
                    request = unanswered.pop(number)
                    text = tokenizer.decode(ids, skip_special_tokens=True)
                    for stop in request.sampling.stop:
                        text = text.split(stop, 1)[0]
                    answers.append((request, Response(text, len(ids), "stop" if reason == "stop" else "length")))
                yield answers
    finally:
        for worker in workers:
            worker.stop()


def gpu_groups(size: int) -> list[str]:
    """The leased GPUs (CUDA_VISIBLE_DEVICES, else all) in groups of ``size``, each as a CUDA_VISIBLE_DEVICES.

    Raises:
        UserError: if there are fewer.
    """
    leased = os.environ.get("CUDA_VISIBLE_DEVICES")
    if leased is None:
        import torch

        gpus = [str(index) for index in range(torch.cuda.device_count())] or [""]  # "": vLLM's build for CPUs
    else:
        gpus = [gpu.strip() for gpu in leased.split(",") if gpu.strip()] or [""]
    if len(gpus) < size:
        raise UserError(
            f"evaluate.vllm: tensor_parallel_size × pipeline_parallel_size is {size}, but {len(gpus)} GPU is leased"
        )
    return [",".join(gpus[start : start + size]) for start in range(0, len(gpus) - size + 1, size)]


class Worker:
    """One engine in a process of its own, which ends when this one does."""

    def __init__(self, folder: Path, options: dict[str, Any], gpus: str):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.gpus = gpus
        self.process = context.Process(target=_serve, args=(other, str(folder), options, gpus))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid
        other.close()

    def send(self, batch: Any) -> None:
        """Hand over requests: number, token ids, sampling."""
        with contextlib.suppress(OSError):  # it is dead: receive says so
            self.pipe.send(batch)

    def receive(self) -> list[tuple[int, list[int], str]]:
        """What it has finished: number, token ids, finish reason."""
        try:
            message = self.pipe.recv()
        except (EOFError, ConnectionResetError):
            self.process.join(10)
            raise UserError(
                f"the vLLM engine on GPU {self.gpus or '(none)'} died (exit status {self.process.exitcode}); its own message is above. "
                "Finished samples are kept: run again; if memory ran out, lower evaluate.vllm.gpu_memory_utilization or max_num_seqs"
            ) from None
        if isinstance(message, str):
            raise UserError(f"vLLM on GPU {self.gpus or '(none)'}: {message}. Finished samples are kept")
        return message

    def stop(self) -> None:
        """End the process, kindly first."""
        self.pipe.close()
        self.process.join(30)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # vLLM's own processes outlive a worker that was killed
        self.process.join()


def _serve(pipe: Any, folder: str, options: dict[str, Any], gpus: str) -> None:
    """The worker: take requests, step the engine, hand over what is finished; end when the parent closes the pipe, or is gone."""
    os.setsid()  # a process group with what vLLM starts
    if gpus:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(pipe, inbox), daemon=True).start()
    engine = None
    try:
        import vllm

        engine = vllm.LLM(folder, **options).llm_engine
        threading.Thread(target=_end_with, args=(multiprocessing.active_children(),), daemon=True).start()
        pipe.send([])
        finished: list[tuple[int, list[int], str | None]] = []
        handed_over = time.monotonic()
        while True:
            idle = not engine.has_unfinished_requests()
            if finished and (idle or time.monotonic() - handed_over > HAND_OVER_SECONDS):
                pipe.send(finished)
                finished, handed_over = [], time.monotonic()
            with contextlib.suppress(queue.Empty):
                batch = inbox.get(block=idle)
                if batch is None:
                    return
                for number, ids, sampling in batch:
                    engine.add_request(str(number), {"prompt_token_ids": ids}, _parameters(vllm, sampling))
            for output in engine.step() if engine.has_unfinished_requests() else ():
                if output.finished:
                    done = output.outputs[0]
                    finished.append((int(output.request_id), list(done.token_ids), done.finish_reason))
    except BrokenPipeError:
        pass  # the parent is gone
    except Exception as error:
        traceback.print_exc()
        with contextlib.suppress(OSError):
            pipe.send(f"{type(error).__name__}: {error}")
    finally:
        if engine is not None:
            engine.engine_core.shutdown()  # else leaving waits for vLLM's own processes, which wait for requests


def _end_with(children: list[Any]) -> None:
    """End this process when one of vLLM's own has ended: killed, it would be waited for without end (vLLM 0.26 to 0.31)."""
    multiprocessing.connection.wait([child.sentinel for child in children])
    os._exit(1)


def _take(pipe: Any, inbox: "queue.SimpleQueue[Any]") -> None:
    """Move what the parent sends to ``inbox``, so that neither side ever waits for the other to read; None at the end."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            inbox.put(pipe.recv())
    inbox.put(None)


def _parameters(vllm: Any, sampling: dict[str, Any]) -> Any:
    """``SamplingParams`` of a request: everything said, so that no generation_config.json has a say."""
    return vllm.SamplingParams(
        temperature=sampling["temperature"],
        top_p=sampling["top_p"],
        top_k=sampling["top_k"],
        max_tokens=sampling["max_new_tokens"],
        seed=sampling["seed"],
        stop=sampling["stop"] or None,
        detokenize=bool(sampling["stop"]),  # the parent does it, once a response
        output_kind=vllm.sampling_params.RequestOutputKind.FINAL_ONLY,
    )
