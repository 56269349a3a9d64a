"The MIRAGE reader: every kind of dirt, every shape of the release, and an account that is compared with the truth."
import csv
import gzip
import importlib.util
import io
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT

from geomusic.coordinates import check_coordinates
from geomusic.corpora import tables
from geomusic.corpora.mirage import LABELS, mirage_corpus
from geomusic.corpora.tables import TableStream, read_table
from geomusic.files import InputError
from geomusic.names import harmonise
from geomusic.sound.descriptors import DESCRIPTORS

SIMULATOR = ROOT.parent / "shared" / "tools" / "simulate_mirage.py"
needs_simulator = pytest.mark.skipif(not SIMULATOR.is_file(), reason="the MIRAGE simulator is not here")

HEADER = [
    "Event_MA_ID", "Event_MA_MetadataReliability", "Station_RG_ID", "location_rg_id", "artist_sp_id", "track_sp_id", "Location_RG_country",
    "Location_RG_Latitude", "Location_RG_Longitude", "Station_RG_name", "track_sp_name", "track_sp_Tempo", "track_sp_duration", "track_sp_key",
    "track_sp_mode", "track_sp_beatsperbar", "artist_sp_name", "artist_wd_country", "artist_wd_Coordinates",
]  # fmt: skip
OLD = dict(zip(HEADER, [
    "event_id", "metadata_editdist", "station_id", "city_id", "artist_id", "track_id", "country", "latitude", "longitude", "station", "track_name",
    "track_tempo", "track_duration", "track_key", "track_mode", "track_beatsperbar", "artist_name", "artist_country", "artist_coordinates",
]))  # fmt: skip
RIO = dict(Station_RG_ID="s1", location_rg_id="l1", Location_RG_country="Brazil", Location_RG_Latitude="-22.9", Location_RG_Longitude="-43.2", Station_RG_name="Radio Um")
PARIS = dict(Station_RG_ID="s2", location_rg_id="l2", Location_RG_country="France", Location_RG_Latitude="48.86", Location_RG_Longitude="2.35", Station_RG_name="Radio Deux")
TRACK = dict(track_sp_Tempo="100.5", track_sp_duration="200000", track_sp_key="C#/Db", track_sp_mode="1", track_sp_beatsperbar="4")


def event(i, place, track, title, artist, country, **other):
    "One event as a dict of strings"
    row = dict(Event_MA_ID=f"e{i}", Event_MA_MetadataReliability="0.95", artist_sp_id="id " + artist, track_sp_id=track, track_sp_name=title, artist_sp_name=artist)
    return row | dict(artist_wd_country=country, artist_wd_Coordinates="") | TRACK | place | other


CLEAN = [
    event(1, RIO, "t1", "Wave", "Jobim", "Brazil"),
    event(2, PARIS, "t1", "Wave", "Jobim", "Brazil"),
    event(3, PARIS, "t1", "Wave", "Jobim", "Brazil"),
    event(4, PARIS, "t2", "Bella, ciao", 'Le "Trio"', "Italy", track_sp_key="A", track_sp_mode="0"),
    event(5, RIO, "t3", "Sığ", "Aşık", "Türkiye", artist_wd_Coordinates="Point(32.86 39.93)"),
    event(6, RIO, "t4", "Mambo", "Nobody", "Hong Kong"),
]


def as_csv(rows, header=HEADER, names=None):
    "Rows as the bytes of a CSV file"
    out = io.StringIO()
    w = csv.writer(out, lineterminator="\n")
    w.writerow([(names or {}).get(h, h) for h in header])
    w.writerows([r[h] for h in header] for r in rows)
    return out.getvalue().encode()


def corpus_of(tmp_path, content, name="MIRAGE.csv", **options):
    "The corpus of a file with this content"
    (tmp_path / name).write_bytes(content)
    return mirage_corpus(tmp_path / name, progress=False, **options)


def account(c):
    "The account, checked"
    r = c.report
    assert r["read"] == r["kept"] + r["merged"] + sum(r["refused"].values()) and r["kept"] == len(c.tracks) and r["kept"] + r["merged"] == c.tracks.spins.sum()
    return r


def same(a, b):
    "Two corpora have the same tracks"
    pd.testing.assert_frame_equal(a.tracks, b.tracks)
    assert {k: a.report[k] for k in ("read", "kept", "merged", "refused")} == {k: b.report[k] for k in ("read", "kept", "merged", "refused")}


def test_clean_events_have_known_answers(tmp_path):
    c = corpus_of(tmp_path, as_csv(CLEAN))
    r, t = account(c), c.tracks.set_index("track_id")
    assert (r["read"], r["kept"], r["merged"], r["refused"], r["repaired"]) == (6, 4, 2, {}, {})
    assert t.country.to_dict() == dict(t1="BRA", t2="ITA", t3="TUR", t4="HKG") and t.spins.tolist() == [3, 1, 1, 1]
    assert t.group["t2"] == 'id Le "Trio"' and t.title["t2"] == "Bella, ciao" and (t.lat_deg["t3"], t.lon_deg["t3"]) == (39.93, 32.86)
    assert t.loc["t1", ["tempo", "duration_ms", "key", "mode", "time_signature"]].tolist() == [100.5, 200000, 1, 1, 4] and t.key["t2"] == 9


@pytest.mark.parametrize("label", LABELS)
def test_label(tmp_path, label):
    c = corpus_of(tmp_path, as_csv(CLEAN), label=label)
    account(c)
    t = c.tracks.set_index("track_id")
    if label == "artist_country":
        assert t.country["t1"] == "BRA" and t.label_share["t1"] == 1
    else:
        assert t.country["t1"] == "FRA" and t.label_share["t1"] == pytest.approx(2 / 3) and (t.lat_deg["t1"], t.lon_deg["t1"]) == (48.86, 2.35)
    assert c.label == ("region" if label == "station_region" else "country")
    if label == "station_region":
        assert t.region.to_dict() == dict(t1="Western Europe", t2="Western Europe", t3="South America", t4="South America")


def test_every_kind_of_dirt(tmp_path):
    good = dict(place=RIO, artist="Veloso", country="Brazil")
    rows = CLEAN + [
        event(10, RIO | dict(Location_RG_Latitude="-43.2", Location_RG_Longitude="-22.9"), "d0", "swapped", "Veloso", "Brazil"),
        event(11, RIO | dict(Location_RG_Latitude="999"), "d1", "latitude 999", "Veloso", "Brazil"),
        event(12, track="d2", title="no country", **good | dict(country="")),
        event(13, track="d3", title="two countries", **good | dict(country="Brazil; Portugal")),
        event(14, track="d4", title="unknown", **good | dict(country="Atlantis")),
        event(15, track="d5", title="no reliability", **good, Event_MA_MetadataReliability=""),
        event(16, track="d6", title="not a number", **good, track_sp_Tempo="fast"),
        event(17, track="d7", title="first line\nsecond line", **good),
        event(18, track="d8", title="open quote", **good),
        event(19, track="d9", title="too few", **good),
        event(20, track="d10", title="bad bytes", **good),
        event(1, track="d11", title="seen before", **good),
        event(30, track="last", title="after all that", **good),
    ]
    text = as_csv(rows).replace(b"Radio Um,open quote", b'"Radio Um,open quote').replace(b"too few,100.5,", b"too few,").replace(b"bad bytes", b"bad \xff\xfe bytes")
    c = corpus_of(tmp_path, text)
    r, t = account(c), c.tracks.set_index("track_id")
    assert r["refused"] == {
        "coordinates out of range": 1, "no artist country": 1, "several artist countries": 1, "unknown artist country": 1, "no reliability": 1,
        "unbalanced quote": 1, "too few fields": 1, "event id seen before": 1,
    }  # fmt: skip
    assert (r["read"], r["kept"], r["merged"]) == (19, 9, 2) and set(t.index) == {"t1", "t2", "t3", "t4", "d0", "d6", "d7", "d10", "last"}
    assert t.repaired[t.repaired != ""].to_dict() == {"d0": "latitude and longitude exchanged", "d6": "tempo is not a number", "d10": "bytes that are not UTF-8"}
    assert r["repaired"] == {what: 1 for what in ("latitude and longitude exchanged", "tempo is not a number", "bytes that are not UTF-8")}
    assert np.isnan(t.tempo["d6"]) and t.title["d7"] == "first line\nsecond line" and t.title["d10"] == "bad \ufffd\ufffd bytes"
    assert {n["name"]: n["how"] for n in r["names"] if not n["iso3"]} == {"": "empty", "Atlantis": "unknown", "Brazil; Portugal": "several"}
    assert "d3" in set(corpus_of(tmp_path, text, several="first").tracks.track_id)
    doubtful = corpus_of(tmp_path, text, min_reliability=0)
    assert "d5" in set(doubtful.tracks.track_id) and "no reliability" not in doubtful.report["refused"]


def test_every_shape_gives_the_same_tracks(tmp_path):
    text, want = as_csv(CLEAN), corpus_of(tmp_path, as_csv(CLEAN))
    same(corpus_of(tmp_path, b"\xef\xbb\xbf" + text, "bom.csv"), want)
    same(corpus_of(tmp_path, gzip.compress(text), "zipped.csv.gz"), want)
    same(corpus_of(tmp_path, text.replace(b"\n", b"\r\n"), "crlf.csv"), want)
    same(corpus_of(tmp_path, text[:-1], "no_last_newline.csv"), want)
    for change in (str.upper, str.lower):
        same(corpus_of(tmp_path, as_csv(CLEAN, names={h: change(h) for h in HEADER}), f"{change.__name__}.csv"), want)
    same(corpus_of(tmp_path, as_csv(CLEAN, names=OLD), "old.csv"), want)
    frame = pd.DataFrame(CLEAN)[HEADER]
    for name, table in dict(strings=frame, typed=frame.assign(track_sp_Tempo=frame.track_sp_Tempo.astype(float), Location_RG_Latitude=frame.Location_RG_Latitude.astype(float))).items():
        table.to_parquet(tmp_path / f"{name}.parquet")
        same(mirage_corpus(tmp_path / f"{name}.parquet", progress=False), want)


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "parquet"])
@pytest.mark.parametrize("label", LABELS)
def test_five_tables_are_one(tmp_path, ending, label):
    want, frame = corpus_of(tmp_path, as_csv(CLEAN), label=label), pd.DataFrame(CLEAN)
    parts = dict(
        events=["Event_MA_ID", "Event_MA_MetadataReliability", "track_sp_id", "Station_RG_ID"],  # the artist is found by way of the track
        tracks=["track_sp_id", "artist_sp_id", *[h for h in HEADER if h.startswith("track_sp_") and h != "track_sp_id"]],
        artists=["artist_sp_id", "artist_sp_name", "artist_wd_country", "artist_wd_Coordinates"],
        stations=["Station_RG_ID", "location_rg_id"],
        locations=["location_rg_id", "Location_RG_country", "Location_RG_Latitude", "Location_RG_Longitude"],
    )
    folder = tmp_path / "five"
    folder.mkdir()
    for name, columns in parts.items():
        part = frame[columns].drop_duplicates(columns[0])
        part.to_parquet(folder / f"{name}.parquet") if ending == "parquet" else part.to_csv(folder / f"{name}.{ending}", index=False)
    same(mirage_corpus(folder, label, progress=False), want)


def test_ids_may_be_missing(tmp_path):
    "An event without ids joins the track of the same artist and title; nobody stands on both sides because of it"
    rows = CLEAN[:1] + [event(7, RIO, "", "WAVE!", "jobim", "Brazil", artist_sp_id=""), event(8, RIO, "", "Other", "Jobim", "Brazil", artist_sp_id="")]
    rows += [event(9, RIO, "", "", "Jobim", "Brazil"), event(10, RIO, "", "Song", "", "Brazil", artist_sp_id=""), event(11, RIO, "", "?", "Jobim", "Brazil")]
    c = corpus_of(tmp_path, as_csv(rows))
    account(c)
    assert c.tracks.spins.tolist()[0] == 2 and set(c.tracks.group) == {"id Jobim"} and c.report["refused"]["no track"] == 1 and c.report["refused"]["no artist"] == 1


def test_first_reason_holds_and_refused_first_id_counts(tmp_path):
    "An id is seen even if its first event is refused"
    rows = [CLEAN[0] | dict(Event_MA_MetadataReliability="0.1"), CLEAN[0], CLEAN[3]]
    assert account(corpus_of(tmp_path, as_csv(rows)))["refused"] == {"reliability below 0.9": 1, "event id seen before": 1}
    nameless = [r | dict(Event_MA_ID="") for r in CLEAN]
    assert account(corpus_of(tmp_path, as_csv(nameless)))["refused"] == {}  # no id is not the same id


def test_threshold_and_not_finite_numbers(tmp_path):
    values = ["0.9", "0.8999", "nan", "inf", "high", "1.0"]
    rows = [CLEAN[0] | dict(Event_MA_ID=f"x{i}", Event_MA_MetadataReliability=v, track_sp_id=f"x{i}") for i, v in enumerate(values)]
    r = account(corpus_of(tmp_path, as_csv(rows)))
    assert r["kept"] == 2 and r["refused"] == {"reliability below 0.9": 1, "no reliability": 3}


BAD = {
    "empty": (b"", "is empty"),
    "no rows": (as_csv([]), "no rows"),
    "no country": (as_csv(CLEAN, names=dict(artist_wd_country="artist_wd_contry")), "no column `artist_wd_country`.*Is it `artist_wd_contry`"),
    "no reliability": (as_csv(CLEAN, [h for h in HEADER if "Reliab" not in h]), "no column `Event_MA_MetadataReliability`"),
    "no event id": (as_csv(CLEAN, HEADER[1:]), "no column `Event_MA_ID`"),
    "no track": (as_csv(CLEAN, [h for h in HEADER if h not in ("track_sp_id", "track_sp_name")]), "no column `track_sp_id`"),
    "no artist": (as_csv(CLEAN, [h for h in HEADER if h not in ("artist_sp_id", "artist_sp_name")]), "no column `artist_sp_id`"),
    "cut in a row": (as_csv(CLEAN)[:-60], "ends in the middle of row 7"),
    "cut in a quoted field": (as_csv(CLEAN)[: as_csv(CLEAN).index(b"Bella") + 7], "ends in the middle of row 5"),
    "UTF-16": (as_csv(CLEAN).decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (as_csv(CLEAN).decode().encode("utf-16-le"), "zero bytes"),
    "Latin-1": (as_csv([r | dict(track_sp_name="Rüdesheim") for r in CLEAN[:4]] * 3).decode().encode("latin-1"), "not UTF-8"),
    "cut gzip": (gzip.compress(as_csv(CLEAN))[:-20], "damaged or cut off"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "is a picture"),
    "a workbook": (b"PK\x03\x04" + bytes(99), "Excel"),
    "a web page": (b"<!DOCTYPE html><html></html>", "web page"),
    "old Mac": (as_csv(CLEAN).replace(b"\n", b"\r"), "carriage returns"),
    "every row refused": (as_csv([CLEAN[0] | dict(artist_wd_country="Atlantis")]), "none of 1 events is left.*unknown artist country"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_one_clear_error(tmp_path, case):
    content, message = BAD[case]
    with pytest.raises(InputError, match=message) as e:
        corpus_of(tmp_path, content)
    assert "\n" not in str(e.value) and str(tmp_path) in str(e.value)


def test_damaged_parquet_and_missing_files(tmp_path):
    pd.DataFrame(CLEAN).to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for damaged in (whole[:-30], whole[:200] + bytes(400) + whole[600:], b"PAR1"):
        with pytest.raises(InputError, match="damaged|Parquet"):
            corpus_of(tmp_path, damaged, "b.parquet")
    with pytest.raises(InputError, match="does not exist"):
        mirage_corpus(tmp_path / "nowhere.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="neither"):
        mirage_corpus(tmp_path / "folder")
    (tmp_path / "folder" / "events.csv").write_bytes(as_csv(CLEAN, HEADER[:6]))
    with pytest.raises(InputError, match="artist_wd_country"):
        mirage_corpus(tmp_path / "folder", progress=False)
    with pytest.raises(InputError, match="artist_country"):
        mirage_corpus(tmp_path / "a.parquet", label="artist_contry")


@pytest.mark.parametrize("size", [64, 333, 1000, 5000])
def test_blocks_do_not_matter(tmp_path, monkeypatch, size):
    "Quoted line breaks, open quotes and bad bytes fall on the edges of blocks; nothing changes"
    lines = ['{0},"a, ""b""",x', '{0},"line\nbreak\n\nand more",y', '{0},"open,z', "{0},\xff,u", "{0},7\" single,v", "{0},few", "", "{0},many,a,b", "{0},plain,w"]
    rng = np.random.default_rng(0)
    body = "\n".join(lines[k].format(i) for i, k in enumerate(rng.integers(0, len(lines), 400)))
    (tmp_path / "t.csv").write_bytes(b"id,title,other\n" + body.encode("latin-1") + b"\nend,of,file\n")
    monkeypatch.setattr(tables, "_check_encoding", lambda *a: None)
    whole = read_table(tmp_path / "t.csv", repaired=True)
    monkeypatch.setattr(tables, "BLOCK_BYTES", size)
    again = read_table(tmp_path / "t.csv", repaired=True)
    pd.testing.assert_frame_equal(again, whole)
    assert again.attrs == whole.attrs and whole.id.iloc[-1] == "end" and whole.attrs["read"] == len(whole) + sum(whole.attrs["refused"].values())


def test_clean_reading_agrees_with_pandas(tmp_path):
    "Random well-formed tables, also with line breaks and quotation marks in fields"
    rng = np.random.default_rng(1)
    for k in range(20):
        words = ["", "a", 'say "x"', "a,b", "two\nlines", "ü", "\n", '"', "x" * 50, "1.5", '""', ","]
        frame = pd.DataFrame({c: rng.choice(words, 30) for c in ("a", "b", "c", "d")}).assign(e="end")
        frame.to_csv(tmp_path / "t.csv", index=False)
        got = read_table(tmp_path / "t.csv")
        pd.testing.assert_frame_equal(got, frame.astype("str"), check_dtype=False)
        assert got.attrs == dict(read=30, refused={}, repaired={})


def simulate(folder, *words):
    "Run the simulator in this process; returns (event id, kind of dirt, line as it was) of each row it spoiled"
    spec = importlib.util.spec_from_file_location("simulate_mirage", SIMULATOR)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    spoiled, spoil = [], module.spoil
    module.spoil = lambda line, kind, header, dup: spoiled.append((next(csv.reader([line]))[0], kind, spoil(line, kind, header, dup))) or spoiled[-1][2]
    argv, sys.argv = sys.argv, ["simulate_mirage.py", str(folder), *words]
    try:
        module.main()
    finally:
        sys.argv = argv
    return spoiled


def expected_fates(clean, spoiled):
    "What must become of each event, decided one by one from the clean table and what was done to it"
    kinds = {i: (kind, line) for i, kind, line in spoiled}
    codes, _ = harmonise(clean.artist_wd_country)
    several = harmonise(clean.artist_wd_country)[1].set_index("name").how.eq("several")
    places = clean[["Location_RG_Latitude", "Location_RG_Longitude"]].astype(float)
    kind_of = clean.Event_MA_ID.map(lambda i: kinds.get(i, (None,))[0])
    turned, dirty = kind_of == 0, places.copy()
    dirty[turned] = places[turned].to_numpy()[:, ::-1]
    verdict = check_coordinates(dirty.Location_RG_Latitude, dirty.Location_RG_Longitude, harmonise(clean.Location_RG_country)[0]).verdict
    refused, spins, marks, seen = Counter(), Counter(), Counter(), set()
    for e, code, v in zip(clean.itertuples(), codes, verdict):
        kind, line = kinds.get(e.Event_MA_ID, (None, b""))
        name = "ev000000000" if kind == 11 else e.Event_MA_ID
        alone = next(csv.reader([line.decode(errors="replace")])) if kind == 8 else []
        if kind == 8 and (len(alone) != len(clean.columns) or alone[-1].endswith("\n")): fate = "unbalanced quote"  # fmt: skip
        elif kind == 9: fate = "too few fields"  # fmt: skip
        elif name in seen: fate = "event id seen before"  # fmt: skip
        elif kind == 5: fate = "no reliability"  # fmt: skip
        elif float(e.Event_MA_MetadataReliability) < 0.9: fate = "reliability below 0.9"  # fmt: skip
        elif kind == 2: fate = "no artist country"  # fmt: skip
        elif kind == 3: fate = "several artist countries"  # fmt: skip
        elif kind == 4: fate = "unknown artist country"  # fmt: skip
        elif code == "": fate = "several artist countries" if several[e.artist_wd_country] else "unknown artist country"  # fmt: skip
        elif kind == 1 or v == "out of range": fate = "coordinates out of range"  # fmt: skip
        else: fate = ""  # fmt: skip
        if fate not in ("unbalanced quote", "too few fields"): seen.add(name)  # fmt: skip
        refused[fate] += 1
        if fate == "":
            spins[e.track_sp_id] += 1
            marks += Counter({"tempo is not a number": kind == 6, "bytes that are not UTF-8": kind == 10, "stray quotation mark": kind == 8, "latitude and longitude exchanged": v == "swapped"})
    refused.pop("")
    return dict(refused), dict(spins), dict(marks)


@needs_simulator
@pytest.mark.parametrize("seed", range(5))
def test_the_account_of_a_spoiled_release_is_the_truth(tmp_path, seed):
    n = 20_000
    spoiled = simulate(tmp_path / "dirty", "--events", str(n), "--spotify", "--dirt", "0.02", "--seed", str(seed))
    assert simulate(tmp_path / "clean", "--events", str(n), "--spotify", "--seed", str(seed)) == []
    clean = pd.read_csv(tmp_path / "clean" / "MIRAGE.csv", dtype=str, keep_default_na=False)
    assert len(clean) == n and len(spoiled) == 0.02 * n and len({kind for _, kind, _ in spoiled}) == 12
    refused, spins, marks = expected_fates(clean, spoiled)
    c = mirage_corpus(tmp_path / "dirty", progress=False)
    r = account(c)
    assert r["read"] == n and r["refused"] == refused and r["repaired"] == marks
    assert c.tracks.set_index("track_id").spins.to_dict() == spins
    truth = clean.drop_duplicates("track_sp_id").set_index("track_sp_id").loc[c.tracks.track_id]
    assert (c.tracks.group.to_numpy() == truth.artist_sp_id.to_numpy()).all()
    whole = c.tracks.repaired.to_numpy() == ""
    for d, column in dict(tempo="Tempo", duration_ms="duration", energy="Energy", time_signature="beatsperbar").items():
        np.testing.assert_array_equal(c.tracks[d].to_numpy()[whole], truth[f"track_sp_{column}"].astype(float).to_numpy()[whole])
    if seed == 0:
        for label in LABELS[1:]:
            assert account(mirage_corpus(tmp_path / "dirty", label, progress=False))["read"] == n
        on_air = mirage_corpus(tmp_path / "clean", "station_country", progress=False)
        heard = clean[clean.Event_MA_MetadataReliability.astype(float) >= 0.9].assign(code=lambda t: harmonise(t.Location_RG_country)[0])
        votes = heard.groupby(["track_sp_id", "code"]).size()
        assert account(on_air)["kept"] == heard.track_sp_id.nunique() and on_air.tracks.spins.sum() == len(heard)
        for t in on_air.tracks.itertuples():
            assert votes[t.track_id][t.country] == votes[t.track_id].max() == pytest.approx(t.label_share * t.spins)


@needs_simulator
def test_the_release_in_all_its_variants(tmp_path):
    for name, words in dict(new=[], relational=["--relational"], old=["--old-names"]).items():
        simulate(tmp_path / name, "--events", "5000", "--spotify", *words)
    simulate(tmp_path / "published", "--events", "5000")
    for label in LABELS:
        new, relational, old, published = (mirage_corpus(tmp_path / name, label, progress=False) for name in ("new", "relational", "old", "published"))
        assert set(DESCRIPTORS) < set(new.tracks) and not set(DESCRIPTORS) & set(published.tracks) and account(new)["read"] == 5000
        same(old, new)
        pd.testing.assert_frame_equal(published.tracks, new.tracks.drop(columns=DESCRIPTORS))
        a, b = (c.tracks.set_index("track_id").sort_index() for c in (relational, new))  # the events of the flat file are sorted by id, these are too
        pd.testing.assert_frame_equal(a, b)


def test_a_stream_counts_what_it_refuses_as_it_goes(tmp_path):
    (tmp_path / "t.csv").write_bytes(b'a,b\n1,2\n3\n"4,5\n6,7\n')
    stream = TableStream(tmp_path / "t.csv", progress=False)
    assert sum(len(t) for t in stream) == 2 and stream.report() == dict(read=4, refused={"too few fields": 1, "unbalanced quote": 1}, repaired={})
    assert stream.line_of == {"too few fields": 3, "unbalanced quote": 4}
