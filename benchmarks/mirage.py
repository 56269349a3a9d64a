"""From a MIRAGE.csv to a corpus, beside what pandas needs merely to read the file: seconds and peak memory, each in a fresh process.

python benchmarks/mirage.py MIRAGE.csv [LARGER.csv ...]   # prints a table and writes benchmarks/mirage.json

Newer versions of pandas read with several threads: it runs as installed, and with one thread. The runs take turns, so that all meet the same machine. Larger files are read by geomusic alone, to see whether memory grows with the file.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from machine import machine

CALLS = dict(
    geomusic="from geomusic.corpora.mirage import mirage_corpus as call; options = dict(progress=False)",
    pandas="from pandas import read_csv as call; options = {}",
    pandas_1_thread="import pandas; from pandas import read_csv as call; options = {}\n"
    "try: pandas.set_option('mode.max_threads', 1)\nexcept KeyError: pass  # before 3.1 it read with one thread",
)
CHILD = """
import json, resource, sys, time
begun = time.perf_counter(), time.process_time()
{imports}
start = time.perf_counter(), time.process_time()
result = call(sys.argv[1], **options)
end = time.perf_counter(), time.process_time()
report = getattr(result, 'report', dict(read=len(result), kept=len(result), merged=0, refused={{}}))
assert report['read'] == report['kept'] + report['merged'] + sum(report['refused'].values())
print(json.dumps(dict(seconds=end[0] - start[0], cpu_s=end[1] - start[1], with_imports_s=end[0] - begun[0],
    peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1e3, read=report['read'], kept=report['kept'])))
"""


def run(who, path):
    "One call in a process of its own"
    env = os.environ | dict(OMP_NUM_THREADS="1")
    done = subprocess.run([sys.executable, "-c", CHILD.format(imports=CALLS[who]), str(path)], check=False, capture_output=True, text=True, env=env)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def median(runs):
    "The median of each number"
    return {k: statistics.median(r[k] for r in runs) for k in runs[0]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("path", type=Path, help="a MIRAGE.csv")
    p.add_argument("larger", type=Path, nargs="*", help="larger ones, to compare the memory")
    p.add_argument("--repeats", type=int, default=5, help="runs of each")
    a = p.parse_args()
    runs = {who: [] for who in CALLS}
    for i in range(a.repeats):
        for who in sorted(CALLS, reverse=i % 2):
            runs[who].append(run(who, a.path))
    ours = median(runs["geomusic"])
    rows = [dict(file_mb=a.path.stat().st_size / 1e6, geomusic=ours)]
    for who in list(CALLS)[1:]:
        other, each = median(runs[who]), [g["seconds"] / o["seconds"] for g, o in zip(runs["geomusic"], runs[who])]
        ratios = dict(time_ratio=ours["seconds"] / other["seconds"], peak_ratio=ours["peak_mb"] / other["peak_mb"], time_ratios=each)
        rows[0][who] = other | ratios  # of geomusic to this one
    for path in a.larger:
        big = median([run("geomusic", path) for _ in range(min(a.repeats, 3))])
        rows.append(dict(file_mb=path.stat().st_size / 1e6, geomusic=big, events_ratio=big["read"] / ours["read"], peak_ratio_to_first=big["peak_mb"] / ours["peak_mb"]))
    for r in rows:
        for who in [w for w in CALLS if w in r]:
            x = r[who]
            ratios = ", ".join(f"{k} {v:.2f}" for k, v in (r if who == "geomusic" else x).items() if k.endswith(("ratio", "first")))
            numbers = f"{x['seconds']:6.2f} s (cpu {x['cpu_s']:.2f} s)  peak {x['peak_mb']:6.0f} MB  {x['read']:>9,.0f} rows -> {x['kept']:,.0f}"
            print(f"{r['file_mb']:7.0f} MB  {who:15} {numbers}  {ratios}")
    Path(__file__).with_suffix(".json").write_text(json.dumps(dict(machine=machine("pandas", "pyarrow"), rows=rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
