"The papermill template: its smoke setting, injected parameters, and a wrong one."
import json

import nbformat
import papermill as pm
import pytest

TEMPLATE = "nbs/experiments/train_evaluate.ipynb"


def execute(root, folder, **parameters):
    "Run the template; return the texts that its cells printed"
    nb = pm.execute_notebook(root / TEMPLATE, folder / "executed.ipynb", parameters, cwd=str(folder), progress_bar=False, kernel_name="python3")
    return "\n".join(o.get("text", "") for c in nb.cells if c.cell_type == "code" for o in c.outputs)


def test_the_template_is_tagged_for_papermill(root):
    nb = nbformat.read(root / TEMPLATE, 4)
    assert [c.metadata.get("tags") for c in nb.cells if "parameters" in c.metadata.get("tags", [])] == [["parameters"]]
    assert nb.metadata.kernelspec.language == "python"


def test_every_parameter_can_be_seen_by_papermill(root):
    assert {"model", "corpus", "countries", "per_country", "config", "num_epochs", "overrides", "seed", "out"} <= set(pm.inspect_notebook(root / TEMPLATE))


def test_parameters_reach_the_run(root, tmp_path):
    text = execute(root, tmp_path, model="attention", per_country=20, seed=3, num_epochs=2, overrides="model.params.hidden=16", out=str(tmp_path / "run"))
    assert "attention, seed 3: accuracy" in text
    metrics = json.loads((tmp_path / "run" / "attention" / "metrics.json").read_text())
    assert metrics["n_classes"] == 3 and metrics["n"] >= 10
    assert "hidden: 16" in (tmp_path / "run" / "attention" / "config.yaml").read_text()


def test_a_wrong_parameter_ends_the_run_and_leaves_the_notebook(root, tmp_path):
    with pytest.raises(pm.PapermillExecutionError, match="Did you mean `num_epochs`"):
        execute(root, tmp_path, overrides="training.num_epoch=2")
    assert (tmp_path / "executed.ipynb").exists()
