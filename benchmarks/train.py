"""How fast training is beside what a user would otherwise write; writes benchmarks/train.json.

python benchmarks/train.py            # everything; about ten minutes on two cores
python benchmarks/train.py fcnn       # one part: fcnn, steps, memory, gpu

fcnn    245,000 x 13, 57 classes: five epochs of the usual loop (a Dataset asked row by row, a DataLoader with two workers, batches of 32) and of `fit`
steps   forward and backward at the published sizes, with what might help
memory  an epoch over a memory map of 20,000 x 1 x 128 x 1292 (13 GB, written sparse): peak memory of the process
gpu     samples a second of all four networks in float32, bf16 and compiled, and the share of the measured bf16 rate of a matrix product
"""
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np  # noqa: E402
import torch  # noqa: E402
from machine import machine  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from geomusic.config import Config  # noqa: E402
from geomusic.models import make_model  # noqa: E402
from geomusic.train import fit  # noqa: E402

OUT = Path(__file__).with_suffix(".json")
SIZES = dict(cnn=(1, 128, 1292), rnn=(600, 13), attention=(600, 13))  # one row, as published


# ---- a table


def table(n=245_000, n_val=20_000, classes=57, seed=0):
    "A made-up table of the size of the MIRAGE training set: uneven classes that overlap, columns that are no bells"
    rng = np.random.default_rng(seed)
    share = rng.dirichlet(np.full(classes, 0.7))
    y = rng.choice(classes, n + n_val, p=share)
    x = rng.standard_normal((classes, 13))[y] * 0.7 + rng.standard_normal((n + n_val, 13))
    x[:, 7] = np.exp(3 * x[:, 7])
    x[:, 11] = 200_000 + 60_000 * x[:, 11]
    names = np.array([f"C{i:02}" for i in range(classes)])
    return x.astype(np.float32), names[y], np.array(["train"] * n + ["val"] * n_val)


class Rows(torch.utils.data.Dataset):
    "As it is usually written"

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return torch.from_numpy(self.x[i]), int(self.y[i])


def usual_loop(x, y, split, epochs):
    "Seconds of each epoch, and the validation loss after it"
    codes = np.unique(y, return_inverse=True)[1]
    train, val = split == "train", split == "val"
    mean, sd = x[train].mean(0), x[train].std(0)
    x = (x - mean) / sd
    torch.manual_seed(0)
    model = make_model("fcnn", 13, codes.max() + 1)
    loader = torch.utils.data.DataLoader(Rows(x[train], codes[train]), 32, shuffle=True, num_workers=2)
    opt, seconds, losses = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=1e-4), [], []
    for _ in range(epochs):
        start = time.perf_counter()
        model.train()
        for xb, yb in loader:
            opt.zero_grad()
            F.cross_entropy(model(xb), yb).backward()
            opt.step()
        seconds.append(time.perf_counter() - start)
        model.eval()
        with torch.no_grad():
            losses.append(F.cross_entropy(model(torch.from_numpy(x[val])), torch.from_numpy(codes[val])).item())
    return seconds, losses


def fcnn(epochs=5):
    x, y, split = table()
    seconds, losses = usual_loop(x, y, split, epochs)
    at, stamps = [], [time.perf_counter()]
    settings = Config(training=dict(batch_size=2048, num_epochs=epochs, learning_rate=1e-2, optimizer="adamw", scheduler="one_cycle", mixed_precision="bf16"), hardware=dict(device="cpu"))
    torch.set_num_threads(2)  # the usual loop has two workers beside itself
    fit(x, y, split, settings, progress=False, on_epoch=lambda h: (at.append(h.val_loss.iloc[-1]), stamps.append(time.perf_counter())))
    ours = np.diff(stamps)[1:]  # the first holds reading and checking
    found = dict(usual_s_per_epoch=float(np.median(seconds)), ours_s_per_epoch=float(np.median(ours)), ours_first_epoch_s=float(np.diff(stamps)[0]),
                 usual_val_loss=losses[-1], ours_val_loss=at[-1], times=float(np.median(seconds) / np.median(ours)), fifty_epochs_min=float(np.median(ours) * 50 / 60))
    print("  ".join(f"{k} {v:.4g}" for k, v in found.items()))
    return found


# ---- steps


def rate(kind, device="cpu", batch=None, dtype=None, channels_last=False, fused=False, compiled=False, seconds=3.0):
    "Samples a second, forward and backward and step"
    torch.manual_seed(0)
    shape = SIZES.get(kind, (13,))
    batch = batch or (16 if kind == "cnn" else 32)
    model = make_model(kind, shape[1] if kind == "cnn" else shape[-1], 57).to(device).train()
    x, y, n = torch.randn(batch, *shape, device=device), torch.randint(57, (batch,), device=device), torch.full((batch,), shape[-1] if kind == "cnn" else shape[0])
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    opt = torch.optim.AdamW(model.parameters(), fused=fused)
    call = torch.compile(model) if compiled else model

    def step():
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            loss = F.cross_entropy(call(x, n).float(), y)
        opt.zero_grad()
        loss.backward()
        opt.step()

    for _ in range(10 if device == "cuda" else 2):
        step()
    sync = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    sync()
    steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(10 if device == "cuda" else 1):
            step()
            steps += 1
        sync()
    return batch * steps / (time.perf_counter() - start)


def steps():
    "Each way beside the plain float32 loop, in turns"
    found = {}
    for kind in SIZES:
        ways = dict(plain={}, fused=dict(fused=True), bf16=dict(dtype=torch.bfloat16)) | (dict(channels_last=dict(channels_last=True)) if kind == "cnn" else {})
        runs = {w: [] for w in [*ways, "two_threads"]}
        for _ in range(3):
            for w, kw in ways.items():
                runs[w].append(rate(kind, **kw))
            torch.set_num_threads(2)
            runs["two_threads"].append(rate(kind))
            torch.set_num_threads(1)
        found[kind] = {w: float(np.median(r)) for w, r in runs.items()}
        print(kind, "  ".join(f"{w} {r:.1f}/s ({r / found[kind]['plain']:.2f})" for w, r in found[kind].items()))
    return found


# ---- memory

CHILD = """
import resource, sys, threading, time
import numpy as np, torch
torch.set_num_threads(2)
from machine import peak_bytes
from geomusic.config import Config
from geomusic.train import fit
x = np.load(sys.argv[1], mmap_mode='r')
n = len(x)
y = np.where(np.arange(n) % 2, 'CHN', 'IRL')
split = np.array(['val'] * (n // 20) + ['train'] * (n - n // 20))
config = Config(model=dict(type='cnn', params=dict(channels=[4, 4, 4, 8], fc=8)), training=dict(num_epochs=1, batch_size=32, random_crop=.05), hardware=dict(device="cpu", num_workers=int(sys.argv[2])))
fit(x, y, split, config, progress=False)
print(peak_bytes() / 2**20, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024)
"""


def memory(rows=20_000):
    "Peak memory of a process that trains from a memory map much larger than that"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mel.npy"
        x = np.lib.format.open_memmap(path, "w+", np.float32, (rows, 1, 128, 1292))
        x[:: max(1, rows // 50), :, ::16] = 1  # not quite nothing; the rest of the file is holes that read as zeros
        del x
        found = {}
        for workers in (1,):
            done = subprocess.run([sys.executable, "-c", CHILD, str(path), str(workers)], cwd=Path(__file__).parent, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr[-2000:])
            own, worker = map(float, done.stdout.split())
            found[f"workers_{workers}"] = dict(file_mb=path.stat().st_size / 1e6, process_mb=own, worker_mb=worker if workers else 0.0)
            print(f"{workers} workers: file {path.stat().st_size / 1e6:,.0f} MB, process {own:,.0f} MB at most, worker {worker if workers else 0:,.0f} MB")
    return found


# ---- a GPU


def gpu():
    "All four networks, three ways, beside the rate of a large bf16 product"
    if not torch.cuda.is_available():
        print("no GPU here")
        return None
    torch.backends.cuda.matmul.allow_tf32 = False
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(5):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(50):
        a @ a
    torch.cuda.synchronize()
    found = dict(name=torch.cuda.get_device_name(), matmul_tflops=50 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12)
    for kind, batch in dict(fcnn=8192, cnn=64, rnn=512, attention=512).items():
        ways = dict(float32={}, bf16=dict(dtype=torch.bfloat16), compiled=dict(dtype=torch.bfloat16, compiled=True))
        found[kind] = {w: rate(kind, "cuda", batch, fused=True, **kw) for w, kw in ways.items()}
        print(kind, found[kind])
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    parts = dict(fcnn=fcnn, steps=steps, memory=memory, gpu=gpu)
    wanted = sys.argv[1:] or list(parts)
    if set(wanted) - set(parts):
        raise SystemExit(__doc__)
    results = json.loads(OUT.read_text()) if OUT.exists() else {}
    for name in wanted:
        results[name] = parts[name]()
    results["machine"] = machine("numpy")
    OUT.write_text(json.dumps(results, indent=1) + "\n")
