"""One try for each attack on each reader and writer. Every attack is first seen to work on a naive program, so that each test can fail.

The label encoder of a split folder has its own file of attacks (test_split_folder), ffmpeg's playlists are in test_decode.
"""
import ast
import csv
import html.parser
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile as sf
import torch
import yaml
from lab import chromium  # noqa: F401 - a fixture

from geomusic.config import load_config
from geomusic.corpus import Corpus, load_corpus, save_corpus
from geomusic.evaluate import predictions_table, read_predictions
from geomusic.files import InputError, write_csv
from geomusic.places import countries


class Bomb:
    "Makes a folder when it is unpickled"
    def __init__(self, path): self.path = str(path)
    def __reduce__(self): return (os.mkdir, (self.path,))


@pytest.fixture
def owned(tmp_path):
    "A folder that only an attack makes; gone again after each try on a naive program"
    return tmp_path / "owned"


def seen(owned):
    "Was it made? And away with it"
    was = owned.exists()
    if was: owned.rmdir()
    return was


# ---- a small world


def tracks(n=60, **columns):
    codes = np.array(["CHN", "DEU", "IRL"])[np.arange(n) % 3]
    t = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], country=codes, group=[f"g{i // 2}" for i in range(n)], title="a tune", artist="somebody", audio=""))
    return t.join(countries()[["lat_deg", "lon_deg"]], on="country").assign(**columns)


def predictions(n=60, labels=("CHN", "DEU", "IRL"), seed=0):
    t = tracks(n)
    names = dict(zip(("CHN", "DEU", "IRL"), labels))
    return predictions_table(t.assign(country=t.country.map(names)), np.random.default_rng(seed).dirichlet(np.ones(3), n), list(labels))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "A run folder and the corpus it learned from, with a view"
    from geomusic.train import fit
    from geomusic.views import View, store_view

    folder, rng = tmp_path_factory.mktemp("attacks"), np.random.default_rng(0)
    x, t = rng.normal(size=(60, 4)).astype(np.float32), tracks(split=np.repeat(["train", "val", "test"], [36, 12, 12]))
    save_corpus(Corpus(t), folder / "corpus")
    store_view(folder / "corpus", View("tabular", x, np.ones(60, int), dict(features=list("abcd"))))
    fit(x, t.country, t.split, load_config(overrides=["training.num_epochs=2", "model.params.widths=[4]"]), out=folder / "run", progress=False, groups=t.group)
    return folder


# ---- objects that run when they are read


def _checkpoint(trained, folder, bomb):
    saved = torch.load(trained / "run" / "best_model.pth", weights_only=True)
    torch.save(saved | dict(view=dict(name=bomb)), folder / "best_model.pth")
    return lambda: torch.load(folder / "best_model.pth", weights_only=False), lambda: _load(folder / "best_model.pth")


def _bare(trained, folder, bomb):
    (folder / "best_model.pth").write_bytes(pickle.dumps(bomb))
    return lambda: pickle.loads((folder / "best_model.pth").read_bytes()), lambda: _load(folder / "best_model.pth")


def _load(path):
    from geomusic.runs import load_run

    return load_run(path)


def _optimizer(trained, folder, bomb):
    from geomusic.learning.resume import Keeper, Progress

    torch.save(dict(format=1, about={}, progress={}, random={}, parts=dict(optimizer=bomb)), folder / "last.pth")
    return lambda: torch.load(folder / "last.pth", weights_only=False), lambda: Keeper(folder / "last.pth", {}).restore(Progress(), {}, None)


def _objects(name):
    def make(trained, folder, bomb):
        from geomusic.corpora.split_folder import read_split_folder

        rng = np.random.default_rng(0)
        for side, n in (("train", 12), ("val", 6), ("test", 6)):
            np.save(folder / f"{side}_features.npy", rng.normal(size=(n, 5, 3)).astype(np.float32))
            np.save(folder / f"{side}_labels.npy", np.array(["Kenya", "Peru"])[np.arange(n) % 2])
        np.save(folder / name, np.array([bomb] * 2, object))
        return lambda: np.load(folder / name, allow_pickle=True), lambda: read_split_folder(folder, "sequence", progress=False)
    return make


def _view(trained, folder, bomb):
    from geomusic.views import load_view

    shutil.copytree(trained / "corpus", folder / "corpus")
    np.save(folder / "corpus" / "views" / "tabular.npy", np.array([[bomb] * 4] * 60, object))
    return lambda: np.load(folder / "corpus" / "views" / "tabular.npy", allow_pickle=True), lambda: load_view(folder / "corpus", "tabular")


def _plane(trained, folder, bomb):
    "A cache that cannot be read is made again"
    from geomusic.exploring import embeddings as E

    np.savez(folder / "x.npz", xy=np.array([bomb] * 20, object))

    def ours(): assert E._kept(folder / "x.npz", (20,)) is None
    return lambda: np.load(folder / "x.npz", allow_pickle=True)["xy"], ours


def _answers(trained, folder, bomb):
    "Kept answers of a leaderboard, asked again"
    from types import SimpleNamespace

    from geomusic.judging import boards as B

    t, rng = tracks(60), np.random.default_rng(0)
    board = SimpleNamespace(tracks=t, x=rng.normal(size=(60, 3)).astype(np.float32), grouped=True, k=3, inner=2, choosing=(), groups=lambda: t.group.to_numpy())
    B.ask_rival(board, "majority", 0, folder)
    kept, = folder.glob("*.npz")
    np.savez(kept, fold=np.array([bomb] * 60, object), proba=np.zeros((60, 3)), labels=np.array(["a"]))
    return lambda: np.load(kept, allow_pickle=True)["fold"], lambda: B.ask_rival(board, "majority", 0, folder)


def _parquet(trained, folder, bomb):
    "An Arrow extension type whose description is a pickle (CVE-2023-47248)"
    kind = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickle.dumps(bomb)}
    table = pa.Table.from_pandas(predictions(), preserve_index=False)
    i = table.schema.get_field_index("predicted")
    pq.write_table(table.cast(table.schema.set(i, table.schema.field(i).with_metadata(kind))), folder / "predictions.parquet")

    def naive():
        meta = pq.read_schema(folder / "predictions.parquet")  # whoever believes what the file says of itself
        stored = pa.ipc.read_schema(pa.py_buffer(__import__("base64").b64decode(pq.read_metadata(folder / "predictions.parquet").metadata[b"ARROW:schema"])))
        for m in (meta, stored):
            for field in m:
                if field.metadata and b"ARROW:extension:metadata" in field.metadata: return pickle.loads(field.metadata[b"ARROW:extension:metadata"])
    return naive, lambda: read_predictions(folder / "predictions.parquet")


HIDDEN = {"checkpoint": (_checkpoint, True), "bare pickle": (_bare, True), "state of training": (_optimizer, True), "class_weights.npy": (_objects("class_weights.npy"), True),
          "val_frames.npy": (_objects("val_frames.npy"), True), "train_features.npy": (_objects("train_features.npy"), True), "train_labels.npy": (_objects("train_labels.npy"), True),
          "view": (_view, True), "cache of planes": (_plane, False), "answers of a board": (_answers, False), "predictions": (_parquet, False)}


@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_in_a_file_runs(name, trained, tmp_path, owned):
    make, refused = HIDDEN[name]
    (tmp_path / "d").mkdir()
    naive, ours = make(trained, tmp_path / "d", Bomb(owned))
    naive()
    assert seen(owned), "the attack is real"
    if refused:
        with pytest.raises(InputError): ours()
    else: ours()
    assert not seen(owned)


# ---- settings


YAML = "model: !!python/object/apply:os.mkdir ['{}']\n"


@pytest.mark.parametrize("reader", ["config", "override", "grid", "search"])
def test_no_tag_of_yaml_makes_an_object(reader, tmp_path, owned):
    text = YAML.format(owned)
    yaml.unsafe_load(text)
    assert seen(owned)
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(InputError, match="YAML"):
        if reader == "config": load_config(tmp_path / "x.yaml")
        elif reader == "override": load_config(overrides=[text.strip().replace(": ", "=", 1)])
        elif reader == "grid":
            from geomusic.grid import read_grid

            read_grid(tmp_path / "x.yaml")
        else:
            from geomusic.learning.search import load_search

            load_search(tmp_path / "x.yaml")
    assert not seen(owned)


BOMBS = {"aliases of aliases": "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)) + "training: *a11\n",
         "a circle": "training: &a {x: *a}\n", "brackets": "training: " + "[" * 20_000, "a day that is none": "training: 2026-02-99\n", "a long number": "training: " + "9" * 5000 + "\n",
         "a list as a key": "? [a, b]\n: 1\n", "zero bytes": "training: \0\n"}


@pytest.mark.parametrize("name", BOMBS)
def test_settings_that_fill_the_memory_are_refused(name, tmp_path):
    (tmp_path / "x.yaml").write_text(BOMBS[name])
    with pytest.raises(InputError) as e: load_config(tmp_path / "x.yaml")
    assert len(str(e.value)) < 1000
    if name in ("aliases of aliases", "a circle"):
        loaded = yaml.safe_load(BOMBS[name])
        assert loaded, "the reader of YAML itself has nothing against it"
        with pytest.raises(InputError): load_config(loaded)


def test_a_small_checkpoint_of_a_large_model_is_refused(trained, tmp_path):
    saved = torch.load(trained / "run" / "best_model.pth", weights_only=True)
    for change in (dict(n_features=10**9), dict(num_classes=2**40), dict(params=dict(widths=[10**6, 10**6])), dict(type="rnn", params=dict(num_layers=10**9))):
        torch.save(saved | dict(model=saved["model"] | change), tmp_path / "best_model.pth")
        with pytest.raises(InputError, match="do not fit"): _load(tmp_path / "best_model.pth")
    one = torch.zeros(1).expand(10**10)  # a tensor of 40 GB in four bytes
    torch.save(saved | dict(model=saved["model"] | dict(n_features=10**9), model_state_dict={"w": one}), tmp_path / "best_model.pth")
    with pytest.raises(InputError, match="damaged"): _load(tmp_path / "best_model.pth")
    torch.save(saved | dict(scaler=saved["scaler"] | dict(mean=one)), tmp_path / "best_model.pth")
    with pytest.raises(InputError, match="damaged"): _load(tmp_path / "best_model.pth")


@pytest.mark.parametrize("name", ["best_model.pth", "last.pth"])
def test_one_bit_of_a_checkpoint_is_noticed(name, trained, tmp_path):
    from geomusic.learning.resume import Keeper, Progress

    data, noticed = (trained / "run" / name).read_bytes(), 0
    same = lambda a, b: a.keys() == b.keys() and all(same(a[k], b[k]) if isinstance(a[k], dict) else torch.equal(a[k], b[k]) if torch.is_tensor(a[k]) else str(a[k]) == str(b[k]) for k in a)  # noqa: E731
    for at in np.linspace(0, len(data) - 1, 60).astype(int):
        (tmp_path / name).write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1:])
        try:
            if name == "best_model.pth": _load(tmp_path / name)
            else: Keeper(tmp_path / name, {}).restore(Progress(), {}, None)
        except InputError: noticed += 1
        else: assert same(torch.load(tmp_path / name, weights_only=True), torch.load(trained / "run" / name, weights_only=True)), "a bit of the padding, or a lie"
    assert noticed >= 40
    (tmp_path / name).write_bytes(data)
    assert torch.load(tmp_path / name, weights_only=True) and (name == "last.pth" or _load(tmp_path / name))


def test_packed_records_are_refused(trained, tmp_path):
    "A zip that unpacks to a thousand times its size"
    import zipfile

    from geomusic.files import check_zip
    with zipfile.ZipFile(trained / "run" / "best_model.pth") as a, zipfile.ZipFile(tmp_path / "best_model.pth", "w", zipfile.ZIP_DEFLATED) as b:
        for name in a.namelist(): b.writestr(name, a.read(name))
    check_zip(trained / "run" / "best_model.pth")
    for f in (check_zip, _load):
        with pytest.raises(InputError): f(tmp_path / "best_model.pth")


# ---- the package itself


def dangerous(source):
    "What in this code could run what it reads"
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call): continue
        name, words = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
        last = name.split(".")[-1]
        bad = (name in ("eval", "exec", "compile", "__import__", "os.system", "os.popen", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "marshal.loads")
               or last in ("read_pickle", "unsafe_load", "full_load", "load_all", "unpack_archive", "extractall", "extract_all") or name == "yaml.load"
               or name == "torch.load" and words.get("weights_only") != "True" or last == "load" and words.get("allow_pickle") == "True"
               or words.get("shell") == "True" or last in ("query", "eval") and "pd." in name or words.get("autoescape") == "False")
        if bad: found.append(f"line {node.lineno}: {ast.unparse(node)[:80]}")
    return found


def test_no_code_of_ours_runs_what_it_reads(root):
    for line in ("eval(x)", "pickle.load(f)", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p, allow_pickle=True)", "yaml.load(t)", "pd.read_pickle(p)",
                 "subprocess.run(c, shell=True)", "zipfile.ZipFile(p).extractall(d)", "shutil.unpack_archive(p)", "Environment(autoescape=False)"):
        assert dangerous(line), line
    files = [p for p in (root / "geomusic").rglob("*.py") if p.name != "_modidx.py"]
    assert len(files) > 60 and {str(p): d for p in files if (d := dangerous(p.read_text()))} == {}


def test_every_csv_goes_through_one_writer(root):
    where = {p.name: n for p in (root / "geomusic").rglob("*.py") if (n := p.read_text().count(".to_csv("))}
    assert where == {"files.py": 2}


# ---- notebooks and their parameters


def notebook(path, *cells):
    code = [dict(cell_type="code", id=f"c{i}", metadata=dict(tags=["parameters"] if i == 0 else []), source=c, outputs=[], execution_count=None) for i, c in enumerate(cells)]
    path.write_text(json.dumps(dict(cells=code, metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")), nbformat=4, nbformat_minor=5)))


CANARY = "canary-5e1f0b7c"
SECRETS = ("SPOTIFY_CLIENT_ID", "SPOTIFY_CLIENT_SECRET", "WANDB_API_KEY", "RECCOBEATS_API_KEY", "GEOMUSIC_SERVICE_TOKEN", "OPENAI_API_KEY")


def leaks(folder, *texts):
    "Where the canary is"
    return [str(p) for p in folder.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()] + [t[:200] for t in texts if CANARY in t]


def test_parameters_are_words_and_a_template_runs_only_when_it_is_asked_to(tmp_path, owned, monkeypatch):
    "What a grid passes arrives as it is, whatever it looks like; reading and checking runs nothing; and no secret is written down"
    from geomusic.grid import check_parameters, execute_run, read_grid

    for name in SECRETS: monkeypatch.setenv(name, CANARY)
    code = f"x'; import os; os.mkdir('{owned}') #"
    words = dict(a=code, b=f'"); __import__("os").mkdir("{owned}") #', c=f"\\'); __import__('os').mkdir('{owned}'); print('\\", d=f"'''\n!mkdir {owned}\n%%bash\nmkdir {owned}\n'''", e="{owned} ${owned} $(mkdir x) `mkdir x`")
    exec(f"a = '{code}'")
    assert seen(owned), "whoever pastes it into code runs it"
    notebook(tmp_path / "t.ipynb", "a = ''\nb = ''\nc = ''\nd = ''\ne = ''\nmany = []\nout = ''", "from geomusic.grid import write_metrics\nwrite_metrics(out, [dict(accuracy=len(a + b + c + d + e + str(many)))], globals())\nmany")
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(dict(template="t.ipynb", base=words | dict(many=[code, [code]]))))
    run, = read_grid(tmp_path / "g.yaml")
    record = execute_run(run | dict(folder=str(tmp_path / "run"), cwd=str(tmp_path), wait=False))
    assert record["status"] == "finished" and not seen(owned), record["error"]
    used = json.loads((tmp_path / "run" / "work" / "metrics.json").read_text())["used"]
    assert {k: used[k] for k in words} == words
    assert leaks(tmp_path) == []
    for name in (code, "__import__('os')", "a; b"):
        with pytest.raises(InputError, match="unknown parameter"): check_parameters(tmp_path / "t.ipynb", {name: "x"})


@pytest.mark.parametrize("cell", ["!mkdir {}\na = 1", "%%bash\nmkdir {}", "%run x\na = 1", "a = __import__('os').mkdir('{}')", "a = [1 for _ in [__import__('os').mkdir('{}')]]"])
def test_a_hostile_template_is_looked_at_and_not_run(cell, tmp_path, owned):
    from geomusic.grid import read_grid, template_parameters

    notebook(tmp_path / "t.ipynb", cell.format(owned) + "\nout = ''", f"!mkdir {owned}")
    (tmp_path / "g.yaml").write_text("template: t.ipynb\n")
    for look in (lambda: template_parameters(tmp_path / "t.ipynb"), lambda: read_grid(tmp_path / "g.yaml")):
        try: look()
        except InputError: pass
    assert not seen(owned)


@pytest.mark.parametrize("text", ["[]", "3", "null", '{"cells": 3}', '{"cells": [3]}', '{"cells": [{}]}', '{"cells": [{"cell_type": "code", "source": 3}]}', "[" * 100_000, "\0",
                                  '{"cells": [{"cell_type": "code", "source": "x = (", "metadata": {"tags": ["parameters"]}}]}', '{"cells": [{"cell_type": "code", "source": "x", "metadata": 3}]}'])
def test_what_is_no_template_is_said_to_be_none(text, tmp_path):
    from geomusic.grid import template_parameters

    (tmp_path / "t.ipynb").write_text(text)
    with pytest.raises(InputError): template_parameters(tmp_path / "t.ipynb")


def test_the_name_of_a_run_stays_in_its_folder(tmp_path):
    from geomusic.grid import read_grid

    evil = ["../../x", "/etc/x", "..", "a/../../b", "C:\\x", "~"]
    notebook(tmp_path / "t.ipynb", "a = ''\nout = ''", "print(a, out)")
    (tmp_path / "g.yaml").write_text(yaml.safe_dump(dict(template="t.ipynb", overrides=dict(a=evil))))
    assert any((tmp_path / "runs" / e).resolve().parent != tmp_path / "runs" for e in evil)
    for run in read_grid(tmp_path / "g.yaml"): assert (tmp_path / "runs" / run["id"]).resolve().parent == tmp_path / "runs", run["id"]


# ---- paths


def test_no_path_of_a_manifest_leaves_the_folder_unless_allowed(tmp_path):
    from geomusic.corpora.audio_folder import audio_folder_corpus

    root, y = tmp_path / "sound", 0.1 * np.sin(np.arange(8000) / 9)
    root.mkdir()
    for path in (tmp_path / "secret.wav", root / "own.wav"): sf.write(path, y, 8000)
    (root / "link.wav").symlink_to(tmp_path / "secret.wav")
    (root / "folder").symlink_to(tmp_path, target_is_directory=True)
    out = ["../secret.wav", str(tmp_path / "secret.wav"), "link.wav", "folder/secret.wav", "..\\secret.wav", "./.././secret.wav"]
    assert all((root / p.replace("\\", "/")).exists() for p in out), "whoever joins the two finds the file"
    rows = [(p, "Kenya") for p in (*out, "own.wav")]
    with open(tmp_path / "m.csv", "w", newline="") as f: csv.writer(f).writerows([("path", "country"), *rows])
    corpus = audio_folder_corpus(root, tmp_path / "m.csv", progress=False)
    assert corpus.tracks.track_id.tolist() == ["own.wav"] and corpus.report["refused"] == {"path leads out of the folder": len(out)}
    assert audio_folder_corpus(root, tmp_path / "m.csv", outside=True, progress=False).report["refused"] == {"file listed twice": len(out) - 1}


@pytest.mark.parametrize("away", ["../../elsewhere/mine", "part/../../../elsewhere/mine", "{}", "part/tabular-x/../../../../elsewhere/mine"])
def test_a_view_moves_no_files_of_others(away, trained, tmp_path):
    "Its JSON names the files that are to be renamed: nowhere but in its folder"
    from geomusic.store import settle_view
    from geomusic.views import load_view

    shutil.copytree(trained / "corpus", tmp_path / "corpus")
    mine = tmp_path / "elsewhere" / "mine"
    mine.parent.mkdir()
    for suffix in (".npy", ".parquet"): mine.with_name("mine" + suffix).write_bytes(b"precious")
    home = tmp_path / "corpus" / "views"
    deed = home / "tabular.json"
    away = away.format(mine)
    if "tabular-x" not in away: assert (home / f"{away}.npy").exists() or "part" in away, "whoever believes the JSON finds them"
    deed.write_text(json.dumps(json.loads(deed.read_text()) | dict(files=away)))
    for look in (lambda: load_view(tmp_path / "corpus", "tabular"), lambda: settle_view(home, "tabular")):
        with pytest.raises(InputError, match="where none can be"): look()
    assert mine.with_suffix(".npy").exists() and mine.with_suffix(".parquet").exists()


def test_rendered_sound_stays_in_its_folder(tmp_path):
    from geomusic.synth import write_audio

    t = tracks(3).assign(track_id=["a", "../../out", "c"], midi=[np.array([60, 62])] * 3, dur_ql=[np.ones(2)] * 3)
    assert (tmp_path / "corpus" / "audio" / "../../out.flac").resolve().parent == tmp_path
    with pytest.raises(InputError, match=r"\.\."): write_audio(Corpus(t), tmp_path / "corpus", total_s=0.2, progress=False)
    assert not list(tmp_path.rglob("*.flac"))


# ---- pages


EVIL = ['<script>alert("1")</script>', '"><img src=x onerror=alert(1)>', "'><svg onload=alert(1)>", "</script><script>alert(1)</script>", "<a href='javascript:alert(1)'>x</a>", "</title></style><script>alert(1)</script>"]


class _Dangers(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.script = [], None
    def handle_starttag(self, tag, attrs):
        for k, v in attrs:
            if k.startswith("on") or "javascript:" in (v or ""): self.found.append(f"<{tag} {k}={v}>")
        if tag == "img" and dict(attrs).get("src") == "x": self.found.append("<img src=x>")
        self.script = "" if tag == "script" else None
    def handle_data(self, data):
        if self.script is not None and data.lstrip().startswith("alert("): self.found.append(f"<script>{data[:40]}")


def dangers(page):
    "What of a page would run"
    parser = _Dangers()
    parser.feed(page)
    return parser.found


def hostile_report(path, report=None):
    from geomusic.report import write_report

    t = tracks(60).assign(title=EVIL[0], artist=EVIL[1], source=EVIL[2], licence="public domain " + EVIL[3], group=EVIL[4])
    corpus = Corpus(t, dict(read=61, kept=60, refused={EVIL[5]: 1}, made_of=EVIL[0], note={EVIL[1]: EVIL[2]}))
    board = pd.DataFrame(dict(accuracy=[0.8, 0.3], accuracy_lo=0.2, accuracy_hi=0.9, macro_f1=0.5, km_mean=1.0, km_median=1.0, top3=1.0, n_parameters=5, kind=["ours", EVIL[1]]), index=[EVIL[0], EVIL[3]])
    attention = dict(track=t.iloc[0], y=np.zeros(8000), sr=8000, weights=np.ones(20) / 20, hop_s=0.05, melspec=np.zeros((128, 20)), proba=dict(CHN=0.7, DEU=0.3))
    return write_report(path, EVIL[5], corpus, board, {EVIL[0]: predictions()}, attention, notes=EVIL)


def pages(folder):
    "(what, HTML) of everything that shows words of others"
    from test_embeddings import opened, table

    from geomusic.audit import audit
    from geomusic.exploring import embeddings as E
    from geomusic.exploring import world as W
    from geomusic.exploring.attention import HeardPage
    from geomusic.exploring.importance import explore_importance
    from geomusic.exploring.whatif import explore_whatif
    from geomusic.judging.dossier import write_dossier
    from geomusic.judging.pictures import leaderboard_table

    yield "report", hostile_report(folder / "report.html").read_text()
    names = [{"name": e, "accuracy": 0.5, "accuracy_ci": (0.4, 0.6)} for e in EVIL]
    yield "leaderboard", leaderboard_table(names, "html", title=EVIL[0])
    write_dossier(predictions(labels=EVIL[:3]), folder / "dossier", EVIL[3], forms=("html",), n_bootstrap=20)
    for p in (folder / "dossier").glob("*.html"): yield f"dossier {p.name}", p.read_text()
    evil = Corpus(tracks(60).assign(title=EVIL[0], artist=EVIL[1]), dict(read=60, kept=60, refused={}, repaired={EVIL[0]: 2}))
    yield "corpus", evil._repr_html_()
    labelled = Corpus(tracks(60).assign(kind=np.array(EVIL)[np.arange(60) % 6]), dict(label="kind", notes=[EVIL[1]]))
    yield "audit", audit(labelled)._repr_html_()
    t = table(60)
    t = t.assign(title=np.array(EVIL)[np.arange(60) % 6], artist=EVIL[1], group=EVIL[2])
    yield "country", W.country_page(t, "IRL")._repr_html_()
    yield "map of answers", W.guess_map(t).to_html(include_plotlyjs=False)
    for color in ("country", "group"): yield f"plane by {color}", E.plane_plot(E.plane(np.random.default_rng(0).normal(size=(60, 4)), "pca"), t, color).to_html(include_plotlyjs=False)
    said = SimpleBad(EVIL[1])
    yield "importance", explore_importance(said).value
    yield "what if", explore_whatif(said).value
    _ = HeardPage, opened


class SimpleBad:
    "A run that cannot be explored, with a name that wants to be run"
    def __init__(self, name): self.name = name
    def __getattr__(self, key): raise InputError(f"{self.__dict__['name']} has no {key}", self.__dict__["name"])


def test_no_page_runs_a_name(tmp_path):
    for e in EVIL: assert dangers(f"<!doctype html><title>{e}</title><p>{e}</p><p title='{e}'>" + f'<i title="{e}">'), e
    found = {what: d for what, page in pages(tmp_path) if (d := dangers(page))}
    assert found == {}


def ran(browser, path, wait):
    "Dialogs that a page opened, and scripts and handlers in it that are not ours"
    context = browser.new_context(offline=True)
    page, told = context.new_page(), []
    page.on("dialog", lambda d: (told.append(f"dialog: {d.message}"), d.dismiss()))
    page.goto(path.as_uri(), wait_until="load")
    if wait: page.wait_for_selector(wait, state="attached")
    page.wait_for_timeout(300)
    told += page.evaluate("[...document.querySelectorAll('*')].filter(e => e.tagName == 'SCRIPT' && e.textContent.trim().startsWith('alert(') || [...e.attributes].some(a => /^on/.test(a.name) || /^javascript:/.test(a.value))).map(e => e.outerHTML.slice(0, 80))")
    context.close()
    return told


def test_in_a_browser_nothing_of_it_runs(chromium, tmp_path):
    (tmp_path / "naive.html").write_text(f"<!doctype html><title>x</title><h1>{EVIL[0]}</h1><p>{EVIL[1]}</p>")
    assert {"dialog: 1"} <= set(ran(chromium, tmp_path / "naive.html", "")), "the attack is real"
    assert ran(chromium, hostile_report(tmp_path / "report.html"), ".choroplethlayer path") == []


def test_in_a_browser_no_hover_text_runs(chromium, tmp_path):
    from test_embeddings import table

    from geomusic.exploring import embeddings as E

    t = table(6).assign(title=EVIL, artist=EVIL[1])
    E.plane_plot(E.plane(np.random.default_rng(0).normal(size=(6, 4)), "pca"), t, "country").write_html(tmp_path / "plane.html", include_plotlyjs=True)
    assert ran(chromium, tmp_path / "plane.html", ".js-plotly-plot .main-svg") == []


# ---- tables for a spreadsheet


FORMULAS = ["=1+1", "+1", "-1+cmd|' /C calc'!A0", "@SUM(A1)", "\t=1", "\r=1", "'=1", '=HYPERLINK("http://x","y")', "\n=1"]


def formulas(text):
    "Cells of a CSV file that a spreadsheet would run: words that begin like a formula; a number is none"
    def number(c):
        try: return float(c) == float(c) or True
        except ValueError: return False
    return [c for row in csv.reader(text.splitlines(keepends=True)) for c in row if c[:1] in tuple("=+-@\t\r\n") and c and not number(c)]


def exports(folder, trained):
    from geomusic.cli import compare
    from geomusic.judging.dossier import write_dossier
    from geomusic.judging.pictures import leaderboard_table
    from geomusic.predict import save_predictions
    from geomusic.sound.engine import _write_account

    (folder / "board.csv").write_text(leaderboard_table([{"name": f, "accuracy": 0.5} for f in FORMULAS], "csv"), newline="")
    save_predictions(pd.DataFrame(np.full((len(FORMULAS), 2), 0.5), pd.Index(FORMULAS, name="track_id"), ["=CHN", "@DEU"]), folder / "predicted.csv")
    write_dossier(predictions(labels=("=1+1", "@DEU", "-x")), folder / "dossier", forms=(), n_bootstrap=20)
    for i, name in enumerate(("=1+1", "@b")):
        (folder / name).mkdir()
        predictions(seed=i).to_parquet(folder / name / "predictions.parquet")
    compare([folder / "=1+1", folder / "@b"], "accuracy", folder / "compared", 50, 0)
    shutil.copytree(trained / "corpus", folder / "corpus")
    home = folder / "corpus" / "views"
    table = pd.read_parquet(home / "tabular.parquet")
    ids = [FORMULAS[i] if i < len(FORMULAS) else t for i, t in enumerate(table.track_id)]
    table.assign(track_id=ids, n_frames=0, reason="=x", message="@y").to_parquet(home / "tabular.parquet")
    corpus = load_corpus(folder / "corpus")
    _write_account(Corpus(corpus.tracks.assign(track_id=ids, audio="=z"), {}, corpus.folder), home, False)
    return sorted(folder.rglob("*.csv"))


def test_no_exported_table_holds_a_formula(tmp_path, trained, capsys):
    naive = pd.DataFrame({"=a": FORMULAS}).to_csv(index=False)
    assert len(formulas(naive)) >= len(FORMULAS) - 1, "as pandas writes it"
    files = exports(tmp_path, trained)
    assert {"board.csv", "predicted.csv", "comparison.csv", "refused.csv", "calibration.csv"} <= {f.name for f in files}
    assert {f.name: bad for f in files if (bad := formulas(f.read_bytes().decode()))} == {}
    assert all("1+1" in (tmp_path / f).read_text() for f in ("board.csv", "predicted.csv", "compared/comparison.csv", "corpus/views/refused.csv")), "the names are there"


def test_what_was_neutralised_is_read_back_whole(tmp_path):
    from geomusic.exploring.answers import append_answer, read_answers
    from geomusic.files import from_text
    from geomusic.judging.listeners import read_listeners

    t, path = tracks(len(FORMULAS)).assign(track_id=[f.replace("\n", "n").replace("\r", "r") for f in FORMULAS]), tmp_path / "answers.csv"
    people = ["=1+1", "@b"]
    for who in people:
        for i in t.track_id: assert append_answer(path, dict(listener_id=who, track_id=i, country="IRL", truth="shown"))
        assert not append_answer(path, dict(listener_id=who, track_id=t.track_id[0], country="DEU", truth="shown")), "the first answer stays, also of such a name"
    assert formulas(path.read_text()) == []
    assert read_answers(path).track_id.tolist() == 2 * t.track_id.tolist() and read_answers(path).listener_id.unique().tolist() == people
    assert read_listeners(path, t).track_id.tolist() == 2 * t.track_id.tolist()
    table = pd.DataFrame({"=a": FORMULAS, "b": np.arange(len(FORMULAS)) - 4.5})
    write_csv(tmp_path / "t.csv", table)
    with open(tmp_path / "t.csv", newline="") as f: head, *rows = csv.reader(f)
    assert [from_text(h) for h in head] == ["=a", "b"] and [from_text(r[0]) for r in rows] == FORMULAS and [float(r[1]) for r in rows] == table.b.tolist()


# ---- secrets


TINY = """
import sys, traceback
import numpy as np, pandas as pd
from pathlib import Path
from geomusic.config import load_config
from geomusic.corpora.service import PracticeServer, fetch_descriptors
from geomusic.evaluate import evaluate
from geomusic.sound.descriptors import DESCRIPTORS
from geomusic.train import fit
ids = ['%022d' % i for i in range(30)]
table = pd.DataFrame({d: .5 for d in DESCRIPTORS}, ids)
with PracticeServer(table, ['error 500', 'HTML', '', 'forbidden']) as server:
    got = fetch_descriptors(ids[:20], 'cache.sqlite', server.url, per_second=1e6, sleep=lambda s: None)
    try: fetch_descriptors(ids, 'cache.sqlite', server.url, per_second=1e6, sleep=lambda s: None)
    except Exception as e: traceback.print_exc()
    sent = {row['token'] for row in server.log}
y, side = np.array(['CHN', 'DEU', 'IRL'])[np.arange(60) % 3], np.repeat(['train', 'val', 'test'], [36, 12, 12])
run = fit(np.random.default_rng(0).normal(size=(60, 4)).astype('float32'), y, side, load_config(overrides=['training.num_epochs=1', 'experiment.name=x']), out='run', progress=True)
print(run, sorted(sent) == ['Bearer ' + __import__('os').environ['GEOMUSIC_SERVICE_TOKEN']])
try: fit(np.full((60, 4), np.nan), y, side, load_config(), out='bad', progress=False)
except Exception: traceback.print_exc()
"""


def test_no_secret_is_written_down(tmp_path):
    "A key that is in use leaves no trace in files, messages and tracebacks"
    secret = {name: CANARY for name in SECRETS}
    done = subprocess.run([sys.executable, "-c", TINY], cwd=tmp_path, env=os.environ | secret, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0 and done.stdout.strip().endswith("True") and "does not let us in" in done.stderr, done.stderr[-2000:]
    assert len([p for p in tmp_path.rglob("*") if p.is_file()]) >= 4
    assert leaks(tmp_path, done.stdout, done.stderr) == []
    (tmp_path / "naive.json").write_text(json.dumps(dict(os.environ | secret)))
    assert leaks(tmp_path) == [str(tmp_path / "naive.json")], "as a program that keeps its environment would"


def test_settings_have_no_place_for_a_key(tmp_path):
    for key in ("experiment.wandb_api_key", "experiment.token", "api_key", "training.spotify_client_secret"):
        with pytest.raises(InputError, match="unknown key") as e: load_config(overrides=[f"{key}={CANARY}"])
        assert CANARY not in str(e.value)


@pytest.mark.parametrize("url", [f"https://user:{CANARY}@example.org/v1", f"https://example.org/v1?key={CANARY}", f"https://example.org/v1#{CANARY}"])
def test_a_key_in_an_address_is_refused_and_not_repeated(url, tmp_path):
    from geomusic.corpora.service import fetch_descriptors

    with pytest.raises(InputError) as e: fetch_descriptors(["0" * 22], tmp_path / "c.sqlite", url)
    assert CANARY not in str(e.value) and leaks(tmp_path) == []


if __name__ == "__main__":
    for what, page in pages(Path(sys.argv[1])): print(what, len(page), dangers(page))
