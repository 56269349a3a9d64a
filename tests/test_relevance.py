"Relevance: complete, equal to captum, nothing for nothing, found where it was planted; a mask of ones gives the sound back."
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geomusic.exploring.opened import demo_run, open_run
from geomusic.exploring.relevance import (BASELINES, METHODS, _baseline, _seen, explained, explore_relevance, grad_cam, integrated_gradients, masked_sound, relevance_test,
                                          relevant_mask)
from geomusic.files import InputError
from geomusic.learning.ensemble import make_ensemble
from geomusic.sound.analysis import Analysis


@pytest.fixture(scope="module")
def opened():
    return open_run(*demo_run("cnn"), limit=6)


@pytest.fixture(scope="module")
def track(opened):
    return opened.table.track_id[0]


class Linear(torch.nn.Module):
    "Answers from the mean of one half of the spectrogram each: relevance is known in closed form"
    def __init__(self):
        super().__init__()
        self.anything = torch.nn.Parameter(torch.zeros(1))
    def forward(self, x, lengths=None):
        half = x.shape[-1] // 2
        return torch.stack([x[..., :half].sum((1, 2, 3)), x[..., half:].sum((1, 2, 3)), 0 * x.sum((1, 2, 3)) + self.anything], 1)


def linear(opened):
    return replace(opened, run=replace(opened.run, model=Linear()), cache={})


def outputs(opened, z):
    with torch.inference_mode(): return opened.run.model(z, torch.tensor([z.shape[-1]]))[0].numpy()


@pytest.mark.parametrize("baseline", BASELINES)
def test_complete(opened, track, baseline):
    r, gap = integrated_gradients(opened, track, steps=32, baseline=baseline)
    c = opened.proba[0].argmax()
    difference = outputs(opened, _seen(opened, 0))[c] - outputs(opened, _baseline(opened, 0, baseline))[c]
    assert gap < 0.1 and r.sum() == pytest.approx(difference, rel=0.1) and gap < integrated_gradients(opened, track, steps=2, baseline=baseline)[1]
    assert gap == pytest.approx(abs(r.sum() - difference) / abs(difference), abs=1e-3)


def test_exact_for_a_linear_model(opened, track):
    o = linear(opened)
    z = _seen(o, 0)[0, 0].numpy()
    r, gap = integrated_gradients(o, track, o.labels[0], steps=1)
    half = z.shape[1] // 2
    np.testing.assert_allclose(r[:, :half], z[:, :half], atol=1e-5)
    assert (r[:, half:] == 0).all() and gap < 1e-4


def test_captum_agrees(opened, track):
    captum = pytest.importorskip("captum.attr", reason="captum is not installed: pip install captum")
    z, c = _seen(opened, 0), int(opened.proba[0].argmax())
    ours, _ = integrated_gradients(opened, track, steps=16)
    lengths = lambda x: torch.full((len(x),), x.shape[-1])
    ig = captum.IntegratedGradients(lambda x: opened.run.model(x, lengths(x)))
    theirs = ig.attribute(z, torch.zeros_like(z), target=c, n_steps=16, method="riemann_middle", internal_batch_size=8)[0, 0].detach().numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max() + 1e-7)
    cam = captum.LayerGradCam(lambda x: opened.run.model(x, lengths(x)), opened.run.model.blocks[-1]).attribute(z, target=c, relu_attributions=True)
    theirs = torch.nn.functional.interpolate(cam, z.shape[2:], mode="bilinear", align_corners=False)[0, 0].detach().numpy()
    np.testing.assert_allclose(grad_cam(opened, track), theirs, atol=1e-4 * np.abs(theirs).max() + 1e-9)


def test_the_model_is_left_as_it_was(opened, track):
    before = {k: v.clone() for k, v in opened.run.model.state_dict().items()}
    integrated_gradients(opened, track, steps=2)
    grad_cam(opened, track)
    assert all((v == before[k]).all() for k, v in opened.run.model.state_dict().items()) and not opened.run.model.training
    assert all(p.grad is None for p in opened.run.model.parameters()) and not opened.run.model.blocks[-1]._forward_hooks


def test_another_answer_has_other_evidence(opened, track):
    one, two = (integrated_gradients(opened, track, c, steps=4)[0] for c in opened.labels[:2])
    assert np.corrcoef(one.ravel(), two.ravel())[0, 1] < 0.9
    with pytest.raises(InputError, match="unknown country `KEN`"): integrated_gradients(opened, track, "KEN")
    with pytest.raises(InputError, match="unknown baseline"): integrated_gradients(opened, track, baseline="noise")
    with pytest.raises(InputError, match="none of these"): grad_cam(opened, "nobody")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.02, 0.9))
def test_masks_keep_a_share_of_what_speaks_for_the_answer(seed, share):
    r = np.random.default_rng(seed).standard_normal((20, 30))
    mask = relevant_mask(r, share)
    assert set(np.unique(mask)) <= {0.0, 1.0} and abs(mask.mean() - share) < 0.01
    assert relevant_mask(-np.abs(r), share).sum() == 0


def test_masks_refuse_nonsense():
    with pytest.raises(InputError, match="share of 0"): relevant_mask(np.ones((3, 3)), 0)
    with pytest.raises(InputError, match="no numbers"): relevant_mask(np.full((3, 3), np.nan))


def test_ones_give_the_sound_back_and_a_band_keeps_its_tone():
    a = Analysis(dur_s=2.0)
    t = np.arange(2 * a.sr) / a.sr
    low, high = (0.3 * np.sin(2 * np.pi * f * t).astype(np.float32) for f in (300, 4000))
    n = 1 + len(t) // a.hop_length
    np.testing.assert_allclose(masked_sound(low + high, np.ones((128, n)), a), low + high, atol=1e-4)
    below = np.zeros((128, n))
    below[:40] = 1  # up to about 1 kHz
    inside = slice(a.n_fft, -a.n_fft)
    left = masked_sound(low + high, below, a)
    assert np.abs(left - low)[inside].max() < 0.02 and np.corrcoef(left[inside], high[inside])[0, 1] < 0.05
    when = np.zeros((128, n))
    when[:, : n // 2] = 1
    left = masked_sound(low, when, a)
    assert (left[: a.sr // 2] ** 2).mean() > 100 * (left[-a.sr // 2 :] ** 2).mean()
    with pytest.raises(InputError, match="does not fit"): masked_sound(low, np.ones((64, n)), a)
    with pytest.raises(InputError, match="does not fit"): masked_sound(low, np.ones((128, n // 2)), a)


@pytest.mark.parametrize("method", METHODS)
def test_explained(opened, track, method):
    h, only = explained(opened, track, method), explained(opened, track, method, only=True)
    assert h.curve.mean() == pytest.approx(1) and h.mask.shape == h.picture.shape and (h.y**2).sum() > (only.y**2).sum() > 0
    assert (h.picture == opened.view.x[opened.rows[0], 0, :, : h.picture.shape[1]]).all()


def test_planted_evidence_matters_more_than_the_same_shape_elsewhere(opened):
    lost = relevance_test(opened, limit=3, draws=2)
    assert len(lost) == 3 and lost.relevant.mean() > lost.moved.mean()
    with pytest.raises(InputError, match="no convolutions"): grad_cam(linear(opened), opened.table.track_id[0])


@pytest.mark.parametrize("model", ["attention", "rnn", "fcnn"])
def test_other_models_say_so_in_place(model):
    box = explore_relevance(open_run(*demo_run(model)))
    assert "no relevance on a spectrogram" in box.message.value and box.heards == []


def test_without_sound_there_is_still_a_picture(opened, track):
    mute = replace(opened, table=opened.table.assign(audio="audio/gone.flac"), cache={})
    h = explained(mute, track, "grad-cam", only=True)
    assert h.y is None and "does not exist" in h.problem and h.picture.shape[0] == 128
    ens = open_run(make_ensemble([demo_run("cnn")[0], demo_run("fcnn")[0]]), opened.corpus, limit=2)
    with pytest.raises(InputError, match="ensemble has no relevance"): explained(ens, ens.table.track_id[0])


def test_a_model_with_nan_says_so(opened, track):
    broken = replace(opened, cache={("relevance", track, "grad-cam", None): np.full((128, 259), np.nan)})
    with pytest.raises(InputError, match="NaN"): explained(broken, track, "grad-cam")


def test_menus_change_the_figure(opened):
    box = explore_relevance(opened)
    method, evidence, share, sound = box.more
    whole = box.players[0].sound
    assert box.heards[0].mask.mean() == pytest.approx(0.1, abs=0.02)
    share.value = 0.3
    assert box.heards[0].mask.mean() == pytest.approx(0.3, abs=0.02)
    sound.value = True
    assert box.players[0].sound != whole and (box.heards[0].y ** 2).sum() < (explained(opened, box.menus[3].value, "grad-cam").y ** 2).sum()
    before = box.heards[0].curve
    evidence.value = opened.labels[0] if opened.labels[0] != box.heards[0].proba.index[0] else opened.labels[1]
    assert "relevance for" in box.players[0].told["words"].lower() and not np.array_equal(before, box.heards[0].curve)
    method.value = "integrated gradients"
    assert box.message.value == "" and len(box.heards) == 1
