"""Build every corpus of the book, train an FCNN on each with the commands a user would type, and gather the results that an essay reads.

python tools/train_corpora.py FOLDER [--mirage RELEASE] [--seeds 5]   # FOLDER keeps corpora and runs; finished ones are not done again

The public data sets are found as in the chapters (GEOMUSIC_DATA). RELEASE is a MIRAGE.csv with Spotify descriptors, real or simulated.
"""
import argparse
import os
import subprocess
import sys
from pathlib import Path

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import pandas as pd  # noqa: E402

from geomusic.corpus import load_corpus  # noqa: E402
from geomusic.experiments import run_baseline  # noqa: E402
from geomusic.files import atomic_path, data_folder, read_json  # noqa: E402

ROOT = Path(__file__).parent.parent
CORPORA = {  # name: how it is built, how it is split
    "spotify": ("spotify {data}/spotify_artist_country.parquet", "--min-groups 50"),
    "markets": ("markets {data}/spotify_top50_markets.csv", "--min-groups 10"),
    "markets-exclusive": ("markets {data}/spotify_top50_markets.csv --exclusive", "--min-groups 10"),
    "origin": ("origin {data}/uci_geographical_origin_68.csv", "--min-groups 5"),
    "jukebox": ("jukebox {data}", "--min-groups 10"),
    "jukebox-region": ("jukebox {data} --label region", "--min-groups 10"),
    "mirage-artist": ("mirage {mirage}", "--min-groups 50"),
    "mirage-station": ("mirage {mirage} --label station_country", "--min-groups 50"),
    "mirage-region": ("mirage {mirage} --label station_region", "--min-groups 50"),
}
BASELINES = ["logistic_regression", "extra_trees"]
COLUMNS = ["corpus", "model", "seed", "n", "n_groups", "n_classes", "accuracy", "accuracy_lo", "accuracy_hi", "majority_accuracy", "balanced_accuracy",
           "macro_f1", "km_mean", "km_median", "majority_km_mean", "majority_km_median"]


def geomusic(*words):
    print("geomusic", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "geomusic.cli", *map(str, words)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def row(metrics, **more):
    lo, hi = metrics["accuracy_ci"]
    return {c: (metrics | more | dict(accuracy_lo=lo, accuracy_hi=hi)).get(c) for c in COLUMNS}


def rows_of(name, folder, words, split, seeds):
    "Build, split, train and judge one corpus with each seed"
    corpus = folder / name / "corpus"
    if not (corpus / "tracks.parquet").exists():
        geomusic("corpus", *words, "--out", corpus)
    for seed in seeds:
        runs = {m: folder / name / f"{m}-seed{seed}" for m in ["fcnn", *BASELINES]}
        if not all((r / "metrics.json").exists() for r in runs.values()):
            geomusic("split", corpus, "--drop-small", "--seed", seed, *split.split())
            geomusic("train", corpus, "--model", "fcnn", "--out", runs["fcnn"], f"reproducibility.seed={seed}", "training.batch_size=256", "training.num_epochs=30")
            for baseline in BASELINES:
                run_baseline(load_corpus(corpus), baseline, "tabular", runs[baseline], seed)
        for model, run in runs.items():
            yield row(read_json(run / "metrics.json"), corpus=name, model=model, seed=seed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mirage", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    results = []
    for name, (source, split) in CORPORA.items():
        if "{mirage}" in source and not args.mirage:
            continue
        words = [w.format(data=data_folder(ROOT), mirage=args.mirage) for w in source.split()]
        results += rows_of(name, args.folder, words, split, range(args.seeds))
        table = pd.DataFrame(results, columns=COLUMNS)
        with atomic_path(ROOT / "nbs" / "results" / "corpora.csv") as tmp:
            table.round(5).to_csv(tmp, index=False)
        print(table[table.corpus == name].groupby("model")[["accuracy", "majority_accuracy", "km_median"]].mean().round(3).to_string(), flush=True)
