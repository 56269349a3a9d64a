"""Sliders over the numbers of a track: stops, profiles, turning points, and a figure that answers."""
import numpy as np
import pandas as pd
import pytest

from geomusic.exploring import whatif
from geomusic.exploring.importance import TableModel
from geomusic.files import InputError


def predict(x):
    "The log of the odds of IRL is tempo/30 - 4 + mode; the key is not looked at."
    p = 1 / (1 + np.exp(-(np.asarray(x)[:, 0] / 30 - 4 + np.asarray(x)[:, 1])))
    return np.stack([1 - p, p], 1)


def table(n=12, background=30, seed=0):
    rng = np.random.default_rng(seed)
    x = np.c_[rng.uniform(60, 180, n + background), rng.integers(0, 2, n + background), rng.integers(0, 12, n + background)].astype(float)
    tracks = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], title=["<i>air</i>"] * n, country=np.array(["CHN", "IRL"])[predict(x[:n]).argmax(1)], group="g"))
    return TableModel(predict, x[:n], x[n:], tracks, ["tempo", "mode", "key"], ["CHN", "IRL"])


@pytest.fixture(scope="module")
def model():
    return table()


def test_stops_hold_the_track_and_codes_stay_codes(model):
    stops = whatif.slider_values(model, 4)
    assert model.x[4, 0] in stops["tempo"] and len(stops["tempo"]) in (41, 42)
    assert set(stops["mode"]) <= {0, 1} and set(stops["key"]) <= set(range(12))
    with pytest.raises(InputError, match="no track 99"):
        whatif.slider_values(model, 99)


def test_profiles_are_the_model(model):
    p = whatif.profiles(model, 2)
    for i, (v, answers) in enumerate(p.values()):
        x = np.repeat(model.x[2:3], len(v), 0)
        x[:, i] = v
        assert np.allclose(answers, predict(x))
    assert (np.diff(p["tempo"][1][:, 1]) > 0).all() and np.ptp(p["key"][1], 0).max() == 0


def test_turning_points_turn(model):
    for row in range(len(model)):
        points = whatif.turning_points(model, row)
        assert "key" not in set(points.descriptor) and points.share.is_monotonic_increasing
        for r in points.itertuples():
            x = model.x[row].copy()
            x[model.names.index(r.descriptor)] = r.becomes
            assert model.labels[predict(x[None])[0].argmax()] == r.country != model.labels[predict(model.x[[row]])[0].argmax()]


def test_what_never_was_is_unusual(model):
    assert whatif.how_usual(model, model.x[0]) == 1
    assert whatif.how_usual(model, [900, 0, 3]) == 0
    assert 0 < whatif.how_usual(model, model.x[0] + [.5, 0, 0]) <= 1
    tiny = table(n=1, background=1)
    assert whatif.how_usual(tiny, [900, 0, 3]) == 1, "two tracks say nothing about what is usual"


def test_figures(model):
    fig = whatif.profile_plot(model, 3)
    assert [b.label for b in fig.layout.updatemenus[0].buttons][0] in ("tempo", "mode") and "air" in fig.layout.meta["alt"]
    assert len({t.line.dash for t in fig.data}) == len(fig.data) == 2
    whatif.profile_figure(model, 3).canvas.draw()
    before, after = np.array([.7, .3]), np.array([.2, .8])
    fig = whatif.answer_plot(before, after, model.labels)
    assert list(fig.data[0].y) == ["Ireland", "China"] and list(fig.data[0].x) == [.8, .2] and list(fig.data[1].x) == [.3, .7]
    assert fig.data[2].text[0] == "0.80 (+0.50)" and list(fig.data[2].x) == [.83, .73] and "instead of China" in fig.layout.meta["alt"]
    whatif.answer_figure(before, after, model.labels).canvas.draw()
    with pytest.raises(InputError, match="2 countries"):
        whatif.answer_plot([1.], [1.], model.labels)
    assert len(whatif.answer_plot(np.full(200, .005), np.full(200, .005), [f"c{i}" for i in range(200)]).data[0].x) == 10


def test_sliders_answer(model):
    box = whatif.explore_whatif(model, "t5")
    assert box.menus[0].value == 5 and list(box.sliders) == model.names
    start = dict(zip(box.fig.data[0].y, box.fig.data[0].x))
    assert start["Ireland"] == pytest.approx(predict(model.x[[5]])[0, 1], abs=1e-3)
    fast = box.sliders["tempo"].options[-1][1]
    box.sliders["tempo"].value = fast
    x = model.x[5].copy()
    x[0] = fast
    now = dict(zip(box.fig.data[0].y, box.fig.data[0].x))
    assert now["Ireland"] == pytest.approx(predict(x[None])[0, 1], abs=1e-3) and now["Ireland"] > start["Ireland"]
    assert dict(zip(box.fig.data[1].y, box.fig.data[1].x)) == start, "the diamonds stay"
    assert all(f"{now[y]:.2f} (" in text for y, text in zip(box.fig.data[2].y, box.fig.data[2].text)), "the words follow the bars"
    box.reset.click()
    assert dict(zip(box.fig.data[0].y, box.fig.data[0].x)) == start and box.sliders["tempo"].value == model.x[5, 0]


def test_another_track_brings_its_own_sliders(model):
    box = whatif.explore_whatif(model, "t5")
    old = box.sliders["tempo"]
    box.menus[0].value = 1
    assert box.sliders["tempo"].value == model.x[1, 0] and len(box.fig.data) == 3
    shown = list(box.fig.data[0].x)
    old.value = old.options[0][1]
    assert list(box.fig.data[0].x) == shown, "sliders that are gone change nothing"


def test_in_place_when_it_cannot_be_asked(model):
    assert "unknown track" in whatif.explore_whatif(model, "nobody").value
    lone = table(n=1, background=3)
    box = whatif.explore_whatif(lone)
    box.sliders["tempo"].value = box.sliders["tempo"].options[0][1]
    assert "with" in box.words.value


def test_bars_come_from_real_runs():
    from geomusic.exploring.opened import demo_run, open_run
    opened = open_run(*demo_run("fcnn"))
    box = whatif.explore_whatif(opened, opened.table.track_id[3])
    assert dict(zip(box.model.labels, box.before)) == pytest.approx(dict(zip(opened.labels, opened.proba[3])), abs=1e-3)
    assert len(box.sliders) == 13
    assert "not a table" in whatif.explore_whatif(open_run(*demo_run("attention"), limit=2)).value
