"Augmentation: what each transform promises, on any batch; and that nothing but training batches is ever touched."
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from geomusic import augment as A
from geomusic.checks import fill_padding
from geomusic.config import TrainingConfig, load_config
from geomusic.files import InputError
from geomusic.inputs import Standardizer, rings
from geomusic.train import fit, load_run
from geomusic.views import SEQUENCE_NAMES

CPU = dict(hardware=dict(device="cpu"))
SEQUENCE = dict(name="sequence", n_mels=128, features=SEQUENCE_NAMES)
MEL = dict(name="melspec", n_mels=24)
EVERYTHING = dict(melspec=dict(random_crop=0.5, augment=dict(gain_db=6, noise=0.1, time_masks=2, freq_masks=2, freq_mask_bands=6)),
                  sequence=dict(random_crop=0.5, augment=dict(gain_db=6, chroma_roll=6, noise=0.1, time_masks=2)),
                  tabular=dict(augment=dict(noise=0.1)))


def scaler(view, features, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Standardizer(view, torch.randn(features, generator=g) * 10 - 40, torch.rand(features, generator=g) * 15 + 1)


def batch(view, items, frames, seed, features=None):
    "A scaled batch whose items have any length, the longest all of it"
    g = torch.Generator().manual_seed(seed)
    if view == "tabular":
        return torch.randn(items, 13, generator=g), torch.ones(items, dtype=torch.long)
    lengths = torch.randint(1, frames + 1, (items,), generator=g)
    lengths[torch.randint(items, (1,), generator=g)] = frames
    shape = (items, 1, 24, frames) if view == "melspec" else (items, frames, 25)
    return fill_padding(torch.randn(shape, generator=g), lengths), lengths


def transforms(view):
    about, s = {"melspec": MEL, "sequence": SEQUENCE, "tabular": {}}[view], scaler(view, {"melspec": 24, "sequence": 25, "tabular": 13}[view])
    return A.make_augment(TrainingConfig(**EVERYTHING[view]), s, about)


@pytest.mark.parametrize("view", EVERYTHING)
@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(items=st.integers(2, 9), frames=st.integers(12, 60), seed=st.integers(0, 10**6))
def test_each_and_all_keep_their_promises(view, items, frames, seed):
    x, lengths = batch(view, items, frames, seed)
    for step in (*transforms(view).steps, transforms(view), A.TimeMask(1, 1.0), A.Noise(1.0)):
        if view == "tabular" and isinstance(step, A.TimeMask):
            continue
        run = lambda seed, x=x, step=step: step(x, lengths, torch.Generator().manual_seed(seed))  # noqa: E731
        before = x.clone()
        (out, n), (again, _) = run(seed), run(seed)
        assert torch.equal(x, before) and torch.equal(out, again) and out.dtype == x.dtype and out.isfinite().all()
        assert (n <= lengths).all() and n.min() >= 1 and len(out) == items
        if x.ndim > 2:
            assert torch.equal(out, fill_padding(out, n)), f"{type(step).__name__} leaks into padding"
            assert n.max() <= out.shape[3 if x.ndim == 4 else 1]
        assert run(0, x.to("meta"))[0].shape == run(0)[0].shape


def naive_crop(x, lengths, frames, generator, time):
    "As it was published: item by item"
    if frames >= x.shape[time]:
        return x, lengths
    room = (lengths - frames).clamp(min=0)
    start = (torch.rand(len(x), generator=generator) * (room + 1)).long()
    return torch.stack([item.narrow(time - 1, int(s), frames) for item, s in zip(x, start)]), lengths.clamp(max=frames)


@pytest.mark.parametrize("view,time", [("melspec", 3), ("sequence", 1)])
def test_crop_is_what_it_was(view, time):
    for seed in range(20):
        x, lengths = batch(view, 7, 40, seed)
        for frames in (1, 13, 39, 40, 50):
            new, old = (f(x, lengths, frames, torch.Generator().manual_seed(seed), time) for f in (A.random_crop, naive_crop))
            assert torch.equal(new[0], old[0]) and torch.equal(new[1], old[1])


def test_masks_hide_no_more_than_allowed():
    x, lengths = torch.ones(2000, 1, 24, 50), torch.randint(5, 51, (2000,), generator=torch.Generator().manual_seed(0))
    x = fill_padding(x, lengths)
    hidden = (fill_padding(1 - A.TimeMask(1, 0.4)(x, lengths, torch.Generator().manual_seed(1))[0], lengths)[:, 0, 0]).sum(1)
    assert (hidden <= 0.4 * lengths).all() and (hidden == (0.4 * lengths).long()).any() and (hidden == 0).any()
    inside = A.spans(torch.full((5000,), 8), torch.full((5000,), 4), 1, 12, torch.Generator().manual_seed(2))
    assert not inside[:, 8:].any() and (torch.bincount(inside.sum(1), minlength=5) / 5000 - 0.2).abs().max() < 0.03, "whole, and none past the end"
    bands = (A.FreqMask(1, 6)(torch.ones(2000, 1, 24, 5), torch.full((2000,), 5), torch.Generator().manual_seed(1))[0][:, 0, :, 0] == 0).sum(1)
    assert torch.bincount(bands, minlength=7).min() > 200 and bands.max() == 6


@pytest.mark.parametrize("db", [-40.0, -3.0, 3.0, 40.0])
def test_gain_as_if_the_sound_were_louder(db):
    import librosa

    y = (np.random.default_rng(0).standard_normal(22050) * np.geomspace(1e-4, 1, 22050)).astype(np.float32)
    mel = lambda y: librosa.power_to_db(librosa.feature.melspectrogram(y=y, sr=22050, n_mels=24))  # noqa: E731
    s = scaler("melspec", 24)
    x, louder = (s(torch.from_numpy(mel(v))[None, None]) for v in (y, y * np.float32(10 ** (db / 20))))
    gain = A.make_gain(60, s, MEL)
    assert torch.allclose(A.add_gain(x, torch.tensor([db]), gain.per_db, gain.floor), louder, atol=1e-3)


def test_gain_moves_the_first_mfcc_alone():
    x, lengths = batch("sequence", 6, 30, 0)
    gain = A.make_gain(6.0, scaler("sequence", 25), SEQUENCE)
    change = gain(x, lengths, torch.Generator().manual_seed(0))[0] - x
    assert (change[..., 1:] == 0).all() and change[0, 0, 0] != 0 and len(change[:, 0, 0].unique()) == 6
    shuffled = SEQUENCE | dict(features=SEQUENCE_NAMES[::-1])
    assert A.make_gain(6.0, scaler("sequence", 25), shuffled).per_db.nonzero().tolist() == [[24]], "by name, not by number"


@pytest.mark.parametrize("order", [SEQUENCE_NAMES, SEQUENCE_NAMES[::-1], SEQUENCE_NAMES[13:] + SEQUENCE_NAMES[:13]])
def test_roll_is_a_roll_of_raw_chroma_by_name(order):
    names, s = SEQUENCE_NAMES, scaler("sequence", 25)
    raw, at = np.random.default_rng(0).random((5, 9, 25)).astype(np.float32), [order.index(n) for n in names]
    lots = np.array([-6, -1, 0, 2, 11])
    rolled = raw.copy()
    rolled[..., 13:] = np.stack([np.roll(r[:, 13:], k, axis=1) for r, k in zip(raw, lots)])
    put = lambda v: s(torch.from_numpy(v[..., [names.index(n) for n in order]]))  # noqa: E731
    r = A.make_chroma_roll(6, s, SEQUENCE | dict(features=order))
    assert torch.allclose(A.roll_chroma(put(raw), torch.from_numpy(lots), r.columns, r.mean, r.scale), put(rolled), atol=1e-4)
    assert r.columns.tolist() == at[13:]


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), alpha=st.sampled_from([0.05, 0.2, 1.0, 8.0]))
def test_mixup_mixes_sound_as_it_mixes_labels(seed, alpha):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 21, (6,), generator=g)
    y = F.one_hot(torch.arange(6) % 3).float()
    x = fill_padding(y[:, None].expand(6, 20, 3).clone(), lengths)  # the sound is the label
    out, n, target = A.Mixup(alpha)(x, lengths, y, g)
    assert (n <= lengths).all() and set(n.tolist()) <= set(lengths.tolist())
    assert torch.allclose(target.sum(1), torch.ones(6)) and (target >= 0).all()
    for item, k, t in zip(out, n, target):
        assert torch.allclose(item[:k], t.expand(int(k), 3)) and (item[k:] == 0).all(), "in every frame as much of each as the label says"


@pytest.mark.parametrize("view,given,told", [
    ("fcnn", "training.random_crop=0.5", "training.random_crop changes time, and the tabular view"),
    ("fcnn", "training.augment.time_masks=1", "training.augment.time_masks changes time, and the tabular view"),
    ("fcnn", "training.augment={gain_db: 3}", "training.augment.gain_db changes loudness, and the tabular view"),
    ("cnn", "training.augment.chroma_roll=6", "training.augment.chroma_roll changes chroma, and the melspec view"),
    ("rnn", "training.augment.freq_masks=2", "training.augment.freq_masks changes mel bands, and the sequence view"),
    ("cnn", "training.augment.freq_mask=2", "Did you mean `freq_masks`"),
    ("rnn", "training.augment.chroma_roll=true", "training.augment.chroma_roll"),
    ("rnn", "training.augment=6", "training.augment"),
    ("rnn", "training.augment.mixup=-1", "training.augment.mixup")])
def test_refused_as_soon_as_it_is_read(view, given, told):
    with pytest.raises(InputError) as e:
        load_config(None, [f"model.type={view}", given])
    assert told in str(e.value) and "\n" not in str(e.value)


def test_unknown_columns_are_refused_and_not_guessed():
    x, lengths = batch("sequence", 20, 16, 0)
    given = x.numpy(), np.array(["CHN", "IRL"] * 10), np.array(["train", "train", "val", "val"] * 5)
    for key in ("chroma_roll=6", "gain_db=3"):
        config = load_config(dict(model=dict(type="rnn", params=dict(hidden=4, fc=4))) | CPU, f"training.augment.{key}")
        with pytest.raises(InputError, match=f"training.augment.{key.split('=')[0]}"):
            fit(*given, config, n_frames=lengths.numpy(), progress=False)


def tunes(view):
    "Rows of two countries that differ, with padding"
    g, frames = np.random.default_rng(0), 24
    y, split = np.array(["CHN", "IRL"] * 24), np.array(["train"] * 32 + ["val"] * 16)
    x = g.standard_normal((48, 1, 24, frames) if view == "melspec" else (48, frames, 25)).astype(np.float32) * 3 - 40
    x[y == "IRL"] += 1
    return x, y, split, g.integers(12, frames + 1, 48)


MODEL = dict(cnn=dict(channels=[4, 8], fc=8), rnn=dict(hidden=8, num_layers=1, fc=8))


@pytest.mark.parametrize("model,view,about", [("cnn", "melspec", MEL), ("rnn", "sequence", SEQUENCE)])
def test_only_training_batches_are_touched(monkeypatch, tmp_path, model, view, about):
    "Every transform is counted: in training once a batch, in validation, test and prediction never"
    calls = Counter()

    def counted(cls):
        plain = cls.__call__

        def call(self, *args):
            calls[cls.__name__] += 1
            return plain(self, *args)

        monkeypatch.setattr(cls, "__call__", call)

    x, y, split, frames = tunes(view)
    values = dict(model=dict(type=model, params=MODEL[model]), training=EVERYTHING[view] | dict(num_epochs=3, batch_size=8)) | CPU
    config = load_config(values, "training.augment.mixup=0.4")
    for cls in (A.RandomCrop, A.Gain, A.ChromaRoll, A.Noise, A.TimeMask, A.FreqMask, A.Mixup):
        counted(cls)
    run = fit(x, y, split, config, n_frames=frames, view=about, out=tmp_path, progress=False)
    expected = {"RandomCrop", "Gain", "Noise", "TimeMask", "Mixup"} | {dict(cnn="FreqMask", rnn="ChromaRoll")[model]}
    assert calls == dict.fromkeys(expected, 3 * 32 // 8)
    first = run.predict_proba(x, frames)
    assert calls == dict.fromkeys(expected, 3 * 32 // 8), "asking the run was augmented"
    assert np.array_equal(first, run.predict_proba(x, frames)) and np.array_equal(first, load_run(tmp_path).predict_proba(x, frames))
    val = split == "val"
    loss = -np.log(run.predict_proba(x[val], frames[val])[np.arange(val.sum()), (y[val] == "IRL").astype(int)]).mean()
    assert np.isclose(loss, run.history.val_loss.min(), rtol=1e-4), "the validation loss is that of the rows as they are"


@pytest.mark.parametrize("model,view,about", [("cnn", "melspec", MEL), ("rnn", "sequence", SEQUENCE)])
def test_same_seed_same_run(model, view, about):
    x, y, split, frames = tunes(view)
    values = dict(model=dict(type=model, params=MODEL[model]), training=EVERYTHING[view] | dict(num_epochs=2, batch_size=8, class_weights="balanced", label_smoothing=0.1)) | CPU
    train = lambda *o: fit(x, y, split, load_config(values, ["training.augment.mixup=0.4", *o]), n_frames=frames, view=about, progress=False)  # noqa: E731
    a, b, c = train(), train(), train("reproducibility.seed=1")
    assert a.history.equals(b.history) and np.array_equal(a.logits(x, frames), b.logits(x, frames))
    assert not np.array_equal(a.logits(x, frames), c.logits(x, frames))


def test_a_table_can_be_mixed_and_old_checkpoints_open(tmp_path):
    x, y, split = rings(240)
    config = load_config(dict(model=dict(params=dict(widths=[16])), training=dict(num_epochs=8, learning_rate=0.01, augment=dict(mixup=0.2, noise=0.05))) | CPU)
    run = fit(x, y, split, config, out=tmp_path, progress=False)
    assert run.history.train_loss.iloc[-1] < run.history.train_loss.iloc[0]
    saved = torch.load(tmp_path / "best_model.pth", weights_only=True)
    assert saved["config"]["training"]["augment"]["mixup"] == 0.2
    del saved["config"]["training"]["augment"]  # as it was before there was such a section
    torch.save(saved, tmp_path / "best_model.pth")
    old = load_run(tmp_path)
    assert old.config.training.augment.mixup == 0 and np.array_equal(old.logits(x), run.logits(x))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("view", EVERYTHING)
def test_the_same_on_a_gpu(view):
    x, lengths = batch(view, 6, 40, 0)
    a, b = (transforms(view)(v, lengths, torch.Generator().manual_seed(0))[0] for v in (x, x.cuda()))
    assert b.is_cuda and torch.allclose(a, b.cpu(), atol=1e-5)
    y = F.one_hot(torch.arange(6) % 3).float()
    a, b = (A.Mixup(0.4)(v, lengths, t, torch.Generator().manual_seed(0)) for v, t in ((x, y), (x.cuda(), y.cuda())))
    assert torch.allclose(a[0], b[0].cpu(), atol=1e-6) and torch.allclose(a[2], b[2].cpu())
