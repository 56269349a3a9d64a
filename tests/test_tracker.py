"Weights & Biases, for real but offline: what is logged, what is said where it cannot be, and that no key is ever written."
import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is not installed (pip install 'geomusic[wandb]')")

TRAIN = """
from geomusic.config import load_config
from geomusic.files import InputError
from geomusic.inputs import rings
from geomusic.train import fit
config = load_config(dict(model=dict(params=dict(widths=[8])), training=dict(num_epochs=3, learning_rate=0.01), hardware=dict(device='cpu'),
                          experiment=dict(use_wandb=True, wandb_project='geo-music', name='first-try')))
try: fit(*rings(150), config, out='run', progress=False)
except InputError as e: print(f'error: {e}'); raise SystemExit(2)
"""
SECRET = "0123456789abcdef0123456789abcdef01234567"


def train(folder, **env):
    "Train in a process of its own, with an empty home"
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | dict(HOME=str(folder / "home"), **env)
    (folder / "home").mkdir(exist_ok=True)
    return subprocess.run([sys.executable, "-c", TRAIN], cwd=folder, env=clean, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)


def test_offline_run_keeps_every_epoch(tmp_path):
    done = train(tmp_path, WANDB_MODE="offline", WANDB_API_KEY=SECRET)
    assert done.returncode == 0, done.stdout + done.stderr
    (kept,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    data = kept.read_bytes()
    assert b"geo-music" in data and b"first-try" in data and b"learning_rate" in data
    assert data.count(b"train_loss") >= 3 and data.count(b"val_acc") >= 3, "a row an epoch"
    assert (tmp_path / "run" / "best_model.pth").exists()
    written = [p for p in tmp_path.rglob("*") if p.is_file() and SECRET.encode() in p.read_bytes()]
    assert not written, "a key was written"


def test_without_a_login_one_line_says_what_to_do_before_anything_is_trained(tmp_path):
    done = train(tmp_path)
    told = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    assert done.returncode == 2 and len(told) == 1, done.stdout + done.stderr
    assert "wandb login" in told[0] and "WANDB_MODE=offline" in told[0] and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_disabled_by_its_own_switch(tmp_path):
    assert train(tmp_path, WANDB_MODE="disabled").returncode == 0
