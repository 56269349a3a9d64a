"A search that is killed, interrupted, shared by processes, and never sees a test row."
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from geomusic.config import load_config
from geomusic.corpus import Corpus, save_corpus
from geomusic.files import InputError
from geomusic.sound.descriptors import DESCRIPTORS

optuna = pytest.importorskip("optuna")
from geomusic.learning import search as module  # noqa: E402
from geomusic.learning.search import check_space, count_trials, load_search, make_sampler, open_study, run_trial, search, search_rows  # noqa: E402
from geomusic.train import fit  # noqa: E402

SMALL = dict(hidden=[8, 16], learning_rate=dict(low=1e-3, high=1e-2, log=True))
COLUMNS = ["trial", "state", "value", *SMALL, "epochs", "best_epoch", "why"]


def corpus(folder, change=None):
    "Three countries that differ in some of the 13 descriptors"
    rng, n = np.random.default_rng(0), 180
    country = np.repeat(["DEU", "FRA", "IRL"], n // 3)
    x = pd.DataFrame(rng.normal(size=(n, len(DESCRIPTORS))), columns=DESCRIPTORS)
    x["danceability"] += 1.5 * (country == "DEU")
    x["tempo"] += 1.5 * (country == "IRL")
    tracks = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], country=country, lat_deg=50.0, lon_deg=5.0, group=[f"g{i}" for i in range(n)], title="", artist="", audio=""))
    tracks = pd.concat([tracks, x], axis=1).assign(split=np.tile(["train", "train", "train", "val", "val", "test"], n // 6))
    if change: change(tracks)
    return save_corpus(Corpus(tracks, folder=folder), folder)


def settings(*words):
    return load_config(None, ["training.num_epochs=4", "hardware.device=cpu", "model.params.widths=[16]", *words])


def find(c, out, n=4, config=None, **more):
    return search(c, config or settings(), out, n, **dict(space=SMALL, progress=False) | more)


def states(study):
    return [t.state.name for t in study.trials]


HEAD = """
import sys, os, time, pathlib, torch
sys.path.insert(0, {tests!r})
torch.set_num_threads(1)
import test_search as t
from geomusic.learning import search as module
from geomusic.corpus import load_corpus
room = pathlib.Path({room!r})
"""


def process(code, room):
    env = os.environ | dict(PYTHONPATH=os.pathsep.join(p for p in (str(module.__file__).rsplit("geomusic", 1)[0], os.environ.get("PYTHONPATH", "")) if p))
    head = HEAD.format(tests=os.path.dirname(__file__), room=str(room))
    return subprocess.Popen([sys.executable, "-c", head + code], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for(path, p, seconds=900):
    end = time.monotonic() + seconds
    while not path.exists():
        assert p.poll() is None, p.stdout.read()
        assert time.monotonic() < end, f"{path.name} was never written"
        time.sleep(0.05)


def test_test_rows_are_never_seen(tmp_path):
    def other_tests(tracks):
        test = tracks.split == "test"
        tracks.loc[test, "country"] = tracks.country[test].to_numpy()[::-1]
        tracks.loc[test, DESCRIPTORS] = 1e9
    a, b = find(corpus(tmp_path / "a"), tmp_path / "out_a"), find(corpus(tmp_path / "b", other_tests), tmp_path / "out_b")
    pd.testing.assert_frame_equal(a.trials[COLUMNS], b.trials[COLUMNS])
    assert a.study.user_attrs["about"] == b.study.user_attrs["about"]

    def other_vals(tracks):    # the same change where it must matter
        val = tracks.split == "val"
        tracks.loc[val, "country"] = tracks.country[val].to_numpy()[::-1]
    assert find(corpus(tmp_path / "c", other_vals), tmp_path / "out_c").value != a.value


def test_best_yaml_is_what_was_found(tmp_path):
    c = corpus(tmp_path / "c")
    found = find(c, tmp_path / "out", config=settings("checkpoint_dir=" + str(tmp_path / "not_here")), n=5)
    assert not (tmp_path / "not_here").exists()
    written = load_config(tmp_path / "out" / "best.yaml", ["checkpoint_dir=null"])
    run = fit(**search_rows(c, written), config=written, progress=False)
    assert run.history.val_loss.min() == found.value == found.trials.value.min()
    table = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert table.value[table.trial == found.study.best_trial.number].item() == pytest.approx(found.value, rel=1e-12)
    assert written.model.params["widths"] == tuple([found.study.best_params["hidden"]]) or written.model.params["widths"] == [found.study.best_params["hidden"]]


def test_a_metric_that_is_no_loss_is_maximised(tmp_path):
    found = find(corpus(tmp_path / "c"), tmp_path / "out", config=settings("training.early_stopping_metric=val_macro_f1"))
    assert found.value == found.trials.value.max() and found.study.direction.name == "MAXIMIZE"


def test_view_is_loaded_once(tmp_path, monkeypatch):
    from geomusic.sound import engine
    calls, real = [], engine.extract
    monkeypatch.setattr(engine, "extract", lambda *a, **k: calls.append(a) or real(*a, **k))
    find(corpus(tmp_path / "c"), tmp_path / "out")
    assert len(calls) == 1


@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_two_processes_share_a_study(kind, tmp_path):
    corpus(tmp_path / "corpus")
    storage = f"sqlite:///{tmp_path / 'a.db'}" if kind == "sqlite" else str(tmp_path / "a.journal")
    code = f"""
real, first = module.run_trial, []
def both_there(*a):
    if not first:    # the first trial of each waits for the other worker's
        first.append(1); (room/f'{{os.getpid()}}.took').touch(); end = time.monotonic() + 900
        while len(list(room.glob('*.took'))) < 2 and time.monotonic() < end: time.sleep(.02)
    return real(*a)
module.run_trial = both_there
print(t.find(load_corpus(room/'corpus'), room/'out', 7, storage={storage!r}))
"""
    workers = [process(code, tmp_path) for _ in range(2)]
    said = [w.communicate(timeout=900)[0] for w in workers]
    assert [w.returncode for w in workers] == [0, 0], said
    study = open_study(storage, "search", "val_loss")
    finished = [t for t in study.trials if t.state.name in ("COMPLETE", "PRUNED")]
    assert len(finished) == 7 and len({t.user_attrs["worker"] for t in finished}) == 2
    assert all(t.user_attrs["why"] == "another worker was faster" for t in study.trials if t.state.name == "FAIL")
    assert [t.number for t in study.trials] == list(range(len(study.trials)))
    assert (tmp_path / "out" / "best.yaml").exists() and any("Search(" in s for s in said)


def test_worker_processes_of_one_call(tmp_path):
    found = find(corpus(tmp_path / "c"), tmp_path / "out", 5, n_jobs=2)
    assert sum(s in ("COMPLETE", "PRUNED") for s in states(found.study)) == 5 and "RUNNING" not in states(found.study)


def test_a_killed_worker_blocks_nobody(tmp_path):
    c = corpus(tmp_path / "corpus")
    code = """
real = module._watch
def slow(trial, metric, history):
    if trial.number == 2: (room/'ready').touch(); time.sleep(3600)
    return real(trial, metric, history)
module._watch = slow
t.find(load_corpus(room/'corpus'), room/'out', 5)
"""
    p = process(code, tmp_path)
    wait_for(tmp_path / "ready", p)
    study = open_study(tmp_path / "out" / "study.journal", "search", "val_loss")
    assert states(study)[2] == "RUNNING" and count_trials(study.trials) == 3    # alive: it counts
    p.send_signal(signal.SIGKILL)
    p.wait()
    assert count_trials(study.trials) == 2
    found = find(c, tmp_path / "out", 5)
    assert states(found.study)[2] == "FAIL" and sum(s in ("COMPLETE", "PRUNED") for s in states(found.study)) == 5
    whole = find(c, tmp_path / "whole", 5)
    columns = [k for k in COLUMNS if k != "trial"]
    pd.testing.assert_frame_equal(found.trials[columns][:2], whole.trials[columns][:2])    # those before the kill are those of a quiet search


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_finished_trials_and_ends(how, tmp_path):
    c = corpus(tmp_path / "corpus")
    code = """
real = module._watch
def slow(trial, metric, history):
    if trial.number == 2 and len(history) == 2: (room/'ready').touch(); time.sleep(3600)    # an epoch is done: `fit` would keep it and return
    return real(trial, metric, history)
module._watch = slow
try: t.find(load_corpus(room/'corpus'), room/'out', 5)
except KeyboardInterrupt: print('interrupted'); sys.exit(130)
"""
    p = process(code, tmp_path)
    wait_for(tmp_path / "ready", p)
    p.send_signal(how)
    said = p.communicate(timeout=900)[0]
    assert p.returncode == 130 and "interrupted" in said, said
    table = pd.read_csv(tmp_path / "out" / "trials.csv")
    assert table.state.tolist() == ["complete", "complete", "fail"] and table.why[2] == "interrupted"
    assert load_config(tmp_path / "out" / "best.yaml")
    assert sum(s in ("COMPLETE", "PRUNED") for s in states(find(c, tmp_path / "out", 5).study)) == 5


def test_a_diverging_trial_is_not_the_end(tmp_path):
    space = dict(learning_rate=[1e-3, 1e30], hidden=[8, 16])
    found = find(corpus(tmp_path / "c"), tmp_path / "out", 8, space=space)
    bad = found.trials.learning_rate == 1e30
    assert bad.any() and (found.trials.state[bad] == "pruned").all() and found.trials.value[bad].isna().all()
    assert found.trials.why[bad].str.contains("number").all() and found.config.training.learning_rate == 1e-3


def test_nothing_but_divergence(tmp_path):
    with pytest.raises(InputError, match="no trial of 2 came to an end.*number"):
        find(corpus(tmp_path / "c"), tmp_path / "out", 2, space=dict(learning_rate=[1e30]))
    assert len(pd.read_csv(tmp_path / "out" / "trials.csv")) == 2 and not (tmp_path / "out" / "best.yaml").exists()


def test_bad_input_ends_the_search_at_once(tmp_path):
    c = corpus(tmp_path / "c")
    both = {"training.momentum": [0.0], "training.nesterov": [True]}    # each is possible, both are not
    with pytest.raises(InputError, match="trial 0 with.*nesterov") as told: find(c, tmp_path / "out", 4, config=settings("training.optimizer=sgd"), space=both)
    assert told.value.remedy and states(open_study(tmp_path / "out" / "study.journal", "search", "val_loss")) == ["FAIL"]
    with pytest.raises(InputError, match="not split"):
        find(Corpus(c.tracks.drop(columns="split"), folder=c.folder), tmp_path / "out3")


def test_time_is_up(tmp_path):
    c = corpus(tmp_path / "c")
    with pytest.raises(InputError, match="no trial of 0"): find(c, tmp_path / "out", 4, timeout_s=0)
    assert len(find(c, tmp_path / "out", 2, timeout_s=3600).trials) == 2


@pytest.mark.parametrize("kind, shape", [("cnn", (1, 16, 24)), ("rnn", (24, 5)), ("attention", (24, 5))])
def test_every_model_can_be_searched(kind, shape):
    y = np.tile(["DEU", "IRL"], 20)
    x = np.random.default_rng(0).normal(size=(40, *shape)).astype(np.float32) + 2 * (y == "IRL").reshape(-1, *[1] * len(shape))
    config = load_config(None, [f"model.type={kind}", "training.num_epochs=2", "hardware.device=cpu"])
    space = check_space(dict(hidden=[8, 16], layers=[1, 2], dropout=[0.1], batch_size=[16]), config)
    study = optuna.create_study(sampler=make_sampler(0))
    for _ in range(3): run_trial(study, study.ask(), config, space, dict(x=x, y=y, split=np.repeat(["train", "val"], 20)))
    assert states(study) == ["COMPLETE"] * 3 and len({(t.params["hidden"], t.params["layers"]) for t in study.trials}) > 1


def test_steps_and_ranges():
    config = settings()
    space = check_space(dict(hidden=dict(low=8, high=32, step=8), dropout=dict(low=0.1, high=0.5), layers=dict(low=1, high=3)), config)
    study = optuna.create_study(sampler=make_sampler(0))
    points = [module.propose(study.ask(), space) for _ in range(20)]
    assert {p["hidden"] for p in points} <= {8, 16, 24, 32} and {p["layers"] for p in points} == {1, 2, 3}
    assert len({p["dropout"] for p in points}) == 20 and all(0.1 <= p["dropout"] <= 0.5 for p in points)


def test_the_file_is_named(tmp_path):
    (tmp_path / "c.yaml").write_text("search: {learning_rte: [0.1]}\n")
    with pytest.raises(InputError, match="c.yaml.*learning_rte.*Did you mean `learning_rate`"): load_search(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("search: 3\n")
    with pytest.raises(InputError, match="c.yaml.*search"): load_search(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_text("trainin: {}\n")
    with pytest.raises(InputError, match="c.yaml.*Did you mean `training`"): load_search(tmp_path / "c.yaml")


def test_without_optuna(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"geomusic\[search\]"): find(corpus(tmp_path / "c"), tmp_path / "out")


def test_names_of_workers():
    me = module._me()
    host, pid, began = me.rsplit("/", 2)
    assert host == socket.gethostname() and module._alive(me)
    assert not module._alive(f"{host}/{pid}/{float(began) - 1000:.0f}")    # the number came again
    assert not module._alive(f"{host}x/{pid}/{began}") and not module._alive(f"{host}/999999999/{began}")
