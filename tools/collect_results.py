"""Put the results of several runs into one small CSV that an essay reads, and draw the first of them for the front page.

python tools/collect_results.py nbs/results/folk_tunes.csv "3 countries=runs/three" "6 countries=runs/six"

The picture goes to nbs/images, under the name of the CSV. The column `config` is a hash of the settings of a run; a baseline has none but its name and its view.
"""
import hashlib
import sys
from pathlib import Path

import pandas as pd

from geomusic.baselines import leaderboard, leaderboard_figure

COLUMNS = ["experiment", "model", "view", "kind", "seed", "n_parameters", "n", "accuracy", "accuracy_lo", "accuracy_hi", "top3", "top5", "macro_f1",
           "balanced_accuracy", "log_loss", "km_mean", "km_median", "majority_accuracy", "best_val_loss", "held_out_accuracy", "held_out_n", "config"]


def settings_hash(folder: Path, row) -> str:
    "Twelve letters that change when a setting does."
    saved = Path(folder) / f"{row.model}-seed{row.seed}" / "config.yaml"
    return hashlib.sha256(saved.read_bytes() if saved.exists() else f"{row.model} {row.view} {row.seed}".encode()).hexdigest()[:12]


def of_run(name: str, folder: Path) -> pd.DataFrame:
    "The results of one run"
    rows = pd.read_parquet(Path(folder) / "results.parquet")
    return rows.assign(experiment=name, config=[settings_hash(folder, r) for r in rows.itertuples()])


def collect(runs: dict) -> pd.DataFrame:
    "One row a model and seed of every run, in the order of the runs."
    parts = [of_run(name, folder) for name, folder in runs.items()]
    return pd.concat(parts).reindex(columns=COLUMNS).sort_values(["experiment", "model", "seed"]).round(5)


if __name__ == "__main__":
    if len(sys.argv) < 3 or any("=" not in word for word in sys.argv[2:]):
        raise SystemExit(__doc__)
    out, runs = Path(sys.argv[1]), dict(word.split("=", 1) for word in sys.argv[2:])
    results = collect(runs)
    results.to_csv(out, index=False)
    first = next(iter(runs))
    figure = leaderboard_figure(leaderboard(results[results.experiment == first]), f"Where is this folk tune from? {first}, {results.seed.nunique()} seeds")
    figure.savefig(out.parent.parent / "images" / f"{out.stem}.png", dpi=110)
