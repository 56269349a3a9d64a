"One compute thread a worker: threads that compete for two cores make LSTMs sixty times slower."
import os
import signal
import sys
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # nbdev_test and geomusic of this environment

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

# No deadline and no complaint about slow drawing, which tell of a busy machine; and the same examples each time: who changes something else is not told of a new one
settings.register_profile("here", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("here")

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a shell's background; children would inherit it, and tests of Ctrl-C wait for nothing
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
from geomusic.files import InputError, data_folder  # noqa: E402

try:
    DATA = data_folder(ROOT)
    os.environ["GEOMUSIC_DATA"] = str(DATA)  # for notebooks and commands that run in folders of their own
except InputError:
    DATA = None  # the public data sets are not here: what needs them is skipped


@pytest.fixture(scope="session")
def root():
    "The root of the checkout."
    return ROOT
