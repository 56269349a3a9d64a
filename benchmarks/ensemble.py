"""Ensembles of folk-tune models on ten splits: the members, the best of them on validation, and three ways to combine them.

python benchmarks/ensemble.py   # some three minutes on one core; writes nbs/results/ensemble.csv
"""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import sys  # noqa: E402
import tempfile  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402
from tqdm.auto import tqdm  # noqa: E402

from geomusic.config import load_config  # noqa: E402
from geomusic.experiments import make_split  # noqa: E402
from geomusic.files import atomic_path  # noqa: E402
from geomusic.inputs import encode_labels  # noqa: E402
from geomusic.learning.ensemble import HOWS, Ensemble, fit_ensemble  # noqa: E402
from geomusic.scores import surprise  # noqa: E402
from geomusic.sound.engine import extract  # noqa: E402
from geomusic.synth import write_audio  # noqa: E402
from geomusic.train import fit  # noqa: E402
from geomusic.tunes import tunes_corpus  # noqa: E402

SPLITS, FAMILIES = range(10), 200
BRIEF, SMALL = ["training.num_epochs=25"], ["model.params.hidden=32", "model.params.num_layers=1", "training.num_epochs=12", "training.learning_rate=5e-3"]
MODELS = {f"fcnn-melody-{s}": ("melody", *BRIEF, f"reproducibility.seed={s}") for s in range(3)}
MODELS |= {"fcnn-tabular": ("tabular", *BRIEF), "rnn-sequence": ("sequence", *SMALL), "attention-sequence": ("sequence", *SMALL)}
FOUR = ["fcnn-melody-0", "fcnn-tabular", "rnn-sequence", "attention-sequence"]
SETS = {"notes and sound": FOUR, "sound only": FOUR[1:], "three seeds": [f"fcnn-melody-{s}" for s in range(3)]}


def trained(name, tracks, views, side):
    "One of the models on one split"
    view, *settings = MODELS[name]
    v, config = views[view], load_config(None, [f"model.type={name.split('-')[0]}", *settings])
    return fit(v.x, tracks.country, side, config, n_frames=v.n_frames, progress=False, view=dict(name=view) | v.params)


def judged(runs, tracks, views, side):
    "Rows of results of one set of members"
    val, test = (np.flatnonzero(side == s) for s in ("val", "test"))
    e = Ensemble(list(runs.values()))
    p_val, p_test = (e.member_proba(views, rows) for rows in (val, test))  # (K, N, C) each
    y_val, y = (encode_labels(tracks.country.iloc[rows], e.labels) for rows in (val, test))
    said = dict(zip(runs, p_test)) | {"best member": p_test[int(np.argmin([surprise(p, y_val).mean() for p in p_val]))]}
    said |= {how: fit_ensemble(e, p_val, tracks.iloc[val], how).combine(p_test) for how in HOWS}
    return [dict(model=m, accuracy=(p.argmax(1) == y).mean(), log_loss=surprise(p, y).mean(), n_val=len(val), n_test=len(test)) for m, p in said.items()]


def main(path):
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        corpus = write_audio(tunes_corpus(("CHN", "DEU", "IRL"), FAMILIES), folder, progress=False)
        tracks, views = corpus.targets(), extract(corpus, ["melody", "tabular", "sequence"], n_jobs=1, progress=False)
        for seed in tqdm(SPLITS, unit="split"):
            side = make_split(corpus, sizes=(0.5, 0.25, 0.25), seed=seed).to_numpy()
            runs = {m: trained(m, tracks, views, side) for m in MODELS}
            for what, members in SETS.items():
                rows += [dict(members=what, seed=seed) | r for r in judged({m: runs[m] for m in members}, tracks, views, side)]
        del views
    table = pd.DataFrame(rows)
    with atomic_path(path) as tmp:
        table.to_csv(tmp, index=False, float_format="%.5f")
    print(table.groupby(["members", "model"])[["accuracy", "log_loss"]].mean().round(4).to_string())


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "nbs/results/ensemble.csv")
