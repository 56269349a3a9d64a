"""The figures of a corpus, on corpora that lack this and that; the first-look notebook; its page and its menus in a browser."""
import os

import nbformat
import numpy as np
import pandas as pd
import papermill as pm
import pytest
from lab import PATIENCE_MS, chromium  # noqa: F401 - a fixture

from geomusic import overview, parts, touch
from geomusic.corpus import Corpus, account, save_corpus
from geomusic.places import countries
from geomusic.sound.descriptors import DESCRIPTORS

TEMPLATE = "nbs/exploratory_analysis.ipynb"


def corpus(counts, descriptors=True, report=None, seed=0):
    "Noise from some countries; four tracks an artist."
    rng = np.random.default_rng(seed)
    t = pd.DataFrame([(c, f"{c} {i // 4}") for c, n in counts.items() for i in range(n)], columns=["country", "group"])
    t = t.join(countries()[["lat_deg", "lon_deg"]], on="country").assign(track_id=[f"t{i}" for i in range(len(t))], title="<b>song</b>", artist=t.group, audio="")
    if descriptors:
        t[DESCRIPTORS] = rng.uniform(0, 1, (len(t), len(DESCRIPTORS)))
        t["key"], t["mode"], t["time_signature"] = rng.integers(0, 12, len(t)), rng.integers(0, 2, len(t)), 4
    return Corpus(t, account(pd.Series([""] * len(t) + ["too <short>"] * 3)) if report is None else report)


def holey():
    "Gaps everywhere: a column without a value, one with infinities, one that is text."
    c = corpus(dict(KEN=8, JPN=12, BRA=20))
    t = c.tracks.assign(energy=np.nan, artist="", tempo=c.tracks.tempo.where(c.tracks.country != "KEN", np.inf), liveness=["?"] * 40, loudness=["-7.5"] * 40)
    return Corpus(t, c.report)


def labelled():
    "Regions are learned, countries are unknown."
    t = corpus(dict(KEN=8, JPN=12)).tracks
    return Corpus(t.assign(home=t.country, country="", lat_deg=np.nan, lon_deg=np.nan), dict(label="home"))


CORPORA = dict(
    usual=corpus(dict(USA=90, GBR=40, BRA=30, JPN=12, ISL=4)),
    holes=holey(),
    one_region=corpus(dict(DEU=20, FRA=8)),
    one_country=corpus(dict(ISL=9)),
    one_row=corpus(dict(SGP=1)),
    no_descriptors=corpus(dict(DEU=20, KEN=8), descriptors=False),
    no_account=corpus(dict(DEU=20, KEN=8), report={}),
    other_label=labelled(),
    named=corpus(dict(DEU=8), report=dict(read=8, kept=8, merged=0, refused={}, repaired={}, features=["tempo", "gone"], names=[dict(name="x", iso3="", rows=1, how="unknown")])))
FIGURES = dict(balance_figure=overview, static_corpus_map=overview, group_figure=overview, refusal_figure=overview,
               missing_figure=parts, descriptor_figure=parts, correlation_figure=parts)
PLOTS = ["corpus_map", "group_plot", "descriptor_plot", "compare_plot"]
MESSAGES = {("static_corpus_map", "other_label"): "No map", ("corpus_map", "other_label"): "No map", ("refusal_figure", "no_account"): "No account",
            ("refusal_figure", "other_label"): "No account", ("correlation_figure", "one_row"): "fewer than two", ("correlation_figure", "named"): "fewer than two",
            **{(f, "no_descriptors"): "No descriptors" for f in ("descriptor_figure", "correlation_figure", "descriptor_plot", "compare_plot")}}


def drawn(ax):
    "What stands on axes besides their frame"
    return len(ax.lines) + len(ax.patches) + len(ax.collections) + len(ax.images)


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("figure", FIGURES)
def test_a_picture_draws_or_says_what_is_missing(figure, name, tmp_path):
    fig = getattr(FIGURES[figure], figure)(CORPORA[name])
    fig.savefig(tmp_path / "fig.png")
    assert (tmp_path / "fig.png").read_bytes()[:4] == b"\x89PNG"
    message = MESSAGES.get((figure, name))
    if message: assert message in fig.axes[0].texts[0].get_text() and drawn(fig.axes[0]) == 0
    else: assert drawn(fig.axes[0]) > 0


@pytest.mark.parametrize("name", CORPORA)
@pytest.mark.parametrize("plot", PLOTS)
def test_a_plot_draws_or_says_what_is_missing(plot, name):
    fig = getattr(touch, plot)(CORPORA[name])
    message = MESSAGES.get((plot, name))
    if message: assert len(fig.data) == 0 and message in fig.layout.annotations[0].text
    else: assert len(fig.data) > 0
    assert "NaN" not in fig.to_json() and "Infinity" not in fig.to_json()


def test_a_corpus_without_a_gap_says_so():
    whole = CORPORA["usual"]
    fig = parts.missing_figure(Corpus(whole.tracks.assign(audio="a.wav"), whole.report))
    assert "No value is missing" in fig.axes[0].texts[0].get_text()


@pytest.mark.parametrize("name", CORPORA)
def test_tables(name):
    c = CORPORA[name]
    table, n, fall = overview.class_table(c), overview.balance_numbers(c), overview.refusal_table(c)
    assert table.tracks.sum() == len(c) == n["tracks"] and table.share.sum() == pytest.approx(1)
    assert 1 - 1e-9 <= n["effective"] <= n["classes"] + 1e-9 and 1 <= n["half"] <= n["classes"]
    if len(fall): assert fall[fall.step == "read"].rows.sum() == fall[fall.step.isin(["kept", "merged", "refused"])].rows.sum()
    assert parts.missing_table(c).to_numpy().min() >= 0 and parts.missing_table(c).to_numpy().max() <= 1
    assert parts.separation(c).dropna().between(-1e-9, 1 + 1e-9).all()


def test_the_known_numbers():
    c = CORPORA["usual"]
    n = overview.balance_numbers(c)
    p = np.array([90, 40, 30, 12, 4]) / 176
    assert n["effective"] == pytest.approx(np.exp(-(p * np.log(p)).sum())) and n["half"] == 1 and n["majority_name"] == "United States"
    assert overview.few_groups(c).index.tolist() == ["BRA", "JPN", "ISL"]
    gaps = parts.missing_table(CORPORA["holes"])
    assert gaps.loc["energy", "all"] == gaps.loc["artist", "all"] == 1 and "country" not in gaps.index
    assert overview.names_table(CORPORA["named"]).country.tolist() == ["refused"]


def test_infinite_and_wordy_values_are_gaps():
    x = parts.features_of(CORPORA["holes"])
    assert x.liveness.isna().all() and (x.loudness == -7.5).all() and x.tempo.isna().sum() == 8


def test_many_parts_become_few():
    world = countries()
    many = corpus({c: 4 for c in world.index[world.subregion.notna()][:120]})
    assert len(parts.parts(many).cat.categories) == 8 and len(parts.parts(many, "country", most=5).cat.categories) == 5
    assert parts.parts(many).notna().all()
    assert len(parts.descriptor_figure(many).axes) >= 13 and len(overview.balance_figure(many).axes[0].patches) == 20


def test_sizes_do_not_grow_with_the_corpus():
    big = corpus(dict(USA=9000, BRA=6000, KEN=3000))
    assert len(touch.descriptor_plot(big).to_json()) < 120_000 and len(touch.compare_plot(big).to_json()) < 20_000


def test_html_of_a_title_is_escaped():
    usual = CORPORA["usual"]
    nasty = Corpus(usual.tracks.rename(columns=dict(tempo="</script><script>alert(2)")), usual.report | dict(features=["</script><script>alert(2)"]))
    page = touch._page(touch.descriptor_plot(nasty), None, '"><script>alert(1)</script>')
    assert "alert(2)" in page and "<script>alert" not in page and page.count("<script>") == page.count("</script>") == 1


def test_the_menus():
    pytest.importorskip("ipywidgets", reason="ipywidgets is not installed")
    box = touch.explore(CORPORA["usual"])
    feature, part, country = box.menus
    feature.value, part.value, country.value = "tempo", "Northern Europe", "ISL"
    assert [t.name.split(":")[0] for t in box.fig.data] == ["all", "Northern Europe", "Iceland"] and box.fig.layout.xaxis.title.text == "tempo"
    assert [o[1] for o in country.options] == ["", "GBR", "ISL"]
    part.value = "Eastern Asia"
    assert country.value == "" and [t.name.split(":")[0] for t in box.fig.data] == ["all", "Eastern Asia"]
    shown = box.children[1].outputs[0]["data"]["application/vnd.plotly.v1+json"]
    assert len(shown["data"]) == 2
    assert "No descriptors" in touch.explore(CORPORA["no_descriptors"]).value


def execute(root, folder, **parameters):
    "Run the template; its executed notebook"
    return pm.execute_notebook(root / TEMPLATE, folder / "executed.ipynb", parameters, cwd=str(folder), progress_bar=False, kernel_name="python3")


def texts(nb):
    "All that the cells said"
    outputs = [o for c in nb.cells if c.cell_type == "code" for o in c.outputs]
    return "\n".join(o.get("text", "") + o.get("data", {}).get("text/markdown", "") + o.get("data", {}).get("text/plain", "") for o in outputs)


def test_the_template_is_tagged_for_papermill(root):
    nb = nbformat.read(root / TEMPLATE, 4)
    assert [c.metadata.get("tags") for c in nb.cells if "parameters" in c.metadata.get("tags", [])] == [["parameters"]]
    assert set(pm.inspect_notebook(root / TEMPLATE)) == {"corpus_folder", "by", "few"}


@pytest.mark.parametrize("name", ["usual", "holes", "one_row", "no_descriptors", "other_label"])
def test_the_template_runs_on(name, root, tmp_path):
    save_corpus(CORPORA[name], tmp_path / "corpus")
    nb = execute(root, tmp_path, corpus_folder=str(tmp_path / "corpus"), few=3)
    said = texts(nb)
    assert f"{len(CORPORA[name]):,} tracks" in said and ("menus appear here" in said) == (name != "no_descriptors")
    if name == "usual": assert "of 5 classes have fewer than 3 groups" in said and "176" in said
    if name == "no_descriptors": assert "This corpus has no descriptors." in said
    assert sum("image/png" in o.get("data", {}) for c in nb.cells if c.cell_type == "code" for o in c.outputs) == 5


def test_a_wrong_folder_ends_the_run(root, tmp_path):
    with pytest.raises(pm.PapermillExecutionError, match="does not exist"):
        execute(root, tmp_path, corpus_folder=str(tmp_path / "nowhere"))


@pytest.mark.parametrize("online", [True, False])
def test_a_stored_plot_on_a_page(online, chromium, tmp_path):
    "With plotly's script the plot and its menu live; without, a picture stands in its place and nothing fails."
    from plotly.offline import get_plotlyjs
    c = CORPORA["usual"]
    page_html = (touch._page(touch.descriptor_plot(c), parts.descriptor_figure(c, most=1), "histograms")
                 + touch._page(touch.corpus_map(c), overview.static_corpus_map(c), "a map"))
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><meta charset=utf-8><title>t</title><body>{page_html}")
    context = chromium.new_context(viewport=dict(width=420, height=900))
    page = context.new_page()
    asked, errors = [], []
    page.on("pageerror", lambda e: errors.append(str(e)))
    page.route(lambda url: url.startswith("http"), lambda r: (asked.append(r.request.url), r.fulfill(
        body=get_plotlyjs(), content_type="application/javascript", headers={"Access-Control-Allow-Origin": "*"}) if online else r.abort()))
    page.goto((tmp_path / "page.html").as_uri())
    if online:
        page.wait_for_selector(".choroplethlayer path", state="attached")
        page.wait_for_function("!document.querySelector('img') && document.querySelectorAll('.barlayer .point').length > 50")
        title = page.locator(".gtitle").first.text_content()
        page.locator(".updatemenu-header").click()
        page.locator(".updatemenu-dropdown-button").nth(5).click()
        page.wait_for_function("was => document.querySelector('.gtitle').textContent != was", arg=title)
    else:
        page.wait_for_function("document.images.length == 2 && [...document.images].every(i => i.naturalWidth > 0 && i.alt)")
        for _ in range(PATIENCE_MS // 100):
            if asked: break
            page.wait_for_timeout(100)
    page.wait_for_timeout(500)  # for what should not come: an error, another request
    assert errors == [] and len(asked) == 1 and "cdn.plot.ly" in asked[0], "one script, once"
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), "wider than the screen"
    if folder := os.environ.get("GEOMUSIC_SCREENSHOTS"): page.screenshot(path=f"{folder}/overview_{'live' if online else 'still'}.png", full_page=True)
