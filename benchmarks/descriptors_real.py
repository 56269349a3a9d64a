"""What the thirteen descriptors say about recordings: medians of each folder, and how well speech is told from music.

python benchmarks/descriptors_real.py OUT.csv WHAT=KIND=GLOB ...      # KIND: speech, music or other

The table of nbs/results/descriptors_real.csv was made from these Debian packages (bookworm; unpacked with `dpkg -x` into DIR, see their
copyright files): asterisk-core-sounds-{en,ru,fr,it}-wav, wesnoth-1.16-music, fretsonfire-songs-{sectoid,muldjord}, asterisk-moh-opsound-wav,
sonic-pi-samples, supertux-data, hedgewars-data. The anchors of the formulas were chosen while looking at those of the first line ("seen").

    python benchmarks/descriptors_real.py nbs/results/descriptors_real.csv \
        "seen: spoken prompts, en, ru=speech=DIR/**/en_US_*/*.wav,DIR/**/ru_RU_*/*.wav" "seen: orchestra=music=DIR/**/wesnoth/**/*.ogg" \
        "seen: rock=music=DIR/**/fretsonfire/**/*.ogg" "seen: music on hold=music=DIR/**/moh/*.wav" "seen: drum loops=other=DIR/**/loop_*.flac" \
        "unseen: spoken prompts, fr, it=speech=DIR/**/fr_CA_*/*.wav,DIR/**/it_IT_*/*.wav" "unseen: game music=music=DIR/**/supertux2/music/**/*.ogg,DIR/**/hedgewars/Data/Music/*.ogg" \
        "unseen: a voice called Singer=other=DIR/**/hedgewars/Data/Sounds/voices/Singer/*.ogg"
"""
import glob
import os
import random
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
import librosa  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import soundfile as sf  # noqa: E402
from sklearn.metrics import roc_auc_score  # noqa: E402

from geomusic.sound.analysis import Analysis  # noqa: E402
from geomusic.sound.descriptors import DESCRIPTORS, descriptors, sound_cues  # noqa: E402

A, DUR_S, MOST = Analysis(dur_s=10.0), 10.0, 40
CUES = ["range_lu", "quiet_share", "quiet_entropy", "fall_db_s", "syllabic", "percussive", "steadiness", "glide_cents", "pulse_clarity"]


def middle(path):
    "At most DUR_S seconds of the middle of a file, mono, at A.sr"
    info = sf.info(path)
    n = int(DUR_S * info.samplerate)
    y, sr = sf.read(path, start=max(0, (info.frames - n) // 2), frames=n, dtype="float32", always_2d=True)
    y = y.mean(1)
    return librosa.resample(y, orig_sr=sr, target_sr=A.sr) if sr != A.sr else y


def excerpts(patterns, kind):
    "Ten seconds each: a file's middle; phrases one after another; a loop again and again"
    paths = sorted(p for pattern in patterns.split(",") for p in glob.glob(pattern, recursive=True) if sf.info(p).duration > 1.5)
    random.Random(0).shuffle(paths)
    if kind == "speech":
        for i in range(0, min(len(paths), 4 * MOST), 4):
            yield np.concatenate([middle(p) for p in paths[i:i + 4]])[:A.n_samples]
        return
    for path in paths[:MOST]:
        y = middle(path)
        if np.abs(y).max() > 1e-3:
            yield np.tile(y, -(-A.n_samples // len(y)))[:A.n_samples]


def main(out, *groups):
    rows = []
    for group in groups:
        what, kind, patterns = group.split("=")
        for y in excerpts(patterns, kind):
            cues = sound_cues(y, A)
            rows.append(dict(what=what, kind=kind) | descriptors(y, A) | {c: cues[c] for c in CUES})
    t = pd.DataFrame(rows)
    numbers = [n for n in DESCRIPTORS if n not in ("key", "mode", "duration_ms", "time_signature")] + CUES
    table = t.groupby("what", sort=False)[numbers].median()
    table.insert(0, "excerpts", t.groupby("what").size())
    for seen in ("seen", "unseen"):
        s = t[t.what.str.startswith(seen + ":") & t.kind.isin(["speech", "music"])]
        auc = {n: roc_auc_score(s.kind == "speech", s[n].fillna(s[n].median())) for n in numbers}
        table.loc[f"{seen}: AUC, speech against music"] = dict(excerpts=len(s)) | auc
    table.round(3).to_csv(out)
    print(table.T.round(2).to_string())


if __name__ == "__main__":
    main(*sys.argv[1:])
