"""Stock lighteval over stored texts: a model whose answers are read, not generated.

lighteval's pipeline makes the documents, asks the model, averages and writes its results. Each task's metric is lighteval's ``PassAtK``
with k = 1 over all samples; its judgement of a single sample is lighteval's own too, made beforehand (``verdicts``) and looked up.
"""

import json
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from lighteval.logging.evaluation_tracker import EvaluationTracker
from lighteval.metrics.metrics_sample import PassAtK
from lighteval.metrics.utils.metric_utils import SampleLevelMetric
from lighteval.models.abstract_model import LightevalModel, ModelConfig
from lighteval.models.model_output import ModelResponse
from lighteval.pipeline import ParallelismManager, Pipeline, PipelineParameters
from lighteval.tasks.lighteval_task import LightevalTaskConfig
from lighteval.tasks.registry import Registry
from lighteval.tasks.requests import Doc, SamplingMethod

from openr1_repro.evaluate.verdicts import Claim, Verdict, doc_of

Item = list[Claim]
"""One problem: a claim for each sample."""


class StoredModel(LightevalModel):
    """Answers every document with its stored texts."""

    def __init__(self, name: str, texts: Mapping[tuple[str, str], list[str]]):
        """``texts``: by task name and row index (as lighteval's ``doc.id``)."""
        self.config = ModelConfig(model_name=name)
        self._texts = texts
        self._cache = types.SimpleNamespace(_init_registry=lambda registry: None)  # lighteval's would serve stale texts

    def greedy_until(self, docs: list[Doc]) -> list[ModelResponse]:
        """The stored texts of each document."""
        return [ModelResponse(text=self._texts[doc.task_name.split("|")[0], doc.id]) for doc in docs]

    tokenizer = add_special_tokens = max_length = None
    loglikelihood = loglikelihood_rolling = None


def replay(
    model: str, benchmarks: Mapping[str, list[Item]], verdicts: Mapping[Claim, Verdict], folder: Path
) -> dict[str, Any]:
    """Run lighteval's pipeline over one model's answers to several benchmarks.

    Args:
        model: a name; lighteval files its results under it.
        benchmarks: for each, the problems in order; every problem of a benchmark has the same number of claims.
        verdicts: of every claim.
        folder: where lighteval writes its results, details and data sets.

    Returns:
        lighteval's results: ``{"pass@k:k=1&n=4": 0.5, "pass@k:k=1&n=4_stderr": 0.03}`` by benchmark.
    """
    tasks: list[LightevalTaskConfig] = []
    texts: dict[tuple[str, str], list[str]] = {}
    for name, items in benchmarks.items():
        data = folder / "data" / model / name / "test.jsonl"
        data.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"gold": item[0].gold, "num_choices": item[0].num_choices, "metric": item[0].metric} for item in items]
        data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        texts |= {(name, str(index)): [claim.text for claim in item] for index, item in enumerate(items)}
        tasks.append(
            LightevalTaskConfig(
                name=name,
                prompt_function=_document,
                hf_repo=str(data.parent),
                hf_subset="default",
                hf_avail_splits=["test"],
                evaluation_splits=["test"],
                metrics=[_metric(len(items[0]), items[0][0], verdicts)],
            )
        )
    # The stock registry imports every task file, of which some fetch things; ours are all that is wanted.
    Registry.load_all_task_configs = staticmethod(lambda **_: {task.name: task for task in tasks})
    tracker = EvaluationTracker(output_dir=str(folder), save_details=False)
    pipeline = Pipeline(
        tasks=",".join(f"{task.name}|0" for task in tasks),
        pipeline_parameters=PipelineParameters(launcher_type=ParallelismManager.CUSTOM, remove_reasoning_tags=False),
        evaluation_tracker=tracker,
        model=StoredModel(model, texts),
    )
    pipeline.evaluate()
    pipeline.save_and_push_results()
    results = pipeline.get_results()["results"]
    return {name: {key: float(value) for key, value in results[f"{name}:0"].items()} for name in benchmarks}


def _document(line: dict[str, Any], task_name: str) -> Doc:
    doc = doc_of(line["gold"], line["num_choices"])
    doc.task_name = task_name
    return doc


def _metric(n: int, example: Claim, verdicts: Mapping[Claim, Verdict]) -> SampleLevelMetric:
    """lighteval's pass@1 over n samples, on the verdicts already made."""

    def judgement(doc: Doc, model_response: ModelResponse) -> float:
        claim = Claim(example.metric, example.num_choices, doc.get_golds()[0], model_response.text[0])
        return verdicts[claim].score

    return SampleLevelMetric(
        metric_name=f"pass@k:k=1&n={n}",
        sample_level_fn=PassAtK(k=1, n=n, sample_scoring_function=judgement),
        category=SamplingMethod.GENERATIVE,
        corpus_level_fn=np.mean,
        higher_is_better=True,
    )
