"Calibration: bins by hand and against scikit-learn, temperatures with known answers, regions, all bad input."
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from geomusic.evaluate import predictions_table
from geomusic.files import InputError
from geomusic.judging.calibration import (T_RANGE, apply_temperature, calibrate, calibration_bins, calibration_by_region, calibration_error, fit_temperature,
                                          label_regions, reliability_figure)
from geomusic.scores import certainty_gaps

FIVE = ["IRL", "ITA", "MLI", "PER", "BRA"]


def honest(n=4000, c=5, seed=0, scale=0.7):
    "Probabilities, and truths drawn from them"
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(c, scale), n)
    return p, (rng.random((n, 1)) > p.cumsum(1)[:, :-1]).sum(1)


def table(p, y, groups=None, labels=FIVE):
    n = len(y)
    tracks = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(n)], group=np.arange(n) if groups is None else groups, country=np.array(labels)[y]))
    return predictions_table(tracks, p, labels)


def test_bins_by_hand():
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5], [1.0, 0.0]])
    b = calibration_bins(p, np.array([0, 1, 1, 0, 0]), bins=5)
    assert b.n.tolist() == [0, 0, 2, 0, 3]
    assert np.allclose(b.confidence[[2, 4]], [0.55, 2.8 / 3]) and np.allclose(b.accuracy[[2, 4]], [0.75, 2 / 3])
    assert np.isclose(calibration_error(b), (2 * 0.2 + 3 * (2.8 / 3 - 2 / 3)) / 5)
    assert np.allclose(b.from_p, [0, 0.2, 0.4, 0.6, 0.8]) and np.allclose(b.to_p, [0.2, 0.4, 0.6, 0.8, 1])


def test_bins_against_scikit_learn():
    p, y = honest()
    b = calibration_bins(p, y, 15).dropna()
    right, sure = calibration_curve(p.argmax(1) == y, p.max(1), n_bins=15)
    assert np.allclose(b.accuracy, right) and np.allclose(b.confidence, sure)


def test_the_same_error_as_in_the_scores():
    p, y = honest(seed=5)
    p = p.round(2) + 0.001  # ties and bin edges
    p /= p.sum(1, keepdims=True)
    assert np.isclose(calibration_error(calibration_bins(p, y)), np.abs(certainty_gaps(p, y).sum(0)).sum() / len(y))


def test_groups_widen_the_intervals_and_nothing_else():
    p, y = honest(400)
    alone, grouped = calibration_bins(p, y, 5), calibration_bins(p, y, 5, groups=np.arange(400) // 8)
    same = ["n", "confidence", "accuracy", "gap"]
    pd.testing.assert_frame_equal(alone[same], grouped[same])
    seen = alone.n > 20
    assert ((grouped.hi - grouped.lo)[seen] >= (alone.hi - alone.lo)[seen]).all() and (grouped.hi - grouped.lo)[seen].sum() > 1.05 * (alone.hi - alone.lo)[seen].sum()


def test_temperature_is_division_of_the_logits():
    z = np.random.default_rng(0).normal(0, 4, (200, 7))
    for t in (0.2, 1, 3.3):
        assert np.allclose(apply_temperature(softmax(z, 1), t), softmax(z / t, 1))
    assert np.allclose(apply_temperature(np.array([[1, 0, 0.0]]), 7), [[1, 0, 0]])
    tiny = np.array([[1 - 1e-300, 1e-300]])
    assert np.isfinite(apply_temperature(tiny, 0.01)).all()


def test_temperature_by_hand():
    p, y = np.repeat([[0.8, 0.2]], 10, axis=0), np.repeat([0, 1], [6, 4])
    assert np.isclose(fit_temperature(p, y), np.log(4) / np.log(1.5), rtol=1e-4)
    votes = fit_temperature(np.repeat(p, 2, axis=0)[:11], np.repeat([0, 1], [7, 4]), [0] * 5 + [1, 2, 3, 4, 5, 6])  # 3 groups say the first, 4 the second: flat
    assert votes > T_RANGE[1] * 0.99
    one = fit_temperature(p, y, np.arange(10))
    assert np.isclose(one, fit_temperature(p, y)) and np.isclose(one, fit_temperature(np.vstack([p, p]), np.tile(y, 2), np.tile(np.arange(10), 2)))


def test_temperature_is_the_least_log_loss():
    z = np.random.default_rng(1).normal(0, 3, (3000, 6))
    y = np.array([np.random.default_rng(i).choice(6, p=p) for i, p in enumerate(softmax(z / 2.5, 1))])
    t = fit_temperature(softmax(z, 1), y)
    assert 2.2 < t < 2.8
    loss = [-log_softmax(z / s, 1)[np.arange(3000), y].mean() for s in (t * 0.98, t, t * 1.02)]
    assert loss[1] < loss[0] and loss[1] < loss[2] and np.isclose(loss[1], log_loss(y, apply_temperature(softmax(z, 1), t)))


def test_temperature_against_scikit_learn():
    sk = pytest.importorskip("sklearn", "1.8")
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.frozen import FrozenEstimator
    from sklearn.linear_model import LogisticRegression
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=600)
    x = np.eye(3)[y] + rng.normal(0, 1, (600, 3))
    model = LogisticRegression(C=1e3).fit(x[:60], y[:60])
    scaled = CalibratedClassifierCV(FrozenEstimator(model), method="temperature").fit(x[60:], y[60:])
    ours = apply_temperature(model.predict_proba(x[60:]), fit_temperature(model.predict_proba(x[60:]), y[60:]))
    assert sk and np.allclose(scaled.predict_proba(x[60:]), ours, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.2, 5))
def test_a_distortion_is_undone(seed, t):
    p, y = honest(300, seed=seed, scale=2)
    there = apply_temperature(p, t)
    assert np.allclose(apply_temperature(there, 1 / t), p, atol=1e-9) and (there.argmax(1) == p.argmax(1)).all()
    own = fit_temperature(p, y)
    if T_RANGE[0] * 1.1 < own / t < T_RANGE[1] / 1.1 and T_RANGE[0] * 1.1 < own < T_RANGE[1] / 1.1:
        assert np.isclose(fit_temperature(there, y), own / t, rtol=1e-3)


def test_zeros_and_even_rows():
    p, y = honest(200)
    t = fit_temperature(p, y)
    never = np.vstack([p, np.tile([1.0, 0, 0, 0, 0], (50, 1))])  # truths of probability zero have no say
    assert np.isclose(fit_temperature(never, np.r_[y, np.ones(50, int)]), t)
    assert fit_temperature(np.full((9, 5), 0.2), np.zeros(9, int)) == 1
    assert fit_temperature(np.eye(5), np.arange(5)) <= T_RANGE[1]  # only certain and right: any temperature is the same
    assert fit_temperature(p, p.argmax(1)) < T_RANGE[0] * 1.05 and fit_temperature(p, p.argmin(1)) > T_RANGE[1] * 0.95


def test_calibrate_keeps_the_rest():
    p, y = honest(50)
    before = table(p, y).assign(point_lat_deg=1.0, point_lon_deg=2.0)
    copy = before.copy()
    after = calibrate(before, 0.5)
    assert list(after) == list(before) and np.allclose(after.filter(regex="^p_"), apply_temperature(p, 0.5))
    rest = [c for c in before if not c.startswith("p_")]
    pd.testing.assert_frame_equal(after[rest], before[rest])
    pd.testing.assert_frame_equal(before, copy)
    shuffled = calibrate(before.sample(frac=1, random_state=0), 0.5)
    pd.testing.assert_frame_equal(shuffled.sort_index(), after)


def test_regions_by_hand():
    p = np.array([[0.6, 0.4, 0, 0, 0], [0.6, 0.4, 0, 0, 0], [0, 0, 0.7, 0.3, 0], [0, 0, 0, 0.2, 0.8]])
    t = table(p, np.array([0, 1, 3, 4]), groups=["a", "b", "c", "c"])
    by = calibration_by_region(t, "continent", n_bootstrap=50)
    assert by.n.to_dict() == {"Europe": 2, "Africa": 1, "Americas": 1} and by.n_groups.Europe == 2
    assert np.isclose(by.gap.Europe, 0.5 - 0.6) and np.isclose(by.gap.Africa, -0.7) and np.isclose(by.gap.Americas, 0.2) and np.isnan(by.lo.Africa)
    assert by.index[0] == "Africa" and by.index.name == "continent" and by.lo.Europe <= by.gap.Europe <= by.hi.Europe
    of_truth = calibration_by_region(t, "continent", of="truth", n_bootstrap=50)
    assert of_truth.n.to_dict() == {"Europe": 2, "Americas": 2} and np.isclose(of_truth.gap.Americas, (-0.7 + 0.2) / 2)
    assert label_regions(FIVE).tolist() == ["Northern Europe", "Southern Europe", "Western Africa", "South America", "South America"]


def test_figure_says_what_the_bins_say():
    p, y = honest(500)
    t = table(p, y)
    fig = reliability_figure({"a": t, "b": calibrate(t, 3)}, bins=10, title="both")
    ax, low = fig.axes
    b = calibration_bins(p, y, 10, t.group).dropna()
    assert np.allclose(ax.lines[1].get_xydata(), b[["confidence", "accuracy"]]) and ax.get_title() == "both"
    assert [x.get_text()[:6] for x in ax.get_legend().get_texts()] == ["a: ECE", "b: ECE"]
    assert np.isclose(sum(low.patches[0].get_data().values), 1)
    with pytest.raises(InputError, match="5 models"):
        reliability_figure({str(i): t for i in range(5)})


P, Y = honest(20)


@pytest.mark.parametrize("call, match", [
    (lambda: calibration_bins(P * 2, Y), "sum to 2"),
    (lambda: calibration_bins(np.log(P), Y), "not negative"),
    (lambda: calibration_bins(np.where(P == P.max(), np.nan, P), Y), "finite"),
    (lambda: calibration_bins(P, Y[:3]), "20 rows of probabilities"),
    (lambda: calibration_bins(P, Y + 1.0), "numbers of countries"),
    (lambda: calibration_bins(P, Y - 1), "numbers of countries"),
    (lambda: calibration_bins(P, Y + 4), "numbers of countries"),
    (lambda: calibration_bins(P[:, :1], Y), "two countries"),
    (lambda: calibration_bins(P[:0], Y[:0]), "no table"),
    (lambda: calibration_bins(P, Y, 0), "0 bins"),
    (lambda: calibration_bins(P, Y, groups=[1, 2]), "2 groups for 20 rows"),
    (lambda: calibration_bins(P, Y, groups=[None] * 20), "20 rows have no group"),
    (lambda: fit_temperature(np.array([[0.0, 1], [1, 0]]), np.array([0, 1])), "probability of zero"),
    (lambda: apply_temperature(P, 0), "temperature of 0"),
    (lambda: apply_temperature(P, np.nan), "temperature of nan"),
    (lambda: apply_temperature(P, -1), "temperature of -1"),
    (lambda: calibrate(table(P, Y).drop(columns="group"), 1), "`group`"),
    (lambda: calibration_by_region(table(P, Y), "village"), "village"),
    (lambda: calibration_by_region(table(P, Y), of="guess"), "unknown side"),
    (lambda: calibration_by_region(table(P, Y, labels=["IRL", "ITA", "MLI", "PER", "Celtic"])), "known for Celtic"),
])
def test_bad_input(call, match):
    with pytest.raises(InputError, match=match):
        call()
