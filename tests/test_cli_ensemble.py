"`geomusic ensemble`, and evaluate and predict of what it wrote."
import json
import shutil

import pandas as pd
import pytest

from geomusic.cli import main
from geomusic.corpus import Corpus, save_corpus
from geomusic.experiments import make_split
from geomusic.synth import write_audio
from geomusic.tunes import tunes_corpus


def run(*words):
    try:
        main([str(w) for w in words])
    except SystemExit as e:
        return e.code or 0
    return 0


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = tmp_path_factory.mktemp("cli")
    c = write_audio(tunes_corpus(("CHN", "IRL"), 24), home / "corpus", progress=False)
    save_corpus(Corpus(c.tracks.assign(split=make_split(c, sizes=(0.5, 0.25, 0.25), min_groups=3)), c.report, c.folder), c.folder)
    for name, model, view in (("notes", "fcnn", "melody"), ("numbers", "fcnn", "tabular")):
        assert run("train", home / "corpus", "--model", model, "--view", view, "--out", home / name, "training.num_epochs=4", "hardware.num_workers=1") == 0
    return home


@pytest.mark.parametrize("how", ["average", "weighted", "stacked"])
def test_ensemble_evaluate_predict(home, how, capsys):
    out = home / how
    assert run("ensemble", home / "corpus", home / "notes", home / "numbers", "--how", how, "--out", out) == 0
    said = capsys.readouterr().out
    assert "notes" in said and "accuracy" in said and "2: " in said
    assert {p.name for p in out.iterdir()} == {"ensemble.json", "metrics.txt", "metrics.json", "predictions.parquet", "coverage.json", "confusion_matrix.png", "per_class_accuracy.png", "top_confusions.png"}
    assert run("evaluate", home / "corpus", "--checkpoint", out) == 0
    assert f"{how} of 2 models" in capsys.readouterr().out
    first, again = pd.read_parquet(out / "predictions.parquet"), pd.read_parquet(out / "evaluation" / "predictions.parquet")
    pd.testing.assert_frame_equal(first, again)
    assert json.loads((out / "coverage.json").read_text())["unseen"] == 0
    song = next((home / "corpus" / "audio").rglob("*.flac"))
    assert run("predict", song, "--checkpoint", out) == 0
    said = capsys.readouterr()
    assert "asked: numbers" in said.err and "Ireland" in said.out


def test_changed_member(home, tmp_path, capsys):
    copy = shutil.copytree(home, tmp_path / "copy")
    assert run("ensemble", copy / "corpus", copy / "notes", copy / "numbers", "--out", copy / "e") == 0
    shutil.copy(copy / "notes" / "best_model.pth", copy / "numbers" / "best_model.pth")
    assert run("evaluate", copy / "corpus", "--checkpoint", copy / "e") == 2
    assert "has changed" in capsys.readouterr().err
