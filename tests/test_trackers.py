"Trackers and the live plot where a notebook cannot show them: killed, failing, without a notebook, in folders that are no packages."
import importlib.util
import logging
import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from geomusic.config import load_config
from geomusic.files import InputError
from geomusic.inputs import rings
from geomusic.learning import trackers
from geomusic.train import fit

has = {name: importlib.util.find_spec(name) is not None for name in ("tensorboard", "wandb", "nbclient")}
needs_board = pytest.mark.skipif(not has["tensorboard"], reason="tensorboard is not installed (pip install 'geomusic[tensorboard]')")
HISTORY = pd.DataFrame(dict(epoch=[1, 2, 3], train_loss=[0.9, 0.6, 0.4], train_acc=[0.3, 0.6, 0.8], val_loss=[0.8, 0.5, 0.7], val_acc=[0.4, 0.6, 0.5]))


def settings(**experiment):
    return load_config(dict(model=dict(params=dict(widths=[8])), training=dict(num_epochs=3, learning_rate=0.01), hardware=dict(device="cpu"), experiment=experiment))


def curves(folder):
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    events = EventAccumulator(str(folder)).Reload()
    return {tag: {s.step: s.value for s in events.Scalars(tag)} for tag in events.Tags()["scalars"]}


def python(code, cwd, **env):
    (cwd / "home").mkdir(exist_ok=True)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")} | dict(HOME=str(cwd / "home"), **env)
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=clean, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300)


@needs_board
def test_fit_logs_every_column_of_the_history(tmp_path):
    run = fit(*rings(150), settings(tensorboard=str(tmp_path / "board"), name="a"), out=tmp_path / "run", progress=False)
    back = curves(tmp_path / "board" / "a")
    assert set(back) == set(run.history) and len(run.history) == 3
    for column, curve in back.items():
        assert list(curve) == [1, 2, 3]
        np.testing.assert_array_equal(np.float32(list(curve.values())), run.history[column].to_numpy(np.float32))
    assert pd.read_csv(tmp_path / "run" / "history.csv").epoch.tolist() == [1, 2, 3]


def test_nothing_asked_nothing_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert trackers.log_with(settings()) is None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fit(*rings(150), settings(), progress=False)
    assert not [w for w in told if "log_with" in str(w.message)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("package, asked", [("tensorboard", dict(tensorboard="board")), ("wandb", dict(use_wandb=True))])
@pytest.mark.parametrize("a_folder", [False, True])
def test_a_missing_package_is_told_before_anything_is_trained(package, asked, a_folder, tmp_path, monkeypatch):
    if a_folder: (tmp_path / package).mkdir()    # an offline run leaves a folder `wandb`, which Python takes for a package
    monkeypatch.chdir(tmp_path)
    for name in [m for m in sys.modules if m == package or m.startswith(package + ".")]: monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InputError) as told: trackers.log_with(settings(**asked))
    assert f"geomusic[{package}]" in str(told.value) and "not installed" in str(told.value)


@needs_board
def test_a_killed_run_leaves_its_epochs(tmp_path):
    code = """
import os, signal
from accelerate import Accelerator
from geomusic.config import load_config
from geomusic.learning.trackers import log_with, tracked
config = load_config(dict(experiment=dict(tensorboard='board', name='killed')))
acc = Accelerator(cpu=True, log_with=log_with(config))
with tracked(acc, config):
    for epoch in (1, 2, 3): acc.log(dict(epoch=epoch, val_loss=1/epoch), step=epoch)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = python(code, tmp_path)
    assert done.returncode == -9, done.stderr
    assert curves(tmp_path / "board" / "killed")["val_loss"] == pytest.approx({1: 1, 2: 1 / 2, 3: 1 / 3})


class Fake:
    def __init__(self, name, fails=False): self.name, self.fails, self.tracker, self.ended = name, fails, self, None
    def finish(self, exit_code=0):
        self.ended = exit_code
        if self.fails: raise OSError("no space left")


class Acc:
    def __init__(self, *trackers): self.trackers = list(trackers)


def test_all_are_closed_even_if_one_cannot_be():
    first, second = Fake("tensorboard"), Fake("wandb", fails=True)
    with pytest.raises(OSError), trackers.tracked(Acc(first, second), settings()) as any_tracker: assert any_tracker
    assert first.ended == 0 and second.ended == 0


def test_an_error_is_marked_and_not_swallowed():
    board, server = Fake("tensorboard"), Fake("wandb")
    with pytest.raises(KeyboardInterrupt), trackers.tracked(Acc(board, server), settings()): raise KeyboardInterrupt
    assert board.ended == 0 and server.ended == 1


@needs_board
@pytest.mark.skipif(not has["wandb"], reason="wandb is not installed")
def test_without_a_login_no_other_tracker_is_left_half_open(tmp_path):
    code = """
from geomusic.config import load_config
from geomusic.files import InputError
from geomusic.inputs import rings
from geomusic.train import fit
try: fit(*rings(150), load_config(dict(hardware=dict(device='cpu'), experiment=dict(use_wandb=True, tensorboard='board'))), out='run', progress=False)
except InputError as e: print(f'error: {e}'); raise SystemExit(2)
"""
    done = python(code, tmp_path)
    assert done.returncode == 2 and "wandb login" in done.stdout, done.stdout + done.stderr
    assert not [f for f in tmp_path.rglob("*tfevents*")] and not (tmp_path / "run" / "best_model.pth").exists()


def test_outside_of_a_notebook_the_plot_does_nothing(tmp_path):
    code = """
import sys, pandas as pd
from geomusic.learning.trackers import LivePlot
plot, history = LivePlot(), pd.DataFrame(dict(epoch=[1], val_loss=[.5]))
plot(history); plot.close(history)
print('drawn' if 'matplotlib' in sys.modules else 'nothing')
"""
    assert python(code, tmp_path).stdout == "nothing\n"


@pytest.mark.parametrize("left_out", [[], ["train_loss", "train_acc"], ["val_loss"], ["val_acc", "train_acc"], ["train_loss", "train_acc", "val_loss", "val_acc"]])
@pytest.mark.parametrize("holes", [False, True])
def test_any_history_can_be_drawn(left_out, holes):
    history = HISTORY.drop(columns=left_out)
    if holes: history.loc[:, history.columns != "epoch"] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        png = trackers._picture(history, "val_loss").data
    assert png.startswith(b"\x89PNG") and len(png) < 45_000


@pytest.mark.skipif(not has["nbclient"], reason="nbclient is not installed")
def test_two_runs_leave_two_pictures(tmp_path):
    import nbclient
    import nbformat
    cell = nbformat.v4.new_code_cell
    nb = nbformat.v4.new_notebook(cells=[
        cell("import pandas as pd\nfrom geomusic.learning.trackers import LivePlot\n"
             "h = pd.DataFrame(dict(epoch=range(1, 6), val_loss=[.9, .5, .4, .6, .7], val_acc=[.1, .5, .6, .5, .5]))\nplot = LivePlot(every_s=0)"),
        cell("for last in (3, 5):\n    for n in range(1, last + 1): plot(h[:n])\n    plot.close(h[:last])")])
    nbclient.NotebookClient(nb, kernel_name="python3", resources=dict(metadata=dict(path=str(tmp_path)))).execute()
    alts = [o.metadata["image/png"]["alt"] for o in nb.cells[1].outputs]
    assert [a.split(":")[0] for a in alts] == ["Epoch 3", "Epoch 5"] and all("best epoch 3" in a for a in alts)
