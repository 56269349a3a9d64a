"""Does a loss that knows distances make smaller mistakes? An FCNN, every loss with every setting, two corpora, five folds.

python tools/compare_losses.py FOLDER [--corpora spotify origin]   # FOLDER keeps finished rows; they are not done again

Writes nbs/results/losses.csv: a row a corpus, fold, start and setting, with its scores on validation and on test. The seed of a run is its fold (and
start). Nothing is chosen here: the chapter chooses settings by the validation columns. One thread; about 10 minutes.
"""
import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from scipy.special import log_softmax  # noqa: E402
from sklearn.metrics import f1_score  # noqa: E402

from geomusic.config import Config  # noqa: E402
from geomusic.corpora.origin import origin_corpus  # noqa: E402
from geomusic.corpora.spotify import spotify_corpus  # noqa: E402
from geomusic.files import atomic_path, data_folder, read_json, write_json  # noqa: E402
from geomusic.folds import fold_split, group_folds  # noqa: E402
from geomusic.places import countries, great_circle_km, least_expected_km  # noqa: E402
from geomusic.sound.descriptors import DESCRIPTORS  # noqa: E402
from geomusic.train import fit  # noqa: E402

ROOT = Path(__file__).parent.parent
CORPORA = {  # how it is read, artists (groups) a country, how often each fold is trained from another start, settings
    "spotify": (lambda: spotify_corpus(data_folder(ROOT) / "spotify_artist_country.parquet", progress=False), 50, 1,
                dict(batch_size=256, num_epochs=10, learning_rate=5e-3, scheduler="one_cycle")),
    "origin": (lambda: origin_corpus(data_folder(ROOT) / "uci_geographical_origin_68.csv"), 5, 2,
               dict(batch_size=32, num_epochs=30, learning_rate=3e-3, scheduler="one_cycle", early_stopping_patience=30)),
}
GRID = [("cross_entropy", {}, 0.0), ("cross_entropy", {}, 0.1)]  # loss, parameters, even smoothing
GRID += [("geo_smoothing", dict(share=share, scale_km=km), 0.0) for km, share in ((500, 0.3), (2000, 0.3), (1000, 1.0))]
GRID += [("geo_smoothing", dict(share=0.5, scale_km=1000, kernel="von_mises_fisher"), 0.0)]
GRID += [("expected_km", dict(alpha=a), 0.0) for a in (0.3, 0.7, 1.0)]
GRID += [("hierarchical", dict(region_weight=w), 0.0) for w in (0.5, 2.0)]


def scores(logits, codes, labels, at):
    "Right answers, surprise, and kilometres at the likeliest country and at the one of least expected distance; `at`: true places (N, 2)"
    to = countries().loc[labels, ["lat_deg", "lon_deg"]].to_numpy(float)
    logp = log_softmax(logits.astype(float), axis=1)
    said, least = logp.argmax(1), least_expected_km(np.exp(logp), *to.T)
    out = dict(accuracy=(said == codes).mean(), macro_f1=f1_score(codes, said, average="macro", labels=range(len(labels)), zero_division=0),
               log_loss=-logp[np.arange(len(codes)), codes].mean())
    for name, answer in dict(km=said, km_least=least).items():
        off = great_circle_km(*at.T, *to[answer].T)
        out |= {f"{name}_mean": off.mean(), f"{name}_median": np.median(off)}
    return out | dict(accuracy_least=(least == codes).mean())


def one(tracks, features, split, seed, training, loss, params, smoothing):
    "Train one network; score it on validation and test"
    x = tracks[features].astype(np.float32)
    x, country, began = x.fillna(x[split == "train"].median()).to_numpy(), tracks.country.to_numpy(object), time.process_time()
    training = training | dict(loss=loss, loss_params=params, label_smoothing=smoothing)
    run = fit(x, country, split, Config(training=training, hardware=dict(device="cpu"), reproducibility=dict(seed=seed)), progress=False)
    row = dict(loss=loss, setting=", ".join(f"{k} {v}" for k, v in (params | (dict(label_smoothing=smoothing) if smoothing else {})).items()), epochs=len(run.history))
    for side in ("val", "test"):
        on = split == side
        found = scores(run.logits(x[on]), np.searchsorted(run.labels, country[on]), run.labels, tracks.loc[on, ["lat_deg", "lon_deg"]].to_numpy(float))
        row |= {f"{side}_{k}": float(v) for k, v in found.items()}
    return row | dict(cpu_s=time.process_time() - began)


def compare(name, folder):
    "Rows of a corpus"
    read, groups, starts, training = CORPORA[name]
    corpus = read()
    folds = group_folds(corpus.tracks, 5, 0, min_groups=groups, drop=True)
    tracks, folds = (t[folds >= 0].reset_index(drop=True) for t in (corpus.tracks, folds))
    for fold, start, i in np.ndindex(5, starts, len(GRID)):
        done = folder / f"{name}-{fold}-{start}-{i:02}.json"
        if not done.exists():
            row = one(tracks, corpus.report.get("features", DESCRIPTORS), fold_split(folds, fold).to_numpy(), fold + 100 * start, training, *GRID[i])
            write_json(done, dict(corpus=name, fold=fold, start=start) | row)
        yield read_json(done)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--corpora", nargs="+", default=list(CORPORA), choices=list(CORPORA))
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.corpora:
        for r in compare(name, args.folder):
            rows.append(r)
            print(name, r["fold"], r["start"], r["loss"], r["setting"], f"epochs {r['epochs']} acc {r['val_accuracy']:.4f} km {r['val_km_mean']:.0f} ({r['cpu_s']:.0f} s)", flush=True)
    table = pd.DataFrame(rows)
    print(f"{table.cpu_s.sum()/60:.0f} minutes of training")
    if set(args.corpora) == set(CORPORA):
        with atomic_path(ROOT / "nbs" / "results" / "losses.csv") as tmp:
            table.drop(columns="cpu_s").round(5).to_csv(tmp, index=False)
