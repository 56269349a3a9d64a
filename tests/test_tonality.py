"Key and mode of sounds whose key is known: all 24, in every tuning, at every pitch, through noise; and a defined answer for what has none."
import numpy as np
import pytest

from geomusic.files import InputError
from geomusic.notation import MODE_SHIFT, REST
from geomusic.sound.analysis import Analysis
from geomusic.sound.frontend import spectra
from geomusic.sound.tonality import (CELLS, KEY_PROFILES, estimate_tuning, key_and_mode, key_correlations, key_name, key_of_profile, notated_key, pitch_class_profile,
                                     pitch_histogram, sounding_third, spectral_peaks)
from geomusic.synth import render

A = Analysis()
SCALES = {1: [0, 2, 4, 5, 7, 9, 11, 12], 0: [0, 2, 3, 5, 7, 8, 11, 12]}  # major, harmonic minor
KEYS = [(key, mode) for key in range(12) for mode in (0, 1)]


def power_of(y, a=A):
    return spectra(np.asarray(y, np.float32), a, ("power",))["power"]


def tones(*hz, dur_s=2.0, sr=22050):
    return sum(np.sin(2 * np.pi * f * np.arange(int(dur_s * sr)) / sr) for f in hz)


def scale(key, mode, cents=0.0, octave=0, sr=22050):
    "Up, down and the tonic's chord; sharp by playing it too fast"
    steps = np.array(SCALES[mode])
    midi = 60 + (key + 5) % 12 - 5 + 12 * octave + np.concatenate([steps, steps[::-1], steps[[0, 2, 4, 7, 0]]])  # the tonic from G3 to F#4
    speed = 2 ** (cents / 1200)
    return render(midi, np.full(21, 0.2), 4.2 * speed, round(sr / speed))


def answer(y, a=A):
    found = key_and_mode(power_of(y, a), a)
    return found["key"], found["mode"]


@pytest.mark.parametrize("cents", [-40, -20, 0, 20, 40])
def test_every_key_in_every_tuning(cents):
    for key, mode in KEYS:
        found = key_and_mode(power_of(scale(key, mode, cents)), A)
        assert (found["key"], found["mode"]) == (key, mode) and found["key_strength"] > 0.6
        assert abs(100 * found["tuning"] - cents) < 3


def test_a_quarter_tone_is_one_of_two_neighbours():
    for key, mode in KEYS:
        for cents, near in ((-50, (key, (key - 1) % 12)), (50, (key, (key + 1) % 12))):
            found = key_and_mode(power_of(scale(key, mode, cents)), A)
            assert found["key"] in near and found["mode"] == mode and abs(found["tuning"]) > 0.45


def test_transposition_turns_profile_and_key():
    first = pitch_class_profile(power_of(scale(0, 1)), A)
    for key in range(1, 12):
        assert np.allclose(np.roll(first, key), pitch_class_profile(power_of(scale(key, 1)), A), atol=0.02)
    assert all(answer(scale(k, m, octave=o)) == (k, m) for k, m in KEYS[::5] for o in (-1, 1, 2))


@pytest.mark.parametrize("mode", [0, 1])
def test_noise_gain_and_silence_around(mode):
    rng, y = np.random.default_rng(0), scale(2, mode)
    noisy = y + rng.standard_normal(len(y)).astype(np.float32) * np.sqrt((y**2).mean() / 10)  # 10 dB
    assert answer(noisy) == answer(np.pad(y, 22050)) == answer(y[::-1].copy()) == (2, mode)
    quiet, loud = key_and_mode(power_of(y * 1e-4), A), key_and_mode(power_of(y * 30), A)
    assert quiet == pytest.approx(loud, abs=1e-3)


@pytest.mark.parametrize("a", [Analysis(sr=44100, n_fft=4096, hop_length=1024), Analysis(n_fft=4096), Analysis(hop_length=1102), Analysis(sr=16000, n_mels=64)])
def test_other_analyses(a):
    assert all(answer(scale(k, m, sr=a.sr), a) == (k, m) for k, m in KEYS[::3])


def test_tuning_of_chords_and_of_seam():
    for cents in range(-45, 46, 15):
        hz = 440 * 2 ** ((np.array([-12, 3, 7, 12]) + cents / 100) / 12)
        assert abs(100 * estimate_tuning(power_of(tones(*hz)), A) - cents) < 2
    assert -0.5 <= estimate_tuning(power_of(tones(440 * 2 ** (50 / 1200))), A) <= 0.5


def test_a_tone_is_itself_whatever_its_overtones():
    for overtones in ([1], [1, 2, 3, 4, 5, 6], [1, 3, 5, 7], range(1, 16)):
        for f in (110, 220, 440, 880):
            y = tones(*[f * k for k in overtones if f * k < 11000])
            assert pitch_class_profile(power_of(y), A).argmax() == key_and_mode(power_of(y), A)["key"] == 9


def test_peaks_lie_between_bins():
    for f in (110, 233.7, 441.3, 1234.5, 2500):
        pitch, share = spectral_peaks(power_of(tones(f)), A)
        assert abs(np.average(pitch, weights=share) - 69 - 12 * np.log2(f / 440)) < 0.03
        assert (share <= 1).all() and (share >= 0.01 - 1e-9).all()


@pytest.mark.parametrize("y", [np.zeros(22050), np.ones(66150), tones(50), np.zeros(1)], ids=["silence", "offset", "hum", "one sample"])
def test_nothing_to_hear(y):
    assert key_and_mode(power_of(y), A) == dict(key=0, mode=1, key_strength=0.0, tuning=0.0)
    assert pitch_class_profile(power_of(y), A).sum() == 0 and pitch_histogram(power_of(y), A).shape == (CELLS,)


def test_noise_has_no_strength():
    rng = np.random.default_rng(1)
    white = rng.standard_normal(30 * 22050)
    pink = np.fft.irfft(np.fft.rfft(white) / np.sqrt(np.maximum(np.arange(1 + len(white) // 2), 1)))
    clicks = (np.arange(30 * 22050) % 11025 == 0) * 1.0
    for y in (white, pink, np.cumsum(white), clicks, render(np.arange(60, 84), np.full(24, 0.25), 30.0)):
        found = key_and_mode(power_of(y), A)
        assert 0 <= found["key_strength"] < 0.08 and 0 <= found["key"] < 12 and found["mode"] in (0, 1) and abs(found["tuning"]) <= 0.5


def test_random_spectra_give_plain_finite_numbers():
    rng = np.random.default_rng(2)
    for shape in ((1025, 0), (1025, 1), (1025, 7)):
        for p in (rng.random(shape), rng.random(shape).astype(np.float32) * 1e-30, np.round(rng.random(shape)), rng.random(shape) * 1e30):
            found = key_and_mode(p, A)
            assert [type(v) for v in found.values()] == [int, int, float, float] and np.isfinite(list(found.values())).all() and 0 <= found["key_strength"] <= 1


@pytest.mark.parametrize("power", [np.ones((513, 9)), np.ones(1025), np.ones((1, 1025, 9)), None, np.full((1025, 3), np.nan), np.full((1025, 3), np.inf)])
def test_wrong_spectra_are_refused(power):
    for function in (key_and_mode, estimate_tuning, pitch_class_profile):
        with pytest.raises(InputError):
            function(power, A)


def test_profiles_find_their_own_keys_and_are_those_of_music21():
    for name, profile in KEY_PROFILES.items():
        for minor, p in enumerate(profile):
            for key in range(12):
                found = key_of_profile(np.roll(np.array(p, float) ** 2, key), name)  # a root is taken inside
                assert (found["key"], found["mode"]) == (key, 1 - minor) and found["key_strength"] > 0.98
    discrete = pytest.importorskip("music21.analysis.discrete")
    for name, theirs in {"Krumhansl-Kessler 1982": "KrumhanslSchmuckler", "Aarden 2003": "AardenEssen", "Bellman 2005": "BellmanBudge",
                         "Temperley 2007": "TemperleyKostkaPayne", "Sapp 2011": "SimpleWeights"}.items():
        weights = getattr(discrete, theirs)()
        assert np.allclose(KEY_PROFILES[name], [weights.getWeights("major"), weights.getWeights("minor")], rtol=1e-3)
    with pytest.raises(InputError, match="key profile"):
        key_correlations(np.ones(12), "nobody 1900")


def test_correlations_are_pearsons():
    rng = np.random.default_rng(3)
    pcp = rng.random((4, 12))
    r = key_correlations(pcp, "Temperley 1999", power=1.0)
    for i, minor, key in ((0, 0, 0), (1, 1, 7), (3, 0, 11)):
        assert np.isclose(r[i, minor, key], np.corrcoef(pcp[i], np.roll(KEY_PROFILES["Temperley 1999"][minor], key))[0, 1])
    assert not key_correlations(np.ones(12)).any()


def test_notated_keys():
    for text, want in {"G": (7, "maj"), "F#m": (6, "m"), "Bb": (10, "maj"), "A Mixolydian": (9, "mix"), "Edor": (4, "dor"), "H": (11, "maj"), "Cb": (11, "maj"),
                       "D Minor": (2, "min"), "AMin": (9, "min"), "Glyd": (7, "lyd")}.items():
        tonic, mode = notated_key(text)
        assert (tonic, MODE_SHIFT[mode]) == (want[0], MODE_SHIFT[want[1]])
    for text in ("", "none", "Bn", "?"):
        with pytest.raises(InputError):
            notated_key(text)


def test_third_and_name():
    midi, dur = np.array([60, 63, 64, REST, 63]), np.array([9.0, 1, 3, 8, 1])
    assert sounding_third(midi, dur, 0) == 1 and sounding_third(midi[:2], dur[:2], 0) == 0 and sounding_third(midi[:1], dur[:1], 0) is None
    assert sounding_third(midi + 7, dur, 7) == 1 and key_name(6, 0) == "F# minor" and key_name(0, 1) == "C major"
