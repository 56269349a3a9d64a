"Descriptors from a web service: whatever kills the run, what was answered is kept and never asked for again."
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from geomusic.corpora.service import FAULTS, RANGES, TOKEN, PracticeServer, _session, add_descriptors, cache_summary, fetch_descriptors
from geomusic.corpus import Corpus
from geomusic.files import InputError

BATCH, N = 10, 300
QUICK = dict(per_second=1e6, first_wait_s=0.001, timeout_s=60, progress=False)
CHILD = f"""
import sys
import pandas as pd
from geomusic.corpora.service import fetch_descriptors
cache, url, out = sys.argv[1:]
got = fetch_descriptors([f"{{k:022d}}" for k in range({N})], cache, url, batch_size={BATCH}, per_second=100, progress=False)
got.attrs = {{}}
got.to_parquet(out)
"""


@pytest.fixture(scope="module")
def table():
    "Tracks with values of their own, of which every seventh is unknown to the service"
    rng = np.random.default_rng(0)
    values = {d: np.round(rng.uniform(low, high, N)) if high > 10 and d != "tempo" else rng.uniform(low, high, N) for d, (low, high) in RANGES.items()}
    values["mode"] = rng.integers(0, 2, N)
    return pd.DataFrame(values, index=[f"{k:022d}" for k in range(N)])[[bool(k % 7) for k in range(N)]]


@pytest.fixture(scope="module")
def whole(table, tmp_path_factory):
    "What a run gives that nothing disturbs"
    with PracticeServer(table) as server:
        return fetch_descriptors([f"{k:022d}" for k in range(N)], tmp_path_factory.mktemp("whole") / "c.sqlite", server.url, **QUICK)


def child(cache, url, out):
    return subprocess.Popen([sys.executable, "-c", CHILD, str(cache), url, str(out)], stderr=subprocess.PIPE, text=True)


def in_cache(cache):
    with sqlite3.connect(cache) as db:
        return {i for (i,) in db.execute("SELECT id FROM answers")}


def wait_for(server, requests, process):
    "Until the server has seen so many requests"
    end = time.monotonic() + 600
    while len(server.log) < requests:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "the process does not ask"
        time.sleep(0.002)


def times_asked(log):
    return Counter(i for r in log for i in r["ids"])


class Gated(PracticeServer):
    "Gives `upto` answers and then none, so that who asks is still there when the blow comes"
    upto = float("inf")

    def rows(self, path, ids):
        while len(self.log) > self.upto: time.sleep(0.002)
        return super().rows(path, ids)


@pytest.mark.parametrize("blow, blows", [(signal.SIGKILL, 2), (signal.SIGINT, 1)])
def test_a_dead_run_goes_on_where_it_was(table, whole, tmp_path, blow, blows):
    cache, out = tmp_path / "c.sqlite", tmp_path / "out.parquet"
    with Gated(table) as server:
        for _ in range(blows):
            kept = in_cache(cache) if cache.exists() else set()
            start, server.upto = len(server.log), len(server.log) + 12
            process = child(cache, server.url, out)
            wait_for(server, start + 8, process)
            process.send_signal(blow)
            assert process.wait(600) == -blow  # Python ends on Ctrl-C by the signal itself
            assert not kept & set(times_asked(server.log[start:])), "asked again for what was answered before"
            lost = set(times_asked(server.log[start:])) - in_cache(cache)
            assert len(lost) <= BATCH, "more was lost than the request that was under way"
            assert len(in_cache(cache)) >= len(kept) + 7 * BATCH and not out.exists()
        server.upto = float("inf")
        process = child(cache, server.url, out)
        assert process.wait(600) == 0, process.stderr.read()
    asked = times_asked(server.log)
    assert len(asked) == N and sum(asked.values()) <= N + blows * BATCH
    pd.testing.assert_frame_equal(pd.read_parquet(out), whole)
    assert cache_summary(cache)[["known", "unknown"]].to_numpy().tolist() == [[len(table), N - len(table)]]


class Slow(PracticeServer):
    "Answers so slowly that two who ask meet at the same question, if they ask in the same order"
    def rows(self, path, ids):
        time.sleep(0.03)
        return super().rows(path, ids)


def test_two_processes_share_a_cache(table, whole, tmp_path):
    with Slow(table) as server:
        both = [child(tmp_path / "c.sqlite", server.url, tmp_path / f"{k}.parquet") for k in range(2)]
        assert [p.wait(600) for p in both] == [0, 0], [p.stderr.read() for p in both]
    for k in range(2):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"{k}.parquet"), whole)
    asked = times_asked(server.log)
    # each asks in a random order, so that they seldom meet at a batch; in the same order it would be 2 N
    assert len(asked) == N and sum(asked.values()) < 1.6 * N, "they asked for the same"


@pytest.mark.parametrize("seed", range(5))
def test_every_value_arrives_through_a_very_bad_line(table, whole, tmp_path, seed):
    faults = ["wait 0 s", "error 500", "error 503", "hang up", "cut off", "half JSON", "HTML", "no list", "other order", "strangers"]
    with PracticeServer(table, faults, rate=0.6, seed=seed) as server:
        got = fetch_descriptors(whole.index, tmp_path / "c.sqlite", server.url, tries=100, sleep=lambda s: None, **QUICK)
    pd.testing.assert_frame_equal(got, whole)
    assert sum(bool(r["fault"]) for r in server.log) >= 3


def test_offline_is_told_at_once(tmp_path):
    with PracticeServer(pd.DataFrame()) as gone:
        pass
    for url in (gone.url, "https://nowhere.invalid/v1/audio-features"):
        start = time.monotonic()
        with pytest.raises(InputError, match="cannot be reached. Is this machine online") as told:
            fetch_descriptors(["a" * 22], tmp_path / "c.sqlite", url, progress=False)
        assert "0 of 1 ids" in str(told.value)
        assert time.monotonic() - start < 25 or "invalid" in url  # six tries wait for 31 s; looking up a name may take its time
    assert in_cache(tmp_path / "c.sqlite") == set(), "an answer was made up"


def test_offline_in_the_middle_is_waited_for(table, tmp_path):
    "A line that breaks after the first answer may come back"
    slept, ids = [], list(table.index[:4])
    with PracticeServer(table) as server:
        def sleep(s):
            slept.append(s)
            if len(slept) == 1:
                server.http.shutdown()
                server.http.server_close()
        with pytest.raises(InputError, match="cannot be reached"):
            fetch_descriptors(ids, tmp_path / "c.sqlite", server.url, batch_size=2, per_second=1e-3, first_wait_s=1, tries=4, progress=False, sleep=sleep)
        server.http.shutdown = lambda: None
    assert len(in_cache(tmp_path / "c.sqlite")) == 2
    waits = [s for s in slept if s < 100]  # the others are the pace
    assert len(waits) == 3 and waits[0] >= 1 and waits[2] >= 4


def test_what_is_refused_is_not_called_unknown(table, tmp_path):
    with PracticeServer(table, ["bad request"] * 99) as server:
        with pytest.raises(InputError, match="refuses every id"):
            fetch_descriptors(table.index[:8], tmp_path / "c.sqlite", server.url, **QUICK)
    assert in_cache(tmp_path / "c.sqlite") == set()


@pytest.mark.parametrize("fault", ["moved", "forbidden", "not there", "wait a day"])
def test_no_waiting_for_what_waiting_does_not_mend(table, tmp_path, fault):
    slept = []
    with PracticeServer(table, [fault] * 9) as server, pytest.raises(InputError):
        fetch_descriptors(table.index[:8], tmp_path / "c.sqlite", server.url, sleep=slept.append, **QUICK)
    assert len(server.log) == 1 and not slept


def test_a_redirect_is_not_followed(table, tmp_path, monkeypatch):
    "Nor is the token taken there"
    monkeypatch.setenv(TOKEN, "token")
    with PracticeServer(table) as other, PracticeServer(table, ["moved"]) as server:
        monkeypatch.setitem(FAULTS, "moved", lambda a: dict(status=302, headers={"Location": other.url}))
        with pytest.raises(InputError, match="sends us on to 127.0.0.1"):
            fetch_descriptors(table.index[:8], tmp_path / "c.sqlite", server.url, **QUICK)
    assert len(server.log) == 1 and not other.log


@pytest.mark.parametrize("settings, word", [(dict(batch_size=0), "batch_size"), (dict(per_second=0), "per_second"), (dict(tries=0), "tries"), (dict(timeout_s=-1), "timeout_s"),
                                            (dict(url="http://example.org/v1"), "https"), (dict(url="https://example.org:99999999/v1"), "host")])
def test_impossible_settings(tmp_path, settings, word):
    with pytest.raises(InputError, match=word):
        fetch_descriptors(["a" * 22], tmp_path / "c.sqlite", **settings)
    assert not (tmp_path / "c.sqlite").exists()


def test_unusable_caches(table, tmp_path):
    (tmp_path / "text").write_text("no database " * 99)
    for cache in (tmp_path, tmp_path / "text", tmp_path / "text" / "c.sqlite"):
        with pytest.raises(InputError, match="cache"):
            fetch_descriptors(["a" * 22], cache, progress=False)
    assert (tmp_path / "text").read_text() == "no database " * 99


def test_a_damaged_cache_is_told(table, tmp_path):
    cache = tmp_path / "c.sqlite"
    with PracticeServer(table) as server:
        fetch_descriptors(table.index, cache, server.url, **QUICK)
        data = bytearray(cache.read_bytes())
        data[4096:] = os.urandom(len(data) - 4096)
        cache.write_bytes(data)
        with pytest.raises(InputError, match="cannot be used"):
            fetch_descriptors(table.index, cache, server.url, **QUICK)


def test_no_key_leaves_the_machine_unasked(tmp_path, monkeypatch):
    import requests
    (tmp_path / "netrc").write_text("machine example.org login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    header = lambda: _session("https://example.org/v1").prepare_request(requests.Request("GET", "https://example.org/v1")).headers.get("Authorization")
    monkeypatch.delenv(TOKEN, raising=False)
    assert header() is None
    monkeypatch.setenv(TOKEN, "token")
    assert header() == "Bearer token"


def test_a_corpus_is_filled(table, tmp_path):
    ids = [f"{k:022d}" for k in range(14)]
    tracks = pd.DataFrame(dict(track_id=ids, country="IRL", lat_deg=53.3, lon_deg=-6.2, group=ids, title="", artist="", audio=""))
    with PracticeServer(table, ["error 500", "half JSON"]) as server:
        corpus = add_descriptors(Corpus(tracks), tmp_path / "c.sqlite", [server.url, server.track_url], **QUICK)
    told = corpus.report["service"]
    assert told["asked"] == 14 and told["matched"] == 12 and told["rate"] == 12 / 14 and told["left_out"] == ["time_signature"]
    known = corpus.tracks.set_index("track_id").loc[table.index[:12]]
    served = corpus.report["features"]
    pd.testing.assert_frame_equal(known[served], table[:12][served].astype(float), check_names=False)
    assert corpus.tracks[served].isna().all(axis=1).sum() == 2 and list(corpus.tracks.track_id) == ids


def test_the_module_is_light():
    code = "import sys, geomusic.corpora.service; print([m for m in ('torch', 'sklearn', 'matplotlib', 'requests', 'tenacity', 'duckdb') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
