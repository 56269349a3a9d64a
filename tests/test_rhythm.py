"""Tempo, metre and pulse clarity of sounds whose rhythm is known, and of sounds that have none."""
import zlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from geomusic.files import InputError
from geomusic.notation import REST, parse_abc, split_tunebook
from geomusic.sound.analysis import Analysis
from geomusic.sound.frontend import spectra
from geomusic.sound.rhythm import (AS_PLAYED, BIAS, FASTEST_BPM, METRES, NO_PULSE, RATIOS, SLOWEST_BPM, TEMPLATES, autocorrelation, beats_of, perform, pulse_clarity,
                                   rhythm, rhythm_curves, tempo_hits)
from geomusic.synth import SR, key_shift
from geomusic.tunes import tunes_folder

A = Analysis()
RESULTS = pd.read_csv(Path(__file__).parents[1] / "nbs" / "results" / "rhythm.csv")


def heard(y, a=A):
    return rhythm(spectra(np.asarray(y, np.float32), a, ("mel_power",))["mel_power"], a)


def clicks(bpm, accents=(1,), dur_s=30.0, sr=SR, offset_s=0.1):
    "Bursts of noise, as loud as `accents` say"
    y, n = np.zeros(int(dur_s * sr)), int(0.018 * sr)
    burst = np.random.default_rng(0).standard_normal(n) * np.exp(-np.arange(n) / (0.0045 * sr))
    for i, s in enumerate(np.arange(offset_s, dur_s - 0.05, 60 / bpm)):
        k = int(s * sr)
        y[k:k + n] += accents[i % len(accents)] * burst[:len(y) - k]
    return y


def octaves_off(tempo, bpm):
    "Distance from the nearest power of two, as a ratio"
    off = np.log2(tempo / bpm)
    return 2 ** abs(off - round(off)) - 1


@pytest.mark.parametrize("bpm", [40, 47, 56, 66, 78, 92, 108, 127, 150, 177, 200, 220])
def test_clicks_are_counted(bpm):
    found = heard(clicks(bpm))
    assert tempo_hits(found["tempo"], bpm, within=0.01)[1]  # of clicks every 1.5 s it may say that they are the first of bars of three
    assert SLOWEST_BPM <= found["tempo"] <= FASTEST_BPM and found["pulse_clarity"] > 0.9
    if 75 <= bpm <= 150:
        assert abs(found["tempo"] / bpm - 1) < 0.01


@pytest.mark.parametrize("bpm", [70, 85, 100, 120, 140])
@pytest.mark.parametrize("accents, n", [((1, 0.5, 0.5), 3), ((1, 0.4, 0.6, 0.4), 4), ((1, 0.5), 4)])
def test_accents_make_bars(bpm, accents, n):
    found = heard(clicks(bpm, accents))
    assert found["time_signature"] == n and octaves_off(found["tempo"], bpm) < 0.01


def test_a_jig_is_duple_and_counted_in_dotted_quarters():
    tune = np.tile([72, 74, 76, 77, 76, 74], 8), np.full(48, 0.5)
    found = heard(perform(*tune, "6/8", 110, bar_db=4, beat_db=3))
    assert found["time_signature"] == 4 and abs(found["tempo"] / 110 - 1) < 0.02


@pytest.mark.parametrize("gain", [1e-4, 0.03, 30.0])
def test_level_does_not_matter(gain):
    y = clicks(104, (1, 0.4, 0.6, 0.4)) + 0.01 * np.random.default_rng(1).standard_normal(30 * SR)
    loud, other = heard(y), heard(gain * y)
    assert other["tempo"] == pytest.approx(loud["tempo"], rel=1e-3) and other["time_signature"] == loud["time_signature"]
    assert other["pulse_clarity"] == pytest.approx(loud["pulse_clarity"], abs=0.01)


def read_tune(track_id):
    folder, file, number = track_id.split("/")
    return parse_abc(split_tunebook((tunes_folder() / folder / f"{file}.abc").read_text(encoding="utf-8", errors="replace"))[int(number) - 1])


@pytest.fixture(scope="module")
def tunes():
    rows = RESULTS[(RESULTS.way == "played") & RESULTS.tempo_bpm.between(80, 130) & (RESULTS.pulse_clarity > 0.2)].sample(12, random_state=3)
    read = [read_tune(i) for i in rows.track_id]
    return rows.assign(midi=[t.midi for t in read], dur_ql=[t.dur_ql for t in read])


def played(row, stretch=1.0, semitones=0, **how):
    midi = np.where(row.midi == REST, REST, row.midi + key_shift(row.track_id, row.midi) + semitones)
    return perform(midi, row.dur_ql, row.metre, row.tempo_bpm * stretch, row.upbeat_ql, seed=zlib.crc32(row.track_id.encode()), **how)


def test_the_results_file_is_what_the_code_says(tunes):
    new = [heard(played(row, **AS_PLAYED)) for row in tunes.itertuples()]
    tempo = np.array([n["tempo"] for n in new])
    assert (np.abs(tempo / tunes.tempo - 1) < 0.005).sum() >= 11
    assert (np.array([n["time_signature"] for n in new]) == tunes.time_signature).sum() >= 11
    assert tempo_hits(tempo, tunes.tempo_bpm)[1].sum() >= 11


def test_stretching_time_scales_tempo(tunes):
    for row in tunes[:4].itertuples():
        slow, fast = (heard(played(row, stretch, **AS_PLAYED))["tempo"] for stretch in (1, 1.15))
        assert tempo_hits(fast / slow, 1.15, within=0.02)[1]


def test_key_does_not_matter(tunes):
    row = next(tunes.itertuples())
    low, high = heard(played(row)), heard(played(row, semitones=4))
    assert octaves_off(high["tempo"], low["tempo"]) < 0.01


def test_another_analysis_hears_the_same():
    for a in (Analysis(sr=16000, n_fft=1024, hop_length=256, n_mels=64), Analysis(sr=44100, hop_length=1024, n_fft=4096)):
        found = heard(clicks(96, (1, 0.5, 0.5), sr=a.sr), a)
        assert found["time_signature"] == 3 and found["tempo"] == pytest.approx(96, rel=0.01)


@pytest.mark.parametrize("dur_s", [4, 6, 10, 60])
def test_shorter_and_longer_sounds(dur_s):
    found = heard(clicks(120, dur_s=dur_s))
    assert octaves_off(found["tempo"], 120) < 0.02 and found["pulse_clarity"] > 0.8


def nothing_to_tap_to():
    t, rng = np.arange(30 * SR) / SR, np.random.default_rng(0)
    return dict(
        silence=0 * t, hiss=rng.standard_normal(len(t)), rumble=np.cumsum(rng.standard_normal(len(t))) * 1e-3, drone=np.sin(2 * np.pi * 220 * t),
        chord=sum(np.sin(2 * np.pi * hz * t) for hz in (220, 277.18, 329.63)), fade=np.sin(2 * np.pi * 330 * t) * np.exp(-t / 8), click=clicks(2),
        empty=np.zeros(600), blip=np.r_[rng.standard_normal(400), np.zeros(2000)], short=clicks(240, dur_s=0.4), constant=np.full(5 * SR, 0.3))


@pytest.mark.parametrize("name, y", nothing_to_tap_to().items())
def test_without_a_pulse_the_answer_is_written_down(name, y):
    assert heard(y) == NO_PULSE


def test_irregular_clicks_are_unclear():
    rng, y = np.random.default_rng(2), np.zeros(30 * SR)
    for s in np.cumsum(rng.exponential(0.4, 70)):
        if s < 29:
            y[int(s * SR):int(s * SR) + 300] += rng.standard_normal(300)
    assert heard(y)["pulse_clarity"] < 0.25


def test_clarity_falls_with_unevenness():
    rng, clear = np.random.default_rng(0), []
    for uneven_s in (0, 0.02, 0.05, 0.12):
        y = np.zeros(30 * SR)
        for s in np.arange(0.2, 29.5, 0.5):
            k = int((s + uneven_s * np.clip(rng.standard_normal(), -2, 2)) * SR)
            y[max(k, 0):max(k, 0) + 200] += rng.standard_normal(200)
        clear.append(heard(y)["pulse_clarity"])
    assert clear == sorted(clear, reverse=True) and clear[0] > 0.9 and clear[-1] < 0.4


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.float32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=140), elements=st.floats(0, 1e6, width=32)))
def test_any_power_has_an_answer(power):
    before = power.copy()
    found = rhythm(power, A)
    assert set(found) == {"tempo", "time_signature", "pulse_clarity"} and all(np.isfinite(v) for v in found.values())
    assert SLOWEST_BPM <= found["tempo"] <= FASTEST_BPM and found["time_signature"] in (3, 4) and 0 <= found["pulse_clarity"] <= 1
    assert type(found["tempo"]) is float and type(found["time_signature"]) is int and (power == before).all()


@pytest.mark.parametrize("bad", [np.zeros(100), np.zeros((2, 128, 100)), np.full((128, 100), np.nan), np.full((128, 100), np.inf), -np.ones((128, 100))])
def test_what_is_no_power_is_refused(bad):
    with pytest.raises(InputError):
        rhythm(bad, A)


def test_curves_have_known_autocorrelations():
    t = np.arange(3000)
    r = autocorrelation(np.cos(2 * np.pi * t / 40), 43)
    assert r[40] == pytest.approx(1 - 40 / 3000, abs=0.01) and r[20] == pytest.approx(-(1 - 20 / 3000), abs=0.01)
    assert autocorrelation(np.zeros(50), 43).tolist() == [0] * 50
    onset, level, _ = rhythm_curves(np.ones((8, 300)), A)
    assert not onset.any() and np.allclose(level, 1) and pulse_clarity(onset, level, 43) == 0


def test_beats():
    assert [beats_of(m) for m in ("2/4", "C", "C|", "6/8", "9/8", "12/8", "3/8", "6/4")] == [(2, 1), (4, 1), (2, 2), (2, 1.5), (3, 1.5), (4, 1.5), (3, 0.5), (2, 3)]
    for bad in ("", "none", "4", "0/4", "4/0", "three"):
        with pytest.raises(InputError):
            beats_of(bad)


def test_performing_keeps_time_and_stays_in_range():
    midi, dur_ql = np.array([72, REST, 76, 77, 79]), np.array([1, 1, 0.5, 0.5, 1])
    y = perform(midi, dur_ql, "4/4", 120, total_s=8, **AS_PLAYED)
    assert y.dtype == np.float32 and len(y) == 8 * SR and 0.1 < np.abs(y).max() < 1
    plain = perform(midi, dur_ql, "4/4", 120, total_s=8)
    for beat, sounds in ((0.25, True), (0.75, False), (2.25, True), (2.75, False)):
        assert (np.abs(plain[int((beat - 0.05) * SR):int((beat + 0.05) * SR)]).max() > 0.01) == sounds


def test_templates_are_complete():
    assert TEMPLATES.shape == (3, len(METRES), len(RATIOS)) and BIAS.shape == (4,) and list(METRES.values()) == [4, 4, 3, 3]


def test_the_claims_of_the_chapter():
    heard_well = {}
    for way, t in RESULTS.groupby("way"):
        one, two = tempo_hits(t.tempo, t.tempo_bpm)
        heard_well[way] = one.mean(), two.mean(), (t.time_signature == t.truth).mean(), tempo_hits(t.librosa_tempo, t.tempo_bpm)[0].mean()
    assert RESULTS[RESULTS.way == "plain"].track_id.nunique() >= 500
    for way in ("plain", "played", "band", "hall"):
        one, two, metre, librosa_one = heard_well[way]
        assert one > librosa_one + 0.1 and two > 0.9 and metre > 0.9
