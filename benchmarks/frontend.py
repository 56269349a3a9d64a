"""How fast the front end is beside librosa's functions called one after another, on the same 30-s clips in one run.

python benchmarks/frontend.py        # prints tables and writes benchmarks/frontend.json; the GPU part runs where there is one
"""
import os
import sys

THREADS = int(sys.argv[1]) if len(sys.argv) > 1 else 0  # 0: the parent, which starts a process for each number of threads
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[name] = str(THREADS or 1)
import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402
from pathlib import Path  # noqa: E402

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from machine import machine  # noqa: E402

from geomusic.sound.frontend import OUTPUTS, TOLERANCE, Analysis, FrontEnd, _sqrt, bandwidth, centroid, decibels, flatness, frames, onset_strength, peak_normalised, power_spectrum, rms, rolloff  # noqa: E402,E501
from geomusic.synth import render_tune  # noqa: E402
from geomusic.tunes import all_tunes  # noqa: E402

MACHINE = machine("librosa")  # its `load` is of processes that wanted a core before we came: with more of them than cores only the CPU seconds of one thread mean much
A = Analysis()
ALL = tuple(o for o in OUTPUTS if o not in ("power", "magnitude"))


def clips(n=8):
    "Excerpts of 30 s of the embedded tunes, (n, samples)"
    rows = all_tunes().query("refused == ''").sample(n, random_state=0)
    return np.stack([render_tune(r.track_id, r.midi, r.dur_ql, total_s=A.dur_s) for r in rows.itertuples()])


def one_after_another(y):
    "The same outputs, each by the call of librosa that a script would make"
    k, sr = dict(y=y, n_fft=A.n_fft, hop_length=A.hop_length), dict(sr=A.sr)
    f = librosa.feature
    mel = f.melspectrogram(**k, **sr, n_mels=A.n_mels)
    return dict(mel_power=mel, melspec=librosa.power_to_db(mel), mfcc=f.mfcc(**k, **sr, n_mfcc=A.n_mfcc), chroma=f.chroma_stft(**k, **sr, tuning=0.0),
                onset=librosa.onset.onset_strength(**k, **sr), rms=f.rms(y=y, frame_length=A.n_fft, hop_length=A.hop_length)[0], centroid=f.spectral_centroid(**k, **sr)[0],
                bandwidth=f.spectral_bandwidth(**k, **sr)[0], rolloff=f.spectral_rolloff(**k, **sr)[0], flatness=f.spectral_flatness(**k)[0])  # fmt: skip


def mel_only(y):
    return librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=A.sr, n_fft=A.n_fft, hop_length=A.hop_length, n_mels=A.n_mels))


def both_clocks():
    "Wall and CPU seconds; on a busy machine only the second tells what a thread did"
    return np.array([time.perf_counter(), time.process_time()])


def interleaved(calls, repeats, clock=both_clocks):
    "Seconds of each call, (repeats, ...) of it; every call once a round, so that a busy machine slows all of them"
    for call in calls.values():
        call()
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = clock()
            call()
            times[name].append(clock() - start)
    return times


def beside_librosa(sound, front):
    "Clips a second for all outputs and for the mel spectrogram alone, batches of 1 and 8"
    batch, waves = torch.from_numpy(sound), list(sound)
    turn = iter(range(10**9))
    pick = lambda: next(turn) % len(waves)  # noqa: E731
    rows = []
    for what, outputs, script in (("ten outputs", ALL, one_after_another), ("mel spectrogram", ("melspec",), mel_only)):
        t = interleaved({"librosa": lambda: script(waves[pick()]), "1": lambda: front(batch[pick()], outputs), "8": lambda: front(batch, outputs)}, 7)
        for size in (1, 8):
            ours, theirs = np.array(t[str(size)]) / size, np.array(t["librosa"])  # (7, 2) wall and CPU seconds a clip
            ratio, ours, theirs = np.median(theirs / ours, 0), np.median(ours, 0), np.median(theirs, 0)
            rows.append(dict(what=what, batch=size, clips_s=1 / ours[0], librosa_clips_s=1 / theirs[0], ratio=ratio[0],
                             clips_cpu_s=1 / ours[1], librosa_clips_cpu_s=1 / theirs[1], ratio_cpu=ratio[1]))  # fmt: skip
    return rows


def agrees(sound, front):
    "Does what is timed keep its promise?"
    got, want = front(torch.from_numpy(sound[0]), ALL), one_after_another(sound[0])
    for o in ALL:
        scale = np.abs(want[o]).max() if o in ("mel_power", "rms") else 1
        assert np.abs(got[o].numpy() - want[o]).max() <= TOLERANCE[o] * scale, o


def stages(sound, front):
    "CPU milliseconds of each stage for a clip, the least of 15"
    x = frames(torch.from_numpy(sound[:1]), A.n_fft, A.hop_length)
    power = power_spectrum(x, front.window)
    mag, mel = _sqrt(power), front.mel_bands(power)
    db, centre = decibels(mel), centroid(mag, front.hz)
    calls = dict(transform_and_power=lambda: power_spectrum(x, front.window), mel=lambda: front.mel_bands(power), decibels=lambda: decibels(mel), mfcc=lambda: front.dct @ db,
                 chroma=lambda: peak_normalised(front.product(front.chroma, power)), onset=lambda: onset_strength(db, A.n_fft, A.hop_length), rms=lambda: rms(x), magnitude=lambda: _sqrt(power),
                 centroid=lambda: centroid(mag, front.hz), bandwidth=lambda: bandwidth(mag, front.hz, centre), rolloff=lambda: rolloff(mag, front.hz), flatness=lambda: flatness(power))  # fmt: skip
    ms = {n: 1000 * min(t) for n, t in interleaved(calls, 15, time.thread_time).items()}
    return [dict(stage=n, ms=v, share=v / sum(ms.values())) for n, v in ms.items()]


def variants(sound, front):
    "CPU milliseconds of ways to do the same, the least of 15; `kept` marks the one the module uses"
    y = torch.from_numpy(sound[:1])
    x, z = frames(y, A.n_fft, A.hop_length), torch.stft(y, A.n_fft, A.hop_length, window=front.window, pad_mode="constant", return_complex=True)
    power, both = power_spectrum(x, front.window), torch.cat([front.mel, front.chroma])
    turned = front.mel.T.contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse tensors beta
        sparse = front.mel.to_sparse_csr()
    square = lambda z: z.real.square() + z.imag.square()  # noqa: E731
    groups = {
        "transform and power": {
            "torch.stft": lambda: square(torch.stft(y, A.n_fft, A.hop_length, window=front.window, pad_mode="constant", return_complex=True)),
            "unfold, rfft": lambda: square(torch.fft.rfft(x * front.window)),
            "unfold, rfft, 128 frames at a time (kept)": lambda: power_spectrum(x, front.window),
        },
        "power of the transform": {"abs()**2": lambda: z.abs() ** 2, "(z*conj(z)).real": lambda: (z * z.conj()).real, "real**2 + imag**2 (kept)": lambda: square(z)},
        "mel bands": {
            "dense (M,F)@(F,T)": lambda: front.mel @ power,
            "dense (T,F)@(F,M)": lambda: power.mT @ turned,
            "sparse CSR": lambda: sparse @ power[0],
            "8 groups of bands (kept)": lambda: front.mel_bands(power),
        },
        "mel and chroma": {"one matrix of 140 rows": lambda: both @ power, "groups, and chroma dense (kept)": lambda: (front.mel_bands(power), front.chroma @ power)},
    }
    return [dict(step=g, way=n, ms=1000 * min(t)) for g, calls in groups.items() for n, t in interleaved(calls, 15, time.thread_time).items()]


def on_gpu(sound):
    "Clips a second on a GPU, 32-bit and with 16-bit filter products; sound is there already"
    rows, wave = [], torch.from_numpy(sound).cuda()
    for bits, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        front = FrontEnd(A, dtype=dtype).cuda()
        exact = FrontEnd(A)(torch.from_numpy(sound[:2]), ("melspec",))["melspec"]
        off = float((front(wave[:2])["melspec"].cpu() - exact).abs().max())
        for what, outputs in (("ten outputs", ALL), ("mel spectrogram", ("melspec",))):
            for size in (1, 8, 64):
                batch = wave.repeat(-(-size // len(wave)), 1)[:size]

                def call():
                    front(batch, outputs)
                    torch.cuda.synchronize()

                t = statistics.median(interleaved({"": call}, 20, time.perf_counter)[""])
                rows.append(dict(gpu=torch.cuda.get_device_name(), bits=bits, what=what, batch=size, clips_s=size / t, melspec_off_db=off))
    return rows


def measure():
    "One process, one number of threads"
    torch.set_num_threads(THREADS)
    sound, front = clips(), FrontEnd(A)
    with torch.inference_mode():
        agrees(sound, front)
        out = dict(beside_librosa=[dict(threads=THREADS) | r for r in beside_librosa(sound, front)])
        if THREADS == 1:
            out |= dict(stages=stages(sound, front), variants=variants(sound, front))
            out["gpu"] = on_gpu(sound) if torch.cuda.is_available() else []
    return out


def print_table(rows):
    for r in rows:
        print("  ".join(f"{v:10.3g}" if isinstance(v, float) else f"{v!s:<24}" if i < 2 else f"{v!s:<8}" for i, v in enumerate(r.values())))
    print()


if __name__ == "__main__":
    if THREADS:
        print(json.dumps(measure()))
        sys.exit()
    found = {}
    for n in sorted({1, min(2, os.cpu_count())}):
        done = subprocess.run([sys.executable, __file__, str(n)], stdout=subprocess.PIPE, text=True, check=True)
        for key, rows in json.loads(done.stdout).items():
            found[key] = found.get(key, []) + rows
    for key, rows in found.items():
        print(key, " | ".join(rows[0]) if rows else "(none here)")
        print_table(rows)
    Path(__file__).with_suffix(".json").write_text(json.dumps(dict(machine=MACHINE) | found, indent=1) + "\n")
