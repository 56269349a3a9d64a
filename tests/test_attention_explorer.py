"Attention seen and heard: curves whose mass stays, peaks by hand, averages with a planted pattern, menus that answer, and whatever a model or a corpus may lack."
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomusic.corpus import Corpus
from geomusic.exploring import attention as chapter
from geomusic.exploring.attention import (Heard, HeardPage, attended, attention_agreement, attention_by_bar, attention_profile, deletion_test, explore_attention,
                                          heard_figure, heard_plot, heard_words, peaks)
from geomusic.exploring.opened import demo_run, open_run
from geomusic.files import InputError
from geomusic.learning.ensemble import make_ensemble


@pytest.fixture(scope="module")
def opened():
    return open_run(*demo_run("attention"))


def heard(**more):
    "A track made by hand: three seconds, a peak in the middle"
    curve = np.exp(-0.5 * ((np.arange(60) - 30) / 4) ** 2)
    known = dict(title="A tune", country="IRL", proba=pd.Series(dict(IRL=0.7, DEU=0.2, CHN=0.1)), curve=curve / curve.mean(), step_s=0.05, what="attention",
                 picture=np.random.default_rng(0).random((12, 60)), hop_s=0.05)
    return Heard(**(known | more))


def without_sound(opened, audio=""):
    return replace(opened, table=opened.table.assign(audio=audio), cache={})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=80), st.integers(1, 30))
def test_rebinning_keeps_the_mean(curve, bins):
    out = chapter._rebinned(np.array(curve), bins)
    assert out.shape == (bins,) and out.mean() == pytest.approx(np.mean(curve), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 10), min_size=1, max_size=80), st.integers(1, 5), st.sampled_from([0.1, 0.5, 2.0]))
def test_peaks_are_high_and_apart(curve, most, apart_s):
    found = peaks(np.array(curve), 0.1, most, apart_s)
    assert len(found) <= most and all(curve[round(t / 0.1)] > np.mean(curve) for t in found)
    assert all(abs(a - b) >= apart_s - 1e-9 for i, a in enumerate(found) for b in found[:i])
    if np.ptp(curve) > 1e-5: assert curve[round(found[0] / 0.1)] == max(curve)


def test_curves_are_the_attention_of_the_run(opened):
    for i in (0, len(opened) - 1):
        h, row = attended(opened, opened.table.track_id[i]), opened.rows[i]
        n = opened.view.n_frames[row]
        np.testing.assert_allclose(h.curve, opened.run.attention(opened.view.x[row : row + 1], [n])[0, :n] * n, atol=1e-4)
        assert h.proba.index[0] == opened.table.predicted[i] and h.country == opened.table.country[i] and h.dur_s == pytest.approx(len(h.y) / h.sr, abs=0.1)
    with pytest.raises(InputError, match="none of these"): attended(opened, "nobody")


def test_models_without_attention_say_so(opened):
    for model in ("cnn", "rnn", "fcnn"):
        other = open_run(*demo_run(model))
        for ask in (lambda: attended(other, other.table.track_id[0]), lambda: attention_profile(other), lambda: deletion_test(other)):
            with pytest.raises(InputError, match="no attention"): ask()
    ens = open_run(make_ensemble([demo_run("attention")[0], demo_run("rnn")[0]]), opened.corpus)
    with pytest.raises(InputError, match="ensemble has no attention"): attended(ens, ens.table.track_id[0])


@pytest.mark.parametrize("audio, why", [("", "has no sound"), ("audio/gone.flac", "does not exist")])
def test_a_track_without_sound_is_drawn_from_what_the_model_saw(opened, audio, why):
    h = attended(without_sound(opened, audio), opened.table.track_id[0])
    assert h.y is None and why in h.problem and h.picture.shape == (12, len(h.curve))
    page = HeardPage(h)._repr_html_()
    assert why in page and "data:audio" not in page and "data:image/png" in page
    heard_plot(h)


def test_words_say_what_the_picture_shows():
    words = heard_words(heard())
    assert "says Ireland with 70%" in words and "it is from Ireland" in words and "highest at 1.5 s" in words
    assert "is even" in heard_words(heard(curve=np.ones(60)))
    assert "says Celtic" in heard_words(heard(proba=pd.Series(dict(Celtic=0.9, Other=0.1)), country="Celtic"))  # labels need not be countries


def test_the_picture_marks_the_truth_by_more_than_colour():
    fig, plot = heard_figure(heard()), heard_plot(heard())
    assert any(t.get_text() == "★ Ireland" for ax in fig.axes for t in ax.get_yticklabels())
    bars = next(t for t in plot.data if t.type == "bar")
    assert list(bars.marker.pattern.shape) == ["", "", "/"] and bars.y[-1] == "★ Ireland" and list(bars.x) == [0.1, 0.2, 0.7]
    line = next(t for t in plot.data if t.type == "scatter")
    assert line.x[np.argmax(line.y)] == pytest.approx(1.525, abs=0.01)


def test_figures_are_decimated():
    n = 36_000  # half an hour
    long = heard(curve=np.random.default_rng(0).random(n), picture=np.random.default_rng(0).random((128, 3 * n)), hop_s=0.05 / 3, hz=np.linspace(20, 10_000, 128))
    assert len(heard_plot(long).to_json()) < 300_000


def test_odd_tracks_can_be_drawn():
    one = heard(curve=np.ones(1), picture=np.zeros((12, 1)), proba=pd.Series(dict(IRL=1.0)), title="")
    heard_figure(one, heard())
    assert len(heard_plot(one, heard()).data) == 6
    masked = heard(mask=np.eye(12, 60))
    assert heard_plot(masked).data[0].z.max() <= 100 and HeardPage(masked).told["peaks"]
    assert "</script>" not in HeardPage(heard(title="</script><b>x"))._repr_html_().split("<script>")[1][:-9]


def test_agreement(opened):
    assert attention_agreement(opened, opened).min() > 0.999
    turned = replace(opened, cache=dict(curves=[-c for c in chapter._curves(opened)]))
    assert attention_agreement(opened, turned).max() < -0.999
    few = open_run(*demo_run("attention"), "train", limit=3)
    with pytest.raises(InputError, match="no track in common"): attention_agreement(opened, few)


def test_a_planted_ending_is_found(opened):
    planted = replace(opened, cache=dict(curves=[np.where(np.arange(len(c)) >= 0.9 * len(c), 10.0, 0.0) for c in chapter._curves(opened)]))
    p = attention_profile(planted, bins=10)
    assert p["mean"].iloc[-1] == pytest.approx(10) and p["mean"].iloc[:-1].max() < 1e-9 and (p.lo <= p["mean"] + 1e-9).all()
    irish = attention_profile(opened, "IRL")
    assert not np.allclose(irish, attention_profile(opened)) and irish["mean"].mean() == pytest.approx(1, abs=1e-4)
    with pytest.raises(InputError, match="no track is from KEN"): attention_profile(opened, "KEN")


def test_a_planted_downbeat_is_found_and_none_where_there_is_none(opened):
    tracks, rate = opened.corpus.tracks.iloc[opened.rows], opened.corpus.report["note_rate"]
    phases = [chapter._phases(t, len(c), opened.analysis.seq_hop_s, rate) for (_, t), c in zip(tracks.iterrows(), chapter._curves(opened))]
    downbeats = replace(opened, cache=dict(curves=[np.ones(120) if p is None else 1.0 + (p < 0.125) for p in phases]))
    found = attention_by_bar(downbeats)
    assert found.attrs["p"] < 0.02 and found["mean"].idxmax() == found.index[0] and found["mean"].iloc[0] > found.hi.iloc[0]
    rng = np.random.default_rng(1)
    chance = [attention_by_bar(replace(opened, cache=dict(curves=[np.roll(c, rng.integers(120)) for c in chapter._curves(opened)])), turns=60, seed=s).attrs["p"] for s in range(12)]
    assert np.mean(np.array(chance) < 0.1) < 0.5 and max(chance) > 0.2  # p is no constant and not always small
    bare = replace(opened, corpus=Corpus(opened.corpus.tracks, {}, opened.corpus.folder))
    with pytest.raises(InputError, match="beats .* not known"): attention_by_bar(bare)


def test_positions_in_the_bar_by_hand():
    track = pd.Series(dict(metre="3/4", midi=np.array([60, 62, 64, 65]), dur_ql=np.array([1.0, 1.0, 1.0, 3.0])))  # 6 quarters in half a second at 8 notes a second
    phase = chapter._phases(track, 5, 1 / 24, 8)
    np.testing.assert_allclose(phase, [0, 1 / 6, 1 / 3, 1 / 2, 2 / 3], atol=1e-9)
    assert chapter._phases(pd.Series(dict(track) | dict(metre="none")), 5, 0.05, 8) is None


def test_deletion(opened):
    lost = deletion_test(opened, draws=2)
    assert list(lost) == ["attended", "random"] and len(lost) == len(opened) and lost.abs().max(axis=None) <= 1
    pd.testing.assert_frame_equal(lost, deletion_test(opened, draws=2))
    with pytest.raises(InputError, match="share of 1"): deletion_test(opened, 1)


def test_menus_change_the_figure(opened):
    box = explore_attention(opened, again=opened)
    text, country, order, track, run, other = box.menus
    assert track.value == opened.find().track_id.iloc[0] and len(box.heards) == 1 and box.players[0].sound[:4] == b"OggS"
    for value in [v for _, v in track.options][:3]:
        track.value = value
        assert box.players[0].told["words"] == heard_words(attended(opened, value)) and box.heards[0].title in box.players[0].told["words"]
    country.value = "CHN"
    assert set(opened.table.set_index("track_id").country[[v for _, v in track.options]]) == {"CHN"} and box.heards[0].country == "CHN"
    second = track.options[1][1]
    other.value = f"track:{second}"
    assert [h.title for h in box.heards] == [attended(opened, t).title for t in (track.value, second)] and len(box.children[-1].children) == 2
    other.value = "run:again"
    assert len(box.heards) == 2 and (box.heards[0].curve == box.heards[1].curve).all()
    text.value = "zzzzzz"
    assert "no track is chosen" in box.message.value and box.heards == []
    text.value = ""
    assert box.message.value == "" and len(box.heards) == 2  # usable again, the comparison is kept


def test_the_explorer_says_what_is_missing_and_stays_usable(opened):
    cnn = explore_attention(open_run(*demo_run("cnn")), ours=opened)
    assert "no attention" in cnn.message.value and 'role="status"' in cnn.message.value
    cnn.menus[4].value = "ours"
    assert cnn.message.value == "" and len(cnn.heards) == 1
    mute = explore_attention(without_sound(opened))
    assert mute.message.value == "" and mute.players[0].sound == b"" and "has no sound" in mute.players[0].told["problem"]
    alone = explore_attention(open_run(*demo_run("attention"), limit=1))
    assert len(alone.menus[3].options) == 1 and len(alone.heards) == 1


def test_the_widget_speaks_the_same_script_as_the_page():
    player = chapter._player()()
    assert chapter._WIRE in player._esm and not re.search(r"https?://", player._esm + chapter._CSS)
