"""The reference rows name benchmarks and protocols that exist."""

from pathlib import Path

import yaml

CONFIG = Path(__file__).parents[2] / "config"


def test_reference_rows():
    rows = yaml.safe_load((CONFIG / "published.yaml").read_text())
    benchmarks = {path.stem for path in (CONFIG / "benchmarks").glob("*.yaml")}
    for row in rows:
        assert {"model", "source", "url", "protocol", "settings", "scores"} <= set(row) <= {*row, "spread"}
        assert set(row["scores"]) <= benchmarks
        assert set(row.get("spread", {})) <= set(row["scores"])
        assert all(0 <= score <= 100 for score in row["scores"].values())
