"""A folder of short real tunes in mixed formats, some of them damaged in known ways.

    table = make_sounds(folder, n=300, damaged=0.1, seed=0)

`table` has a row a file: `path` relative to the folder (its first part is a country), `truth` (the reason why it must be refused, '' if it must
not), and how it was made: country, track_id, format, subtype, sr, channels, dur_s, damage. `sound_of(row)` is what a whole file holds.
The same arguments give the same sounds.
"""
import io
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile as sf
import soxr

from geomusic.files import InputError
from geomusic.notation import REST, parse_abc, split_tunebook
from geomusic.synth import SR, render_tune
from geomusic.tunes import tunes_folder

RATES = (8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000)
KINDS = {  # suffix, libsndfile's format and subtype, highest rate, most channels (the sixth of Opus would keep only the bass)
    "wav 16": ("wav", "WAV", "PCM_16", 96000, 6),
    "wav 24": ("wav", "WAV", "PCM_24", 96000, 6),
    "wav float": ("wav", "WAV", "FLOAT", 96000, 6),
    "flac 16": ("flac", "FLAC", "PCM_16", 96000, 6),
    "flac 24": ("flac", "FLAC", "PCM_24", 96000, 6),
    "vorbis": ("ogg", "OGG", "VORBIS", 96000, 6),
    "opus": ("opus", "OGG", "OPUS", 48000, 2),
    "mp3": ("mp3", "MP3", "MPEG_LAYER_III", 48000, 2),
    "mp3 vbr": ("mp3", "MP3", "MPEG_LAYER_III", 48000, 2),
    "aiff": ("aiff", "AIFF", "PCM_16", 96000, 6),
}
OPTIONS = {"mp3": dict(bitrate_mode="CONSTANT", compression_level=0.3), "mp3 vbr": dict(bitrate_mode="VARIABLE", compression_level=0.3)}
BOOKS = {"China": "essenFolksong/han1.abc", "Germany": "essenFolksong/altdeu10.abc", "Ireland": "oneills1850/0001-0050.abc"}


@lru_cache(maxsize=1)
def _tunes():
    "{track_id: (country, midi, dur_ql)} of forty tunes a country"
    found = {}
    for country, book in BOOKS.items():
        path, n = tunes_folder() / book, 0
        for i, text in enumerate(split_tunebook(path.read_text(encoding="utf-8", errors="replace"))):
            try:
                tune = parse_abc(text)
            except InputError:
                continue
            if (tune.midi[:8] != REST).sum() >= 6 and n < 40:
                found[f"{path.stem}/{i}"], n = (country, tune.midi, tune.dur_ql), n + 1
    return found


def gains(channels):
    "How loud the tune is in each channel: no two are equal, so that a wrong mix shows"
    return np.linspace(1, 0.5, channels, dtype=np.float32)


@lru_cache(maxsize=64)
def tune_sound(track_id, sr, dur_s):
    "(samples,) float32: a tune at any rate"
    _, midi, dur_ql = _tunes()[track_id]
    y = render_tune(track_id, midi, dur_ql, total_s=dur_s)
    return y if sr == SR else soxr.resample(y, SR, sr)


def sound_of(row):
    "(samples,) float32 at row.sr: what the mono mix of a whole file should be"
    return tune_sound(row.track_id, int(row.sr), float(row.dur_s)) * gains(int(row.channels)).mean()


def encode(y, sr, kind):
    "The bytes of a file of (samples,) or (samples, channels)"
    _, format, subtype, _, _ = KINDS[kind]
    out = io.BytesIO()
    with sf.SoundFile(out, "w", sr, 1 if y.ndim == 1 else y.shape[1], subtype, format=format, **OPTIONS.get(kind, {})) as f:
        for i in range(0, len(y), 4096):  # libsndfile's Vorbis encoder crashes when it is given a minute at once
            f.write(y[i : i + 4096])
    return out.getvalue()


def _hole(data):
    "Zeros in the middle sixth, as of a download in pieces"
    a, b = len(data) * 5 // 12, len(data) * 7 // 12
    return data[:a] + bytes(b - a) + data[b:]


def _with(y, value):
    "A sample in the middle replaced"
    y = y.copy()
    y[len(y) // 2] = value
    return y


PAGE = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head><body>" + b"<p>The song is gone.</p>" * 200 + b"</body></html>\n"
NOTES = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk\x00\x00\x00\x0c\x00\x90\x3c\x40\x60\x80\x3c\x40\x00\xff\x2f\x00"

DAMAGES = {  # what was done: (suffix, reason to be given, bytes from (sound, rate, random numbers)); None: a link that leads nowhere
    "dangling link": ("wav", "missing", None),
    "no bytes": ("mp3", "empty", lambda y, sr, rng: b""),
    "header cut": ("wav", "corrupt", lambda y, sr, rng: encode(y, sr, "wav 16")[:30]),
    "random bytes": ("flac", "corrupt", lambda y, sr, rng: b"\x01" + rng.bytes(5000)),
    "zero bytes": ("mp3", "corrupt", lambda y, sr, rng: bytes(5000)),
    "half a wav": ("wav", "corrupt", lambda y, sr, rng: (d := encode(y, sr, "wav 16"))[: len(d) // 2]),
    "half an aiff": ("aiff", "corrupt", lambda y, sr, rng: (d := encode(y, sr, "aiff"))[: len(d) // 2]),
    "half a flac": ("flac", "corrupt", lambda y, sr, rng: (d := encode(y, sr, "flac 16"))[: len(d) // 2]),
    "half an ogg": ("ogg", "corrupt", lambda y, sr, rng: (d := encode(y, sr, "vorbis"))[: len(d) // 2]),
    "half an mp3": ("mp3", "corrupt", lambda y, sr, rng: (d := encode(y, sr, "mp3"))[: len(d) // 2]),
    "hole in a flac": ("flac", "corrupt", lambda y, sr, rng: _hole(encode(y, sr, "flac 16"))),
    "hole in an mp3": ("mp3", "corrupt", lambda y, sr, rng: _hole(encode(y, sr, "mp3 vbr"))),
    "web page": ("mp3", "mislabelled", lambda y, sr, rng: PAGE),
    "mp3 named wav": ("wav", "mislabelled", lambda y, sr, rng: encode(y, sr, "mp3")),
    "flac named mp3": ("mp3", "mislabelled", lambda y, sr, rng: encode(y, sr, "flac 16")),
    "wav named ogg": ("ogg", "mislabelled", lambda y, sr, rng: encode(y, sr, "wav 16")),
    "20 ms": ("wav", "too short", lambda y, sr, rng: encode(y[: sr // 50], sr, "wav 16")),
    "no samples": ("wav", "too short", lambda y, sr, rng: encode(y[:0], sr, "wav 16")),
    "silent wav": ("wav", "silent", lambda y, sr, rng: encode(np.zeros_like(y), sr, "wav 24")),
    "silent mp3": ("mp3", "silent", lambda y, sr, rng: encode(np.zeros_like(y), sr, "mp3")),
    "nan": ("wav", "not finite", lambda y, sr, rng: encode(_with(y, np.nan), sr, "wav float")),
    "infinity": ("wav", "not finite", lambda y, sr, rng: encode(_with(y, np.inf), sr, "wav float")),
    "notes, not sound": ("mid", "no decoder", lambda y, sr, rng: NOTES),
}


def _good(folder, i, rng, dur_s, track_id):
    "Write a file that must be read; its row"
    kind = list(KINDS)[i % len(KINDS)]
    suffix, format, subtype, top, most = KINDS[kind]
    rates = [r for r in RATES if r <= top and not (kind == "opus" and r not in (8000, 16000, 48000))]
    sr, channels = int(rng.choice(rates)), int(rng.choice([c for c in (1, 2, 6) if c <= most]))
    country = _tunes()[track_id][0]
    path = f"{country}/{i:04d}.{suffix}"
    y = tune_sound(track_id, sr, dur_s)
    (folder / path).write_bytes(encode(y if channels == 1 else y[:, None] * gains(channels), sr, kind))
    return dict(path=path, truth="", country=country, track_id=track_id, format=format, subtype=subtype, sr=sr, channels=channels, dur_s=dur_s, damage="")


def _bad(folder, i, rng, dur_s, track_id, damage):
    "Write a file that must be refused; its row"
    suffix, truth, make = DAMAGES[damage]
    country, sr = _tunes()[track_id][0], int(rng.choice([16000, 22050, 44100]))
    path = f"{country}/{i:04d}.{suffix}"
    if make is None:
        (folder / path).symlink_to("gone.wav")
    else:
        (folder / path).write_bytes(make(tune_sound(track_id, sr, dur_s), sr, rng))
    return dict(path=path, truth=truth, country=country, track_id=track_id, format="", subtype="", sr=sr, channels=1, dur_s=dur_s, damage=damage)


def make_sounds(folder, n=300, damaged=0.1, seed=0, dur_s=2.0):
    "Write `n` files of about `dur_s` seconds into country folders of `folder`; a table of what they are, in the order of the paths."
    folder, rng, ids = Path(folder), np.random.default_rng(seed), list(_tunes())
    for country in BOOKS:
        (folder / country).mkdir(parents=True, exist_ok=True)
    bad = np.flatnonzero(np.isin(np.arange(n), rng.permutation(n)[: round(n * damaged)]))
    kinds = dict(zip(bad.tolist(), np.resize(rng.permutation(list(DAMAGES)), len(bad)).tolist()))
    rows = []
    for i in range(n):
        mine = np.random.default_rng([seed, i, zlib.crc32(b"sounds")])
        args = folder, i, mine, round(float(mine.uniform(0.75, 1.5)) * dur_s, 3), ids[int(mine.integers(len(ids)))]
        rows.append(_bad(*args, kinds[i]) if i in kinds else _good(*args))
    return pd.DataFrame(rows).sort_values("path", ignore_index=True)
