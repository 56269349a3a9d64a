"""Measure `geomusic.sound.tonality` on folk tunes and chorales that are played in keys drawn by lot, and write what the chapter reads.

python tools/measure_tonality.py choose nbs/results/tonality_choice.csv    # profiles and parameters, on one half of the families
python tools/measure_tonality.py report nbs/results/tonality.csv           # a row a piece: the keys found under every condition

An optional third argument is the number of worker processes. Each takes about a second a piece and is replaced after 20 pieces, for memory that arrays of many sizes
have fragmented would grow with every one. Both halves hold whole families; `choose` never sees the half that the chapter reports.
"""
import io
import itertools
import multiprocessing
import sys
import zlib
from functools import partial

import librosa
import mir_eval
import numpy as np
import pandas as pd
import scipy.signal
import soundfile as sf

from geomusic import synth
from geomusic.notation import MODE_SHIFT, REST
from geomusic.sound import tonality
from geomusic.sound.analysis import Analysis
from geomusic.sound.frontend import spectra
from geomusic.sound.tonality import KEY_PROFILES, PARTIALS, key_correlations, key_name, key_of_profile, notated_key, sounding_third
from geomusic.synth import note_seconds, render
from geomusic.tunes import HELD_OUT, all_tunes, tune_families

A, TOTAL_S = Analysis(), 25.0
SIZES = dict(China=100, Germany=300, Luxembourg=100, France=100, elsewhere=100, oneills1850=300, airdsAirs=150, ryansMammoth=150,
             northumbrianminstrelsyopus=100, americanfifeopus=50)  # families drawn from each collection, at most
REPORTED = 800  # pieces, drawn from the other half
ESSEN = dict(CHN="China", DEU="Germany", LUX="Luxembourg", FRA="France")
OLD, TEMPERLEY = "Krumhansl-Kessler 1982", "Temperley 2007"


# --- the pieces -------------------------------------------------------------------------------------------------------------------------
def tunes() -> pd.DataFrame:
    "One tune of each of up to `SIZES` families of a collection, with the lot of its transposition and tempo and the key it is then in."
    rows = all_tunes()
    rows = rows[(rows.group != "") & (rows.problem == "") & (rows.file != HELD_OUT) & ~rows.key.str.lower().str.startswith("hp") & (rows.key != "")]
    essen = rows.collection == "essenFolksong"
    rows = rows.assign(collection=rows.collection.mask(essen, rows.country.map(ESSEN).fillna("elsewhere")))
    tonic, name = zip(*rows.key.map(notated_key))
    third = [sounding_third(m, d, t) for m, d, t in zip(rows.midi, rows.dur_ql, tonic)]
    stated = [int(MODE_SHIFT[n] >= -1) for n in name]  # lydian, major and mixolydian have the major third
    rows = rows.assign(tonic=tonic, mode_name=name, mode=[t if e else s for e, t, s in zip(essen, third, stated)])
    rows = rows[rows["mode"].notna()].sort_values("track_id").sample(frac=1, random_state=0).drop_duplicates("group")
    rows = pd.concat([g.head(SIZES[c]) for c, g in rows.groupby("collection")]).reset_index(drop=True)
    lots = [np.random.default_rng(zlib.crc32(t.encode())) for t in rows.track_id]
    shift = [int(lot.integers(57, 69)) - int(round(np.median(m[m != REST]))) for lot, m in zip(lots, rows.midi)]  # the median between A3 and G#4
    rows = rows.assign(shift=shift, rate=[round(lot.uniform(3, 6), 3) for lot in lots], half=[zlib.crc32(g.encode()) % 2 for g in rows.group])
    parts = [[(m, note_seconds(m, d, r))] for m, d, r in zip(rows.midi, rows.dur_ql, rows.rate)]
    return rows.assign(parts=parts, key_true=(rows.tonic + shift) % 12, mode_true=rows["mode"].astype(int))


def _voices(score):
    "Pitches and lengths of the four parts of a chorale, rests filled in"
    end, out = score.highestTime, []
    for part in score.parts:
        now, midi, length = 0.0, [], []
        for n in part.flatten().notes:
            if n.offset < now - 1e-6 or n.quarterLength <= 0:
                continue
            if n.offset > now + 1e-6:
                midi.append(REST), length.append(float(n.offset) - now)
            midi.append(max(p.midi for p in n.pitches)), length.append(float(n.quarterLength))
            now = float(n.offset) + float(n.quarterLength)
        if end > now + 1e-6:
            midi.append(REST), length.append(end - now)
        out.append((np.array(midi, int), np.array(length)))
    return out


def chorales() -> pd.DataFrame:
    "Bach's four-part chorales whose last bass note is the tonic of their key signature, major or minor; others are left out."
    from music21 import corpus
    rows = []
    for path in sorted(p for p in corpus.getComposer("bach") if p.suffix == ".mxl"):
        score = corpus.parse(path)
        sharps = {k.sharps for k in score.recurse().getElementsByClass("KeySignature")}
        if len(score.parts) != 4 or len(sharps) != 1:
            continue
        voices, major = _voices(score), 7 * sharps.pop() % 12
        last = min(m[m != REST][-1] for m, _ in voices) % 12
        if last in (major, (major + 9) % 12):
            rows.append(dict(track_id=f"bach/{path.stem}", collection="chorales", voices=voices, tonic=last, mode=int(last == major)))
    rows = pd.DataFrame(rows)
    rows["group"] = [f"chorale {f}" for f in tune_families([v[0][0] for v in rows.voices])]  # one soprano: one family
    lots = [np.random.default_rng(zlib.crc32(t.encode())) for t in rows.track_id]
    rows = rows.assign(shift=[int(lot.integers(-6, 6)) for lot in lots], rate=[round(lot.uniform(60, 100), 1) for lot in lots],  # beats a minute
                       half=[zlib.crc32(g.encode()) % 2 for g in rows.group], mode_name="")
    parts = [[(m, d * 60 / r) for m, d in v] for v, r in zip(rows.voices, rows.rate)]
    return rows.assign(parts=parts, key_true=(rows.tonic + rows["shift"]) % 12, mode_true=rows["mode"])


def symbolic(row) -> np.ndarray:
    "(12,) seconds of each pitch class in the part that is heard, from the notes themselves"
    pcp = np.zeros(12)
    for midi, dur_s in row.parts:
        again = int(TOTAL_S // dur_s.sum()) + 1
        dur, pitch = np.tile(dur_s, again), np.tile(midi, again)
        heard = np.clip(TOTAL_S - (np.cumsum(dur) - dur), 0, dur)
        pcp += np.bincount((pitch[pitch != REST] + row["shift"]) % 12, heard[pitch != REST], 12)
    return pcp


# --- how they sound ---------------------------------------------------------------------------------------------------------------------
def play(row, cents=0.0, octave=0, partials=synth.PARTIALS) -> np.ndarray:
    "The first seconds of a piece; detuned by playing it faster or slower, as a tape would be"
    if synth.PARTIALS != partials:
        synth.PARTIALS = partials
        synth.tone.cache_clear()
    speed = 2 ** (cents / 1200)
    voices = [render(np.where(m == REST, REST, m + row["shift"] + 12 * octave), d, TOTAL_S * speed, round(A.sr / speed)) for m, d in row.parts]
    return np.mean(voices, 0, dtype=np.float32)


def _noise(y):
    return np.random.default_rng(0).standard_normal(len(y)).astype(np.float32)


def _at_snr(y, other, db):
    return y + other * np.sqrt(np.mean(y**2) / np.mean(other**2) * 10 ** (-db / 10))


def vibrato(y, cents=40, rate_hz=6):
    t, depth = np.arange(len(y)), cents / 1200 * np.log(2) / (2 * np.pi * rate_hz) * A.sr
    return np.interp(t + depth * np.sin(2 * np.pi * rate_hz * t / A.sr), t, y).astype(np.float32)


def drums(y):
    "Three bursts of noise a second, together as loud as the tune"
    return _at_snr(y, _noise(y) * np.exp(-(np.arange(len(y)) % (A.sr // 3)) / (0.05 * A.sr)), 0)


def reverb(y, seconds=1.5):
    n = int(seconds * A.sr)
    room = np.random.default_rng(1).standard_normal(n) * 10 ** (-3 * np.arange(n) / n)
    room /= np.sqrt((room**2).sum())
    room[0] += 1
    return scipy.signal.oaconvolve(y, room)[: len(y)]


def low_pass(y, hz=2000):
    return scipy.signal.sosfilt(scipy.signal.butter(8, hz, fs=A.sr, output="sos"), y)


def mp3(y):
    "To mp3 at the lowest rate that the encoder has, and back"
    data = io.BytesIO()
    sf.write(data, 0.9 * y / np.abs(y).max(), A.sr, format="MP3", bitrate_mode="CONSTANT", compression_level=0.99)
    data.seek(0)
    return sf.read(data, dtype="float32")[0]


CONDITIONS = {
    "clean": play, "an octave lower": partial(play, octave=-1),
    "pure tones": partial(play, partials=(1,)), "bright": partial(play, partials=tuple(1 / k for k in range(1, 16))),
    "hollow": partial(play, partials=tuple(k % 2 / k for k in range(1, 16))), "ten equal partials": partial(play, partials=(1,) * 10),
    "vibrato": lambda row: vibrato(play(row)), "drums": lambda row: drums(play(row)), "reverb": lambda row: reverb(play(row)),
    "noise 20 dB": lambda row: _at_snr(y := play(row), _noise(y), 20), "noise 10 dB": lambda row: _at_snr(y := play(row), _noise(y), 10),
    "low-pass 2 kHz": lambda row: low_pass(play(row)), "mp3": lambda row: mp3(play(row)),
} | {f"{c:+d} cents": partial(play, cents=c) for c in (-50, -40, -20, 20, 40)}
CHOOSING = ["clean", "an octave lower", "pure tones", "bright", "hollow", "ten equal partials", "vibrato", "drums", "reverb", "noise 10 dB", "low-pass 2 kHz"]


def power_of(y):
    return spectra(np.asarray(y, np.float32), A, ("power",))["power"]


def outputs_of(y):
    return spectra(np.asarray(y, np.float32), A, ("power", "chroma"))


def each(function, rows, n_jobs) -> list:
    "The function of every row, in processes that live for 20 rows; printed now and then"
    found = []
    with multiprocessing.Pool(n_jobs, maxtasksperchild=20) as pool:
        for one in pool.imap(function, (row for _, row in rows.iterrows())):
            found.append(one)
            if len(found) % 50 == 0:
                print(len(found), "of", len(rows), flush=True)
    return found


# --- choosing ---------------------------------------------------------------------------------------------------------------------------
def folded(histogram, overtones):
    "(12,) from a pitch histogram: overtones left alone, or counted as in HPCP (Gómez 2006), or only for notes that sound themselves (ours)"
    if overtones == "ours":
        return tonality._profile(histogram, tonality._tuning(histogram))
    level = np.bincount(np.round(tonality.DEEPEST + np.arange(tonality.CELLS) / tonality.STEPS - tonality._tuning(histogram)).astype(int), histogram, 128 + PARTIALS[-1])
    votes = dict(none=[(0, 1.0)], HPCP=[(p, 0.7**i) for i, p in enumerate(PARTIALS[:5])])[overtones]
    pcp = sum(w * np.bincount((np.arange(len(level)) - p) % 12, level, 12) for p, w in votes)
    return pcp / max(pcp.sum(), 1e-30)


FOLDS = list(itertools.product((0.5, 1.0), ("none", "HPCP", "ours")))


def _choose_one(row, conditions):
    "{(condition, exponent, overtones): (12,)}, and what librosa's chroma and the notes give"
    out = {}
    for name in conditions:
        got = outputs_of(CONDITIONS[name](row))
        pitch, share = tonality.spectral_peaks(got["power"], A)
        cell = np.round((pitch - tonality.DEEPEST) * tonality.STEPS).astype(int).clip(0, tonality.CELLS - 1)
        for exponent, overtones in FOLDS:
            out[name, f"peaks^{exponent:g}, overtones: {overtones}"] = folded(np.bincount(cell, share**exponent, tonality.CELLS), overtones)
        out[name, "librosa's chroma"] = got["chroma"].mean(1)
        out[name, "the notes"] = symbolic(row)
    return out


def _scores(pcps, rows, profile, exponent):
    r = key_correlations(np.array(pcps), profile, exponent).reshape(-1, 24).argmax(1)
    return np.array([mir_eval.key.weighted_score(key_name(t, m), key_name(i % 12, i < 12)) for i, t, m in zip(r, rows.key_true, rows.mode_true)])


def choose(path, n_jobs):
    "Mean weighted score of every profile, exponent and treatment of overtones, by condition"
    songs, bach = tunes(), chorales()
    songs, bach = songs[(songs.half == 0) & (songs.collection != "China")].iloc[::2], bach[bach.half == 0]  # every second is enough
    found, sung = each(partial(_choose_one, conditions=CHOOSING), songs, n_jobs), each(partial(_choose_one, conditions=["clean"]), bach, n_jobs)
    table = []
    for name, profile, exponent in itertools.product(dict.fromkeys(k[1] for k in found[0]), KEY_PROFILES, (0.5, 1.0)):
        scores = {c: _scores([f[c, name] for f in found], songs, profile, exponent).mean() for c in CHOOSING}
        scores["chorales"] = _scores([f["clean", name] for f in sung], bach, profile, exponent).mean()
        table.append(dict(profile=profile, pitch_classes=name, exponent=exponent, mean=np.mean(list(scores.values()))) | scores)
    table = pd.DataFrame(table).sort_values("mean", ascending=False).round(4)
    table.assign(tunes=len(songs), n_chorales=len(bach)).to_csv(path, index=False)
    print(table.head(10).to_string(), len(songs), len(bach))


# --- reporting --------------------------------------------------------------------------------------------------------------------------
def short(key, mode):
    return key_name(key, mode).replace(" major", "").replace(" minor", "m")


def _report_one(row):
    "What is found in a piece under every condition"
    out = {k: row[k] for k in ("track_id", "collection", "half", "shift", "rate", "mode_name")} | dict(true=short(row.key_true, row.mode_true))
    out["notes"] = short(*list(key_of_profile(symbolic(row)).values())[:2])
    for name, sound in CONDITIONS.items():
        got = outputs_of(sound(row))
        mine, chroma = tonality.key_and_mode(got["power"], A), got["chroma"].mean(1)
        out[name] = short(mine["key"], mine["mode"])
        r = {p: key_correlations(chroma, p, 1.0).argmax() for p in (OLD, TEMPERLEY)}
        out |= {f"{name} | librosa": short(r[OLD] % 12, r[OLD] < 12), f"{name} | librosa, Temperley": short(r[TEMPERLEY] % 12, r[TEMPERLEY] < 12)}
        if name in ("clean", "+40 cents"):  # what librosa does unless told otherwise; slow
            r = key_correlations(librosa.feature.chroma_stft(S=got["power"], sr=A.sr).mean(1), OLD, 1.0).argmax()
            out[f"{name} | librosa, tuned"] = short(r % 12, r < 12)
        if name == "clean" or name.endswith("cents"):
            out[f"{name} | tuning"] = round(mine["tuning"], 3)
        if name == "clean":
            out[f"{name} | key_strength"] = round(mine["key_strength"], 3)
    return out


def report(path, n_jobs):
    "A row a piece of the half that was not chosen on"
    rows = pd.concat([tunes(), chorales()])
    rows = rows[rows.half == 1]
    pd.DataFrame(each(_report_one, rows.sample(REPORTED, random_state=0), n_jobs)).sort_values(["collection", "track_id"]).to_csv(path, index=False)


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4) or sys.argv[1] not in ("choose", "report"):
        raise SystemExit(__doc__)
    dict(choose=choose, report=report)[sys.argv[1]](sys.argv[2], int(sys.argv[3]) if len(sys.argv) == 4 else 1)
