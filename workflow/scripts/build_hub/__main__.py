"""Rebuild the embedded hub under ``workflow/resources/hub`` from a seed.

    python workflow/scripts/build_hub data     # both data sets, seconds (environment: workflow)
    python workflow/scripts/build_hub model    # pre-trains the tiny model, ten minutes on 2 cores (environment: train)

The data come out the same to the byte. The model does on one machine with the same number of threads.
"""

import argparse
from pathlib import Path


def main() -> None:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["data", "model"])
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--hub", type=Path, default=Path(__file__).parents[2] / "resources/hub", help="where to write")
    parser.add_argument("--steps", type=int, default=1500, help="pre-training steps (model)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (model)")
    options = parser.parse_args()
    if options.what == "data":
        from data import write_data

        write_data(options.hub, options.seed)
    else:
        from model import write_model

        write_model(options.hub, options.seed, options.steps, options.threads)


main()
