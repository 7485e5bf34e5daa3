"""Every mistake in a train section is found at once, without torch, at the key that has to change."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openr1_repro.train.settings import TrainSettings, options, problems
from pydantic import ValidationError


def errors_of(**section):
    with pytest.raises(ValidationError) as caught:
        TrainSettings.model_validate(section)
    return {error["loc"]: error["msg"] for error in caught.value.errors()}


def test_all_mistakes_at_once_each_at_its_key():
    found = errors_of(
        grpo={"learning_rat": 1.0, "learning_rate": "1e-6", "lr_scheduler_type": "cosin", "output_dir": "x"},
        accelerate={"num_proceses": 7, "deepspeed_config": {"zero_stag": 2}},
        lora={"r": "x"},
        vllm={"tensor_paralel_size": 2},
    )
    assert "did you mean `learning_rate`" in found["grpo", "learning_rat"]
    assert "write 1e-06" in found["grpo", "learning_rate"]
    assert "did you mean `cosine`" in found["grpo", "lr_scheduler_type"]
    assert "--work" in found["grpo", "output_dir"]
    assert "did you mean `num_processes`" in found["accelerate", "num_proceses"]
    assert "did you mean `zero_stage`" in found["accelerate", "deepspeed_config", "zero_stag"]
    assert "must be int" in found["lora", "r"]
    assert "did you mean `tensor_parallel_size`" in found["vllm", "tensor_paralel_size"]


@pytest.mark.parametrize(
    ("section", "place", "part"),
    [
        (
            {"grpo": {"per_device_train_batch_size": 3, "num_generations": 4}},
            ("grpo", "num_generations"),
            "does not divide by 4",
        ),
        ({"grpo": {"use_cpu": True, "use_vllm": True}}, ("grpo", "use_vllm"), "needs a GPU"),
        ({"layout": "server"}, ("layout",), "use_vllm"),
        ({"vllm": {"enforce_eager": True}}, ("vllm",), "layout: server"),
        (
            {"vllm": {"enforce_eager": True}, "grpo": {"use_vllm": True}, "fast_generation": False},
            ("vllm",),
            "fast_generation",
        ),
        (
            {"vllm": {"max_model_len": 64}, "grpo": {"use_vllm": True}},
            ("vllm", "max_model_len"),
            "vllm_max_model_length",
        ),
        ({"completions_per_step": 12}, ("completions_per_step",), "12 does not divide by 8 × 1"),
        (
            {"completions_per_step": 64, "grpo": {"gradient_accumulation_steps": 8}},
            ("grpo", "gradient_accumulation_steps"),
            "leave one",
        ),
        ({"grpo": {"max_prompt_length": 512}}, ("grpo", "max_prompt_length"), "max_prompt_tokens"),
        ({"grpo": {"warmup_ratio": 0.1}}, ("grpo", "warmup_ratio"), "warmup_steps"),
        ({"grpo": {"num_generations": 1}}, ("grpo", "num_generations"), "at least 2"),
        ({"grpo": {"save_only_model": True}}, ("grpo", "save_only_model"), "resumed"),
        ({"warm_start": {"sft": {"learning_rates": 1}}}, ("warm_start", "sft", "learning_rates"), "did you mean"),
    ],
)
def test_what_cannot_work_together(section, place, part):
    assert part in errors_of(**section)[place]


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([1, 2, 4]))
def test_the_number_of_processes_does_not_change_the_recipe(processes, batch):
    settings = TrainSettings.model_validate(
        {"completions_per_step": 64, "accelerate": {"num_processes": processes},
         "grpo": {"per_device_train_batch_size": batch, "num_generations": 8}}
    )  # fmt: skip
    assert settings.completions == 64
    assert settings.accumulation * batch * processes == 64
    assert settings.num_gpus == processes


@given(st.sampled_from(sorted(options()["grpo"])))
def test_upstream_s_own_defaults_are_accepted(name):
    default = options()["grpo"][name]["default"]
    if default is not None:
        assert problems("grpo", {name: default}) == {}


def test_the_seed_s_layout_counts_its_server():
    settings = TrainSettings.model_validate(
        {"layout": "server", "accelerate": {"num_processes": 7},
         "grpo": {"use_vllm": True, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 32, "num_generations": 2}}
    )  # fmt: skip
    assert (settings.num_gpus, settings.num_serving_gpus, settings.completions) == (8, 1, 448)


def test_checking_imports_no_torch():
    code = "import sys, openr1_repro.train.settings; assert not {'torch', 'transformers', 'trl'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
