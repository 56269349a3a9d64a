"The book as something to follow: every command it prints is one, every exercise has its answer, and what a reader adds reaches the workers."
import json
import re
import shlex
import sys

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import typer
from conftest import ROOT

from geomusic.cli import app
from geomusic.config import load_config
from geomusic.files import InputError

PAGES = [ROOT / "README.md", *sorted((ROOT / "nbs" / "howto").glob("*.ipynb"))]


def prose(path):
    "The Markdown of a page, and the strings of its code: whatever a reader may copy"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md": return text
    return "\n".join("".join(c["source"]) for c in json.loads(text)["cells"])


def commands(path):
    "Every line that begins with geomusic, in a block or between backticks"
    found = re.findall(r"(?m)(?:^|`|bin/|THREADS=1 )geomusic ([^`\n]+)", prose(path))
    return [shlex.split(line.split(" #")[0]) for line in found]


def parse(words):
    "As the command line would understand it; an unknown command or option, or an argument that is missing, raises"
    at, words, names = typer.main.get_command(app), [w for w in words if w != "--debug"], []
    while hasattr(at, "commands"):
        assert words and words[0] in at.commands, f"no command {' '.join([*names, *words[:1]])}"
        names.append(words[0])
        at, words = at.commands[words[0]], words[1:]
    if not words: return  # a command that is only named
    at.make_context(" ".join(names), list(words))
    if names == ["train"]:
        model = [f"model.type={words[words.index('--model') + 1]}"] if "--model" in words else []
        load_config(overrides=[*model, *(w for w in words if "=" in w and not w.startswith("-"))])


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_command_of_a_page_is_understood(page):
    found = commands(page)
    assert len(found) > (20 if page.suffix == ".md" else -1)
    for words in found: parse(words)


@pytest.mark.parametrize("line", ["trian corpora/tunes", "train corpora/tunes --modle cnn", "predict --top 3", "corpus tune", "train corpora/tunes training.learning_rte=1"])
def test_a_command_that_is_none_is_noticed(line):
    with pytest.raises((Exception, SystemExit)): parse(line.split())


def test_the_readme_shows_the_results_that_are_in_the_files():
    sys.path.insert(0, str(ROOT / "tools"))
    try: from readme_results import findings, results, table
    finally: sys.path.pop(0)
    readme, found = (ROOT / "README.md").read_text(encoding="utf-8"), results()
    for line in [*table(found).splitlines()[2:], *findings(found).splitlines()]:
        assert line.replace("](results/", "](nbs/results/") in readme, "run tools/readme_results.py, nbs/index.ipynb and tools/make_readme.py"


def test_exercises_have_answers_that_can_be_opened():
    chapters = 0
    for path in (ROOT / "nbs").rglob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] != "markdown" or not re.search(r"(?m)^## Exercise", text): continue
            chapters += 1
            asked = len(re.findall(r"(?m)^\*\*\d\.", text))
            assert asked and asked == text.count("<details>") == text.count("</details>") == text.count("<summary>"), path.name
            assert not re.search(r"</summary>\n(?!\n)|[^\n]\n</details>", text), f"{path.name}: Markdown in details needs an empty line around it"
    assert chapters >= 12


def test_a_view_of_ones_own_is_made_in_other_processes_too(tmp_path):
    from geomusic.corpus import Corpus, save_corpus
    from geomusic.sound.engine import extract
    from geomusic.views import ADDED, register_view
    n, tones = 12, np.random.default_rng(0)
    for i in range(n): sf.write(tmp_path / f"{i}.flac", tones.uniform(-.1, .1, 22050), 22050)
    corpus = save_corpus(Corpus(pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], country="IRL", lat_deg=53., lon_deg=-6., group=[f"g{i}" for i in range(n)],
                                                  title="", artist="", audio=[f"{i}.flac" for i in range(n)]))), tmp_path)

    def loudest(y, a): return [abs(y).max(), len(y)]

    try:
        register_view("loudest", loudest, (2,))
        x = extract(corpus, ["loudest"], n_jobs=2, progress=False)["loudest"].x
        assert x.shape == (n, 2) and (x[:, 1] == 22050).all() and np.allclose(x[:, 0], .1, atol=.001)
        with pytest.raises(InputError, match="made a row of shape"):
            register_view("loudest", lambda y, a: [1.], (2,))
            extract(corpus, ["loudest"], n_jobs=1, progress=False)
    finally: ADDED.pop("loudest", None)
