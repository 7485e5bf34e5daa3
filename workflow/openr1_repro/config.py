"""The whole configuration, typed and checked at once: config/config.yaml, assets.yaml, benchmarks/*.yaml, variants/*.yaml.

A variant is an overlay: its ``base`` first, then its own keys. Every mistake is reported with file, line and key before any job
runs; nothing here imports torch. docs/config.md is made from it.
"""

import difflib
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, Field, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError

from openr1_repro.download.settings import AssetSettings, DownloadSettings
from openr1_repro.evaluate.settings import BenchmarkSettings, EvaluateSettings
from openr1_repro.prepare.settings import PrepareSettings
from openr1_repro.report.settings import ReportSettings
from openr1_repro.stage import Chat, Settings, UserError, digest, read_json
from openr1_repro.train.settings import TrainSettings

Location = tuple[int | str, ...]
ModelT = TypeVar("ModelT", bound=BaseModel)


class PlanSettings(Settings):
    """The machine that `snakemake plan` reckons with."""

    gpus: int | None = Field(None, ge=1)
    """GPUs of the machine; null: those that are visible, else 8."""
    gpu_memory: float = Field(80.0, gt=0)
    """GiB of one GPU."""
    price: float = Field(2.5, ge=0)
    """Of one GPU for an hour, in any currency."""

    def options(self) -> str:
        """As the plan's command takes them."""
        given = {"gpus": self.gpus, "gpu-memory": self.gpu_memory, "price": self.price}
        return " ".join(f"--{name} {value}" for name, value in given.items() if value is not None)


class GlobalSettings(Settings):
    """config/config.yaml: which variants to run, and what all of them share."""

    variants: list[str] = Field(min_length=1)
    """Names of files in config/variants/, without .yaml; run in one go and compared in one report."""
    download: DownloadSettings = DownloadSettings()
    report: ReportSettings = ReportSettings()
    plan: PlanSettings = PlanSettings()


class VariantSettings(Settings):
    """config/variants/NAME.yaml: one experiment. ``base: OTHER`` starts from another variant; mappings merge, the rest replaces."""

    description: str = ""
    """One line for the report."""
    model: str
    """The asset (config/assets.yaml) to train."""
    chat: Chat = Chat()
    prepare: PrepareSettings
    train: TrainSettings
    evaluate: EvaluateSettings


# --- files, with the line of every key ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """One YAML file as written: where its keys stand."""

    path: Path
    content: Any

    def line(self, location: Location) -> tuple[int, int]:
        """How deep ``location`` can be followed into the file, and the line (from 1) of the last key found."""
        node, line, depth = self.content, 1, 0
        for part in location:
            if isinstance(node, CommentedMap) and part in node:
                line = node.lc.key(part)[0] + 1
            elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
                line = node.lc.item(part)[0] + 1
            else:
                break
            node, depth = node[part], depth + 1
        return depth, line


def _where(layers: Sequence[Layer], location: Location) -> str:
    """``file:line`` of a key: of the last layer that sets it, else of the nearest key above it."""
    best = max(reversed(layers), key=lambda layer: layer.line(location)[0])
    if location and best.line(location)[0] == 0 and best.path.parent.name == "config":
        return "--config"  # a key of the main config that no file has
    return f"{best.path}:{best.line(location)[1]}"


def _plain(node: Any) -> Any:
    """ruamel's containers and scalars as plain Python values."""
    if isinstance(node, Mapping):
        return {str(key): _plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


# --- validation: every mistake, in one go ------------------------------------------------------------------------------------


def _model_at(model: Any, location: Sequence[int | str]) -> type[BaseModel] | None:
    """The settings class that the mapping at ``location`` is read as."""
    for part in location:
        if isinstance(model, type) and issubclass(model, BaseModel):
            found = model.model_fields.get(str(part))
            model = found.annotation if found else None
        else:
            arguments = typing.get_args(model)
            models = [a for a in arguments if isinstance(a, type) and issubclass(a, BaseModel)]
            if isinstance(model, types.UnionType):
                return _model_at(models[0], location[location.index(part) :]) if models else None
            model = models[0] if models else None
    if isinstance(model, types.UnionType):
        model = next((a for a in typing.get_args(model) if isinstance(a, type) and issubclass(a, BaseModel)), None)
    return model if isinstance(model, type) and issubclass(model, BaseModel) else None


def nearest(word: str, known: Sequence[str]) -> str:
    """`` (did you mean "…"?)`` or nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f' (did you mean "{close[0]}"?)' if close else ""


def _place(location: Location, value: Any) -> Location:
    """The keys of pydantic's ``location`` that a file has: without the names of union members that it puts in between."""
    place: Location = ()
    for part in location:
        tag = isinstance(part, str) and ("[" in part or part in ("int", "float", "str", "bool"))
        if not isinstance(value, (dict, list)) or (tag and part not in value):
            continue
        place = (*place, part)
        inside = isinstance(value, dict) or (isinstance(part, int) and part < len(value))
        value = (value.get(part) if isinstance(value, dict) else value[part]) if inside else None  # type: ignore[index, arg-type]
    return place


def _explain(
    error: ValidationError, model: type[BaseModel], value: Any, layers: Sequence[Layer], prefix: Location
) -> Iterator[str]:
    for item in error.errors():
        location = _place(item["loc"], value)
        message = item["msg"].removeprefix("Value error, ")
        name, _, rest = message.partition(": ")
        section = _model_at(model, location)
        if (
            section is not None and rest and name in section.model_fields
        ):  # a check over several keys names the wrong one
            location, message = (*location, name), rest
        key = ".".join(map(str, location)) or "(whole file)"
        if item["type"] == "extra_forbidden":
            inside = _model_at(model, location[:-1])
            message = "unknown key" + nearest(str(location[-1]), list(inside.model_fields) if inside else [])
        elif item["type"] == "missing":
            message = "missing; add it"
        elif isinstance(item["input"], (str, int, float, bool)) and repr(item["input"]) not in message:
            message += f", not {item['input']!r}"
        yield f"{_where(layers, prefix + location)}: {key}: {message}"


@dataclass
class Project:
    """A checked configuration, and each stage's own part of it as JSON-able data."""

    settings: GlobalSettings
    assets: dict[str, AssetSettings]
    benchmarks: dict[str, BenchmarkSettings]
    variants: dict[str, VariantSettings]
    locked: dict[str, Any]
    """config/assets.lock.json: what each asset's files must be, by name; empty until the user makes it."""

    def gpus(self, variant: str) -> int:
        """GPUs that a variant's training and evaluation take on one machine; 0: it runs on the CPU."""
        return self.variants[variant].train.num_gpus

    def gpus_of_training(self, variant: str) -> int:
        """GPUs that a variant's training takes on all its machines."""
        return self.gpus(variant) * self.variants[variant].train.num_machines

    def download(self, asset: str) -> dict[str, Any]:
        """Settings of the download stage for one asset."""
        return {
            "name": asset,
            "asset": self.assets[asset].model_dump(mode="json"),
            "download": self.settings.download.model_dump(mode="json"),
            "lock": self.locked.get(asset),
        }

    def assets_of_prompts(self, variant: str) -> list[str]:
        """What the prepare stage reads: data sets, the benchmarks to keep out, and the model for its tokenizer."""
        v = self.variants[variant]
        benchmarks = [self.benchmarks[name].dataset for name in decontaminated_against(v)]
        return list(dict.fromkeys([*(part.asset for part in v.prepare.datasets), *benchmarks, v.model]))

    def assets_of_benchmarks(self, variant: str) -> list[str]:
        """The data sets of the benchmarks that a variant is evaluated on."""
        return list(dict.fromkeys(self.benchmarks[name].dataset for name in self.variants[variant].evaluate.benchmarks))

    def benchmarks_shown(self) -> list[str]:
        """The benchmarks of all variants, in the order in which they name them."""
        return list(dict.fromkeys(name for v in self.variants.values() for name in v.evaluate.benchmarks))

    def _benchmarks(self, names: Sequence[str]) -> dict[str, Any]:
        return {name: self.benchmarks[name].model_dump(mode="json") for name in sorted(names)}

    def prepare(self, variant: str) -> dict[str, Any]:
        """Settings of the prepare stage; variants with equal ones share the prompts."""
        return self._prepare(self.variants[variant], self.variants[variant].prepare)

    def candidates(self, variant: str) -> dict[str, Any] | None:
        """Settings of the prompts whose pass rate is sampled first; None where the variant asks for no pass rate."""
        v = self.variants[variant]
        return self._prepare(v, v.prepare.before_pass_rate()) if v.prepare.pass_rate else None

    def _prepare(self, v: VariantSettings, prepare: PrepareSettings) -> dict[str, Any]:
        return {
            "chat": v.chat.model_dump(mode="json"),
            "prepare": prepare.model_dump(mode="json"),
            "model": v.model,
            "benchmarks": self._benchmarks(decontaminated_against(v)),
        }

    def pass_rate(self, variant: str) -> dict[str, Any]:
        """Settings of the sampling of pass rates, for a variant that has candidates."""
        v = self.variants[variant]
        assert v.prepare.pass_rate is not None
        return {
            "chat": v.chat.model_dump(mode="json"),
            "pass_rate": v.prepare.pass_rate.model_dump(mode="json"),
            "gold_column": v.train.rewards.gold_column,
        }

    def train(self, variant: str) -> dict[str, Any]:
        """Settings of the train stage."""
        v = self.variants[variant]
        return {
            "chat": v.chat.model_dump(mode="json"),
            "train": v.train.model_dump(mode="json", exclude={"warm_start"}),  # a stage of its own
        }

    def warm_start(self, variant: str) -> dict[str, Any] | None:
        """Settings of the supervised start before GRPO, None where there is none."""
        v = self.variants[variant]
        if v.train.warm_start is None:
            return None
        return {
            "chat": v.chat.model_dump(mode="json"),
            "warm_start": v.train.warm_start.model_dump(mode="json"),
            "accelerate": v.train.accelerate,
        }

    def evaluate(self, variant: str) -> dict[str, Any]:
        """Settings of the evaluate stage, for the base model and the checkpoints alike."""
        v = self.variants[variant]
        return {
            "chat": v.chat.model_dump(mode="json"),
            "evaluate": v.evaluate.model_dump(mode="json"),
            "benchmarks": self._benchmarks(v.evaluate.benchmarks),
        }

    def prompts_key(self, variant: str) -> str:
        """Names the folder of a variant's prompts."""
        return digest(self.prepare(variant))

    def candidates_key(self, variant: str) -> str:
        """Names the folder of the prompts whose pass rate is sampled."""
        return digest(self.candidates(variant))

    def pass_rate_key(self, variant: str) -> str:
        """Names the file of pass rates, shared by variants that would sample the same."""
        return digest([self.candidates_key(variant), self.variants[variant].model, self.pass_rate(variant)])

    def warm_start_key(self, variant: str) -> str:
        """Names the folder of a warm-started model, shared by variants that start from the same one."""
        return digest([self.variants[variant].model, self.prompts_key(variant), self.warm_start(variant)])

    def base_key(self, variant: str) -> str:
        """Names the folder of the starting model's evaluation, shared by variants that would measure the same."""
        return digest([self.variants[variant].model, self.prompts_key(variant), self.evaluate(variant)])


def decontaminated_against(variant: VariantSettings) -> list[str]:
    """The benchmarks whose problems the prepare stage keeps out of training: all of the variant's, unless it names them."""
    contamination = variant.prepare.contamination
    if contamination is None:
        return []
    return variant.evaluate.benchmarks if contamination.benchmarks is None else contamination.benchmarks


class _Loader:
    """Reads and checks one project's files, and collects what is wrong instead of stopping at the first."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.errors: list[str] = []

    def read(self, name: str) -> Layer:
        """A file under the root; an empty layer, and an error, if it cannot be read."""
        try:
            content = YAML(typ="rt").load((self.root / name).read_text(encoding="utf-8"))
            if isinstance(content, CommentedMap):
                return Layer(Path(name), content)
            self.errors.append(f"{name}:1: must be a mapping of keys to values")
        except MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            self.errors.append(f"{name}:{line}: not valid YAML: {error.problem}")
        except OSError as error:
            self.errors.append(f"{name}: {error.strerror}")
        return Layer(Path(name), CommentedMap())

    def validate(
        self, model: type[ModelT], value: Any, layers: Sequence[Layer], prefix: Location = ()
    ) -> ModelT | None:
        """``value`` as ``model``, or None and the errors."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            self.errors += _explain(error, model, value, layers, prefix)
            return None

    def expect(
        self, name: Any, known: Mapping[str, Any], where: str, layers: Sequence[Layer], location: Location
    ) -> None:
        """An error unless ``name`` is one of ``known``, which stands in ``where``."""
        if name not in known:
            key = ".".join(map(str, location))
            self.errors.append(
                f"{_where(layers, location)}: {key}: no {name!r} in {where}" + nearest(str(name), list(known))
            )

    def overlay(self, name: str, main: Sequence[Layer], position: int) -> tuple[list[Layer], dict[str, Any]]:
        """A variant's files from the lowest ``base`` up, and their contents merged."""
        known = {path.stem: path for path in sorted((self.root / "config/variants").glob("*.yaml"))}
        layers: list[Layer] = []
        asked: Sequence[Layer] = main
        location: Location = ("variants", position)
        while name is not None:
            self.expect(name, known, "config/variants", asked, location)
            if name not in known:
                break
            if any(layer.path.stem == name for layer in layers):
                self.errors.append(f"{_where(asked, location)}: base: {name!r} is its own base; remove this line")
                break
            layers.insert(0, self.read(f"config/variants/{name}.yaml"))
            asked, location = layers[:1], ("base",)
            name = layers[0].content.get("base")
        merged: dict[str, Any] = {}
        for layer in layers:
            merged = _merge(merged, _plain(layer.content))
        merged.pop("base", None)
        return layers, merged

    def variant(
        self, layers: list[Layer], merged: dict[str, Any], assets: Mapping[str, Any], benchmarks: Mapping[str, Any]
    ) -> VariantSettings | None:
        """One variant, checked against the assets and benchmarks that exist."""
        chat = merged.get("chat")
        if isinstance(chat, dict) and isinstance(chat.get("template"), str):
            try:
                merged["chat"] = {**chat, "template": (self.root / chat["template"]).read_text(encoding="utf-8")}
            except OSError as error:
                self.errors.append(
                    f"{_where(layers, ('chat', 'template'))}: chat.template: {chat['template']}: {error.strerror}"
                )
        # names are checked in the raw values, so that they are reported even where other keys are wrong
        for location, known, where in (
            (("model",), assets, "config/assets.yaml"),
            (("prepare", "datasets", ..., "asset"), assets, "config/assets.yaml"),
            (("evaluate", "benchmarks", ...), benchmarks, "config/benchmarks"),
            (("prepare", "contamination", "benchmarks", ...), benchmarks, "config/benchmarks"),
        ):  # fmt: skip
            for place, name in _values_at(merged, location):
                self.expect(name, known, where, layers, place)
        return self.validate(VariantSettings, merged, layers)


def _values_at(value: Any, path: Sequence[Any], above: Location = ()) -> Iterator[tuple[Location, Any]]:
    """Every value at ``path``, where ``...`` stands for each index of a list."""
    if not path:
        yield above, value
    elif path[0] is ...:
        for index, item in enumerate(value if isinstance(value, list) else []):
            yield from _values_at(item, path[1:], (*above, index))
    elif isinstance(value, dict) and path[0] in value:
        yield from _values_at(value[path[0]], path[1:], (*above, path[0]))


def load(
    root: Path, given: Mapping[str, Any] | None = None, files: Sequence[Path] = (Path("config/config.yaml"),)
) -> Project:
    """Read and check everything under ``root``/config.

    Args:
        root: the project's folder.
        given: what Snakemake made of ``files`` and ``--config``; default: config/config.yaml alone.
        files: where ``given`` came from, for the lines in messages.

    Raises:
        UserError: one line a mistake, each with file, line, key and the fix.
    """
    loader = _Loader(root)
    main = [loader.read(str(file)) for file in files]
    value = _plain(main[0].content if given is None else given)
    settings = loader.validate(GlobalSettings, value, main)

    assets_layer = loader.read("config/assets.yaml")
    assets = {
        name: asset
        for name, entry in assets_layer.content.items()
        if (asset := loader.validate(AssetSettings, _plain(entry), [assets_layer], (name,)))
    }
    benchmarks = {}
    for path in sorted((root / "config/benchmarks").glob("*.yaml")):
        layer = loader.read(f"config/benchmarks/{path.name}")
        loader.expect(layer.content.get("dataset"), assets_layer.content, "config/assets.yaml", [layer], ("dataset",))
        benchmarks[path.stem] = loader.validate(BenchmarkSettings, _plain(layer.content), [layer])

    variants = {}
    asked = value.get("variants")
    for position, name in enumerate(asked if isinstance(asked, list) else []):
        layers, merged = loader.overlay(name, main, position)
        if layers:
            variants[name] = loader.variant(layers, merged, assets_layer.content, benchmarks)

    if loader.errors:
        raise UserError("\n".join(dict.fromkeys(loader.errors)))
    lock = root / "config/assets.lock.json"
    locked = read_json(lock) if lock.exists() else {}
    return Project(settings, assets, benchmarks, variants, locked)  # type: ignore[arg-type]  # nothing is None without errors
