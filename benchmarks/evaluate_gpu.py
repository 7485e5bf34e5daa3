"""Generation of the evaluate stage against raw vLLM's offline throughput, for the same requests in the same run.

    PYTHONPATH=workflow:SITE python benchmarks/evaluate_gpu.py --work /tmp/evaluate --end 50 --rows $OUT/evaluate.json
    PYTHONPATH=workflow:SITE python benchmarks/evaluate_gpu.py --work /tmp/evaluate --end 50 --gpus 0,1 --rows $OUT/evaluate.json

One GPU: 30 problems x 64 samples x up to 4,096 tokens at DeepSeek-R1-Distill-Qwen-1.5B's shape (random weights and a byte-level
tokenizer made here, so nothing is fetched), by ``vllm.LLM.generate`` and by the stage's engine, in turn. Row evaluate.generate (goal
0.9). With --gpus 0,1 the same by one GPU and by both: row evaluate.generate_two_gpus (goal 1.8). Random weights draw their tokens
about evenly: ``--end 50`` lets 51 of the 151,936 end a text, for 2,200 tokens on average; without it every text is 4,096 long. ``--seeds
both`` measures without a seed per request, too. Engine start is timed on neither side; the stage's rate includes decoding
and writing every response to disk. A run is about 100 s of generation a side, plus starts.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "workflow"))
import common

SHAPES = {
    "1.5b": {"hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12, "num_key_value_heads": 2,
             "intermediate_size": 8960, "vocab_size": 151936},
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
             "intermediate_size": 128, "vocab_size": 512},
}  # fmt: skip


def make_model(folder: Path, shape: str, end: int) -> None:
    """Random weights of the shape, and a byte-level tokenizer."""
    if (folder / "config.json").exists():
        return
    import tokenizers
    import torch
    import transformers

    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: index for index, token in enumerate(alphabet)}
    size = SHAPES[shape]["vocab_size"]
    vocabulary |= {f"Ġword{index}": index for index in range(len(vocabulary), size - 1)}
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|end|>", pad_token="<|end|>")
    tokenizer.chat_template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
    config = transformers.Qwen2Config(
        **SHAPES[shape], max_position_embeddings=131072, rope_theta=10000.0, tie_word_embeddings=False,
        bos_token_id=None, eos_token_id=size - 1, dtype="bfloat16",
    )  # fmt: skip
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = transformers.Qwen2ForCausalLM(config).to(torch.bfloat16)
    model.generation_config.eos_token_id = list(range(size - 1 - end, size))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def settings_of(arguments: argparse.Namespace, seeded: bool):
    from openr1_repro.evaluate.settings import EvaluateSettings

    return EvaluateSettings(
        benchmarks=["synthetic"], protocol="open-r1", max_new_tokens=arguments.tokens, samples=arguments.samples,
        engine="vllm", request_seeds=seeded, vllm=json.loads(arguments.vllm), dtype=arguments.dtype,
    )  # fmt: skip


def requests_of(arguments: argparse.Namespace, settings, tokenizer, run: int) -> list:
    """30 problems x 64 samples; ``run`` makes the problems others, so that no run finds the last one's prefixes or
    responses."""
    from openr1_repro.evaluate import vllm_engine
    from openr1_repro.evaluate.protocol import sampling_of
    from openr1_repro.evaluate.responses import Request
    from openr1_repro.evaluate.settings import BenchmarkSettings

    sampling, samples = sampling_of("synthetic", BenchmarkSettings(dataset="none"), settings)
    requests = []
    for item in range(arguments.problems):
        problem = f"Run {run}, problem {item}: find the sum of all positive whole numbers n below {item + 100} that divide 10^n. "
        messages = [{"role": "user", "content": problem * 2}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        requests += [Request("synthetic", item, sample, prompt, sampling) for sample in range(samples)]
    return vllm_engine.plan(requests, settings)


def ours(arguments: argparse.Namespace, model: Path, seeded: bool, gpus: str, runs: list[int]) -> list[dict]:
    """Tokens a second of the stage's engine and cache, from the first request to the last response, one engine start
    a run."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    import transformers
    from openr1_repro.evaluate import vllm_engine
    from openr1_repro.evaluate.responses import ResponseCache, fingerprint

    settings = settings_of(arguments, seeded)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    results = []
    for run in runs:
        planned = requests_of(arguments, settings, tokenizer, run)
        cache = ResponseCache(arguments.work / f"store-{os.getpid()}-{run}", fingerprint(model), "benchmark")
        tokens = responses = 0
        start = time.perf_counter()
        for answers in vllm_engine.generate(model, tokenizer, planned, settings, cache.get):
            if not answers:  # the engines are up
                start = time.perf_counter()
                continue
            cache.add(answers)
            tokens += sum(response.num_tokens for _, response in answers)
            responses += len(answers)
            seconds = time.perf_counter() - start
        cache.close()
        assert responses == len(planned)
        results.append({"tokens": tokens, "seconds": seconds, "rate": tokens / seconds, "responses": responses})
        print(f"ours, GPU {gpus}, {'seeded' if seeded else 'unseeded'}: {results[-1]}", flush=True)
    return results


def raw(arguments: argparse.Namespace, model: Path, seeded: bool, gpus: str, runs: list[int]) -> list[dict]:
    """Tokens a second of ``vllm.LLM.generate`` on the same requests, with vLLM's own detokenization, as its users
    call it."""
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus
    import transformers
    import vllm
    from openr1_repro.evaluate import vllm_engine

    settings = settings_of(arguments, seeded)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    options = {
        **vllm_engine.DEFAULTS,
        "dtype": "bfloat16" if settings.dtype == "auto" else settings.dtype,
        **settings.vllm,
    }
    # As long as the stage makes it: another length is another entry in vLLM's compile cache.
    probe = requests_of(arguments, settings, tokenizer, runs[0])
    longest = max(len(tokenizer(request.prompt)["input_ids"]) for request in probe)
    options.setdefault("max_model_len", longest + arguments.tokens)
    llm = vllm.LLM(str(model), **options)
    results = []
    for run in runs:
        planned = requests_of(arguments, settings, tokenizer, run)
        prompts = [{"prompt_token_ids": tokenizer(r.prompt, add_special_tokens=False)["input_ids"]} for r in planned]
        parameters = [
            vllm.SamplingParams(
                temperature=r.sampling.temperature, top_p=r.sampling.top_p, top_k=r.sampling.top_k,
                max_tokens=r.sampling.max_new_tokens, seed=r.seed if seeded else None,
            )
            for r in planned
        ]  # fmt: skip
        start = time.perf_counter()
        outputs = llm.generate(prompts, parameters, use_tqdm=False)
        seconds = time.perf_counter() - start
        tokens = sum(len(output.outputs[0].token_ids) for output in outputs)
        results.append({"tokens": tokens, "seconds": seconds, "rate": tokens / seconds, "responses": len(outputs)})
        print(f"raw vllm, GPU {gpus}, {'seeded' if seeded else 'unseeded'}: {results[-1]}", flush=True)
    llm.llm_engine.engine_core.shutdown()
    return results


def apart(function, *arguments) -> list[dict]:
    """Call ``function`` in a process of its own: its GPU memory is free afterwards."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(False)
    process = context.Process(target=_call, args=(sender, function, arguments))  # not daemonic: vLLM starts processes
    process.start()
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _call(sender, function, arguments) -> None:
    sender.send(function(*arguments))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the model and the responses")
    parser.add_argument("--rows", type=Path, help="JSON file to copy this run's rows to")
    parser.add_argument("--gpus", default="0", help="one index, or two: then one is compared with two")
    parser.add_argument("--shape", choices=SHAPES, default="1.5b")
    parser.add_argument("--problems", type=int, default=30)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--end", type=int, default=0, help="tokens that end a text, of random weights' uniform choice")
    parser.add_argument("--runs", type=int, default=1, help="of each side, in turn")
    parser.add_argument("--seeds", choices=("request", "engine", "both"), default="request")
    parser.add_argument("--vllm", default="{}", help="options of vllm.LLM for both sides, as JSON")
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    model = arguments.work / f"model-{arguments.shape}-{arguments.end}"
    apart(_make, model, arguments.shape, arguments.end)
    gpus = arguments.gpus.split(",")
    size = f"{arguments.problems} problems x {arguments.samples} samples x up to {arguments.tokens} tokens"

    for seeded in {"request": [True], "engine": [False], "both": [True, False]}[arguments.seeds]:
        suffix = "" if seeded else "_unseeded"
        mine, peer = [], []
        for run in range(1, arguments.runs + 1):
            if len(gpus) == 1:
                peer += apart(raw, arguments, model, seeded, gpus[0], [run])
            else:
                peer += apart(ours, arguments, model, seeded, gpus[0], [run])
            mine += apart(ours, arguments, model, seeded, ",".join(gpus), [run])
        rates = [sorted(result["rate"] for result in results)[len(results) // 2] for results in (mine, peer)]
        name = "evaluate.generate" if len(gpus) == 1 else "evaluate.generate_two_gpus"
        other = "vllm.LLM.generate" if len(gpus) == 1 else "one GPU"
        common.write_row(
            name + suffix, "tokens/s", rates[0], other, rates[1], setting=f"{size}, {arguments.shape} shape", goal=0.9 if len(gpus) == 1 else 1.8,
            runs_ours=mine, runs_peer=peer, gpu=gpu_name(),
        )  # fmt: skip
    if arguments.rows:
        arguments.rows.write_text((common.RESULTS / "evaluate.json").read_text())


def _make(*arguments) -> list[dict]:
    make_model(*arguments)
    return []


def gpu_name() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none"


if __name__ == "__main__":
    main()
