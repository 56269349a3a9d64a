"A grid of notebooks: killed and resumed, with a run that fails, and with two commands in one folder."
import json
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
from geomusic.files import InputError
from geomusic.grid import check_parameters, execute_run, read_grid, read_record, run_grid, template_parameters, write_metrics


def template(path, *cells):
    "A notebook whose first cell has the parameters"
    as_cell = lambda i, text: dict(cell_type="code", id=f"c{i}", metadata=dict(tags=["parameters"] if i == 0 else []), source=text, outputs=[], execution_count=None)  # noqa: E731
    meta = dict(kernelspec=dict(name="python3", display_name="python3", language="python"), language_info=dict(name="python"))
    path.write_text(json.dumps(dict(cells=[as_cell(i, c) for i, c in enumerate(cells)], metadata=meta, nbformat=4, nbformat_minor=5)))


COUNT = "import time\nfrom pathlib import Path\nfrom geomusic.grid import write_metrics\nPath(log).open('a').write(f'{depth} {seed}\\n')\ntime.sleep(wait_s)\nwhile seed and Path('gate').exists(): time.sleep(.02)\nassert depth < 3, 'too deep'"
END = "write_metrics(out, [dict(accuracy=1 - 1/(1 + depth))], globals())"


@pytest.fixture
def grid(tmp_path):
    "Three seeds; every execution writes a line to log.txt"
    template(tmp_path / "toy.ipynb", "depth = 1\nseed = 0\nwait_s = 0.\nlog = 'log.txt'\nout = ''", COUNT, END)
    (tmp_path / "toys.yaml").write_text("template: toy.ipynb\nbase: {wait_s: 1.0}\noverrides: {depth: [1]}\nseeds: [0, 1, 2]\n")
    return tmp_path


def command(folder, *words):
    code = "import sys, typer; from geomusic.grid import grid_command; typer.run(grid_command)"
    return subprocess.Popen([sys.executable, "-c", code, "toys.yaml", "--out", "runs", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def executions(folder):
    return (folder / "log.txt").read_text().splitlines() if (folder / "log.txt").exists() else []


def finished(folder):
    return [p for p in folder.glob("runs/*/record.json") if read_record(p.parent).get("status") == "finished"]


def until(true, limit_s=900):
    end = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_an_interrupted_grid_goes_on_and_does_nothing_twice(grid, how):
    (grid / "gate").touch()  # behind the first run: it cannot be over before the signal comes
    p = command(grid)
    until(lambda: len(finished(grid)) >= 1 and len(executions(grid)) >= 2)
    p.send_signal(how)
    p.communicate()
    (grid / "gate").unlink()
    done, begun = {q: q.read_bytes() for q in finished(grid)}, len(executions(grid))
    assert p.returncode != 0 and 1 <= len(done) < 3
    time.sleep(1.5)  # nobody goes on without the command
    assert len(executions(grid)) == begun and len(finished(grid)) == len(done)
    p = command(grid, "-j", "2")
    said, complaint = p.communicate()
    assert p.returncode == 0, complaint
    assert "3 finished" in said and all(q.read_bytes() == b for q, b in done.items())
    assert len(executions(grid)) == begun + 3 - len(done)
    results = pd.read_parquet(grid / "runs" / "results.parquet")
    assert sorted(zip(results.param_depth, results.seed, results.accuracy.round(3))) == [(1, 0, 0.5), (1, 1, 0.5), (1, 2, 0.5)]
    assert not list(grid.glob("runs/*/running.ipynb"))


def test_two_commands_in_one_folder_share_the_runs(grid):
    both = [command(grid), command(grid)]
    said = [p.communicate() for p in both]
    assert [p.returncode for p in both] == [0, 0], said
    assert sorted(executions(grid)) == ["1 0", "1 1", "1 2"]
    assert all("3 finished" in out for out, _ in said)
    assert len(pd.read_parquet(grid / "runs" / "results.parquet")) == 3


def test_a_failing_run_is_kept_and_the_others_go_on(grid, capsys):
    (grid / "toys.yaml").write_text(f"template: toy.ipynb\nbase: {{log: {grid}/log.txt}}\noverrides: {{depth: [3, 1]}}\n")
    table = run_grid(grid / "toys.yaml", n_jobs=2, out=grid / "runs", progress=False)
    assert table.status.tolist() == ["failed", "finished"] and table.error.iloc[0] == "AssertionError: too deep"
    failed = json.loads((grid / "runs" / table.index[0] / "failed.ipynb").read_text())
    assert any(o["output_type"] == "error" for c in failed["cells"] for o in c.get("outputs", []))
    assert len(pd.read_parquet(grid / "runs" / "results.parquet")) == 1
    p = command(grid)
    said, _ = p.communicate()
    assert p.returncode == 1 and "1 failed" in said and sorted(executions(grid)) == ["1 0", "3 0", "3 0"]  # only the failed one again


def test_a_run_whose_process_is_shot_is_a_failed_run(grid):
    template(grid / "toy.ipynb", "depth = 1\nseed = 0\nwait_s = 0.\nlog = ''\nout = ''", "import os, signal\nfrom geomusic.grid import write_metrics\nif depth == 1: os.kill(os.getppid(), signal.SIGKILL)", "print(wait_s, seed)", END)
    (grid / "toys.yaml").write_text("template: toy.ipynb\noverrides: {depth: [1, 2]}\n")
    table = run_grid(grid / "toys.yaml", out=grid / "runs", progress=False)
    assert table.status.tolist() == ["failed", "finished"] and "signal 9" in table.error.iloc[0]


@pytest.mark.parametrize("deaths, message, calls, told", [
    (2, "Kernel died before replying to kernel_info", 3, ""), (9, "Kernel died before replying to kernel_info", 3, "RuntimeError: Kernel died before replying to kernel_info"),
    (9, "out of memory", 1, "RuntimeError: out of memory")])
def test_a_kernel_that_never_began_is_started_again(grid, monkeypatch, deaths, message, calls, told):
    "Somebody else took its port; nothing was executed. Whatever else fails is not repeated"
    import papermill
    seen, real = [], papermill.execute_notebook
    def start(*a, **kw):
        seen.append(kw["start_timeout"])
        if len(seen) <= deaths: raise RuntimeError(message)
        return real(*a, **kw)
    monkeypatch.setattr(papermill, "execute_notebook", start)
    record = execute_run(read_grid(grid / "toys.yaml")[0] | dict(folder=str(grid / "run"), cwd=str(grid), wait=False))
    assert (record["status"], record["error"], len(seen)) == ("failed" if told else "finished", told, calls)
    assert (grid / "run" / ("failed.ipynb" if told else "notebook.ipynb")).exists() and len(executions(grid)) == (not told)


def test_the_record_and_the_table_say_what_made_a_number(grid):
    template(grid / "toy.ipynb", "seed = 0\nout = ''", "import os\nfrom geomusic.grid import write_metrics", "write_metrics(out, [dict(threads=os.environ['OMP_NUM_THREADS'], twice=2*seed)], globals())")
    (grid / "toys.yaml").write_text("template: toy.ipynb\nseeds: [4]\n")
    subprocess.run("git init -q . && git add toy.ipynb && git -c user.name=a -c user.email=a@b commit -qm x", shell=True, cwd=grid, check=True)
    run_grid(grid / "toys.yaml", out=grid / "runs", progress=False)
    row = pd.read_parquet(grid / "runs" / "results.parquet").iloc[0]
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=grid, capture_output=True, text=True).stdout.strip()
    run = read_grid(grid / "toys.yaml")[0]
    assert (row.run, row.config_hash, row.git_revision, row.git_dirty, row.seed) == (run["id"], run["config_hash"], head, False, 4)
    assert row.version_python == sys.version.split()[0] and row.version_torch and len(row.template_hash) == 64 and row.dur_s > 0 and (row.threads, row.twice) == ("1", 8)


def test_a_dry_run_checks_and_writes_nothing(grid):
    table = run_grid(grid / "toys.yaml", dry_run=True, out=grid / "runs")
    assert (table.status == "to do").all() and len(table) == 3 and not (grid / "runs").exists()
    p = command(grid, "--dry-run")
    said, _ = p.communicate()
    assert p.returncode == 0 and "3 to do" in said and not (grid / "runs").exists()


def test_a_finished_run_of_another_template_is_named(grid, capsys):
    (grid / "toys.yaml").write_text(f"template: toy.ipynb\nbase: {{log: {grid}/log.txt}}\n")
    run_grid(grid / "toys.yaml", out=grid / "runs", progress=False)
    template(grid / "toy.ipynb", "depth = 1\nseed = 0\nwait_s = 0.\nlog = 'log.txt'\nout = ''", COUNT, END + "\n")
    capsys.readouterr()
    run_grid(grid / "toys.yaml", out=grid / "runs", progress=False)
    assert "1 finished runs were made by another version" in capsys.readouterr().err and len(executions(grid)) == 1


def test_changed_settings_are_other_runs(grid):
    before = {r["id"] for r in read_grid(grid / "toys.yaml")}
    (grid / "toys.yaml").write_text((grid / "toys.yaml").read_text().replace("1.0", "2.5"))
    assert not before & {r["id"] for r in read_grid(grid / "toys.yaml")}


@pytest.mark.parametrize("text, told", [
    ("base: {dept: 2}", "Did you mean `depth`"), ("base: {depth: deep}", "must be int"), ("base: {depth: true}", "must be int"), ("base: {out: x}", "the grid itself sets"),
    ("base: {seed: 1}\nseeds: [1]", "the grid itself sets"), ("overrides: {depth: 2}", "is no list"), ("overrides: {a: [{depth: 1}], b: [{depth: 2}]}", "sets `depth` twice"),
    ("seeds: [1, 1]", "more than once"), ("overides: {depth: [1]}", "Did you mean `overrides`")])
def test_a_wrong_grid_is_refused_before_anything_runs(grid, text, told):
    (grid / "wrong.yaml").write_text(f"template: toy.ipynb\n{text}\n")
    with pytest.raises(InputError) as e:
        run_grid(grid / "wrong.yaml", out=grid / "runs")
    assert told in str(e.value) and not (grid / "runs").exists()


@pytest.mark.parametrize("cells, told", [
    (("a = 1", "print(2)"), "no later cell reads"), (("a = 1", "a = 2; print(a)"), "assigns its parameter"), (("a = 1", "print(a)\nfor a in b: pass"), "assigns"), (("a = [c]", "print(a)"), "literal")])
def test_a_parameter_that_would_be_lost_is_refused(tmp_path, cells, told):
    template(tmp_path / "t.ipynb", *cells)
    with pytest.raises(InputError, match=told):
        check_parameters(tmp_path / "t.ipynb", dict(a=5))


def test_a_local_name_is_not_the_parameter(tmp_path):
    template(tmp_path / "t.ipynb", "a: int = 1", "%matplotlib inline\nprint(a, [a for a in range(2)])\ndef f(a): a = 2")
    check_parameters(tmp_path / "t.ipynb", dict(a=5))
    assert template_parameters(tmp_path / "t.ipynb") == dict(a=1)


def test_results_must_be_plain(tmp_path):
    with pytest.raises(InputError, match="a row of results holds"):
        write_metrics(tmp_path, [dict(ci=(1, 2))], {})
    with pytest.raises(InputError, match="no results"):
        write_metrics(tmp_path, [], {})


def test_a_local_dask_cluster_does_the_same(grid):
    pytest.importorskip("distributed")
    (grid / "toys.yaml").write_text(f"template: toy.ipynb\nbase: {{log: {grid}/log.txt}}\nseeds: [0]\n")
    table = run_grid(grid / "toys.yaml", n_jobs=1, out=grid / "runs", progress=False, backend="dask", scheduler="local")
    assert (table.status == "finished").all() and len(executions(grid)) == 1


def test_the_grids_of_the_book_are_valid(root):
    for path in sorted((root / "grids").glob("*.yaml")):
        runs = read_grid(path)
        assert len({r["id"] for r in runs}) == len(runs) >= 1
    assert len(read_grid(root / "grids" / "folk_tunes_24.yaml")) >= 24
