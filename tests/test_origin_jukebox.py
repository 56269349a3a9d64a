"UCI's and The Global Jukebox's tables: every row is accounted for, whatever is spoiled; the sums of powers of two decode without loss."
import gzip

import numpy as np
import pandas as pd
import pytest
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from geomusic.corpora.jukebox import LINES, decode_line, jukebox_corpus, jukebox_features, line_codes, place_societies
from geomusic.corpora.origin import origin_corpus, origin_table, repeated_columns, stretches
from geomusic.corpus import load_corpus, save_corpus
from geomusic.files import InputError
from geomusic.sound.engine import extract

PLACES = [(-15.75, -47.95, "BRA"), (39.91, 32.83, "TUR"), (39.91, 116.38, "CHN"), (-6.17, 35.74, "TZA"), (-6.17, 106.82, "IDN"), (41.9, 12.48, "ITA"), (23.76, 121.0, "TWN")]


def uci_lines(n, seed=0, width=68):
    rng = np.random.default_rng(seed)
    where = [PLACES[i] for i in rng.integers(len(PLACES), size=n)]
    return [",".join(map(str, [*rng.normal(size=width).round(6), lat, lon])) for lat, lon, _ in where], [c for *_, c in where]


def spoil(line, how):
    cells = line.split(",")
    if how == "torn":
        return ",".join(cells[:30])
    if how == "long":
        return line + ",1"
    if how == "word":
        cells[3] = "n/a"
    if how == "infinite":
        cells[3] = "inf"
    if how == "swapped":
        cells[-2:] = ["146.88", "-2.09"]
    if how == "sea":
        cells[-2:] = ["-48.88", "-123.39"]
    return ",".join(cells)


REASON = dict(torn="the row is cut short or too long", long="the row is cut short or too long", word="a cell is not a number", infinite="a cell is not a number",
              swapped="the place is not on Earth", sea="the place is in no country")


@pytest.mark.parametrize("seed", range(5))
def test_every_spoiled_line_of_the_uci_file_is_refused_with_its_reason(tmp_path, seed):
    lines, truth = uci_lines(300, seed)
    rng = np.random.default_rng(seed)
    dirt = dict(zip(rng.choice(300, 60, replace=False).tolist(), rng.choice(list(REASON), 60)))
    (tmp_path / "uci.csv").write_text("\n".join(spoil(line, dirt.get(i)) for i, line in enumerate(lines)) + "\n")
    corpus = origin_corpus(tmp_path / "uci.csv")
    expected = pd.Series([REASON[how] for how in dirt.values()]).value_counts().to_dict()
    assert corpus.report["refused"] == expected and corpus.report["read"] == 300 == len(corpus) + 60
    assert corpus.tracks.country.tolist() == [c for i, c in enumerate(truth) if i not in dirt]


@pytest.mark.parametrize("width", [68, 116])
@pytest.mark.parametrize("header", [False, True])
@pytest.mark.parametrize("shape", ["plain", "bom", "crlf", "gz"])
def test_all_copies_of_the_uci_file_give_the_same_corpus(tmp_path, width, header, shape):
    lines, _ = uci_lines(40, width=width)
    text = "\n".join(([",".join(map(str, range(width + 2)))] if header else []) + lines) + "\n"
    raw = dict(plain=text, bom="\ufeff" + text, crlf=text.replace("\n", "\r\n"), gz=text)[shape].encode()
    path = tmp_path / ("uci.csv.gz" if shape == "gz" else "uci.csv")
    path.write_bytes(gzip.compress(raw) if shape == "gz" else raw)
    (tmp_path / "reference.csv").write_text("\n".join(lines))
    pd.testing.assert_frame_equal(origin_corpus(path).tracks, origin_corpus(tmp_path / "reference.csv").tracks)
    assert len(origin_corpus(path)) == 40


def test_a_damaged_uci_file_is_one_clear_error(tmp_path):
    lines, _ = uci_lines(40)
    (tmp_path / "half.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode())[:500])
    (tmp_path / "all_bad.csv").write_text("\n".join(spoil(line, "word") for line in lines))
    (tmp_path / "latin.csv").write_bytes("\n".join(lines).replace("1", "é").encode("latin-1"))
    (tmp_path / "header_only.csv").write_text(",".join(map(str, range(70))) + "\n")
    for name in ("half.csv.gz", "all_bad.csv", "latin.csv", "header_only.csv", "absent.csv"):
        with pytest.raises(InputError, match=name.replace(".", r"\.")):
            origin_corpus(tmp_path / name)


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=60), st.integers(1, 8))
def test_stretches_are_consecutive_even_and_of_one_place(places, n):
    place = pd.Series(places)
    group = stretches(place, n)
    for p, rows in group.groupby(place):
        assert rows.str.startswith(f"{p}/").all() and rows.nunique() == min(n, len(rows))
        assert (rows != rows.shift()).sum() == rows.nunique()  # once left, a stretch does not come back
        assert rows.value_counts().max() - rows.value_counts().min() <= 1


def test_repeated_columns_finds_all_copies_and_nothing_else():
    x = pd.DataFrame(np.random.default_rng(0).normal(size=(20, 4)), columns=list("abcd"))
    assert not repeated_columns(x)
    near = x.assign(e=x.a, f=x.c, g=x.a, h=x.b + 1e-12)
    assert repeated_columns(near) == dict(a=["e", "g"], c=["f"])


@settings(deadline=None)
@given(st.integers(1, 37).flatmap(lambda k: st.tuples(st.just(k), st.sets(st.sampled_from(line_codes(k))))))
def test_codes_survive_the_powers_of_two(line):
    k, codes = line
    hot, strange = decode_line([sum(2**c for c in codes)], k)
    assert {c for c, h in zip(line_codes(k), hot[0]) if h} == codes and not strange[0]


SOCIETIES = pd.DataFrame(dict(society_id=["1", "2", "3"], society=["Ami", "Lao", "Lisu"], Country=["China", "Laos; Thailand", "China"], Region="Asia", Division=["x", "", "y"],
                              Subregion=["Taiwan", "", ""], Society_latitude=["23.09", "17.97", "22.55"], Society_longitude=["121.35", "102.6", "94.02"]))


def jukebox(folder, n, seed=0):
    rng = np.random.default_rng(seed)
    songs = pd.DataFrame({f"line_{k}": [str(2 ** int(c)) for c in rng.choice(line_codes(k), n)] for k in LINES})
    songs.insert(0, "song_id", [str(i) for i in range(n)])
    songs.insert(1, "society_id", rng.choice(["1", "2"], n))
    songs.to_csv(folder / "data.csv", index=False)
    SOCIETIES.to_csv(folder / "societies.csv", index=False)
    return songs


@pytest.mark.parametrize("seed", range(5))
def test_every_spoiled_song_is_refused_or_marked(tmp_path, seed):
    songs, rng = jukebox(tmp_path, 300, seed), np.random.default_rng(seed)
    rows = dict(zip(rng.choice(np.arange(1, 300), 60, replace=False).tolist(), rng.choice(["twice", "stray", "far", "word", "bit", "gap"], 60)))
    for i, how in rows.items():
        if how == "twice":
            songs.loc[i, "song_id"] = "0"
        if how in ("stray", "far"):
            songs.loc[i, "society_id"] = dict(stray="62529", far="3")[how]
        if how in ("word", "bit", "gap"):
            songs.loc[i, "line_30"] = dict(word="loud", bit="8", gap="0")[how]
    songs.to_csv(tmp_path / "data.csv", index=False)
    n = pd.Series(rows).value_counts()
    corpus = jukebox_corpus(tmp_path, coding="means")
    assert corpus.report["refused"] == {"its song_id stands twice": n["twice"], "its society is not in the table of societies": n["stray"], "the point lies in another country than the named one": n["far"]}
    assert corpus.report["read"] == 300 == len(corpus) + n["twice"] + n["stray"] + n["far"]
    assert corpus.tracks.repaired.str.contains("no reading for line_30").sum() == n["word"] + n["bit"]
    assert corpus.tracks[corpus.report["features"]].isna().sum().sum() == n["word"] + n["bit"] + n["gap"]


def test_what_has_no_mean_is_refused_by_the_view_and_kept_by_codes(tmp_path):
    songs = jukebox(tmp_path, 50)
    songs.loc[3, "line_30"] = "0"
    songs.to_csv(tmp_path / "data.csv", index=False)
    for coding, lost in (("means", 1), ("codes", 0)):
        corpus = save_corpus(jukebox_corpus(tmp_path, coding=coding), tmp_path / coding)
        view = extract(corpus, ["tabular"], progress=False)["tabular"]
        assert (view.n_frames == 0).sum() == len(view.refused) == lost and view.x.shape == (50, 37 if coding == "means" else 216)
        assert load_corpus(tmp_path / coding).report["contradictions"] == []


def test_a_division_without_a_name_is_no_label(tmp_path):
    jukebox(tmp_path, 50)
    corpus = jukebox_corpus(tmp_path, label="division")
    assert set(corpus.targets().country) == {"x"} and corpus.report["refused"]["no division"] == 50 - len(corpus)


def test_a_repaired_table_of_societies_is_left_alone():
    manus = pd.DataFrame(dict(society_id=["20813"], society="Manus", Country="Papua New Guinea", Subregion="", Society_latitude=["-2.0"], Society_longitude=["147.0"]))
    assert place_societies(manus).repaired[0] == "" and place_societies(manus).lat_deg[0] == -2.0


def test_tables_that_do_not_belong_together(tmp_path):
    jukebox(tmp_path, 20)
    SOCIETIES.assign(society_id=["7", "8", "9"]).to_csv(tmp_path / "societies.csv", index=False)
    with pytest.raises(InputError, match="belong together"):
        jukebox_corpus(tmp_path)
    SOCIETIES.assign(society_id="1").to_csv(tmp_path / "societies.csv", index=False)
    with pytest.raises(InputError, match="society 1 twice"):
        jukebox_corpus(tmp_path)


def test_features_do_not_depend_on_the_rows(tmp_path):
    songs = jukebox(tmp_path, 3)
    assert list(jukebox_features(songs[:1])[0]) == list(jukebox_features(songs)[0])


@pytest.mark.skipif(DATA is None, reason="the public data sets are not here")
def test_the_real_files():
    uci = origin_table(DATA / "uci_geographical_origin_68.csv")
    assert len(uci) == 1059 and (uci.refused == "").all() and not repeated_columns(uci.filter(like="marsyas"))
    corpus = jukebox_corpus(DATA)
    assert corpus.report["read"] == 5776 and (corpus.tracks.country == "TWN").sum() == 403
    assert not corpus.tracks[corpus.report["features"]].sum(axis=1).eq(0).any()
