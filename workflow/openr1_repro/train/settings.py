"""Settings of the train stage, checked against the upstream options without importing torch."""

import difflib
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from openr1_repro.rewards.settings import RewardSettings
from openr1_repro.stage import Chat, Settings

# Options of GRPOConfig that the stage sets itself, with where the user sets them instead.
OWNED = {
    "output_dir": "the stage writes into its --work folder",
    "resume_from_checkpoint": "the stage resumes by itself",
    "reward_weights": "set `rewards` → `reward_weights`",
    "deepspeed": "set `accelerate` → `deepspeed_config`",
    "fsdp": "set `accelerate` → `fsdp_config`",
    "vllm_mode": "set `layout`",
    "vllm_server_base_url": "the stage starts the server",
    "vllm_server_host": "the stage starts the server",
    "vllm_server_port": "the stage starts the server",
    "vllm_group_port": "the stage starts the server",
    "report_to": "set `report_to` beside `grpo`",
}
# Options of vLLM's EngineArgs that the engine of a training process gets from elsewhere.
OWNED_ENGINE = {
    "model": "the stage gives it",
    "seed": "it follows from the process's rank",
    "gpu_memory_utilization": "set `grpo` → `vllm_gpu_memory_utilization`",
    "max_model_len": "set `grpo` → `vllm_max_model_length`",
    "tensor_parallel_size": "set `grpo` → `vllm_tensor_parallel_size`, or `layout: server`",
    "enable_sleep_mode": "set `grpo` → `vllm_enable_sleep_mode`",
    "model_impl": "set `grpo` → `vllm_model_impl`",
    "trust_remote_code": "set `grpo` → `trust_remote_code`",
    "logprobs_mode": "GRPO needs `processed_logprobs`",
    "worker_extension_cls": "weights arrive through the stage's own",
}
OWNED_SFT = {name: OWNED[name] for name in ("output_dir", "resume_from_checkpoint", "deepspeed", "fsdp", "report_to")}
KIND_OF = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict", type(None): "null"}


@functools.cache
def options() -> dict[str, dict[str, Any]]:
    """The upstream options by group (``grpo``, ``sft``, ``accelerate``, ``deepspeed``, ``lora``, ``vllm``); see ``options.py``."""
    return json.loads(Path(__file__).with_name("options.json").read_text())


def problems(group: str, values: Mapping[str, Any], owned: Mapping[str, str] | None = None) -> dict[str, str]:
    """What is wrong with ``values`` as options of ``group``: option → message; empty if nothing is.

    Names must exist upstream (the message gives the nearest one that does), types must fit (``1e-6`` read from YAML as a string does
    not), and named choices must be among upstream's. ``owned`` are the options that the stage sets itself, with the advice to give.

    >>> problems("grpo", {"learning_rat": 1e-6})
    {'learning_rat': "TRL's GRPOConfig has no such option; did you mean `learning_rate`?"}
    """
    known = options()[group]
    found: dict[str, str] = {}
    for name, value in values.items():
        if owned and name in owned:
            found[name] = f"cannot be set here: {owned[name]}"
        elif name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.5)
            hint = RENAMED.get(name) or (f"did you mean `{near[0]}`?" if near else "see its documentation")
            found[name] = f"{CLASSES[group]} has no such option; {hint}"
        else:
            kinds, kind = known[name]["types"], KIND_OF[type(value)]
            choices = known[name].get("choices")
            fits = kind in kinds or (kind == "int" and "float" in kinds)
            if not fits and kind == "str" and _is_number(value) and {"int", "float"} & set(kinds):
                found[name] = f"is text, not a number: write {float(value)!r} (YAML reads {value} as text)"
            elif not fits:
                found[name] = f"must be {' or '.join(k for k in kinds)}, not {kind}"
            elif choices and kind == "str" and value not in choices:
                near = difflib.get_close_matches(value, choices, 1)
                hint = f"did you mean `{near[0]}`?" if near else "one of " + ", ".join(choices)
                found[name] = f"`{value}` is not a choice of {CLASSES[group]}; {hint}"
    return found


CLASSES = {
    "grpo": "TRL's GRPOConfig",
    "sft": "TRL's SFTConfig",
    "accelerate": "accelerate's config file",
    "deepspeed": "accelerate's deepspeed_config",
    "lora": "peft's LoraConfig",
    "vllm": "vLLM's EngineArgs",
}
RENAMED = {
    "max_prompt_length": "TRL 1.x dropped it: set `prepare` → `max_prompt_tokens`",
    "vllm_device": "TRL dropped it: set `layout: server`",
    "warmup_ratio": "now `warmup_steps`, as a share when it is below 1",
    "torch_dtype": "now `model_init_kwargs` → `dtype`",
    "attn_implementation": "set it in `model_init_kwargs`, or leave it out: the stage chooses",
    "reward_funcs": "set `rewards` → `reward_funcs`",
}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _raise(title: str, found: Mapping[Any, str], value: Any) -> None:
    """Raise one pydantic error that holds all of ``found`` (place → message), so that the config can name the line of each."""
    if found:
        raise ValidationError.from_exception_data(
            title,
            [InitErrorDetails(type=PydanticCustomError("option", "{message}", {"message": text}), loc=loc, input=value)
             for loc, text in found.items()],
        )  # fmt: skip


class WarmStartSettings(Settings):
    """A supervised start before GRPO: TRL's SFTTrainer on the data set's own verified traces."""

    sft: dict[str, Any] = Field(default_factory=dict)
    """Options of TRL's SFTConfig, by their own names."""
    max_examples: int | None = Field(default=None, ge=1)
    """Use at most this many traces, the first ones in the prepared order; null: all."""

    @field_validator("sft")
    @classmethod
    def _known(cls, value: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        _raise("WarmStartSettings", {(name,): text for name, text in problems("sft", value, OWNED_SFT).items()}, value)
        return value


class TrainSettings(Settings):
    """One GRPO training: what TRL, accelerate, DeepSpeed, peft and vLLM are told, by their own option names."""

    grpo: dict[str, Any] = Field(default_factory=dict)
    """Options of TRL's GRPOConfig, by their own names; those left out keep TRL's defaults, but `logging_steps` 1, `log_completions` true,
    `disable_tqdm` true and, on a CPU, `bf16` false."""
    rewards: RewardSettings = Field(default_factory=RewardSettings)
    """The reward functions and their weights."""
    layout: Literal["colocate", "server"] = "colocate"
    """With `use_vllm`, where generation runs: on every training GPU, or on GPUs of its own behind `vllm serve`."""
    accelerate: dict[str, Any] = Field(default_factory=dict)
    """accelerate's config file, by its own keys: `num_processes`, `distributed_type`, `deepspeed_config`, `num_machines` …; left out:
    one process, DDP when there are several."""
    completions_per_step: int | None = Field(default=None, ge=2)
    """Completions trained on in one optimizer step over all processes; sets `gradient_accumulation_steps` so that the number of GPUs does
    not change the recipe. null: as `grpo` says."""
    vllm: dict[str, Any] = Field(default_factory=dict)
    """Options of vLLM's EngineArgs, by their own names: the server's in the server layout (`tensor_parallel_size`,
    `gpu_memory_utilization`, `max_model_len` …), else those of each process's engine (`enforce_eager`, `kv_cache_dtype` …), which needs
    `fast_generation`; its memory and lengths are `grpo` → `vllm_…`."""
    lora: dict[str, Any] | None = None
    """Options of peft's LoraConfig; null: all weights are trained."""
    fast_generation: bool = True
    """With colocated vLLM: run the engine in a process of its own and take token ids and log-probabilities without a Python object for
    each and without detokenization. The same numbers, sooner. Without effect where a tensor-parallel engine spans GPUs."""
    old_logprobs: Literal["recompute", "sampler"] = "recompute"
    """Where the old policy's log-probabilities come from when vLLM generates. recompute: another forward pass, corrected for vLLM's
    rounding by importance sampling, as TRL does. sampler: those that vLLM drew the tokens with, so that GRPO's own clipped ratio is taken
    against the policy that really sampled, and the pass is saved."""
    autocast_residual: bool = False
    """Under autocast (`bf16`, `fp16`) with float32 weights: carry what flows from layer to layer in autocast's type too, as a model with
    weights of that type does, in place of the embedding's float32. Less time and memory, and vLLM's rounding."""
    report_to: list[Literal["wandb", "tensorboard"]] = Field(default_factory=list)
    """Trackers beside log.jsonl; wandb is offline unless WANDB_MODE says otherwise."""
    resumable_checkpoints: int = Field(default=2, ge=1)
    """The newest checkpoints that keep their optimizer state (3 to 6 times the weights); older ones keep the weights alone."""
    stop_after_steps_without_spread: int | None = Field(default=50, ge=1)
    """Stop with a diagnosis after this many steps in a row in which every group's rewards were equal (nothing is learned); null: never."""
    watchdog_minutes: float = Field(default=30.0, gt=0)
    """Stop with a diagnosis when a process reports no progress for this long."""
    warm_start: WarmStartSettings | None = None
    """A supervised start before GRPO; null: none."""

    @field_validator("grpo")
    @classmethod
    def _grpo_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        _raise("TrainSettings", {(name,): text for name, text in problems("grpo", value, OWNED).items()}, value)
        return value

    @field_validator("lora")
    @classmethod
    def _lora_known(cls, value: dict[str, Any] | None) -> dict[str, Any] | None:
        _raise("TrainSettings", {(name,): text for name, text in problems("lora", value or {}).items()}, value)
        return value

    @field_validator("vllm")
    @classmethod
    def _vllm_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        _raise("TrainSettings", {(name,): text for name, text in problems("vllm", value).items()}, value)
        return value

    @field_validator("accelerate")
    @classmethod
    def _accelerate_known(cls, value: dict[str, Any]) -> dict[str, Any]:
        found: dict[tuple[str, ...], str] = {(name,): text for name, text in problems("accelerate", value).items()}
        nested = value.get("deepspeed_config") or {}
        if isinstance(nested, dict):
            found |= {("deepspeed_config", name): text for name, text in problems("deepspeed", nested).items()}
        _raise("TrainSettings", found, value)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _raise("TrainSettings", inconsistencies(self), None)
        return self

    @property
    def num_processes(self) -> int:
        """Training processes over all machines."""
        return self.accelerate.get("num_processes", 1)

    @property
    def num_machines(self) -> int:
        """Machines that training is spread over."""
        return self.accelerate.get("num_machines", 1)

    @property
    def uses_gpus(self) -> bool:
        """False when `grpo` says `use_cpu`."""
        return not self.grpo.get("use_cpu", False)

    @property
    def own_engine(self) -> bool:
        """Whether each training process has a vLLM engine of its own beside it (`train.engine`)."""
        return (
            self.option("use_vllm")
            and self.layout == "colocate"
            and self.fast_generation
            and self.option("vllm_tensor_parallel_size") == 1
        )

    @property
    def num_serving_gpus(self) -> int:
        """GPUs that only generate: those of the server layout."""
        if self.layout != "server":
            return 0
        return self.vllm.get("tensor_parallel_size", 1) * self.vllm.get("data_parallel_size", 1)

    @property
    def num_gpus(self) -> int:
        """GPUs taken on this machine, training and serving; 0 on a CPU."""
        if not self.uses_gpus:
            return 0
        return self.num_processes // self.num_machines + self.num_serving_gpus

    def option(self, name: str) -> Any:
        """The value that TRL will see for an option of GRPOConfig: ours, or its own default."""
        return self.grpo.get(name, options()["grpo"][name]["default"])

    @property
    def accumulation(self) -> int:
        """Forward and backward passes in one optimizer step."""
        if self.completions_per_step is None:
            return self.option("gradient_accumulation_steps")
        return self.completions_per_step // (self.option("per_device_train_batch_size") * self.num_processes)

    @property
    def completions(self) -> int:
        """Completions in one optimizer step, over all processes."""
        return self.option("per_device_train_batch_size") * self.num_processes * self.accumulation

    @property
    def generation_batch(self) -> int:
        """Completions generated at once, over all processes (TRL's `generation_batch_size`)."""
        if self.option("generation_batch_size") is not None:
            return self.option("generation_batch_size")
        return (
            self.option("per_device_train_batch_size")
            * self.num_processes
            * (self.option("steps_per_generation") or self.accumulation)
        )


def inconsistencies(settings: TrainSettings) -> dict[tuple[str | int, ...], str]:
    """What cannot work together in ``settings``: place of the setting → message. TRL says these only after the model has loaded."""
    found: dict[tuple[str | int, ...], str] = {}
    batch, processes = settings.option("per_device_train_batch_size"), settings.num_processes
    generations = settings.option("num_generations")
    if batch < 1 or processes < 1 or generations < 2:
        return {
            place: text
            for place, wrong, text in (
                (("grpo", "per_device_train_batch_size"), batch < 1, "must be at least 1"),
                (("accelerate", "num_processes"), processes < 1, "must be at least 1"),
                (("grpo", "num_generations"), generations < 2, "GRPO compares completions: at least 2 a prompt"),
            )
            if wrong
        }
    together = settings.completions_per_step
    if together is not None:
        if "gradient_accumulation_steps" in settings.grpo:
            found["grpo", "gradient_accumulation_steps"] = "`completions_per_step` sets it: leave one of the two out"
        if together % (batch * processes):
            found["completions_per_step",] = (
                f"{together} does not divide by {batch} × {processes} (per_device_train_batch_size × processes)"
            )
            return found
    if settings.grpo.get("generation_batch_size") and settings.grpo.get("steps_per_generation"):
        found["grpo", "generation_batch_size"] = "give this or `steps_per_generation`, not both"
    if settings.generation_batch % (batch * processes):
        found["grpo", "generation_batch_size"] = (
            f"{settings.generation_batch} does not divide by {batch} × {processes} (per_device_train_batch_size × processes)"
        )
    if settings.generation_batch % generations:
        found["grpo", "num_generations"] = (
            f"a generation batch of {settings.generation_batch} ({batch} a device × {processes} processes × "
            f"{settings.generation_batch // (batch * processes)} steps) does not divide by {generations} generations"
        )
    if settings.layout == "server":
        if not settings.option("use_vllm"):
            found["layout",] = "a server needs `grpo` → `use_vllm: true`"
        for name in (
            "vllm_gpu_memory_utilization",
            "vllm_tensor_parallel_size",
            "vllm_enable_sleep_mode",
            "vllm_max_model_length",
        ):
            if name in settings.grpo:
                found["grpo", name] = "TRL ignores it with a server: set it in `vllm`, by vLLM's own name"
    elif settings.own_engine:
        found |= {("vllm", name): text for name, text in problems("vllm", settings.vllm, OWNED_ENGINE).items()}
    elif settings.vllm:
        found["vllm",] = (
            "reaches a server (`layout: server`) or an engine of the stage's own: `grpo` → `use_vllm: true`, `fast_generation: true`"
            " and no tensor parallelism"
        )
    tensor_parallel = settings.option("vllm_tensor_parallel_size")
    if settings.layout == "colocate" and processes % tensor_parallel:
        found["grpo", "vllm_tensor_parallel_size"] = f"{tensor_parallel} does not divide {processes} processes"
    if not settings.uses_gpus and settings.option("use_vllm"):
        found["grpo", "use_vllm"] = "vLLM needs a GPU: set it false, or `use_cpu` false"
    machines = settings.num_machines
    if processes % machines:
        found["accelerate", "num_processes"] = f"{processes} does not divide by {machines} machines"
    if settings.option("save_only_model"):
        found["grpo", "save_only_model"] = (
            "nothing could be resumed: leave it out (only published checkpoints are weights alone)"
        )
    return found


class TrainStage(Settings):
    """What the command takes: the variant's chat and its train section."""

    chat: Chat = Field(default_factory=Chat)
    """How problems become prompts; the template is saved with every checkpoint."""
    train: TrainSettings
    """The training."""


class WarmStartStage(Settings):
    """What the warm start's command takes."""

    chat: Chat = Field(default_factory=Chat)
    """How problems become prompts; the template is saved with the model."""
    warm_start: WarmStartSettings
    """The supervised training."""
    accelerate: dict[str, Any] = Field(default_factory=dict)
    """accelerate's config file, as in the train section."""
