"Tables of descriptors: every row is accounted for, whatever is spoiled; the join finds what a MIRAGE-like release names."
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from geomusic.corpora.join import join_descriptors
from geomusic.corpora.markets import markets_corpus
from geomusic.corpora.spotify import RANGES, clean_descriptors, fold, spotify_corpus
from geomusic.corpus import Corpus
from geomusic.files import InputError
from geomusic.sound.descriptors import DESCRIPTORS

SIMULATOR = next((p for p in (ROOT.parent / "shared/tools/simulate_mirage.py", ROOT / "shared/tools/simulate_mirage.py") if p.exists()), None)


def table(n, seed):
    rng = np.random.default_rng(seed)
    t = pd.DataFrame({d: rng.uniform(lo, min(hi, 1e6), n) for d, (lo, hi) in RANGES.items()})
    for d in ("key", "mode", "time_signature"):
        t[d] = t[d].round()
    return t.assign(artist=[f"artist {i}" for i in rng.integers(n // 5, size=n)], title=[f"song {i}" for i in range(n)], country=rng.choice(["SE", "TR", "BR"], n), spotify_id=[f"{i:022}" for i in range(n)])


DIRT = dict(
    artist=("", "no artist"), country=("Atlantis", "country not known"), none=("", "no country"),
    tempo=("fast", "tempo not a number"), energy=("7", "energy out of range"), key=("-1", "key not detected"), loudness=("inf", "loudness out of range"),
    repeat=(None, "merged"), torn=(None, "too few fields"))


@pytest.mark.parametrize("seed", range(5))
def test_every_spoiled_row_is_refused_marked_or_merged(tmp_path, seed):
    rng, clean = np.random.default_rng(seed), table(2000, seed)
    kinds, rows = list(DIRT), rng.choice(2000, 200, replace=False)
    dirt = dict(zip(rows, rng.choice(kinds, 200)))
    cells, expected = clean.astype(object), dict.fromkeys(kinds, 0)
    for i, k in dirt.items():
        expected[k] += 1
        if DIRT[k][0] is not None:
            cells.loc[i, "country" if k == "none" else k] = DIRT[k][0]
    lines = cells.to_csv(index=False, lineterminator="\n").splitlines()
    for i, k in dirt.items():
        if k == "torn":
            lines[i + 1] = lines[i + 1].rsplit(",", 1)[0]
    lines += [lines[i + 1] for i, k in dirt.items() if k == "repeat"]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    corpus = spotify_corpus(tmp_path / "t.csv", progress=False)
    r = corpus.report
    assert r["read"] == 2000 + expected["repeat"] == r["kept"] + r["merged"] + sum(r["refused"].values())
    assert r["refused"] == {DIRT[k][1]: expected[k] for k in ("artist", "country", "none", "torn") if expected[k]}
    assert r["merged"] == expected["repeat"] == (corpus.tracks.copies - 1).sum()
    assert r["repaired"] == {DIRT[k][1]: expected[k] for k in ("tempo", "energy", "key", "loudness") if expected[k]}
    marked = corpus.tracks[corpus.tracks.repaired != ""]
    assert len(marked) == sum(r["repaired"].values()) and marked[DESCRIPTORS].isna().any(axis=1).all()
    assert corpus.tracks[corpus.tracks.repaired == ""][DESCRIPTORS].notna().all().all()


def test_the_order_of_the_rows_changes_nothing_but_the_order(tmp_path):
    t = pd.concat([table(500, 0), table(500, 0).assign(tempo=99.0)]).assign(popularity=range(1000))
    for name, x in dict(a=t, b=t.sample(frac=1, random_state=1)).items():
        x.to_parquet(tmp_path / f"{name}.parquet")
    a, b = (spotify_corpus(tmp_path / f"{n}.parquet", progress=False).tracks.sort_values("track_id").drop(columns="source").reset_index(drop=True) for n in "ab")
    pd.testing.assert_frame_equal(a, b)
    assert (a.copies == 2).all() and (a.tempo == 99).all()  # the more popular of each pair


def test_markets_account_and_never_split_a_track(tmp_path):
    t = table(300, 1).drop(columns=["artist", "title"])
    t = pd.concat([t.assign(country=c) for c in ("SE", "NA", "", "SE")], ignore_index=True)
    t.to_csv(tmp_path / "m.csv", index=False)
    c = markets_corpus(tmp_path / "m.csv", progress=False)
    assert (c.report["kept"], c.report["merged"], c.report["refused"]) == (600, 300, {"the global list, no country": 300})
    assert set(c.tracks.country) == {"SWE", "NAM"} and c.tracks.group.nunique() == 300 and c.tracks.spins.sum() == 900
    with pytest.raises(InputError, match="could be used"):
        markets_corpus(tmp_path / "m.csv", exclusive=True, progress=False)


@pytest.mark.parametrize("text", ["Şımarık", "ﬁn", "I'm", "A & B", "  x  ", "が", "हिन्दी", "!!!", "R.E.M.", "İstanbul", "ſ", "1999", ""])
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text) and (fold(text) == "") == (text.strip() == "")


def test_a_column_on_another_scale_is_an_error_and_not_a_thousand_gaps():
    t = table(100, 2)
    for name, factor in dict(energy=100, duration_ms=1e-6, tempo=100).items():
        with pytest.raises(InputError, match=name):
            clean_descriptors(t.assign(**{name: t[name] * factor + (1 if name != "duration_ms" else 0)}))


@pytest.mark.skipif(SIMULATOR is None, reason="the simulator of MIRAGE releases is not here")
def test_join_on_a_simulated_release(tmp_path):
    subprocess.run([sys.executable, str(SIMULATOR), str(tmp_path), "--events", "3000", "--spotify"], check=True, capture_output=True)
    m = pd.read_csv(tmp_path / "MIRAGE.csv", dtype=str, keep_default_na=False).drop_duplicates("track_sp_id")
    songs = m[[c for c in m if c.startswith("track_sp_") or c == "artist_sp_name"]]
    hidden = Corpus(pd.DataFrame(dict(track_id=m.track_sp_id, country="SWE", lat_deg=59.3, lon_deg=18.1, group=m.artist_sp_name, title=m.track_sp_name, artist=m.artist_sp_name, audio="")).reset_index(drop=True))
    truth = pd.to_numeric(m.track_sp_Tempo).to_numpy()
    by_id = join_descriptors(hidden, songs)
    assert by_id.report["join"]["rate"] == 1 == by_id.report["join"]["by"]["id"] / len(m) and np.allclose(by_id.tracks.tempo, np.where(truth == 0, np.nan, truth), equal_nan=True)
    named = join_descriptors(hidden, songs, on="name")
    j, has = named.report["join"], named.tracks.tempo.notna()
    assert j["by"]["id"] == 0 and j["rate"] > 0.98 and j["matched"] + j["ambiguous"] + j["not_found"] == len(m)
    assert np.isclose(named.tracks.tempo[has], truth[has]).mean() > 0.99
