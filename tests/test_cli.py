"The command line from end to end, as a user types it."
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import soundfile as sf


def geomusic(*words, cwd, ok=0):
    "Run the command; the exit code must be `ok`"
    done = subprocess.run([sys.executable, "-m", "geomusic.cli", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=900)
    assert done.returncode == ok, done.stdout[-2000:] + done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A folder with a small split corpus and one trained network of each kind"
    work = tmp_path_factory.mktemp("cli")
    geomusic("corpus", "tunes", "--out", "tunes", "--countries", "CHN,Germany,IRL", "--per-country", 24, cwd=work)
    geomusic("extract", "tunes", "-j", 1, cwd=work)
    geomusic("split", "tunes", cwd=work)
    for model in ("fcnn", "cnn", "rnn", "attention"):
        geomusic("train", "tunes", "--model", model, "--out", f"runs/{model}", "training.num_epochs=2", cwd=work)
    return work


def test_quick_demo_writes_a_self_contained_report(tmp_path):
    out = geomusic("demo", "--quick", "--per-country", 20, "--out", "demo", "-j", 2, "training.num_epochs=2", cwd=tmp_path).stdout
    page = (tmp_path / "demo" / "report.html").read_text()
    assert "report.html" in out and len(page) < 10e6 and all(m in page for m in ("cnn", "attention", "logistic_regression", "majority", "chance"))
    results = pd.read_parquet(tmp_path / "demo" / "results.parquet")
    assert len(results) == 9 and results.accuracy.between(0, 1).all()
    started = time.monotonic()
    geomusic("demo", "--quick", "--per-country", 20, "--out", "demo", "-j", 1, "training.num_epochs=2", cwd=tmp_path)  # nothing is done again
    assert time.monotonic() > started and len(pd.read_parquet(tmp_path / "demo" / "results.parquet")) == 9
    other = geomusic("demo", "--quick", "--per-country", 20, "--out", "demo", "-j", 2, "training.num_epochs=3", cwd=tmp_path, ok=2).stderr
    assert "error: " in other and "training.num_epochs=2" in other and "Traceback" not in other  # old results do not pass for these settings
    tune = next((tmp_path / "demo" / "held_out" / "audio").rglob("*.flac"))
    assert "Ireland" in geomusic("predict", tune, "--checkpoint", "demo/best", cwd=tmp_path).stdout


@pytest.mark.parametrize("model", ["fcnn", "cnn", "rnn", "attention"])
def test_every_network_leaves_the_published_files(work, model):
    have = {p.name for p in (work / "runs" / model).iterdir()}
    assert have >= {"best_model.pth", "config.yaml", "history.csv", "metrics.txt", "metrics.json", "confusion_matrix.png", "per_class_accuracy.png",
                    "top_confusions.png", "predictions.parquet"}
    p = pd.read_parquet(work / "runs" / model / "predictions.parquet")
    assert np.allclose(p.filter(like="p_").sum(axis=1), 1)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_predict_reads_every_sound_format(work, suffix):
    y, sr = sf.read(next((work / "tunes" / "audio").rglob("*.flac")))
    sf.write(work / f"song.{suffix}", np.stack([y, y], 1), sr)
    lines = geomusic("predict", f"song.{suffix}", "--checkpoint", "runs/cnn", cwd=work).stdout.splitlines()
    assert lines[0].endswith(f"song.{suffix}") and abs(sum(float(line.split("%")[0]) for line in lines[1:]) - 100) < .2


def test_predict_reads_a_table_of_descriptors(work):
    from geomusic.sound.descriptors import DESCRIPTORS
    from geomusic.views import load_view

    pd.DataFrame(load_view(work / "tunes", "tabular").x, columns=DESCRIPTORS).to_csv(work / "table.csv", index=False)
    geomusic("predict", "table.csv", "--checkpoint", "runs/fcnn", "--out", "answers.csv", cwd=work)
    assert np.allclose(pd.read_csv(work / "answers.csv", index_col=0).sum(axis=1), 1)


def test_evaluate_repeats_what_train_reported(work):
    geomusic("evaluate", "tunes", "--checkpoint", "runs/rnn", "--output_dir", "again", cwd=work)
    first, again = (json.loads((work / d / "metrics.json").read_text()) for d in ("runs/rnn", "again"))
    assert first["accuracy"] == again["accuracy"] and first["n"] == again["n"]


def test_the_same_seed_gives_the_same_metrics(work):
    for name in ("one", "two"):
        geomusic("train", "tunes", "-m", "attention", "--out", name, "training.num_epochs=2", cwd=work)
    assert (work / "one" / "metrics.json").read_bytes() == (work / "two" / "metrics.json").read_bytes()


def test_ctrl_c_is_not_a_crash(work):
    done = subprocess.Popen([sys.executable, "-m", "geomusic.cli", "train", "tunes", "-m", "cnn", "--out", "stopped", "training.num_epochs=500", "training.early_stopping_patience=500"],
                            cwd=work, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 900
    while not (work / "stopped" / "last.pth").exists():  # an epoch is finished; 499 are not
        assert done.poll() is None and time.monotonic() < end, "no epoch was finished"
        time.sleep(0.05)
    os.kill(done.pid, signal.SIGINT)
    _, err = done.communicate(timeout=900)
    assert "Traceback" not in err and done.returncode in (0, 130)  # 0: an epoch was finished, its weights are kept and judged
    assert done.returncode == 0 or "interrupted" in err
    assert not list((work / "stopped").glob(".*tmp*")) if (work / "stopped").exists() else True


def test_an_audit_finds_a_column_that_gives_the_country_away(work):
    tracks = pd.read_parquet(work / "tunes" / "tracks.parquet")
    (work / "leaking").mkdir()
    letters = tracks.country.where(np.random.default_rng(0).random(len(tracks)) < 0.9, "XXX").str[:2]
    tracks.assign(label_of_the_record=letters).to_parquet(work / "leaking" / "tracks.parquet")
    told = geomusic("audit", "leaking", "--seeds", 0, "--json", "audit.json", cwd=work).stdout
    assert "label_of_the_record" in told and "label_of_the_record" in (work / "audit.json").read_text()


def test_folds_and_blocks_from_the_command_line(work):
    before = set()
    for k in (0, 1):
        geomusic("split", "tunes", "--by", "fold", "--folds", 4, "--fold", k, "--min-groups", 4, cwd=work)
        tested = set(pd.read_parquet(work / "tunes" / "tracks.parquet").query("split == 'test'").group)
        assert tested and not tested & before
        before = tested
    assert "blocks" in geomusic("split", "tunes", "--by", "block", cwd=work, ok=2).stderr
    geomusic("split", "tunes", cwd=work)
    assert json.loads((work / "tunes" / "report.json").read_text())["split"]["sizes"] == [0.7, 0.1, 0.2]
