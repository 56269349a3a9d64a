"""The site of the book: its configuration, its links, and its pages in a real browser with the network cut.

Needs smalldocs; what looks through Chromium also needs that and the Python package playwright, and is skipped without. A sample of pages by default; all with GEOMUSIC_LONG=1.
GEOMUSIC_SITE names a built site to look at instead of building one; GEOMUSIC_SCREENSHOTS a folder for pictures of what was seen.
"""
import functools
import os
import re
import shutil
import threading
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest
import yaml
from conftest import ROOT
from lab import PATIENCE_MS, chromium  # noqa: F401 - a fixture

from geomusic.files import InputError
from geomusic.site import build_site, make_local, outside_requests, prepare_site

pytest.importorskip("smalldocs", reason="smalldocs is not installed: pip install smalldocs")
CONFIG = yaml.safe_load((ROOT / "_quarto.yml").read_text(encoding="utf-8"))
# What this book relies on, of the keys that https://quarto.org/docs/reference/projects/websites.html and .../formats/html.html document; deeper levels: any value
DOCUMENTED = dict(project=dict.fromkeys(("type", "output-dir", "render", "resources", "pre-render", "post-render")),
    website=dict.fromkeys(("title", "description", "site-url", "repo-url", "repo-branch", "repo-subdir", "repo-actions", "search", "page-navigation", "page-footer", "favicon", "back-to-top-navigation"))
    | dict(sidebar=dict.fromkeys(("style", "contents", "search", "collapse-level", "title"))),
    format=dict(html=dict.fromkeys(("toc", "toc-depth", "code-copy", "code-overflow", "css", "html-math-method", "include-in-header")) | dict(theme=dict.fromkeys(("light", "dark")))),
    execute=dict.fromkeys(("enabled",)))
MADE = {"reference/index.qmd", "cite.qmd"}  # by the build, from the code and from CITATION.cff
LONG = bool(os.environ.get("GEOMUSIC_LONG"))
SAMPLE = ("index", "07_touch", "29_scores", "24_config", "53_cli", "exploring/05_world", "results/folk_tunes", "reference/corpus")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    given = os.environ.get("GEOMUSIC_SITE")
    return Path(given) if given else build_site(tmp_path_factory.mktemp("site") / "pages", ROOT, progress=False)


class Parts(HTMLParser):
    "What a page links to and shows: `ids`, `links`, `images` (source, alternative text)"

    def __init__(self, path):
        super().__init__()
        self.ids, self.links, self.images = set(), [], []
        self.feed(re.sub(r"(?s)<script(?! src)\b.*?</script>", "", path.read_text(encoding="utf-8")))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.ids |= {attrs[k] for k in ("id", "name") if attrs.get(k)}
        if tag in ("a", "link") and attrs.get("href"): self.links.append(attrs["href"])
        if tag == "img": self.images.append((attrs.get("src") or "", attrs.get("alt")))
        elif attrs.get("src"): self.links.append(attrs["src"])


@pytest.fixture(scope="module")
def pages(site):
    "{path: what is on the page}"
    return {p: Parts(p) for p in sorted(site.rglob("*.html"))}


def undocumented(given, known, where=""):
    "Keys that stand in a configuration and not among the documented ones"
    return [f"{where}{k}" for k in given if k not in known] + [u for k, v in given.items() if isinstance(v, dict) and isinstance(known.get(k), dict) for u in undocumented(v, known[k], f"{where}{k}.")]


def named(contents):
    "The pages of a sidebar, in order; entries are names or sections"
    return [p for c in contents for p in (named(c["contents"]) if isinstance(c, dict) else [c])]


def test_the_configuration_has_only_documented_keys_and_every_chapter():
    assert undocumented(CONFIG, DOCUMENTED) == [] and undocumented(dict(website=dict(serch=1)), DOCUMENTED) == ["website.serch"]
    assert CONFIG["project"]["type"] == "website" and CONFIG["execute"] == dict(enabled=False)
    sections = [c for c in CONFIG["website"]["sidebar"]["contents"] if isinstance(c, dict)]
    assert all(set(s) == {"section", "contents"} for s in sections) and {"Place", "Sound", "Learning", "Judging", "Exploring", "Experiments", "Results", "Reference"} <= {s["section"] for s in sections}
    chapters = named(CONFIG["website"]["sidebar"]["contents"])
    there = {p.relative_to(ROOT / "nbs").as_posix() for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts}
    assert len(chapters) == len(set(chapters)) and set(chapters) - MADE == there


def test_links_lead_somewhere_and_pictures_are_there(site, pages):
    broken, anchors = [], {p.resolve(): x.ids for p, x in pages.items()}
    assert len(pages) > 150 and sum(len(x.images) for x in pages.values()) > 100
    for page, x in pages.items():
        for link in [*x.links, *(src for src, _ in x.images)]:
            if urlsplit(link).scheme or link.startswith("//") or link in ("#", ""): continue
            path, anchor = urldefrag(link)
            target = (page.parent / unquote(path)).resolve() if path else page.resolve()
            if target.is_dir(): target /= "index.html"
            if not target.is_file() or not target.is_relative_to(site.resolve()): broken.append(f"{page.relative_to(site)}: {link}")
            elif anchor and target in anchors and unquote(anchor) not in anchors[target]: broken.append(f"{page.relative_to(site)}: no such place {link}")
    assert broken == []
    assert [f"{p.relative_to(site)}: {src[:60]}" for p, x in pages.items() for src, alt in x.images if not alt] == [], "pictures without an alternative text"


def test_nothing_is_asked_of_other_hosts(site, pages):
    asked = {p.relative_to(site).as_posix(): found for p in [*pages, *site.rglob("*.css")] if (found := outside_requests(p.read_text(encoding="utf-8")))}
    assert asked == {}
    scripts = [p for p in site.rglob("*.js") if p.stat().st_size > 1_000_000]
    assert [p.relative_to(site).as_posix() for p in scripts] == ["shared/plotly.min.js"], "plotly's script is there once"


def test_pages_lead_to_notebook_source_and_citation(site, pages):
    for name in ("05_overview", "sound/01_decode"):
        up = "../" * name.count("/")
        links = pages[site / f"{name}.html"].links
        assert f"{up}notebooks/{name}.ipynb" in links and f"https://github.com/geomusic/geomusic/edit/main/nbs/{name}.ipynb" in links and f"{up}cite.html" in links
        assert (site / "notebooks" / f"{name}.ipynb").read_bytes() == (ROOT / "nbs" / f"{name}.ipynb").read_bytes()
    text, source = (site / "reference" / "corpus.html").read_text(encoding="utf-8"), (ROOT / "geomusic" / "corpus.py").read_text(encoding="utf-8").split("\n")
    name, line = re.search(r'id="(load_corpus)".*?geomusic/blob/main/geomusic/corpus\.py#L(\d+)', text, re.S).groups()
    assert source[int(line) - 1].startswith(f"def {name}(") and "Parameter" in text
    assert "@software" in (site / "cite.html").read_text(encoding="utf-8")


def test_what_is_elsewhere_is_found_and_refused(tmp_path):
    "As Quarto writes it: theme fonts, require.js; and what cannot be mended is an error"
    (tmp_path / "src" / "_shared").mkdir(parents=True)
    shutil.copy(ROOT / "_quarto.yml", tmp_path / "src")
    page = tmp_path / "site" / "a" / "b.html"
    page.parent.mkdir(parents=True)
    page.write_text('<script src="https://cdnjs.cloudflare.com/require.min.js" integrity="x" crossorigin="anonymous"></script><script type="application/javascript" data-relocate-top="true">define(\'jquery\', [],function() {})</script>'
                    '<link rel="stylesheet" href="https://a.b/c.css"><style>@import url(https://fonts.googleapis.com/css2?a;b);p {}</style><p>kept</p>')
    assert make_local(tmp_path / "site", tmp_path / "src") == ["a/b.html"] and page.read_text() == "<style>p {}</style><p>kept</p>"
    page.write_text('<img src="https://a.b/c.png">')
    with pytest.raises(InputError, match="b.html still asks for https://a.b/c.png"): make_local(tmp_path / "site", tmp_path / "src")


def test_other_folders_are_not_emptied(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="something else"): build_site(tmp_path, ROOT)
    with pytest.raises(InputError, match="something else"): prepare_site(tmp_path, ROOT)
    with pytest.raises(InputError, match="_quarto.yml"): build_site(tmp_path / "new", tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine" and not (tmp_path / "new").exists()


# ---- in a browser

DEVICES = dict(desktop=dict(viewport=dict(width=1280, height=900)), phone=dict(viewport=dict(width=390, height=844), device_scale_factor=2, is_mobile=True, has_touch=True))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_): pass


@pytest.fixture(scope="module")
def address(site):
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(site)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


@pytest.fixture(scope="module", params=DEVICES)
def tab(request, chromium, address):
    "A page of the browser; whatever goes wrong is noted in `trouble`"
    context = chromium.new_context(**DEVICES[request.param])
    tab = context.new_page()
    tab.device, tab.address, tab.trouble = request.param, address, []
    def cut(route):
        tab.trouble.append(f"asked for {route.request.url[:100]}")
        route.abort()
    context.route(lambda url: not url.startswith((address, "data:", "blob:")), cut)
    tab.on("requestfailed", lambda r: tab.trouble.append(f"failed: {r.url[:100]}") if r.failure != "net::ERR_ABORTED" else None)  # that is a page left too early
    tab.on("response", lambda r: tab.trouble.append(f"{r.status}: {r.url[:100]}") if r.status >= 400 and not r.url.endswith("favicon.ico") else None)
    tab.on("pageerror", lambda e: tab.trouble.append(f"error: {e}"))
    tab.on("console", lambda m: tab.trouble.append(f"console: {m.text[:200]}") if m.type == "error" and "favicon" not in m.location.get("url", "") else None)
    yield tab
    context.close()


def go(tab, name):
    "Open a page and wait until its plotly figures are drawn"
    tab.trouble.clear()
    tab.goto(f"{tab.address}{name}.html", wait_until="load")
    if tab.evaluate("[...document.scripts].some(s => s.text.includes('geomusicPlotly ??='))"): until(tab, "[...document.querySelectorAll('[id^=plot-]:not([id$=-picture])')].every(d => d.querySelector('.main-svg'))")
    if folder := os.environ.get("GEOMUSIC_SCREENSHOTS"): tab.screenshot(path=f"{folder}/{name.replace('/', '_')}_{tab.device}.png")


def until(tab, expression):
    try: tab.wait_for_function(expression)
    except Exception: pytest.fail(f"still not true after {PATIENCE_MS} ms: {expression}; {tab.trouble}")


def test_pages(tab, site, pages):
    "No error, nothing fails, pictures are there, nothing sticks out."
    names = [p.relative_to(site).with_suffix("").as_posix() for p in pages] if LONG else SAMPLE
    wrong = {}
    for name in names:
        go(tab, name)
        found = list(tab.trouble)
        if not tab.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 || i.loading === 'lazy')"): found.append("a picture is not there")
        if (wide := tab.evaluate("document.documentElement.scrollWidth - innerWidth")) > 1: found.append(f"{wide} pixels wider than the screen")
        if tab.locator("h1").count() != 1: found.append(f"{tab.locator('h1').count()} titles")
        if not tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--bs-body-color') && /sans-serif/.test(getComputedStyle(document.body).fontFamily)"): found.append("no style")
        if found: wrong[name] = found
    assert wrong == {}


def test_navigation_and_search(tab):
    go(tab, "05_overview")
    if tab.device == "desktop":
        tab.locator("#quarto-sidebar a", has_text="Figures to touch").first.click()
        tab.wait_for_url("**/07_touch.html")
        tab.go_back()
    tab.locator(".page-navigation .nav-page-next a").click()
    tab.wait_for_url("**/06_parts.html")
    assert tab.trouble == []
    search(tab, "great-circle")


def search(tab, words):
    "Search as a reader does; the first result leads to a page"
    if tab.device == "phone": tab.locator(".quarto-btn-toggle:visible").first.click()  # the list of chapters, and the search in it
    else: tab.keyboard.press("/")
    field = tab.locator("input[type=search]:visible").first
    field.fill(words)
    result = tab.locator("a[href*='.html']:visible", has_text=re.compile("circle", re.I)).first
    result.wait_for()
    result.click()
    until(tab, "!location.pathname.endsWith('06_parts.html')")
    assert tab.trouble == []


def test_a_figure_answers(tab):
    "Under the mouse a point tells its numbers; the menu changes the bars"
    go(tab, "07_touch")
    point = tab.locator(".js-plotly-plot .scatterlayer .point").first
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    until(tab, "[...document.querySelectorAll('.hoverlayer .hovertext')].some(t => /tracks/.test(t.textContent))")
    menu, bars = tab.locator(".js-plotly-plot:has(.updatemenu-header)").first, "document.querySelector('.js-plotly-plot:has(.updatemenu-header) .barlayer .point path').getAttribute('d')"
    before = tab.evaluate(bars)
    menu.locator(".updatemenu-header").first.click(force=True)
    menu.locator(".updatemenu-dropdown-button").nth(2).click(force=True)
    until(tab, f"{bars} != {before!r}")
    assert tab.trouble == []


def test_dark(chromium, address):
    "Where the reader's machine is dark, text and list of chapters are light on dark"
    context = chromium.new_context(color_scheme="dark")
    tab = context.new_page()
    tab.goto(f"{address}05_overview.html")
    for place in ("body", "#quarto-sidebar", ".sidebar-title a"):
        ground, text = (sum(map(int, re.findall(r"\d+", tab.evaluate(f"getComputedStyle(document.querySelector('{place}')).{key}"))[:3])) for key in ("backgroundColor", "color"))
        assert ground < 200 and text > 400, f"{place}: {text} on {ground}"
    context.close()


def test_the_workflow_pins_its_actions_and_publishes_what_quarto_made():
    text = (ROOT / ".github" / "workflows" / "site.yml").read_text(encoding="utf-8")
    flow = yaml.safe_load(text)
    steps = [s for job in flow["jobs"].values() for s in job["steps"]]
    assert flow["permissions"] == dict(contents="read") and set(flow["jobs"]["publish"]["permissions"]) == {"pages", "id-token"} and "permissions" not in flow["jobs"]["build"]
    assert all(re.search(r"@[0-9a-f]{40}$", s["uses"]) for s in steps if "uses" in s)
    assert [s["run"] for s in steps if "run" in s][1:] == ["geomusic site --sources _proc", "quarto render _proc --no-execute"] and next(s["with"]["path"] for s in steps if "upload-pages" in s.get("uses", "")) == f"_proc/{CONFIG['project']['output-dir']}"
