"""What each job costs as its input grows: CPU seconds and peak memory, each size in a process of its own; writes benchmarks/scale.json.

python benchmarks/scale.py                       # all jobs but `corpus`; half an hour or so on one core
python benchmarks/scale.py fcnn evaluate         # some of them; the others' numbers are kept
python benchmarks/scale.py corpus --events FILE  # needs a MIRAGE.csv of a million events, of which it takes the first ones
python benchmarks/scale.py tsne --most 5000      # no size above it

CPU seconds are user and system time of one process with one compute thread, so that other work on the machine disturbs little. Memory is what the job adds to what its imports already take.
Inputs are made up (noise in the right shape, tunes that are rendered): costs do not depend on what the numbers mean.
"""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from machine import machine, peak_bytes  # noqa: E402

OUT, CLASSES = Path(__file__).with_suffix(".json"), 57


def codes(n=CLASSES):
    "So many countries"
    from geomusic.places import countries

    return countries().index.to_numpy()[:n]


def decades(first, last, steps=1):
    "Whole numbers from 10**first to 10**last, so many a decade"
    return [round(10 ** (i / steps)) for i in range(first * steps, last * steps + 1)]


# ---- the jobs: each takes a size, a generator and a folder, prepares, and returns the call that is measured


def corpus(n, rng, tmp, events=None):
    "A MIRAGE.csv of n events becomes a corpus"
    from geomusic.corpora.mirage import _load_maps, mirage_corpus

    with open(events, "rb") as f, open(tmp / "MIRAGE.csv", "wb") as g:
        g.writelines(islice(f, n + 1))
    _load_maps()
    return lambda: mirage_corpus(tmp / "MIRAGE.csv", progress=False)


def split(n, rng, tmp):
    "n tracks of 57 countries, three a group, are split by group"
    from geomusic.splits import split_by_group

    country = rng.integers(CLASSES, size=-(-n // 3)).repeat(3)[:n]
    tracks = pd.DataFrame(dict(track_id=np.arange(n).astype(str), country=codes()[country], group=(np.arange(n) // 3).astype(str)))
    return lambda: split_by_group(tracks, seed=0, drop=True)  # countries with too few groups are left out


def extract(n, rng, tmp):
    "n clips of thirty seconds become three views"
    import soundfile as sf

    from geomusic.corpus import Corpus, save_corpus
    from geomusic.sound.engine import extract as call
    from geomusic.synth import SR, render_tune
    from geomusic.tunes import all_tunes

    tunes = all_tunes().query("refused == ''").iloc[:: max(1, 12000 // n)].head(n)
    (tmp / "audio").mkdir()
    for i, r in enumerate(tunes.itertuples()):  # each another sound: what was seen before is not computed again
        sf.write(tmp / f"audio/{i}.flac", render_tune(r.track_id, r.midi, r.dur_ql, total_s=30.0), SR)
    k = np.arange(n)
    tracks = pd.DataFrame(dict(track_id=[f"{i}" for i in k], country=codes()[k % CLASSES], lat_deg=0.0, lon_deg=0.0, group=[f"{i}" for i in k], title="", artist="", audio=[f"audio/{i}.flac" for i in k]))
    c = Corpus(tracks, dict(read=n, kept=n, merged=0, refused={}, source="made for a benchmark"))
    save_corpus(c, tmp)
    c.folder = tmp
    call(Corpus(tracks.head(1), dict(c.report, read=1, kept=1), folder=_side(tmp)), n_jobs=1, progress=False)  # imports and compiled code
    return lambda: call(c, n_jobs=1, progress=False)


def _side(tmp):
    "A folder beside, with the same audio"
    side = tmp / "side"
    side.mkdir()
    os.symlink(tmp / "audio", side / "audio")
    return side


def training(model, shape, epochs, batch):
    "Epochs of a network over n rows"

    def job(n, rng, tmp):
        from geomusic.config import Config
        from geomusic.train import fit

        x = np.lib.format.open_memmap(tmp / "x.npy", "w+", np.float16 if len(shape) > 1 else np.float32, (n, *shape))
        for i in range(0, n, 256):
            x[i : i + 256] = rng.standard_normal(x[i : i + 256].shape, np.float32)
        x.flush()
        y = codes(5)[np.arange(n) % 5]
        settings = Config(model=dict(type=model), training=dict(batch_size=batch, num_epochs=epochs, early_stopping_patience=99), hardware=dict(device="cpu", num_workers=0))
        side, rows = np.where(np.arange(n) % 10 == 0, "val", "train"), np.load(tmp / "x.npy", mmap_mode="r")
        return lambda: fit(rows, y, side, settings, labels=codes(5), progress=False)

    job.__doc__ = f"{epochs} epoch{'s' * (epochs > 1)} of the {model} over n rows of {' x '.join(map(str, shape))}"
    return job


def evaluate(n, rng, tmp):
    "n predictions of 57 countries are judged, with 1,000 bootstraps over groups of five"
    from geomusic.evaluate import predictions_table, score

    c = codes()
    country = rng.integers(CLASSES, size=-(-n // 5)).repeat(5)[:n]
    tracks = pd.DataFrame(dict(track_id=np.arange(n).astype(str), country=c[country], group=(np.arange(n) // 5).astype(str)))
    proba = rng.dirichlet(np.full(CLASSES, 0.3), n)
    p = predictions_table(tracks, proba / proba.sum(1, keepdims=True), list(c))
    del proba
    return lambda: score(p, "made up", 1000)


def picture(method):
    "A map of n points in 64 dimensions"

    def job(n, rng, tmp):
        from geomusic.exploring.embeddings import plane

        centres, z = rng.standard_normal((CLASSES, 64)), rng.integers(CLASSES, size=n)
        z = (centres[z] + rng.standard_normal((n, 64))).astype(np.float32)
        plane(z[:100], method)  # imports and compiled code
        return lambda: plane(z, method)

    job.__doc__ = f"{method} of n points in 64 dimensions"
    return job


def leaderboard(n, rng, tmp):
    "n results, twenty seeds a model, become a leaderboard"
    from geomusic.judging.boards import board_table

    results = pd.DataFrame(dict(model=[f"m{i // 20}" for i in range(n)], seed=np.arange(n) % 20, accuracy=rng.random(n), top5=rng.random(n), km_mean=5000 * rng.random(n)))
    board_table(results.head(), ["accuracy"])  # imports
    return lambda: board_table(results, ["accuracy", "top5", "km_mean"])


JOBS = dict(  # name: (job, sizes, what is counted)
    corpus=(corpus, decades(3, 6), "events"),
    split=(split, decades(3, 6), "tracks"),
    extract=(extract, decades(1, 3, 2), "clips"),
    fcnn=(training("fcnn", (13,), 3, 2048), decades(3, 6), "rows"),
    cnn=(training("cnn", (1, 128, 1292), 1, 16), decades(1, 2, 2) + [320], "clips"),
    attention=(training("attention", (600, 25), 1, 32), decades(1, 3, 2), "clips"),
    evaluate=(evaluate, decades(3, 6), "predictions"),
    tsne=(picture("tsne"), decades(2, 4, 2) + [31623], "points"),
    umap=(picture("umap"), decades(2, 4, 2) + [31623], "points"),
    leaderboard=(leaderboard, decades(2, 5), "results"),
)


# ---- measuring


def spent():
    "CPU seconds of this process and its children"
    return sum(r.ru_utime + r.ru_stime for r in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def now_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6 if Path("/proc/self/statm").exists() else peak_bytes() / 1024e3


def child(name, n, events):
    "One job of one size, in this process"
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as tmp:
        call = JOBS[name][0](n, np.random.default_rng(0), Path(tmp), **(dict(events=events) if name == "corpus" else {}))
        before_mb, begun, start = now_mb(), spent(), time.perf_counter()
        call()
        print(json.dumps(dict(job=name, n=n, cpu_s=spent() - begun, seconds=time.perf_counter() - start, before_mb=before_mb, peak_mb=peak_bytes() / 1024e3)))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("jobs", nargs="*", help=f"some of {', '.join(JOBS)}")
    p.add_argument("--events", help="a MIRAGE.csv, for the job `corpus`")
    p.add_argument("--most", type=int, default=10**9, help="largest size")
    p.add_argument("--child", type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    unknown = set(a.jobs) - set(JOBS)
    if unknown:
        sys.exit(f"no such job: {', '.join(sorted(unknown))}; there are {', '.join(JOBS)}")
    if a.child:
        return child(a.jobs[0], a.child, a.events)
    jobs = a.jobs or [j for j in JOBS if j != "corpus" or a.events]
    if "corpus" in jobs and not a.events:
        sys.exit("the job `corpus` needs --events MIRAGE.csv")
    kept = json.loads(OUT.read_text())["rows"] if OUT.exists() else []
    for name in jobs:
        for n in (n for n in JOBS[name][1] if n <= a.most):
            more = ["--events", a.events] if name == "corpus" else []
            done = subprocess.run([sys.executable, "-W", "ignore", __file__, name, "--child", str(n), *more], capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(f"{name} {n}: {done.stderr}")
            row = json.loads(done.stdout.splitlines()[-1]) | dict(what=JOBS[name][0].__doc__, unit=JOBS[name][2])
            kept = [r for r in kept if (r["job"], r["n"]) != (name, n)] + [row]
            print(f"{name:12} {n:>9,} {row['unit']:11} {row['cpu_s']:8.2f} s of CPU  {row['seconds']:8.2f} s  {row['peak_mb'] - row['before_mb']:+8.0f} MB on {row['before_mb']:.0f}", flush=True)
            order = {j: i for i, j in enumerate(JOBS)}
            kept.sort(key=lambda r: (order[r["job"]], r["n"]))
            OUT.write_text(json.dumps(dict(machine=machine("numpy", "scikit-learn", "umap-learn"), rows=kept), indent=1) + "\n")


if __name__ == "__main__":
    main()
