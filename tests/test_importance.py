"""Which descriptors mattered: known values, invariants, figures, menus, and models and tables that cannot be explained."""
import sys

import numpy as np
import pandas as pd
import pytest

from geomusic.exploring import importance as imp
from geomusic.files import InputError

pytest.importorskip("shap")


def model(n=40, c=3, f=4, seed=0, names=None, background=30):
    "A softmax of a linear map whose last column is not looked at."
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(f, c))
    w[-1] = 0

    def predict(x):
        z = np.exp(np.asarray(x) @ w)
        return z / z.sum(1, keepdims=True)
    x = rng.normal(size=(n + background, f))
    labels = ["CHN", "DEU", "IRL", "KEN", "ISL"][:c]
    tracks = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], title=[f"<b>tune</b> {i}" for i in range(n)], artist="", group=[f"g{i // 2}" for i in range(n)],
                               country=np.array(labels)[predict(x[:n]).argmax(1)], surprise=rng.uniform(size=n)))
    return imp.TableModel(predict, x[:n], x[n:], tracks, names or [f"column {i}" for i in range(f)], labels)


@pytest.fixture(scope="module")
def asked():
    return model()


@pytest.fixture(scope="module")
def shap(asked):
    return imp.shap_values(asked)


def test_values_add_up_to_the_answer_and_leave_numpy_alone(asked):
    np.random.seed(3)
    state = np.random.get_state()[1].copy()
    found = imp.shap_values(asked, [0, 3], n_samples=200)
    assert (np.random.get_state()[1] == state).all()
    assert np.allclose(found.values.sum(1) + found.base, asked.predict(asked.x[[0, 3]]), atol=1e-6)
    assert np.abs(found.values[:, -1]).max() < 1e-9 and found.error > 0
    assert (imp.shap_values(asked, [0, 3], n_samples=200).values == found.values).all(), "the same seed, the same values"


def test_the_stated_error_is_the_error(asked):
    "Against all 2^F coalitions, counted out."
    from itertools import combinations
    from math import factorial
    f, x, bg = 4, asked.x[:8], asked.background

    def v(subset):
        mixed = np.repeat(bg[None], len(x), 0)
        for i in subset:
            mixed[:, :, i] = x[:, i, None]
        return asked.predict(mixed.reshape(-1, f)).reshape(len(x), len(bg), -1).mean(1)
    exact = np.zeros((len(x), f, 3))
    for i in range(f):
        for size in range(f):
            for s in combinations([j for j in range(f) if j != i], size):
                exact[:, i] += factorial(size) * factorial(f - size - 1) / factorial(f) * (v((*s, i)) - v(s))
    found = imp.shap_values(asked, range(8))
    rms = np.sqrt(((found.values - exact) ** 2).mean())
    assert rms < 3 * found.error and found.error < 3 * rms


def test_many_countries_and_one_track_and_one_descriptor():
    found = imp.shap_values(model(n=1, c=5, f=2), n_samples=100)
    assert found.values.shape == (1, 2, 5)
    assert imp.beeswarm_plot(found, "ISL").data[0].type == "scatter"
    assert len(imp.waterfall_table(found, 0, "KEN")) == 2
    two = model(n=3, f=2)
    lone = imp.TableModel(lambda x: two.predict(np.c_[x, x]), two.x[:, :1], two.background[:, :1], two.tracks, ["tempo"], two.labels)
    m = imp.measures(imp.shap_values(lone, n_samples=100))
    assert list(m.clusters) == ["tempo"] and imp.agreement(m).spearman.isna().all()
    assert len(imp.importance_table(m, 20)) == 1


def test_background_shares_out_by_group():
    group = np.array(["a"] * 95 + list("bcdef"))
    rows = imp.background_rows(group, 6)
    assert sorted(group[rows]) == list("abcdef") and len(imp.background_rows(group, 1000)) == 100
    with pytest.raises(InputError, match="0 rows"):
        imp.background_rows(group, 0)


def test_waterfall_table_and_figures(shap, asked):
    t = imp.waterfall_table(shap, 2, "DEU", most=2)
    assert np.allclose(t.end[:-1], t.start[1:]) and t.what.iloc[-1] == "2 others"
    assert np.isclose(t.end.iloc[-1], asked.predict(asked.x[2:3])[0, 1], atol=1e-6)
    fig = imp.waterfall_plot(shap, 2, "DEU")
    assert "Germany" in fig.layout.meta["alt"] and fig.data[0].base == pytest.approx(shap.base[1], abs=1e-4)
    assert imp.waterfall_figure(shap, 2, "DEU").get_label() == fig.layout.meta["alt"]
    for f in (imp.country_figure(shap), imp.beeswarm_figure(shap, "IRL"), imp.dependence_figure(asked, "column 0")):
        f.canvas.draw()
    with pytest.raises(InputError, match="unknown country"):
        imp.waterfall_table(shap, 0, "Nowhere")


def test_figures_are_decimated():
    big = model(n=50)
    found = imp.Shap(np.random.default_rng(0).normal(size=(20_000, 4, 3)), np.zeros(3), .1, imp.TableModel(big.predict, np.tile(big.x, (400, 1)), big.background, pd.concat([big.tracks] * 400), big.names, big.labels))
    fig = imp.beeswarm_plot(found, "CHN")
    assert 2000 < sum(len(t.x) for t in fig.data) <= 3000 and len(fig.to_json()) < 250_000


def test_clusters_of_correlated_columns():
    x = np.random.default_rng(0).normal(size=(200, 3))
    x = np.c_[x, x[:, 0] + .1 * x[:, 1], np.ones(200)]
    assert imp.descriptor_clusters(x, list("abcde")) == {"a + d": [0, 3], "b": [1], "c": [2], "e": [4]}
    assert len(imp.descriptor_clusters(x, list("abcde"), least=.999)) == 5


def test_a_copy_hides_a_column_unless_taken_together():
    "What the clusters are for: a model that looks at either of two equal columns loses little with one, much with both."
    m = model(f=3)
    w = 4 * np.array([[1, -1], [1, -1], [0, 0]])

    def predict(x):
        z = np.exp(np.asarray(x) @ w)
        return z / z.sum(1, keepdims=True)
    twin = lambda x: np.c_[x[:, 0], x[:, 0], x[:, 2]]  # noqa: E731
    x, bg = twin(m.x), twin(m.background)
    labels = ["CHN", "DEU"]
    t = imp.TableModel(predict, x, bg, m.tracks.assign(country=np.array(labels)[predict(x).argmax(1)]), list("abc"), labels)
    found = imp.shap_values(t, n_samples=200)
    alone, together = (imp.importance_table(imp.measures(found, c), 20) for c in ({n: [i] for i, n in enumerate("abc")}, None))
    assert list(together.index) == ["a + b", "c"] and together.permutation["a + b"] > 1.5 * alone.permutation["a"] > 0
    assert together.permutation["c"] == pytest.approx(0, abs=1e-6)


def test_agreement_is_a_rank_correlation_with_an_interval(shap):
    from scipy.stats import spearmanr
    m = imp.measures(shap, {n: [i] for i, n in enumerate(shap.model.names)})
    a = imp.agreement(m, 100)
    assert a.spearman.iloc[0] == pytest.approx(spearmanr(m.shap.mean(0), m.loss.mean(0))[0])
    assert (a.lo <= a.hi).all() and (a.hi <= 1 + 1e-9).all() and (a.clusters == 4).all()
    wild = imp.Measures(m.clusters, m.shap, -m.loss, m.swapped, m.group)
    assert imp.agreement(wild, 100).spearman.iloc[0] == pytest.approx(-a.spearman.iloc[0])


def test_truth_that_the_model_never_saw(shap):
    strange = imp.Shap(shap.values, shap.base, 0., imp.TableModel(shap.model.predict, shap.model.x, shap.model.background, shap.model.tracks.assign(country="USA"), shap.model.names, shap.model.labels))
    with pytest.raises(InputError, match="never seen USA"):
        imp.measures(strange)


def test_dependence_of_codes_and_numbers(asked):
    values, answers = imp.dependence(asked, "column 3")
    assert answers.shape == (40, 21, 3) and np.ptp(answers, 1).max() < 1e-12
    coded = imp.TableModel(asked.predict, asked.x, np.round(asked.background), asked.tracks, asked.names, asked.labels)
    assert set(imp.dependence(coded, "column 0")[0]) == set(np.round(asked.background[:, 0]))
    fig = imp.dependence_plot(asked, "column 0", ["DEU", "IRL"])
    assert [t.name for t in fig.data] == ["Germany", "Ireland", "deciles"] and fig.data[0].line.dash != fig.data[1].line.dash


@pytest.mark.parametrize("change,problem", [
    (dict(x=np.full((3, 4), np.nan)), "NaN"), (dict(x=np.zeros((0, 4))), "0 tracks"), (dict(background=np.zeros((0, 4))), "background of 0"),
    (dict(names=list("abc")), "do not fit 3 names"), (dict(labels=["CHN", "DEU"]), "2 probabilities")])
def test_tables_that_cannot_be_explained(asked, change, problem):
    parts = dict(predict=asked.predict, x=asked.x, background=asked.background, tracks=asked.tracks, names=asked.names, labels=asked.labels) | change
    with pytest.raises(InputError, match=problem):
        imp.TableModel(**parts)


def test_without_shap_it_is_said_in_place(asked, monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(InputError, match="not installed"):
        imp.shap_values(asked)
    box = imp.explore_importance(asked)
    box.menus[0].value = "one track"
    assert "not installed" in box.fig.layout.annotations[0].text
    box.menus[0].value = "turning one"
    assert box.fig.data[0].name == "China", "and it stays usable"


def test_menus_change_the_figure(asked):
    box = imp.explore_importance(asked)
    picture, country, item = box.menus
    assert [o[1] for o in item.options] == asked.names and box.fig.layout.xaxis.title.text == "column 0"
    item.value, country.value = "column 2", "DEU"
    assert box.fig.data[0].name == "Germany" and box.fig.layout.xaxis.title.text == "column 2"
    picture.value = "one track"
    assert item.value == asked.tracks.surprise.idxmax(), "the most surprising first"
    before = box.fig.data[0].x
    item.value = int(asked.tracks.surprise.idxmin())
    assert box.fig.data[0].type == "waterfall" and box.fig.data[0].x != before and "Germany" in box.words.value
    picture.value = "all tracks"
    assert len(box.fig.data) == 4
    picture.value = "taking away"
    assert [t.name for t in box.fig.data] == ["permutation", "shap", "dependence"]


def test_a_run_on_folk_tunes():
    from geomusic.exploring.opened import demo_run, open_run
    opened = open_run(*demo_run("fcnn"))
    one = imp.table_model(opened, n_background=5, limit=1)
    assert one.x.shape == (1, 13) and len(one.background) == 5
    train = set(opened.corpus.tracks.track_id[opened.corpus.tracks.split == "train"])
    v = opened.view
    assert all(opened.corpus.tracks.track_id.iloc[int(np.flatnonzero((v.x == b.astype(np.float32)).all(1))[0])] in train for b in one.background), "background from the training side"
    found = imp.shap_values(one, n_samples=200)
    assert np.allclose(found.values.sum(1) + found.base, opened.proba[:1], atol=1e-3)


def test_gaps_and_models_of_sound():
    from dataclasses import replace
    from geomusic.exploring.opened import demo_run, open_run
    opened = open_run(*demo_run("fcnn"))
    x = np.array(opened.view.x)
    x[opened.rows[:2], 0] = np.nan
    holey = replace(opened, views={k: replace(v, x=x) for k, v in opened.views.items()})
    m = imp.table_model(holey)
    assert len(m) == len(opened) - 2 and "2 tracks with gaps" in m.note
    assert "not a table" in imp.explore_importance(open_run(*demo_run("attention"), limit=2)).value
