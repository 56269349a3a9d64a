"The listening test: nothing is lost, nothing is told too early, everybody gets the same tracks in an order of their own."
import os
import signal
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geomusic.corpus import Corpus
from geomusic.exploring.answers import ANSWERS, Sitting, _order, append_answer, draw_tracks, excerpt, place_of, playable, read_answers, score_figure, score_table, score_words
from geomusic.exploring.listening_test import _hear_class, listening_test
from geomusic.files import InputError
from geomusic.judging.listeners import read_listeners
from geomusic.places import countries


def answer(who="a", i=0, **kw): return dict(listener_id=who, track_id=f"t{i}", country="DEU", confidence=0.5, seconds=1.0, plays=1, trial=i + 1, seed=0, truth="shown") | kw


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    "Twelve tones from three countries"
    import soundfile as sf
    folder, rows = tmp_path_factory.mktemp("tones"), []
    for i in range(12):
        sf.write(folder / f"{i}.flac", 0.3 * np.sin(2 * np.pi * (220 + 30 * i) * np.arange(22050) / 22050), 22050)
        rows.append(dict(track_id=f"t{i}", country=("DEU", "CHN", "IRL")[i % 3], group=f"g{i}", title=f"secret {i}", artist="", audio=f"{i}.flac", source="", licence=""))
    return Corpus(pd.DataFrame(rows).join(countries()[["lat_deg", "lon_deg"]], on="country"), {}, folder)


@pytest.fixture
def said(corpus):
    t = corpus.tracks[["track_id", "group", "country", "lat_deg", "lon_deg"]].assign(predicted="DEU", p_CHN=0.2, p_DEU=0.5, p_IRL=0.3)
    return t


def _write(args):
    path, who, n = args
    return [append_answer(path, answer(who, i)) for i in range(n)]


def test_processes_that_write_at_once(tmp_path):
    with ProcessPoolExecutor(4) as pool: done = list(pool.map(_write, [(tmp_path / "a.csv", f"p{k % 3}", 8) for k in range(4)]))
    t = read_answers(tmp_path / "a.csv")
    assert len(t) == 24 == sum(map(sum, done)) and not t.duplicated(["listener_id", "track_id"]).any()


def test_a_killed_writer_loses_nothing_it_was_thanked_for(tmp_path):
    "kill -9 in the middle; every answer that was acknowledged is in the file, and the next writer goes on"
    code = ("import sys; from geomusic.exploring.answers import append_answer\n"
            "for i in range(10**6): append_answer(sys.argv[1], dict(listener_id='a', track_id=f't{i}', country='DEU', trial=i, seed=0, truth='shown')); print(i, flush=True)")
    p = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "a.csv")], stdout=subprocess.PIPE, text=True)
    seen = [int(p.stdout.readline()) for _ in range(20)]
    os.kill(p.pid, signal.SIGKILL)
    seen += [int(x) for x in p.stdout.read().split()]
    p.wait()
    assert append_answer(tmp_path / "a.csv", answer("b"))
    t = read_answers(tmp_path / "a.csv")
    assert {f"t{i}" for i in seen} <= set(t.track_id[t.listener_id == "a"]) and (t.listener_id == "b").sum() == 1


@settings(max_examples=60, deadline=None, derandomize=True)
@given(cut=st.integers(0, 400))
def test_a_file_cut_anywhere(cut, tmp_path_factory):
    "Whole lines before the cut stay, the torn one is put aside, the next answer is whole"
    path = tmp_path_factory.mktemp("cut") / "a.csv"
    for i in range(4): append_answer(path, answer(i=i, country="IRL"))
    data = path.read_bytes()[:max(cut, len(",".join(ANSWERS)) + 1)]
    path.write_bytes(data)
    whole = sum(line.endswith(",shown") for line in data.decode().splitlines()[1:])
    assert len(read_answers(path)) == whole
    assert append_answer(path, answer("b", country="CHN"))
    t = read_answers(path)
    assert len(t) == whole + 1 and t.country.tolist() == ["IRL"] * whole + ["CHN"] and t.truth.isin(["shown", "hidden"]).all()
    torn = path.with_name("a.csv.torn")
    assert not torn.exists() or torn.read_text().strip() in data.decode()


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "a.csv").write_text("name,age\nx,3\n")
    with pytest.raises(InputError, match="other columns"): append_answer(tmp_path / "a.csv", answer())
    assert (tmp_path / "a.csv").read_text() == "name,age\nx,3\n"


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="could not be written"): append_answer(tmp_path / "file" / "a.csv", answer())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(n=st.integers(1, 30), seed=st.integers(0, 10**6), sizes=st.lists(st.integers(1, 8), min_size=1, max_size=4), groups=st.integers(1, 12))
def test_drawn_tracks(n, seed, sizes, groups):
    codes = np.repeat(["DEU", "CHN", "IRL", "KEN"][:len(sizes)], sizes)
    t = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(len(codes))], country=codes, group=[f"g{i % groups}" for i in range(len(codes))]))
    got = draw_tracks(t, n, seed)
    assert len(got) == len(set(got)) == min(n, len(t)) and got == draw_tracks(t.sample(frac=1, random_state=1), n, seed)
    drawn = t.set_index("track_id").loc[got]
    if len(got) <= t.group.nunique(): assert drawn.group.is_unique
    assert sorted(_order(got, seed, "a")) == sorted(got)


def test_no_country_is_forgotten(corpus):
    assert corpus.tracks.set_index("track_id").country[draw_tracks(corpus.tracks, 9)].value_counts().tolist() == [3, 3, 3]


def test_points_and_names():
    assert place_of("China") == dict(country="CHN", lat_deg=None, lon_deg=None) and place_of(point=(53.3, -6.3))["country"] == "IRL"
    for bad in (dict(), dict(country="Atlantis"), dict(point=(95, 0))):
        with pytest.raises(InputError): place_of(**bad)


def test_excerpts(corpus, tmp_path):
    sound = excerpt(corpus, "t0", 0.5)
    import io

    import soundfile as sf
    y, sr = sf.read(io.BytesIO(sound))
    assert sr == 22050 and abs(len(y) / sr - 0.5) < 0.12 and np.abs(y).max() <= 1.01 and b"secret" not in sound
    with pytest.raises(InputError): excerpt(corpus, "nobody")
    with pytest.raises(InputError): excerpt(Corpus(corpus.tracks.assign(audio="gone.flac"), {}, tmp_path), "t0")


def test_only_what_is_there_is_asked(corpus, tmp_path):
    assert playable(corpus).all() and not playable(Corpus(corpus.tracks, {}, tmp_path)).any() and not playable(Corpus(corpus.tracks.assign(audio=None), {}, corpus.folder)).any()
    with pytest.raises(InputError, match="can be played"): Sitting(Corpus(corpus.tracks, {}, tmp_path), tmp_path / "a.csv")


def test_scores(corpus, said, tmp_path):
    s = Sitting(corpus, tmp_path / "a.csv", n=6, listener_id="a")
    truth = corpus.tracks.set_index("track_id").country
    for t in s.left: s.give(t, place_of(truth[t]), 1.0, 3.0, 1)
    board = score_table(s.answers, corpus.tracks, said)
    assert board.right.to_dict() == {"you": 6, "model": 2} and board.km_mean["you"] == 0 and board.km_mean["model"] > 3000
    assert "you were nearer" in score_words(board) and len(score_figure(s.answers, corpus.tracks, said).axes[0].lines) == 2
    assert list(score_table(s.answers, corpus.tracks, said.assign(track_id="other " + said.track_id)).index) == ["you"]
    assert len(read_listeners(tmp_path / "a.csv", corpus.tracks, least=1)) == 6


@pytest.mark.parametrize("shown", [True, False])
def test_the_page(corpus, said, tmp_path, shown):
    "By its controls: what is missing is said, the truth comes after the answer, and only if it is wanted; the score at the end"
    desk = listening_test(corpus, tmp_path / "a.csv", said, n=3, dur_s=0.5, shown=shown).desk
    assert "3 excerpts of 0.5 seconds" in desk.head.value
    desk.begin.click()
    for i in range(3):
        assert f"Excerpt {i + 1} of 3" in desk.head.value and desk.hear.plays == 0 and desk.hear.truth == [] and desk.sure.value is None and desk.country.value == ""
        desk.send.click()
        assert "no place" in desk.message.value
        desk.hear.point = [35.0, 105.0]
        assert desk.country.value == desk.hear.chosen == "CHN" and "China" in desk.hear.says
        desk.sure.value, desk.hear.plays = 0.25, 2
        desk.send.click()
        assert len(read_answers(tmp_path / "a.csv")) == i + 1
        assert ("it is from" in desk.message.value) == (desk.next in desk.box.children) == shown
        if shown:
            desk.hear.point = [0.0, 20.0]  # too late
            desk.next.click()
    t = read_answers(tmp_path / "a.csv")
    assert (t.lat_deg == 35).all() and (t.plays == 2).all() and (t.confidence == 0.25).all() and set(t.truth) == {"shown" if shown else "hidden"}
    assert "the model was right in" in desk.result.value and 'alt="A line a track' in desk.result.value
    desk.again.click()
    assert desk.begin in desk.box.children and desk.code.value == ""


def test_a_browser_that_cannot_play(corpus, tmp_path):
    desk = listening_test(corpus, tmp_path / "a.csv", n=2, dur_s=0.5).desk
    desk.begin.click()
    for _ in range(2):
        desk.hear.trouble = "this browser cannot play the excerpt"
        assert desk.skip in desk.box.children
        desk.skip.click()
    assert "2 could not be played" in desk.head.value and "no score" in desk.message.value and not (tmp_path / "a.csv").exists()


def test_a_full_disk_is_said_and_the_answer_can_be_given_again(corpus, tmp_path, monkeypatch):
    desk = listening_test(corpus, tmp_path / "a.csv", n=1, dur_s=0.5).desk
    desk.begin.click()
    desk.country.value, desk.sure.value, desk.hear.plays = "DEU", 0.5, 1
    def full(_): raise OSError(28, "No space left on device")
    with monkeypatch.context() as m:
        m.setattr(os, "fsync", full)
        desk.send.click()
    assert "No space left" in desk.message.value and desk.send in desk.box.children
    desk.send.click()
    assert len(read_answers(tmp_path / "a.csv")) == 1 and "it is from" in desk.message.value


def test_nothing_personal_and_nothing_early(corpus, tmp_path):
    desk = listening_test(corpus, tmp_path / "a.csv", n=1, dur_s=0.5).desk
    desk.begin.click()
    sent = str({k: v for k, v in desk.hear.get_state().items() if k in _hear_class().class_trait_names(sync=True) and k not in ("land", "sound", "_esm", "_css")})
    assert "secret" not in sent and desk.track not in sent and not desk.hear.truth
    assert set(ANSWERS) == {"listener_id", "track_id", "country", "lat_deg", "lon_deg", "confidence", "seconds", "plays", "trial", "seed", "truth"}


@pytest.mark.parametrize("env, hands", [({}, False), (dict(VOILA_PREHEAT="False"), True), (dict(SERVER_SOFTWARE="voila/0.5"), True), (dict(SERVER_SOFTWARE="nginx"), False)])
def test_under_voila_there_is_somebody_who_can_touch(env, hands, monkeypatch):
    "nbconvert and Voilà run cells without asking for input; one of them shows widgets"
    import IPython

    from geomusic.touch import _box, _has_hands
    for name in ("VOILA_PREHEAT", "SERVER_SOFTWARE"): monkeypatch.delenv(name, raising=False)
    for name, value in env.items(): monkeypatch.setenv(name, value)
    monkeypatch.setattr(IPython, "get_ipython", lambda: SimpleNamespace(kernel=SimpleNamespace(_allow_stdin=False)))
    assert _has_hands() == hands and ("text/plain" == next(iter(_box([])._repr_mimebundle_())) and len(_box([])._repr_mimebundle_()) == 1) != hands
