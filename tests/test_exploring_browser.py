"The explorers in a real JupyterLab and a real browser."
import pandas as pd
import pytest
from lab import VoilaApp, chromium, lab, new_page, open_notebook, until  # noqa: F401

from geomusic.judging.listeners import listener_scores, people_and_model, read_listeners


def test_the_lab_itself(open_notebook):
    "A slider of ipywidgets and a figure of plotly, run and moved"
    page = open_notebook(["import ipywidgets as w, plotly.graph_objects as go\nfig = go.FigureWidget(go.Scattergl(x=[1, 2], y=[1, 2]))\n"
                          "s = w.IntSlider(3)\ns.observe(lambda c: fig.update_layout(title=f'now {c.new}'), 'value')\nw.VBox([s, fig])"])
    page.run_all()
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=20_000)
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
    until(page, "(a => a?.src && a.src !== window.heardBefore)(document.querySelector('.geomusic-hear audio'))", 20)
    page.evaluate("window.heardBefore = document.querySelector('.geomusic-hear audio').src")
    until(page, "document.querySelector('.geomusic-hear audio')?.readyState >= 2", 20)
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
    page.get_by_text(f"Excerpt {i} of 10").wait_for(timeout=20_000)
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
    until(page, f"{SAYS % 'it is from'} || {SAYS % 'not listened'}", 20, STATUS)
    if page.evaluate(SAYS % "not listened"):  # on a busy machine the player's word may come later than the button's; a person would do as told
        page.evaluate("window.heardBefore = ''")
        listen(page)
        page.wait_for_timeout(2000)
        page.get_by_role("button", name="Answer").click()
    until(page, SAYS % "it is from", 20, STATUS)
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
    begin.wait_for(timeout=20_000)
    page.shot("listening_consent")
    begin.click()
    for i in range(1, 5): trial(page, i, path)
    code = pd.read_csv(path).listener_id[0]
    page.restart()  # the kernel dies
    page.run_all()
    begin.wait_for(timeout=20_000)
    page.get_by_placeholder("only if you were here before").fill(code)
    page.keyboard.press("Tab")
    begin.click()
    for i in range(5, 11): trial(page, i, path)
    page.get_by_text("Thank you").wait_for(timeout=20_000)
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
        page.goto(app.url, timeout=120_000)
        page.get_by_role("button", name="I agree, begin").click(timeout=120_000)
        assert page.locator(".jp-CodeMirrorEditor, .highlight").count() == 0
        for i in range(1, 11): trial(page, i, path)
        page.get_by_text("Thank you").wait_for(timeout=20_000)
        until(page, "document.querySelector('img[alt^=\"A line a track\"]')?.naturalWidth > 300", 20)
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


def push(page, key="ArrowRight"):
    "The first slider, by keyboard"
    page.locator(".noUi-handle").first.focus()
    page.keyboard.press(key)


def hear(page):
    "Another track, whose sound plays"
    before = page.evaluate("document.querySelector('audio').src")
    choose(page, "track", 1)
    until(page, f"(a => a && a.src && a.src !== '{before}')(document.querySelector('audio'))", 30)
    until(page, "document.querySelector('audio')?.readyState >= 2", 20)
    page.evaluate("document.querySelector('audio').play()")
    until(page, "document.querySelector('audio').currentTime > 0.3")
    page.evaluate("document.querySelector('audio').pause()")


def more_certain(page):
    "Half way up the slider fewer answers are left, and the sentence counts them"
    assert "of 39 answers" not in page.locator(".jp-OutputArea").first.inner_text()
    for _ in range(45): push(page)
    until(page, "/\\d+ of 39 answers/.test(document.body.innerText) && !/39 of 39/.test(document.body.innerText)", 30)


EXPLORERS = dict(attention=("attention", hear), relevance=("cnn", hear), importance=("fcnn", lambda page: choose(page, "country", 1)), whatif=("fcnn", lambda page: [push(page) for _ in range(5)]),
                 embeddings=("attention", lambda page: page.locator(".widget-dropdown select").nth(1).select_option(index=1)), world=("attention", more_certain))


@pytest.mark.parametrize("name", EXPLORERS)
def test_explorer(open_notebook, demo, name):
    "It appears in JupyterLab, answers to its control, and nothing fails"
    model, act = EXPLORERS[name]
    page = open_notebook([EXPLORE.format(name=name, model=model)])
    page.run_all()
    until(page, f"({SEEN}).length > 50", 60)
    page.wait_for_timeout(500)
    page.evaluate(f"window.seenBefore = {SEEN}")
    act(page)
    until(page, f"({SEEN}) !== window.seenBefore", 30)
    page.wait_for_timeout(500)
    page.shot(f"explore_{name}")
    assert page.trouble == []
