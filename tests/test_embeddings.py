"Pictures of embeddings judged by what they claim: neighbours, numbers, caches, and explorers that stay usable on bad input."
import threading
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from geomusic.corpus import fold
from geomusic.evaluate import predictions_table
from geomusic.exploring import embeddings as E
from geomusic.files import InputError
from geomusic.places import countries, great_circle_km
from geomusic.scores import surprise

CODES = "ARG BRA CHN DEU EGY FRA GBR IND IRL ITA JPN KEN".split()


def table(n=60, codes=("CHN", "DEU", "IRL"), seed=0, label=None):
    r, c = np.random.default_rng(seed), len(codes)
    y = r.integers(c, size=n)
    p = r.dirichlet(np.full(c, 0.4), n)
    t = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], group=[f"g{i // 2}" for i in range(n)], country=np.array(codes)[y]))
    t = t.join(countries()[["lat_deg", "lon_deg"]], on="country")
    out = predictions_table(t, p, list(codes))
    to = countries().reindex(out.predicted)
    km = great_circle_km(out.lat_deg.to_numpy(), out.lon_deg.to_numpy(), to.lat_deg.to_numpy(), to.lon_deg.to_numpy())
    return out.assign(title=[f"Tune <b>{i}</b>" for i in range(n)], artist="", audio="", wrong_km=np.where(out.country == out.predicted, 0, km), certainty=p.max(1), surprise=surprise(p, y))


def opened(n=60, z=None, **kw):
    "What explorers ask of an Opened run, without a model."
    t = table(n, **kw)

    def sound(track_id, dur_s=None): raise InputError(f"`{track_id}` has no sound")

    def find(text="", country=None, sort="most wrong"):
        found = t[t.title.map(fold).str.contains(fold(text), regex=False)]
        return found.sort_values("wrong_km", ascending=False)
    z = np.random.default_rng(1).normal(size=(n, 16)).astype(np.float32) if z is None else z
    return SimpleNamespace(table=t, embeddings=lambda at=None: z if at is None else z[at], sound=sound, find=find, cache={}, corpus=SimpleNamespace(folder=None))


def lasso(fig, inside, kind="plotly_selected"):
    "What the browser sends when points are caught or clicked."
    hits = [(i, j, t) for j, t in enumerate(fig.data[:-1]) for i, row in enumerate(t.customdata) if int(row) in inside]
    fig._js2py_pointsCallback = dict(event_type=kind, selector=None, device_state=None, points=dict(
        xs=[float(t.x[i]) for i, j, t in hits], ys=[float(t.y[i]) for i, j, t in hits], point_indexes=[i for i, j, t in hits], trace_indexes=[j for i, j, t in hits]))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=st.integers(2, 80), d=st.integers(1, 40), dims=st.sampled_from([2, 3]), seed=st.integers(0, 99))
def test_pca_is_that_of_scikit_learn_but_for_signs(n, d, dims, seed):
    z = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    p, k = E.plane(z, "pca", dims), min(n, d, dims)
    ours, theirs = p.xy[:, :k].astype(float), PCA(k).fit_transform(z)
    assert p.xy.shape == (n, dims) and np.allclose(np.abs(ours), np.abs(theirs), atol=2e-3 * np.abs(z).max()) and (p.xy[:, k:] == 0).all()


@pytest.mark.parametrize("method", ["tsne", "umap"])
@pytest.mark.parametrize("dims", [2, 3])
def test_clusters_stay_together_and_the_same_seed_gives_the_same_picture(method, dims):
    r = np.random.default_rng(0)
    y = np.repeat(np.arange(3), 25)
    z = (r.normal(size=(3, 12)) * 8)[y] + r.normal(size=(75, 12))
    a, b = (E.plane(z, method, dims, neighbours=10, start="random") for _ in range(2))
    assert (a.xy == b.xy).all() and a.xy.shape == (75, dims) and not a.notes
    near = NearestNeighbors(n_neighbors=6).fit(a.xy).kneighbors(return_distance=False)
    assert (y[near] == y[:, None]).mean() > 0.97


@pytest.mark.parametrize("method", E.METHODS)
@pytest.mark.parametrize("n", [0, 1, 2, 4, 5, 7])
def test_few_tracks_get_a_picture_and_a_note(method, n):
    z = np.random.default_rng(0).normal(size=(n, 6))
    p = E.plane(z, method, neighbours=500)
    assert p.xy.shape == (n, 2) and p.there.all() and bool(p.notes) == (method != "pca")
    fig = E.plane_plot(p, table(max(n, 1)).iloc[:n])
    assert fig.layout.annotations[0].text if n == 0 or p.notes else not fig.layout.annotations


def test_holes_have_no_place_and_move_nobody():
    z = np.random.default_rng(0).normal(size=(40, 6))
    holed = np.insert(z, 7, np.nan, axis=0)
    p, q = E.plane(z, "tsne"), E.plane(holed, "tsne")
    assert np.isnan(q.xy[7]).all() and (np.delete(q.xy, 7, 0) == p.xy).all() and "1 tracks" in q.notes[0]
    assert 7 not in np.concatenate([t.customdata for t in E.plane_plot(q, table(41)).data[:-1]])
    nobody = E.plane(np.full((5, 3), np.inf))
    assert not nobody.there.any() and "no place" in E.plane_plot(nobody, table(5)).layout.annotations[0].text


@pytest.mark.parametrize("bad", [dict(z=np.zeros(5)), dict(z=np.array([["a"]])), dict(method="tsn"), dict(dims=4), dict(start="anywhere")])
def test_nonsense_is_refused(bad):
    with pytest.raises(InputError): E.plane(**dict(dict(z=np.zeros((9, 3))), **bad))
    with pytest.raises(InputError): E.plane_plot(E.plane(np.zeros((4, 2)), "pca"), table(5))
    with pytest.raises(InputError): E.plane_plot(E.plane(np.eye(4), "pca"), table(4), "mood")


def test_the_cache_is_by_content_and_survives_damage(tmp_path, monkeypatch):
    z, calls = np.random.default_rng(0).normal(size=(30, 5)).astype(np.float32), []
    real = E._tsne
    monkeypatch.setattr(E, "_tsne", lambda *a: calls.append(1) or real(*a))
    first = E.plane(z, cache=tmp_path)
    assert (E.plane(z.copy(), cache=tmp_path).xy == first.xy).all() and len(calls) == 1
    changed = z.copy(); changed[3, 2] += 1e-4
    E.plane(changed, cache=tmp_path), E.plane(z, seed=1, cache=tmp_path), E.plane(z, neighbours=5, cache=tmp_path), E.plane(z, start="random", cache=tmp_path)
    assert len(calls) == 5 and len(list(tmp_path.iterdir())) == 5
    for damage in (b"", b"PK\x03\x04 cut short"):
        for f in tmp_path.iterdir(): f.write_bytes(damage)
        assert (E.plane(z, cache=tmp_path).xy == first.xy).all()
    assert len(calls) == 7
    (tmp_path / "file").touch()
    assert (E.plane(z, cache=tmp_path / "file").xy == first.xy).all(), "a folder that cannot be made only costs time"


def test_trust_and_overlap_are_those_of_the_books():
    r = np.random.default_rng(0)
    z, xy = r.normal(size=(300, 8)), r.normal(size=(300, 2))
    xy[:, 0] += z[:, 0]
    for k in (3, 10, 25): assert abs(E.trust(z, xy, k) - trustworthiness(z, xy, n_neighbors=k)) < 1e-6
    some = [E.trust(z, xy, 10, rows=150, seed=s) for s in range(20)]
    assert abs(np.mean(some) - E.trust(z, xy)) < 0.01, "some tracks, ranked among all, are enough"
    sets = [[set(row) for row in NearestNeighbors(n_neighbors=10).fit(x).kneighbors(return_distance=False)] for x in (z, xy)]
    assert abs(E.overlap(z, xy) - np.mean([len(a & b) / len(a | b) for a, b in zip(*sets)])) < 1e-12
    lots = np.mean([E.overlap(r.normal(size=(120, 3)), r.normal(size=(120, 3))) for _ in range(10)])
    assert abs(lots - E.overlap_by_chance(120)) < 0.006
    assert E.overlap(np.zeros((30, 2)), np.zeros((30, 2)), 5) <= 1, "twins everywhere"
    for wrong in ((z, xy[1:]), (z[:9], xy[:9])):
        with pytest.raises(InputError): E.trust(*wrong)
        with pytest.raises(InputError): E.overlap(*wrong)


def test_stability_sees_a_scrambled_picture():
    z = np.random.default_rng(0).normal(size=(80, 5))
    p = E.plane(z, "tsne")
    scrambled = E.Plane(p.xy[np.random.default_rng(1).permutation(80)], "tsne", {})
    s = E.stability(dict(a=p, b=E.Plane(p.xy[:, ::-1] * 2, "tsne", {}), c=scrambled)).set_index(["a", "b"])
    assert s.overlap["a", "b"] > 0.99 and s.disparity["a", "b"] < 1e-9 and s.overlap["a", "c"] < 0.15 and s.disparity["a", "c"] > 0.8
    with pytest.raises(InputError): E.stability(dict(a=p))
    assert list(E.pictures(z[:40], seeds=(0, 1), neighbours=(8, 4))) == ["seed 0", "seed 1", "4 neighbours"]


@settings(max_examples=30, deadline=None, derandomize=True)
@given(n=st.integers(1, 40), k=st.integers(1, 50), seed=st.integers(0, 99))
def test_neighbours_are_the_nearest(n, k, seed):
    z = np.random.default_rng(seed).integers(0, 3, size=(n, 3)).astype(float)
    t = E.neighbours(z, 0, k)
    d = np.linalg.norm(z - z[0], axis=1)
    assert len(t) == min(k, n - 1) and 0 not in t.row.tolist() and np.allclose(t.distance, np.sort(d[1:])[:k])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("color", E.COLOURS)
def test_every_track_is_drawn_once_and_no_two_kinds_look_alike(color, dims):
    t = table(200, CODES)
    p = E.plane(np.random.default_rng(0).normal(size=(200, 9)), "pca", dims)
    fig = E.plane_plot(p, t, color)
    rows = np.concatenate([np.asarray(tr.customdata) for tr in fig.data[:-1]])
    assert sorted(rows) == list(range(200)) and all((np.asarray(tr.x) == p.xy[np.asarray(tr.customdata), 0]).all() for tr in fig.data[:-1])
    looks = [tr.marker.symbol for tr in fig.data[:-1]]
    assert len(set(looks)) == len(looks), "a shape for each, not only a colour"
    assert fig.layout.meta["alt"].startswith("PCA") and "<b>0</b>" not in fig.to_json(), "titles are text"
    if color == "country": assert fig.data[7].name.startswith("5 others") and fig.data[0].name.endswith(str(t.country.value_counts().iloc[0]))
    png = E.plane_figure(p, t, color)
    assert png.get_label() == fig.layout.meta["alt"] and sum(len(c.get_offsets()) for c in png.axes[0].collections) == 200


def test_fifty_thousand_points_travel_as_numbers_and_pages_are_thinned():
    n = 50_000
    t = table(n, CODES)
    p = E.Plane(np.random.default_rng(0).normal(size=(n, 2)).astype(np.float32), "pca", {})
    fig, thin = E.plane_plot(p, t), E.plane_plot(p, t, most=3000)
    assert {tr.type for tr in fig.data} == {"scattergl"} and sum(len(tr.x) for tr in fig.data) == n
    assert {tr.marker.symbol for tr in fig.data[:-1]} == {"circle"} and len({tr.marker.symbol for tr in thin.data[:-1]}) == 8, "shapes only where they can be seen"
    assert sum(len(tr.x) for tr in thin.data) == 3000 and len(thin.to_json()) < 500_000 and "3,000 of 50,000" in thin.layout.annotations[0].text


def test_explorer_lasso_click_search_and_menus(tmp_path):
    o = opened()
    a = E.explore_embeddings(o, cache=tmp_path).atlas
    lasso(a.fig, {3, 5, 8, 13})
    assert {r for _, r in a.tracks.options} == {3, 5, 8, 13} and "4 tracks in the lasso" in a.status.value and not a.sound.outputs
    first = [r for _, r in a.tracks.options][0]
    assert o.table.surprise[first] == o.table.surprise[[3, 5, 8, 13]].max()
    lasso(a.fig, {21}, "plotly_click")
    near = E.neighbours(o.embeddings(), 21).row.tolist()
    assert a.tracks.value == 21 and [r for _, r in a.tracks.options] == [21, *near]
    assert np.allclose(a.fig.data[-1].x, a.plane.xy[[21, *near], 0]) and "has no sound" in a.sound.outputs[0]["data"]["text/plain"]
    a.color.value = "error"
    assert a.fig.data[1].marker.symbol == "x" and len(a.fig.data[-1].x) == 11, "the rings stay"
    a.picture.value = ("pca", 3)
    assert a.fig.data[0].type == "scatter3d" and len(a.fig.data[-1].z) == 11
    a.picture.value = ("tsne", 2)
    assert a.plane.method == "tsne" and list(tmp_path.iterdir()) and a.bar.layout.display == "none"
    a.search.value = "b 17 b"
    assert [r for _, r in a.tracks.options] == [17] and a.tracks.value is None
    a.search.value = "no such tune"
    assert not a.tracks.options and "0 tracks" in a.status.value
    lasso(a.fig, set())
    assert "0 tracks" in a.status.value


@pytest.mark.parametrize("n", [1, 2, 6])
def test_explorer_of_few_tracks_and_holes(n, tmp_path):
    z = np.random.default_rng(0).normal(size=(n, 4)).astype(np.float32)
    z[0, 0] = np.nan
    o = opened(n, z=z, codes=("IRL", "JPN"))
    a = E.explore_embeddings(o, cache=tmp_path).atlas
    for picture in a.picture.options: a.picture.value = picture[1]
    for color in E.COLOURS: a.color.value = color
    assert "no place" in a.status.value
    a.search.value = "tune"
    a.tracks.value = 0
    assert a.sound.outputs and "not a number" not in a.status.value


def test_a_run_without_embeddings_says_so():
    def none(at=None): raise InputError("not every track has the view")
    for n in (5, 600): assert "not every track" in E.explore_embeddings(SimpleNamespace(**vars(opened(n)) | dict(embeddings=none))).value


@pytest.fixture
def impatient(monkeypatch):
    "Only the first few tracks are asked before the picture is drawn"
    monkeypatch.setattr(E, "_first", lambda o, path, f=E._first: f(o, path, few=3, patience_s=0))


def test_many_tracks_are_drawn_in_part_first_and_then_whole(tmp_path, impatient):
    "The model answers no more until the first picture has been seen"
    o, seen, asked = opened(600), threading.Event(), []
    z = o.embeddings()

    def slow(at=None):
        if asked: seen.wait(600)
        asked.extend(at)
        return z[at]
    o.embeddings = slow
    a = E.explore_embeddings(o, cache=tmp_path).atlas
    assert 0 < a.plane.there.sum() < 600 and "of 600 tracks so far" in a.status.value and "so far" in a.fig.layout.annotations[0].text
    a.color.value = "error"  # it can be used meanwhile
    row = int(np.flatnonzero(a.plane.there)[-1])
    a.search.value = f"b {row} b"
    thread = a.thread
    seen.set()
    thread.join(600)
    assert sorted(asked) == list(range(600)) and a.plane.there.all() and "so far" not in a.status.value and (o.cache["embeddings"] == z).all()
    assert a.color.value == "error" and a.bar.layout.display == "none" and [r for _, r in a.tracks.options] == [row]


def test_a_model_that_fails_half_way_says_so(tmp_path, impatient):
    o = opened(600)
    z, asked = o.embeddings(), []

    def breaks(at=None):
        asked.append(at)
        if len(asked) > 1: raise InputError("the disk is gone")
        return z[at]
    o.embeddings = breaks
    a = E.explore_embeddings(o, cache=tmp_path).atlas
    a.thread.join(600)
    assert "the disk is gone" in a.status.value and a.plane.there.sum() == len(asked[0])
    a.color.value = "certainty"


def test_embeddings_are_asked_once_for_a_model_and_its_rows(tmp_path, monkeypatch, impatient):
    from geomusic.exploring.opened import Opened, demo_run, open_run
    one = open_run(*demo_run("fcnn"), "all")
    a = E.explore_embeddings(one, cache=tmp_path).atlas
    a.thread.join(600)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    want = one.embeddings()
    assert np.allclose(open_run(*demo_run("fcnn"), "all").embeddings(), want, atol=1e-5)
    fewer = E.explore_embeddings(open_run(*demo_run("fcnn"), "all", limit=100), cache=tmp_path).atlas
    fewer.thread.join(600)
    assert len(fewer.z) == 100 and len(list(tmp_path.glob("*.npz"))) == 2
    monkeypatch.setattr(Opened, "embeddings", lambda self, at=None: self.cache["embeddings"])  # not asked again
    again = open_run(*demo_run("fcnn"), "all")
    assert (E.explore_embeddings(again, cache=tmp_path).atlas.z == want).all()
