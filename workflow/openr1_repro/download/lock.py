"""Pin assets: write config/assets.lock.json from the manifests of what was downloaded, for the user to commit.

    python -m openr1_repro.download.lock --output config/assets.lock.json results/assets/*/*/manifest.json

From then on a download, whatever its source, must give exactly these files. Entries of other assets stay as they are.
"""

import argparse
from pathlib import Path

from openr1_repro import stage


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m openr1_repro.download.lock", description="Pin downloaded assets.")
    parser.add_argument("--output", type=Path, default=Path("config/assets.lock.json"), help="the lock file")
    parser.add_argument("manifests", type=Path, nargs="+", help="manifest.json of the assets to pin")
    arguments = parser.parse_args()
    pins = stage.read_json(arguments.output) if arguments.output.exists() else {}
    for path in arguments.manifests:
        manifest = stage.read_json(path)
        pins[manifest.pop("name")] = manifest
    stage.write_json(arguments.output, dict(sorted(pins.items())))
    print(f"{arguments.output}: {len(arguments.manifests)} pinned, {len(pins)} in all")


if __name__ == "__main__":
    stage.run(main)
