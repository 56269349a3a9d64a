"""What becomes of our files when processes are killed, disks are full and bits flip: tried at random moments, counted.

    python benchmarks/faults.py --fault "killed while training" --tries 30     # adds to faults.json
    python benchmarks/faults.py --list

A try survives if nothing is lost that was reported as saved, nothing half-written is read as whole, and, where something cannot go on, an `InputError` or
`OSError` says so. Damage to files is counted apart: noticed, harmless (what is read is equal), or unnoticed.
"""
import argparse
import hashlib
import json
import os
import platform
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from unittest import mock

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"): os.environ.setdefault(name, "1")

import numpy as np
import pandas as pd
import psutil
import soundfile as sf

from geomusic.config import load_config
from geomusic.corpora.audio_folder import audio_folder_corpus, save_audio_corpus
from geomusic.corpus import Corpus, load_corpus, save_corpus
from geomusic.evaluate import evaluate, predictions_table, read_predictions
from geomusic.exploring.answers import append_answer, read_answers
from geomusic.files import InputError, read_json, write_json
from geomusic.grid import collect_grid, grid_table, read_grid, read_record, run_grid
from geomusic.places import countries
from geomusic.runs import load_run
from geomusic.sound.engine import extract
from geomusic.train import fit
from geomusic.views import View, load_view, store_view, verify_view

HERE = Path(__file__).parent


class Lost(Exception):
    "Something that must not happen"


# ---- work that is disturbed


def tracks(n=24):
    t = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], group=[f"g{i}" for i in range(n)], country=np.array(["CHN", "DEU", "IRL"])[np.arange(n) % 3], title="", artist="", audio=""))
    return t.join(countries()[["lat_deg", "lon_deg"]], on="country")


def sounds(folder, n=12):
    "A folder of sound, a second each"
    for i in range(n):
        path = folder / ("China", "Germany", "Ireland")[i % 3] / f"artist {i}" / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, 0.3 * np.sin(2 * np.pi * (200 + 40 * i) * np.arange(22050) / 22050) + 0.01 * np.random.default_rng(i).normal(size=22050), 22050)
    return folder


def build(home):
    "A corpus of sound"
    save_audio_corpus(audio_folder_corpus(home.parent / "sounds", progress=False), home / "corpus")


def compute(home):
    "Its views"
    if not (home / "corpus" / "report.json").exists(): build(home)
    extract(load_corpus(home / "corpus"), ["melspec", "sequence"], n_jobs=1, progress=False)


DATA = dict(x=np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32), y=np.array(["CHN", "DEU", "IRL"])[np.arange(60) % 3], split=np.repeat(["train", "val", "test"], [36, 12, 12]))


def train(home):
    "A run, gone on with if it was begun"
    fit(**DATA, config=load_config(overrides=["training.num_epochs=12", "training.early_stopping_patience=12", "model.params.widths=[8]"]), out=home / "run", progress=False, resume=True)


def ahead(workers, epochs=6):
    "The same, each batch read from the view by one of so many workers; 0: by the loop"
    more = [f"training.num_epochs={epochs}", "training.early_stopping_patience=12", "training.batch_size=4", "model.params.widths=[8]", "data.in_memory_mb=0", f"hardware.num_workers={workers}"]
    return lambda home: fit(**DATA, config=load_config(overrides=more), out=home / "run", progress=False, resume=True)


def views_by(n_jobs, **how):
    "The views of a larger corpus, which is there, by so many workers"
    return lambda home: extract(load_corpus(home / "corpus"), ["melspec", "sequence"], n_jobs=n_jobs, progress=False, **how)


CELLS = ["seed = 0\nlevel = 1\nout = ''", "import numpy as np\nfrom geomusic.grid import write_metrics", "write_metrics(out, [dict(accuracy=abs(np.random.default_rng(seed).normal(level)))], globals())"]


def template(folder):
    "A notebook, and a grid that runs it four times"
    cells = [dict(cell_type="code", id=f"c{i}", metadata=dict(tags=["parameters"][i:]), source=c, outputs=[], execution_count=None) for i, c in enumerate(CELLS)]
    write_json(folder / "toy.ipynb", dict(cells=cells, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), nbformat=4, nbformat_minor=5))
    (folder / "grid.yaml").write_text("template: toy.ipynb\noverrides: {level: [1, 2]}\nseeds: [0, 1]\n")


def grid(home):
    "The grid, two runs at a time; each is reported when it is finished"
    if "failed" in set(run_grid(home.parent / "grid.yaml", 2, out=home).status): raise Lost("a run failed")


def answer(home):
    "Forty answers; each is reported when it is on the disk"
    for i in range(40):
        if append_answer(home / "answers.csv", dict(listener_id=f"l{i % 4}", track_id=f"t{i}", country="IRL", confidence=0.5, truth="shown")):
            with open(home.with_suffix(".told"), "a") as f: f.write(f"t{i}\n")


def digest(home):
    "What the work came to, without what may differ from time to time"
    if (home / "run").exists():
        run = load_run(home / "run")
        return hashlib.sha256(run.predict_proba(DATA["x"]).tobytes() + run.history.drop(columns=[c for c in run.history if "second" in c or c.endswith("_s")]).to_csv().encode()).hexdigest()
    if (home.parent / "grid.yaml").exists(): return collect_grid(home).drop(columns=["started", "dur_s"]).to_csv()
    if (home / "answers.csv").exists(): return sorted(read_answers(home / "answers.csv").track_id)
    c = load_corpus(home / "corpus")
    views = [hashlib.sha256(np.ascontiguousarray(load_view(home / "corpus", n).x).tobytes()).hexdigest() for n in ("melspec", "sequence") if (home / "corpus" / "views" / f"{n}.json").exists()]
    return c.tracks.drop(columns="audio").to_csv(), views


def look(home):
    "Whatever is there is read: whole, or it is said that it is not"
    n = len(list((home.parent / "sounds").rglob("*.wav")))
    with suppress(InputError): c = load_corpus(home / "corpus"); assert len(c) == n, len(c)
    for view in ("melspec", "sequence"):
        with suppress(InputError): v = load_view(home / "corpus", view); assert len(v.x) == n and not len(verify_view(home / "corpus", view))
    with suppress(InputError): run = load_run(home / "run"); assert np.isfinite(run.predict_proba(DATA["x"])).all()
    told = home.with_suffix(".told").read_text().split() if home.with_suffix(".told").exists() else []
    if not set(told) <= set(read_answers(home / "answers.csv").track_id): raise Lost("an answer that was reported as saved")
    if not (home.parent / "grid.yaml").exists(): return
    with suppress(InputError): grid_table(home, read_grid(home.parent / "grid.yaml"))
    if (home / "results.parquet").exists(): pd.read_parquet(home / "results.parquet")
    for run in re.findall(r"([\w-]+): finished", home.with_suffix(".said").read_text()):
        if read_record(home / run).get("status") != "finished": raise Lost("a run that was reported as finished")


WORK = {"building a corpus": build, "extracting views": compute, "training": train, "a listening test": answer}
LARGER = one, two_of_ours, two_of_dask = views_by(1), views_by(2), views_by(2, backend="dask", scheduler="local")
WORKERS = {"worker dies while extracting": (two_of_ours, one), "Dask worker lost": (two_of_dask, one), "DataLoader worker dies": (ahead(2), ahead(0))}  # and the same without workers


SAID = 3  # it ended with an error that says what to do


def child(work, home):
    "The work in a process of its own, which has everything imported"
    if pid := os.fork(): return pid
    code = 1
    try:
        os.setsid()
        os.dup2(os.open(home.with_suffix(".said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        sys.stderr = os.fdopen(2, "w", 1)
        try: work(home); code = 0
        except InputError as e: code = SAID if e.remedy else 1
        except BaseException: traceback.print_exc()
    finally: os._exit(code)  # whatever happens, this process does not go on as its parent would


def ended(pid): return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def place(work):
    "A folder for one try, with what the work needs beside it"
    with tempfile.TemporaryDirectory() as d:
        d = Path(d)
        if work in (build, compute): sounds(d / "sounds")
        if work is grid: template(d)
        (d / "home").mkdir()
        if work in LARGER: sounds(d / "sounds", 48), build(d / "home")
        yield d / "home"


def whole(work):
    "Seconds that the work takes, and what it comes to"
    with place(work) as home:
        begin = time.monotonic()
        if ended(child(work, home)): raise Lost("the work does not even end undisturbed")
        return time.monotonic() - begin, digest(home)


def killed(work, tries, rng):
    "SIGKILL at a random moment, up to three times, then once to the end"
    took_s, right = whole(work)
    for _ in range(tries):
        with place(work) as home:
            for _ in range(rng.integers(1, 4)):
                pid = child(work, home)
                time.sleep(rng.uniform(0, took_s))
                with suppress(ProcessLookupError): os.killpg(pid, signal.SIGKILL)
                os.kill(pid, signal.SIGKILL)
                ended(pid)
                look(home)
            if ended(child(work, home)): raise Lost("it did not go on")
            yield digest(home) == right


def two(work, tries, rng):
    "Two processes on one folder"
    _, right = whole(work)
    for _ in range(tries):
        with place(work) as home:
            codes = [ended(p) for p in [child(work, home), child(work, home)]]
            look(home)
            if 0 not in codes: raise Lost("neither came to an end")
            yield digest(home) == right


def workers(pid):
    "The processes that work for this one"
    with suppress(psutil.Error): return [p for p in psutil.Process(pid).children(recursive=True) if p.status() != "zombie" and "tracker" not in " ".join(p.cmdline())]
    return []


def begun(home):
    "Is something made already?"
    with suppress(FileNotFoundError): return (home / "run" / "last.pth").exists() or any(p.stat().st_size for p in home.glob("corpus/views/part/*.journal"))


def bereaved(works, tries, rng):
    "One of its workers is killed at a random moment, in every second try not before something is made: it goes on, or says what to do and the same again comes to its end"
    (took_s, alike), (_, right) = map(whole, works)
    if alike != right: raise Lost("the workers make something else")
    tried = 0
    while tried < tries:
        with place(works[0]) as home:
            pid, late, hit = child(works[0], home), rng.integers(2), False
            at = time.monotonic() + (wait_s := rng.uniform(0, 1 if late else took_s))
            while not hit and not os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                time.sleep(0.002)
                if late and not begun(home): at = time.monotonic() + wait_s
                with suppress(psutil.Error, ValueError):
                    if time.monotonic() > at: hit = not (found := workers(pid))[rng.integers(len(found))].kill()
            code = ended(pid)
            look(home)
            if not hit: continue
            if code == SAID: code = ended(child(works[0], home))
            if code: raise Lost(f"code {code}: {home.with_suffix('.said').read_text()[-2000:]}")
            tried += 1
            yield digest(home) == right


# ---- disks


@contextmanager
def disk(kib):
    "A small disk in memory; needs root"
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", d], check=True, capture_output=True)
        try: yield Path(d)
        finally: subprocess.run(["umount", "-l", d], capture_output=True)


def may_mount():
    try:
        with disk(64): return True
    except (OSError, subprocess.CalledProcessError): return False


def _predictions(seed=0):
    return predictions_table(tracks(), np.random.default_rng(seed).dirichlet(np.ones(3), 24), ["CHN", "DEU", "IRL"])


def _store(home):
    if not (home / "tracks.parquet").exists(): save_corpus(Corpus(tracks()), home)
    store_view(home, View("tabular", np.random.default_rng(0).normal(size=(24, 400)).astype(np.float32), np.ones(24, int)))


WRITES = {  # what is written, and how it is read: the value, or an `InputError`
    "corpus": (lambda h: save_corpus(Corpus(tracks()), h), lambda h: load_corpus(h).tracks.to_csv()),
    "view": (_store, lambda h: load_view(h, "tabular").x.tobytes()),
    "run": (lambda h: fit(**DATA, config=load_config(overrides=["training.num_epochs=2", "model.params.widths=[64,64]"]), out=h, progress=False), lambda h: load_run(h).predict_proba(DATA["x"]).tobytes()),
    "judged": (lambda h: evaluate(_predictions(), h, n_bootstrap=20), lambda h: read_predictions(h).to_csv() + str(read_json(h / "metrics.json")["accuracy"])),
    "answers": (lambda h: [append_answer(h / "a.csv", dict(listener_id="l", track_id=f"t{i}", country="IRL", truth="shown")) for i in range(9)], lambda h: len(read_answers(h / "a.csv")) or Path(h / "a.csv").read_bytes()[:0])}


def full(what, tries, rng):
    "A disk that fills up somewhere on the way: what was there stays, nothing half is read as whole, with room it goes on"
    write, read = WRITES[what]
    with tempfile.TemporaryDirectory() as d:
        write(Path(d))
        right, size = read(Path(d)), sum(p.stat().st_size for p in Path(d).rglob("*") if p.is_file())
    for _ in range(tries):
        with disk(8192) as d:
            again = bool(rng.integers(2))
            if again: write(d)  # there is something already
            room = 8 * 2**20 - sum(-(-p.stat().st_size // 4096) * 4096 for p in d.rglob("*") if p.is_file())
            with suppress(OSError), open(d / "filler", "wb") as f: f.write(bytes(max(0, int(room - rng.uniform(0, 1.2) * size))))
            try: write(d)
            except (InputError, OSError) as e:
                if not str(e): raise Lost("without a word") from e
            if what != "answers":
                with suppress(InputError):
                    if read(d) != right: raise Lost(f"half a {what} is read as whole")
                if again and read(d) != right: raise Lost(f"the old {what} is gone")
            (d / "filler").unlink()
            write(d)
            yield read(d) == right


def read_only(what, tries, rng):
    "A folder that cannot be written to: an error with words, and what is there is still read"
    write, read = WRITES[what]
    for _ in range(tries):
        with disk(8192) as d:
            write(d)
            right = read(d)
            subprocess.run(["mount", "-o", "remount,ro", str(d)], check=True)
            try: write(d); said = what == "view"  # what is there already need not be written
            except (InputError, OSError) as e: said = bool(str(e))
            yield said and read(d) == right


# ---- damage


def _equal(a, b):
    if isinstance(a, dict) and isinstance(b, dict): return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return type(a) is type(b) and len(a) == len(b) and all(map(_equal, a, b))
    if isinstance(a, pd.DataFrame): return a.equals(b)
    if hasattr(a, "tobytes") or hasattr(a, "numpy"): return np.array_equal(np.asarray(a), np.asarray(b), equal_nan=np.asarray(a).dtype.kind == "f")
    return a == b


def _view_whole(h):
    v = load_view(h, "tabular")
    if len(verify_view(h, "tabular")): raise InputError("rows are damaged", "Make them again.")
    return np.array(v.x), v.n_frames, v.params


FILES = {  # kind: (who writes it, the file, how it is read)
    "tracks.parquet": ("corpus", "tracks.parquet", lambda h: load_corpus(h).tracks),
    "view .npy": ("view", "views/tabular.npy", _view_whole),
    "view .parquet": ("view", "views/tabular.parquet", _view_whole),
    "view .json": ("view", "views/tabular.json", _view_whole),
    "best_model.pth": ("run", "best_model.pth", lambda h: (r := load_run(h)) and (dict(r.model.state_dict()), r.labels, r.scaler.state(), r.view)),
    "last.pth": ("run", "last.pth", lambda h: __import__("geomusic.learning.resume").learning.resume._read_state(h / "last.pth")),
    "predictions.parquet": ("judged", "predictions.parquet", read_predictions),
    "metrics.json": ("judged", "metrics.json", lambda h: read_json(h / "metrics.json")),
    "report.json": ("corpus", "report.json", lambda h: load_corpus(h).report),
    "history.csv": ("run", "history.csv", lambda h: load_run(h).history),
    "config.yaml": ("run", "config.yaml", lambda h: load_config(h / "config.yaml").model_dump())}


def damaged(kind, tries, rng):
    "'noticed', 'harmless' or 'unnoticed' of a file that was cut off or has a flipped bit"
    who, name, read = FILES[kind]
    with tempfile.TemporaryDirectory() as d:
        h = Path(d)
        WRITES[who][0](h)
        if not (h / name).exists(): raise Lost(f"there is no {name}")
        good, right = (h / name).read_bytes(), read(h)
        for i in range(tries):
            bad = bytearray(good)
            if i % 2: del bad[rng.integers(len(bad)):]
            else: bad[rng.integers(len(bad))] ^= 1 << rng.integers(8)
            (h / name).write_bytes(bad)
            try: found = read(h)
            except InputError: yield "noticed"
            else: yield "harmless" if _equal(found, right) else "unnoticed"


# ---- clock


def backwards(work, tries, rng):
    "Each look at the clock gives an earlier time than the one before"
    _, right = whole(work)

    def wrong(home):
        now = [2e9]
        def earlier():
            now[0] -= 1000
            return now[0]
        with mock.patch("time.time", earlier): work(home)
    for _ in range(tries):
        with place(work) as home:
            if ended(child(wrong, home)): raise Lost("it stopped")
            look(home)
            yield digest(home) == right


FAULTS = {f"killed while {name}" if not name.startswith("a ") else f"killed during {name}": (killed, work) for name, work in WORK.items()}
FAULTS |= {f"two processes {name}" if not name.startswith("a ") else f"two processes at {name}": (two, work) for name, work in WORK.items()}
FAULTS |= {"killed during a grid": (killed, grid)} | {name: (bereaved, works) for name, works in WORKERS.items()}
FAULTS |= {f"disk full: {what}": (full, what) for what in WRITES} | {f"read-only folder: {what}": (read_only, what) for what in WRITES}
FAULTS |= {f"clock goes backwards: {name}": (backwards, work) for name, work in WORK.items()}
FAULTS |= {f"damaged: {kind}": (damaged, kind) for kind in FILES}


def tried(fault, tries, number=0, seconds=1e9):
    "Counts: tried, survived; of damage: tried, noticed, harmless, unnoticed"
    run, on = FAULTS[fault]
    if run in (full, read_only) and not may_mount(): return dict(tried=0, why="a disk can only be mounted by root")
    begin, got = time.monotonic(), []
    for result in run(on, tries, np.random.default_rng(number)):
        got.append(result)
        if time.monotonic() - begin > seconds: break
    if run is damaged: return dict(tried=len(got)) | {w: got.count(w) for w in ("noticed", "harmless", "unnoticed")}
    return dict(tried=len(got), survived=sum(map(bool, got)))


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--fault", default="", help="those whose name begins so")
    p.add_argument("--tries", type=int, default=20)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--seconds", type=float, default=1e9, help="for each fault")
    p.add_argument("--list", action="store_true")
    p.add_argument("--out", type=Path, default=HERE / "faults.json")
    a = p.parse_args()
    for fault in [f for f in FAULTS if f.startswith(a.fault)]:
        if a.list: print(fault); continue
        told = json.loads(a.out.read_text()) if a.out.exists() else dict(about=__doc__.splitlines()[0], faults={})
        row = told["faults"].get(fault, dict(seeds=[]))
        if a.seed in row.setdefault("seeds", [0]): print(f"seed {a.seed} of {fault} is counted already"); continue
        counts = tried(fault, a.tries, a.seed, a.seconds)
        print(fault, counts, flush=True)
        if not counts["tried"]: continue
        told["faults"][fault] = {n: row.get(n, 0) + count for n, count in counts.items()} | dict(seeds=[*row["seeds"], a.seed])
        told["versions"] = dict(python=platform.python_version(), system=platform.system(), **{n: version(n) for n in ("numpy", "pandas", "pyarrow", "torch")})
        write_json(a.out, told)


if __name__ == "__main__": sys.exit(main())
