"""Every filter's decision on rows labelled by hand, all filters on."""

from collections import Counter

from .conftest import World, row
from .labelled import BENCHMARKS, ROWS


def test_every_row_goes_where_a_person_put_it(world: World) -> None:
    assert len(ROWS) >= 120
    world.dataset([row(problem, answer, **(other[0] if other else {})) for _, problem, answer, *other in ROWS])
    result = world.run(
        benchmarks={k: v for name, problems in BENCHMARKS.items() for k, v in world.benchmark(name, problems).items()},
        question_types=["math-word-problem", None],
        require_solution=True,
        verified_trace={},
        max_prompt_tokens=700,
    )
    decided = dict.fromkeys(result.uuids)
    for uuid, step in result.dropped.items():
        decided[uuid] = step
    wrong = [
        f"{step} expected, {decided[f'r{i}']} decided: {problem}"
        for i, (step, problem, *_) in enumerate(ROWS)
        if decided[f"r{i}"] != step
    ]
    assert not wrong, "\n".join(wrong)
    counts = Counter(step for step, *_ in ROWS)
    assert {s["name"]: s["dropped"] for s in result.funnel["steps"]} == {
        s["name"]: counts[s["name"]] for s in result.funnel["steps"]
    }
