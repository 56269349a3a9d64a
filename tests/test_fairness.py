"Fairness by hand and by other libraries: ratios from counts, differences from scikit-learn, intervals that cover what they promise."
import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight

from geomusic.evaluate import predictions_table, score
from geomusic.files import InputError
from geomusic.judging import fairness as F
from geomusic.judging.pictures import alt_text
from geomusic.places import countries

CODES = ["BRA", "DEU", "FRA", "IND", "IRL", "JPN", "USA"]


def table(seed=0, n=400, bias=0.0, skill=0.5):
    "answers that are right with `skill`, else drawn, with `bias` towards the last country"
    r, c = np.random.default_rng(seed), len(CODES)
    y = r.integers(c, size=n)
    said = np.where(r.random(n) < skill, y, np.where(r.random(n) < bias, c - 1, r.integers(c, size=n)))
    t = pd.DataFrame(dict(track_id=range(n), group=r.integers(n // 2, size=n), country=np.array(CODES)[y])).join(countries()[["lat_deg", "lon_deg"]], on="country")
    return predictions_table(t, np.eye(c)[said] * 0.9 + 0.1 / c, CODES)


P = table(bias=0.5)


@pytest.mark.parametrize("by", ["country", "subregion", "continent"])
def test_ratios_are_counts(by):
    out = F.answer_ratios(P, by, n_bootstrap=100)
    place = (lambda c: c) if by == "country" else (lambda c: c.map(countries()[by]))
    true, said = place(P.country).value_counts(), place(P.predicted).value_counts()
    assert (out.true == true.reindex(out.index)).all() and (out.answered == said.reindex(out.index).fillna(0)).all()
    assert np.allclose(out.ratio, out.answered / out.true) and ((out.lo <= out.ratio) & (out.ratio <= out.hi)).all()
    assert out.true.sum() == out.answered.sum() == len(P) and out.ratio.is_monotonic_decreasing


def test_the_country_that_is_named_too_often_is_found():
    out = F.answer_ratios(P)
    assert out.index[0] == "USA" and out.verdict["USA"] == "over" and (out.verdict[1:] != "over").all()


def test_a_fair_model_is_rarely_called_unfair():
    "280 ratios at 95 %: about 14 false verdicts; small groups make intervals a little too narrow, and 35 would be far too many"
    verdicts = sum((F.answer_ratios(table(seed, 300), n_bootstrap=200, seed=seed).verdict != "").sum() for seed in range(40))
    assert verdicts < 35


def test_ratio_of_a_place_without_truth():
    out = F.answer_ratios(P[P.country != "IRL"], n_bootstrap=50)
    assert np.isnan(out.ratio["IRL"]) and out.verdict["IRL"] == "" and out.answered["IRL"] > 0 and out.index[-1] == "IRL"
    assert alt_text(F.answer_ratios_figure(out)).startswith("Answers over truths of 6 places")


def test_costs_are_sklearns_and_scores():
    other = table(bias=0.0, skill=0.7)
    other[["track_id", "group", "country", "lat_deg", "lon_deg"]] = P[["track_id", "group", "country", "lat_deg", "lon_deg"]]
    cost = F.weights_cost({"none": P, "other": other}, n_bootstrap=100)
    for name, p in (("none", P), ("other", other)):
        assert np.isclose(cost.value["accuracy", name], sk.accuracy_score(p.country, p.predicted))
        assert np.isclose(cost.value["balanced_accuracy", name], sk.balanced_accuracy_score(p.country, p.predicted))
        assert np.isclose(cost.value["macro_f1", name], sk.f1_score(p.country, p.predicted, average="macro"))
        assert np.isclose(cost.value["km_mean", name], score(p, n_bootstrap=2)["km_mean"])
    rest = cost.xs("other", level="weights")
    assert ((rest.lo <= rest.difference) & (rest.difference <= rest.hi)).all()


def test_a_model_costs_nothing_against_itself():
    cost = F.weights_cost({"none": P, "again": P.copy()}, n_bootstrap=50)
    assert (cost[["difference", "lo", "hi"]] == 0).all(axis=None)


def test_columns_in_another_order_are_the_same_table():
    turned = P[list(P.columns[:6]) + list(P.columns[:5:-1])]
    assert (F.weights_cost({"none": P, "turned": turned}, n_bootstrap=50)[["difference", "lo", "hi"]] == 0).all(axis=None)


def test_without_places_only_kilometres_are_missing():
    lost = P.assign(lat_deg=np.nan, lon_deg=np.nan)
    cost = F.weights_cost({"none": lost}, n_bootstrap=20)
    assert np.isnan(cost.value["km_mean", "none"]) and cost.value["accuracy", "none"] == (P.country == P.predicted).mean()
    with pytest.raises(InputError, match="no coordinates"): F.region_errors(lost)


def test_region_errors_by_hand():
    out = F.region_errors(P, "continent", n_bootstrap=200)
    off, at = F._off_km(P, F._Arrays(P), F._kilometres(P, CODES)[0]), P.country.map(countries().continent)
    assert np.allclose(out.km_mean, pd.Series(off).groupby(at.to_numpy()).mean()[out.index]) and out.km_mean.is_monotonic_decreasing
    assert np.allclose(out.accuracy, (P.country == P.predicted).groupby(at).mean()[out.index]) and out.n.sum() == len(P)
    assert ((out.km_lo <= out.km_mean) & (out.km_mean <= out.km_hi)).all()


def test_a_region_of_one_group_has_no_interval():
    one = P.assign(group=np.where(P.country == "JPN", -1, P.group))
    out = F.region_errors(one, "region", n_bootstrap=50)
    assert np.isnan(out.km_lo["Eastern Asia"]) and np.isfinite(out.km_lo.drop("Eastern Asia")).all()
    assert "Eastern Asia" in [t.get_text().split(" (")[0] for t in F.region_errors_figure(out).axes[0].get_yticklabels()]


def learnt_from(sizes):
    return pd.DataFrame([dict(country=c, group=f"train-{c}-{i}") for c, n in zip(CODES, sizes) for i in range(n)])


def test_data_errors_are_counts_and_scipys_correlation():
    out = F.data_errors(P, learnt_from([3, 50, 7, 1, 20, 9, 400]))
    assert out.train_groups["IND"] == 1 and out.train_rows["USA"] == 400 and list(out.index[:2]) == ["USA", "DEU"]
    assert np.isclose(out.attrs["spearman"], spearmanr(out.train_groups, out.accuracy).statistic) and -1 <= out.attrs["spearman_lo"] <= out.attrs["spearman_hi"] <= 1
    assert "7 countries" in alt_text(F.data_errors_figure(out))


def test_a_country_that_was_never_learnt_is_shown_with_nothing():
    out = F.data_errors(P, learnt_from([3, 50, 7, 1, 20, 9, 0]))
    assert out.train_groups["USA"] == 0 and out.index[-1] == "USA" and F.data_errors_figure(out)


def tracks(n=240, seed=0):
    r = np.random.default_rng(seed)
    y = r.choice(3, n, p=[0.8, 0.15, 0.05])
    t = pd.DataFrame(dict(track_id=range(n), group=range(n), country=np.array(["USA", "IRL", "JPN"])[y], split=r.choice(["train", "val", "test"], n, p=[0.6, 0.1, 0.3])))
    return r.normal(size=(n, 2)) + np.c_[y, -y], t.join(countries()[["lat_deg", "lon_deg"]], on="country")


def test_weights_are_sklearns():
    _, t = tracks()
    w = F._weights(t.country, "balanced")
    theirs = compute_class_weight("balanced", classes=np.array(list(w)), y=t.country)
    assert np.allclose(list(w.values()), theirs)
    root = F._weights(t.country, "sqrt")
    assert w["USA"] < root["USA"] < root["JPN"] < w["JPN"]


def test_weights_turn_answers_to_the_rare():
    x, t = tracks()
    rare = {w: (F.weighted_predictions(x, t, w).predicted == "JPN").sum() for w in ("none", "sqrt", "balanced")}
    assert rare["none"] < rare["balanced"] and rare["none"] <= rare["sqrt"] <= rare["balanced"]
    assert len(F.weighted_predictions(x, t, side="val")) == (t.split == "val").sum()


X, T = tracks()


@pytest.mark.parametrize("call, says", [
    (lambda: F.weighted_predictions(X, T, "heavy"), "class weights"),
    (lambda: F.weighted_predictions(X[:5], T), "240 tracks"),
    (lambda: F.weighted_predictions(np.where(X > 2, np.nan, X), T), "NaN"),
    (lambda: F.weighted_predictions(X, T.assign(split="train")), "no test rows"),
    (lambda: F.weighted_predictions(X, T[T.columns.drop("split")]), "split"),
    (lambda: F.weighted_predictions(X, T.assign(country="USA")), "1 countries"),
    (lambda: F.weights_cost({"none": P, "b": P[::-1]}), "same tracks"),
    (lambda: F.weights_cost({"none": P, "b": P.assign(country=P.country.to_numpy()[::-1])}), "same tracks"),
    (lambda: F.weights_cost({"plain": P}), "plain"),
    (lambda: F.data_errors(P, pd.DataFrame(dict(country=["USA"], group=[P.group[0]]))), "judged rows"),
    (lambda: F.data_errors(P, pd.DataFrame(dict(country=["USA"]))), "group"),
    (lambda: F.answer_ratios(P, "planet"), "planet"),
    (lambda: F.region_errors(P, "planet"), "planet"),
])
def test_bad_input_is_named(call, says):
    with pytest.raises(InputError, match=says): call()
