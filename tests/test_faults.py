"""The short form of benchmarks/faults.py: a few tries of each kind of fault. Longer ones stand beside what they disturb (test_engine, test_train, test_grid)."""
import importlib.util
import sys
from pathlib import Path

import pytest

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


def test_the_table_would_say_it(monkeypatch):
    "A reader that notices nothing, and a writer that loses an answer, are seen"
    who, name, _ = F.FILES["tracks.parquet"]
    monkeypatch.setitem(F.FILES, "tracks.parquet", (who, name, lambda h: (h / name).read_bytes()[:5000]))
    assert F.tried("damaged: tracks.parquet", 10)["unnoticed"] > 0
    with F.place(F.answer) as home:
        home.with_suffix(".told").write_text("t1\n")
        with pytest.raises(F.Lost): F.look(home)
