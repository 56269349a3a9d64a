"People: every kind of bad answer, numbers by hand, the package krippendorff as the judge, and simulated listeners whose skill is known."
import krippendorff
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomusic.evaluate import predictions_table
from geomusic.files import InputError
from geomusic.judging.listeners import (agreement, check_listeners, crowd_answers, listener_scores, listeners_figure, people_and_model, read_listeners,
                                        simulate_listeners, split_decisions, two_way_draws)
from geomusic.places import countries, great_circle_km
from geomusic.scores import weighted_median

LABELS = "BRA CHN DEU GBR IRL JPN".split()


def tracks(n=120, per_group=2):
    t = pd.DataFrame(dict(track_id=[f"t{i:03}" for i in range(n)], group=[f"g{i // per_group}" for i in range(n)], country=np.resize(LABELS, n)))
    return t.join(countries()[["lat_deg", "lon_deg"]], on="country")


def model(t, skill, seed=0):
    y, r = pd.Index(LABELS).get_indexer(t.country), np.random.default_rng(seed)
    said = np.where(r.random(len(t)) < skill, y, (y + 1 + r.integers(len(LABELS) - 1, size=len(t))) % len(LABELS))
    return predictions_table(t, 0.4 * np.eye(len(LABELS))[said] + 0.1, LABELS)


T = tracks()
SHEET = pd.DataFrame(dict(listener_id=[1, 1, 2, 2], track_id=["t000", "t001", "t000", "t002"], country=["Brazil", "JP", "BRA", "deu"], confidence=[0.1, 1, 0, None], seconds=[1.5, None, 3, 4], plays=[1, 2, None, 0]))


def test_answers_become_codes():
    p = check_listeners(SHEET, T)
    assert p.country.tolist() == ["BRA", "JPN", "BRA", "DEU"] and p.right.tolist() == [1, 0, 1, 1] and p.listener_id.tolist() == ["1", "1", "2", "2"]
    assert p.truth.tolist() == ["BRA", "CHN", "BRA", "DEU"] and not p.simulated.any() and p.group.tolist() == ["g0", "g0", "g0", "g1"]
    c = countries()
    assert np.allclose(p.km, [0, great_circle_km(*c.loc["CHN", ["lat_deg", "lon_deg"]], *c.loc["JPN", ["lat_deg", "lon_deg"]]), 0, 0], atol=1e-6)


def test_order_and_index_do_not_matter():
    p, q = check_listeners(SHEET, T), check_listeners(SHEET[::-1].set_index(np.array([7, 7, 7, 7])), T[::-1])
    assert p.equals(q[::-1].reset_index(drop=True))


def test_points():
    t = SHEET.drop(columns="country").assign(lat_deg=[48.86, 52.5, -23.5, 0.0], lon_deg=[2.35, 13.4, -46.6, -30.0])
    p = check_listeners(t, T)
    assert p.country.tolist()[:3] == ["FRA", "DEU", "BRA"] and p.country[3] != "" and np.isclose(p.km[2], great_circle_km(-23.5, -46.6, T.lat_deg[0], T.lon_deg[0]))
    both = check_listeners(t.assign(country="Germany"), T)
    assert (both.country == "DEU").all() and np.allclose(both.km, p.km)  # the country for right or wrong, the point for km


BAD = {
    "stand for people": SHEET[:2],
    "answered twice": pd.concat([SHEET, SHEET[2:3]]),
    "track `t999`: is no track": SHEET.assign(track_id=["t000", "t999", "t000", "t002"]),
    "unknown country `Brasilien`": SHEET.assign(country=["Brasilien", "JP", "BRA", "DE"]),
    "`2`, track `t002`: has a confidence": SHEET.assign(confidence=[0, 1, 0.5, 1.01]),
    "`1`, track `t000`: has a confidence": SHEET.assign(confidence=[-0.1, 1, 0.5, 1]),
    "confidence of listener `1` is `sure`": SHEET.assign(confidence=["sure", 1, 0.5, 1]),
    "`1`, track `t001`: has no place": SHEET.assign(country=["BRA", None, "BRA", "DE"]),
    "`2`, track `t002`: has no place": SHEET.assign(country=["BRA", "BRA", "BRA", " "]),
    "neither `country`": SHEET.drop(columns="country"),
    "but not both": SHEET.assign(lat_deg=[1, 2, 3, 4], lon_deg=[1, np.nan, 3, 4]),
    "beyond": SHEET.assign(lat_deg=[91, 2, 3, 4], lon_deg=0.0),
    "180": SHEET.assign(lat_deg=0.0, lon_deg=[1, 2, 3, 181]),
    "is `inf`|beyond": SHEET.assign(lat_deg=0.0, lon_deg=[1, 2, 3, np.inf]),
    "a country twice": SHEET.assign(country_2=["CHN", None, "Brazil", None]),
    "country twice": SHEET.assign(country_2="CHN", country_3="CHN"),
    "took a time": SHEET.assign(seconds=[1, 2, 3, -4]),
    "plays that is no count": SHEET.assign(plays=[1, 2, 3, 1.5]),
    "plays that is no": SHEET.assign(plays=[1, 2, 3, -1]),
    "no rows": SHEET[:0],
    "no column `listener_id`": SHEET.drop(columns="listener_id"),
    "no column `track_id`": SHEET.drop(columns="track_id"),
    "listener_id is empty": SHEET.assign(listener_id=[1, None, 2, 2]),
    "track_id is empty": SHEET.assign(track_id=["t000", "", "t000", "t002"]),
}


@pytest.mark.parametrize("words", BAD)
def test_bad_answers(words):
    with pytest.raises(InputError, match=words) as e: check_listeners(BAD[words], T)
    assert e.value.remedy or words == "no rows"


def test_bad_tracks():
    with pytest.raises(InputError, match="no column `group`"): check_listeners(SHEET, T.drop(columns="group"))
    with pytest.raises(InputError, match="`Celtic` is no country"): check_listeners(SHEET, T.assign(country="Celtic"))
    p = check_listeners(SHEET, T.drop(columns=["lat_deg", "lon_deg"]))
    assert p.km.isna().all() and listener_scores(p, n=20).accuracy["all"] == 0.75 and set(people_and_model(p, model(T, 0.5), n=20).metric) == {"accuracy"}


def test_one_listener_if_asked():
    p = check_listeners(SHEET[:2], T, least=1)
    s = listener_scores(p, n=20)
    assert s.accuracy.tolist() == [0.5, 0.5] and np.isnan(s.lo["all"]) and np.isfinite(s.lo["1"])
    with pytest.raises(InputError, match="agree with nobody"): agreement(p)
    one = people_and_model(p, model(T, 0.5), n=20)
    assert one[one.a == "one listener"].lo.isna().all() and (one.verdict == "not told apart").all()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_files(tmp_path, kind):
    sim = simulate_listeners(T, 3, 0.5, n_tracks=20)
    path = tmp_path / f"a.{kind}"
    sim.to_csv(path, index=False) if kind == "csv" else sim.to_parquet(path)
    assert read_listeners(path, T).equals(check_listeners(sim, T)) and read_listeners(path, T).simulated.all()


def test_file_says_not_simulated(tmp_path):
    SHEET.assign(simulated=False).to_csv(tmp_path / "a.csv", index=False)
    assert not read_listeners(tmp_path / "a.csv", T).simulated.any()  # 'False' as text is still false


def test_files_that_are_none(tmp_path):
    (tmp_path / "bad.parquet").write_text("no")
    (tmp_path / "empty.csv").write_text("")
    for f in ("none.csv", "bad.parquet", "empty.csv"):
        with pytest.raises(InputError, match=f): read_listeners(tmp_path / f, T)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(skill=st.floats(0, 1), seed=st.integers(0, 10**6), near=st.floats(100, 10000))
def test_simulated_skill_is_what_was_asked(skill, seed, near):
    p = check_listeners(simulate_listeners(T, 10, skill, near_km=near, seed=seed), T)
    assert abs(p.right.mean() - skill) < 4.5 * np.sqrt(skill * (1 - skill) / len(p)) + 1e-9 and p.simulated.all() and p.confidence.between(0, 1).all()
    assert p.groupby("listener_id").track_id.nunique().eq(120).all() and ((p.country_2 != p.country) & (p.country_3 != p.country_2)).all()


def test_a_skill_for_each():
    sim = simulate_listeners(tracks(600), 3, [0, 0.5, 1])
    by = check_listeners(sim, tracks(600)).groupby("listener_id").right.mean()
    assert by.iloc[0] == 0 and abs(by.iloc[1] - 0.5) < 0.09 and by.iloc[2] == 1 and set(sim.skill) == {0, 0.5, 1}
    assert simulate_listeners(T, 3, seed=1).equals(simulate_listeners(T, 3, seed=1)) and not simulate_listeners(T, 3, seed=1).equals(simulate_listeners(T, 3, seed=2))


def test_two_countries_are_enough_to_simulate():
    t = T[T.country.isin(["DEU", "IRL"])]
    assert "country_3" not in simulate_listeners(t, 2) and check_listeners(simulate_listeners(t, 2), t).simulated.all()
    for bad in (dict(skill=1.2), dict(n_listeners=0), dict(near_km=0)):
        with pytest.raises(InputError): simulate_listeners(t, **bad)
    with pytest.raises(InputError): simulate_listeners(t[t.country == "DEU"], 2)


def test_top_k_by_hand():
    t = SHEET.assign(country_2=["CHN", "CHN", "CHN", "GBR"], country_3=["DEU", None, "DEU", "IRL"])
    s = listener_scores(check_listeners(t, T), n=20)
    assert s.accuracy.tolist() == [0.5, 1, 0.75] and s.top2.tolist() == [1, 1, 1] and s.top3.tolist() == [1, 1, 1]
    s = listener_scores(check_listeners(t.assign(country_2=["CHN", "GBR", "CHN", "GBR"]), T), n=20)
    assert s.top2["1"] == 0.5 and np.isnan(s.top3["1"]) and s.top3["2"] == 1  # listener 1 was wrong twice on t001 and made no third guess


def test_two_way_draws_against_copies():
    "Resamples written out: every answer as often as its listener times its group."
    r = np.random.default_rng(0)
    v, l, g = r.normal(size=30), np.repeat(np.arange(5), 6), np.tile(np.arange(6) // 2, 5)
    seen = {}
    def spy(values, w):
        seen["w"] = w
        return weighted_median(values, w)
    got = two_way_draws(v, l, g, spy, n=50, seed=1)
    assert np.isfinite(got).all()
    for w, m in zip(seen["w"], got): assert np.isclose(np.median(np.repeat(v, w.astype(int))), m)
    per = seen["w"].reshape(-1, 5, 3, 2)
    assert (per[..., 0] == per[..., 1]).all() and all(np.linalg.matrix_rank(x[..., 0]) == 1 for x in per)
    assert np.allclose(seen["w"].sum(1), [5 * 2 * x[..., 0].sum() / 5 for x in per])


def test_draws_are_nan_where_no_answer_was_drawn():
    d = two_way_draws(np.ones(2), ["a", "b"], ["x", "y"], n=400)
    assert 0.06 < np.isnan(d).mean() < 0.19 and np.nanmin(d) == 1  # twice a and twice y, or twice b and twice x: one draw of eight


def test_interval_covers_other_listeners_and_other_tracks():
    held = 0
    for s in range(60):
        r = np.random.default_rng(s)
        chance = 0.5 + 0.2 * r.uniform(-1, 1, (12, 1)) + 0.2 * r.uniform(-1, 1, 24)
        l, t = np.divmod(np.arange(12 * 24), 24)
        lo, hi = np.nanquantile(two_way_draws((r.random(chance.shape) < chance).ravel(), l, t, n=200, seed=s), [0.025, 0.975])
        held += lo <= 0.5 <= hi
    assert held >= 53  # 95 % of 60 less two standard errors


@settings(max_examples=20, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), skill=st.floats(0, 1), n=st.integers(2, 9), some=st.integers(20, 120))
def test_agreement_is_krippendorffs(seed, skill, n, some):
    p = check_listeners(simulate_listeners(T, n, skill, n_tracks=some, seed=seed), T)
    if not (p.track_id.value_counts() > 1).any(): return
    for level in ("country", "continent"):
        said = p.country if level == "country" else p.country.map(countries()[level])
        m = p.assign(code=pd.factorize(said)[0]).pivot(index="listener_id", columns="track_id", values="code").to_numpy(float)
        a = agreement(p, level, n=50)
        assert np.isclose(a["alpha"], krippendorff.alpha(reliability_data=m, level_of_measurement="nominal")) and a["simulated"] and not a["lo"] > a["hi"]


def test_agreement_at_the_ends():
    perfect = agreement(check_listeners(simulate_listeners(T, 4, 1.0), T), n=50)
    assert perfect["alpha"] == 1 and (perfect["lo"], perfect["hi"]) == (1, 1) and perfect["n_tracks"] == 120
    r = np.random.default_rng(0)
    random = pd.DataFrame(dict(listener_id=np.repeat(np.arange(8), 120), track_id=np.tile(T.track_id, 8), country=r.choice(LABELS, 960)))
    a = agreement(check_listeners(random, T), n=300)
    assert abs(a["alpha"]) < 0.03 and a["lo"] < 0 < a["hi"] and not a["simulated"]
    with pytest.raises(InputError, match="not defined"): agreement(check_listeners(random.assign(country="DEU"), T))
    with pytest.raises(InputError, match="two listeners"): agreement(check_listeners(random[random.listener_id == np.resize([0, 1], 120)[np.arange(960) % 120]], T))
    with pytest.raises(InputError, match="level"): agreement(check_listeners(random, T), "region of the heart")


def test_crowd_by_hand():
    t = pd.DataFrame(dict(listener_id=list("abcabc"), track_id=["t000"] * 3 + ["t001"] * 3, country=["BRA", "BRA", "CHN", "CHN", "JPN", "DEU"]))
    c = crowd_answers(check_listeners(t, T))
    assert c.country.tolist() == ["BRA", "CHN", "DEU", "JPN"] and np.allclose(c.share, [2 / 3] + [1 / 3] * 3) and c.ties.tolist() == [1, 3, 3, 3]
    line = people_and_model(check_listeners(t, T), model(T, 1.0), n=50).set_index(["metric", "a"])
    assert np.isclose(line.people["accuracy", "the crowd"], (1 + 1 / 3) / 2) and np.isclose(line.people["accuracy", "one listener"], (2 / 3 + 1 / 3) / 2) and (line.model["accuracy"] == 1).all()


def test_people_beat_a_bad_model_and_lose_to_a_good_one():
    p = check_listeners(simulate_listeners(T, 12, 0.6, seed=3), T)
    for skill, want in ((0.1, "one listener better than model (simulated)"), (1.0, "model better than one listener (simulated)")):
        out = people_and_model(p, model(T, skill), n=300)
        assert out.verdict[0] == want and out.simulated.all() and (out.n_tracks == 120).all() and (out.p_holm >= out.p).all()
        assert ((out.lo <= out["diff"]) & (out["diff"] <= out.hi)).all() and np.allclose(out.people - out.model, out["diff"])


def test_the_word_better_is_rare_where_nothing_differs():
    said = [people_and_model(check_listeners(simulate_listeners(T, 8, 0.5, seed=s), T), model(T, 0.5, s), n=200).verdict[0] for s in range(25)]
    assert sum(v != "not told apart" for v in said) <= 3


def test_models_that_do_not_fit():
    p = check_listeners(SHEET, T)
    with pytest.raises(InputError, match="no track in common"): people_and_model(p, model(T[50:], 0.5))
    with pytest.raises(InputError, match="truth of track `t000`"): split_decisions(p, model(T.assign(country=T.country.replace("BRA", "CHN")), 0.5))
    assert people_and_model(p, model(T[:1], 1.0), n=50).n_tracks[0] == 1


def test_split_decisions():
    t = pd.DataFrame(dict(listener_id=list("abab") * 2, track_id=np.repeat(["t000", "t001", "t002", "t003"], 2), country=["BRA", "BRA", "CHN", "DEU", "JPN", "JPN", "JPN", "IRL"]))
    m = model(T, 1.0)
    m.loc[m.track_id.isin(["t000", "t003"]), "predicted"] = "JPN"
    out = split_decisions(check_listeners(t, T), m).set_index("track_id")
    assert out.who.to_dict() == dict(t000="people only", t001="both", t002="model only", t003="neither") and out.people_right.to_dict() == dict(t000=1, t001=0.5, t002=0, t003=0)
    assert out.crowd["t001"] == "CHN or DEU" and np.isclose(out.p_truth["t000"], 0.5) and out.index[0] == "t000" and not out.simulated.any()


def test_everything_says_simulated():
    sim, m = check_listeners(simulate_listeners(T, 4), T), model(T, 0.5)
    for table in (sim, listener_scores(sim, n=20), people_and_model(sim, m, n=20), split_decisions(sim, m)): assert table.simulated.all()
    title = lambda p, **kw: listeners_figure(p, m, n=20, **kw).axes[0].get_title()
    assert agreement(sim, n=20)["simulated"] and "simulated" in title(sim) and title(sim, title="A").startswith("A (simulated")
    real = sim.assign(simulated=False)
    assert "simulated" not in title(real, title="A") and not listener_scores(real, n=20).simulated.any()


@pytest.mark.parametrize("k", [2, 45])
def test_figure(k, tmp_path):
    p = check_listeners(simulate_listeners(T, k, n_tracks=30), T)
    fig = listeners_figure(p, model(T, 0.7), n=50)
    ax = fig.axes[0]
    assert len(ax.get_yticklabels()) == k and np.all(np.diff(ax.lines[1].get_xdata()) >= 0)
    assert len(listeners_figure(p, n=50).legends[0].get_texts()) == 1
    fig.savefig(tmp_path / "f.png")
