"The map of answers against counts made by hand, its slider without a kernel, its explorer with one, and pages that survive hostile titles."
import re

import numpy as np
import pytest
from lab import chromium  # noqa: F401 - a fixture

from geomusic.exploring import world as W
from geomusic.files import InputError
from geomusic.judging.pictures import error_arcs
from test_embeddings import CODES, opened, table

T = table(300, CODES)


@pytest.mark.parametrize("at_least", [0, 0.4, 0.7, 0.99])
@pytest.mark.parametrize("country", ["", "IRL"])
def test_the_map_draws_what_is_left(at_least, country):
    fig = W.guess_map(T, at_least, country, k=500, slider=False)
    rows = T[T.certainty >= at_least]
    wrong = rows[rows.country != rows.predicted]
    if country: wrong = wrong[(wrong.country == country) | (wrong.predicted == country)]
    pairs = wrong.groupby(["country", "predicted"]).size()
    *halves, mids, dots = fig.data[-8:]
    assert len(mids.lat) == len(pairs) and sum(t.lat.count(None) for t in halves[:3]) == sum(t.lat.count(None) for t in halves[3:]) == len(pairs)
    assert sum(int(re.search(r"<br>(\d+) tracks", h)[1]) for h in mids.hovertext) == pairs.sum()
    by = rows.groupby("country").size()
    assert sorted(dots.customdata) == sorted(by.index) and len(dots.lat) == len(dots.marker.size) == len(dots.marker.color) == len(dots.textposition) == len(by)
    right = (rows.country == rows.predicted).groupby(rows.country).mean()
    assert np.allclose(dots.marker.color, right[list(dots.customdata)], atol=1e-3)


def test_the_slider_of_the_figure_holds_the_states_of_the_function():
    fig = W.guess_map(T)
    for step, level in zip(fig.layout.sliders[0].steps, W.levels(T), strict=True):
        state, relayout, where = step.args
        other = W.guess_map(T, level, slider=False)
        assert list(where) == list(range(len(fig.data) - 8, len(fig.data)))
        for i, t in enumerate(other.data[-8:]):
            assert list(state["lat"][i]) == list(t.lat) and list(state["lon"][i]) == list(t.lon)
        assert relayout["annotations[0].text"] == other.layout.annotations[0].text
    assert "http" not in fig.to_json() and len(fig.to_json()) < 600_000


@pytest.mark.parametrize("t", [T[:1], T[T.country == T.predicted], T[T.country == "IRL"], T.assign(predicted=T.country), T.assign(certainty=1.0)])
def test_thin_tables_are_drawn(t):
    t = t.reset_index(drop=True)
    fig = W.guess_map(t)
    assert len(fig.data[-1].lat) == t.country.nunique() and fig.layout.meta["alt"].startswith("World map")
    assert W.guess_figure(t).axes and (np.diff(W.levels(t)) > 0).all()
    assert W.guess_figure(t, 1.01).axes and "No answer" in W.guess_map(t, 1.01).layout.annotations[0].text


def test_a_country_page_counts_what_it_says():
    for code in CODES:
        p, own = W.country_page(T, code, 4), T[T.country == code]
        assert p.n == len(own) and p.taken_for.n.sum() == (own.predicted != code).sum()
        assert abs(p.taken_for.share.sum() + p.right - 1) < 1e-9
        back = W.country_page(T, p.taken_for.country[0]).taken_from.set_index("country")
        assert back.n[code] == p.taken_for.n[0] and abs(back.share[code] - p.taken_for.share[0]) < 1e-9 and abs(back.km[code] - p.taken_for.km[0]) < 1e-6
        assert p.typical.group.is_unique and (p.typical.country == code).all() and p.typical[f"p_{code}"].is_monotonic_decreasing
        assert p.typical[f"p_{code}"].iloc[0] == own[f"p_{code}"].max() and p.surprising.surprise.iloc[0] == own.surprise.max()
        assert ((p.strangers.country != code) & (p.strangers.predicted == code)).all()
        html = p._repr_html_()
        assert "<b>" not in re.sub(r"<p><b>[^<]*</b>: none</p>", "", html) and "&lt;b&gt;" in html and html.count("<caption") >= 3
    assert len(p.taken_for) == len(error_arcs(T[(T.country == code)], 99))


def test_pages_of_strangers():
    some = T[T.country != "IRL"].reset_index(drop=True)
    p = W.country_page(some, "Ireland")
    assert p.n == 0 and np.isnan(p.right) and "no tracks" in repr(p) and "none" in p._repr_html_() and len(p.strangers)
    for bad in ("Peru", "XX", ""):
        with pytest.raises(InputError): W.country_page(T, bad)
    moods = table(40).rename(columns=dict(p_CHN="p_sad song", p_DEU="p_merry", p_IRL="p_none")).replace(dict(CHN="sad song", DEU="merry", IRL="none"))
    assert W.country_page(moods, "sad song").n == (moods.country == "sad song").sum() and "sad song" in W.country_page(moods, "sad song")._repr_html_()
    assert "no place" in W.guess_map(moods).layout.annotations[0].text


def test_explorer_slider_menu_click_and_list():
    o = opened(300, codes=CODES)
    g = W.explore_world(o).globe
    before, text = g.fig, g.status.value
    g.level.value = high = W.levels(o.table)[-1]
    assert g.level.value == g.level.max == high and g.fig is before and g.status.value != text, "the same map, other arcs"
    want = W.guess_map(o.table, high, slider=False)
    for a, b in zip(g.fig.data[-8:], want.data[-8:]):
        assert a.lat == b.lat and a.lon == b.lon
    assert g.fig.data[-1].hovertext == want.data[-1].hovertext and g.fig.layout.annotations[0].text == want.layout.annotations[0].text
    g.country.value = "JPN"
    assert "<h4>Japan" in g.page.value and len(g.fig.data[-2].lat) == len(error_arcs(W.certain(o.table, high, "JPN"), 40))
    kinds = {k for _, (k, _) in g.tracks.options}
    assert kinds == {"typical", "surprising", "stranger"}
    g.tracks.value = g.tracks.options[0][1]
    assert "has no sound" in g.sound.outputs[0]["data"]["text/plain"]
    last = len(g.fig.data) - 1
    g.fig._js2py_pointsCallback = dict(event_type="plotly_click", selector=None, device_state=None, points=dict(xs=[None], ys=[None], point_indexes=[2], trace_indexes=[last]))
    assert g.country.value == g.fig.data[-1].customdata[2] and not g.sound.outputs
    g.country.value = ""
    assert g.page.value == "" and {k for _, (k, _) in g.tracks.options} == {"most wrong", "most certain"}


@pytest.mark.parametrize("n,codes", [(1, ("IRL", "JPN")), (30, ("IRL", "JPN"))])
def test_explorer_of_little(n, codes):
    g = W.explore_world(opened(n, codes=codes)).globe
    g.level.value = g.level.max
    g.country.value = g.country.options[-1][1]
    assert g.page.value and g.fig is not None


def test_explorer_of_moods_has_pages_but_no_map():
    o = opened(40)
    o.table = o.table.rename(columns=dict(p_CHN="p_sad", p_DEU="p_merry", p_IRL="p_so")).replace(dict(CHN="sad", DEU="merry", IRL="so"))
    g = W.explore_world(o).globe
    g.level.value, g.country.value = 0.5, "sad"
    assert "no place" in g.fig.layout.annotations[0].text and "sad" in g.page.value


def test_the_slider_moves_without_kernel_and_network(chromium, tmp_path):
    fig, asked = W.guess_map(T), []
    fig.write_html(tmp_path / "map.html")
    context = chromium.new_context(offline=True)
    page = context.new_page()
    page.on("request", lambda r: asked.append(r.url))
    page.goto(f"file://{tmp_path / 'map.html'}")
    page.wait_for_selector(".slider-rail-touch-rect")
    rail = page.locator(".slider-rail-touch-rect").bounding_box()
    page.mouse.click(rail["x"] + rail["width"] - 3, rail["y"] + rail["height"] / 2)
    want = fig.layout.sliders[0].steps[-1].args[1]["annotations[0].text"]
    page.wait_for_function("want => [...document.querySelectorAll('.annotation-text')].some(t => t.textContent == want)", arg=want)
    context.close()
    assert not [u for u in asked if not u.startswith(("file:", "data:", "blob:"))]
