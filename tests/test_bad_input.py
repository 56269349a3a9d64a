"Whatever a user can get wrong: one line that names the thing, exit code 2, no traceback, nothing half-written."
import subprocess
import sys
from importlib.machinery import ModuleSpec

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

from geomusic import coordinates, maps
from geomusic.files import InputError


def geomusic(*words, cwd):
    return subprocess.run([sys.executable, "-m", "geomusic.cli", *map(str, words)], cwd=cwd, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    "A small corpus, two runs, and a collection of broken things"
    work = tmp_path_factory.mktemp("bad")
    for line in ("corpus tunes --out tunes --per-country 20", "extract tunes --views tabular,sequence -j 1", "split tunes",
                 "train tunes -m fcnn --out runs/fcnn training.num_epochs=1", "train tunes -m rnn --out runs/rnn training.num_epochs=1"):
        done = geomusic(*line.split(), cwd=work)
        assert done.returncode == 0, done.stderr
    (work / "bad.yaml").write_text("training: {learning_rat: 0.1}")
    (work / "broken.yaml").write_text("training: [")
    (work / "empty.wav").write_bytes(b"")
    (work / "corrupt.mp3").write_bytes(b"\xff\xfb" + bytes(range(256)) * 20)
    sf.write(work / "silent.flac", np.zeros(22050), 22050)
    (work / "columns.csv").write_text("danceability,energy\n0.5,0.5\n")
    (work / "text.pth").write_text("not a checkpoint")
    torch.save({"epoch": 3, "weights": torch.ones(2)}, work / "foreign.pth")
    tracks = pd.read_parquet(work / "tunes" / "tracks.parquet")
    for name, table in dict(one_class=tracks[tracks.country == "IRL"], small=pd.concat([tracks[tracks.country != "IRL"], tracks[tracks.country == "IRL"][:2]]),
                            no_group=tracks.drop(columns="group"), unsplit=tracks.drop(columns="split"),
                             strange=tracks.replace({"country": {"IRL": "FRA"}})).items():
        (work / name).mkdir()
        table.assign(audio=[f"../tunes/{a}" for a in table.audio]).to_parquet(work / name / "tracks.parquet")
    return work


CASES = {  # what is typed: what the line must say
    "train tunes --config bad.yaml --out x": "Did you mean `learning_rate`",
    "train tunes --config broken.yaml --out x": "broken.yaml is not YAML",
    "train tunes training.num_epochs=0 --out x": "training.num_epochs",
    "train tunes --model atention --out x": "atention",
    "train nowhere --out x": "nowhere",
    "train tunes -m fcnn training.random_crop=0.5 --out x": "random_crop",
    "train one_class --out x": "1 class (IRL)",
    "train unsplit --out x": "geomusic split",
    "split one_class": "two countries or more: only IRL",
    "split small": "IRL has 2",
    "split no_group": "no column `group`",
    "split tunes --sizes 0.5,0.4": "0.5,0.4",
    "evaluate tunes --checkpoint text.pth": "text.pth",
    "evaluate tunes --checkpoint foreign.pth": "foreign.pth",
    "evaluate tunes --checkpoint nowhere.pth": "nowhere.pth",
    "evaluate strange --checkpoint runs/fcnn --side all": "FRA",
    "predict empty.wav --checkpoint runs/fcnn": "empty.wav",
    "predict corrupt.mp3 --checkpoint runs/fcnn": "corrupt.mp3",
    "predict silent.flac --checkpoint runs/fcnn": "silent",
    "predict columns.csv --checkpoint runs/fcnn": "no column `key`",
    "predict columns.csv --checkpoint runs/rnn": "sequence",
    "predict nothing.mp3 --checkpoint runs/fcnn": "nothing.mp3",
    "extract tunes --views melspek": "melspec",
    "corpus tunes --countries CHN,Atlantis --out x": "Atlantis",
    "corpus tunes --countries CHN,ITA --out x": "ITA",
    "demo --countries IRL --out x": "Ireland",
}


@pytest.mark.parametrize("line", CASES)
def test_one_line_and_exit_code_two(work, line):
    done = geomusic(*line.split(), cwd=work)
    told = [x for x in done.stderr.splitlines() if x.startswith("error: ")]
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(told) == 1 and CASES[line] in told[0], done.stderr
    assert "Traceback" not in done.stderr
    assert not (work / "x").exists(), "something half-written was left"


def test_a_checkpoint_with_another_models_weights_is_refused(work):
    saved = torch.load(work / "runs" / "rnn" / "best_model.pth", weights_only=True)
    torch.save(saved | {"model": saved["model"] | {"type": "fcnn", "params": {}}}, work / "mixed.pth")
    done = geomusic("evaluate", "tunes", "--checkpoint", "mixed.pth", cwd=work)
    assert done.returncode == 2 and "mixed.pth" in done.stderr and "Traceback" not in done.stderr


def test_a_view_of_another_shape_is_refused(work):
    from geomusic.files import InputError
    from geomusic.train import load_run

    with pytest.raises(InputError, match="68 features.*trained on 13"):
        load_run(work / "runs" / "fcnn").predict_proba(np.zeros((3, 68), np.float32))


def test_a_checkpoint_that_would_run_code_is_refused(work, tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"model_state_dict": Attack()}, work / "attack.pth")
    done = geomusic("predict", "silent.flac", "--checkpoint", "attack.pth", cwd=work)
    assert done.returncode == 2 and not (tmp_path / "owned").exists()


def test_debug_shows_the_traceback(work):
    done = geomusic("train", "nowhere", "--debug", cwd=work)
    assert done.returncode == 1 and "Traceback" in done.stderr


@pytest.mark.parametrize("module, ask, what", [(maps, maps._topology, "outlines are missing"), (coordinates, coordinates._cities.__wrapped__, "places is missing")])
@pytest.mark.parametrize("spec", [None, ModuleSpec("left_behind", None, is_package=True)])  # an uninstalled package; a folder of its name without a module
def test_a_package_that_is_not_there(monkeypatch, module, ask, what, spec):
    monkeypatch.setattr(module, "find_spec", lambda name: spec)
    with pytest.raises(InputError, match=what):
        ask()
