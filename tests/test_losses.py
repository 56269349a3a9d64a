"Losses that know places: torch's own as the judge, answers by hand, both ends of every dial, and everything that `fit` will do to them."
import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from geomusic.config import LOSSES, check_loss, load_config
from geomusic.files import InputError
from geomusic.learning.losses import ExpectedKm, Hierarchical, SoftCrossEntropy, label_distances, make_loss, spread_targets
from geomusic.places import countries, expected_km
from geomusic.train import fit

LABELS = "AUS BRA DEU FRA GBR IRL JPN TWN USA XKX".split()
C = len(LABELS)
EVERY = [(n, {}) for n in LOSSES] + [("geo_smoothing", dict(kernel="von_mises_fisher", share=1)), ("expected_km", dict(alpha=1)), ("hierarchical", dict(level="continent"))]


def batch(seed=0, n=40, scale=3.0):
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(n, C, generator=g), torch.randint(C, (n,), generator=g), torch.rand(C, generator=g) + 0.2


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), smoothing=st.floats(0, 1), weighted=st.booleans())
def test_cross_entropy_is_torchs(seed, smoothing, weighted):
    z, y, w = batch(seed)
    w = w if weighted else None
    z.requires_grad_()
    ours, theirs = make_loss("cross_entropy", LABELS, weight=w, label_smoothing=smoothing)(z, y), F.cross_entropy(z, y, w, label_smoothing=smoothing)
    assert torch.allclose(ours, theirs, rtol=1e-5)
    assert torch.allclose(*(torch.autograd.grad(v, z)[0] for v in (ours, theirs)), atol=1e-7, rtol=1e-4)


def test_soft_targets_are_torchs_without_weights():
    z, _, _ = batch()
    soft = torch.rand(len(z), C).softmax(1)
    assert torch.allclose(make_loss("cross_entropy", LABELS, label_smoothing=0.2)(z, soft), F.cross_entropy(z, soft, label_smoothing=0.2))


@pytest.mark.parametrize("name,params", EVERY)
def test_soft_targets_equal_hard_ones_and_mix_between_them(name, params):
    z, y, w = batch()
    loss = make_loss(name, LABELS, params, w, 0.1)
    assert torch.allclose(loss(z, F.one_hot(y, C).double()), loss(z, y), rtol=1e-5)
    z, half = z[:1], 0.5 * (F.one_hot(torch.tensor([0]), C) + F.one_hot(torch.tensor([4]), C)).float()
    a, b = (loss(z, torch.tensor([c])) for c in (0, 4))
    assert torch.allclose(loss(z, half), (a * w[0] + b * w[4]) / (w[0] + w[4]), rtol=1e-5)


@pytest.mark.parametrize("name,params", EVERY)
def test_weights_are_means_by_class_and_no_scale(name, params):
    z, y, w = batch()
    assert torch.allclose(make_loss(name, LABELS, params, 7 * w)(z, y), make_loss(name, LABELS, params, w)(z, y), rtol=1e-5)
    alone, n = make_loss(name, LABELS, params), torch.zeros(C)
    only = n.clone()
    only[3] = 2.0  # all other classes count nothing
    if name != "geo_smoothing":  # its targets lie on other classes, whose weights count, as in torch's smoothing
        assert torch.allclose(make_loss(name, LABELS, params, only)(z, y), alone(z[y == 3], y[y == 3]), rtol=1e-5)


@pytest.mark.parametrize("kernel", ["exponential", "von_mises_fisher"])
def test_both_ends_of_the_scale(kernel):
    z, y, w = batch()
    ends = {s: make_loss("geo_smoothing", LABELS, dict(share=0.4, scale_km=s, kernel=kernel), w)(z, y) for s in (1e-9, 1e-2, 1e12, float("inf"))}
    for s in (1e-9, 1e-2):
        assert torch.allclose(ends[s], F.cross_entropy(z, y, w))
    for s in (1e12, float("inf")):
        assert torch.allclose(ends[s], F.cross_entropy(z, y, w, label_smoothing=0.4))
    assert torch.allclose(make_loss("geo_smoothing", LABELS, dict(share=0))(z, y), F.cross_entropy(z, y))


def test_targets_by_hand():
    km = np.array([[0, 1000, 2000], [1000, 0, 3000], [2000, 3000, 0.0]])
    e = np.exp(-np.arange(4.0))
    want = 0.5 * np.array([1, e[1], e[2]]) / (1 + e[1] + e[2]) + [0.5, 0, 0]
    assert np.allclose(spread_targets(km, 0.5, 1000)[0], want)
    vmf = np.exp((6371.0088 / 1000) ** 2 * (np.cos(km[2] / 6371.0088) - 1))
    assert np.allclose(spread_targets(km, 1, 1000, "von_mises_fisher")[2], vmf / vmf.sum())
    with pytest.raises(InputError, match="exponentail"):
        spread_targets(km, kernel="exponentail")


def test_von_mises_fisher_is_a_bell_curve_nearby():
    row = spread_targets(np.array([[0, 100.0], [100, 0]]), 1, 1000, "von_mises_fisher")[0]
    assert np.isclose(row[1] / row[0], np.exp(-0.5 * 0.1**2), rtol=1e-4)


def test_expected_km_is_that_of_places_and_of_one_hots():
    z, y, w = batch()
    at = countries().loc[LABELS]
    loss, d = make_loss("expected_km", LABELS, dict(alpha=1, unit_km=1)), label_distances(LABELS)
    by_place = expected_km(z.double().softmax(1).numpy(), at.lat_deg, at.lon_deg)[np.arange(len(y)), y]
    assert np.isclose(loss(z, y).item(), by_place.mean(), rtol=1e-5)
    for said in range(C):
        sure = 1e4 * F.one_hot(torch.full((C,), said), C).float()
        assert [loss(s[None], torch.tensor([c])).item() for c, s in enumerate(sure)] == pytest.approx(d[:, said], rel=1e-5)
    assert torch.allclose(make_loss("expected_km", LABELS, dict(alpha=0), w, 0.1)(z, y), F.cross_entropy(z, y, w, label_smoothing=0.1))
    mixed = make_loss("expected_km", LABELS, dict(alpha=0.3, unit_km=2000))(z, y)
    assert torch.allclose(mixed, 0.7 * F.cross_entropy(z, y) + 0.3 * loss(z, y) / 2000)


def test_the_unit_is_the_mean_distance_of_two_labels():
    d = label_distances(LABELS)
    assert make_loss("expected_km", LABELS).unit_km == pytest.approx(d[~np.eye(C, dtype=bool)].mean(), rel=1e-5)
    assert make_loss("expected_km", LABELS, dict(unit_km=500)).unit_km == 500


def test_expected_km_descends_towards_the_nearer_mistake():
    km = np.array([[0, 500, 9000], [500, 0, 9500], [9000, 9500, 0.0]])
    z = torch.zeros(1, 3, requires_grad=True)
    ExpectedKm(np.eye(3), km, alpha=1)(z, torch.tensor([0])).backward()
    assert z.grad[0, 0] < z.grad[0, 1] < 0 < z.grad[0, 2]  # up the truth, up its neighbour a little less, down the far one


def test_hierarchical_by_hand_and_its_limits():
    z, y, w = batch()
    p = z.double().softmax(1)
    sub = countries().loc[LABELS, "subregion"].to_numpy(str)
    same = torch.tensor(sub[:, None] == sub)
    by_hand = -(p[torch.arange(len(y)), y].log() + 2 * (p * same[y]).sum(1).log())
    assert torch.allclose(make_loss("hierarchical", LABELS, dict(region_weight=2))(z, y).double(), by_hand.mean(), rtol=1e-5)
    want = (by_hand * w[y]).sum() / w[y].sum()
    assert torch.allclose(make_loss("hierarchical", LABELS, dict(region_weight=2), w)(z, y).double(), want.double(), rtol=1e-5)
    assert torch.allclose(Hierarchical(np.eye(C), ["one"] * C)(z, y), F.cross_entropy(z, y))
    assert torch.allclose(Hierarchical(np.eye(C), LABELS)(z, y), 2 * F.cross_entropy(z, y))
    assert make_loss("hierarchical", LABELS).regions == sorted(set(sub)) and len(set(sub)) > 5
    assert make_loss("hierarchical", LABELS, dict(level="continent")).regions == ["Americas", "Asia", "Europe", "Oceania"]
    total = make_loss("hierarchical", LABELS).region_logp(z.log_softmax(1)).exp().sum(1)
    assert torch.allclose(total, torch.ones(len(z)))


@pytest.mark.parametrize("name,params", EVERY)
@pytest.mark.parametrize("scale", [1e3, 1e6, 1e30])
def test_absurd_logits(name, params, scale):
    z, y, w = batch(scale=scale)
    z.requires_grad_()
    value = make_loss(name, LABELS, params, w, 0.05)(z, y)
    value.backward()
    assert value.isfinite() and z.grad.isfinite().all()


@pytest.mark.parametrize("name,params", EVERY)
def test_gradients_are_those_of_finite_differences(name, params):
    z, y, w = batch(n=3, scale=1.0)
    assert torch.autograd.gradcheck(make_loss(name, LABELS, params, w, 0.1).double(), (z.double().requires_grad_(), y))


@pytest.mark.parametrize("name,params", EVERY)
def test_half_precision_loses_nothing_in_the_loss(name, params):
    z, y, w = batch()
    loss, soft = make_loss(name, LABELS, params, w), F.one_hot(y, C).float()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(z, soft), loss(z, F.one_hot(y, C).double())) and loss(z, soft).dtype == torch.float32
        inside = loss(z, soft)
    assert torch.equal(inside, loss(z, soft))
    assert loss(z.bfloat16(), y).dtype == torch.float32


@pytest.mark.parametrize("name,params", EVERY)
def test_state_lies_in_buffers(name, params):
    z, y, w = batch()
    loss = make_loss(name, LABELS, params, w, 0.1)
    want = loss(z, y)
    assert not list(loss.parameters()) and loss.state_dict()
    assert all(v.is_meta for v in copy.deepcopy(loss).to("meta").state_dict().values())
    tensors = {k for m in loss.modules() for k, v in vars(m).items() if isinstance(v, torch.Tensor)}
    assert not tensors  # nothing would stay behind on the old device
    assert torch.equal(pickle.loads(pickle.dumps(loss))(z, y), want) and torch.equal(copy.deepcopy(loss)(z, y), want)
    other = make_loss(name, LABELS, params)
    other.load_state_dict(loss.state_dict())
    assert torch.equal(other(z, y), want)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name,params", EVERY)
def test_on_a_gpu(name, params):
    z, y, w = batch()
    loss = make_loss(name, LABELS, params, w, 0.1)
    want = loss(z, y)
    assert torch.allclose(loss.cuda()(z.cuda(), y.cuda()).cpu(), want, rtol=1e-5)


def test_order_of_labels_is_that_of_the_logits():
    z, y, _ = batch()
    turn = torch.randperm(C, generator=torch.Generator().manual_seed(1))
    back = turn.argsort()
    for name, params in EVERY:
        a, b = make_loss(name, LABELS, params)(z, y), make_loss(name, [LABELS[i] for i in turn], params)(z[:, turn], back[y])
        assert torch.allclose(a, b, rtol=1e-5), name


@pytest.mark.parametrize("name", [n for n in LOSSES if n != "cross_entropy"])
@pytest.mark.parametrize("labels,said", [(["IRL", "Celtic"], "Celtic"), (["unknown", "IRL"], "unknown"), (["IRL", ""], "``"), (["IRL", "Ireland"], "`Ireland`"), (["IRL", None], "None")])
def test_labels_without_a_place(name, labels, said):
    with pytest.raises(InputError, match=said) as e:
        make_loss(name, labels)
    assert name in str(e.value) and "cross_entropy" in e.value.remedy
    assert make_loss("cross_entropy", labels)(torch.zeros(1, 2), torch.tensor([1])).item() == pytest.approx(np.log(2))


@pytest.mark.parametrize("name,params,said", [
    ("geo_smothing", {}, "Did you mean `geo_smoothing`"), ("geo_smoothing", dict(scal_km=1), "Did you mean `scale_km`"), ("geo_smoothing", dict(scale_km=0), "scale_km"),
    ("geo_smoothing", dict(scale_km=float("nan")), "scale_km"), ("geo_smoothing", dict(share=1.1), "share"), ("geo_smoothing", dict(kernel="box"), "kernel"),
    ("expected_km", dict(alpha=-0.1), "alpha"), ("expected_km", dict(unit_km=0), "unit_km"), ("hierarchical", dict(region_weight=-1), "region_weight"),
    ("hierarchical", dict(level="planet"), "level"), ("cross_entropy", dict(alpha=1), "alpha")])
def test_wrong_settings(name, params, said):
    with pytest.raises(InputError, match=said):
        check_loss(name, params)
    with pytest.raises(InputError, match=said):
        make_loss(name, LABELS, params)


@pytest.mark.parametrize("weight,said", [([1.0, 2], "2 class weights"), ([1.0] * 9 + [np.nan], "finite"), ([-1.0] + [1] * 9, "negative"), ([0.0] * 10, "zero")])
def test_wrong_weights(weight, said):
    with pytest.raises(InputError, match=said):
        make_loss("cross_entropy", LABELS, weight=weight)


def test_other_misfits():
    with pytest.raises(InputError, match="label_smoothing"):
        make_loss("cross_entropy", LABELS, label_smoothing=1.5)
    with pytest.raises(InputError, match="3 logits a row for 10"):
        make_loss("cross_entropy", LABELS)(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="two or more"):
        make_loss("expected_km", ["IRL"])


def test_a_network_learns_the_geography():
    "Where the data cannot tell countries apart, expected_km says the one in the middle, cross-entropy the most frequent one"
    labels, y = ["JPN", "DEU", "FRA", "GBR"], torch.tensor([0] * 4 + [1] * 3 + [2] * 3 + [3] * 2)
    said = {}
    for name, params in (("cross_entropy", {}), ("expected_km", dict(alpha=1))):
        logits, loss = torch.nn.Parameter(torch.zeros(4)), make_loss(name, labels, params)
        opt = torch.optim.Adam([logits], 0.1)
        for _ in range(300):
            opt.zero_grad()
            loss(logits.expand(len(y), 4), y).backward()
            opt.step()
        said[name] = labels[logits.argmax()]
    cost = label_distances(labels)[y].mean(0)
    assert said == dict(cross_entropy="JPN", expected_km=labels[cost.argmin()]) and cost.argmin() != 0


def test_one_that_others_build_on_takes_arrays_and_tensors():
    z, y, _ = batch()
    for t in (np.eye(C), torch.eye(C), np.eye(C, dtype=np.float32)):
        assert torch.allclose(SoftCrossEntropy(t)(z, y), F.cross_entropy(z, y))


@pytest.mark.parametrize("name,params", EVERY)
def test_parts_add_up_over_processes_and_rows_weigh(name, params):
    z, y, w = batch()
    loss, v = make_loss(name, LABELS, params, w, 0.1), torch.rand(len(z), generator=torch.Generator().manual_seed(3))
    whole, parts = loss(z, y, v), [loss.parts(z[i], y[i], v[i]) for i in (slice(0, 7), slice(7, None))]
    assert torch.allclose(sum(c.sum() for c, _ in parts) / sum(n.sum() for _, n in parts), whole, rtol=1e-5)
    twice = torch.cat([torch.arange(len(z)), torch.arange(7)])
    assert torch.allclose(loss(z[twice], y[twice]), loss(z, y, 1 + (torch.arange(len(z)) < 7).float()), rtol=1e-5)
    assert not torch.allclose(whole, loss(z, y), rtol=1e-3)


@pytest.mark.parametrize("name,params", EVERY)
def test_shift_is_added_to_the_logits(name, params):
    z, y, w = batch()
    loss, by = make_loss(name, LABELS, params, w), torch.linspace(-2, 2, C)
    want = loss(z + by, y)
    loss.shift += by
    assert torch.allclose(loss(z, y), want) and "shift" in loss.state_dict()


def test_fit_uses_the_loss_of_the_settings():
    rng, labels = np.random.default_rng(0), ["FRA", "GBR", "JPN"]
    y = rng.integers(3, size=240)
    x, split = (np.eye(3)[y] + rng.normal(size=(240, 3))).astype(np.float32), np.where(np.arange(240) < 160, "train", "val")
    losses = {}
    for name, params in (("cross_entropy", {}), ("expected_km", dict(alpha=1)), ("geo_smoothing", dict(share=1)), ("hierarchical", {})):
        config = load_config(dict(training=dict(loss=name, loss_params=params, num_epochs=2), model=dict(params=dict(widths=[8]))))
        run = fit(x, np.array(labels)[y], split, config, progress=False)
        val = split == "val"
        want = make_loss(name, labels, params)(torch.from_numpy(run.logits(x[val])), torch.from_numpy(y[val])).item()
        losses[name] = run.history.val_loss.min()
        assert losses[name] == pytest.approx(want, rel=1e-4)
    assert len({round(v, 3) for v in losses.values()}) == 4
    with pytest.raises(InputError, match="Celtic"):
        fit(x, np.array(["FRA", "GBR", "Celtic"])[y], split, load_config(dict(training=dict(loss="expected_km"))), progress=False)
