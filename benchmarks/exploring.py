"""How long an explorer takes to open and to answer; writes benchmarks/exploring.json.

python benchmarks/exploring.py              # everything; about five minutes on two cores, after the demo has been made
python benchmarks/exploring.py open         # one part: open, slider, points

open    every explorer on a run with 5,000 tested tracks (the folk-tune demo again and again, each copy with files and rows of its own): reading the run, then the explorer,
        in a fresh process; imports apart. Wall and processor seconds, for a busy machine makes the first longer and not the second
slider  milliseconds of the kernel for one move at 500 tracks, beside what it takes to open the explorer anew, as a notebook without widgets would
points  50,000 points in the map of embeddings: size, kernel time, and frames of a browser that draws by software, where one is installed
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from machine import machine  # noqa: E402

OUT, N_TRACKS = Path(__file__).with_suffix(".json"), 5000
MODELS = dict(world="attention", attention="attention", relevance="cnn", importance="fcnn", whatif="fcnn", embeddings="attention")


# ---- a large run


def large_run(home, model, n=N_TRACKS):
    "(run folder, corpus folder) of the demo, its corpus repeated: n tested tracks, and 500 more that were learned from"
    from geomusic.corpus import Corpus, load_corpus, save_corpus
    from geomusic.exploring.opened import demo_run
    from geomusic.store import open_view
    from geomusic.views import View, write_view

    run, small = demo_run(model)
    tracks, corpus = load_corpus(small).tracks, home / "corpus"
    if not corpus.exists():
        at = np.r_[np.resize(np.flatnonzero(tracks.split == "test"), n), np.resize(np.flatnonzero(tracks.split == "train"), 500)]
        many = tracks.iloc[at].reset_index(drop=True)
        many["track_id"] = [f"{t}/{i}" for i, t in enumerate(many.track_id)]
        many["group"] = [f"{g}/{i // 40}" for i, g in enumerate(many.group)]
        many["audio"] = [f"audio/{i:05}{Path(a).suffix}" for i, a in enumerate(many.audio)]
        (corpus / "audio").mkdir(parents=True)
        for audio, i in zip(many.audio, at): os.link(Path(small) / tracks.audio.iloc[i], corpus / audio)
        report = {k: v for k, v in load_corpus(small).report.items() if k not in ("read", "kept", "merged", "refused", "repaired")}
        save_corpus(Corpus(many, report, corpus), corpus)
        for name in ("tabular", "sequence", "melspec"):
            meta, x, _, table = open_view(Path(small) / "views", name)
            write_view(corpus, View(name, x[at], table.n_frames.to_numpy()[at], meta["params"]), many.track_id, table.key.iloc[at], meta["made_from"])
    many, here = load_corpus(corpus).tracks, home / run.name
    if not here.exists():
        here.mkdir()
        shutil.copy(run / "best_model.pth", here)
        judged = pd.read_parquet(run / "predictions.parquet").set_index("track_id")
        tested = many[many.split == "test"]
        said = judged.loc[tested.track_id.str.rpartition("/")[0]].reset_index().assign(track_id=tested.track_id.to_numpy(), group=tested.group.to_numpy())
        said.to_parquet(here / "predictions.parquet", index=False)
    return here, corpus


CHILD = """
import json, sys, time
name, run, corpus, profile = sys.argv[1:5]
def clock(): return time.perf_counter(), time.process_time()
def since(begin): return [round(b - a, 3) for a, b in zip(begin, clock())]
begin = clock()
import torch, pandas, plotly.graph_objects, ipywidgets, anywidget, matplotlib.figure, matplotlib.backends.backend_agg, soundfile, librosa, scipy.stats, scipy.ndimage, scipy.spatial, sklearn.neighbors
librosa.filters.mel, librosa.util.normalize  # librosa imports its parts, and numba with them, when they are first asked for
from importlib import import_module
plotly.graph_objects.FigureWidget(plotly.graph_objects.Scatter())  # plotly imports its classes when they are first asked for
torch.set_num_threads(1)
from geomusic.exploring.opened import open_run
import geomusic.learning.ensemble, geomusic.sound.engine, geomusic.sound.frontend
explore = getattr(import_module(f"geomusic.exploring.{name}"), f"explore_{name}")
found = dict(imports=since(begin))
if profile: import cProfile; p = cProfile.Profile(); p.enable()
begin = clock()
opened = open_run(run, corpus)
found["run"] = since(begin)
begin = clock()
box = explore(opened)
found["explorer"] = since(begin)
if profile: p.disable(); p.dump_stats(profile)
atlas = getattr(box, "atlas", None)
if atlas is not None and atlas.thread: atlas.thread.join(); found["all tracks asked"] = since(begin)
found["tracks"] = len(opened)
print(json.dumps(found))
"""


def open_one(name, run, corpus, profile=""):
    "Seconds (wall, processor) of imports, of the run, of the explorer, in a process of its own"
    done = subprocess.run([sys.executable, "-c", CHILD, name, str(run), str(corpus), profile], capture_output=True, text=True)
    if done.returncode: raise SystemExit(done.stderr[-3000:])
    return json.loads(done.stdout.splitlines()[-1])


def opening():
    "Every explorer on the large run; the second opening, for the first one reads and remembers every sound file, as training does"
    found = {}
    with tempfile.TemporaryDirectory() as home:
        os.environ["GEOMUSIC_CACHE"] = f"{home}/cache"
        for name, model in MODELS.items():
            run, corpus = large_run(Path(home), model)
            if name == "world": open_one(name, run, corpus)
            found[name] = one = open_one(name, run, corpus)
            wall, cpu = (one["run"][i] + one["explorer"][i] for i in (0, 1))
            one |= dict(opened_s=round(wall, 2), processor_s=round(cpu, 2))
            print(f"{name:11} {one['tracks']:,} tracks: {wall:5.2f} s, of the processor {cpu:5.2f} s (run {one['run'][1]:.2f}, explorer {one['explorer'][1]:.2f}); imports before {one['imports'][1]:.2f}"
                  + (f"; all tracks asked after {one['all tracks asked'][1]:.1f}" if "all tracks asked" in one else ""))
    return found


# ---- a slider


def timed(call):
    "(wall, processor) milliseconds"
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1000 * (time.perf_counter() - wall), 1000 * (time.process_time() - cpu)


def moves_of(name, box, n):
    "n calls, each a move of a control"
    def choose(widget, value): return lambda: setattr(widget, "value", value)
    if name == "world": return [choose(box.globe.level, float(v)) for v in np.linspace(0.35, box.globe.level.max, n)]
    if name == "whatif": return [choose(box.sliders["tempo"], box.sliders["tempo"].options[i % 2 * 5 + i % 3][1]) for i in range(n)]
    if name == "importance": return [choose(box.menus[2], box.menus[2].options[1 + i % 12][1]) for i in range(n)]
    if name == "embeddings": return [choose(box.atlas.tracks, row) for _, row in box.atlas.tracks.options[:n]]
    if name == "relevance": return [choose(box.more[2], 0.04 + 0.02 * (i % 20)) for i in range(n)]
    return [choose(box.menus[3], track) for _, track in box.menus[3].options[1:n + 1]]


def slider(n_tracks=500, n=20):
    "One move of a control, and opening the same explorer anew"
    from importlib import import_module

    import torch
    from geomusic.exploring.opened import open_run
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as home:
        for name, model in MODELS.items():
            opened = open_run(*large_run(Path(home), model), limit=n_tracks)
            explore = getattr(import_module(f"geomusic.exploring.{name}"), f"explore_{name}")
            build = lambda: explore(opened, cache=f"{home}/cache") if name == "embeddings" else explore(opened)  # noqa: B023
            box = build()
            if name == "embeddings":
                if box.atlas.thread: box.atlas.thread.join()
                box.atlas.search.value = "a"
            for move in moves_of(name, box, 2): move()
            ms, anew = np.array([timed(m) for m in moves_of(name, box, n)]), np.array([timed(build) for _ in range(3)])
            found[name] = dict(tracks=len(opened), move_ms=round(float(np.median(ms[:, 0])), 1), move_processor_ms=round(float(np.median(ms[:, 1])), 1), largest_processor_ms=round(float(ms[:, 1].max()), 1),
                               anew_processor_ms=round(float(np.median(anew[:, 1])), 1))
            print(name, found[name])
    return found


# ---- many points

FRAMES = """async () => { const g = document.querySelector('.js-plotly-plot'), out = []
  for (let i = 0; i < 8; i++) {
    const t = performance.now()
    await Plotly.relayout(g, {'xaxis.range': [-4 + i*.2, 4 - i*.2]})
    await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))
    out.push(performance.now() - t)
  }
  return out }"""


def points(n=50_000):
    "The figure of 50,000 tracks: kernel time, size, and how long a zoom takes in a browser without a graphics card"
    from geomusic.exploring.embeddings import Plane, plane_plot
    from geomusic.places import countries
    rng, codes = np.random.default_rng(0), countries().dropna(subset=["lat_deg", "subregion"]).index[:60].to_numpy()
    truth, answer = rng.choice(codes, (2, n))
    table = pd.DataFrame(dict(track_id=np.arange(n).astype(str), title="a tune", artist="", group="g", country=truth, predicted=answer, certainty=rng.random(n), wrong_km=1000 * rng.random(n)))
    plane, drawn = Plane(rng.normal(size=(n, 2)).astype(np.float32), "pca", {}), {}
    plane_plot(plane, table)
    wall, cpu = timed(lambda: drawn.update(fig=plane_plot(plane, table)))
    found = dict(points=n, kernel_ms=round(wall), kernel_processor_ms=round(cpu), megabytes=round(len(drawn["fig"].to_json()) / 1e6, 1))
    chromium = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
    try: from playwright.sync_api import sync_playwright
    except ImportError: chromium = None
    if chromium:
        with tempfile.TemporaryDirectory() as home, sync_playwright() as pw:
            drawn["fig"].write_html(f"{home}/points.html")
            browser = pw.chromium.launch(executable_path=chromium, args="--no-sandbox --disable-gpu --enable-unsafe-swiftshader".split())
            page = browser.new_context(offline=True, viewport=dict(width=1000, height=680)).new_page()
            begin = time.perf_counter()
            page.goto(f"file://{home}/points.html")
            page.wait_for_function("document.querySelector('.js-plotly-plot')?._fullLayout?.xaxis && document.querySelectorAll('canvas').length >= 3")
            found |= dict(shown_s=round(time.perf_counter() - begin, 1), zoom_ms_without_graphics_card=round(float(np.median(page.evaluate(FRAMES)))), browser=browser.version)
            browser.close()
    print(found)
    return found


if __name__ == "__main__":
    parts = dict(open=opening, slider=slider, points=points)
    wanted = sys.argv[1:] or list(parts)
    if set(wanted) - set(parts): raise SystemExit(__doc__)
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in wanted: results[name] = parts[name]()
    results["machine"] = machine("plotly", "ipywidgets", "pandas", "matplotlib")
    OUT.write_text(json.dumps(results, indent=1) + "\n")
