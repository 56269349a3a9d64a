"A run opened on a corpus: what was said, how far off, tracks found and heard; tables that are not to be believed, tracks that are not there."
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomusic.corpus import Corpus, load_corpus
from geomusic.exploring.opened import SORTS, demo_run, open_run
from geomusic.files import InputError
from geomusic.learning.ensemble import make_ensemble
from geomusic.places import countries, great_circle_km
from geomusic.runs import load_run


@pytest.fixture(scope="module")
def demo():
    return demo_run("fcnn")


@pytest.fixture(scope="module")
def opened(demo):
    return open_run(*demo)


def test_the_demo_is_made_once_and_split_as_its_runs_were(demo):
    run, folder = demo
    assert demo_run("fcnn") == demo and {m: demo_run(m)[0].name for m in ("cnn", "rnn", "attention")}.keys() == {"cnn", "rnn", "attention"}
    judged, tracks = pd.read_parquet(run / "predictions.parquet"), load_corpus(folder).tracks
    assert set(judged.track_id) == set(tracks.track_id[tracks.split == "test"])
    with pytest.raises(InputError, match="unknown model `transformer`"): demo_run("transformer")


def test_rows_of_everything_are_the_same_track(opened):
    t, tracks = opened.table, opened.corpus.tracks.iloc[opened.rows]
    assert (tracks.track_id.to_numpy() == t.track_id).all() and (tracks.title.to_numpy() == t.title).all()
    asked = load_run(demo_run("fcnn")[0]).predict_proba(opened.view.x[opened.rows])
    np.testing.assert_allclose(opened.proba, asked, atol=1e-4)
    np.testing.assert_allclose(opened.embeddings(), opened.run.embeddings(opened.view.x[opened.rows]), atol=1e-4)
    assert "right" in repr(opened) and opened.unseen == 0


def test_wrong_km_certainty_and_surprise_by_hand(opened):
    world = countries()
    for i, row in opened.table.iterrows():
        to = world.loc[row.predicted]
        km = 0 if row.country == row.predicted else great_circle_km(row.lat_deg, row.lon_deg, to.lat_deg, to.lon_deg)
        assert row.wrong_km == pytest.approx(km, abs=1e-6) and row.certainty == opened.proba[i].max()
        assert row.surprise == pytest.approx(-np.log(opened.proba[i, opened.labels.index(row.country)]))


def test_written_predictions_are_not_believed_when_they_are_another_models(demo, tmp_path):
    run, folder = demo
    (tmp_path / "best_model.pth").write_bytes((run / "best_model.pth").read_bytes())
    kept = pd.read_parquet(run / "predictions.parquet")
    p = [c for c in kept if c.startswith("p_")]
    kept.assign(**dict(zip(p, kept[p[1:] + p[:1]].to_numpy().T))).to_parquet(tmp_path / "predictions.parquet")  # as of another model
    np.testing.assert_allclose(open_run(tmp_path, folder).proba, open_run(load_run(run), folder).proba, atol=1e-6)
    (tmp_path / "predictions.parquet").write_bytes(b"torn")
    assert len(open_run(tmp_path, folder)) == len(kept)


def test_a_corpus_split_elsewhere_is_known_by_the_judged_tracks(demo):
    c = load_corpus(demo[1])
    bare = Corpus(c.tracks.drop(columns="split"), c.report, c.folder)
    assert (open_run(demo[0], bare).rows == open_run(*demo).rows).all()
    with pytest.raises(InputError, match="not split.*side='all'"): open_run(demo[0], bare, "val")
    assert len(open_run(demo[0], bare, "all")) == len(c)


def test_sides_and_limits(demo):
    everything = open_run(*demo, "all")
    assert len(everything) == len(load_corpus(demo[1])) and len(open_run(*demo, limit=1)) == 1
    few = open_run(*demo, "all", limit=5)
    assert len(few) == 5 and few.rows[0] == 0 and few.rows[-1] == len(everything) - 1
    with pytest.raises(InputError, match="limit of 0"): open_run(*demo, limit=0)
    with pytest.raises(InputError, match="unknown side"): open_run(*demo, "tests")
    with pytest.raises(InputError, match="does not exist"): open_run("nowhere", demo[1])


@pytest.mark.parametrize("sort", SORTS)
def test_orders(opened, sort):
    t = opened.find(sort=sort)
    column = SORTS[sort][0]
    assert len(t) == len(opened) and (t[column].is_monotonic_increasing if sort == "title" else t[column].is_monotonic_decreasing)
    assert (opened.proba[t.index].max(1) == t.certainty).all()


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=12))
def test_any_search_is_an_answer(opened, text):
    found = opened.find(text)
    assert set(found.index) <= set(opened.table.index)


def test_search_minds_neither_case_nor_accents(opened):
    title = opened.table.title[0]
    assert title in set(opened.find(title.upper()).title) and set(opened.find(country="Germany").country) == {"DEU"}
    assert opened.find(country="Kenya").empty
    with pytest.raises(InputError): opened.find(country="Atlantis")
    with pytest.raises(InputError, match="unknown order"): opened.find(sort="worst")


def test_sound(opened):
    t = opened.table.track_id[0]
    y, sr = opened.sound(t)
    assert y.dtype == np.float32 and len(y) == round(opened.analysis.dur_s * sr) and len(opened.sound(t, 1.5)[0]) == round(1.5 * sr)
    with pytest.raises(InputError, match="none of these"): opened.sound("nobody")
    silent = replace(opened, table=opened.table.assign(audio=""))
    with pytest.raises(InputError, match="has no sound"): silent.sound(t)
    lost = replace(opened, table=opened.table.assign(audio="audio/gone.flac"))
    with pytest.raises(InputError, match="gone.flac does not exist"): lost.sound(t)


def test_an_ensemble_opens_too(demo):
    ens = make_ensemble([demo_run("fcnn")[0], demo_run("rnn")[0]])
    both = open_run(ens, demo[1])
    single = [open_run(demo_run(m)[0], demo[1]) for m in ("fcnn", "rnn")]
    assert set(both.views) == {"tabular", "sequence"} and both.sound(both.table.track_id[0])[0].size
    np.testing.assert_allclose(both.proba, (single[0].proba + single[1].proba) / 2, atol=1e-4)
    assert both.embeddings().shape == (len(both), sum(s.embeddings().shape[1] for s in single))


def test_one_country_and_one_track(demo):
    c = load_corpus(demo[1])
    one = open_run(load_run(demo[0]), c.folder, limit=1)
    assert len(one.find()) == 1 and one.embeddings().shape[0] == 1
