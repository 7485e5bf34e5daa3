"""A snapshot of the upstream options that the config may pass through: ``options.json``, beside this file.

The workflow checks a variant against it within milliseconds, without importing torch. Regenerate it after a change of versions, in the
train environment:

    python -m openr1_repro.train.options

vLLM is not installed outside the GPU machine: ``--vllm WHEEL`` reads its options from a downloaded wheel, else they stay as they are. A
test proves that the snapshot equals what is installed.
"""

import argparse
import ast
import dataclasses
import enum
import importlib.metadata
import json
import types
import typing
import zipfile
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).with_name("options.json")
KINDS = {bool: "bool", int: "int", float: "float", str: "str", list: "list", dict: "dict", type(None): "null"}


def describe(annotation: Any) -> dict[str, Any]:
    """What an annotation accepts, in JSON's terms: ``{"types": ["int", "null"]}``, and ``choices`` where they are named."""
    origin = typing.get_origin(annotation)
    if origin in (typing.Union, types.UnionType):
        parts = [describe(part) for part in typing.get_args(annotation)]
        kinds = sorted({kind for part in parts for kind in part["types"]})
        # `SchedulerType | str` is spelled with a name: any of the choices, and nothing else.
        choices = sorted({choice for part in parts for choice in part.get("choices", [])})
        return {"types": kinds, "choices": choices} if choices else {"types": kinds}
    if origin is typing.Literal:
        values = typing.get_args(annotation)
        choices = sorted(value for value in values if isinstance(value, str))
        described: dict[str, Any] = {"types": sorted({KINDS[type(value)] for value in values})}
        return {**described, "choices": choices} if choices else described
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return {"types": ["str"], "choices": sorted(str(member.value) for member in annotation)}
    if annotation is Any:
        return {"types": sorted(KINDS.values())}
    kind = KINDS.get(origin or annotation)
    return {"types": [kind] if kind else ["dict"]}  # another class: upstream builds it from a mapping


def fields(dataclass: Any) -> dict[str, dict[str, Any]]:
    """Name → accepted types and default of every field of an upstream options class."""
    hints = typing.get_type_hints(dataclass)
    described = {}
    for field in dataclasses.fields(dataclass):
        if not field.init:
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if isinstance(default, enum.Enum):
            default = default.value
        plain = default is not dataclasses.MISSING and isinstance(
            default, bool | int | float | str | list | dict | None
        )
        described[field.name] = {**describe(hints[field.name]), "default": default if plain else None}
    return described


def installed() -> dict[str, Any]:
    """The snapshot for the packages of this environment: ``{"versions": {package: version}, "<group>": {option: …}}``."""
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.commands.launch import launch_command_parser
    from peft import LoraConfig
    from trl import GRPOConfig, SFTConfig

    deepspeed = next(g for g in launch_command_parser()._action_groups if g.title == "DeepSpeed Arguments")
    described: dict[str, Any] = {
        "versions": {name: importlib.metadata.version(name) for name in ("trl", "transformers", "accelerate", "peft")},
        "grpo": fields(GRPOConfig),
        "sft": fields(SFTConfig),
        "accelerate": fields(ClusterConfig),
        # accelerate reads `deepspeed_config` of its file as command-line options; those are strings, whatever they mean.
        "deepspeed": {a.dest: {"types": sorted(KINDS.values()), "default": None} for a in deepspeed._group_actions},
        "lora": fields(LoraConfig),
    }
    return described


def vllm_options(wheel: Path) -> dict[str, Any]:
    """The names of EngineArgs' fields, read from the source in a wheel of vLLM: importing it needs a GPU's libraries."""
    tree = ast.parse(zipfile.ZipFile(wheel).read("vllm/engine/arg_utils.py"))
    engine_args = next(node for node in ast.walk(tree) if isinstance(node, ast.ClassDef) and node.name == "EngineArgs")
    return {
        node.target.id: {"types": sorted(KINDS.values()), "default": None}
        for node in engine_args.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }


def main() -> None:
    """Rewrite the snapshot."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--vllm", type=Path, help="a wheel of vLLM, to read its options from")
    arguments = parser.parse_args()
    old = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {"versions": {}}
    new = installed()
    if arguments.vllm:
        new["vllm"] = vllm_options(arguments.vllm)
        new["versions"]["vllm"] = arguments.vllm.name.split("-")[1]
    versions = {**old["versions"], **new.pop("versions")}
    groups = {**{name: rows for name, rows in old.items() if name != "versions"}, **new}
    lines = [f' "versions": {json.dumps(versions, sort_keys=True)}']
    for group, rows in sorted(groups.items()):  # one option a line: a change of versions reads well as a diff
        body = ",\n".join(f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(rows.items()))
        lines.append(f" {json.dumps(group)}: {{\n{body}\n }}")
    SNAPSHOT.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{SNAPSHOT}: {', '.join(f'{len(rows)} {group}' for group, rows in sorted(groups.items()))}")


if __name__ == "__main__":
    main()
