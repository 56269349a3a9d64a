"Training under bad conditions: killed at random moments, too little data, holes in validation, other settings, other rows, a step that explodes."
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from geomusic.config import Config, load_config
from geomusic.files import InputError
from geomusic.inputs import rings
from geomusic.train import fit, load_run

LONG = bool(os.environ.get("GEOMUSIC_LONG"))
CPU = dict(device="cpu")
SCRIPT = """
import sys
import numpy as np
from geomusic.config import load_config
from geomusic.train import fit
kind, out = sys.argv[1:]
g = np.random.default_rng(0)
y = np.array(['CHN', 'IRL'] * 60)
x = dict(fcnn=lambda: g.standard_normal((120, 13)), attention=lambda: g.standard_normal((120, 12, 5)), cnn=lambda: g.standard_normal((120, 1, 16, 20)))[kind]().astype('float32')
x[y == 'IRL'] += .3
params = dict(fcnn={}, attention=dict(hidden=8, fc=8), cnn=dict(channels=[4, 4, 4, 8], fc=8))[kind]
config = load_config(dict(model=dict(type=kind, params=params), hardware=dict(device='cpu'),
                          training=dict(num_epochs=14, early_stopping_patience=14, batch_size=16, scheduler='one_cycle', ema=.9, augment=dict(noise=.1, mixup=.2))))
if __name__ == '__main__': fit(x, y, np.array(['train', 'train', 'val'] * 40), config, out=out, resume=True, progress=False)
"""


def start(folder, kind, out):
    (folder / "run.py").write_text(SCRIPT)
    return subprocess.Popen([sys.executable, "run.py", kind, out], cwd=folder, env=os.environ | dict(OMP_NUM_THREADS="1"))


def epochs(path):
    try:
        return torch.load(path, weights_only=True)["progress"]["epoch"]
    except FileNotFoundError:
        return 0


@pytest.mark.parametrize("kind", ["fcnn", "attention", "cnn"] if LONG else ["attention"])
def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(tmp_path, kind):
    assert start(tmp_path, kind, "quiet").wait() == 0
    rng, deaths = random.Random(kind), 0
    while deaths < (20 if LONG else 3):
        if epochs(tmp_path / "shot" / "last.pth") >= 13:  # it was over before we shot often enough: once more
            shutil.rmtree(tmp_path / "shot")
        p, before = start(tmp_path, kind, "shot"), epochs(tmp_path / "shot" / "last.pth")
        while p.poll() is None and epochs(tmp_path / "shot" / "last.pth") <= before:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.05)  # somewhere in the next epoch, or while it is written
        p.send_signal(signal.SIGKILL)
        deaths += p.wait() == -9
    assert start(tmp_path, kind, "shot").wait() == 0
    quiet, shot = (load_run(tmp_path / name) for name in ("quiet", "shot"))
    assert all(torch.equal(a, b) for a, b in zip(quiet.model.state_dict().values(), shot.model.state_dict().values()))
    pd.testing.assert_frame_equal(quiet.history, shot.history, check_exact=True)


def test_the_command_goes_on_and_says_so(tmp_path):
    run = lambda words: subprocess.run([sys.executable, "-m", "geomusic.cli", *words.split()], cwd=tmp_path, capture_output=True, text=True)  # noqa: E731
    for words in ("corpus tunes --out tunes --countries CHN,IRL --per-country 20", "extract tunes --views melody", "split tunes"):
        assert run(words).returncode == 0
    train = "train tunes --view melody --out run training.num_epochs=4 training.early_stopping_patience=50"
    assert run(train).returncode == 0
    again = run(train + " --resume")  # finished: nothing is trained
    assert again.returncode == 0 and "going on after epoch 4" in again.stdout + again.stderr
    other = run(train.replace("=50", "=51") + " --resume")
    assert other.returncode == 2 and "early_stopping_patience` was 50 and is now 51" in other.stderr and "Traceback" not in other.stderr
    assert run(train.replace("--out run", "--out new") + " --resume").returncode == 0  # nothing there: from the beginning


def test_a_batch_larger_than_the_data_is_all_of_it():
    x, y, split = rings(60)
    few, all_of_it = (fit(x, y, split, Config(training=dict(batch_size=b, num_epochs=2), hardware=CPU), progress=False).history for b in (4096, 36))
    pd.testing.assert_frame_equal(few, all_of_it, check_exact=True)


def test_a_class_without_validation_rows_is_left_out_of_the_balanced_accuracy():
    x, y, split = rings(300)
    split = np.where((y == "IRL") & (split == "val"), "", split)
    run = fit(x, y, split, Config(training=dict(num_epochs=3), hardware=CPU), progress=False)
    val = split == "val"
    recall = [(run.predict(x[val])[y[val] == c] == c).mean() for c in ("CHN", "DEU")]
    assert run.labels == ["CHN", "DEU", "IRL"] and np.isclose(run.history.val_balanced_acc[run.history.val_loss.idxmin()], np.mean(recall))


@pytest.mark.parametrize("change, said", [
    (dict(rows=slice(None, None, -1)), "its rows or labels are others"), (dict(labels=["CHN", "DEU"]), "its rows or labels are others"),
    (dict(config="training.batch_size=16"), "`training.batch_size` was 32 and is now 16"), (dict(config="model.params.widths=[8]"), "`model.params"),
    (dict(config="data.transform=quantile"), "`data.transform`")])  # fmt: skip
def test_a_state_of_something_else_is_refused(tmp_path, change, said):
    x, y, split = rings(150)
    settings = Config(training=dict(num_epochs=2), hardware=CPU)
    fit(x, y, split, settings, out=tmp_path, progress=False)
    rows = change.get("rows", slice(None))
    with pytest.raises(InputError, match="cannot be resumed") as e:
        fit(x[rows], y, split, load_config(settings.model_dump(), change.get("config", ())), labels=change.get("labels"), out=tmp_path, progress=False, resume=True)
    assert said in str(e.value)


def test_another_machine_may_go_on(tmp_path):
    x, y, split = rings(150)
    settings = Config(training=dict(num_epochs=3), hardware=CPU)
    whole = fit(x, y, split, settings, out=tmp_path, progress=False)
    elsewhere = load_config(settings.model_dump(), ["hardware.num_workers=3", "experiment.name=again"])
    assert np.array_equal(fit(x, y, split, elsewhere, out=tmp_path, progress=False, resume=True).logits(x), whole.logits(x))


@pytest.mark.parametrize("fault", [b"", b"PK\x03\x04", "text"])
def test_a_damaged_state_is_refused_in_words(tmp_path, fault):
    x, y, split = rings(150)
    (tmp_path / "last.pth").write_bytes(fault if isinstance(fault, bytes) else fault.encode())
    with pytest.raises(InputError, match="damaged|no state"):
        fit(x, y, split, Config(hardware=CPU), out=tmp_path, progress=False, resume=True)


def test_a_step_that_explodes_names_the_batch():
    x, y, split = rings(150)
    x = x.copy()
    row = np.flatnonzero(split == "train")[5]
    x[row, 0] = 1e30  # finite, but its square is not
    with pytest.raises(InputError, match=r"no longer a number in batch \d+ of epoch 1 \(rows [\d, ]+ \.\.\.; the largest input there is") as e:
        fit(x, y, split, Config(model=dict(params=dict(order="linear-act", dropout=0.0)), training=dict(gradient_clip=0, learning_rate=1e36, optimizer="sgd"), hardware=CPU), progress=False)
    assert "learning_rate" in str(e.value)


@pytest.mark.parametrize("metric", ["val_loss", "val_acc", "val_balanced_acc", "val_macro_f1"])
def test_the_epoch_that_is_kept_is_the_best_by_what_is_watched(metric):
    x, y, split = rings(300)
    run = fit(x, y, split, Config(training=dict(num_epochs=6, learning_rate=1e-2, early_stopping_metric=metric), hardware=CPU), progress=False)
    best = run.history[metric].idxmin() if metric == "val_loss" else run.history[metric].idxmax()
    val = split == "val"
    assert np.isclose((run.predict(x[val]) == y[val]).mean(), run.history.val_acc[best])


def test_every_setting_trains_and_changes_something(tmp_path):
    x, y, split = rings(300)
    base = dict(training=dict(num_epochs=2), hardware=CPU)
    plain = fit(x, y, split, load_config(base), progress=False).history.val_loss.to_numpy()
    changes = ["training.optimizer=adamw training.weight_decay=0.5", "training.optimizer=sgd", "training.optimizer=sgd training.nesterov=true", "training.betas=[0.5,0.9]", "training.scheduler=one_cycle",
               "training.scheduler=cosine", "training.accumulate=2", "training.class_weights={CHN: 3, DEU: 1, IRL: 1}", "training.logit_adjustment=1", "training.label_smoothing=0.1",
               "training.ema=0.5", "training.gradient_clip=0.01", "training.loss=geo_smoothing", "training.loss=expected_km", "training.loss=hierarchical", "data.transform=quantile",
               "data.transform=piecewise", "training.group_power=1", "model.params.input_dropout=0.1"]  # fmt: skip
    y[(y == "IRL") & (np.arange(300) % 4 > 0)] = "CHN"  # uneven classes
    plain = fit(x, y, split, load_config(base), progress=False).history.val_loss.to_numpy()
    groups = np.where(np.arange(300) < 100, "one", np.arange(300).astype(str))
    for words in changes:
        config = load_config(base, [w.strip() for w in words.replace(" training.", "|training.").split("|")])
        h = fit(x, y, split, config, progress=False, groups=groups).history
        assert h.val_loss.notna().all() and not np.allclose(h.val_loss, plain, rtol=1e-4), words


def test_history_is_json_and_complete(tmp_path):
    x, y, split = rings(150)
    run = fit(x, y, split, Config(training=dict(num_epochs=2), hardware=CPU), out=tmp_path, progress=False)
    wanted = ["epoch", "train_loss", "train_acc", "val_loss", "val_acc", "val_balanced_acc", "val_macro_f1", "learning_rate", "grad_norm"]
    assert list(run.history) == wanted == list(pd.read_csv(tmp_path / "history.csv")) and json.dumps(run.history.to_dict("records"))


def test_processes_part_before_the_interpreter_ends(tmp_path):
    last = "import atexit, torch\natexit.register(lambda: print('bound' if torch.distributed.is_initialized() else 'free', flush=True))\n"  # registered first, asked last
    (tmp_path / "run.py").write_text(last + SCRIPT)
    done = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "run.py", "fcnn", "out"], cwd=tmp_path, env=os.environ | dict(OMP_NUM_THREADS="1"),
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["free", "free"] and epochs(tmp_path / "out" / "last.pth") == 14
