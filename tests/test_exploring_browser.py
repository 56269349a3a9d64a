"The explorers in a real JupyterLab and a real browser."
import json

import nbformat
import pandas as pd
import pytest
from lab import VoilaApp, chromium, lab, new_page, open_notebook, until  # noqa: F401

from geomusic.judging.listeners import listener_scores, people_and_model, read_listeners


def test_the_lab_itself(open_notebook):
    "A slider of ipywidgets and a figure of plotly, run and moved"
    page = open_notebook(["import ipywidgets as w, plotly.graph_objects as go\nfig = go.FigureWidget(go.Scattergl(x=[1, 2], y=[1, 2]))\n"
                          "s = w.IntSlider(3)\ns.observe(lambda c: fig.update_layout(title=f'now {c.new}'), 'value')\nw.VBox([s, fig])"])
    page.run_all()
    page.wait_for_selector(".js-plotly-plot .main-svg")
    page.locator(".widget-slider .noUi-handle").focus()
    page.keyboard.press("ArrowRight")
    until(page, "document.querySelector('.js-plotly-plot .gtitle')?.textContent === 'now 4'")
    page.shot("lab")
    assert page.trouble == []


TEST = """from geomusic.exploring.opened import demo_run
from geomusic.exploring.listening_test import listening_test
from geomusic.corpus import load_corpus
import pandas as pd
run, folder = demo_run('attention')
predictions, corpus = pd.read_parquet(run/'predictions.parquet'), load_corpus(folder)
heard = corpus.keep(corpus.tracks.track_id.isin(predictions.track_id), 'learned')
listening_test(heard, {path!r}, predictions, n=10, seed=1, dur_s=6.)"""


@pytest.fixture(scope="module")
def demo():
    "The demo's tracks that the model has not seen, and what it says about them"
    from geomusic.corpus import load_corpus
    from geomusic.exploring.opened import demo_run
    run, folder = demo_run("attention")
    predictions = pd.read_parquet(run / "predictions.parquet")
    tracks = load_corpus(folder).tracks
    return tracks[tracks.track_id.isin(predictions.track_id)], predictions


def listen(page, advance=False):
    "Start the excerpt, which is another one than the last; the sound is decoded and runs"
    until(page, "(a => a?.src && a.src !== window.heardBefore)(document.querySelector('.geomusic-hear audio'))")
    page.evaluate("window.heardBefore = document.querySelector('.geomusic-hear audio').src")
    until(page, "document.querySelector('.geomusic-hear audio')?.readyState >= 2")
    page.evaluate("document.querySelector('.geomusic-hear audio').play()")
    until(page, f"document.querySelector('.geomusic-hear audio').currentTime > {0.7 if advance else 0.05}")
    page.evaluate("document.querySelector('.geomusic-hear audio').pause()")


def click_map(page, lat_deg, lon_deg):
    "Click where this place is drawn"
    from geomusic.maps import _equal_earth
    x, y = _equal_earth(lat_deg, lon_deg)
    at = page.evaluate("([x, y]) => { const s = document.querySelector('.geomusic-hear svg'); s.scrollIntoView({block: 'center'}); const m = s.getScreenCTM(); return [m.a*x + m.e, m.d*y + m.f] }", [1000 * float(x), -1000 * float(y)])
    page.mouse.click(*at)


STATUS = "[...document.querySelectorAll('[role=status]')].map(e => e.textContent)"
SAYS = STATUS + ".some(t => t.includes('%s'))"


def trial(page, i, answer_ends):
    "One excerpt: listen, answer on the map, from the list or by keyboard, say how sure"
    page.get_by_text(f"Excerpt {i} of 10").wait_for()
    listen(page, advance=i == 1)
    if i % 3 == 1: click_map(page, *((53, -8), (35, 105), (51, 10), (-10, -55))[i // 3])
    elif i % 3 == 2: page.locator(".widget-dropdown select").select_option(label=("Germany", "China", "Ireland")[i // 3])
    else:
        page.locator(".geomusic-hear svg").focus()
        for key in ("ArrowRight", "ArrowUp", "Shift+ArrowUp"): page.keyboard.press(key)
    until(page, "[...document.querySelectorAll('[role=status]')].some(e => /You (point at|chose)/.test(e.textContent))")
    page.locator(".widget-radio-box label").nth(i % 5).click()
    if i == 1: page.shot("listening_trial")
    page.get_by_role("button", name="Answer").click()
    for _ in range(3):
        until(page, f"{SAYS % 'it is from'} || {SAYS % 'not listened'}", instead=STATUS)
        if page.evaluate(SAYS % "it is from"): break
        page.evaluate("window.heardBefore = ''; document.querySelector('.geomusic-hear audio').currentTime = 0")  # the button's word can overtake the player's; a person would do as told
        listen(page)
        page.wait_for_timeout(2000)
        page.get_by_role("button", name="Answer").click()
        page.wait_for_timeout(1000)
    until(page, SAYS % "it is from", instead=STATUS)
    assert len(open(answer_ends).readlines()) == i + 1, "on disk before the page says so"
    if i == 1: page.shot("listening_truth")
    page.get_by_role("button", name="Next", exact=True).click()


def evaluate(path, demo, n_listeners=1):
    "The file is what part E reads"
    tracks, predictions = demo
    people = read_listeners(path, tracks, least=1)
    assert people.listener_id.nunique() == n_listeners and len(people) == 10 * n_listeners
    assert people.confidence.between(0, 1).all() and (people.plays >= 1).all() and (people.seconds > 0).all()
    board = people_and_model(people, predictions, n=50)
    assert set(board.metric) == {"accuracy", "km_mean"} and (board.n_tracks == 10).all() and listener_scores(people, n=20).n["all"] == 10 * n_listeners
    return people


def test_ten_trials(open_notebook, tmp_path, demo):
    "Consent, ten excerpts by mouse, list and keyboard, the kernel's death after four, the code, the score; then the CSV is judged"
    path = tmp_path / "answers.csv"
    page = open_notebook([TEST.format(path=str(path))])
    page.run_all()
    begin = page.get_by_role("button", name="I agree, begin")
    begin.wait_for()
    page.shot("listening_consent")
    begin.click()
    for i in range(1, 5): trial(page, i, path)
    code = pd.read_csv(path).listener_id[0]
    page.restart()  # the kernel dies
    page.run_all()
    begin.wait_for()
    page.get_by_placeholder("only if you were here before").fill(code)
    page.keyboard.press("Tab")
    begin.click()
    for i in range(5, 11): trial(page, i, path)
    page.get_by_text("Thank you").wait_for()
    until(page, "document.querySelector('img[alt^=\"A line a track\"]')?.naturalWidth > 300")
    page.shot("listening_score")
    people = evaluate(path, demo)
    assert people.lat_deg.notna().sum() == 7 and people.country[0] == "IRL", "seven by map and keys, the first a click on Ireland"
    assert page.trouble == []


def test_as_an_app(chromium, tmp_path, demo):
    "The same under Voilà, on a telephone, without code"
    pytest.importorskip("voila", reason="voila is not installed: pip install voila")
    path, app = tmp_path / "answers.csv", VoilaApp(tmp_path / "home", "nbs/exploring/listening_app.ipynb", GEOMUSIC_ANSWERS=str(tmp_path / "answers.csv"))
    try:
        page = new_page(chromium, (app.host,), viewport=dict(width=390, height=844), has_touch=True)
        page.goto(app.url)
        page.get_by_role("button", name="I agree, begin").click()
        assert page.locator(".jp-CodeMirrorEditor, .highlight").count() == 0
        for i in range(1, 11): trial(page, i, path)
        page.get_by_text("Thank you").wait_for()
        until(page, "document.querySelector('img[alt^=\"A line a track\"]')?.naturalWidth > 300")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), "wider than the screen"
        page.shot("listening_phone")
        evaluate(path, demo)
        assert page.trouble == []
    finally: app.stop()


EXPLORE = """from geomusic.exploring.opened import demo_run, open_run
from geomusic.exploring.{name} import explore_{name}
opened = open_run(*demo_run('{model}'))
explore_{name}(opened)"""
SEEN = "[...document.querySelectorAll('.js-plotly-plot')].map(g => JSON.stringify(g.data)).join() + [...document.querySelectorAll('.jp-OutputArea img')].map(i => i.src).join()"


def choose(page, menu, number):
    "Another entry of the menu with this description"
    page.locator(".widget-dropdown", has=page.get_by_text(menu, exact=True)).locator("select").first.select_option(index=number)


BEGUN = "(a => { window.begun = []; a.addEventListener('seeking', () => begun.push(a.currentTime)) })(document.querySelector('audio'))"  # noted, as it is soon somewhere else


def plays(page, at, within=0.4):
    "The sound began there and went on"
    until(page, f"begun.some(t => Math.abs(t - {at}) < {within})", instead="begun.join()")
    ranges = "(p => [...Array(p.length).keys()].map(i => [p.start(i), p.end(i)]))(document.querySelector('audio').played)"
    until(page, f"{ranges}.some(([start, end]) => start < {at} + {within} && end > {at} + 0.2)", instead=f"{ranges}.join(' ')")


def test_a_click_on_a_peak_plays_those_seconds(open_notebook, demo):
    "By mouse in the picture, and by its button"
    page = open_notebook([EXPLORE.format(name="attention", model="attention")])
    page.run_all()
    until(page, "document.querySelector('audio')?.readyState >= 2")
    peaks = page.evaluate("[...document.querySelectorAll('.gm-heard button')].map(b => parseFloat(b.textContent.match(/[\\d.]+/)[0]))")
    assert peaks
    from geomusic.exploring.attention import AROUND_S, LEFT, WIDTH
    box, dur_s = page.locator(".gm-stage").bounding_box(), page.evaluate("document.querySelector('audio').duration")
    page.evaluate(BEGUN)
    page.mouse.click(box["x"] + box["width"] * (LEFT + WIDTH * (peaks[0] + 0.1) / dur_s), box["y"] + box["height"] / 2)  # a little beside it
    plays(page, max(0, peaks[0] - AROUND_S))
    until(page, "document.querySelector('audio').paused")
    until(page, f"Math.abs(document.querySelector('audio').currentTime - {min(dur_s, peaks[0] + AROUND_S)}) < 0.1", instead="document.querySelector('audio').currentTime")  # and stops after it
    page.evaluate("begun.length = 0")
    page.get_by_role("button", name=f"peak at {peaks[-1]:.1f} s").click()
    plays(page, max(0, peaks[-1] - AROUND_S))
    assert page.trouble == []


MANY = """from geomusic.exploring import embeddings as E
from geomusic.exploring.opened import demo_run, open_run
import tempfile
E._first = lambda opened, path, first=E._first: first(opened, path, few=3, patience_s=0)  # as of very many tracks
E.explore_embeddings(open_run(*demo_run('fcnn'), 'all'), cache=tempfile.mkdtemp())"""
POINTS = "(document.querySelector('.js-plotly-plot')?._fullData ?? []).filter(t => t.customdata?.length).flatMap(t => [...t.x])"


def test_what_a_lasso_catches_is_listed_and_heard(open_notebook, demo):
    "The model is asked in the background until all tracks are there; a lasso around the left half; then one of the list"
    page = open_notebook([MANY])
    page.run_all()
    until(page, f"{POINTS}.length === 198 && !document.body.innerText.includes('so far')", instead=f"{POINTS}.length")
    page.wait_for_timeout(1000)
    left = page.evaluate(f"(m => {POINTS}.filter(x => x < m).length)(document.querySelector('.js-plotly-plot')._fullLayout.xaxis.range.reduce((a, b) => (a + b)/2))")
    box = page.locator(".js-plotly-plot .nsewdrag").bounding_box()
    at = lambda x, y: (box["x"] + 2 + x * (box["width"] - 4), box["y"] + 2 + y * (box["height"] - 4))
    page.mouse.move(*at(0, 0))
    page.mouse.down()
    for corner in ((0.5, 0), (0.5, 1), (0, 1), (0, 0)): page.mouse.move(*at(*corner), steps=5)
    page.mouse.up()
    until(page, "document.querySelectorAll('.widget-select select option').length")
    until(page, f"document.querySelectorAll('.widget-select select option').length === {left} && document.body.innerText.includes('{left} tracks in the lasso')")
    page.locator(".widget-select select").select_option(index=0)
    until(page, "document.querySelector('audio')?.readyState >= 2")
    page.evaluate("document.querySelector('audio').play()")
    until(page, "document.querySelector('audio').currentTime > 0.3")
    page.shot("embeddings_caught")
    assert page.trouble == []


def push(page, key="ArrowRight"):
    "The first slider, by keyboard"
    page.locator(".noUi-handle").first.focus()
    page.keyboard.press(key)


def hear(page):
    "Another track, whose sound plays"
    before = page.evaluate("document.querySelector('audio').src")
    choose(page, "track", 1)
    until(page, f"(a => a && a.src && a.src !== '{before}')(document.querySelector('audio'))")
    until(page, "document.querySelector('audio')?.readyState >= 2")
    page.evaluate("document.querySelector('audio').play()")
    until(page, "document.querySelector('audio').currentTime > 0.3")
    page.evaluate("document.querySelector('audio').pause()")


def more_certain(page):
    "Half way up the slider fewer answers are left, and the sentence counts them"
    assert "of 39 answers" not in page.locator(".jp-OutputArea").first.inner_text()
    for _ in range(45): push(page)
    until(page, "/\\d+ of 39 answers/.test(document.body.innerText) && !/39 of 39/.test(document.body.innerText)")


def test_explorers_as_an_app(chromium, tmp_path, demo):
    "Under Voilà there is somebody who can touch: a figure in an output and one that is a widget, both answer"
    pytest.importorskip("voila", reason="voila is not installed: pip install voila")
    cells = ["\n".join(EXPLORE.format(name=n, model="fcnn").splitlines()) for n in ("importance", "world")]
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells]), tmp_path / "explore.ipynb")
    app = VoilaApp(tmp_path / "home", tmp_path / "explore.ipynb")
    try:
        page = new_page(chromium, (app.host,))
        page.goto(app.url)
        until(page, "document.querySelectorAll('.js-plotly-plot .main-svg').length >= 2 && document.querySelector('.noUi-handle')", instead="document.body.innerText.slice(0, 300)")
        push(page)
        until(page, "/of 39 answers are at least 1%/.test(document.body.innerText)", instead=STATUS)
        before = page.evaluate("JSON.stringify(document.querySelector('.js-plotly-plot').data)")
        choose(page, "of", 3)
        until(page, f"JSON.stringify(document.querySelector('.js-plotly-plot').data) !== {json.dumps(before)}")
        page.shot("explorers_app")
        assert page.trouble == []
    finally: app.stop()


EXPLORERS = dict(attention=("attention", hear), relevance=("cnn", hear), importance=("fcnn", lambda page: choose(page, "country", 1)), whatif=("fcnn", lambda page: [push(page) for _ in range(5)]),
                 embeddings=("attention", lambda page: page.locator(".widget-dropdown select").nth(1).select_option(index=1)), world=("attention", more_certain))


@pytest.mark.parametrize("name", EXPLORERS)
def test_explorer(open_notebook, demo, name):
    "It appears in JupyterLab, answers to its control, and nothing fails"
    model, act = EXPLORERS[name]
    page = open_notebook([EXPLORE.format(name=name, model=model)])
    page.run_all()
    until(page, f"({SEEN}).length > 50")
    page.wait_for_timeout(500)
    page.evaluate(f"window.seenBefore = {SEEN}")
    act(page)
    until(page, f"({SEEN}) !== window.seenBefore")
    page.wait_for_timeout(500)
    page.shot(f"explore_{name}")
    assert page.trouble == []
