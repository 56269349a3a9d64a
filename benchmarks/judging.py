"""How fast answers are judged, beside scikit-learn's functions asked again for every resample; writes benchmarks/judging.json.

python benchmarks/judging.py                 # half a minute
python benchmarks/judging.py --rows 100000

Both resample whole groups. scikit-learn is asked for the eight scores of ours that it has; ours gives the kilometres, areas and calibration besides.
"""
import os

for name in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")
import argparse  # noqa: E402
import json  # noqa: E402
import time  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from machine import machine  # noqa: E402
from sklearn import metrics as sk  # noqa: E402

from geomusic.evaluate import predictions_table, score  # noqa: E402
from geomusic.places import countries  # noqa: E402

CLASSES, RESAMPLES, ASKED = 57, 1000, 10  # the function-by-function way is asked for some resamples only, and its time is scaled


def answers(n, rng):
    "Made-up answers: n tracks, five a group, right more often than by chance"
    codes = np.sort(countries().index.to_numpy()[:CLASSES])
    truth = rng.integers(CLASSES, size=-(-n // 5)).repeat(5)[:n]
    proba = rng.dirichlet(np.full(CLASSES, 0.3), n) + np.eye(CLASSES)[truth] * rng.random((n, 1))
    tracks = pd.DataFrame(dict(track_id=np.arange(n).astype(str), country=codes[truth], group=(np.arange(n) // 5).astype(str)))
    return tracks, truth, proba / proba.sum(1, keepdims=True), list(codes)


def one_by_one(truth, proba):
    "What scikit-learn has of our scores"
    guess, every = proba.argmax(1), np.arange(CLASSES)
    f1 = {f"{how}_f1": sk.f1_score(truth, guess, average=how, zero_division=0) for how in ("macro", "micro", "weighted")}
    top = {f"top{k}": sk.top_k_accuracy_score(truth, proba, k=k, labels=every) for k in (3, 5)}
    return f1 | top | dict(accuracy=sk.accuracy_score(truth, guess), balanced_accuracy=sk.balanced_accuracy_score(truth, guess), log_loss=sk.log_loss(truth, proba, labels=every))


def seconds(call):
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def beside_scikit_learn(n):
    "Seconds for all scores with intervals"
    rng = np.random.default_rng(0)
    tracks, truth, proba, labels = answers(n, rng)
    predictions = predictions_table(tracks, proba, labels)
    groups = tracks.group.astype(int).to_numpy()
    starts = np.searchsorted(groups, np.arange(groups.max() + 2))
    ours, got = seconds(partial(score, predictions, "", RESAMPLES))
    want = one_by_one(truth, proba)
    assert all(np.isclose(got[m], v, atol=1e-5) for m, v in want.items()), "what is timed gives the same"

    def asked():
        for _ in range(ASKED):
            rows = np.concatenate([np.arange(starts[g], starts[g + 1]) for g in rng.integers(groups.max() + 1, size=groups.max() + 1)])
            one_by_one(truth[rows], proba[rows])

    other = seconds(asked)[0] / ASKED * RESAMPLES
    return dict(what=f"judge {n:,} answers with {RESAMPLES:,} bootstraps, seconds", ours=ours, other=other, beside="scikit-learn's functions", ratio=other / ours)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    row = beside_scikit_learn(parser.parse_args().rows)
    print(f"{row['what']:50} {row['ours']:8.2f}   {row['beside']:26} {row['other']:8.1f}   ratio {row['ratio']:.1f}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(dict(machine=machine("numpy", "scikit-learn"), rows=[row]), indent=1) + "\n")
