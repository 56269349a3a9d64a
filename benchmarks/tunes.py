"""How fast the embedded corpus is read and rendered, each beside what one would otherwise do, in one run.

python benchmarks/tunes.py        # prints a table and writes benchmarks/tunes.json
"""
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

from machine import machine  # noqa: E402

from geomusic.notation import parse_abc, split_tunebook  # noqa: E402
from geomusic.synth import DUR_S, render_tune, tone  # noqa: E402
from geomusic.tunes import all_tunes, tunes_folder  # noqa: E402


def seconds(call, repeats=3):
    "Median wall time of a call"
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def reading():
    "Tunes a second: our reader beside music21's, on the same tunes"
    import music21

    texts = split_tunebook((tunes_folder() / "essenFolksong" / "lux.abc").read_text(encoding="utf-8"))[:40]
    ours = seconds(lambda: [parse_abc(t) for t in texts])
    theirs = seconds(lambda: [music21.converter.parse(t, format="abc") for t in texts], repeats=1)
    return dict(what="read ABC, tunes a second", ours=len(texts) / ours, other=len(texts) / theirs, beside="music21.converter.parse", ratio=theirs / ours)


def rendering():
    "Seconds of sound a second, beside making every note anew"
    rows = all_tunes().query("collection == 'oneills1850' and refused == ''").head(100)

    def cached():
        for r in rows.itertuples():
            render_tune(r.track_id, r.midi, r.dur_ql)

    def anew():
        for r in rows.itertuples():
            tone.cache_clear()
            render_tune(r.track_id, r.midi, r.dur_ql)

    ours, other = seconds(cached), seconds(anew)
    return dict(what="render, times faster than real time", ours=len(rows) * DUR_S / ours, other=len(rows) * DUR_S / other, beside="no cached tones", ratio=other / ours)


def starting():
    "Start-up of `geomusic --help` in seconds, beside importing torch"
    run = lambda *words: subprocess.run([sys.executable, *words], capture_output=True, check=True)  # noqa: E731
    ours, other = seconds(lambda: run("-m", "geomusic.cli", "--help"), 5), seconds(lambda: run("-c", "import torch"), 5)
    return dict(what="geomusic --help, seconds", ours=ours, other=other, beside="import torch", ratio=other / ours)


if __name__ == "__main__":
    rows = [reading(), rendering(), starting()]
    for r in rows:
        print(f"{r['what']:38} {r['ours']:10,.2f}   {r['beside']:26} {r['other']:10,.2f}   ratio {r['ratio']:6.1f}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(dict(machine=machine("music21"), rows=rows), indent=1) + "\n")
