"Ensembles: arithmetic by hand, members that do not fit, fitting on validation only, what is written and read back."
import shutil

import numpy as np
import pandas as pd
import pytest
import torch

from geomusic.config import load_config
from geomusic.corpus import Corpus, save_corpus
from geomusic.files import InputError, read_json, write_json
from geomusic.inputs import rings
from geomusic.learning.ensemble import (HOWS, LEAST, Ensemble, average, corpus_proba, coverage, fit_stack, fit_weights, load_ensemble,
                                        load_model, make_ensemble, same_labels, stacked)
from geomusic.train import Run, fit, load_run
from geomusic.views import View, store_view

nan = np.nan


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "Two fcnn runs on one view and one rnn on another, and the corpus they were trained on; rows 0 and 1 lack a view each, row 2 both."
    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("ensemble")
    x, y, split = rings(240)
    n = np.arange(240)
    tracks = pd.DataFrame(dict(track_id=[f"t{i}" for i in n], country=y, lat_deg=50.0, lon_deg=8.0, group=[f"g{i // 2}" for i in n], title="", artist="", audio="", split=split))
    corpus = save_corpus(Corpus(tracks), home / "corpus")
    seq = np.repeat(x[:, None, :2], 6, axis=1)  # (N, T, F)
    has_tab, has_seq = np.where(np.isin(n, [0, 2]), 0, 1), np.where(np.isin(n, [1, 2]), 0, 6)
    features = [f"f{i}" for i in range(13)]
    views = dict(tabular=store_view(corpus.folder, View("tabular", x, has_tab, dict(features=features))), sequence=store_view(corpus.folder, View("sequence", seq, has_seq)))
    for name, kind, view, epochs in (("a", "fcnn", "tabular", 4), ("b", "fcnn", "tabular", 12), ("c", "rnn", "sequence", 2)):
        settings = [f"model.type={kind}", f"training.num_epochs={epochs}", f"reproducibility.seed={epochs}"] + (["model.params.hidden=8", "model.params.num_layers=1"] if kind == "rnn" else [])
        v = views[view]
        fit(v.x, y, split, load_config(None, settings), n_frames=v.n_frames, out=home / name, progress=False, view=dict(name=view) | v.params)
    return home, corpus, views, [home / m for m in "abc"]


def test_average_by_hand():
    p = np.array([[[0.9, 0.1], [0.6, 0.4], [nan, nan]], [[0.5, 0.5], [nan, nan], [nan, nan]]])
    assert np.allclose(average(p), [[0.7, 0.3], [0.6, 0.4], [nan, nan]], equal_nan=True)
    assert np.allclose(average(p, [0.75, 0.25]), [[0.8, 0.2], [0.6, 0.4], [nan, nan]], equal_nan=True)


def test_weights_by_hand():
    p = np.array([[[0.8, 0.2]] * 3 + [[0.2, 0.8]]])
    p = np.concatenate([p, 1 - p])
    y = np.zeros(4, int)
    assert np.allclose(fit_weights(p, y), [11 / 12, 1 / 12], atol=1e-4)
    unseen = np.concatenate([p, np.full((2, 3, 2), nan)], axis=1)  # rows that nobody sees change nothing
    assert np.allclose(fit_weights(unseen, np.zeros(7, int)), [11 / 12, 1 / 12], atol=1e-4)
    with pytest.raises(InputError, match="no member sees"):
        fit_weights(np.full((2, 3, 2), nan), np.zeros(3, int))


def test_the_worst_member_keeps_a_little():
    p = np.array([[[1.0, 0.0]] * 5, [[0.0, 1.0]] * 5])  # a probability of exactly zero for the truth
    w = fit_weights(p, np.zeros(5, int))
    assert 0.9 * LEAST / 2 <= w[1] < 1e-3 and w.sum() == pytest.approx(1)
    assert np.allclose(average(np.array([[[nan, nan]], [[0.3, 0.7]]]), w), [[0.3, 0.7]])


def test_weights_beat_a_grid():
    rng = np.random.default_rng(3)
    p, y = rng.dirichlet(np.ones(4), (3, 60)), rng.integers(4, size=60)
    p[1, :20], p[2, 10:30] = nan, nan
    loss = lambda w: -np.log(average(p, w)[np.arange(60), y]).mean()
    grid = [(a, b, 1 - a - b) for a in np.linspace(0.01, 0.98, 40) for b in np.linspace(0.01, 0.98, 40) if a + b < 0.995]
    assert loss(fit_weights(p, y)) <= min(map(loss, grid)) + 1e-6


def test_stack_of_two_and_of_three_countries():
    rng = np.random.default_rng(0)
    for c in (2, 3):
        y = np.arange(150) % c
        p = rng.dirichlet(np.ones(c), (2, 150))
        p[0] = np.eye(c)[(y + 1) % c] * 0.7 + 0.3 / c  # always the next country
        s = fit_stack(p, y, np.arange(150) // 2, [str(i) for i in range(c)])
        q = stacked(p, s)
        assert (q.argmax(1) == y).all() and np.allclose(q.sum(1), 1) and s["coef"].shape == (c, 2 * c)


def test_stack_leaves_whole_groups_out():
    rng = np.random.default_rng(1)
    y = np.repeat(np.arange(2), 40)
    p = rng.dirichlet(np.ones(2) * 0.3, (1, 20)).repeat(4, axis=1)  # noise, but four twins in each group
    p = np.concatenate([p, rng.dirichlet(np.ones(2), (4, 20)).repeat(4, axis=1)])
    groups = np.arange(80) // 4
    honest, fooled = fit_stack(p, y, groups, ["A", "B"]), fit_stack(p, y, np.arange(80), ["A", "B"])
    assert min(honest["log_loss"].values()) > min(fooled["log_loss"].values())
    with pytest.raises(InputError, match="A has 1 groups"):
        fit_stack(p, y, np.where(y == 0, "one", groups.astype(str)), ["A", "B"])


def test_labels_must_be_the_same():
    assert same_labels([["DEU", "CHN"], ["CHN", "DEU"]], "ab") == ["DEU", "CHN"]
    with pytest.raises(InputError, match="only a knows DEU, only b knows IRL"):
        same_labels([["CHN", "DEU"], ["CHN", "IRL"]], "ab")


def test_order_of_labels_is_put_right(place):
    home, corpus, views, members = place
    a, b = load_run(members[0]), load_run(members[1])
    turned = load_run(members[1])
    turned.labels = turned.labels[::-1]
    last = list(turned.model.modules())[-1]
    with torch.no_grad():
        for p in last.parameters():
            p.copy_(p.flip(0))
    rows = np.arange(3, 30)
    x = views["tabular"].x[rows]
    assert np.allclose(turned.predict_proba(x), b.predict_proba(x)[:, ::-1], atol=1e-6)
    assert np.allclose(Ensemble([a, turned]).predict_proba(views, rows), Ensemble([a, b]).predict_proba(views, rows), atol=1e-6)


def test_missing_views(place):
    home, corpus, views, members = place
    a, b, c = map(load_run, members)
    told = {how: corpus_proba(make_ensemble(members, corpus, how, progress=False), corpus, progress=False) for how in HOWS}
    for how, (p, seen) in told.items():
        assert seen[:4].tolist() == [1, 2, 0, 3] and np.isnan(p[2]).all() and np.allclose(np.delete(p, 2, 0).sum(1), 1)
    assert coverage(told["average"][1]) == dict(rows=240, judged=239, unseen=1, seen_by={"0": 1, "1": 1, "2": 1, "3": 237})
    tab, seq = views["tabular"], views["sequence"]
    pa, pb, pc = a.predict_proba(tab.x[1:4]), b.predict_proba(tab.x[1:4]), c.predict_proba(seq.x[[0, 3]])
    assert np.allclose(told["average"][0][[0, 1, 3]], [pc[0], (pa[0] + pb[0]) / 2, (pa[2] + pb[2] + pc[1]) / 3], atol=1e-6)
    w = make_ensemble(members, corpus, "weighted", progress=False).weights
    assert np.allclose(told["weighted"][0][1], (w[0] * pa[0] + w[1] * pb[0]) / (w[0] + w[1]), atol=1e-6)
    assert np.allclose(told["stacked"][0][[0, 1]], told["weighted"][0][[0, 1]]) and not np.allclose(told["stacked"][0][3], told["weighted"][0][3])


def test_a_corpus_without_one_of_the_views(place, tmp_path):
    home, corpus, views, members = place
    other = save_corpus(Corpus(corpus.tracks), tmp_path)
    with pytest.raises(InputError, match="no audio"):
        corpus_proba(make_ensemble(members), other, progress=False)
    store_view(tmp_path, views["tabular"])
    p, seen = corpus_proba(make_ensemble(members), other, progress=False)
    assert seen[:4].tolist() == [0, 2, 0, 2] and np.isnan(p[0]).all()


def test_fitting_sees_validation_rows_only(place):
    home, corpus, views, members = place
    rng, t = np.random.default_rng(0), corpus.tracks
    country = t.country.to_numpy(copy=True)
    for side in ("test", "train"):
        rows = np.flatnonzero(t.split == side)
        country[rows] = country[rng.permutation(rows)]
    assert (country != t.country).any()
    changed = Corpus(t.assign(country=country), corpus.report, corpus.folder)
    before, after = (make_ensemble(members, c, "stacked", progress=False) for c in (corpus, changed))
    assert np.array_equal(before.weights, after.weights) and np.array_equal(before.stack["coef"], after.stack["coef"]) and before.stack["C"] == after.stack["C"]
    rows = np.flatnonzero(t.split == "val")
    country[rows] = np.roll(country[rows], 1)
    other = make_ensemble(members, Corpus(t.assign(country=country), corpus.report, corpus.folder), "stacked", progress=False)
    assert not np.allclose(before.weights, other.weights)


@pytest.mark.parametrize("how", HOWS)
def test_round_trip(place, tmp_path, how):
    home, corpus, views, members = place
    ens = make_ensemble(members, corpus, how, progress=False)
    file = ens.save(home / f"kept-{how}")
    saved = read_json(file)
    assert [m["path"] for m in saved["members"]] == [f"../{m}/best_model.pth" for m in "abc"] and saved["how"] == how
    for path in (file, file.parent):
        again = load_model(path)
        assert isinstance(again, Ensemble) and np.array_equal(again.predict_proba(views), ens.predict_proba(views), equal_nan=True)
    moved = shutil.copytree(home, tmp_path / "moved")
    assert np.array_equal(load_model(moved / f"kept-{how}").predict_proba(views), ens.predict_proba(views), equal_nan=True)
    assert isinstance(load_model(members[0]), Run) and isinstance(load_model(members[0] / "best_model.pth"), Run)


def test_tampered(place, tmp_path):
    home = shutil.copytree(place[0], tmp_path / "copy")
    ens = make_ensemble([home / m for m in "abc"], place[1], "stacked", progress=False)
    file = ens.save(home / "all")
    good = read_json(file)
    edits = {
        "changed since": dict(members=[good["members"][0] | dict(sha256="0" * 64), *good["members"][1:]]),
        "does not exist": dict(members=[good["members"][0] | dict(path="../nowhere/best_model.pth"), *good["members"][1:]]),
        "sum to 1": dict(weights=[0.5, 0.5]),
        "coefficients of shapes": dict(stack=good["stack"] | dict(coef=[[1.0]])),
        "unknown way": dict(how="vote"),
        "labels are not": dict(labels=["AAA", "BBB", "CCC"]),
        "no ensemble of this version": dict(format=2),
        "without path": dict(members=["a"]),
    }
    for said, edit in edits.items():
        write_json(file, good | edit)
        with pytest.raises(InputError, match=said):
            load_ensemble(file)
    write_json(file, good)
    load_ensemble(file)
    with open(home / "b" / "best_model.pth", "ab") as f:
        f.write(b"\0")
    with pytest.raises(InputError, match="b.best_model.pth has changed"):
        load_model(home / "all")
    file.write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        load_model(home / "all")


def test_members_that_do_not_fit(place, tmp_path):
    home, corpus, views, members = place
    with pytest.raises(InputError, match="1 model"):
        make_ensemble(members[:1])
    with pytest.raises(InputError, match="same checkpoint"):
        make_ensemble([members[0], members[0] / "best_model.pth"])
    with pytest.raises(InputError, match="no corpus"):
        make_ensemble(members, how="weighted")
    with pytest.raises(InputError, match="Did you mean `stacked`"):
        make_ensemble(members, corpus, how="stackd")
    with pytest.raises(InputError, match="not split"):
        make_ensemble(members, Corpus(corpus.tracks.drop(columns="split"), {}, corpus.folder), "weighted", progress=False)
    with pytest.raises(InputError, match="no validation rows"):
        make_ensemble(members, Corpus(corpus.tracks.assign(split="test"), {}, corpus.folder), "weighted", progress=False)
    runs = [load_run(m) for m in members[:2]]
    with pytest.raises(InputError, match="are no files"):
        Ensemble(runs).save(tmp_path)
    runs[1].view = runs[1].view | dict(n_mels=64)
    with pytest.raises(InputError, match="n_mels is 128 and 64"):
        Ensemble(runs)
    runs[1].view = runs[0].view | dict(features=["x"] * 13)
    with pytest.raises(InputError, match="features are f0, f1, f2, .. and x, x, x"):
        Ensemble(runs)
    other = [load_run(m) for m in members[:2]]
    other[1].labels = ["CHN", "DEU", "JPN"]
    with pytest.raises(InputError, match="only .* knows IRL"):
        Ensemble(other)


def test_a_table_is_asked_of_the_members_that_read_tables(place, tmp_path):
    home, corpus, views, members = place
    x = views["tabular"].x[3:6]
    pd.DataFrame(x, columns=[f"f{i}" for i in range(13)]).to_csv(tmp_path / "t.csv", index=False)
    told = make_ensemble(members).predict_file(tmp_path / "t.csv")
    assert told.attrs["seen_by"] == ["a", "b"] and told.columns.tolist() == ["CHN", "DEU", "IRL"]
    assert np.allclose(told, average(np.stack([load_run(m).predict_proba(x) for m in members[:2]])), atol=1e-5)
    with pytest.raises(InputError, match="does not exist"):
        make_ensemble(members).predict_file(tmp_path / "gone.wav")


def test_a_single_run_is_asked_the_same_way(place):
    home, corpus, views, members = place
    run = load_run(members[2])
    p, seen = corpus_proba(run, corpus, np.array([5, 1, 3]), progress=False)
    assert seen.tolist() == [1, 0, 1] and np.isnan(p[1]).all()
    assert np.allclose(p[[0, 2]], run.predict_proba(views["sequence"].x[[5, 3]]), atol=1e-6)
