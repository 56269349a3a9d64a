"The engine under fire: killed, interrupted, out of room, in company, on a cluster; the arrays are always those of a quiet run. GEOMUSIC_LONG=1 kills more often."
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import BrokenExecutor, Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from filelock import FileLock

import geomusic.sound.engine as engine
from geomusic.corpus import Corpus, load_corpus, save_corpus
from geomusic.files import InputError, read_json, write_json
from geomusic.rerun import write_provenance
from geomusic.sound.analysis import Analysis
from geomusic.sound.engine import Made, Pool, Task, extract, refused_rows, row_keys, stream, views_account
from geomusic.store import Part, RowFile, read_journal, view_lock
from geomusic.views import AUDIO_VIEWS, View, load_view, store_view, verify_view, views_of_sound

ROOT = Path(__file__).parent.parent
LONG = bool(os.environ.get("GEOMUSIC_LONG"))
ONE_S = Analysis(dur_s=1.0)

# Every process writes down what it decodes, takes its time over it, and dies of some files. Worker processes import the module too, so the change is made at start-up.
SITE = """
import importlib.util, os, sys, time
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name != "geomusic.sound.engine": return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            real = module.load_audio
            def load_audio(path, *args, **kw):
                name = os.path.basename(path)
                log = os.open(os.environ["ENGINE_LOG"], os.O_CREAT | os.O_APPEND | os.O_WRONLY)
                os.write(log, (name + chr(10)).encode()); os.close(log)
                if name.startswith("deadly"): os._exit(11)
                time.sleep(float(os.environ.get("ENGINE_SLEEP", 0)))
                while os.path.exists(os.environ.get("ENGINE_GATE", "")): time.sleep(.01)
                return real(path, *args, **kw)
            module.load_audio = load_audio
        spec.loader.exec_module = exec_module
        return spec
if "ENGINE_LOG" in os.environ: sys.meta_path.insert(0, Hook())
"""
RUN = """
import json, sys
from geomusic.corpus import load_corpus
from geomusic.files import InputError
from geomusic.sound.analysis import Analysis
from geomusic.sound.engine import extract
if __name__ == "__main__":
    try: extract(load_corpus(sys.argv[1]), a=Analysis(dur_s=1.), progress=False, **json.loads(sys.argv[2]))
    except InputError as e: sys.exit(f"error: {e}")
"""


def noise(path, seed, seconds=1.0, sr=22050):
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, 0.1 * np.random.default_rng(seed).standard_normal(int(seconds * sr)), sr)
    return path


def table(paths):
    return pd.DataFrame(dict(track_id=[f"t {p}" for p in paths], country="IRL", lat_deg=53.3, lon_deg=-6.2, group="", title="", artist="", audio=[str(p) for p in paths]))


def noisy(folder, n=24):
    "A corpus of n seconds of noise"
    for i in range(n):
        noise(folder / "audio" / f"{i:03}.wav", i)
    return save_corpus(Corpus(table([f"audio/{i:03}.wav" for i in range(n)])), folder)


def clean(folder, to):
    "A copy of a corpus without views"
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("views"))
    return to


class Runs:
    "Runs in processes of their own, and what they decoded"

    def __init__(self, tmp):
        self.log, self.run = tmp / "decoded.log", tmp / "run.py"
        (tmp / "site").mkdir()
        (tmp / "site" / "sitecustomize.py").write_text(SITE)
        self.run.write_text(RUN)
        self.env = os.environ | dict(PYTHONPATH=os.pathsep.join([str(tmp / "site"), str(ROOT)]), ENGINE_LOG=str(self.log))

    def start(self, folder, sleep=0.0, gate="", **how):  # gate: a file; as long as it is there, nothing is decoded
        env = self.env | dict(ENGINE_SLEEP=str(sleep), ENGINE_GATE=str(gate))
        return subprocess.Popen([sys.executable, str(self.run), str(folder), json.dumps(how)], env=env, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def finish(self, folder, ok=True, **how):
        p = self.start(folder, **how)
        _, err = p.communicate(timeout=600)
        assert (p.returncode == 0) == ok, err[-3000:]
        return err

    def decoded(self):
        return self.log.read_text().split() if self.log.exists() else []


@pytest.fixture
def runs(tmp_path):
    return Runs(tmp_path)


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    "A corpus whose views were made in one go"
    folder = tmp_path_factory.mktemp("quiet") / "corpus"
    extract(noisy(folder), a=ONE_S, n_jobs=1, progress=False)
    return folder


def arrays(folder):
    return {n: (Path(folder) / "views" / f"{n}.npy").read_bytes() for n in AUDIO_VIEWS}


def journaled(folder):
    "Files of which every view has a row in the journals of the parts, or that are finished"
    rows = [{line[0] for line in read_journal(p)[0]} for p in (Path(folder) / "views").glob("part/*-*.journal")]
    audio = load_corpus(folder).tracks.audio
    done = set.intersection(*rows) if len(rows) == 3 else set()
    if (Path(folder) / "views" / "tabular.json").exists():
        done = set(range(len(audio)))
    return {Path(audio[i]).name for i in done}


# ---- killed


@pytest.mark.parametrize("n_jobs, deaths", [(1, 24 if LONG else 2), (2, 12 if LONG else 1)])
def test_killed_at_random_moments_it_ends_as_if_nothing_had_happened(quiet, tmp_path, runs, n_jobs, deaths):
    folder, rng, seen, safe = clean(quiet, tmp_path / "corpus"), random.Random(n_jobs), [], set()
    while len(seen) < deaths or not any(code == -signal.SIGKILL and 0 < n < 24 for code, n in seen):  # one at least in the middle of the work
        mark, moment = len(runs.decoded()), len(safe) + rng.randint(1, 7) if seen or not LONG else 0
        p = runs.start(folder, n_jobs=n_jobs, sleep=0.1)
        if rng.random() < 0.15 and seen:
            time.sleep(rng.uniform(0, 5))  # perhaps it has not even begun
        while p.poll() is None and len(journaled(folder)) < min(moment, 24):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.15))
        p.send_signal(signal.SIGKILL)
        p.communicate(timeout=600)  # ends when its workers are gone as well
        again = runs.decoded()[mark:]
        assert not safe & set(again) and len(again) == len(set(again)), "a file in the journal was decoded again"
        assert safe <= journaled(folder), "a row was lost"
        safe = journaled(folder)
        seen.append((p.returncode, len(safe)))
        if len(safe) == 24:  # all was there: a look, and from the beginning
            runs.finish(folder, n_jobs=n_jobs)
            assert arrays(folder) == arrays(quiet)
            shutil.rmtree(folder / "views")
            safe = set()
    mark = len(runs.decoded())
    runs.finish(folder, n_jobs=n_jobs)
    last = runs.decoded()[mark:]
    assert sorted([*last, *safe]) == sorted(Path(a).name for a in load_corpus(folder).tracks.audio), "every file once, none lost"
    assert arrays(folder) == arrays(quiet) and verify_view(folder, "melspec").empty and not (folder / "views" / "part").exists()
    print(f"\n{n_jobs} processes, (exit code, rows that were safe) at each death: {seen}")


def test_the_journal_may_end_anywhere(tmp_path):
    keys = [c * 32 for c in "abc"]
    with Part(tmp_path, "tabular", keys, (3,), "float32") as part:
        for i in range(3):
            x = np.full(3, i + 1, np.float32)
            part.write(i, keys[i], x, 1, zlib.crc32(x), *(("corrupt", 'line\nbreak "and" ü') if i == 1 else ()))
    journal = part.path(".journal")
    text = journal.read_bytes()
    ends = [i + 1 for i, b in enumerate(text) if b == 10]
    assert len(ends) == 3
    for rest in (b"", b"\0" * 50, b"[9]\n", b"\xff\xfe\n"):
        for cut in range(len(text) + 1):
            journal.write_bytes(text[:cut] + rest)
            with Part(tmp_path, "tabular", keys, (3,), "float32") as part:
                assert sorted(part.rows) == list(range(sum(e <= cut for e in ends)))
    journal.write_bytes(text)
    os.truncate(part.path(".npy"), part.path(".npy").stat().st_size - 1)  # the array itself is cut off: all is made again
    with Part(tmp_path, "tabular", keys, (3,), "float32") as part:
        assert not part.rows and read_journal(journal) == ([], 0)


def test_ctrl_c_says_how_to_go_on(quiet, tmp_path, runs):
    for n_jobs in (1, 2):
        folder = clean(quiet, tmp_path / f"corpus{n_jobs}")
        p = runs.start(folder, n_jobs=n_jobs, sleep=1.0)  # there is enough left to do when the signal comes
        while p.poll() is None and len(journaled(folder)) < 3:
            time.sleep(0.01)
        os.killpg(p.pid, signal.SIGINT)  # as a terminal does: to the workers as well
        _, err = p.communicate(timeout=600)
        safe, mark = journaled(folder), len(runs.decoded())
        assert p.returncode != 0 and "interrupted: " in err and " of 24 rows are kept" in err and safe
        runs.finish(folder, n_jobs=n_jobs)
        assert not safe & set(runs.decoded()[mark:]) and arrays(folder) == arrays(quiet)


def test_a_file_that_kills_its_worker_costs_its_own_row_only(tmp_path, runs):
    corpus = noisy(tmp_path / "corpus", 20)
    noise(tmp_path / "corpus" / "audio" / "deadly.wav", 99)
    save_corpus(Corpus(pd.concat([corpus.tracks[:5], table(["audio/deadly.wav"]), corpus.tracks[5:]], ignore_index=True)), tmp_path / "corpus")
    clean(tmp_path / "corpus", tmp_path / "one")
    err = runs.finish(tmp_path / "corpus", n_jobs=2)
    assert "a worker died" in err and "deadly.wav" in err
    runs.finish(tmp_path / "one", ok=False, n_jobs=1)  # in one process it takes the run with it,
    mark = len(runs.decoded())
    runs.finish(tmp_path / "one", n_jobs=1)  # once
    assert runs.decoded()[mark:].count("deadly.wav") == 1 and "000.wav" not in runs.decoded()[mark:]
    runs.finish(tmp_path / "one", n_jobs=1)
    assert arrays(tmp_path / "one") == arrays(tmp_path / "corpus")
    for folder in ("one", "corpus"):
        v = load_view(tmp_path / folder, "sequence")
        assert list(v.reasons.items()) == [("t audio/deadly.wav", "killed its worker")] and (v.n_frames > 0).sum() == 20
    assert runs.decoded()[mark:].count("deadly.wav") == 1, "it is not tried for ever"


# ---- who computes does not matter


def test_one_process_two_and_a_cluster_agree_bit_by_bit(quiet, tmp_path):
    distributed = pytest.importorskip("distributed")
    two = clean(quiet, tmp_path / "two")
    extract(load_corpus(two), a=ONE_S, n_jobs=2, progress=False)
    assert arrays(two) == arrays(quiet)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        far = clean(quiet, tmp_path / "far")
        extract(load_corpus(far), a=ONE_S, backend="dask", scheduler=cluster.scheduler_address, progress=False)
        assert arrays(far) == arrays(quiet)
        turned = clean(quiet, tmp_path / "turned")
        tracks = load_corpus(turned).tracks
        extract(save_corpus(Corpus(tracks[::-1].reset_index(drop=True)), turned), a=ONE_S, backend="dask", scheduler=cluster.scheduler_address, progress=False)
        for n in AUDIO_VIEWS:
            assert np.array_equal(load_view(turned, n).x[::-1], load_view(quiet, n).x)
        real, engine._ready = engine._ready, nobody_sees_it
        try:
            with pytest.raises(InputError, match="2 of 2 workers do not see"):
                extract(load_corpus(clean(quiet, tmp_path / "blind")), a=ONE_S, backend="dask", scheduler=cluster.scheduler_address, progress=False)
        finally:
            engine._ready = real


def nobody_sees_it(path):
    return engine.ALGORITHM, False


@pytest.mark.skipif(not LONG, reason="Dask tries a deadly file four times")
def test_a_cluster_survives_a_deadly_file(tmp_path, runs):
    pytest.importorskip("distributed")
    noisy(tmp_path / "corpus", 12)
    noise(tmp_path / "corpus" / "audio" / "deadly.wav", 99)
    save_corpus(Corpus(table(["audio/deadly.wav", *[f"audio/{i:03}.wav" for i in range(12)]])), tmp_path / "corpus")
    runs.finish(tmp_path / "corpus", n_jobs=2, backend="dask", scheduler="local")
    v = load_view(tmp_path / "corpus", "melspec")
    assert list(v.reasons.values()) == ["killed its worker"] and (v.n_frames > 0).sum() == 12


@pytest.mark.skipif(not LONG, reason="it waits 15 s for an answer")
def test_nobody_at_the_address(quiet, tmp_path):
    with pytest.raises(InputError, match="no Dask scheduler at tcp://127.0.0.1:9"):
        extract(load_corpus(clean(quiet, tmp_path / "corpus")), a=ONE_S, backend="dask", scheduler="tcp://127.0.0.1:9", progress=False)


def test_only_a_few_tasks_are_under_way():
    out, most = set(), [0]

    def submit(task):
        out.add(future := Future())
        most[0] = max(most[0], len(out))
        future.set_result(Made())
        return future

    tasks = [Task(str(i), "", "", (), (), ONE_S, ()) for i in range(50)]
    for k, (task, _) in enumerate(stream(tasks, Pool(submit, 6, (BrokenExecutor,)))):
        out = set(list(out)[: max(0, len(out) - 1)])  # a slow reader: one result at a time
    assert k == 49 and most[0] <= 6 + 5


def test_a_cluster_that_is_gone_does_not_keep_us_waiting(monkeypatch):
    monkeypatch.setattr(engine, "PATIENCE_S", 0.05)
    task, answers = Task("a", "", "", (), (), ONE_S, ()), [True, True, False]
    with pytest.raises(InputError, match="no workers any more"):
        list(stream([task], Pool(lambda task: Future(), 2, (BrokenExecutor,), alive=lambda: answers.pop(0))))
    assert not answers, "while somebody is there, it waits"


@pytest.mark.parametrize("ask", [extract, engine.identify, engine.corpus_analysis, lambda c: write_provenance("run", c, "tabular", np.zeros((1, 2)))])
def test_a_corpus_without_a_folder_is_refused(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="the corpus has no folder"):
        ask(Corpus(table(["a.wav"])))
    assert not list(tmp_path.iterdir()), "something half-written was left"


def test_two_runs_in_one_folder(quiet, tmp_path, runs):
    folder, gate = clean(quiet, tmp_path / "corpus"), tmp_path / "gate"
    gate.touch()
    first = runs.start(folder, n_jobs=1, gate=gate)
    while not runs.decoded():
        time.sleep(0.01)
    second = runs.start(folder, n_jobs=1)
    said = second.stderr.readline()
    gate.unlink()
    err = [p.communicate(timeout=900)[1] for p in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], err
    assert sorted(runs.decoded()) == sorted(Path(a).name for a in load_corpus(folder).tracks.audio), "each file once"
    assert arrays(folder) == arrays(quiet)
    assert f"is being written by process {first.pid} on " in said and said.endswith(": waiting for it\n") and "waiting" not in "".join(err)


@pytest.mark.parametrize(("owner", "name"), [(dict(pid=7, host="attic", since="noon"), "process 7 on attic since noon"), (dict(pid=7), "another process")])
def test_an_owner_that_says_late_who_it_is(tmp_path, capsys, owner, name):
    held, said = threading.Event(), []

    def other():
        with FileLock(tmp_path / ".lock"):
            held.set()
            time.sleep(0.3)  # the lock is taken, the name is not there
            write_json(tmp_path / ".owner.json", owner)
            end = time.monotonic() + 600
            while not (said and said[-1].endswith("waiting for it\n")) and time.monotonic() < end:
                said.append(capsys.readouterr().err)
                time.sleep(0.01)

    with ThreadPoolExecutor(1) as aside:
        done = aside.submit(other)
        held.wait()
        with view_lock(tmp_path):
            assert read_json(tmp_path / ".owner.json")["pid"] == os.getpid()
        done.result()
    assert "".join(said) == f"{tmp_path} is being written by {name}: waiting for it\n"


def test_a_dead_owner_leaves_no_lock(quiet, tmp_path, runs):
    folder = clean(quiet, tmp_path / "corpus")
    p = runs.start(folder, n_jobs=1, sleep=1.0)
    while len(journaled(folder)) < 2:
        time.sleep(0.01)
    p.kill()
    p.communicate()
    assert (folder / "views" / ".owner.json").exists()
    assert "waiting" not in runs.finish(folder, n_jobs=1) and arrays(folder) == arrays(quiet)


# ---- content


@pytest.fixture
def counted(monkeypatch):
    "What was decoded in this process"
    asked, real = [], engine.load_audio
    monkeypatch.setattr(engine, "load_audio", lambda path, *args, **kw: asked.append(Path(path).name) or real(path, *args, **kw))

    def run(folder, names=AUDIO_VIEWS, a=ONE_S, **kw):
        asked.clear()
        extract(load_corpus(folder), names, a, n_jobs=1, progress=False, **kw)
        return sorted(asked)

    return run


def test_nothing_is_computed_twice(tmp_path, counted):
    folder = tmp_path / "corpus"
    tracks = noisy(folder, 6).tracks
    assert len(counted(folder)) == 6 and counted(folder) == []
    stamp = [(folder / "views" / f"{n}.{s}").stat().st_mtime_ns for n in AUDIO_VIEWS for s in ("npy", "json", "parquet")]
    assert counted(folder, a=None) == [] and stamp == [(folder / "views" / f"{n}.{s}").stat().st_mtime_ns for n in AUDIO_VIEWS for s in ("npy", "json", "parquet")]
    noise(folder / "audio" / "new.wav", 77)
    (folder / "audio" / "000.wav").rename(folder / "audio" / "renamed.wav")
    shutil.copy(folder / "audio" / "001.wav", folder / "audio" / "twin.wav")
    paths = ["audio/new.wav", "audio/renamed.wav", "audio/twin.wav", *tracks.audio[1:]]
    save_corpus(Corpus(table(paths)), folder)
    assert counted(folder) == ["new.wav"]
    v = load_view(folder, "sequence")
    assert np.array_equal(v.x[2], v.x[3]) and (v.n_frames == 20).all()
    os.utime(folder / "audio" / "new.wav")  # touched, not changed
    assert counted(folder) == []
    noise(folder / "audio" / "new.wav", 78)
    assert counted(folder) == ["new.wav"]
    assert len(counted(folder, ["melspec"], Analysis(dur_s=1.0, n_mels=64))) == 7  # other numbers, and one file is there twice
    assert load_view(folder, "melspec").x.shape == (8, 1, 64, 44) and counted(folder, a=None) == []  # each view as it is


def test_an_abandoned_part_is_not_lost_when_the_corpus_grows(tmp_path, counted, monkeypatch):
    folder = tmp_path / "corpus"
    noisy(folder, 6)
    real, n = engine.views_of_sound, [0]

    def three_then_stop(*args):
        n[0] += 1
        if n[0] > 3:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(engine, "views_of_sound", three_then_stop)
    with pytest.raises(KeyboardInterrupt):
        counted(folder)
    monkeypatch.setattr(engine, "views_of_sound", real)
    noise(folder / "audio" / "aaa.wav", 77)
    save_corpus(Corpus(table(["audio/aaa.wav", *[f"audio/{i:03}.wav" for i in range(6)]])), folder)
    assert counted(folder) == ["003.wav", "004.wav", "005.wav", "aaa.wav"] and not (folder / "views" / "part").exists()


def test_equal_files_are_computed_once(tmp_path, counted):
    folder = tmp_path / "corpus"
    noisy(folder, 2)
    for name in ("x", "y", "z"):
        shutil.copy(folder / "audio" / "001.wav", folder / "audio" / f"{name}.wav")
    save_corpus(Corpus(table([f"audio/{n}.wav" for n in ("000", "001", "x", "y", "z")])), folder)
    assert counted(folder) == ["000.wav", "001.wav"]
    assert all((load_view(folder, n).x[1:] == load_view(folder, n).x[1]).all() for n in AUDIO_VIEWS)


def test_random_excerpts_belong_to_the_file(tmp_path):
    for name in ("a", "b"):
        noise(tmp_path / name / "audio" / "long.wav", 5, 6.0)
        noise(tmp_path / name / "audio" / "other.wav", 6, 6.0)
    parts = Analysis(dur_s=1.0, excerpt="random")
    a = extract(save_corpus(Corpus(table(["audio/long.wav", "audio/other.wav"])), tmp_path / "a"), ["melspec"], parts, n_jobs=1, progress=False)["melspec"]
    b = extract(save_corpus(Corpus(table(["audio/other.wav", "audio/long.wav"])), tmp_path / "b"), ["melspec"], parts, n_jobs=2, progress=False)["melspec"]
    middle = extract(load_corpus(tmp_path / "b"), ["melspec"], ONE_S, n_jobs=1, progress=False)["melspec"]
    assert np.array_equal(a.x[0], b.x[1]) and np.array_equal(a.x[1], b.x[0]) and not np.array_equal(middle.x[0], b.x[0])


def test_the_sound_may_go_when_the_views_are_made(tmp_path, counted):
    folder = tmp_path / "corpus"
    noisy(folder, 3)
    for p in (folder / "audio").iterdir():
        os.utime(p, (1e9, 1e9))
    counted(folder)
    before = arrays(folder)
    shutil.rmtree(folder / "audio")
    assert counted(folder) == [] and arrays(folder) == before
    with pytest.raises(InputError, match="none of the 3 tracks could be used"):
        counted(folder, a=Analysis(dur_s=0.5))
    assert arrays(folder) == before and not list((folder / "views").glob("part/*"))


def test_damaged_rows_are_found_and_made_again(tmp_path, counted):
    folder = tmp_path / "corpus"
    noisy(folder, 5)
    counted(folder)
    before = arrays(folder)
    for row, at in ((1, 0), (3, -1)):
        with RowFile(folder / "views" / "melspec.npy") as f:
            data = bytearray(f.read(row))
            data[at] ^= 1  # one bit
            f.write(row, data)
    assert verify_view(folder, "melspec").track_id.tolist() == ["t audio/001.wav", "t audio/003.wav"] and verify_view(folder, "sequence").empty
    assert counted(folder) == []
    verify_view(folder, "melspec", forget=True)
    assert counted(folder) == ["001.wav", "003.wav"] and arrays(folder) == before
    os.truncate(folder / "views" / "tabular.npy", 200)
    with pytest.raises(InputError, match="damaged"):
        load_view(folder, "tabular")
    assert len(counted(folder)) == 5 and arrays(folder) == before


def test_half_precision_stays_half_and_trains(tmp_path):
    folder = tmp_path / "corpus"
    noisy(folder, 24)
    t = table([f"audio/{i:03}.wav" for i in range(24)]).assign(country=["CHN", "IRL"] * 12, split=["train"] * 12 + ["val"] * 6 + ["test"] * 6)
    half = extract(save_corpus(Corpus(t), folder), ["melspec"], ONE_S, n_jobs=1, progress=False, dtype="float16")["melspec"]
    said = subprocess.run([sys.executable, "-m", "geomusic.cli", "train", "corpus", "--model", "cnn", "--out", "run", "training.num_epochs=1"], cwd=tmp_path, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr[-2000:]
    assert half.x.dtype == load_view(folder, "melspec").x.dtype == np.float16 and (tmp_path / "run" / "best_model.pth").exists()
    full = extract(load_corpus(folder), ["melspec"], n_jobs=1, progress=False, dtype="float32")["melspec"]
    assert np.abs(full.x - half.x.astype(np.float32)).max() < 0.04 and full.x.dtype == np.float32
    for dtype in ("float8", "int16", {"sequence": "float16"}):
        with pytest.raises(InputError):
            extract(load_corpus(folder), ["melspec", "sequence"], progress=False, dtype=dtype)


# ---- what is refused


def test_three_hundred_files_are_accounted_for(tmp_path):
    sounds = pytest.importorskip("sounds")
    made = sounds.make_sounds(tmp_path / "corpus" / "audio")
    corpus = save_corpus(Corpus(table([f"audio/{p}" for p in made.path])), tmp_path / "corpus")
    views = extract(corpus, a=ONE_S, n_jobs=2, progress=False)
    account = views_account(tmp_path / "corpus")
    assert len(made) >= 300 and (account.rows == len(made)).all() and (account.extracted + account.refused == account.rows).all()
    assert (account.drop(columns=["rows", "extracted", "refused"]).sum(axis=1) == account.refused).all()
    expected = dict(zip((f"t audio/{p}" for p in made.path), made.truth))
    for name, v in views.items():
        found = {t: v.reasons.get(t, "") for t in corpus.tracks.track_id}
        assert found == expected, {t: (r, expected[t], v.refused.get(t)) for t, r in found.items() if r != expected[t]}
        good = v.n_frames > 0
        assert (np.abs(np.asarray(v.x)[good]).reshape(good.sum(), -1).max(1) > 0).all() and not np.asarray(v.x)[~good].any() and np.isfinite(v.x).all()
    told = pd.read_csv(tmp_path / "corpus" / "views" / "refused.csv")
    assert len(told) == account.refused.iloc[0] and set(told.columns) == {"track_id", "audio", "views", "reason", "message"} and (told.views == "melspec, sequence, tabular").all()
    assert not told.message.str.contains(str(tmp_path), regex=False).any(), "messages say nothing of the machine"


def test_the_account_is_harmless_in_a_spreadsheet(tmp_path):
    noise(tmp_path / "corpus" / "good.wav", 1)
    t = table(["good.wav", "=cmd|'/c calc'!A1"])
    t["track_id"] = ["good", "@SUM(1)"]
    extract(save_corpus(Corpus(t), tmp_path / "corpus"), ["tabular"], ONE_S, n_jobs=1, progress=False)
    told = pd.read_csv(tmp_path / "corpus" / "views" / "refused.csv").astype(str)
    assert len(told) == 1 and not told.map(lambda cell: cell[0] in "=+-@").any(axis=None)
    assert refused_rows(tmp_path / "corpus").track_id.tolist() == ["@SUM(1)"]


def test_whatever_goes_wrong_inside_is_an_entry_in_the_account(tmp_path, monkeypatch):
    noisy(tmp_path / "corpus", 4)
    real, n = engine.views_of_sound, [0]

    def sometimes(y, names, a, dur_s):
        n[0] += 1
        views = real(y, names, a, dur_s)
        if n[0] == 1:
            raise RuntimeError("a bug")
        if n[0] == 2:
            views["sequence"][3, 3] = np.nan
        return views

    monkeypatch.setattr(engine, "views_of_sound", sometimes)
    v = extract(load_corpus(tmp_path / "corpus"), ["sequence"], ONE_S, n_jobs=1, progress=False)["sequence"]
    assert list(v.reasons.values()) == ["error", "not finite"] and "a bug" in v.refused["t audio/000.wav"] and not v.x[:2].any() and v.n_frames.tolist() == [0, 0, 20, 20]
    extract(load_corpus(tmp_path / "corpus"), ["sequence"], ONE_S, n_jobs=1, progress=False)
    assert n[0] == 4
    v = extract(load_corpus(tmp_path / "corpus"), ["sequence"], ONE_S, n_jobs=1, progress=False, retry="error")["sequence"]
    assert n[0] == 5 and list(v.reasons.values()) == ["not finite"]


def test_a_file_that_changes_meanwhile_is_read_again_next_time(tmp_path, monkeypatch):
    noisy(tmp_path / "corpus", 2)
    real = engine.views_of_sound

    def meddle(*args):
        noise(tmp_path / "corpus" / "audio" / "001.wav", 50)
        return real(*args)

    monkeypatch.setattr(engine, "views_of_sound", meddle)
    v = extract(load_corpus(tmp_path / "corpus"), ["sequence"], ONE_S, n_jobs=1, progress=False)["sequence"]
    assert v.reasons == {"t audio/001.wav": "changed"}
    monkeypatch.setattr(engine, "views_of_sound", real)
    v = extract(load_corpus(tmp_path / "corpus"), ["sequence"], ONE_S, n_jobs=1, progress=False)["sequence"]
    assert not v.reasons and (v.n_frames == 20).all()


def test_nothing_to_work_with(tmp_path):
    noisy(tmp_path / "corpus", 2)
    bad = Corpus(table(["audio/000.wav", "audio/001.wav"]), folder=tmp_path / "corpus")
    (tmp_path / "corpus" / "audio").rename(tmp_path / "away")
    with pytest.raises(InputError, match="none of the sound files .*000.wav"):
        extract(bad, n_jobs=1, progress=False)
    for i in range(2):
        noise(tmp_path / "corpus" / "audio" / f"00{i}.wav", i, 0.01)
    with pytest.raises(InputError, match="none of the 2 tracks could be used"):
        extract(bad, n_jobs=1, progress=False)
    assert not list((tmp_path / "corpus" / "views").glob("*.npy")) and not (tmp_path / "corpus" / "views" / "part").exists()
    with pytest.raises(InputError, match="no audio"):
        extract(Corpus(bad.tracks.assign(audio=""), folder=tmp_path / "corpus"), progress=False)
    with pytest.raises(InputError, match="needs notes"):
        extract(bad, ["melody"], progress=False)
    with pytest.raises(InputError, match="no folder"):
        extract(Corpus(bad.tracks), progress=False)


def test_a_view_of_an_earlier_version_is_refused_in_words(tmp_path):
    folder = tmp_path / "corpus"
    noisy(folder, 2)
    (folder / "views").mkdir()
    np.save(folder / "views" / "sequence.npy", np.zeros((2, 20, 25), np.float32))
    (folder / "views" / "sequence.json").write_text(json.dumps(dict(made_from=dict(view="sequence", analysis=dict(dur_s=1.0)), params={}, n_frames=[1, 1], refused={})))
    with pytest.raises(InputError, match="earlier version"):
        load_view(folder, "sequence")
    assert extract(load_corpus(folder), ["sequence"], n_jobs=1, progress=False)["sequence"].x.any()
    (folder / "views" / "melspec.json").write_text(json.dumps(dict(made_from=dict(view="melspec", analysis="given"), params={}, n_frames=[1, 1], refused={})))
    with pytest.raises(InputError, match="earlier version"):
        extract(load_corpus(folder), ["melspec"], n_jobs=1, progress=False)


def test_a_view_that_was_given_stays(tmp_path, counted):
    folder = tmp_path / "corpus"
    noisy(folder, 3)
    given = store_view(folder, View("sequence", np.ones((3, 7, 25)), np.full(3, 7)))
    assert counted(folder, ["sequence"]) == [] and given.x.shape == (3, 7, 25)
    assert len(counted(folder, ["melspec", "sequence"])) == 3 and load_view(folder, "sequence").x.shape == (3, 7, 25)


# ---- the disk


@pytest.fixture
def small_disk(tmp_path):
    "A disk of 3 MB"
    (tmp_path / "disk").mkdir()
    mount = lambda *words: subprocess.run(["mount", *words, str(tmp_path / "disk")], capture_output=True).returncode == 0  # noqa: E731
    if os.name != "posix" or not shutil.which("mount") or not mount("-t", "tmpfs", "-o", "size=3m", "tmpfs"):
        pytest.skip("no disk can be mounted here")
    yield tmp_path / "disk", lambda how: mount("-o", f"remount,{how}")
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


def test_a_full_disk_is_an_error_before_the_work(quiet, tmp_path, small_disk, counted):
    disk, remount = small_disk
    t = load_corpus(quiet).tracks
    save_corpus(Corpus(t.assign(audio=[f"{quiet}/{a}" for a in t.audio])), disk / "corpus")
    long = Analysis(dur_s=10.0)
    with pytest.raises(InputError, match=r"full: 6 MB are needed and \d MB are free"):
        counted(disk / "corpus", a=long)
    assert not list((disk / "corpus").glob("views/part/*")) and counted(disk / "corpus", ["tabular"]) and shutil.disk_usage(disk).free > 2e6
    assert remount("size=30m")
    assert len(counted(disk / "corpus", a=long)) == 24
    assert remount("ro")
    assert counted(disk / "corpus", a=long) == []  # nothing to do: nothing to write
    with pytest.raises(InputError, match="cannot be written to"):
        counted(disk / "corpus", a=ONE_S)
    assert remount("rw")


def test_the_space_is_taken_at_once(tmp_path):
    with Part(tmp_path, "melspec", ["a" * 32] * 100, (1, 128, 44), "float32") as part:
        stat = part.path(".npy").stat()
    assert stat.st_blocks * 512 >= 100 * 128 * 44 * 4


def test_keys_do_not_depend_on_how_numbers_are_written():
    key = lambda **numbers: row_keys(["ab"], "melspec", Analysis(**numbers))  # noqa: E731
    assert key(dur_s=6) == key(dur_s=6.0) == key(dur_s=np.float64(6)) and key(n_mels=np.int64(128)) == key() != key(n_mels=127)


def test_the_json_tells_how_it_was_made(quiet):
    meta = read_json(quiet / "views" / "melspec.json")
    assert meta["made_from"]["analysis"]["dur_s"] == 1 and meta["made_from"]["dtype"] == "float32" and meta["params"]["sr"] == 22050 and meta["files"] == "melspec"


# ---- memory


def test_a_sound_leaves_nothing_in_memory():
    import gc

    import torch

    y = np.random.default_rng(0).standard_normal(22050).astype(np.float32)
    views_of_sound(y, AUDIO_VIEWS, ONE_S)
    tensors = lambda: sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())  # noqa: E731
    gc.collect()
    before = tensors()
    gc.disable()  # what waits for the collector piles up between its visits
    try:
        for _ in range(5):
            views_of_sound(y, AUDIO_VIEWS, ONE_S)
        assert tensors() == before
    finally:
        gc.enable()
