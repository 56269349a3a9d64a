"""Decision rules on the sphere, and the scores that count regions, kilometres, ranks and certainty."""
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import minimize
from sklearn.metrics import brier_score_loss, log_loss

from geomusic.evaluate import METRICS, WITH_VALIDATION, evaluate, metrics_text, per_class, per_region, predictions_table, score
from geomusic.files import InputError, read_json
from geomusic.judging.decisions import RULES, SHOWN, decide, known_places, rules_table, with_rule
from geomusic.places import EARTH_KM, countries, expected_km, great_circle_km, to_unit
from geomusic.scores import bootstrap_all, brier_rows, certainty_gaps, expected_calibration_error, group_bootstrap, true_ranks, weighted_mean, weighted_median

CODES = ["BRA", "DEU", "FRA", "IND", "JPN", "MLI", "NER", "USA"]


def table(n=200, n_groups=60, codes=CODES, skill=2.0, seed=0, start=0):
    "predictions of a made-up model; groups are of one country"
    r, at = np.random.default_rng(seed), countries().loc[codes]
    group = r.integers(n_groups, size=n)
    y = r.integers(len(codes), size=n_groups)[group]
    z = r.gumbel(size=(n, len(codes))) + skill * np.eye(len(codes))[y]
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    tracks = pd.DataFrame(dict(track_id=[f"t{start + i}" for i in range(n)], group=[f"g{start + g}" for g in group], country=np.array(codes)[y],
                               lat_deg=at.lat_deg.to_numpy()[y], lon_deg=at.lon_deg.to_numpy()[y]))
    return predictions_table(tracks, p, codes)


def random_case(seed, n=40, c=9):
    r = np.random.default_rng(seed)
    return r.dirichlet(np.full(c, r.choice([0.1, 0.5, 2.0])), n), np.degrees(np.arcsin(r.uniform(-1, 1, c))), r.uniform(-180, 180, c)


# ---- rules

@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_promised_kilometres_fall_from_rule_to_rule(seed):
    p, lat, lon = random_case(seed)
    km = {r: decide(p, lat, lon, r).expected_km for r in RULES}
    assert (km["median"] <= km["least_km"] + 1e-3).all() and (km["least_km"] <= km["argmax"] + 1e-3).all() and (km["median"] <= km["mean"] + 1e-3).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_what_is_promised_is_the_expected_distance_to_the_point(seed):
    p, lat, lon = random_case(seed)
    for r in RULES:
        d = decide(p, lat, lon, r)
        assert np.allclose(d.expected_km, (p * great_circle_km(d.lat_deg[:, None], d.lon_deg[:, None], lat, lon)).sum(1), atol=0.5)
        assert np.array_equal(d.place, great_circle_km(d.lat_deg[:, None], d.lon_deg[:, None], lat, lon).argmin(1))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.floats(-180, 180))
def test_a_turned_globe_turns_the_answers(seed, by):
    p, lat, lon = random_case(seed)
    for r in RULES:
        a, b = decide(p, lat, lon, r), decide(p, lat, lon + by, r)
        if r in ("argmax", "mean"): assert great_circle_km(a.lat_deg, a.lon_deg + by, b.lat_deg, b.lon_deg).max() < 0.5
        assert np.allclose(a.expected_km, b.expected_km, atol=0.5)


def test_the_median_against_a_general_optimiser():
    p, lat, lon = random_case(5, n=12)
    u, ours = to_unit(lat, lon), decide(p, lat, lon, "median").expected_km
    for row, km in zip(p, ours):
        def cost(x): return row @ np.arccos(np.clip(u @ (x / np.linalg.norm(x)), -1, 1)) * EARTH_KM
        theirs = min(minimize(cost, x0, method="Nelder-Mead", options=dict(xatol=1e-7, fatol=1e-5, maxiter=4000)).fun for x0 in u)
        assert km <= theirs + 0.5


def test_medians_known_by_hand():
    third = np.full((1, 3), 1 / 3)
    d = decide(third, [0, 0, 0], [0, 10, 80], "median")  # on a line, the middle one
    assert abs(d.lon_deg[0] - 10) < 1e-4 and abs(d.lat_deg[0]) < 1e-4 and d.place[0] == 1
    d = decide(third, [80, 80, 80], [0, 120, 240], "median")  # symmetric around the pole
    assert d.lat_deg[0] > 89.99 and np.isclose(d.expected_km[0], EARTH_KM * np.radians(10), atol=0.01)
    d = decide([[0.51, 0.49]], [0, 0], [0, 90], "median")  # of two, the heavier
    assert abs(d.lon_deg[0]) < 1e-3 and decide([[0.51, 0.49]], [0, 0], [0, 90], "mean").lon_deg[0] > 40
    p, lat, lon = [0.5, 0.2, 0.3], [10, -10, 50], [20, 200, 60]  # the second is the antipode of the first
    assert decide([p], lat, lon, "median").expected_km[0] <= expected_km(p, lat, lon).min() + 1e-3


def test_two_places_at_one_point_and_certainty():
    d = decide([[0.3, 0.3, 0.4]], [5, 5, 60], [7, 7, 100], "median")
    assert great_circle_km(d.lat_deg[0], d.lon_deg[0], 5, 7) < 0.01  # together they outweigh the third
    for r in RULES: assert decide(np.eye(3), [5, 5, 60], [7, 8, 100], r).place.tolist() == [0, 1, 2]


def test_many_rows_are_the_rows_one_by_one():
    r = np.random.default_rng(0)
    p, (_, lat, lon) = r.dirichlet(np.ones(9), 9000), random_case(1)
    whole = decide(p, lat, lon, "median").expected_km
    assert np.allclose(whole[[0, 8191, 8192, 8999]], [decide(p[i:i + 1], lat, lon, "median").expected_km[0] for i in (0, 8191, 8192, 8999)])


@pytest.mark.parametrize("args, said", [
    (([[0.5, 0.5]], [40, -40], [0, 180], "mean"), "row 0 cancel out"),
    (([[0.5, 0.5], [2.0, -1.0]], [40, 0], [0, 0], "argmax"), "row 1"),
    (([[0.5, 0.4]], [40, 0], [0, 0], "argmax"), "sum to 0.9"),
    (([[0.5, np.nan]], [40, 0], [0, 0], "median"), "row 0"),
    (([[0.5, 0.5]], [40, np.nan], [0, 0], "median"), "number 1"),
    (([[0.5, 0.5]], [40], [0, 0], "median"), "do not fit"),
    (([0.5, 0.5], [40, 0], [0, 0], "median"), "do not fit"),
    ((np.zeros((0, 2)), [40, 0], [0, 0], "median"), "do not fit"),
    (([[0.5, 0.5]], [140, 0], [0, 0], "median"), "pole"),
    (([[0.5, 0.5]], [40, 0], [0, 0], "medain"), "median"),
])
def test_bad_input_is_named(args, said):
    with pytest.raises(InputError, match=said): decide(*args)


# ---- in a predictions table

def test_a_rule_sets_answer_point_and_name():
    t = table()
    for r in RULES:
        u, d = with_rule(t, r), decide(t.filter(regex="^p_"), *countries().loc[CODES, ["lat_deg", "lon_deg"]].to_numpy().T, r)
        assert u.predicted.tolist() == np.array(CODES)[d.place].tolist() and np.allclose(u.point_lat_deg, d.lat_deg)
        s = score(u, n_bootstrap=5)
        assert s["rule"] == r and f"answers: {r}\n" in metrics_text(s)
        assert np.isclose(s["km_mean"], great_circle_km(t.lat_deg, t.lon_deg, d.lat_deg, d.lon_deg).mean())
        assert np.isclose(per_class(u).eval("n*km_mean").sum() / len(t), s["km_mean"])
    assert "point_lat_deg" not in t and score(with_rule(t, "argmax"), n_bootstrap=5)["km_mean_ci"] == score(t, n_bootstrap=5)["km_mean_ci"]
    assert with_rule(with_rule(t, "mean"), "median").equals(with_rule(t, "median"))  # the old answer leaves no trace


def test_a_country_without_a_place_and_rows_without_coordinates():
    t = table().rename(columns=dict(p_BRA="p_Celtic")).assign(country=lambda d: d.country.replace("BRA", "Celtic"), predicted="FRA")
    with pytest.raises(InputError, match="Celtic"): with_rule(t, "median")
    places = countries().loc[CODES, ["lat_deg", "lon_deg"]].rename(index=dict(BRA="Celtic"))
    assert np.isfinite(score(with_rule(t, "median", places), n_bootstrap=2)["km_mean"])
    s = score(t, n_bootstrap=2)
    assert np.isnan(s["km_mean"]) and "Celtic" in s["omitted"]["km_mean"] and "Celtic" in s["omitted"]["region_accuracy"]
    with pytest.raises(InputError, match="Celtic"): per_region(t)
    with pytest.raises(InputError, match="no coordinates"): rules_table(table().assign(lat_deg=np.nan, lon_deg=np.nan), 2)


def test_the_rules_side_by_side():
    t = table()
    both = rules_table(t, 50)
    assert both.index.tolist() == list(RULES) and both.columns.tolist() == [f"{m}{e}" for m in SHOWN for e in ("", "_lo", "_hi")]
    assert ((both.km_mean_lo <= both.km_mean) & (both.km_mean <= both.km_mean_hi)).all() and both.equals(rules_table(t, 50))
    s = score(with_rule(t, "least_km"), n_bootstrap=50)
    assert (both.loc["least_km", ["km_mean", "km_mean_lo", "km_mean_hi"]].to_numpy() == [s["km_mean"], *s["km_mean_ci"]]).all()


def test_known_places_cross_the_date_line():
    got = known_places(pd.DataFrame(dict(country=["FJI", "FJI", "KEN", "KEN"], lat_deg=[0.0, 0, 1, np.nan], lon_deg=[179.0, -179, 37, 3])))
    assert abs(got.lon_deg["FJI"]) == 180 and np.allclose(got.loc["KEN"], [1, 37])
    with pytest.raises(InputError, match="KEN"): known_places(pd.DataFrame(dict(country=["KEN"], lat_deg=[np.nan], lon_deg=[3.0])))


@pytest.mark.parametrize("change, said", [
    (dict(point_lat_deg=5.0), "without the other"),
    (dict(point_lat_deg=5.0, point_lon_deg=[np.nan] + [1.0] * 199), "1 answers have no point, the first `t0`"),
    (dict(point_lat_deg=95.0, point_lon_deg=1.0), "not on Earth"),
    (dict(rule=["mean"] + ["median"] * 199), "2 rules"),
])
def test_broken_points_are_refused(change, said):
    with pytest.raises(InputError, match=said): score(table().assign(**change))


# ---- scores

def test_scores_against_other_hands():
    t = table()
    p, y = t.filter(regex="^p_").to_numpy(), pd.Index(CODES).get_indexer(t.country)
    s, off = score(t, n_bootstrap=2), great_circle_km(t.lat_deg, t.lon_deg, *countries().loc[t.predicted, ["lat_deg", "lon_deg"]].to_numpy().T)
    assert np.isclose(s["brier"], brier_score_loss(y, p, labels=range(8), scale_by_half=False)) and np.isclose(s["log_loss"], log_loss(y, p, labels=range(8)))
    assert np.isclose(s["mean_rank"], (1 + (p > p[np.arange(200), y][:, None]).sum(1)).mean())
    for d in (500, 1000, 2500): assert np.isclose(s[f"within_{d}_km"], (off <= d).mean())
    for k, col in (("region", "subregion"), ("continent", "continent")):
        assert np.isclose(s[f"{k}_accuracy"], (countries()[col][t.country].to_numpy() == countries()[col][t.predicted].to_numpy()).mean())
    top, hit = p.max(1), p.argmax(1) == y
    bins = np.ceil(top * 15).astype(int)
    assert np.isclose(s["ece"], sum(abs((top - hit)[bins == b].mean()) * (bins == b).mean() for b in set(bins)))
    assert s["ece"] == pytest.approx(expected_calibration_error(p, y)) and set(METRICS) <= set(s) and not set(WITH_VALIDATION) & set(s)


def test_guessing_by_simulation():
    t, r = table(), np.random.default_rng(0)
    s = score(t, n_bootstrap=2)
    guess = [score(t.assign(predicted=r.choice(CODES, 200)), n_bootstrap=1) for _ in range(150)]
    for m in ("region_accuracy", "continent_accuracy", "within_2500_km", "km_mean"):
        draws = np.array([g[m] for g in guess])
        assert abs(draws.mean() - s[f"chance_{m}"]) < 4 * draws.std() / np.sqrt(150)
    best, other = s["majority_country"], {f"p_{c}": 0.0 for c in CODES}
    always = score(t.assign(predicted=best, **other | {f"p_{best}": 1.0}), n_bootstrap=2)
    for m in METRICS:
        if m not in ("log_loss", "top3", "top5"): assert np.isclose(always[m], s[f"majority_{m}"]), m


def test_ties_ranks_and_edges():
    even = np.full((4, 4), 0.25)
    assert true_ranks(even, np.arange(4)).tolist() == [2.5] * 4 and np.allclose(brier_rows(even, np.arange(4)), 0.75)
    assert expected_calibration_error(even, np.arange(4)) == 0  # a quarter each, right a quarter of the time
    gaps = certainty_gaps(np.array([[0.2, 0.8], [1.0, 0.0], [0.6, 0.4]]), np.array([1, 0, 1]), 5).toarray()
    assert np.allclose(gaps, [[0, 0, 0, -0.2, 0], [0, 0, 0, 0, 0], [0, 0, 0.6, 0, 0]])  # 0.8 belongs to 0.6..0.8
    assert brier_rows(np.eye(2), np.array([1, 0])).tolist() == [2, 2]


def test_weighted_medians_with_holes():
    r = np.random.default_rng(0)
    v, w = r.normal(size=12), r.integers(0, 3, (40, 12)).astype(float)
    w[0] = 0
    w[1] = np.eye(12)[3]
    got = weighted_median(v, w)
    assert np.isnan(got[0]) and got[1] == v[3] and np.allclose(got[2:], [np.median(np.repeat(v, k.astype(int))) for k in w[2:]])


def test_one_bootstrap_for_all_is_the_bootstrap_of_each():
    r = np.random.default_rng(0)
    v, g = r.normal(size=50), r.integers(12, size=50)
    both = bootstrap_all(lambda w: dict(mean=weighted_mean(v, w), median=weighted_median(v, w)), g, 200, 3)
    assert both == dict(mean=group_bootstrap(v, g, n=200, seed=3), median=group_bootstrap(v, g, weighted_median, 200, 3))
    s, hit = score(table(), n_bootstrap=100), lambda t: (t.country == t.predicted).to_numpy(float)
    assert s["accuracy_ci"] == pytest.approx(group_bootstrap(hit(table()), table().group, n=100))


def test_some_rows_without_coordinates_are_told_and_left_out():
    t = table()
    few = t.assign(lat_deg=t.lat_deg.mask(t.index < 50))
    s = score(few, n_bootstrap=20)
    assert np.isclose(s["km_mean"], score(t[50:], n_bootstrap=2)["km_mean"]) and s["omitted"]["rows without coordinates"].startswith("50 of 200")
    assert np.isclose(s["within_500_km"], score(t[50:], n_bootstrap=2)["within_500_km"]) and np.isfinite(s["km_median_ci"]).all()


def test_countries_of_one_region_cannot_be_told_apart_by_it():
    s = score(table(codes=["DEU", "FRA"]), n_bootstrap=2)
    assert np.isnan(s["region_accuracy"]) and s["omitted"]["region_accuracy"] == "all countries are in Western Europe" and "Europe" in s["omitted"]["continent_accuracy"]


def test_regions_add_up():
    t = table()
    by, s = per_region(t), score(t, n_bootstrap=2)
    for m in ("accuracy", "region_accuracy", "top3", "top5", "km_mean"): assert np.isclose((by.n * by[m]).sum() / by.n.sum(), s[m])
    assert by.n.sum() == 200 and by.n_countries.sum() == t.country.nunique() and per_region(t, "continent").index.tolist() == ["Africa", "Americas", "Asia", "Europe"]
    with pytest.raises(InputError, match="kind of region"): per_region(t, "planet")


# ---- with validation rows

def test_validation_rows_give_temperature_and_sets(tmp_path):
    t, v = table(), table(seed=1, start=1000)
    m = evaluate(t, tmp_path / "out", "m", 20, validation=v)
    assert all(np.isfinite(m[k]) and m[f"{k}_ci"][0] <= m[f"{k}_ci"][1] for k in WITH_VALIDATION) and m["temperature"] > 0
    text = (tmp_path / "out" / "metrics.txt").read_text()
    assert "temperature" in text and all(label in text for label in WITH_VALIDATION.values())
    assert read_json(tmp_path / "out" / "metrics.json")["temperature"] == m["temperature"] and "temperature" not in score(t, n_bootstrap=2)


@pytest.mark.parametrize("wrong, said", [
    (lambda t: t, "track_id of a validation row"),
    (lambda t: t.assign(track_id=t.track_id + "v"), "group of a validation row"),
    (lambda t: table(seed=1, start=1000).assign(p_CHN=0.0), "CHN is in one only"),
    (lambda t: table(seed=1, start=1000).iloc[:0], "no rows"),
])
def test_wrong_validation_rows(wrong, said):
    with pytest.raises(InputError, match=said): score(table(), validation=wrong(table()))
