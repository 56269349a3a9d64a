"The papermill templates: their smoke settings, injected parameters, and a wrong one."
import json

import nbformat
import papermill as pm
import pytest

from conftest import DATA, ROOT
from geomusic.grid import check_parameters, template_parameters

TEMPLATES = {p.stem: p for p in sorted((ROOT / "nbs" / "experiments").glob("*.ipynb"))}
TEMPLATE = "nbs/experiments/train_evaluate.ipynb"


def execute(root, folder, template=TEMPLATE, **parameters):
    "Run the template; return the texts that its cells printed"
    nb = pm.execute_notebook(root / template, folder / "executed.ipynb", parameters, cwd=str(folder), progress_bar=False, kernel_name="python3")
    return "\n".join(o.get("text", "") for c in nb.cells if c.cell_type == "code" for o in c.outputs)


@pytest.mark.parametrize("path", TEMPLATES.values(), ids=TEMPLATES)
def test_a_template_is_tagged_for_papermill_exports_nothing_and_says_what_its_parameters_are(path):
    nb = nbformat.read(path, 4)
    assert [c.metadata.get("tags") for c in nb.cells if "parameters" in c.metadata.get("tags", [])] == [["parameters"]]
    assert nb.metadata.kernelspec.language == "python"
    assert not any("#| export" in c.source or "default_exp" in c.source for c in nb.cells)
    inspected, ours = pm.inspect_notebook(path), template_parameters(path)
    assert list(inspected) == list(ours) and {"seed", "out"} <= set(ours)
    assert all(p["help"] for p in inspected.values()), "every parameter has a comment"
    check_parameters(path, ours)  # each of them is read, and none is assigned again


# train_evaluate has its own tests; what is passed here makes the smoke settings smaller still, and goes through every branch
SMOKE = dict(
    compare_models=dict(models="knn,majority", per_country=15, baseline_view="melody", n_bootstrap=50),
    ablate_features=dict(per_country=15),
    data_efficiency=dict(view="melody", per_country=15, sizes="3,6"),
    transfer=dict(view="melody", per_country=15),
    robustness=dict(model="fcnn", per_country=12, num_epochs=2, codecs="mp3,ogg", noise_snr_db="10", pitch_semitones="1", excerpt_s="2"))


@pytest.mark.parametrize("name", sorted(set(TEMPLATES) - {"train_evaluate"}))
def test_a_template_runs_and_hands_over_rows(root, tmp_path, name):
    text = execute(root, tmp_path, TEMPLATES[name].relative_to(root), **SMOKE[name], seed=2, out=str(tmp_path / "run"))
    said = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "seed 2: " in text and said["used"]["seed"] == 2 and said["used"] == said["used"] | SMOKE[name]
    rows = {r.get("change") or r.get("where") or r.get("features") or r.get("tracks_per_country") or r["model"]: r for r in said["rows"]}
    assert len(rows) == len(said["rows"]) and all(0 <= r["accuracy_lo"] <= r["accuracy"] <= r["accuracy_hi"] <= 1 for r in rows.values())
    expected = dict(compare_models={"knn", "majority"}, data_efficiency={3, 6}, transfer={"within", "transfer"},
                    robustness={"as it is", "mp3, good", "mp3, small", "ogg, good", "ogg, small", "noise 10 dB below", "+1 semitones", "2 s"})
    assert set(rows) == expected[name] if name in expected else {"all", "without tempo", "only mode"} <= set(rows) and len(rows) == 27


@pytest.mark.skipif(DATA is None, reason="needs the public data sets")
def test_artists_countries_are_transferred_to_markets(root, tmp_path):
    execute(root, tmp_path, TEMPLATES["transfer"].relative_to(root), pair="markets", most=5, out=str(tmp_path / "run"))
    within, there = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"]
    assert within["n"] > 1000 and there["n"] > 50 and within["accuracy"] > within["majority_accuracy"] - 0.05


def test_train_evaluate_takes_baselines_and_shares_a_corpus(root, tmp_path):
    text = execute(root, tmp_path, model="extra_trees", view="melody", per_country=15, seed=1, shared=str(tmp_path / "corpora"), out=str(tmp_path / "run"))
    row = json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"][0]
    assert "extra_trees, seed 1: accuracy" in text and (row["model"], row["view"]) == ("extra_trees", "melody")
    assert (tmp_path / "corpora" / "CHN-DEU-IRL-15" / "tracks.parquet").exists() and not (tmp_path / "run" / "corpus").exists()


def test_parameters_reach_the_run(root, tmp_path):
    text = execute(root, tmp_path, model="attention", per_country=20, seed=3, num_epochs=2, overrides="model.params.hidden=16", out=str(tmp_path / "run"))
    assert "attention, seed 3: accuracy" in text
    metrics = json.loads((tmp_path / "run" / "attention" / "metrics.json").read_text())
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["rows"][0]["accuracy"] == metrics["accuracy"]
    assert metrics["n_classes"] == 3 and metrics["n"] >= 10
    assert "hidden: 16" in (tmp_path / "run" / "attention" / "config.yaml").read_text()


def test_a_wrong_parameter_ends_the_run_and_leaves_the_notebook(root, tmp_path):
    with pytest.raises(pm.PapermillExecutionError, match="Did you mean `num_epochs`"):
        execute(root, tmp_path, overrides="training.num_epoch=2")
    assert (tmp_path / "executed.ipynb").exists()
