"Pictures judged without eyes: what is drawn is what was counted, the words say it too, files are whole, and tables survive hostile names."
import io
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import confusion_matrix

from geomusic.evaluate import per_class, predictions_table, score
from geomusic.files import InputError
from geomusic.judging import pictures as P
from geomusic.places import countries, great_circle_km
from geomusic.report import external_loads

WORLD = countries().dropna(subset=["lat_deg", "subregion"])
CODES = ("ALB ARG ARM AUS AUT BEL BGR BRA CAN CHE CHL CHN COL CUB CZE DEU DNK DZA EGY ESP EST FIN FRA GBR GRC HUN IDN IND IRL IRN ISL ISR "
         "ITA JPN KAZ KEN KOR LTU LUX MAR MEX MLI MNG NGA NLD NOR PER PHL POL PRT ROU RUS SEN SWE TUR USA ZAF").split()
KINDS = ["confusion", "per_class", "top_confusions", "reliability", "region_calibration", "error_map"]


def table(codes, n=300, seed=0, places=True):
    r, c = np.random.default_rng(seed), len(codes)
    y = r.integers(c, size=n)
    p = r.dirichlet(np.full(c, 0.3), n) + 0.8 * np.eye(c)[y] * (r.random((n, 1)) < 0.5)
    t = pd.DataFrame(dict(track_id=range(n), group=r.integers(n // 3 + 1, size=n), country=np.array(codes)[y]))
    if places: t = t.join(WORLD[["lat_deg", "lon_deg"]], on="country")
    return predictions_table(t, p / p.sum(1, keepdims=True), codes)


TABLES = {"two": table(["IRL", "JPN"]), "three": table(["CHN", "DEU", "IRL"]), "all": table(CODES, 1500)}


@settings(max_examples=30, deadline=None, derandomize=True)
@given(codes=st.lists(st.sampled_from(sorted(WORLD.index)), min_size=1, max_size=70, unique=True), seed=st.integers(0, 99))
def test_order_keeps_regions_whole_and_forgets_the_input_order(codes, seed):
    order = P.geographic_order(codes)
    assert sorted(order) == sorted(codes) and P.geographic_order(list(np.random.default_rng(seed).permutation(codes))) == order
    if len(codes) < 3: return
    for level in ("continent", "subregion"):
        at = WORLD[level][order].to_numpy()
        assert 1 + (at[1:] != at[:-1]).sum() == len(set(at))


def test_order_is_the_best_of_all_along_a_coast():
    coast = ["PRT", "ESP", "ITA", "ALB", "GRC"]  # one subregion, west to east
    assert P.geographic_order(coast[::-1]) == coast


def test_order_of_labels_that_are_no_countries():
    assert P.geographic_order(["Celtic", "JPN", "Andean"]) == ["JPN", "Andean", "Celtic"]
    with pytest.raises(InputError, match="twice"): P.geographic_order(["IRL", "IRL"])


@pytest.mark.parametrize("t", TABLES)
def test_matrix_is_sklearns_in_the_new_order(t):
    p = TABLES[t]
    order = P.geographic_order(sorted({c[2:] for c in p if c.startswith("p_")}))
    theirs = confusion_matrix(p.country, p.predicted, labels=order, normalize="true")
    image = P.confusion_figure(p).axes[0].images[0]
    assert np.allclose(image.get_array(), theirs)
    live = P.confusion_plotly(p)
    assert np.allclose(np.square(np.array(live.data[0].z, float)), theirs) and list(live.layout.xaxis.ticktext) == order
    boxes = [q.get_bbox() for q in P.confusion_figure(p).axes[0].patches]
    assert sum(b.width for b in boxes) == len(order) and all(b.width == b.height for b in boxes)


@pytest.mark.parametrize("t", TABLES)
@pytest.mark.parametrize("kind", KINDS)
def test_both_pictures_say_the_same_and_are_written(t, kind, tmp_path):
    flat, live = (getattr(P, f"{kind}_{form}")(TABLES[t], title="R&D <script>x</script>") for form in ("figure", "plotly"))
    words = P.alt_text(flat)
    assert len(words) > 20 and words == P.alt_text(live) and re.search(r"\d", words)
    P.save_figure(flat, tmp_path / "a.png", dpi=50), P.save_figure(live, tmp_path / "b.html", shared=True)
    with Image.open(tmp_path / "a.png") as im: assert im.text["Description"] == words and im.convert("L").getextrema()[0] < 100
    page = (tmp_path / "b.html").read_text(encoding="utf-8")
    assert external_loads(page) == [("script", "plotly.min.js")] and "<script>x" not in page and "aria-label" in page
    assert {f.name for f in tmp_path.iterdir()} == {"a.png", "b.html", "plotly.min.js"}


def test_intervals_drawn_are_those_of_per_class():
    p, by = TABLES["all"], per_class(TABLES["all"]).sort_values(["accuracy", "lo"])
    lines = P.per_class_figure(p).axes[0].collections[0].get_segments()
    assert np.allclose([[s[0][0], s[1][0]] for s in lines], by[["lo", "hi"]])
    live = P.per_class_plotly(p).data[0]
    assert np.allclose(np.array(live.x) - np.array(live.error_x.arrayminus), by.lo)


def test_no_mistakes_and_nothing_but_mistakes():
    p = TABLES["three"]
    for kind in KINDS:
        for form in ("figure", "plotly"): assert P.alt_text(getattr(P, f"{kind}_{form}")(p.assign(predicted=p.country)))
    wrong = p.assign(predicted=p.country.map(dict(CHN="DEU", DEU="IRL", IRL="CHN")))
    assert " 0% lie" in P.alt_text(P.confusion_figure(wrong)) and P.error_arcs(wrong).n.sum() == len(p)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(a=st.tuples(st.floats(-90, 90), st.floats(-180, 180)), b=st.tuples(st.floats(-90, 90), st.floats(-180, 180)))
def test_great_circles_go_the_shortest_way_in_equal_steps(a, b):
    way, whole = P.great_circle(*a, *b, 21), great_circle_km(*a, *b)
    assert np.isfinite(way).all() and great_circle_km(*way[0], *a) < 1e-3 and great_circle_km(*way[-1], *b) < 1e-3
    steps = great_circle_km(*way[:-1].T, *way[1:].T)
    assert np.allclose(steps, whole / 20, atol=0.02), "equal steps that sum to the distance"


def test_antipodes_go_over_the_pole():
    way = P.great_circle(10, 20, -10, -160)
    assert way[:, 0].max() > 85 and np.isclose(great_circle_km(*way[:-1].T, *way[1:].T).sum(), np.pi * 6371.0, rtol=2e-3)


def test_arcs_are_the_counts_and_no_line_crosses_the_map():
    p = TABLES["all"]
    arcs = P.error_arcs(p, 10**6)
    counts = pd.crosstab(p.country, p.predicted)
    assert all(counts.loc[a.country, a.predicted] == a.n for a in arcs.itertuples()) and arcs.n.sum() == (p.country != p.predicted).sum()
    ring = table(["JPN", "USA"])
    lines = P.error_map_figure(ring).axes[0].collections[-1].get_segments()
    assert max(np.abs(s[1] - s[0]).max() for s in lines) < 0.5, "over the Pacific, cut at the edge of the map"


def test_labels_without_a_place():
    p = table(["Celtic", "Andean", "IRL"], places=False)
    for kind in ("confusion", "per_class", "top_confusions", "reliability"): assert P.alt_text(getattr(P, kind + "_figure")(p))
    with pytest.raises(InputError, match="no place is known for Andean, Celtic"): P.error_map_figure(p)
    with pytest.raises(InputError): P.error_arcs(p.drop(columns="group"))


BOARD = pd.DataFrame({"accuracy": [0.4, 0.5, 0.5001], "accuracy_lo": [0.3, 0.4, np.nan], "accuracy_hi": [0.5, 0.6, np.nan], "km_mean": [900.0, 2000.0, np.nan],
                      "log_loss": [2.0, 1.0, 3.0]}, index=["a", "b & <i>", "c_%$#{}~^\\"])


def test_best_is_bold_and_ties_as_shown_share_it():
    html = P.leaderboard_table(BOARD)
    assert re.findall(r"<strong>(.*?)</strong>", html) == ["900", "0.500", "1.000", "0.500"]
    assert "b &amp; &lt;i&gt;" in html and "<i>" not in html and "nan" not in html
    assert html.count("<td>") == 9 and "<small>0.300 to 0.500</small>" in html
    tex = P.leaderboard_table(BOARD, "latex")
    assert re.findall(r"textbf\{(.*?)\}", tex) == ["900", "0.500", "1.000", "0.500"]
    assert r"c\_\%\$\#\{\}\textasciitilde{}\textasciicircum{}\textbackslash{}" in tex and r"b \& <i>" in tex
    rows = tex.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert len(rows) == 3 and all(len(re.findall(r"(?<!\\)&", row)) == 3 for row in rows)


def test_of_what_calibration_leaves_over_less_is_better_too():
    t = pd.DataFrame(dict(scaled_ece=[0.1, 0.2], top5=[0.3, 0.4]), index=["a", "b"])
    assert re.findall(r"<strong>(.*?)</strong>", P.leaderboard_table(t, metrics=["scaled_ece", "top5"])) == ["0.100", "0.400"]


def test_csv_keeps_every_digit_and_runs_no_formula():
    t = BOARD.rename(index={"a": "=cmd|' /C calc'!A0"})
    back = pd.read_csv(io.StringIO(P.leaderboard_table(t, "csv")))
    assert back.accuracy.tolist() == BOARD.accuracy.tolist() and back.model[0].startswith("'=") and back.model[1:].tolist() == list(BOARD.index[1:])
    assert back.accuracy_lo.isna().tolist() == [False, False, True]


def test_scores_become_a_table():
    scores = [score(TABLES["three"], n, 50) for n in ("one", "two")]
    back = pd.read_csv(io.StringIO(P.leaderboard_table(scores, "csv"))).set_index("model")
    assert np.isclose(back.km_mean["one"], scores[0]["km_mean"]) and np.isclose(back.km_mean_lo["two"], scores[1]["km_mean_ci"][0])
    assert "top5" not in back, "three countries have none"


@pytest.mark.parametrize("call, says", [
    (lambda d: P.save_figure(P.confusion_figure(TABLES["three"]), d / "x.gif"), "gif"),
    (lambda d: P.save_figure(P.confusion_plotly(TABLES["three"]), d / "x.pdf"), "_figure"),
    (lambda d: P.save_figure("picture", d / "x.png"), "str"),
    (lambda d: P.leaderboard_table([]), "no models"),
    (lambda d: P.leaderboard_table(BOARD, "docx"), "form"),
    (lambda d: P.leaderboard_table(BOARD, metrics=["acc"]), "accuracy"),
    (lambda d: P.leaderboard_table(BOARD.iloc[[0, 0]]), "twice"),
    (lambda d: P.top_confusions_figure(TABLES["three"], 0), "0 confusions"),
    (lambda d: P.error_map_plotly(TABLES["three"], -1), "-1 arcs"),
    (lambda d: P.reliability_figure({}), "0"),
    (lambda d: P.reliability_plotly({str(i): TABLES["three"] for i in range(9)}), "9"),
    (lambda d: P.region_calibration_figure(TABLES["three"], by="village"), "village"),
    (lambda d: P.confusion_figure(TABLES["three"].assign(p_CHN=2.0)), "sum to"),
])
def test_bad_input_is_named_and_leaves_nothing(call, says, tmp_path):
    with pytest.raises(InputError, match=says): call(tmp_path)
    assert not list(tmp_path.iterdir())


def test_files_for_paper(tmp_path):
    fig = P.top_confusions_figure(TABLES["three"])
    for kind in ("png", "pdf", "svg", "html"): P.save_figure(fig, tmp_path / f"deep/x.{kind}")
    assert (tmp_path / "deep/x.pdf").read_bytes()[:5] == b"%PDF-" and P.alt_text(fig)[:30] in (tmp_path / "deep/x.svg").read_text()
    page = (tmp_path / "deep/x.html").read_text()
    assert external_loads(page) == [] and 'alt="The 6 most' in page
    a = (tmp_path / "deep/x.pdf").read_bytes()
    assert P.save_figure(fig, tmp_path / "deep/x.pdf").read_bytes() == a, "the same figure is the same file"


def test_a_page_can_hold_all_it_needs(tmp_path):
    page = P.save_figure(P.per_class_plotly(TABLES["three"]), tmp_path / "x.html").read_text(encoding="utf-8")
    assert len(page) > 1e6 and external_loads(page) == [] and not (tmp_path / "plotly.min.js").exists()
