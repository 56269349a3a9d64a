"""How a forest's accuracy on spotify_artist_country.parquet falls as the split and the inputs become honest, over five seeds.

python benchmarks/audit_fall.py   # some minutes on one core; prints a table and writes nbs/results/audit_fall.csv
"""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from tqdm.auto import tqdm  # noqa: E402

from geomusic.leaks import gap_table, split_gap  # noqa: E402
from geomusic.files import atomic_path, data_folder  # noqa: E402
from geomusic.sound.descriptors import DESCRIPTORS  # noqa: E402

SEEDS, TREES, MIN_ARTISTS = range(5), 50, 50


def published(drop_repeats):
    "The rows of the file as they are, of the countries with fifty artists or more"
    t = pd.read_parquet(data_folder(Path(__file__).parent) / "spotify_artist_country.parquet")
    if drop_repeats:
        t = t.drop_duplicates()
    return t[t.groupby("country").name.transform("nunique") >= MIN_ARTISTS].rename(columns=dict(name="group")).reset_index(drop=True)


def inputs(t, one_hot):
    "The descriptors, with the genre as the number of its name in alphabetical order, or as a column of 0 and 1 for each"
    x = t[DESCRIPTORS].to_numpy(np.float32)
    genre = pd.factorize(t.track_genre, sort=True)[0].astype(np.float32)
    sets = {"13 descriptors": x, "13 descriptors and genre": np.column_stack([x, genre])}
    if one_hot:
        sets["13 descriptors and genre (0/1)"] = np.column_stack([x, pd.get_dummies(t.track_genre, dtype=np.float32)])
    return sets


def main(path):
    parts = []
    with tqdm(total=2 * len(SEEDS) * 5, unit="forest") as bar:
        for name, drop in (("as published", False), ("without repeats", True)):
            t = published(drop)
            sets = inputs(t, one_hot=not drop)
            parts.append(split_gap(t, sets, SEEDS, TREES, bar.update).assign(rows=name, n=len(t), countries=t.country.nunique()))
    runs = pd.concat(parts, ignore_index=True).round(5)
    with atomic_path(path) as tmp:
        runs.to_csv(tmp, index=False)
    return runs


if __name__ == "__main__":
    runs = main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "nbs" / "results" / "audit_fall.csv")
    for name, r in runs.groupby("rows", sort=False):
        print(f"\n{name}: {r.n.iloc[0]:,} rows, {r.countries.iloc[0]} countries\n{gap_table(r).round(3).to_string()}")
