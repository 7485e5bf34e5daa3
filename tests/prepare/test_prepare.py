"""The stage from files to files."""


from .conftest import row


def test_runs_and_explains_itself(world):
    world.dataset([row(f"Solve $x + {n} = {2 * n}$.", str(n)) for n in range(20)] + [row("What?", None), row(None)])
    result = world.run(benchmarks=world.benchmark("aime", ["Solve  $x+3=6$"]), validation=4)
    assert len(result.validation) == 4
    assert result.step("empty answer")["dropped"] == 1
    assert result.step("contamination")["dropped"] == 1
    prompt = result.train["prompt"][0]
    assert list(prompt) == [{"role": "user", "content": result.train["problem"][0]}]
