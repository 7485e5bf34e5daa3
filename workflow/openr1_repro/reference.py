"""The config reference, made from the typed config: ``python -m openr1_repro.reference > docs/config.md``."""

import types
import typing
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from openr1_repro.config import GlobalSettings, VariantSettings
from openr1_repro.download.settings import AssetSettings
from openr1_repro.evaluate.settings import BenchmarkSettings

PAGES: list[tuple[str, type[BaseModel]]] = [
    ("config/config.yaml", GlobalSettings),
    ("config/variants/NAME.yaml", VariantSettings),
    ("config/assets.yaml, each entry", AssetSettings),
    ("config/benchmarks/NAME.yaml", BenchmarkSettings),
]


def _type(annotation: object) -> str:
    """An annotation as a user would say it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_type(a) for a in arguments)
    if origin is typing.Literal:
        return " · ".join(f"`{a}`" for a in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if annotation is type(None):
        return "null"
    if annotation is typing.Any:
        return "any"
    names = {str: "text", int: "whole number", float: "number", bool: "true or false"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))  # type: ignore[call-overload]


def _sections(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _sections(argument)]


def _rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        inner = _sections(info.annotation)
        default = info.get_default(call_default_factory=True)  # type: ignore[call-arg]
        if default is PydanticUndefined:
            shown = "**needed**"
        elif isinstance(default, BaseModel) or (default and inner):
            shown = "see below"
        else:
            shown = f"`{default!r}`".replace("None", "null").replace("True", "true").replace("False", "false")
        kind = "section" if inner else _type(info.annotation)
        text = " ".join((info.description or (inner[0].__doc__ if inner else "") or "").split())
        yield f"| `{prefix}{name}` | {kind} | {shown} | {text} |".replace(" | | ", " |  | ")
        for section in inner:
            within = f"{prefix}{name}[]." if typing.get_origin(info.annotation) is list else f"{prefix}{name}."
            yield from _rows(section, within)


def reference() -> str:
    """Markdown: a table for each file of the configuration, a row a key."""
    lines = [
        "# Config reference",
        "",
        "Made from the typed config by `python -m openr1_repro.reference`. Keys under `train.grpo`, `train.accelerate`, `train.lora`,",
        "`train.vllm`, `train.warm_start.sft` and `evaluate.vllm` are the upstream tools' own, checked against their option classes.",
    ]
    for title, model in PAGES:
        lines += [
            "",
            f"## {title}",
            "",
            " ".join((model.__doc__ or "").split()),
            "",
            "| key | type | default | meaning |",
            "| --- | --- | --- | --- |",
        ]
        lines += _rows(model)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(reference(), end="")
