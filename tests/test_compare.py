"Comparing models: answers by hand, SciPy and statsmodels as judges, promises kept on simulated models, and tables that must be refused."
from unittest import mock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest
from scipy.stats import permutation_test as scipys
from sklearn import metrics as sk
from statsmodels.stats.multitest import multipletests

from geomusic.evaluate import predictions_table, score
from geomusic.files import InputError
from geomusic.judging.compare import COMPARED, compare_models, comparison_figure, holm, mcnemar, paired_bootstrap, paired_table, permutation_test, row_values, verdict
from geomusic.places import countries

LABELS = "AUS BRA DEU FRA IRL JPN USA".split()


def model(seed=0, n=60, n_groups=20, skill=0.5, labels=LABELS, right=None):
    "a model that is right with probability `skill`; tracks and truths are the same for every seed"
    y, group = np.arange(n) % len(labels), np.arange(n) * n_groups // n
    r = np.random.default_rng(seed)
    right = r.random(n) < skill if right is None else np.asarray(right, bool)
    p = r.dirichlet(np.ones(len(labels)), n) * 0.4
    p[np.arange(n), np.where(right, y, (y + 1 + r.integers(len(labels) - 1, size=n)) % len(labels))] += 0.6
    at = countries().loc[labels]
    tracks = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], group=group, country=np.array(labels)[y], lat_deg=at.lat_deg.values[y], lon_deg=at.lon_deg.values[y]))
    return predictions_table(tracks, p, labels)


@pytest.mark.parametrize("metric", [m for m in COMPARED if m in score(model(), n_bootstrap=2)])
def test_difference_is_that_of_the_scores(metric):
    a, b = model(1), model(2, skill=0.3)
    diff = score(a, n_bootstrap=2)[metric] - score(b, n_bootstrap=2)[metric]
    assert np.isclose(paired_bootstrap(a, b, metric, n=20)["diff"], diff) and np.isclose(permutation_test(a, b, metric, n=20)["diff"], diff)


def test_at_least_the_old_scores_are_compared():
    assert {"accuracy", "top3", "top5", "balanced_accuracy", "macro_f1", "weighted_f1", "log_loss", "km_mean", "km_median"} <= set(COMPARED)


def test_brier_is_twice_sklearns_of_two_classes():
    a = model(labels=["DEU", "IRL"])
    assert np.isclose(row_values(a, "brier").mean(), 2 * sk.brier_score_loss(a.country == "IRL", a.p_IRL))


def test_km_of_a_point():
    a = model().assign(point_lat_deg=0.0, point_lon_deg=0.0, lat_deg=0.0, lon_deg=90.0)
    assert np.allclose(row_values(a, "km_mean"), 6371.0088 * np.pi / 2, rtol=1e-3)
    assert row_values(a, "within_2500_km").sum() == 0 and row_values(a.assign(point_lon_deg=80.0), "within_2500_km").all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), groups=st.integers(2, 9))
def test_exact_permutation_is_scipys(seed, groups):
    a, b = model(seed, n_groups=groups), model(seed + 1, n_groups=groups, skill=0.3)
    d = np.bincount(a.group, row_values(a) - row_values(b))
    theirs = scipys((d,), lambda s, axis: s.sum(axis=axis), permutation_type="samples", vectorized=True)
    ours = permutation_test(a, b)
    assert ours["exact"] and ours["n_groups"] == groups and np.isclose(ours["p"], min(1, theirs.pvalue))


@pytest.mark.parametrize("metric", ["km_median", "macro_f1"])
def test_permutation_of_what_is_no_mean(metric):
    "Written out: swap the answers of every set of groups, score again."
    a, b = model(3, n=24, n_groups=5), model(4, n=24, n_groups=5, skill=0.2)
    stat = lambda t: np.median(row_values(t, metric)) if metric == "km_median" else sk.f1_score(t.country, t.predicted, average="macro", zero_division=0)
    diffs = []
    for k in range(2**5):
        swap = np.array([k >> g & 1 for g in a.group], bool)
        mixed = lambda x, y: pd.concat([x[~swap], y[swap]])
        diffs.append(stat(mixed(a, b)) - stat(mixed(b, a)))
    diffs = np.abs(diffs)
    assert np.isclose(permutation_test(a, b, metric)["p"], (diffs >= diffs[0] - 1e-9).mean())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), metric=st.sampled_from(COMPARED))
def test_exchanging_models_changes_signs_only(seed, metric):
    a, b = model(seed), model(seed + 1)
    x, y = paired_bootstrap(a, b, metric, n=100), paired_bootstrap(b.sample(frac=1, random_state=0), a.sample(frac=1, random_state=0), metric, n=100)
    assert np.allclose([x["diff"], x["lo"], x["hi"], x["p"]], [-y["diff"], -y["hi"], -y["lo"], y["p"]])
    p, q = permutation_test(a, b, metric, n=50), permutation_test(b, a, metric, n=50)
    assert np.isclose(p["p"], q["p"]) and 1 / 51 <= p["p"] <= 1 and x["lo"] <= x["hi"]
    assert permutation_test(a, a, metric, n=50)["p"] == 1 and paired_bootstrap(a, a, metric, n=50)["hi"] == 0


def test_bootstrap_has_the_standard_error():
    a, b = model(1, n=800, n_groups=800, skill=0.7), model(2, n=800, n_groups=800, skill=0.6)
    d = row_values(a) - row_values(b)
    got = paired_bootstrap(a, b, n=3000)
    assert np.allclose([got["lo"], got["hi"]], d.mean() + np.array([-1.96, 1.96]) * d.std() / np.sqrt(800), atol=0.008)


def test_grouped_rows_widen_the_interval():
    right = np.repeat(np.random.default_rng(0).random(40) < 0.7, 10)
    width = lambda groups: np.ptp([paired_bootstrap(model(1, 400, groups, right=right), model(2, 400, groups, right=np.zeros(400)))[k] for k in ("lo", "hi")])
    assert 2.6 < width(40) / width(400) < 3.8  # the root of ten


def test_permutation_p_is_uniform_if_nothing_differs():
    "Equal models with dependent rows: p below x in at most a share x of the cases, within four standard errors."
    p = []
    for s in range(200):
        r, g = np.random.default_rng(s), np.arange(90) // 6
        a, b = (model(0, 90, 15, right=r.random(90) < r.choice([0.1, 0.9], 15)[g]) for _ in range(2))
        p.append(permutation_test(a, b, n=300)["p"])
    for x in (0.05, 0.2, 0.5): assert abs(np.mean(np.array(p) < x) - x) < 4 * np.sqrt(x * (1 - x) / 200) + 0.01


def test_mcnemar_is_a_binomial_test():
    a, b = model(1, n=100, n_groups=100, skill=0.6), model(2, n=100, n_groups=100, skill=0.4)
    m, x, y = mcnemar(a, b), row_values(a) == 1, row_values(b) == 1
    assert (m["both"], m["a_only"], m["b_only"], m["neither"]) == ((x & y).sum(), (x & ~y).sum(), (~x & y).sum(), (~x & ~y).sum())
    assert np.isclose(m["p"], binomtest(int(m["a_only"]), int(m["a_only"] + m["b_only"])).pvalue) and m["rows_are_groups"] and not mcnemar(model(1), model(2))["rows_are_groups"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_by_its_definition(p):
    order = np.argsort(p, kind="stable")
    want, running = np.empty(len(p)), 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1, (len(p) - rank) * p[i]))
        want[i] = running
    with mock.patch("gc.collect"):  # statsmodels collects garbage in each call: half a minute of this test
        assert np.allclose(holm(p), want) and np.allclose(holm(p), multipletests(p, method="holm")[1])


def test_holm_refuses():
    for bad in ([np.nan], [-0.1], [1.1]):
        with pytest.raises(InputError): holm(bad)


def test_verdict_needs_both():
    row = dict(metric="accuracy", a="x", b="y", diff=0.1, lo=0.02, hi=0.2, p_holm=0.01)
    assert verdict(row) == "x better than y" and verdict(row | dict(diff=-0.1, lo=-0.2, hi=-0.02)) == "y better than x"
    for m in ("log_loss", "brier", "mean_rank", "km_mean", "km_median"): assert verdict(row | dict(metric=m)) == "y better than x"
    for m in ("macro_f1", "top3", "within_500_km"): assert verdict(row | dict(metric=m)) == "x better than y"
    for no in (dict(p_holm=0.05), dict(p_holm=np.nan), dict(lo=0.0), dict(lo=np.nan, hi=np.nan)): assert verdict(row | no) == "not told apart"


def test_compare_models_is_its_parts():
    tables = dict(a=model(1, skill=0.9), b=model(2, skill=0.4), c=model(3, skill=0.4))
    out = compare_models(tables, ["accuracy", "macro_f1"], n=200, seed=3)
    assert len(out) == 6 and np.allclose(out.p_holm, holm(out.p)) and (out.n_groups == 20).all() and (out.n == 60).all()
    boot = paired_bootstrap(tables["a"], tables["c"], "macro_f1", n=200, seed=3)
    row = out[(out.metric == "macro_f1") & (out.b == "c") & (out.a == "a")].iloc[0]
    assert np.allclose([row["diff"], row.lo, row.hi], [boot["diff"], boot["lo"], boot["hi"]]) and np.isclose(row.value_a - row.value_b, row["diff"])
    assert row.p == permutation_test(tables["a"], tables["c"], "macro_f1", n=2000, seed=3)["p"] and row.verdict == "a better than c"
    assert out[(out.a == "b")].verdict.eq("not told apart").all()


def test_many_tests_can_still_find_something():
    "Holm's factor must not exceed what the exchanges can resolve."
    tables = {f"m{i}": model(i, skill=0.95 if i == 0 else 0.2) for i in range(9)}
    out = compare_models(tables, ("accuracy", "brier", "top3"), n=100)
    assert (out[(out.a == "m0") & (out.metric == "accuracy")].verdict.str.startswith("m0 better")).all()


def test_one_group_says_nothing():
    a, b = model(1, right=np.ones(60)).assign(group="g"), model(2, right=np.zeros(60)).assign(group="g")
    row = compare_models(dict(a=a, b=b), "accuracy").iloc[0]
    assert row["diff"] == 1 and np.isnan(row.lo) and row.p == 1 and row.verdict == "not told apart"


def test_models_may_know_different_countries():
    a, b = model(1), model(2)
    extra = predictions_table(b, np.c_[b.filter(like="p_"), np.zeros(60)], [*LABELS, "CHN"])
    for m in COMPARED: assert np.isclose(paired_bootstrap(a, extra, m, n=50)["diff"], paired_bootstrap(a, b, m, n=50)["diff"]), m


def test_tracks_without_coordinates_leave_the_kilometres():
    a, b = (model(s).assign(lat_deg=lambda t: t.lat_deg.mask(t.index < 10)) for s in (1, 2))
    assert len(paired_table(dict(a=a, b=b), "km_mean")) == 50 and len(paired_table(dict(a=a, b=b))) == 60


A, B = model(1), model(2)
BAD = {
    "answers for track `t50`": (dict(a=A, b=B[:50]), "accuracy"),
    "`b` answers for track `t59`": (dict(a=A[:59], b=B), "accuracy"),
    "country of track `t7`": (dict(a=A, b=B.assign(country=B.country.where(B.index != 7, "USA"))), "accuracy"),
    "group of track `t0`": (dict(a=A, b=B.assign(group="x")), "accuracy"),
    "1 model": (dict(a=A), "accuracy"),
    "0 model": ({}, "accuracy"),
    "unknown metric": (dict(a=A, b=B), "speed"),
    "cannot be called": (dict(group=A, b=B), "accuracy"),
    "no track has": (dict(a=A.assign(lon_deg=np.nan), b=B.assign(lon_deg=np.nan)), "km_mean"),
    "`b`: ": (dict(a=A, b=B.drop(columns="predicted")), "accuracy"),
    "stands twice": (dict(a=A, b=pd.concat([B, B[:1]])), "accuracy"),
}


@pytest.mark.parametrize("words", BAD)
def test_refused(words):
    tables, metric = BAD[words]
    with pytest.raises(InputError, match=words.replace("(", r"\(")): paired_table(tables, metric)
    if words != "cannot be called" and len(tables):
        with pytest.raises(InputError): compare_models(tables, metric)


def test_other_refusals():
    with pytest.raises(InputError, match="no metric"): compare_models(dict(a=A, b=B), [])
    with pytest.raises(InputError, match="metric of rows"): row_values(A, "macro_f1")


@pytest.mark.parametrize("k", [2, 3, 12])
def test_figure(k, tmp_path):
    tables = {f"model_{i}": model(i, skill=0.9 - 0.07 * i) for i in range(k)}
    fig = comparison_figure(tables, "km_mean", n=100, title="title")
    left, right = fig.axes
    names = [t.get_text() for t in left.get_yticklabels()]
    assert sorted(names) == sorted(tables) and right.get_xlabel() == f"difference to {names[0]}" and fig.get_suptitle() == "title"
    values = left.lines[0].get_xdata()
    assert np.all(np.diff(values) >= 0) and np.isclose(values[0], min(row_values(t, "km_mean").mean() for t in tables.values()))
    fig.savefig(tmp_path / "f.png")
