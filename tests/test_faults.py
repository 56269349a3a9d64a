"""The short form of benchmarks/faults.py: a few tries of each kind of fault. Longer ones stand beside what they disturb (test_engine, test_train, test_grid)."""
import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
from geomusic.files import InputError
from geomusic.rows import FromDisk, reader_errors

spec = importlib.util.spec_from_file_location("faults", Path(__file__).parent.parent / "benchmarks" / "faults.py")
F = importlib.util.module_from_spec(spec)
sys.modules["faults"] = F
spec.loader.exec_module(F)
pytestmark = pytest.mark.skipif(not hasattr(F.os, "fork"), reason="works by fork")


@pytest.mark.parametrize("fault", ["killed while building a corpus", "killed during a listening test", "two processes at a listening test", "clock goes backwards: a listening test", "clock goes backwards: building a corpus"])
def test_nothing_is_lost(fault):
    assert F.tried(fault, 2) == dict(tried=2, survived=2)


@pytest.mark.parametrize("fault", [f for f in F.FAULTS if f.startswith(("disk full", "read-only")) and not f.endswith("judged")])
def test_a_full_or_protected_disk(fault):
    counts = F.tried(fault, 2)
    if not counts["tried"]: pytest.skip(counts["why"])
    assert counts == dict(tried=2, survived=2)


@pytest.mark.parametrize("kind", ["tracks.parquet", "view .npy", "view .parquet", "view .json", "best_model.pth", "last.pth", "predictions.parquet"])
def test_damage_is_noticed_or_harmless(kind):
    counts = F.tried(f"damaged: {kind}", 20)
    assert counts["unnoticed"] == 0 and counts["noticed"] >= 10, counts


@pytest.mark.skipif(sys.platform != "linux", reason="batches are read by workers on Linux only")
def test_a_reader_that_is_killed_costs_the_epoch_only(tmp_path, monkeypatch):
    real, run = FromDisk.__getitem__, tmp_path / "run"

    def deadly(self, rows):
        if (run / "last.pth").exists() and not (tmp_path / "dead").exists():
            (tmp_path / "dead").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, rows)

    F.ahead(2, 3)(tmp_path / "quiet")
    monkeypatch.setattr(FromDisk, "__getitem__", deadly)
    with pytest.raises(InputError, match="a process that reads batches died: DataLoader worker.*resume=True"):
        F.ahead(2, 3)(tmp_path)
    F.ahead(2, 3)(tmp_path)
    assert (tmp_path / "dead").exists() and F.digest(tmp_path) == F.digest(tmp_path / "quiet")


def test_the_death_of_a_reader_is_found_behind_what_it_broke_off():
    with pytest.raises(InputError, match="a process that reads batches died: DataLoader worker"):
        with reader_errors():
            try: raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
            except RuntimeError: {}["a thread that was being started"]
    with pytest.raises(KeyError):
        with reader_errors(): {}["a mistake"]


def test_the_table_would_say_it(monkeypatch):
    "A reader that notices nothing, and a writer that loses an answer, are seen"
    who, name, _ = F.FILES["tracks.parquet"]
    monkeypatch.setitem(F.FILES, "tracks.parquet", (who, name, lambda h: (h / name).read_bytes()[:5000]))
    assert F.tried("damaged: tracks.parquet", 10)["unnoticed"] > 0
    with F.place(F.answer) as home:
        home.with_suffix(".told").write_text("t1\n")
        with pytest.raises(F.Lost): F.look(home)
