"""How fast sound becomes views, beside the obvious librosa script on the same samples; what decoding costs; how much memory it takes.

python benchmarks/extract.py                # prints tables and writes benchmarks/extract.json; ten minutes or so on two cores
python benchmarks/extract.py --clips 200    # a smaller number of clips for the memory, instead of 500 and 2,000
"""
import os

for name in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
    os.environ.setdefault(f"{name}_NUM_THREADS", "1")
import argparse  # noqa: E402
import json  # noqa: E402
import shutil  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import soundfile as sf  # noqa: E402
from machine import machine  # noqa: E402

from geomusic.corpus import Corpus, save_corpus  # noqa: E402
from geomusic.synth import SR, render_tune  # noqa: E402
from geomusic.tunes import all_tunes  # noqa: E402

DUR_S = 30.0


def clips(n):
    "n tunes of thirty seconds, (samples,) each"
    rows = all_tunes().query("refused == ''").iloc[:: max(1, 6000 // n)].head(n)
    return [render_tune(r.track_id, r.midi, r.dur_ql, total_s=DUR_S) for r in rows.itertuples()]


def obvious(y):
    "What one writes first: a librosa call for every feature, one after another"
    import librosa

    mel = librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=SR))
    hop = round(0.05 * SR)
    seq = np.vstack([librosa.feature.mfcc(y=y, sr=SR, n_mfcc=13, hop_length=hop), librosa.feature.chroma_stft(y=y, sr=SR, hop_length=hop)])
    tempo, _ = librosa.beat.beat_track(y=y, sr=SR)
    numbers = [float(np.atleast_1d(tempo)[0]), *librosa.feature.chroma_stft(y=y, sr=SR).mean(1)]
    for f in (librosa.feature.rms, librosa.feature.zero_crossing_rate, librosa.feature.spectral_flatness):
        numbers.append(f(y=y).mean())
    for f in (librosa.onset.onset_strength, librosa.feature.spectral_centroid, librosa.feature.spectral_bandwidth, librosa.feature.spectral_rolloff):
        numbers.append(f(y=y, sr=SR).mean())
    return mel, seq, numbers


def ours(y):
    "All three views"
    from geomusic.views import views_of_sound

    return views_of_sound(y)


def timed(f, *args):
    "(wall seconds, CPU seconds of this process)"
    wall, cpu = time.perf_counter(), time.process_time()
    f(*args)
    return time.perf_counter() - wall, time.process_time() - cpu


def one_thread(ys):
    "Both on every clip, turn by turn"
    import torch

    torch.set_num_threads(1)
    ours(ys[0]), obvious(ys[0])
    times = np.array([[timed(ours, y), timed(obvious, y)] for y in ys])  # (clips, 2, 2)
    wall, cpu = times.sum(0).T
    return dict(what="all views of 30 s, clips a second, 1 thread", ours=len(ys) / wall[0], other=len(ys) / wall[1], beside="librosa, call after call", ratio=wall[1] / wall[0],
                ratio_cpu=cpu[1] / cpu[0], ours_cpu_ms=1000 * cpu[0] / len(ys), other_cpu_ms=1000 * cpu[1] / len(ys))


def worker(name, paths):
    "Seconds for clips that are decoded already, in a worker"
    import torch

    torch.set_num_threads(1)
    f = dict(ours=ours, obvious=obvious)[name]
    f(np.load(paths[0]))
    start = time.perf_counter()
    for p in paths:
        f(np.load(p))
    return start, time.perf_counter()


def two_workers(ys, folder):
    "Both in two processes, turn by turn; from the first begin to the last end"
    from joblib import Parallel, delayed

    paths = [str(folder / f"{i}.npy") for i in range(len(ys))]
    for p, y in zip(paths, ys):
        np.save(p, y)
    seconds = dict(ours=[], obvious=[])
    for _ in range(3):
        for name, times in seconds.items():
            spans = Parallel(2)(delayed(worker)(name, paths[i::2]) for i in range(2))
            times.append(max(e for _, e in spans) - min(s for s, _ in spans))
    a, b = statistics.median(seconds["ours"]), statistics.median(seconds["obvious"])
    return dict(what="all views of 30 s, clips a second, 2 processes", ours=len(ys) / a, other=len(ys) / b, beside="librosa, call after call", ratio=b / a)


def decoding(ys, folder):
    "Milliseconds to decode thirty seconds, and the share of that in decoding and all views; stereo at 44.1 kHz, as records are"
    from geomusic.sound.decode import load_audio

    rows = []
    for long_s in (30, 180):
        for suffix in ("wav", "flac", "ogg", "mp3"):
            paths = []
            for i, y in enumerate(ys[:8]):
                y = np.interp(np.arange(int(long_s * 44100)) / 44100 % DUR_S, np.arange(len(y)) / SR, y).astype(np.float32)
                paths.append(folder / f"{long_s}-{i}.{suffix}")
                with sf.SoundFile(paths[-1], "w", 44100, 2) as f:
                    for j in range(0, len(y), 4096):
                        f.write(np.stack([y[j:j + 4096]] * 2, 1))
            load_audio(paths[0], SR, DUR_S)
            both = np.array([(timed(load_audio, p, SR, DUR_S), timed(ours, y)) for p, y in zip(paths * 2, ys)])[:, :, 1]  # (files, 2), CPU seconds
            decode, views = both.sum(0)
            rows.append(dict(format=suffix, file_s=long_s, decode_ms=1000 * decode / len(both), views_ms=1000 * views / len(both), share=decode / (decode + views)))
            for p in paths:
                p.unlink()
    return rows


MEMORY = """
import json, resource, sys, time
from machine import peak_bytes
from geomusic.corpus import load_corpus
from geomusic.sound.engine import extract

if __name__ == "__main__":
    start = time.perf_counter()
    views = extract(load_corpus(sys.argv[1]), n_jobs=2, progress=False)
    seconds = time.perf_counter() - start
    worker = 1024*resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # the largest of those that have ended, and they all have
    print(json.dumps(dict(seconds=seconds, worker=worker, parent=peak_bytes(), rows=[len(v) - len(v.refused) for v in views.values()])))
"""


def memory(ys, folder, counts):
    "Peak memory of workers and parent, and clips a second from file to view, with two workers; the files differ in where the tune begins"
    rows = []
    for n in counts:
        home = folder / f"corpus{n}"
        (home / "audio").mkdir(parents=True)
        for i in range(n):
            sf.write(home / "audio" / f"{i}.wav", np.roll(ys[i % len(ys)], 997 * (i // len(ys))), SR)
        t = dict(track_id=[str(i) for i in range(n)], country="IRL", lat_deg=53.3, lon_deg=-6.2, group="", title="", artist="", audio=[f"audio/{i}.wav" for i in range(n)])
        save_corpus(Corpus(pd.DataFrame(t)), home)
        (folder / "memory.py").write_text(MEMORY)
        done = subprocess.run([sys.executable, str(folder / "memory.py"), str(home)], env=os.environ | dict(PYTHONPATH=os.pathsep.join(sys.path)), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        got = json.loads(done.stdout)
        assert got["rows"] == [n] * 3
        rows.append(dict(clips=n, worker_mb=got["worker"] / 1e6, parent_mb=got["parent"] / 1e6, clips_per_s=n / got["seconds"]))
        shutil.rmtree(home)
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, nargs="*", default=[500, 2000])
    parser.add_argument("--speed", type=int, default=40, help="clips for the speed")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder, ys = Path(folder), clips(args.speed)
        speed = [one_thread(ys), two_workers(ys, folder)]
        for r in speed:
            print(f"{r['what']:50} {r['ours']:7.2f}   {r['beside']:26} {r['other']:7.2f}   ratio {r['ratio']:5.1f}" + (f"   (of CPU time {r['ratio_cpu']:.1f})" if "ratio_cpu" in r else ""), flush=True)
        decode = decoding(ys, folder)
        for r in decode:
            print(f"30 s of a {r['file_s']:3}-s {r['format']:4}  decoding {r['decode_ms']:6.1f} ms, views {r['views_ms']:6.1f} ms, share of decoding {r['share']:.0%}", flush=True)
        peaks = memory(ys, folder, args.clips)
        for r in peaks:
            print(f"{r['clips']:5} clips: a worker {r['worker_mb']:5.0f} MB at most, the parent {r['parent_mb']:5.0f} MB; {r['clips_per_s']:.1f} clips a second from file to view", flush=True)
    Path(__file__).with_suffix(".json").write_text(json.dumps(dict(machine=machine("librosa", "soundfile"), speed=speed, decoding=decode, memory=peaks), indent=1) + "\n")
