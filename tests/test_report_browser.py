"""The report in a real browser, with the network cut.

Needs Chromium (Debian: `apt install chromium`) and the Python package playwright; without them the tests are skipped and say so.
Set GEOMUSIC_SCREENSHOTS to a folder to keep pictures of what was seen.
"""
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from lab import chromium, until  # noqa: F401 - a fixture

from geomusic.corpus import Corpus, account
from geomusic.places import countries
from geomusic.report import write_report

TITLE = "A report <script>alert(1)</script>"
SR, DUR_S = 22050, 4.0
DEVICES = dict(desktop=dict(viewport=dict(width=1200, height=900)),
               phone=dict(viewport=dict(width=390, height=844), device_scale_factor=2, is_mobile=True, has_touch=True),
               dark=dict(viewport=dict(width=1200, height=900), color_scheme="dark"))


def example_report(path):
    "Made-up predictions for three countries and a scale that we play ourselves."
    said = dict(CHN=["CHN"] * 17 + ["DEU"] * 3, DEU=["DEU"] * 15 + ["IRL"] * 4 + ["CHN"], IRL=["IRL"] * 16 + ["DEU"] * 4)
    rows = [(c, p) for c, ps in said.items() for p in ps]
    pred = pd.DataFrame(rows, columns=["country", "predicted"])
    pred["track_id"] = pred["group"] = [f"t{i}" for i in range(len(pred))]
    pred = pred.join(countries()[["lat_deg", "lon_deg"]], on="country")
    for c in said: pred[f"p_{c}"] = (pred.predicted == c).astype(float)
    tracks = pred[["track_id", "group", "country", "lat_deg", "lon_deg"]].assign(title="a scale", artist="", audio="", source="these tests", licence="public domain")
    board = pd.DataFrame(dict(accuracy=[0.8, 1 / 3], accuracy_lo=[0.68, 0.22], accuracy_hi=[0.88, 0.46], macro_f1=[0.8, 1 / 6],
                              km_mean=[1100.0, 5300.0], km_median=[0.0, 7400.0], top3=[1.0, np.nan], n_parameters=[550_000, np.nan],
                              kind=["ours", "baseline"]), index=["attention", "majority"])
    t = np.arange(int(SR * DUR_S)) / SR
    y = 0.3 * np.sin(2 * np.pi * 440 * 2 ** (np.floor(t * 2) / 12) * t)
    mel = np.random.default_rng(0).uniform(-80, 0, (128, 173))
    w = np.exp(-0.5 * ((np.arange(80) * 0.05 - 1) / 0.3) ** 2)
    attention = dict(track=tracks.iloc[0], y=y, sr=SR, weights=w / w.sum(), hop_s=0.05, melspec=mel, proba=dict(CHN=0.7, DEU=0.2, IRL=0.1))
    return write_report(path, TITLE, Corpus(tracks, account(pd.Series([""] * 60 + ["too short"] * 7))), board,
                        dict(attention=pred, majority=pred.assign(predicted="CHN", p_CHN=1.0, p_DEU=0.0, p_IRL=0.0)), attention, notes=["All of this is made up."])


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    given = os.environ.get("GEOMUSIC_REPORT")  # look at another report with the same eyes
    return Path(given) if given else example_report(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(params=DEVICES)
def page(request, chromium, report):
    "The report, opened offline; whatever goes wrong is noted in `page.trouble`."
    context = chromium.new_context(offline=True, **DEVICES[request.param])
    page = context.new_page()
    page.device, page.trouble = request.param, []
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else page.trouble.append(f"asked for {r.url}"))
    page.on("requestfailed", lambda r: page.trouble.append(f"failed: {r.url[:100]}"))
    page.on("pageerror", lambda e: page.trouble.append(f"error: {e}"))
    page.on("console", lambda m: page.trouble.append(f"console: {m.text}") if m.type in ("error", "warning") else None)
    page.on("dialog", lambda d: (page.trouble.append(f"dialog: {d.message}"), d.dismiss()))
    page.goto(report.as_uri())
    page.wait_for_selector(".choroplethlayer path", state="attached")
    yield page
    context.close()


def test_report(page):
    "Nothing is asked for, nothing fails, the map is drawn, pictures are there, nothing sticks out, the cursor moves with the sound."
    assert page.locator("h1").inner_text() == TITLE or os.environ.get("GEOMUSIC_REPORT")
    assert page.locator(".choroplethlayer path").count() >= 170, "the outlines of the countries"
    assert page.locator(".scattergeo path.js-line").count() >= 1, "the arrows of the mistakes"
    assert page.evaluate("[...document.images].every(i => i.complete && i.naturalWidth > 0 && i.alt)")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth + 1"), "wider than the screen"
    if page.locator("figure.listen").count(): play(page)
    if folder := os.environ.get("GEOMUSIC_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/report_{page.device}.png", full_page=True)
    assert page.trouble == []


def play(page):
    "The cursor starts at the left of the axes, moves while the tune plays, and follows a tap on the picture."
    left = "parseFloat(document.querySelector('.cursor').style.left)"
    until(page, "document.querySelector('audio').readyState >= 2")
    data = page.evaluate("({...document.querySelector('figure.listen').dataset})")
    start, width, dur_s = 100 * float(data["left"]), 100 * float(data["width"]), float(data["dur"])
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(dur_s, abs=0.05)
    assert page.evaluate(left) == pytest.approx(start, abs=0.5)
    page.evaluate("document.querySelector('audio').play()")
    until(page, f"{left} > {start + 5}")
    page.evaluate("document.querySelector('audio').pause()")
    until(page, f"(t => t > 0 && Math.abs({left} - {start} - {width} * t / {dur_s}) < 1)(document.querySelector('audio').currentTime)")
    box = page.locator(".stage").bounding_box()
    page.locator(".stage").click(position=dict(x=box["width"] * (start + width / 2) / 100, y=box["height"] / 2))
    until(page, f"Math.abs(document.querySelector('audio').currentTime - {dur_s / 2}) < 0.1 && Math.abs({left} - {start + width / 2}) < 1")
