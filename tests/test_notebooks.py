"Every notebook is a test: nbdev's runner executes it, a case a notebook; cells that need the public data sets run where these are."
import subprocess
import sys

import pytest
from conftest import DATA, ROOT

NOTEBOOKS = sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebook(notebook, root, pytestconfig):
    counted = [sys.executable, "-m", "coverage", "run", "tests/chapter.py"]  # the same runner, which coverage can follow
    runner = counted if pytestconfig.getoption("cov_source", None) else ["nbdev_test"]
    done = subprocess.run([*runner, "--path", notebook, "--n_workers", "0", "--do_print", *(["--flags", "data"] if DATA else [])], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0 and "Success" in done.stdout, (done.stdout + done.stderr)[-4000:]
