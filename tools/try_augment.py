"""Does augmentation help? Few folk tunes to learn from, many to be judged on, the same tunes, splits and seeds for every setting.

python tools/try_augment.py FOLDER [--per-country 200]   # FOLDER keeps corpus and rows; finished ones are not done again

Writes nbs/results/augment.csv: a row a network, setting and seed. One thread; about 20 minutes on an idle core.
"""
import argparse
import os
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import torch  # noqa: E402

from geomusic.corpus import load_corpus  # noqa: E402
from geomusic.experiments import recipe  # noqa: E402
from geomusic.files import atomic_path, read_json, write_json  # noqa: E402
from geomusic.models import MODELS  # noqa: E402
from geomusic.splits import split_by_group  # noqa: E402
from geomusic.synth import write_audio  # noqa: E402
from geomusic.train import fit  # noqa: E402
from geomusic.tunes import tunes_corpus  # noqa: E402
from geomusic.sound.engine import extract  # noqa: E402

ROOT = Path(__file__).parent.parent
SIZES = (0.5, 0.1, 0.4)  # train, val, test
SMALL = dict(attention=["model.params.hidden=64", "model.params.num_layers=1"], cnn=["model.params.channels=[16, 32, 64, 128]"])  # to be quick
SETTINGS = {  # network: {name of the setting: overrides}; the recipes crop to a half (attention) and a quarter (cnn)
    "attention": {"nothing": ["training.random_crop=1"], "crop": [], "crop + masks": ["training.augment={time_masks: 2}"], "crop + noise": ["training.augment={noise: 0.3}"],
                  "crop + mixup": ["training.augment={mixup: 0.2}"], "crop + roll": ["training.augment={chroma_roll: 6}"],
                  "crop + roll + masks + mixup": ["training.augment={chroma_roll: 6, time_masks: 2, mixup: 0.2}"]},
    "cnn": {"crop": [], "crop + masks": ["training.augment={time_masks: 1, freq_masks: 2}"], "crop + mixup": ["training.augment={mixup: 0.2}"]},
}
SEEDS = dict(attention=8, cnn=5)


def one(corpus, view, network, setting, seed):
    "Train on the few, read the test once"
    split = split_by_group(corpus.targets(), SIZES, seed).to_numpy()
    country, began = corpus.targets().country.to_numpy(), time.process_time()
    run = fit(view.x, country, split, recipe(network, seed, SMALL[network] + SETTINGS[network][setting]), n_frames=view.n_frames, view=dict(name=view.name) | view.params, progress=False)
    took, test, best = time.process_time() - began, split == "test", run.history.loc[run.history.val_loss.idxmin()]
    proba = run.predict_proba(view.x[test], view.n_frames[test])
    codes = np.searchsorted(run.labels, country[test])
    return dict(network=network, setting=setting, seed=seed, n_train=int((split == "train").sum()), n_test=int(test.sum()), accuracy=float((proba.argmax(1) == codes).mean()),
                log_loss=float(-np.log(proba[np.arange(len(codes)), codes]).mean()), best_epoch=int(best.epoch), epochs=len(run.history),
                train_accuracy=float(best.train_acc), val_loss=float(best.val_loss), train_s=round(took, 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-country", type=int, default=200)
    args = parser.parse_args()
    torch.set_num_threads(1)
    home = args.folder / "corpus"
    corpus = load_corpus(home) if (home / "tracks.parquet").exists() else write_audio(tunes_corpus(["CHN", "DEU", "IRL"], args.per_country), home)
    rows = []
    for seed in range(max(SEEDS.values())):
        for network in (n for n, seeds in SEEDS.items() if seed < seeds):
            view = extract(corpus, [MODELS[network].view], n_jobs=1, progress=False)[MODELS[network].view]
            for i, setting in enumerate(SETTINGS[network]):
                done = args.folder / "rows" / f"{network}-{i}-{seed}.json"
                if not done.exists():
                    write_json(done, one(corpus, view, network, setting, seed))
                rows.append(read_json(done))
                print(rows[-1], flush=True)
    table = pd.DataFrame(rows).sort_values(["network", "setting", "seed"])
    print(f"{table.train_s.sum()/60:.0f} minutes of training")
    with atomic_path(ROOT / "nbs" / "results" / "augment.csv") as tmp:
        table.drop(columns="train_s").round(5).to_csv(tmp, index=False)
