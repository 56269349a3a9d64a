"The project as a whole: what is generated is in sync, notebooks are clean, importing is light."
import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT

NOTEBOOKS = sorted(p for p in (ROOT / "nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)


def run(*words, cwd):
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    "A copy of the sources that commands may change"
    copy = tmp_path_factory.mktemp("copy") / "geomusic"
    everywhere, made = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", "*.egg-info"), {".venv", ".git", "_proc", "_docs", "runs", "corpora", "data", "wandb"}
    shutil.copytree(ROOT, copy, ignore=lambda folder, names: everywhere(folder, names) | (made if folder == str(ROOT) else set()))
    run("git", "init", "-q", cwd=copy)
    return copy


def test_the_package_is_what_the_notebooks_export(copy):
    modules = lambda: {p.relative_to(copy).as_posix(): p.read_text() for p in (copy / "geomusic").rglob("*.py")}  # noqa: E731
    before = modules()
    run("nbdev_export", cwd=copy)
    after = modules()
    assert sorted(before) == sorted(after) and [n for n in before if before[n] != after[n]] == [], "run nbdev_export and commit"


def test_the_readme_is_made_from_the_index(copy):
    run(sys.executable, "tools/make_readme.py", "README.new", cwd=copy)
    assert (copy / "README.new").read_text() == (copy / "README.md").read_text(), "run python tools/make_readme.py and commit"


def test_notebooks_are_clean(copy):
    before = {p: p.read_text() for p in (copy / "nbs").rglob("*.ipynb")}
    run("nbdev_clean", cwd=copy)
    assert [p.name for p, text in before.items() if p.read_text() != text] == [], "run nbdev_clean and commit"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_small_and_carries_nothing_of_the_machine(path):
    text = path.read_text()
    nb = json.loads(text)
    assert len(text) < 1_000_000 and "widgets" not in nb["metadata"]
    outputs = json.dumps([c.get("outputs", []) for c in nb["cells"]])
    assert not re.search(r"/(home|root|work|tmp|Users)/|site-packages", outputs), "an output names a path of the machine"
    assert not any(o.get("output_type") == "error" for c in nb["cells"] for o in c.get("outputs", []))


def test_importing_the_package_is_light_and_seeds_nothing():
    code = ("import random, sys; state = random.getstate(); import geomusic; assert random.getstate() == state; "
            "print([m for m in ('torch', 'numpy', 'pandas', 'librosa', 'nbdev', 'fastcore') if m in sys.modules])")
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"


def test_no_module_needs_the_development_tools():
    code = ("import importlib, pkgutil, sys, geomusic; [importlib.import_module(m.name) for m in pkgutil.walk_packages(geomusic.__path__, 'geomusic.') if m.name != 'geomusic._modidx']; "
            "print([m for m in ('nbdev', 'fastcore', 'papermill', 'IPython') if m in sys.modules])")
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"


def test_the_command_line_starts_without_heavy_libraries():
    code = "import sys, geomusic.cli; print([m for m in ('torch', 'pandas', 'librosa', 'sklearn', 'matplotlib', 'numpy') if m in sys.modules])"
    assert run(sys.executable, "-c", code, cwd=ROOT).strip() == "[]"


def test_ci_runs_the_command_of_the_readme():
    lines = re.findall(r"^python3 -m venv .*$", (ROOT / "README.md").read_text(), re.M)
    assert len(lines) == 2 and lines[0].endswith("geomusic demo") and lines[1].endswith("pytest")


def test_links_between_chapters_lead_somewhere():
    broken = []
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            if cell["cell_type"] == "markdown":
                for target in re.findall(r"\]\(([^)#:]+)\)", "".join(cell["source"])):
                    if re.search(r"\.(ipynb|png|svg)$", target) and not (path.parent / target).exists():
                        broken.append(f"{path.name}: {target}")
    assert broken == []
