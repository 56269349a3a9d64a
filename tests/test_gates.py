"What a stranger who installs this relies on: clean code, bounds that were tried, a wheel that is whole, licences that fit."
import configparser
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, metadata, requires
from importlib.metadata import version as installed
from pathlib import Path

import pytest


def settings(root):
    parser = configparser.ConfigParser(delimiters=["="], comment_prefixes=["#"], interpolation=None)
    parser.read(root / "settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


def runtime(root):
    "name -> the rest of each requirement of the package and of the demonstration"
    cfg = settings(root)
    return {re.split(r"[<>=]", r)[0]: r[len(re.split(r"[<>=]", r)[0]) :] for key in ("requirements", "demo_requirements") for r in cfg[key].split()}


def test_ruff_finds_no_defect(root):
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-4000:]


def test_ruff_would_find_one(tmp_path, root):
    (tmp_path / "bad.py").write_text("def f(x):\n    return eval(nothing)\n")
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--config", str(root / "pyproject.toml"), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 1 and "F821" in done.stdout and "S307" in done.stdout


def mypy(root, cache, *what):
    return subprocess.run([sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(cache), *map(str, what)], cwd=root, capture_output=True, text=True)


def test_types(root, tmp_path):
    if f"matplotlib=={installed('matplotlib')}\n" in (root / "constraints-oldest.txt").read_text():
        pytest.skip("the oldest libraries say less of their types; checked with newer ones")
    done = mypy(root, tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_types_would_find_one(root, tmp_path):
    (tmp_path / "bad.py").write_text("def f(x: int) -> str:\n    x.nothing\n    return x + 1\n")
    done = mypy(root, tmp_path / "cache", tmp_path / "bad.py")
    assert done.returncode == 1 and "[attr-defined]" in done.stdout and "[return-value]" in done.stdout, done.stdout + done.stderr


def test_each_lower_bound_is_the_version_that_was_tried(root):
    lines = [line for line in (root / "constraints-oldest.txt").read_text().splitlines() if not line.startswith("#")]
    oldest = dict(line.split("==") for line in lines)
    needs = runtime(root)
    assert set(needs) - set(oldest) == {"torch"} and set(oldest) <= set(needs)
    for name, version in oldest.items():
        bound = re.match(r">=([\d.]+)", needs[name])
        assert bound, f"{name} has no lower bound"
        assert version == bound[1] or version.startswith(bound[1] + "."), f"{name}: {needs[name]} in settings.ini, {version} in constraints-oldest.txt"


@pytest.fixture(scope="module")
def wheel(root, tmp_path_factory):
    "The wheel, built from what git would hand out"
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=root, capture_output=True, check=False).stdout.decode().split("\0")
    names = [n for n in listed if n.startswith("geomusic/") or n in ("setup.py", "settings.ini", "pyproject.toml", "README.md", "LICENSE")]
    if not names:
        pytest.skip("not a git checkout")
    for name in names:
        if (root / name).is_file():
            (folder / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "src" / name).write_bytes((root / name).read_bytes())
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder), str(folder / "src")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel, root):
    names = zipfile.ZipFile(wheel).namelist()
    modules = {str(p.relative_to(root)) for p in (root / "geomusic").rglob("*.py")}
    assert modules <= set(names), sorted(modules - set(names))
    assert all(n.startswith("geomusic/") or ".dist-info/" in n for n in names), [n for n in names if not n.startswith("geomusic")]
    assert any(n.endswith("entry_points.txt") for n in names) and wheel.stat().st_size < 2e6


def test_the_wheel_works_outside_the_checkout(wheel, tmp_path):
    "Unpacked in a folder of its own, found before the checkout: a corpus, a split and a help text"
    home = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(home)
    env = os.environ | dict(PYTHONPATH=str(home), OMP_NUM_THREADS="1")
    where = subprocess.run([sys.executable, "-c", "import geomusic; print(geomusic.__file__)"], cwd=tmp_path, env=env, capture_output=True, text=True).stdout.strip()
    assert Path(where).is_relative_to(home)
    for words in (["corpus", "tunes", "--per-country", "12", "--out", "tunes"], ["split", "tunes", "--min-groups", "3"]):
        done = subprocess.run([sys.executable, "-m", "geomusic.cli", *words], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "tunes" / "tracks.parquet").exists()


FREE = ("mit", "bsd", "apache", "python software foundation", "psf", "isc", "mpl", "mozilla", "zlib", "unlicense", "lgpl", "lesser general", "hpnd", "cc0", "public domain", "0bsd")


def licence(name):
    "What a package says of its licence, in small letters"
    m = metadata(name)
    return " ".join([m.get("License-Expression") or "", (m.get("License") or "")[:200], *[c for c in m.get_all("Classifier") or () if c.startswith("License")]]).lower()


def shipped(names):
    "These packages and what they need, by name"
    seen, todo = set(), list(names)
    while todo:
        name = re.split(r"[ ;<>=!~\[(]", todo.pop())[0].lower().replace("_", "-")
        if name in seen:
            continue
        try:
            needs = requires(name) or []
        except PackageNotFoundError:
            continue  # for another system or version of Python
        seen.add(name)
        todo += [n for n in needs if "extra ==" not in n]
    return seen


def test_licences_of_what_is_installed_with_it(root):
    names = shipped(runtime(root))
    assert len(names) > 40
    unclear = {n: licence(n)[:80] for n in names if not any(f in licence(n) for f in FREE)}
    assert not unclear
    strict = {n for n in names if re.search(r"(?<!l)(?<!lesser )\bgpl|affero|agpl|gnu general", licence(n)) and not re.search(r"lgpl|lesser|mit|bsd", licence(n))}
    assert not strict
