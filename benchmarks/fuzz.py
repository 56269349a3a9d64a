"""Inputs by the ten thousand for every reader: a valid result or an `InputError`, never another exception, no hang, no file written.

    python benchmarks/fuzz.py --target abc --inputs 10000 --seed 0     # adds to fuzz.json what it tried
    python benchmarks/fuzz.py --all --inputs 50                        # what CI does, in tests/test_fuzz.py
    python benchmarks/fuzz.py --target abc --atheris --seconds 180     # guided by coverage

A finding is an exception at a place of ours; it is printed with its input, and counted as `open` until it is mended. The inputs of mended findings
are cases in tests/test_fuzz.py.
"""
import argparse
import csv
import inspect
import io
import json
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"): os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import geomusic.corpora.audio_folder, geomusic.corpora.mirage, geomusic.exploring.answers, geomusic.judging.listeners, geomusic.sound.decode, geomusic.train  # noqa: E401, F401  their import is no hang
from geomusic.files import InputError
from geomusic.places import countries

HERE, PATIENCE_S = Path(__file__).parent, 10


class Hang(BaseException):
    "An input took longer than `PATIENCE_S` seconds"


class Stop(BaseException):
    "The time is up"


class NotValid(AssertionError):
    "Something was returned that is no valid result"


# ---- mutations of bytes


SPICE = [b"", b"\0", b"\n", b"\r", b'"', b",", b"'", b"\xff\xfe", b"\xef\xbb\xbf", b"nan", b"inf", b"-1", b"1e999", b"9" * 30, b"\x1f", "é".encode(), "\u2028".encode(), b"../", b"\xff" * 4, b"\x80\0\0\0", b"\x7f\xff\xff\xff"]
EDIT = st.tuples(st.sampled_from("flip set cut insert repeat zero swap end".split()), st.floats(0, 1), st.one_of(st.sampled_from(SPICE), st.binary(max_size=12)), st.integers(1, 64))
EDITS = st.lists(EDIT, min_size=1, max_size=6)


def edited(data, edits):
    "Bytes after some damages"
    b = bytearray(data)
    for what, where, extra, n in edits:
        i = min(len(b), int(where * len(b)))
        if what == "flip" and i < len(b): b[i] ^= 1 << n % 8
        elif what == "set": b[i:i + len(extra)] = extra
        elif what == "cut": del b[i:i + n * n]
        elif what == "insert": b[i:i] = extra
        elif what == "repeat": b[i:i] = b[max(0, i - n):i] * (1 + n % 5)
        elif what == "zero": b[i:i + n] = bytes(len(b[i:i + n]))
        elif what == "swap": b[i:i + n], b[:n] = b[:n], b[i:i + n]
        elif what == "end": del b[i:]
    return bytes(b)


def mutants(seeds):
    return st.builds(lambda k, e: edited(seeds[k], e), st.integers(0, len(seeds) - 1), EDITS)


def as_csv(rows):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()


CELLS = st.one_of(st.sampled_from(["", "Kenya", "KEN", "Ireland", "0", "1", "-1", "0.5", "90.1", "1e308", "1e999", "nan", "inf", "t0", "t1", "l0", "yes", "true", "a.wav", "b.flac", "../a.wav", "/etc/passwd", "\0", "Côte d'Ivoire", "Hong Kong", "'=1", "=1", "Point(1 2)", "None", "1_000", "٣", "0x10"]), st.text(max_size=8))


def grids(header):
    "Tables whose columns and cells may be anything"
    names = st.lists(st.one_of(st.sampled_from(header), st.text(max_size=6)), min_size=1, max_size=len(header) + 2)
    return st.builds(lambda h, rows: as_csv([h, *rows]), names, st.lists(st.lists(CELLS, min_size=1, max_size=len(header) + 2), max_size=6))


def rows_of(header, like):
    "Tables of the right columns in which most cells are right"
    row = st.tuples(*(st.one_of(*[st.sampled_from(like[h])] * 3, CELLS) for h in header))
    return st.builds(lambda rows: as_csv([header, *rows]), st.lists(row, min_size=1, max_size=6))


# ---- ABC


PIECES = ("A b c' d,, ^F _B = ^^c __d z x 2 / // /0 0 3/2 /4 99999999999999999999 (3 (3:2:2 (2:: (9:0:0 (3:2:999999999999 :| |: | || |] [| :: |1 |2 [1 [2 [CEG] [C2E2]/ [ ] [K:Am] [K:] [L:1/4] [L:0/4] [L:1/0] [L:x] "
          "[M:6/8] { } {g} ! + \" \" - > < <<< >>>> , ' % \\ ` ~ . \n").split(" ") + ["\n", "\nK:G\n", "\nX:2\n", "\nV:2\n", "\nM:C|\n", "\nL:1/16\n", "\nK:Hp\n", "\nK:Q\n", "\nw:la\n", "\0", "é", "\x85"]


@lru_cache(1)
def abc_seeds():
    from geomusic.notation import split_tunebook
    from geomusic.tunes import tunes_folder

    books = ["essenFolksong/han1.abc", "oneills1850/0001-0050.abc", "ryansMammoth/BalknationalEgressReel.abc"]
    return [t.encode() for b in books if (p := tunes_folder() / b).is_file() for t in split_tunebook(p.read_text(errors="replace"))[:20]]


def abc_inputs():
    grammar = st.builds(lambda head, body: (head + "K:G\n" + "".join(body)).encode("utf-8", "replace"), st.sampled_from(["X:1\nM:3/4\nL:1/8\n", "X:1\nM:6/8\n", "X:1\n", "M:0/4\nL:0/0\n", "M:" + "9" * 400 + "/8\nL:1/" + "0" * 50 + "\n", ""]),
                        st.lists(st.sampled_from(PIECES), max_size=60))
    again = st.builds(lambda piece, n: b"X:1\nK:G\n" + piece.encode("utf-8", "replace") * n, st.one_of(st.sampled_from(PIECES), st.text(max_size=3)), st.integers(1, 3000))
    return st.one_of(grammar, again, mutants(abc_seeds()))


def abc_check(data, folder):
    from geomusic.notation import parse_abc, split_tunebook

    text = data.decode(errors="replace")
    split_tunebook(text)
    t = parse_abc(text)
    if not (len(t.midi) == len(t.dur_ql) and np.isfinite(t.dur_ql).all() and (t.dur_ql >= 0).all() and ((t.midi >= -1) & (t.midi <= 127)).all()): raise NotValid(t)


# ---- MIRAGE


MIRAGE = {"Event_MA_ID": ["e1", "e2", "e3"], "Event_MA_MetadataReliability": ["0.95", "1", "0.5"], "Station_RG_ID": ["s1", "s2"], "location_rg_id": ["l1", "l2"], "artist_sp_id": ["i1", "i2"], "track_sp_id": ["t1", "t2", "t3"],
          "Location_RG_country": ["Brazil", "France"], "Location_RG_Latitude": ["-22.9", "48.9"], "Location_RG_Longitude": ["-43.2", "2.35"], "track_sp_name": ["Wave", "Bella, ciao"], "track_sp_Tempo": ["100.5"],
          "track_sp_key": ["C#/Db", "A"], "track_sp_mode": ["1", "minor"], "artist_sp_name": ["Jobim", 'Le "Trio"'], "artist_wd_country": ["Brazil", "Italy", "Hong Kong"], "artist_wd_Coordinates": ["", "Point(32.86 39.93)"]}


def mirage_inputs():
    rows = [[v[i % len(v)] for v in MIRAGE.values()] for i in range(5)]
    whole = as_csv([list(MIRAGE), *rows])
    return st.one_of(mutants([whole, whole.replace(b"\n", b"\r\n"), as_csv([[h.lower() for h in MIRAGE], *rows]), as_csv([[*MIRAGE], *rows]).replace(b",", b";")]), rows_of(list(MIRAGE), MIRAGE), grids(list(MIRAGE)))


def mirage_check(data, folder):
    from geomusic.corpora.mirage import mirage_corpus

    (folder / "MIRAGE.csv").write_bytes(data)
    with nothing_written(folder): c = mirage_corpus(folder / "MIRAGE.csv", progress=False)
    r = c.report
    if r["read"] != r["kept"] + r["merged"] + sum(r["refused"].values()) or r["kept"] != len(c): raise NotValid(r)


# ---- a manifest of sound


MANIFEST = {"path": ["a.wav", "b.flac"], "country": ["Kenya", "Ireland"], "lat": ["1.5", "53"], "lon": ["37", "-8"], "artist": ["x", "Unknown"], "title": ["y"], "group": ["g"]}


def manifest_inputs():
    whole = as_csv([list(MANIFEST), *[[v[i % len(v)] for v in MANIFEST.values()] for i in range(3)]])
    return st.one_of(mutants([whole, whole.replace(b",", b"\t")]), rows_of(list(MANIFEST), MANIFEST), grids(list(MANIFEST)))


def manifest_check(data, folder):
    import soundfile as sf

    from geomusic.corpora.audio_folder import audio_folder_corpus

    for name in ("a.wav", "b.flac"):
        if not (folder / name).exists(): sf.write(folder / name, 0.1 * np.sin(np.arange(4000) / 9), 8000)
    (folder / "manifest.csv").write_bytes(data)
    with nothing_written(folder): c = audio_folder_corpus(folder, folder / "manifest.csv", progress=False)
    if not set(c.tracks.audio) <= {str(folder / n) for n in ("a.wav", "b.flac")}: raise NotValid(c.tracks.audio.tolist())


# ---- settings


VALUES = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-10**30, 10**30), st.floats(), st.text(max_size=6), st.sampled_from([0, 1, 0.5, "cnn", "fcnn", "none", "balanced", "adam", [8], 2**31])),
                      lambda v: st.one_of(st.lists(v, max_size=3), st.dictionaries(st.one_of(st.text(max_size=5), st.integers(), st.booleans(), st.none()), v, max_size=3)), max_leaves=6)


@lru_cache(1)
def config_keys():
    from geomusic.config import FIXED, IDLE, MODEL_PARAMS, RENAMED, Config, load_config

    def leaves(x, at=""):
        for k, v in x.items():
            yield f"{at}{k}"
            if isinstance(v, dict): yield from leaves(v, f"{at}{k}.")
    params = [f"model.params.{k}" for m in MODEL_PARAMS.values() for k in m.model_fields]
    return sorted({*leaves(load_config().model_dump(mode="json")), *RENAMED, *FIXED, *IDLE, *params, *Config.model_fields, "training.scheduler.type", "model.cnn", "model.fcnn.dropout", "training.early_stopping", "training.early_stopping.enabled"})


def nested(pairs):
    "Settings of dotted keys; a later one wins"
    out = {}
    for key, value in pairs:
        *parents, last = key.split(".")
        at = out
        for p in parents:
            if not isinstance(at.get(p), dict): at[p] = {}
            at = at[p]
        at[last] = value
    return out


def config_inputs():
    import yaml
    dicts = st.builds(nested, st.lists(st.tuples(st.one_of(st.sampled_from(config_keys()), st.text(max_size=8)), VALUES), max_size=5))
    whole = (HERE.parent / "configs" / "config.yaml").read_bytes()
    text = st.builds(lambda d: yaml.safe_dump(d, allow_unicode=True).encode("utf-8", "replace"), dicts)
    spice = st.builds(lambda k, v: f"{k}: {v}\n".encode(), st.sampled_from(["training", "model", "data", "checkpoint_dir", "? "]), st.sampled_from(["&a [*a]", "*x", "!!python/object/apply:os.system [ls]", "2026-99-99", "[" * 3000, "!!binary x", "!!set {a, b}", "!!timestamp 1", "{[1]: 2}", "'\\x", "0o9", "1:99:99", "<<: 3", "!!int x", "!!float .", "9" * 5000, "0b2", "!!omap [1]", "@", "%TAG"]))
    return st.one_of(dicts, text, mutants([whole]), spice)


def config_check(data, folder):
    from geomusic.config import Config, load_config

    if isinstance(data, bytes):
        (folder / "config.yaml").write_bytes(data)
        data = folder / "config.yaml"
    with nothing_written(folder): c = load_config(data)
    if not isinstance(c, Config): raise NotValid(c)
    json.dumps(c.model_dump(mode="json"))


# ---- answers of listeners


LISTENERS = {"listener_id": ["l0", "l1"], "track_id": ["t0", "t1", "t2"], "country": ["IRL", "Kenya", "CN"], "lat_deg": ["", "53"], "lon_deg": ["", "-8"], "confidence": ["", "0.5", "1"], "seconds": ["3.5", ""], "plays": ["1", ""], "country_2": ["", "DEU"], "country_3": [""], "simulated": ["", "yes"]}


@lru_cache(1)
def played():
    t = pd.DataFrame(dict(track_id=["t0", "t1", "t2"], group=["a", "a", "b"], country=["IRL", "KEN", "CHN"]))
    return t.join(countries()[["lat_deg", "lon_deg"]], on="country")


def listeners_inputs():
    whole = as_csv([list(LISTENERS), *[[v[i % len(v)] for v in LISTENERS.values()] for i in range(5)]])
    return st.one_of(mutants([whole]), rows_of(list(LISTENERS), LISTENERS), grids(list(LISTENERS)))


def listeners_check(data, folder):
    from geomusic.exploring.answers import read_answers
    from geomusic.judging.listeners import read_listeners

    (folder / "answers.csv").write_bytes(data)
    with nothing_written(folder):
        try: read_answers(folder / "answers.csv")  # the same file as the listening test would read it
        except InputError: pass
        t = read_listeners(folder / "answers.csv", played(), least=1)
    if not (len(t) and t.right.isin([0, 1]).all() and t.truth.isin(["IRL", "KEN", "CHN"]).all()): raise NotValid(t)


# ---- sound


@lru_cache(1)
def sound_seeds():
    "(suffix, bytes) of every kind that we read, a third of a second"
    import soundfile as sf
    y, out = (0.2 * np.sin(np.arange(5300) / 7)).astype(np.float32), []
    for suffix, format, subtype in (("wav", "WAV", "PCM_16"), ("wav", "WAV", "FLOAT"), ("flac", "FLAC", "PCM_16"), ("ogg", "OGG", "VORBIS"), ("opus", "OGG", "OPUS"), ("mp3", "MP3", "MPEG_LAYER_III"), ("aiff", "AIFF", "PCM_16"), ("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16")):
        for channels in (1, 2):
            sf.write(file := io.BytesIO(), np.stack([y] * channels, 1), 16000, subtype, format=format)
            out.append((suffix, file.getvalue()))
    return out


def sound_inputs():
    whole = st.builds(lambda k, e: (sound_seeds()[k][0], edited(sound_seeds()[k][1], e)), st.integers(0, len(sound_seeds()) - 1), EDITS)
    head = st.builds(lambda k, e: (sound_seeds()[k][0], edited(sound_seeds()[k][1][:80], e) + sound_seeds()[k][1][80:]), st.integers(0, len(sound_seeds()) - 1), EDITS)
    return st.one_of(head, whole, st.tuples(st.sampled_from(["wav", "mp3", "flac", "ogg"]), st.binary(max_size=64)))


def sound_check(data, folder):
    from geomusic.sound.decode import load_audio

    suffix, content = data
    path = folder / f"x.{suffix}"
    path.write_bytes(content)
    try:
        with nothing_written(folder): y = load_audio(path, 16000, dur_s=2.0)
        if not (y.ndim == 1 and y.dtype == np.float32 and 0 < len(y) <= 40_000 and np.isfinite(y).all()): raise NotValid((y.shape, y.dtype))
    finally: path.unlink(missing_ok=True)


# ---- checkpoints


@lru_cache(1)
def checkpoints():
    "Bytes of small checkpoints, and what is in them"
    import torch

    from geomusic.config import load_config
    from geomusic.train import fit
    rng, out, inside = np.random.default_rng(0), [], []
    side, y = np.repeat(["train", "val", "test"], [18, 6, 6]), np.array(["CHN", "DEU", "IRL"])[np.arange(30) % 3]
    for model, x in (("fcnn", rng.normal(size=(30, 3))), ("rnn", rng.normal(size=(30, 6, 3))), ("cnn", rng.normal(size=(30, 1, 16, 16)))):
        small = dict(fcnn=["model.params.widths=[4]"], rnn=["model.params.hidden=3", "model.params.fc=3", "model.params.num_layers=1"], cnn=["model.params.channels=[2,2]", "model.params.fc=3"])[model]
        with tempfile.TemporaryDirectory() as d:
            fit(x.astype(np.float32), y, side, load_config(overrides=[f"model.type={model}", "training.num_epochs=1", *small]), out=d, progress=False)
            out.append((Path(d) / "best_model.pth").read_bytes())
            inside.append(torch.load(Path(d) / "best_model.pth", weights_only=True))
    return out, inside, (Path(__file__),)


HISTORY = b"epoch,train_loss,val_loss,val_acc,val_balanced_acc,val_macro_f1,lr,seconds\n1,1.1,1.0,0.5,0.5,0.5,0.001,0.1\n2,1.0,0.9,0.6,0.5,0.5,0.001,0.1\n"


def changed(tree, path, value):
    "A tree of dicts with one leaf, found by numbers, replaced"
    if not isinstance(tree, dict) or not tree or not path: return value
    key = list(tree)[path[0] % len(tree)]
    return {**tree, key: changed(tree[key], path[1:], value)}


def checkpoint_inputs():
    import torch
    files, inside, _ = checkpoints()
    odd = st.one_of(VALUES, st.sampled_from([0, -1, 10**9, 2**62, float("nan"), [], {}, "", None, [1], ["CHN"] * 3, torch.zeros(2), torch.full((4, 3), float("nan")), torch.zeros(1).expand(10**9), torch.zeros(3, dtype=torch.int8), "cnn", "attention"]))

    def built(k, path, value):
        torch.save(changed(inside[k], path, value), out := io.BytesIO())
        return "best_model.pth", out.getvalue()
    return st.one_of(st.builds(built, st.integers(0, 2), st.lists(st.integers(0, 30), min_size=1, max_size=4), odd), mutants(files).map(lambda b: ("best_model.pth", b)), mutants([HISTORY]).map(lambda b: ("history.csv", b)))


def checkpoint_check(data, folder):
    from geomusic.runs import load_run

    name, content = data
    (folder / "best_model.pth").write_bytes(checkpoints()[0][0])
    (folder / "history.csv").write_bytes(HISTORY)
    (folder / name).write_bytes(content)
    with nothing_written(folder): run = load_run(folder)
    repr(run)
    x = dict(tabular=np.zeros((2, 3), np.float32), sequence=np.zeros((2, 6, 3), np.float32), melspec=np.zeros((2, 1, 16, 16), np.float32))[run.scaler.view]
    if run.predict_proba(x).shape != (2, len(run.labels)): raise NotValid(run)


# ---- trying


class nothing_written:
    "An AssertionError if files were made, changed or removed"
    def __init__(self, folder): self.folder = folder
    def look(self): return {p.name: (s.st_size, s.st_mtime_ns) for p in self.folder.iterdir() for s in [p.stat()]}
    def __enter__(self): self.before = self.look()
    def __exit__(self, *_):
        if (now := self.look()) != self.before: raise NotValid(f"files written: {sorted(set(now.items()) ^ set(self.before.items()))}")


TARGETS = {"abc": (abc_inputs, abc_check), "mirage": (mirage_inputs, mirage_check), "manifest": (manifest_inputs, manifest_check), "config": (config_inputs, config_check), "listeners": (listeners_inputs, listeners_check),
           "sound": (sound_inputs, sound_check), "checkpoint": (checkpoint_inputs, checkpoint_check)}


def tried(target, data, folder):
    "'valid' or 'refused'; any other exception comes out, a hang as `Hang`"
    def late(*_): raise Hang(f"longer than {PATIENCE_S} s")
    was = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE_S)
    try:
        TARGETS[target][1](data, folder)
        return "valid"
    except InputError as e:
        if not (e.problem and str(e).isprintable() is not None and len(str(e)) < 20_000): raise NotValid(f"an error that says nothing, or too much: {str(e)[:200]}") from e
        return "refused"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)


def where(e):
    "The exception and the last place of ours in its traceback"
    ours = [f for f in traceback.extract_tb(e.__traceback__) if "geomusic" in Path(f.filename).parts]
    return f"{type(e).__name__} in {Path(ours[-1].filename).name}:{ours[-1].name}" if ours else type(e).__name__


def fuzz(target, inputs, number, limit_s=1e9):
    "Counts, and what went wrong: {where: (input, words)}"
    counts, found, begin = dict(valid=0, refused=0), {}, time.monotonic()
    with tempfile.TemporaryDirectory() as d:
        @seed(number)
        @settings(max_examples=inputs, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
        @given(TARGETS[target][0]())
        def run(data):
            if time.monotonic() - begin > limit_s: raise Stop
            try: counts[tried(target, data, Path(d))] += 1
            except (Exception, Hang) as e:
                counts["wrong"] = counts.get("wrong", 0) + 1
                found.setdefault(where(e), (data, str(e)[:200]))
        try: run()
        except Stop: pass
    return counts, found


SEEDS = dict(abc=lambda: abc_seeds(), config=lambda: [(HERE.parent / "configs" / "config.yaml").read_bytes(), b"model: {type: cnn, params: {fc: 3}}"], manifest=lambda: [as_csv([list(MANIFEST), *[[v[i % len(v)] for v in MANIFEST.values()] for i in range(3)]])])


def guided(target, limit_s, number=0):
    "As `fuzz`, by atheris, which keeps the bytes that reach new lines of ours and changes those; in a process of its own, which it ends"
    import atheris
    beginnings = SEEDS[target]()
    for name, module in [(n, m) for n, m in sys.modules.items() if n.startswith("geomusic")]:
        own = [x for x in vars(module).values() if getattr(x, "__module__", "") == name]
        for f in map(inspect.unwrap, [*own, *(x for c in own if inspect.isclass(c) for x in vars(c).values() if inspect.isfunction(x))]):
            if inspect.isfunction(f): atheris.instrument_func(f)
    counts, found, begin = dict(valid=0, refused=0), {}, time.monotonic()
    with tempfile.TemporaryDirectory() as d, tempfile.TemporaryDirectory() as seeds:
        for i, data in enumerate(beginnings): (Path(seeds) / str(i)).write_bytes(data)

        def run(data):
            try: counts[tried(target, data, Path(d))] += 1
            except (Exception, Hang) as e:
                counts["wrong"] = counts.get("wrong", 0) + 1
                found.setdefault(where(e), (data.hex(), str(e)[:200]))
            if time.monotonic() - begin < limit_s: return
            (Path(seeds) / "found.json").write_text(json.dumps([counts, found]))
            os._exit(0)
        if not (pid := os.fork()):
            atheris.Setup([__file__, "-max_len=4000", f"-seed={number + 1}", "-verbosity=0", seeds], run)
            atheris.Fuzz()
        os.waitpid(pid, 0)
        counts, found = json.loads((Path(seeds) / "found.json").read_text())
    return counts, {place: (bytes.fromhex(data), words) for place, (data, words) in found.items()}


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--target", choices=TARGETS)
    p.add_argument("--all", action="store_true")
    p.add_argument("--inputs", type=int, default=10_000)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=1e9, help="stop after so long")
    p.add_argument("--atheris", action="store_true", help=f"guided by coverage, so many --seconds ({', '.join(SEEDS)}); pip install atheris")
    p.add_argument("--out", type=Path, default=HERE / "fuzz.json")
    a = p.parse_args()
    if a.atheris and (a.target not in SEEDS or a.seconds == 1e9): p.error("--atheris needs a --target that it can change, and --seconds")
    for target in TARGETS if a.all else [a.target]:
        begin = time.monotonic()
        counts, found = guided(target, a.seconds, a.seed) if a.atheris else fuzz(target, a.inputs, a.seed, a.seconds)
        took = time.monotonic() - begin
        for place, (data, words) in found.items(): print(f"{target}: {place}: {words}\n    {data!r}"[:1500], file=sys.stderr)
        print(target, counts, f"{took:.0f} s", flush=True)
        told = json.loads(a.out.read_text()) if a.out.exists() else dict(about=__doc__.splitlines()[0], targets={})
        rows = told.setdefault("guided" if a.atheris else "targets", {})
        row = rows.get(target, dict(inputs=0, valid=0, refused=0, seconds=0, seeds=[], findings_fixed=0))
        if a.seed in row["seeds"]: print(f"seed {a.seed} of {target} is counted already"); continue
        row |= dict(inputs=row["inputs"] + sum(counts.values()), valid=row["valid"] + counts["valid"], refused=row["refused"] + counts["refused"], seconds=round(row["seconds"] + took), seeds=[*row["seeds"], a.seed], open=len(found))
        rows[target] = row
        told["versions"] = told.get("versions", {}) | dict(python=platform.python_version(), **{n: version(n) for n in ("hypothesis", *["atheris"] * a.atheris, "numpy", "pandas", "pyarrow", "torch", "soundfile", "PyYAML", "pydantic")})
        a.out.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__": sys.exit(main())
