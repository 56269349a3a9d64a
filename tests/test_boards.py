"Nested folds, products of rivals, boards and the commands compare and leaderboard."
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from geomusic.cli import main
from geomusic.evaluate import predictions_table
from geomusic.files import InputError
from geomusic.judging.boards import BOARDS, RIVALS, Board, board_table, judge_seed, pins, read_results, sphere_row, write_table
from geomusic.judging.nested import could_know, fit_product, make_folds, nested_proba, pooled, product
from geomusic.places import countries, great_circle_km


def line(x, y, groups, seed):
    return LogisticRegression().fit(x, y)


@pytest.fixture(scope="module")
def toy():
    "Three countries, 40 groups of three rows, features that tell them apart a little"
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 3)
    y = np.array(["FRA", "ITA", "CHL"])[group % 3]
    x = rng.normal(size=(120, 4)) + 1.2 * np.eye(4)[np.unique(y, return_inverse=True)[1]]
    t = pd.DataFrame(dict(track_id=[f"t{i}" for i in range(120)], country=y, group=group))
    t[["lat_deg", "lon_deg"]] = countries().loc[y, ["lat_deg", "lon_deg"]].to_numpy()
    return Board("toy", t, x, ("logistic_regression",), ("majority",), True, 4, 3)


# ---- folds


@pytest.mark.parametrize("grouped", [False, True])
def test_folds_are_stratified_and_keep_groups_whole(toy, grouped):
    groups = toy.tracks.group if grouped else None
    fold = make_folds(toy.tracks.country, groups, 4, 1)
    assert set(fold) == {0, 1, 2, 3}
    counts = pd.crosstab(fold, toy.tracks.country)
    assert (counts.max() - counts.min() <= (3 if grouped else 1)).all()
    if grouped:
        assert (pd.Series(fold).groupby(toy.tracks.group).nunique() == 1).all()
    assert not np.array_equal(fold, make_folds(toy.tracks.country, groups, 4, 2))


@pytest.mark.parametrize("k", [0, 1, 41])
def test_impossible_folds(toy, k):
    with pytest.raises(InputError, match="folds"):
        make_folds(toy.tracks.country, toy.tracks.group, k)


def test_a_small_class_is_dealt_out_without_a_warning(recwarn):
    fold = make_folds(["a"] * 20 + ["b"] * 3, None, 5)
    assert len(set(fold[20:])) == 3 and not recwarn.list


# ---- nothing judged was seen


def test_no_row_is_answered_by_a_model_that_saw_it(toy):
    "A rival that writes down its rows, and answers with how many of the asked ones it knows"
    class Memory:
        def __init__(self, x, y): self.classes_, self.seen = np.unique(y), {r.tobytes() for r in x}
        def predict_proba(self, x):
            knows = np.array([r.tobytes() in self.seen for r in x], float)
            return np.column_stack([knows] + [(1 - knows) / (len(self.classes_) - 1)] * (len(self.classes_) - 1))
    said = nested_proba(lambda x, y, g, s: Memory(x, y), toy.x, toy.tracks.country, toy.tracks.group, 4, 3)
    assert (said.proba[:, :, 0] == 0).all()
    assert np.isfinite(said.proba).all() and said.proba.shape == (4, 120, 3)
    fold_groups = [set(toy.tracks.group[said.fold == i]) for i in range(4)]
    assert all(a.isdisjoint(b) for i, a in enumerate(fold_groups) for b in fold_groups[:i])


def test_a_class_that_a_fold_lacks_has_probability_zero():
    x, y = np.arange(12.0)[:, None], np.array(["a"] * 6 + ["b"] * 5 + ["c"])
    said = nested_proba(line, x, y, k=3, inner=0)
    rare = said.judged()[11]
    assert rare[2] == 0 and np.isclose(rare.sum(), 1, atol=1e-6)


def test_one_class_is_refused():
    with pytest.raises(InputError, match="one class|of the class"):
        nested_proba(line, np.zeros((8, 1)), ["a"] * 8, k=2)
    with pytest.raises(InputError, match="without fold"):
        nested_proba(line, np.arange(4.0)[:, None], ["a", "a", "a", "b"], [0, 0, 0, 1], k=2, inner=0)


# ---- products


def test_powers_are_those_of_least_log_loss():
    rng = np.random.default_rng(3)
    z, y = rng.normal(size=(400, 3)), rng.integers(3, size=400)
    z[np.arange(400), y] += 1.5
    p = softmax(3 * z, axis=1)
    loss = lambda w: -np.log(product([p], [w])[np.arange(400), y]).mean()
    assert np.isclose(fit_product([p], y)[0], minimize_scalar(loss, bounds=(0, 5), method="bounded").x, atol=1e-3)


def test_a_product_by_hand():
    a, b = np.array([[0.5, 0.25, 0.25]]), np.array([[0.2, 0.2, 0.6]])
    by_hand = a**1 * b**2 / (a**1 * b**2).sum()
    assert np.allclose(product([a, b], [1, 2]), by_hand)


def test_the_powers_of_a_fold_do_not_know_its_rows(toy):
    said = nested_proba(line, toy.x, toy.tracks.country, toy.tracks.group, 4, 3)
    powers = pooled([said], toy.tracks.country)[1]
    changed = said.proba.copy()
    changed[0, said.fold == 0] = 1 / 3  # what is judged in fold 0
    assert np.array_equal(pooled([said._replace(proba=changed)], toy.tracks.country)[1], powers)


def test_a_class_that_nobody_could_know_does_not_flatten_the_others(toy):
    "One group holds all of a fourth class: where it is held back its rows lose as much as can be lost, whatever the power"
    x, y = np.vstack([toy.x, toy.x[:12]]), np.r_[toy.tracks.country, ["ZZZ"] * 12]
    groups = np.r_[toy.tracks.group.astype(str), ["alone"] * 12]
    said, known = nested_proba(line, x, y, groups, 4, 3), could_know(y, groups, 4, 3)
    assert known[:, y != "ZZZ"].all() and (known[:, y == "ZZZ"].sum(0) == 1).all()
    assert (pooled([said], y, known)[1] > 1.2 * pooled([said], y)[1]).any() and (pooled([said], y, known)[1] >= pooled([said], y)[1] - 1e-3).all()


def test_rivals_of_other_folds_are_not_multiplied(toy):
    a = nested_proba(line, toy.x, toy.tracks.country, toy.tracks.group, 4, 3, seed=0)
    b = nested_proba(line, toy.x, toy.tracks.country, toy.tracks.group, 4, 3, seed=1)
    with pytest.raises(InputError, match="different folds"):
        pooled([a, b], toy.tracks.country)
    with pytest.raises(InputError, match="no inner folds"):
        pooled([nested_proba(line, toy.x, toy.tracks.country, toy.tracks.group, 4, 0)], toy.tracks.country)


# ---- boards


def test_pins_are_places_of_training_rows(toy):
    t = toy.tracks.assign(lat_deg=toy.tracks.lat_deg.where(toy.tracks.country != "CHL", -33.0 - np.arange(120) / 1000))
    board = Board("moved", t, toy.x, (), (), True, 4, 0)
    fold = make_folds(t.country, t.group, 4)
    sure = np.eye(3)[np.unique(t.country, return_inverse=True)[1]]
    at = pins(board, sure, fold, np.unique(t.country))
    for i in range(4):
        rest = t[(fold != i) & (t.country == "CHL")]
        mine = at[(fold == i) & (t.country == "CHL").to_numpy()]
        assert np.allclose(mine[:, 0], rest.lat_deg.mean(), atol=1e-3), "the mean of the other folds' rows"
    french = (t.country == "FRA").to_numpy()
    assert great_circle_km(*at[french].T, t.lat_deg[french], t.lon_deg[french]).max() < 1e-3


def test_a_seed_of_a_board(toy, tmp_path):
    rows = judge_seed(toy, 0, tmp_path, n_bootstrap=20).set_index("model")
    assert list(rows.index) == ["majority", "logistic_regression", "logistic_regression, sharpened"]
    assert rows.accuracy["logistic_regression"] == rows.accuracy["logistic_regression, sharpened"] > rows.accuracy["majority"]
    assert (rows.n == 120).all() and (rows.n_groups == 40).all() and rows.config.nunique() == 2
    assert np.isfinite(sphere_row(toy, 0)["km_mean"])


def test_every_board_and_rival_is_named_in_the_chapter(root):
    text = (root / "nbs" / "judging" / "09_boards.ipynb").read_text()
    assert all(name.split("_")[0] in text for name in [*BOARDS, *RIVALS])


def test_committed_results_are_whole(root):
    files = sorted((root / "nbs" / "results" / "boards").glob("*.csv"))
    assert files and {f.stem for f in files} <= set(BOARDS)
    for f in files:
        t = read_results(f)
        assert (t.board == f.stem).all() and t.accuracy.dropna().between(0, 1).all() and (t.config.fillna("") != "")[t.kind != "as it is"].all()
        assert set(t[t.kind == "simple"].model) <= {"chance", "majority", "stratified", "knn"} and t.groupby("model").seed.nunique().nunique() == 1


# ---- the commands


@pytest.fixture
def judged(tmp_path, toy):
    "Two models' predictions on the same rows, in run folders"
    rng, labels = np.random.default_rng(0), ["CHL", "FRA", "ITA"]
    y = np.unique(toy.tracks.country, return_inverse=True)[1]
    for name, skill in (("good", 3.0), ("bad", 0.0)):
        z = rng.normal(size=(120, 3)) + skill * np.eye(3)[y]
        folder = tmp_path / name / "evaluation"
        folder.mkdir(parents=True)
        predictions_table(toy.tracks, softmax(z, axis=1), labels).to_parquet(folder / "predictions.parquet")
    return tmp_path


def run(*words):
    with pytest.raises(SystemExit) as e:
        main([str(w) for w in words])
    return e.value.code


def test_compare_says_better_where_it_is(judged, capsys):
    assert run("compare", judged / "good", judged / "bad", "--metrics", "accuracy", "--n_bootstrap", 200, "--out", judged / "out") == 0
    assert "good better than bad" in capsys.readouterr().out
    assert pd.read_csv(judged / "out" / "comparison.csv").verdict[0] == "good better than bad" and (judged / "out" / "comparison_accuracy.png").stat().st_size > 5000


def test_compare_refuses(judged, capsys):
    assert run("compare", judged / "good") == 2 and "cannot be compared" in capsys.readouterr().err
    assert run("compare", judged / "good", judged / "none") == 2 and "holds no predictions.parquet" in capsys.readouterr().err
    path = judged / "bad" / "evaluation" / "predictions.parquet"
    pd.read_parquet(path).iloc[1:].to_parquet(path)
    assert run("compare", judged / "good", judged / "bad") == 2 and "t0" in capsys.readouterr().err


def test_a_leaderboard_in_three_forms(tmp_path, capsys):
    t = pd.DataFrame(dict(model=["a & b", "a & b", "<c>", "<c>"], seed=[0, 1, 0, 1], accuracy=[0.5, 0.7, 0.8, 0.8], km_mean=[900.0, 1100, 100, 100]))
    t.to_csv(tmp_path / "r.csv", index=False)
    for form in ("html", "tex", "csv"):
        assert run("leaderboard", tmp_path / "r.csv", "--metrics", "accuracy,km_mean", "--out", tmp_path / f"t.{form}") == 0
    out = capsys.readouterr().out
    assert out.index("<c>") < out.index("a & b"), "best first"
    assert "&lt;c&gt;" in (tmp_path / "t.html").read_text() and r"a \& b" in (tmp_path / "t.tex").read_text()
    assert pd.read_csv(tmp_path / "t.csv").iloc[0, 0] == "<c>"


@pytest.mark.parametrize("content,said", [("model,seed\n", "accuracy"), ("a,b\n1,2\n", "no column `model`"), ("model,seed,accuracy\nx,0,.5\nx,0,.6\n", "twice"), ("", "is no table")])
def test_bad_results(tmp_path, content, said, capsys):
    (tmp_path / "r.csv").write_text(content)
    assert run("leaderboard", tmp_path / "r.csv", "--metrics", "accuracy") == 2
    assert said in capsys.readouterr().err


def test_a_table_ranks_by_the_right_end():
    t = pd.DataFrame(dict(model=list("aabb"), seed=[0, 1, 0, 1], log_loss=[1.0, 1.2, 2.0, 2.2], accuracy=[0.1, 0.2, 0.3, 0.4]))
    assert list(board_table(t, ["log_loss"]).index) == ["a", "b"] and list(board_table(t, ["accuracy"]).index) == ["b", "a"]
    with pytest.raises(InputError, match="neither"):
        write_table(board_table(t, ["accuracy"]), "table.doc")
