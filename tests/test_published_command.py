"The published command, as people type it: train and evaluate with a configuration and a folder of splits."
import subprocess
import sys

import numpy as np
import pytest
from test_split_folder import SHAPES, make, published

from geomusic.models import MODELS


def geomusic(*words, cwd, ok=0):
    done = subprocess.run([sys.executable, "-m", "geomusic.cli", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == ok, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@pytest.mark.parametrize("model", ["fcnn", "cnn", "rnn", "attention"])
def test_train_and_evaluate(tmp_path, model):
    (tmp_path / "configs").mkdir()
    published(tmp_path, model).rename(tmp_path / "configs" / "config.yaml")
    make(tmp_path / "data" / "splits", SHAPES[MODELS[model].view], dtype=np.float64)
    done = geomusic("train", "--config", "configs/config.yaml", "--data_dir", "data/splits/", "training.learning_rate=0.02", cwd=tmp_path)
    assert "accuracy" in done.stdout and "cannot be judged" in done.stdout and "training.num_classes" in done.stderr
    assert (tmp_path / "checkpoints" / "best_model.pth").exists()
    done = geomusic("evaluate", "--config", "configs/config.yaml", "--checkpoint", "checkpoints/best_model.pth", "--data_dir", "data/splits/", "--output_dir", "results/", cwd=tmp_path)
    assert {"metrics.txt", "confusion_matrix.png", "per_class_accuracy.png", "top_confusions.png"} <= {p.name for p in (tmp_path / "results").iterdir()}


def test_there_and_back_and_wrong(tmp_path):
    make(tmp_path / "splits")
    geomusic("corpus", "splits", "splits", "--out", "corpus", cwd=tmp_path)
    geomusic("export", "corpus", "--out", "again", cwd=tmp_path)
    assert all(np.array_equal(np.load(tmp_path / "splits" / f"{s}_features.npy"), np.load(tmp_path / "again" / f"{s}_features.npy")) for s in ("train", "val", "test"))
    (tmp_path / "splits" / "label_encoder.pkl").write_bytes(b"cos\nsystem\n(Vmkdir owned\ntR.")
    for line in ("train --data_dir splits -m cnn", "train --data_dir splits -m fcnn", "train", "train corpus --data_dir splits", "export corpus --out again", "evaluate -c nowhere --data_dir splits"):
        told = geomusic(*line.split(), cwd=tmp_path, ok=2).stderr.strip().splitlines()
        assert told[-1].startswith("error: ") and not (tmp_path / "owned").exists()
