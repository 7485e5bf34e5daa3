"""pytest in whatever environment runs this: the test tools lie beside the environments, in .envs/test, so that what is tested is the lock.

python -m openr1_repro.job --env train --log logs/test.log -- tests -m train_env
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[0] = str(ROOT / ".envs" / "test")  # in the place of this folder

import pytest  # noqa: E402

sys.exit(pytest.main(["--rootdir", str(ROOT), *sys.argv[1:]]))
