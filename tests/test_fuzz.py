"""A short run of benchmarks/fuzz.py on every reader, and every input that once got through.

The property: a valid result or an `InputError`, never another exception, no hang, no file written.
"""
import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("fuzz", ROOT / "benchmarks" / "fuzz.py")
F = importlib.util.module_from_spec(spec)
sys.modules["fuzz"] = F
spec.loader.exec_module(F)
F.PATIENCE_S = 120  # the machine may be busy elsewhere

INPUTS = dict(abc=60, mirage=20, manifest=25, config=60, listeners=30, sound=60, checkpoint=25)


@pytest.mark.parametrize("target", F.TARGETS)
def test_no_input_gets_through(target):
    counts, found = F.fuzz(target, INPUTS[target], 0)
    assert found == {} and counts["refused"] > 0, found
    assert counts["valid"] + counts["refused"] >= INPUTS[target] / 2


CAF = b"caff\0\1\0\0desc" + (32).to_bytes(8, "big") + bytes(32)
ONCE = [  # target, what got through, what it did
    ("abc", b"K:G\nA/0", "ZeroDivisionError"),
    ("abc", b"K:: G\nA", "KeyError: a field that is none"),
    ("abc", b"K:G\nA" + b"/" * 1100, "OverflowError: a half of a half of a half"),
    ("abc", b"K:G\nA" + b"9" * 400, "a note of infinite length"),
    ("abc", b"K:G\n(3:" + b"9" * 5000 + b":2 abc", "ValueError: more digits than Python reads"),
    ("abc", b"K:G\n[L:x]A", "TypeError: no unit"),
    ("abc", b"K:G\nA" + b"'" * 60, "a pitch that MIDI does not have"),
    ("abc", b"M:" + b"9" * 400 + b"/8\nK:G\nA", "OverflowError in the metre"),
    ("abc", b"K:G\n" + b"[a" * 3000, "hang: a chord that never closes, in cubic time"),
    ("abc", b"K:G\n" + b":" * 60_000, "hang: colons, in quadratic time"),
    ("abc", b"\n" * 60_000, "hang: blank lines, in quadratic time"),
    ("manifest", b"i,path,lat,artist,country,country\n1,PYF,PYF,0.5\n", "IndexError: no row was left"),
    ("manifest", b"path,country,Title,title\na.wav,Kenya,x,y\n", "ArrowInvalid: two names that differ in case"),
    ("config", b"training: 2026-99-99\n", "ValueError: no such day"),
    ("config", b"training: " + b"9" * 5000, "ValueError: more digits than Python reads"),
    ("config", b"training: " + b"[" * 20_000, "RecursionError"),
    ("config", b"checkpoint_dir: !!timestamp 1\n", "AttributeError in the YAML package"),
    ("config", b"data: " + b"[" * 3000, "hang, where Python allows deep recursion"),
    ("config", {"training": {"loss_params": {None: True}}}, "TypeError: a key that is no word"),
    ("config", b"model: {params: {1: 2}}", "TypeError: a key that is no word"),
    ("mirage", F.as_csv([[*F.MIRAGE, "one too many"], *[[v[0] for v in F.MIRAGE.values()]] * 3]), "ValueError: no row was left"),
    ("sound", ("caf", CAF + b"name" + (2**62).to_bytes(8, "big") + bytes(5000) + b"x" * 9000), "OSError: a place beyond any file"),
    ("checkpoint", ("history.csv", b""), "EmptyDataError"),
    ("checkpoint", ("history.csv", b'epoch,val_loss,val_acc\n1,"0.5'), "ParserError"),
    ("checkpoint", ("history.csv", b"epoch,val_los3\n1,2\n"), "KeyError"),
    ("checkpoint", ("history.csv", b"epoch,val_loss,val_acc\n1,1.0,0.5\n1,0.9,0.5\n"), "TypeError: an epoch twice"),
    ("checkpoint", ("history.csv", b"epoch,val_loss,val_acc\n1,nan,nan\n2,,\n"), "KeyError: no epoch is best"),
]


@pytest.mark.parametrize("target, data, did", ONCE, ids=[f"{t}: {w}" for t, _, w in ONCE])
def test_what_once_got_through(target, data, did, tmp_path, monkeypatch):
    if did.startswith("hang"): monkeypatch.setattr(F, "PATIENCE_S", 20)  # they take less than half a second now
    F.TARGETS[target][0]()  # the seeds are made beforehand
    assert F.tried(target, data, tmp_path) in ("valid", "refused")


def test_the_fuzzer_would_see_it(tmp_path, monkeypatch):
    "An exception, a hang, a file and a wrong result are each noticed"
    def hangs(*_):
        while True: pass
    for check, kind in ((lambda d, f: {}["x"], KeyError), (hangs, F.Hang), (lambda d, f: F.nothing_written(f).__enter__() or None, None)):
        monkeypatch.setitem(F.TARGETS, "abc", (F.abc_inputs, check))
        monkeypatch.setattr(F, "PATIENCE_S", 0.2 if check is hangs else 120)
        if kind:
            with pytest.raises(kind): F.tried("abc", b"", tmp_path)
    with pytest.raises(F.NotValid):
        with F.nothing_written(tmp_path): (tmp_path / "x").write_text("x")
    monkeypatch.setitem(F.TARGETS, "abc", (F.abc_inputs, lambda d, f: 1 / (len(d) % 7)))
    counts, found = F.fuzz("abc", 60, 0)
    assert counts["wrong"] > 0 and "ZeroDivisionError" in "".join(found)
