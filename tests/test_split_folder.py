"The published split folder and configuration: there and back, trained on as people have them, and never a pickle that runs."
import io
import os
import pickle
import struct
import time

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.preprocessing import LabelEncoder, StandardScaler

from geomusic.config import load_config
from geomusic.corpora.split_folder import SIDES, read_label_encoder, read_split_folder, save_split_corpus, use_class_weights, write_split_folder
from geomusic.files import InputError

SHAPES = {"tabular": (13,), "melspec": (1, 16, 24), "melspec without channel": (16, 24), "sequence": (24, 5)}


def make(folder, shape=(13,), names=("Kenya", "Peru", "Turkey"), n=(60, 15, 30), dtype=np.float32, labels=int, seed=0):
    "A split folder as the published scripts write it"
    folder.mkdir(parents=True)
    rng, encoder = np.random.default_rng(seed), LabelEncoder().fit(list(names))
    for side, rows in zip(SIDES, n):
        y = np.arange(rows) % len(names)
        x = rng.standard_normal((rows, *shape)) + 2 * y.reshape(-1, *[1] * len(shape))
        np.save(folder / f"{side}_features.npy", x.astype(dtype))
        np.save(folder / f"{side}_labels.npy", encoder.classes_[y].astype(labels) if labels is not int else y)
    (folder / "label_encoder.pkl").write_bytes(pickle.dumps(encoder))
    return folder


# ---- there and back


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_round_trip(tmp_path, kind, dtype):
    view = kind.split()[0]
    make(tmp_path / "a", SHAPES[kind], dtype=dtype)
    np.save(tmp_path / "a" / "class_weights.npy", np.array([1.0, 2.5, 0.5]))
    corpus = save_split_corpus(tmp_path / "a", tmp_path / "corpus", view, progress=False)
    counts = write_split_folder(corpus, view, tmp_path / "b", progress=False)
    assert counts == dict(train=60, val=15, test=30, left_out=0)
    for s in SIDES:
        old, new = (np.load(tmp_path / d / f"{s}_features.npy") for d in "ab")
        assert new.dtype == np.float32 and np.array_equal(old.astype(np.float32).reshape(new.shape), new)
        assert np.array_equal(np.load(tmp_path / "a" / f"{s}_labels.npy"), np.load(tmp_path / "b" / f"{s}_labels.npy"))
    with open(tmp_path / "b" / "label_encoder.pkl", "rb") as f:
        assert pickle.load(f).classes_.tolist() == ["Kenya", "Peru", "Turkey"]  # as any other program reads it
    assert np.load(tmp_path / "b" / "class_weights.npy").tolist() == [1.0, 2.5, 0.5]
    again = save_split_corpus(tmp_path / "b", tmp_path / "corpus_b", view, progress=False)
    write_split_folder(again, view, tmp_path / "c", progress=False)
    files = sorted(p.name for p in (tmp_path / "b").iterdir())
    assert files == sorted(p.name for p in (tmp_path / "c").iterdir())
    assert all((tmp_path / "b" / f).read_bytes() == (tmp_path / "c" / f).read_bytes() for f in files)


def test_short_rows_keep_their_length(tmp_path):
    from geomusic.corpus import save_corpus
    from geomusic.views import View, store_view

    corpus, view = read_split_folder(make(tmp_path / "a", SHAPES["sequence"]), "sequence")
    frames = np.random.default_rng(0).integers(5, 25, len(corpus))
    saved = save_corpus(corpus, tmp_path / "corpus")
    store_view(tmp_path / "corpus", View("sequence", np.asarray(view.x), frames))
    write_split_folder(saved, "sequence", tmp_path / "b", progress=False)
    assert np.array_equal(read_split_folder(tmp_path / "b", "sequence")[1].n_frames, frames)


@pytest.mark.parametrize("labels", [int, "U", "S", object])
@pytest.mark.parametrize("dump", [lambda e, p: p.write_bytes(pickle.dumps(e, protocol=2)), lambda e, p: p.write_bytes(pickle.dumps(e, protocol=5)), joblib.dump])
def test_labels_and_encoders_of_every_kind(tmp_path, labels, dump):
    folder = make(tmp_path / "a", labels=labels)
    for names in (["Kenya", "Peru", "Turkey"], pd.Series(["Kenya", "Peru", "Turkey"])):
        dump(LabelEncoder().fit(names), folder / "label_encoder.pkl")
        corpus, _ = read_split_folder(folder)
        assert corpus.tracks.country.tolist()[:3] == ["KEN", "PER", "TUR"] and corpus.label == "country"


def test_numpy_1_and_old_scikit_learn(tmp_path):
    data = pickle.dumps(LabelEncoder().fit(["Kenya", "Peru"]), protocol=2)
    assert b"numpy._core" in data  # this is numpy 2
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray").replace(b"sklearn.preprocessing._label", b"sklearn.preprocessing.label")
    (tmp_path / "e.pkl").write_bytes(old)
    assert read_label_encoder(tmp_path / "e.pkl").tolist() == ["Kenya", "Peru"]


def test_rows_are_read_where_they_lie(tmp_path):
    _, view = read_split_folder(make(tmp_path / "a"))
    assert all(isinstance(p, np.memmap) for p in view.x.parts)


def test_it_says_that_leakage_cannot_be_judged(tmp_path):
    corpus, _ = read_split_folder(make(tmp_path / "a"))
    assert corpus.tracks.group.is_unique and "cannot be judged" in corpus.report["notes"][0]


def test_dummy_data_of_the_published_quick_start(tmp_path):
    names = ["Indonesia", "Mexico", "United States", "Brazil", "Nigeria", "India", "China", "Japan", "Germany", "France"] + [f"Country{i}" for i in range(47)]
    corpus, view = read_split_folder(make(tmp_path / "a", names=names, n=(700, 150, 150), dtype=np.float64))
    assert corpus.label == "label" and corpus.targets().country.nunique() == 57 and view.x.shape == (1000, 13)
    assert (corpus.tracks.country != "").sum() > 100 and "47 of 57" in corpus.report["notes"][1]


# ---- trained on as people have them


def published(folder, model, wandb="false"):
    "A settings file in the published layout"
    (folder / "config.yaml").write_text(f"""
data: {{splits_dir: data/splits/}}
model:
  type: {model}
  fcnn: {{input_dim: 13, hidden_dims: [16, 8], dropout: 0.1, use_batch_norm: true, activation: relu}}
  cnn: {{input_channels: 1, conv_channels: [4, 4, 8, 8], kernel_size: 3, pool_size: 2, fc_hidden_dim: 8, dropout: 0.1}}
  rnn: {{input_dim: 13, hidden_dim: 8, num_layers: 2, dropout: 0.1, bidirectional: true}}
  attention: {{input_dim: 13, hidden_dim: 8, num_layers: 1, dropout: 0.1, bidirectional: true, attention_type: self}}
training: {{num_classes: 57, batch_size: 16, num_epochs: 2, learning_rate: 0.01, use_class_weights: true, mixed_precision: true, early_stopping: {{enabled: true, patience: 5}}}}
experiment: {{use_wandb: {wandb}, wandb_project: geo, wandb_entity: null, checkpoint_dir: {folder / "checkpoints"}}}
hardware: {{device: cuda, num_workers: 1, pin_memory: true}}
reproducibility: {{seed: 42, deterministic: true}}
""")
    return folder / "config.yaml"


@pytest.mark.parametrize("model", ["fcnn", "cnn", "rnn", "attention"])
def test_published_configuration_and_folder_train_together(tmp_path, model):
    from geomusic.experiments import run_model
    from geomusic.models import MODELS

    view = MODELS[model].view
    folder = make(tmp_path / "splits", SHAPES[view], dtype=np.float64)
    np.save(folder / "class_weights.npy", np.array([1, 2, 3], np.float32))
    settings = load_config(published(tmp_path, model))
    corpus = save_split_corpus(folder, tmp_path / "checkpoints" / "corpus", view, progress=False)
    settings = use_class_weights(settings, corpus)
    assert settings.training.mixed_precision == "auto" and settings.training.class_weights == dict(KEN=1, PER=2, TUR=3)
    run, metrics = run_model(corpus, settings, settings.checkpoint_dir, progress=False)
    assert (tmp_path / "checkpoints" / "best_model.pth").exists() and metrics["n"] == 30 and run.labels == ["KEN", "PER", "TUR"]


def test_the_committed_example_loads(root):
    settings = load_config(root / "configs" / "config.yaml")
    assert settings.idle == [] and settings.training.mixed_precision == "auto" and settings.checkpoint_dir == "checkpoints/"


def test_a_folder_is_not_copied_twice_and_a_changed_one_is(tmp_path):
    folder = make(tmp_path / "a")
    stored = tmp_path / "corpus" / "views" / "tabular.npy"
    save_split_corpus(folder, tmp_path / "corpus", progress=False)
    first = stored.stat().st_mtime_ns
    save_split_corpus(folder, tmp_path / "corpus", progress=False)
    assert stored.stat().st_mtime_ns == first
    np.save(folder / "test_features.npy", np.zeros((30, 13)))
    save_split_corpus(folder, tmp_path / "corpus", progress=False)
    assert (np.load(stored)[-30:] == 0).all()


# ---- attacks


class Calls:
    "Pickles to a call"

    def __init__(self, f, *args):
        self.f, self.args = f, args

    def __reduce__(self):
        return self.f, self.args


class Hidden(LabelEncoder):
    pass


def hidden_in_an_encoder(path):
    "An encoder with a call among its classes"
    encoder = LabelEncoder()
    encoder.classes_ = np.array(["Kenya", Calls(os.mkdir, path)], object)
    return encoder


ATTACKS = {
    "os.mkdir": lambda p: pickle.dumps(Calls(os.mkdir, p)),
    "os.system": lambda p: pickle.dumps(Calls(os.system, f"mkdir {p}")),
    "builtins.eval": lambda p: pickle.dumps(Calls(eval, f"__import__('os').mkdir({p!r})")),
    "builtins.exec": lambda p: pickle.dumps(Calls(exec, f"import os; os.mkdir({p!r})"), protocol=0),
    "subprocess": lambda p: b"csubprocess\nPopen\n(S'mkdir %b'\nI1\ntR." % p.encode(),
    "python 2 names": lambda p: b"c__builtin__\neval\n(V__import__('os').mkdir('%b')\ntR." % p.encode(),
    "getattr chain": lambda p: b"c__builtin__\ngetattr\n(cnumpy\nndarray\nVtofile\ntR.",
    "attribute of an admitted name": lambda p: b"\x80\x04\x8c\x05numpy\x8c\x0fndarray.tofile\x93.",
    "numpy.load": lambda p: b"cnumpy\nload\n(V%b\ntR." % p.encode(),
    "numpy.fromfile": lambda p: b"cnumpy\nfromfile\n(V/etc/hostname\ntR.",
    "numpy testing runstring": lambda p: b"cnumpy.testing._private.utils\nrunstring\n(Vimport os\n(dtR.",
    "numpy f2py": lambda p: b"cnumpy.f2py.diagnose\nrun_command\n(Vtrue\ntR.",
    "joblib.load": lambda p: pickle.dumps(Calls(joblib.load, p)),
    "another scikit-learn class": lambda p: pickle.dumps(StandardScaler().fit(np.eye(3))),
    "subclass": lambda p: pickle.dumps(Hidden().fit(["a", "b"])),
    "in the classes": lambda p: pickle.dumps(hidden_in_an_encoder(p)),
    "in the classes, joblib": lambda p: _joblib(hidden_in_an_encoder(p)),
    "as old instance": lambda p: b"(S'true'\nios\nsystem\n.",
    "as old object": lambda p: b"(cos\nsystem\nS'true'\no.",
    "extension registry": lambda p: b"\x80\x02\x82\x01.",
    "persistent id": lambda p: b"Pname\n.",
    "state of an admitted class": lambda p: b"csklearn.preprocessing._label\nLabelEncoder\n(dS'__init__'\ncos\nsystem\nsb.",
    "state of nothing": lambda p: b"\x80\x04]}b.",
    "memo of 64 GB": lambda p: b"\x80\x04Nr\xff\xff\xff\xff.",
    "bytes of an exabyte": lambda p: b"\x80\x05\x96" + struct.pack("<Q", 2**60) + b".",
    "frame of an exabyte": lambda p: b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b"N.",
    "tuples of tuples as key": lambda p: b"\x80\x04})" + b"q\x00h\x00\x86" * 80 + b"Ns.",
    "tuples of tuples as name": lambda p: b"\x80\x04)" + b"q\x00h\x00\x86" * 80 + b"\x8c\x01x\x93.",
    "lists of lists": lambda p: b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "joblib of joblib of joblib": lambda p: _nested_joblib(),
    "array of another length": lambda p: pickle.dumps(LabelEncoder().fit(["Kenya", "Peru"]), protocol=2).replace(b"K\x02\x85", b"K\x09\x85"),
    "array of a strange type": lambda p: pickle.dumps(_with(np.array([("a", 1)], dtype=[("f", "U1"), ("g", int)]))),
    "floats": lambda p: pickle.dumps(LabelEncoder().fit([0.5, 1.5])),
    "no classes": lambda p: pickle.dumps(LabelEncoder()),
    "a class twice": lambda p: pickle.dumps(_with(np.array(["a", "a"]))),
    "a list": lambda p: pickle.dumps(["Kenya"]),
    "an array": lambda p: pickle.dumps(np.array(["Kenya"])),
    "text": lambda p: b"Kenya\nPeru\n",
    "nothing": lambda p: b"",
    "huge": lambda p: b"\x80\x04" + b"N0" * 6_000_000 + b".",
}


def _with(classes):
    encoder = LabelEncoder()
    encoder.classes_ = classes
    return encoder


def _joblib(encoder):
    joblib.dump(encoder, stream := io.BytesIO())
    return stream.getvalue()


def _nested_joblib():
    "An array of objects, whose data is a file of joblib's with an array of objects, ..."
    joblib.dump(_with(np.array(["a", "b"], object)), stream := io.BytesIO())
    one = stream.getvalue()
    return one[: one.index(b"ub\x80") + 2] * 2000 + b"."


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_is_refused_in_one_line_and_nothing_runs(tmp_path, name):
    target = str(tmp_path / "owned")
    (tmp_path / "label_encoder.pkl").write_bytes(ATTACKS[name](target))
    started = time.monotonic()
    with pytest.raises(InputError) as error:
        read_label_encoder(tmp_path / "label_encoder.pkl")
    assert "label_encoder.pkl" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 500
    assert not os.path.exists(target) and time.monotonic() - started < 5


def test_the_attacks_are_real(tmp_path):
    pickle.loads(ATTACKS["in the classes"](str(tmp_path / "owned")))
    assert (tmp_path / "owned").exists()  # with Python's own reader


def test_every_truncation_and_many_flipped_bits(tmp_path):
    data = pickle.dumps(LabelEncoder().fit(["Kenya", "Peru", "Turkey"]), protocol=4)
    rng, file = np.random.default_rng(0), tmp_path / "label_encoder.pkl"
    broken = [data[:i] for i in range(len(data))] + [data[:i] + bytes([data[i] ^ 1 << int(b)]) + data[i + 1 :] for i, b in enumerate(rng.integers(0, 8, len(data)))]
    refused = 0
    for b in broken:
        file.write_bytes(b)
        try:
            assert len(read_label_encoder(file)) == 3  # a letter of a name may have changed
        except InputError:
            refused += 1
    assert refused > len(data)


def test_objects_in_labels_are_not_run(tmp_path):
    folder = make(tmp_path / "a")
    np.save(folder / "val_labels.npy", np.array([Calls(os.mkdir, str(tmp_path / "owned"))] * 15, object))
    with pytest.raises(InputError, match="val_labels.npy"):
        read_split_folder(folder)
    np.save(folder / "val_labels.npy", np.zeros(15, int))
    np.save(folder / "val_features.npy", np.array([[Calls(os.mkdir, str(tmp_path / "owned"))] * 13] * 15, object))
    with pytest.raises(InputError, match="val_features.npy"):
        read_split_folder(folder)
    assert not (tmp_path / "owned").exists()


# ---- errors


def ok(rows=15, columns=13):
    return np.zeros((rows, columns), np.float32)


ERRORS = {  # what is spoilt: (files, what the line must say)
    "lengths": ({"val_labels": np.zeros(14, int)}, "(14,)"),
    "two axes of labels": ({"val_labels": np.zeros((15, 1), int)}, "(15, 1)"),
    "columns": ({"test_features": ok(30, 12)}, "(30, 12)"),
    "axes": ({"test_features": np.zeros((30, 13, 2))}, "(30, 13, 2)"),
    "no rows": ({"test_features": ok(0), "test_labels": np.zeros(0, int)}, "(0, 13)"),
    "nan": ({"val_features": np.where(np.arange(15)[:, None] == 4, np.nan, ok())}, "row 4"),
    "inf": ({"val_features": np.where(np.arange(15)[:, None] == 5, np.inf, ok())}, "row 5"),
    "double precision that single cannot hold": ({"val_features": np.where(np.arange(15)[:, None] == 6, 1e300, ok().astype(float))}, "row 6"),
    "complex": ({"val_features": ok() + 1j}, "complex"),
    "text": ({"val_features": ok().astype(str)}, "<U"),
    "unknown label": ({"val_labels": np.full(15, 3)}, "holds 3"),
    "negative label": ({"val_labels": np.full(15, -1)}, "holds -1"),
    "unknown word": ({f"{s}_labels": np.full(n, "Peru" if s != "test" else "Atlantis") for s, n in zip(SIDES, (60, 15, 30))}, "Atlantis"),
    "fractions": ({"val_labels": np.full(15, 0.5)}, "float64"),
    "class in test only": ({"train_labels": np.arange(60) % 2}, "Turkey"),
    "weights": ({"class_weights": np.ones(5)}, "class_weights.npy"),
    "negative weights": ({"class_weights": np.array([1, -1, 1])}, "class_weights.npy"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_spoilt_folders_are_refused_by_name(tmp_path, name):
    arrays, expected = ERRORS[name]
    folder = make(tmp_path / "a")
    for file, x in arrays.items():
        np.save(folder / f"{file}.npy", x)
    with pytest.raises(InputError) as error:
        save_split_corpus(folder, tmp_path / "corpus", progress=False)
    assert expected in str(error.value) and "\n" not in str(error.value) and not (tmp_path / "corpus").exists()


@pytest.mark.parametrize("file", [f"{s}_{w}.npy" for s in SIDES for w in ("features", "labels")] + ["label_encoder.pkl"])
@pytest.mark.parametrize("how", ["missing", "truncated", "text"])
def test_broken_files_are_refused_by_name(tmp_path, file, how):
    path = make(tmp_path / "a") / file
    data = path.read_bytes()
    path.unlink()
    if how != "missing":
        path.write_bytes(data[: len(data) - 40] if how == "truncated" else b"not an array")
    with pytest.raises(InputError, match=file):
        read_split_folder(tmp_path / "a")


@pytest.mark.parametrize("names, expected", [("a\nb\n", "2 different names"), ("x\n" * 13, "1 different"), ("split\n" + "".join(f"f{i}\n" for i in range(12)), "`split`")])
def test_feature_names_must_fit(tmp_path, names, expected):
    folder = make(tmp_path / "a")
    (folder / "feature_names.txt").write_text(names)
    with pytest.raises(InputError, match=expected):
        read_split_folder(folder)


def test_class_without_training_rows_can_be_left_out(tmp_path):
    folder = make(tmp_path / "a")
    np.save(folder / "train_labels.npy", np.arange(60) % 2)
    corpus, view = read_split_folder(folder, drop_unseen=True)
    assert corpus.report["refused"] == {"class without training rows": 15} and corpus.report["read"] == 105 and len(view) == len(corpus) == 90
    assert set(corpus.tracks.country) == {"KEN", "PER"} and np.array_equal(view.x[60:], np.concatenate([np.load(folder / f"{s}_features.npy")[np.load(folder / f"{s}_labels.npy") < 2] for s in SIDES[1:]]))


def test_a_network_of_another_view_is_told_so(tmp_path):
    with pytest.raises(InputError, match="rnn and attention from sequence"):
        read_split_folder(make(tmp_path / "a"), "sequence")
