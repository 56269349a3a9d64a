"Every explorer on runs it was not made for, one track, one country, no sound, lost sound: it says so in its place and its controls go on working."
from dataclasses import replace
from functools import lru_cache
from importlib import import_module

import ipywidgets as w
import numpy as np
import pytest

from geomusic.exploring.opened import demo_run, open_run

MODELS = dict(attention="attention", relevance="cnn", importance="fcnn", whatif="fcnn", embeddings="fcnn", world="fcnn")


@lru_cache
def opened(model): return open_run(*demo_run(model))


def part(o, keep, **columns):
    "Only some of its tracks, with other columns"
    return replace(o, rows=o.rows[keep], proba=o.proba[keep], table=o.table[keep].reset_index(drop=True).assign(**columns), cache={})


def explore(name, o): return getattr(import_module(f"geomusic.exploring.{name}"), f"explore_{name}")(o)


def inside(widget):
    "The widget and all that it holds"
    yield widget
    for child in getattr(widget, "children", ()): yield from inside(child)


def said(box):
    "All words that the explorer shows"
    words = []
    for x in inside(box):
        if isinstance(x, w.HTML): words.append(x.value)
        if isinstance(x, w.Output): words += [str(o.get("data", {}).get("text/html", "")) for o in x.outputs]
        if hasattr(x, "told"): words += [x.told.get("words", ""), x.told.get("problem", "")]
        if hasattr(x, "layout") and hasattr(x.layout, "annotations"): words += [a.text for a in x.layout.annotations]
    return " ".join(words)


def use(box):
    "The second and the last value of every menu, list and slider, one after the other"
    for x in [x for x in inside(box) if isinstance(x, (w.Dropdown, w.Select, w.SelectionSlider, w.FloatSlider, w.ToggleButtons))]:
        values = [x.min, x.max] if isinstance(x, w.FloatSlider) else [o[1] if isinstance(o, tuple) else o for o in x.options]
        for v in values[1:2] + values[-1:]:
            if isinstance(x, w.FloatSlider) or v in [o[1] if isinstance(o, tuple) else o for o in x.options]: x.value = v


@pytest.mark.parametrize("name", MODELS)
def test_one_track(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMUSIC_CACHE", str(tmp_path))
    box = explore(name, part(opened(MODELS[name]), np.arange(len(opened(MODELS[name]))) == 5))
    use(box)
    told = dict(embeddings="1 tracks are too few for", world="1 answers")
    if name == "embeddings": box.atlas.picture.value = ("tsne", 2)
    if name == "world": box.globe.level.value = 0
    assert told.get(name, opened(MODELS[name]).table.title[5] if name in ("attention", "relevance") else "") in said(box) and said(box)


@pytest.mark.parametrize("name", MODELS)
def test_one_country(name, tmp_path, monkeypatch):
    monkeypatch.setenv("GEOMUSIC_CACHE", str(tmp_path))
    o = opened(MODELS[name])
    box = explore(name, part(o, (o.table.country == "DEU").to_numpy()))
    use(box)
    assert said(box) and "Traceback" not in said(box)
    if name == "world": assert [v for _, v in box.globe.country.options] == ["", "DEU"]


@pytest.mark.parametrize("audio, why", [("", "has no sound"), ("audio/gone.flac", "gone.flac does not exist")])
@pytest.mark.parametrize("name", ["attention", "relevance", "embeddings", "world"])
def test_without_sound(name, audio, why, tmp_path, monkeypatch):
    "The reason stands there, and the next track has one as well"
    monkeypatch.setenv("GEOMUSIC_CACHE", str(tmp_path))
    o = opened(MODELS[name])
    box = explore(name, part(o, np.arange(len(o)) < 8, audio=audio))
    if name == "embeddings": box.atlas.search.value = box.atlas.opened.table.title[0][:4]
    tracks = box.menus[3] if hasattr(box, "menus") else (box.atlas if name == "embeddings" else box.globe).tracks
    for _, track in list(tracks.options)[:2]:
        tracks.value = track
        assert why in said(box)


WRONG = dict(attention=("fcnn", "no attention"), relevance=("rnn", "no relevance on a spectrogram"), importance=("rnn", "not a table"), whatif=("rnn", "not a table"))


@pytest.mark.parametrize("name", WRONG)
def test_a_model_of_another_kind(name):
    model, why = WRONG[name]
    box = explore(name, opened(model))
    assert why in said(box)
    use(box)
    assert why in said(box), "and after every change"


def test_nothing_to_put_on_a_map(tmp_path, monkeypatch):
    "NaN in every embedding, and a country without a place"
    monkeypatch.setenv("GEOMUSIC_CACHE", str(tmp_path))
    o = part(opened("fcnn"), np.arange(39) < 9)
    o.cache["embeddings"] = np.full((9, 4), np.nan, np.float32)
    box = explore("embeddings", o)
    use(box)
    assert "9 tracks have no place" in said(box)
    some = part(opened("fcnn"), np.arange(39) < 9)
    some.cache["embeddings"] = np.where(np.arange(9)[:, None] < 2, np.nan, np.random.default_rng(0).normal(size=(9, 4))).astype(np.float32)
    box = explore("embeddings", some)
    box.atlas.picture.value = ("tsne", 2)  # perplexity 30 of seven tracks
    assert "2 tracks have no place" in said(box) and "perplexity 30 does not fit 7 tracks: 2" in said(box)
