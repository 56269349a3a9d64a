"""Every claim of speed and memory in one sitting, each beside what one would otherwise do; writes benchmarks/sitting.json.

python benchmarks/sitting.py --events MIRAGE.csv          # three rounds of all benchmarks, some half an hour on two quiet cores
python benchmarks/sitting.py --rounds 1 --only tunes judging

Rounds follow each other, so that a machine that becomes slower meets all of them; the chapter shows each ratio's median, least and greatest. MIRAGE.csv is a
release of a million events, real or simulated; without it that benchmark is left out.
"""
import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from machine import machine

HERE = Path(__file__).parent


def of_rows(found):
    "Benchmarks that write rows of what, ours, other, beside, ratio"
    for r in found["rows"]:
        yield r["what"], "speed", r["ours"], r["other"], r["beside"], r["ratio"]


def of_frontend(found):
    for r in found["beside_librosa"]:
        if (r["threads"], r["batch"]) == (1, 1):
            yield f"{r['what']} of 30 s, clips a second", "speed", r["clips_s"], r["librosa_clips_s"], "librosa, call after call", r["ratio"]


def of_extract(found):
    yield from of_rows(dict(rows=found["speed"]))


def of_train(found):
    f, m = found["fcnn"], found["memory"]["workers_1"]
    yield "FCNN, 245,000 rows, seconds an epoch", "speed", f["ours_s_per_epoch"], f["usual_s_per_epoch"], "DataLoader, row by row, batches of 32", f["times"]
    for model, r in found["steps"].items():
        yield f"{model}, published size, rows a second", "speed", r["bf16"], r["plain"], "float32", r["bf16"] / r["plain"]
    peak = m["process_mb"] + m["worker_mb"]
    yield "an epoch over 13 GB of spectrograms, MB", "memory", peak, m["file_mb"], "the whole array in memory", m["file_mb"] / peak


def of_mirage(found):
    ours = found["rows"][0]["geomusic"]
    for who, beside in (("pandas", "pandas.read_csv, its threads"), ("pandas_1_thread", "pandas.read_csv, one thread")):
        other = found["rows"][0][who]
        yield "a million events to a corpus, seconds", "speed", ours["seconds"], other["seconds"], beside, 1 / other["time_ratio"]
    yield "a million events to a corpus, MB", "memory", ours["peak_mb"], found["rows"][0]["pandas"]["peak_mb"], "pandas.read_csv", 1 / found["rows"][0]["pandas"]["peak_ratio"]


def of_exploring(found):
    for name, r in found["slider"].items():
        yield f"explorer `{name}`, a move, ms", "speed", r["move_processor_ms"], r["anew_processor_ms"], "the cell run again", r["anew_processor_ms"] / r["move_processor_ms"]


BENCHMARKS = {  # name: (arguments, those of the first round, its numbers)
    "tunes": ([], [], of_rows), "frontend": ([], [], of_frontend), "extract": (["--clips", "100"], [], of_extract), "train": (["fcnn", "steps"], ["memory"], of_train),
    "mirage": (["--repeats", "3"], [], of_mirage), "judging": ([], [], of_rows), "exploring": (["slider"], ["open", "points"], of_exploring)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", nargs="*", choices=list(BENCHMARKS), default=list(BENCHMARKS))
    p.add_argument("--events", type=Path, help="a MIRAGE.csv of a million events")
    p.add_argument("--out", type=Path, default=HERE / "sitting.json")
    a = p.parse_args()
    names = [n for n in a.only if n != "mirage" or a.events]
    told = dict(about=__doc__.splitlines()[0], begun=time.strftime("%Y-%m-%d"), rounds=a.rounds, machine=machine("numpy", "scipy", "pandas", "scikit-learn", "librosa", "soundfile", "plotly", "ipywidgets", "music21"), rows=[])
    for i in range(a.rounds):
        for name in names:
            words, more, read = BENCHMARKS[name]
            words = ([str(a.events)] if name == "mirage" else []) + words + (more if i == 0 else [])
            start = time.perf_counter()
            print(f"round {i + 1} of {a.rounds}: {name}.py {' '.join(words)}", flush=True)
            if subprocess.run([sys.executable, "-W", "ignore", str(HERE / f"{name}.py"), *words]).returncode:
                raise SystemExit(f"{name}.py failed; the rounds before are in {a.out}")
            found = json.loads((HERE / f"{name}.json").read_text())
            keys = ("what", "kind", "ours", "other", "beside", "ratio")
            told["rows"] += [dict(benchmark=name, round=i, load=found["machine"]["load"], **dict(zip(keys, r))) for r in read(found) if i == 0 or r[1] == "speed" or name == "mirage"]
            print(f"  {time.perf_counter() - start:.0f} s", flush=True)
            a.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
