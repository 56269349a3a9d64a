"""How far thirteen descriptors go on spotify_artist_country.parquet: 26 countries, artists apart, five folds.

python tools/accuracy_spotify.py FOLDER   # FOLDER keeps the probabilities of every model and fold, which are not computed twice; about 25 minutes on one core

Writes nbs/results/spotify26.csv, a row a fold, model and way of deciding, and nbs/results/spotify26_groups.csv, the best model's accuracy on artists whose country is in doubt and on
the others. Nothing is chosen on test rows: the settings were found on inner folds of two outer folds, the weights of the mixture are said here. Decisions: `plain` is the most probable
country; `balanced` divides the probabilities by the countries' shares of the training rows, `between` by the roots of the shares.
"""
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier  # noqa: E402
from sklearn.metrics import balanced_accuracy_score, f1_score  # noqa: E402

from geomusic.baselines import make_baseline  # noqa: E402
from geomusic.config import Config  # noqa: E402
from geomusic.corpora.spotify import spotify_corpus  # noqa: E402
from geomusic.files import atomic_path, data_folder  # noqa: E402
from geomusic.folds import group_folds  # noqa: E402
from geomusic.sound.descriptors import DESCRIPTORS  # noqa: E402
from geomusic.train import fit  # noqa: E402

ROOT, MIN_ARTISTS = Path(__file__).parents[1], 50
CPU = dict(device="cpu")
PLAIN = Config(training=dict(batch_size=256, num_epochs=15, learning_rate=3e-3, scheduler="one_cycle", early_stopping_patience=15), hardware=CPU)
TUNED = Config(model=dict(params=dict(widths=[512, 256], dropout=0.5, input_dropout=0.1)), data=dict(transform="piecewise"), hardware=CPU,
               training=dict(batch_size=512, num_epochs=16, learning_rate=3e-3, weight_decay=0.1, optimizer="adamw", scheduler="one_cycle", scheduler_warmup=0.2,
                             group_power=0.3, early_stopping_patience=16))
MIXTURE = dict(network=0.5, boosted_trees=0.25, extra_trees=0.25)


def rows():
    "Tracks of the countries with fifty artists or more that have all thirteen numbers, with their fold"
    t = spotify_corpus(data_folder(ROOT) / "spotify_artist_country.parquet", progress=False).tracks.reset_index(drop=True)
    t = t[t.groupby("country").group.transform("nunique") >= MIN_ARTISTS].reset_index(drop=True)
    t = t.assign(fold=group_folds(t, 5, 0).to_numpy())
    whole = t[DESCRIPTORS].notna().all(axis=1)
    print(f"{len(t):,} tracks of {t.country.nunique()} countries; {(~whole).sum()} lack a number and are left out")
    return t[whole].reset_index(drop=True)


def network(x, t, train, test, config):
    "Ten networks, each of which leaves out a tenth of the training artists to know when to stop"
    inner = group_folds(t[train].reset_index(drop=True), 10, 0).to_numpy()
    out = 0
    for k in range(10):
        split = np.full(len(t), "", dtype=object)
        split[np.flatnonzero(train)] = np.where(inner == k, "val", "train")
        settings = Config(**config.model_dump() | dict(reproducibility=dict(seed=k)))
        run = fit(x, t.country, split, settings, groups=t.group, progress=False, view=dict(name="tabular", features=DESCRIPTORS), labels=sorted(t.country.unique()))
        out = out + run.predict_proba(x[test]) / 10
    return out


def trees(model):
    "A model of scikit-learn on the numbers as they are"
    return lambda x, t, train, test: model().fit(x[train], t.country[train]).predict_proba(x[test])


MODELS = dict(
    majority=trees(lambda: make_baseline("majority")),
    logistic_regression=trees(lambda: make_baseline("logistic_regression")),
    extra_trees=trees(lambda: ExtraTreesClassifier(200, min_samples_leaf=3, max_features=0.5, n_jobs=1, random_state=0)),
    boosted_trees=trees(lambda: HistGradientBoostingClassifier(max_iter=150, learning_rate=0.06, max_leaf_nodes=15, l2_regularization=5, min_samples_leaf=40, random_state=0)),
    network_plain=lambda *a: network(*a, PLAIN),
    network=lambda *a: network(*a, TUNED),
)


def scores(p, y, labels):
    "What is asked of probabilities (N, C)"
    guess = labels[p.argmax(1)]
    at = np.searchsorted(labels, y)
    top = np.argsort(-p, 1)[:, :5]
    return dict(n=len(y), accuracy=(guess == y).mean(), top5=(top == at[:, None]).any(1).mean(), balanced_accuracy=balanced_accuracy_score(y, guess),
                macro_f1=f1_score(y, guess, average="macro", zero_division=0), log_loss=-np.log(np.clip(p[np.arange(len(y)), at], 1e-9, 1)).mean())


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    t = rows()
    x, labels, found, doubt = t[DESCRIPTORS].to_numpy(np.float32), np.array(sorted(t.country.unique())), [], []
    for fold in range(5):
        test = (t.fold == fold).to_numpy()
        share = t.country[~test].value_counts(normalize=True)[labels].to_numpy()
        proba = {}
        for name, model in MODELS.items():
            kept = folder / f"{name}_{fold}.npy"
            if not kept.exists():
                with atomic_path(kept) as tmp, open(tmp, "wb") as f:
                    np.save(f, model(x, t, ~test, test))
            proba[name] = np.load(kept)
            print(fold, name, {k: round(float(v), 4) for k, v in scores(proba[name], t.country[test].to_numpy(), labels).items()}, flush=True)
        proba["mixture"] = sum(w * proba[name] for name, w in MIXTURE.items())
        for name, p in proba.items():
            for rule, power in dict(plain=0, between=0.5, balanced=1).items():
                q = p / share**power
                found.append(dict(fold=fold, model=name, rule=rule, **scores(q / q.sum(1, keepdims=True), t.country[test].to_numpy(), labels)))
        right = labels[proba["mixture"].argmax(1)] == t.country[test].to_numpy()
        doubt.append(pd.DataFrame(dict(fold=fold, homonym=t.homonym[test].replace("", "none"), right=right)).groupby(["fold", "homonym"]).right.agg(["size", "mean"]).reset_index())
    for name, table in dict(spotify26=pd.DataFrame(found), spotify26_groups=pd.concat(doubt)).items():
        with atomic_path(ROOT / "nbs" / "results" / f"{name}.csv") as tmp:
            table.round(5).to_csv(tmp, index=False)
    print(pd.DataFrame(found).groupby(["rule", "model"])[["accuracy", "top5", "balanced_accuracy", "macro_f1", "log_loss"]].mean().round(4).to_string())


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
