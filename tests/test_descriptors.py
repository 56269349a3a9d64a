"""The thirteen descriptors: bounded and finite for any sound, right where the answer is known, deaf to what must not matter; and the chapter's figures."""
import io
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomusic.files import InputError
from geomusic.notation import REST
from geomusic.sound import listen
from geomusic.sound.analysis import Analysis
from geomusic.sound.descriptors import DESCRIPTORS, FORMULAS, LUFS_RANGE, NEEDED, descriptors, k_weighting, level, sound_cues, why
from geomusic.sound.frontend import spectra

SR = 22050
A = Analysis(dur_s=6.0)
BOUNDS = {n: (0, 1) for n in FORMULAS} | dict(key=(0, 11), mode=(0, 1), loudness=LUFS_RANGE, tempo=(1, 1000), time_signature=(2, 12), duration_ms=(0.01, 1e9))


def check(d):
    assert list(d) == DESCRIPTORS
    for name, (low, high) in BOUNDS.items():
        assert low <= d[name] <= high, (name, d[name])


def signal(kind, n, seed, sr=SR):
    rng, t = np.random.default_rng(seed), np.arange(n) / sr
    made = dict(noise=lambda: rng.standard_normal(n), sine=lambda: np.sin(2 * np.pi * rng.uniform(20, sr / 2) * t), silence=lambda: np.zeros(n), constant=lambda: np.ones(n),
                square=lambda: np.sign(np.sin(2 * np.pi * rng.uniform(1, 500) * t)), click=lambda: np.eye(1, n, rng.integers(n))[0], sweep=lambda: np.sin(2 * np.pi * 40 * t * (1 + 20 * t)),
                clicks=lambda: (np.arange(n) % rng.integers(50, sr) == 0).astype(float), half=lambda: np.where(np.arange(n) < n // 2, rng.standard_normal(n), 0),
                last=lambda: np.eye(1, n, n - 1)[0], chord=lambda: sum(np.sin(2 * np.pi * f * t) for f in (220, 277, 330)))
    return made[kind]()


KINDS = "noise sine silence constant square click sweep clicks half last chord".split()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.integers(1, 2 * SR), st.floats(-30, 30), st.integers(0, 99), st.booleans())
def test_bounded_and_finite_for_any_sound(kind, n, exponent, seed, shared):
    y = (signal(kind, n, seed) * 10**exponent).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the front end's own overflow at 1e30
        given_spectra = spectra(y, A, NEEDED) if shared else None
    check(descriptors(y, A, given_spectra))


@pytest.mark.parametrize("a", [Analysis(sr=8000, n_fft=512, hop_length=128, n_mels=40), Analysis(sr=44100, n_fft=4096, hop_length=1024), Analysis(sr=4000, n_fft=256, hop_length=64, n_mels=3, n_mfcc=2, seq_hop_s=0.02)])
def test_any_analysis(a):
    for kind in KINDS:
        check(descriptors((0.3 * signal(kind, a.sr * 2, 1, a.sr)).astype(np.float32), a))


def test_without_warnings_on_plain_sounds():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for kind in KINDS:
            for n in (1, 700, SR // 5, 3 * SR):
                check(descriptors((0.3 * signal(kind, n, 0)).astype(np.float32), A))


@pytest.mark.parametrize("sr", [8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])
def test_loudness_of_the_standards_sine(sr):
    t = np.arange(10 * sr) / sr
    assert abs(level(np.sin(2 * np.pi * 997 * t), sr) + 3.01) < 0.01
    assert abs(level(0.1 * np.sin(2 * np.pi * 997 * t), sr) + 23.01) < 0.01


def test_loudness_hears_less_rumble_and_more_treble():
    t = np.arange(5 * 48000) / 48000
    at = {hz: level(np.sin(2 * np.pi * hz * t), 48000) for hz in (25, 100, 500, 997, 4000)}
    assert at[25] < at[100] < at[500] < at[997] < at[4000]
    assert abs(at[4000] - at[997] - 3.25) < 0.5  # the shelf is 4 dB above what it is below, 0.7 of it reached at 997 Hz


def test_gate_and_short_clips():
    t = np.arange(20 * SR) / SR
    y = np.sin(2 * np.pi * 997 * t)
    assert abs(level(np.where(t < 10, y, 0)) - level(y)) < 0.15  # silence does not count
    assert abs(level(y[: int(0.1 * SR)]) - level(y)) < 1  # shorter than a block
    assert level(np.zeros(10)) == level(np.zeros(SR)) == level(1e-9 * y) == -70
    assert np.isclose(level(0.5 * y) + 20 * np.log10(2), level(y))
    with pytest.raises(InputError, match="not defined"):
        k_weighting(3000)


@pytest.mark.parametrize("bad, says", [(np.zeros(0, np.float32), "shape"), (np.zeros((2, 9)), "shape"), (np.zeros(9, np.int16), "int16"), (np.array([0, np.inf]), "infinite"), (np.full(9, 1e300), "infinite")])
def test_what_is_no_sound(bad, says):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for call in (lambda: level(bad), lambda: descriptors(bad, A)):
            with pytest.raises(InputError, match=says):
                call()


@pytest.fixture(scope="module")
def tunes():
    "Two melodies, in D major and E minor."
    jig = np.array([74, 78, 81, 86, 81, 78, 79, 76, 78, 74, 73, 76, 74, 78, 81, 78, 79, 81, 78, 76, 74])
    air = np.array([76, 79, 83, 81, 79, 78, 76, 75, 76, 83, 84, 83, 81, 79, REST, 78, 76])
    return [SimpleNamespace(midi=m, dur_ql=np.resize(d, len(m)).astype(float), title="made up") for m, d in ((jig, [1]), (air, [2, 1, 1]))]


def test_what_must_not_matter(tunes):
    for tune in tunes:
        y = listen.play(tune)
        d, loud, high = descriptors(y, A), descriptors(2 * y, A), descriptors(listen.play(tune, semitones=2), A)
        assert abs(loud["loudness"] - d["loudness"] - 20 * np.log10(2)) < 0.01 and 0 < loud["energy"] - d["energy"] < 0.15
        for name in set(DESCRIPTORS) - {"loudness", "energy"}:
            assert abs(loud[name] - d[name]) < 0.01, name
        for name in FORMULAS:
            assert abs(high[name] - d[name]) < (0.5 if name == "valence" and high["mode"] != d["mode"] else 0.15), name


def test_directions():
    t, rng = np.arange(6 * SR) / SR, np.random.default_rng(1)
    noise = (0.1 * rng.standard_normal(len(t))).astype(np.float32)
    spoken = (noise * (1 + np.sin(2 * np.pi * 4 * t)) / 2).astype(np.float32)
    drone = sum(0.1 / k * np.sin(2 * np.pi * 110 * k * t) for k in range(1, 8)).astype(np.float32)
    ticks = np.zeros_like(noise)
    for i in range(0, len(t) - 300, SR // 2):
        ticks[i:i + 300] = 3 * noise[:300] * np.exp(-np.arange(300) / 60)
    n, s, d, c = (descriptors(y, A) for y in (noise, spoken, drone, ticks))
    assert s["speechiness"] > max(n["speechiness"], d["speechiness"]) + 0.2
    assert s["instrumentalness"] < d["instrumentalness"] - 0.3
    assert c["danceability"] > max(n["danceability"], d["danceability"]) + 0.3
    assert n["acousticness"] < 0.1 < d["acousticness"] and d["energy"] < n["energy"] - 0.2
    assert c["liveness"] < 0.2 < n["liveness"]  # a dry click, a hall of noise


def test_shared_spectra_and_duration(tunes):
    y = listen.play(tunes[0])
    two = np.stack([y, y[::-1]])
    batch = spectra(two, A, NEEDED)
    mine = descriptors(y, A, {k: v[0] for k, v in batch.items()}, track_dur_s=200.0)
    alone = descriptors(y, A)
    assert mine["duration_ms"] == 200_000 and alone["duration_ms"] == 6000
    for name in set(DESCRIPTORS) - {"duration_ms"}:
        assert np.isclose(mine[name], alone[name], atol=1e-3), name
    assert descriptors(y.astype(np.float64), A) == alone


@pytest.mark.parametrize("name", FORMULAS)
def test_formulas_are_monotone_and_explained(name, tunes):
    cues = sound_cues(listen.play(tunes[0]), A)
    value = descriptors(listen.play(tunes[0]), A)[name]
    rows = why(name, cues)
    assert np.isclose(value, 1 / (1 + np.exp(-2.2 * rows.push.sum()))) and np.isclose(rows.weight.abs().sum(), 1)
    for cue, weight, low, high in FORMULAS[name]:
        pushes = [why(name, cues | {cue: x}).push[cue] * np.sign(weight) for x in np.linspace(low - high, 2 * high + 1, 50)]
        assert np.all(np.diff(pushes) >= -1e-12) and pushes[-1] > pushes[0]
        assert why(name, cues | {cue: np.nan}).push[cue] == 0
    with pytest.raises(InputError, match="energy"):
        why("energi", cues)


def png(fig):
    fig.savefig(file := io.BytesIO(), format="png", dpi=40)
    return file.getvalue()


@pytest.mark.parametrize("kind, n", [("silence", SR), ("click", 900), ("noise", SR // 10), ("constant", 3 * SR)])
def test_figures_of_poor_sounds(kind, n):
    y = (0.1 * signal(kind, n, 0)).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        assert png(listen.listen_figure(y, A))[:4] == b"\x89PNG"
        sounds = dict(first=y, second=(0.1 * signal("noise", n, 1)).astype(np.float32))
        assert png(listen.change_figure(listen.numbers_of(sounds, A)))[:4] == b"\x89PNG"
        assert len(listen.listen_plot(sounds, A).data) == 5


def test_changes_of_names_and_numbers():
    table = listen.numbers_of(dict(a=signal("noise", SR, 0).astype(np.float32), b=signal("noise", SR, 1).astype(np.float32)), A)
    table["key"], table["mode"], table["tempo"], table["loudness"], table["energy"] = [9, 0], [1, 1], [60.0, 120.0], [-20.0, -32.0], [0.2, 0.45]
    moved = listen._changes(table)
    assert (moved.loc["a"] == 0).all() and np.isnan(moved.loc["b", "key"]) and moved.loc["b", "mode"] == 0
    assert moved.loc["b", ["tempo", "loudness", "energy"]].round(6).tolist() == [1, -1, 0.5] and "duration_ms" not in moved


def test_explorer(tunes):
    row = tunes[0]
    box = listen.explore_sound(row)
    first, fig = box.sound, box.fig
    box.sliders[0].value = 3.0
    assert box.fig is not fig and not np.array_equal(box.sound, first) and len(box.children[1].outputs) == 2
    assert np.array_equal(box.sound, listen.play(row, 3.0)) and (np.asarray(row.midi) != REST).any()
    assert len(box.sliders) == 3
