"Conformal sets: scores and thresholds by hand, the exact law of their coverage on 20 simulated data sets, groups, regions, all bad input."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, kstest

from geomusic.evaluate import predictions_table
from geomusic.files import InputError
from geomusic.judging.conformal import (GROUPED, METHODS, conformal_sets, conformal_threshold, coverage_band, coverage_table, fit_conformal, set_names,
                                        strangeness)
from geomusic.scores import wilson

SIX = ["IRL", "ITA", "MLI", "PER", "BRA", "JPN"]
HAND = np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.25, 0.25, 0.5]])


def made(n, seed, c=6, groups=None):
    "A predictions table of a model that is wrong, the truths drawn from something else"
    rng = np.random.default_rng(seed)
    real = rng.dirichlet(np.full(c, 0.5), n)
    y = (rng.random((n, 1)) > real.cumsum(1)[:, :-1]).sum(1)
    p = np.sqrt(real) + 0.4 * (np.arange(c) == 1) + 0.01 * rng.random((n, c))
    tracks = pd.DataFrame(dict(track_id=[f"{seed}/{i}" for i in range(n)], group=np.arange(n) if groups is None else groups, country=np.array(SIX)[y]))
    return predictions_table(tracks, p / p.sum(1, keepdims=True), SIX), y


def test_strangeness_by_hand():
    assert np.allclose(strangeness(HAND), [[0.5, 0.8, 1], [1, 1, 0.8], [1, 1, 0.5]])
    assert np.allclose(strangeness(HAND, "lac"), 1 - HAND)
    u = np.random.default_rng(7).random((3, 1))
    assert np.allclose(strangeness(HAND, seed=7), np.array([[0, 0.5, 0.8], [0.8, 0.8, 0], [0.5, 0.5, 0]]) + u * [[0.5, 0.3, 0.2], [0.2, 0.2, 0.8], [0.5, 0.5, 0.5]])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 5))
def test_strangeness_is_the_plain_definition(seed, c, level):
    p = np.random.default_rng(seed).integers(0, level + 1, (8, c)) + 0.0
    p[:, 0] += p.sum(1) == 0
    p /= p.sum(1, keepdims=True)
    s, u = strangeness(p, seed=seed), np.random.default_rng(seed).random((8, 1))
    for i, row in enumerate(p):
        for k in range(c):
            assert np.isclose(s[i, k], row[row > row[k]].sum() + u[i, 0] * row[row == row[k]].sum(), atol=1e-9)
    order = np.random.default_rng(seed + 1).permutation(c)
    assert np.allclose(strangeness(p[:, order]), strangeness(p)[:, order]), "the order of the columns means nothing"


def test_threshold_by_hand():
    s = [0.4, 0.1, 0.3, 0.2]
    assert [conformal_threshold(s, a) for a in (0.8, 0.6, 0.4, 0.2, 0.19)] == [0.1, 0.2, 0.3, 0.4, np.inf]
    assert conformal_threshold([0.1, 0.9, 0.3], 1 / 3, list("aab")) == 0.9 and conformal_threshold([0.1, 0.9, 0.3], 0.5, list("aab")) == 0.3
    assert conformal_threshold([0.5] * 9, 0.1) == 0.5 and conformal_threshold([0.5] * 8, 0.1) == np.inf


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 300), st.integers(1, 99), st.integers(0, 10**6))
def test_threshold_is_the_order_statistic(n, per_cent, seed):
    s = np.random.default_rng(seed).random(n)
    k = -(-(n + 1) * (100 - per_cent) // 100)  # whole numbers: the ceiling without rounding
    assert conformal_threshold(s, per_cent / 100) == (np.sort(s)[k - 1] if k <= n else np.inf)
    assert conformal_threshold(s, per_cent / 100, np.arange(n)) == conformal_threshold(s, per_cent / 100)
    assert conformal_threshold(s.repeat(3), per_cent / 100, np.arange(n).repeat(3)) == conformal_threshold(s, per_cent / 100), "repeats in a group change nothing"


def test_sets_by_hand():
    assert conformal_sets(HAND, 0.8).tolist() == [[1, 1, 0], [0, 0, 1], [0, 0, 1]] and conformal_sets(HAND, np.inf).all()
    assert conformal_sets(HAND, 0.3).sum() == 0 and conformal_sets(HAND, 0.3, never_empty=True).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert conformal_sets(HAND, [1, 0.7, 0], "lac").tolist() == [[1, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_band_by_hand():
    assert coverage_band(9, 1, 0.1) == (0.0, 1.0) and coverage_band(8, 100, 0.1) == (1.0, 1.0)
    lo, hi = coverage_band(99, 200, 0.1, 0.9)
    law = betabinom(200, 90, 10)
    assert law.cdf(200 * lo) >= 0.05 > law.cdf(200 * lo - 1) and law.cdf(200 * hi) >= 0.95 > law.cdf(200 * hi - 1)


@pytest.mark.parametrize("method, seed", [("lac", None), ("aps", None), ("aps", 3)])
def test_coverage_on_20_simulated_data_sets(method, seed):
    "Each measured coverage lies in its exact band, and all of them together follow the beta-binomial law."
    n, m, alpha = 150, 500, 0.1
    lo, hi = coverage_band(n, m, alpha, 0.9995)
    law = betabinom(m, 136, 15)  # ceil(151*0.9) = 136
    hits, off = [], 0
    for i in range(20):
        val, _ = made(n, 2 * i)
        test, y = made(m, 2 * i + 1)
        hits.append(int(fit_conformal(val, alpha, method, seed=seed).sets(test)[np.arange(m), y].sum()))
        off += int(fit_conformal(val, 0.25, method, seed=seed).sets(test)[np.arange(m), y].mean() < lo)
    hits = np.array(hits)
    assert ((hits / m >= lo) & (hits / m <= hi)).all()
    assert abs(hits.mean() - law.mean()) < 4 * law.std() / np.sqrt(20)
    spread = law.cdf(hits - 1) + np.random.default_rng(0).random(20) * law.pmf(hits)
    assert kstest(spread, "uniform").pvalue > 0.001
    assert off > 10, "the check sees another promise"


@pytest.mark.parametrize("grouped", ["weighted", "one"])
def test_promise_for_new_groups(grouped):
    "A hundred draws of 30 unequal groups, each group with its own level of strangeness: the mean coverage of new groups keeps the promise; rows do not."
    rng, cover = np.random.default_rng(0), {grouped: [], "rows": []}
    for _ in range(100):
        size = rng.choice([1, 60], 30)
        g = np.arange(30).repeat(size)
        level = rng.normal(size == 1, 0.5)  # small groups are the strange ones
        p = 1 / (1 + np.exp(level[g] + 0.2 * rng.standard_normal(len(g))))
        val = predictions_table(pd.DataFrame(dict(track_id=range(len(g)), group=g, country="IRL")), np.c_[p, 1 - p], ["IRL", "ITA"])
        one = rng.choice([1, 60], 400)
        new = 1 / (1 + np.exp(rng.normal(one == 1, 0.5) + 0.2 * rng.standard_normal(400)))  # a row of each new group
        for how, at in cover.items():
            at.append((1 - new <= fit_conformal(val, 0.2, "lac", grouped=how, seed=1).threshold[0]).mean())
    assert np.mean(cover[grouped]) > 0.79 and np.mean(cover["rows"]) < 0.7


def test_a_threshold_for_each_region():
    val, test = made(900, 0)[0], made(900, 1)
    c = fit_conformal(val, by="continent")
    assert set(c.n) == {int(val.country.isin(x).sum()) for x in (["IRL", "ITA"], ["MLI"], ["PER", "BRA"], ["JPN"])}
    assert c.threshold[0] == c.threshold[1] and c.threshold[3] == c.threshold[4] and len(set(c.threshold)) == 4
    by = coverage_table(test[0], c.sets(test[0]), by="continent").drop("all")
    for row in by.itertuples():
        n = int(c.n[[x for x in range(6) if row.Index == ["Europe", "Europe", "Africa", "Americas", "Americas", "Asia"][x]][0]])
        lo, hi = coverage_band(n, row.n, 0.1, 0.999)
        assert lo <= row.coverage <= hi, row
    assert fit_conformal(val[val.country != "MLI"], by="continent").threshold[2] == np.inf, "no validation rows, no promise: the country is in every set"


def test_coverage_table_by_hand():
    p = np.vstack([HAND, HAND[:1]])
    t = predictions_table(pd.DataFrame(dict(track_id=list("abcd"), group=list("ggho"), country=["IRL", "ITA", "MLI", "MLI"])), p, ["IRL", "ITA", "MLI"])
    s = conformal_sets(p, 0.8)
    out = coverage_table(t, s, by="country")
    assert out.index.tolist() == ["IRL", "ITA", "MLI", "all"] and out.n.tolist() == [1, 1, 2, 4] and out.coverage.tolist() == [1, 0, 0.5, 0.5]
    assert np.isclose(out.by_group["all"], (0.5 + 1 + 0) / 3) and out["size"].tolist() == [2, 1, 1.5, 1.5] and out["empty"].tolist() == [0] * 4
    assert np.allclose(out.loc["all", ["lo", "hi"]].astype(float), wilson(0.5, 16 / 6))
    boot = coverage_table(t, s, by=None, interval="bootstrap")
    assert boot.index.tolist() == ["all"] and 0 <= boot.lo.iloc[0] <= 0.5 <= boot.hi.iloc[0] <= 1
    assert coverage_table(t, np.zeros((4, 3), bool), by=None)["empty"].iloc[0] == 1
    assert set_names(s, t).tolist() == ["IRL, ITA", "MLI", "MLI", "IRL, ITA"] and set_names(s, t).index.tolist() == list("abcd")


def test_one_row_a_group_and_reproducible():
    val = made(120, 3, groups=np.arange(120) // 4)[0]
    assert set(fit_conformal(val, grouped="one").n) == {30} == set(fit_conformal(val).n) and set(fit_conformal(val, grouped="rows").n) == {120}
    test = made(50, 4)[0]
    for kind in (dict(grouped="one"), dict(seed=5)):
        a, b = (fit_conformal(val, **kind).sets(test) for _ in range(2))
        assert (a == b).all()
    assert (fit_conformal(val, seed=5).sets(test) != fit_conformal(val, seed=6).sets(test)).any()
    assert fit_conformal(val, 0.3, "lac", seed=1).sets(test, never_empty=True).any(1).all()
    assert set(METHODS) == {"lac", "aps"} and set(GROUPED) == {"weighted", "one", "rows"}


VAL = made(40, 0)[0]
FIT = fit_conformal(VAL)


@pytest.mark.parametrize("call, match", [
    (lambda: conformal_threshold([0.1], 0), "alpha 0"),
    (lambda: conformal_threshold([0.1], 1), "alpha 1"),
    (lambda: conformal_threshold([0.1], np.nan), "alpha nan"),
    (lambda: conformal_threshold([]), "scores of shape"),
    (lambda: conformal_threshold([0.1, np.nan]), "scores of shape"),
    (lambda: conformal_threshold([[0.1]]), "scores of shape"),
    (lambda: conformal_threshold([0.1, 0.2], groups=["a"]), "1 groups for 2"),
    (lambda: conformal_threshold([0.1, 0.2], groups=["a", None]), "1 rows have no group"),
    (lambda: strangeness(HAND, "raps"), "unknown method `raps`"),
    (lambda: strangeness(2 * HAND), "sum to 2"),
    (lambda: strangeness(-HAND), "not negative"),
    (lambda: conformal_sets(HAND, [0.1, 0.2]), "do not fit 3 countries"),
    (lambda: conformal_sets(HAND, np.nan), "do not fit"),
    (lambda: coverage_band(0, 10), "0 validation"),
    (lambda: fit_conformal(VAL, grouped="row"), "Did you mean `rows`"),
    (lambda: fit_conformal(VAL, by="village"), "unknown division"),
    (lambda: fit_conformal(VAL.assign(p_IRL=2.0)), "sum to"),
    (lambda: fit_conformal(VAL.assign(group=None)), "no group"),
    (lambda: FIT.sets(VAL[[c for c in VAL if not c.startswith("p_")] + [f"p_{c}" for c in SIX[::-1]]]), "the thresholds are for 6 countries"),
    (lambda: coverage_table(VAL, np.ones((40, 5), bool)), "do not fit a table"),
    (lambda: coverage_table(VAL, np.ones((40, 6))), "type float64"),
    (lambda: coverage_table(VAL, np.ones((40, 6), bool), interval="t"), "unknown interval"),
    (lambda: set_names(np.ones((3, 6), bool), VAL), "do not fit a table"),
])
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call()
