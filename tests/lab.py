"""A real JupyterLab in a real browser, for tests of what is to be touched.

    from lab import lab, chromium, open_notebook  # the fixtures; also CHROMIUM, screenshot

    def test_it(open_notebook):
        page = open_notebook("nbs/exploring/08_listening_test.ipynb")   # or a list of cells: ["1 + 1", "import geomusic"]
        page.run_all()
        page.locator("text=Begin").click()
        page.shot("listening")
        assert page.trouble == []

The server listens on loopback only, on a free port and with a random token, and shows copies: nothing that is done there changes the checkout. Requests to
anywhere else are refused and noted in `page.trouble`, with errors of scripts. Everything is skipped where Chromium or playwright is missing.
Set GEOMUSIC_SCREENSHOTS to a folder to keep pictures of what was seen.
"""
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import MethodType
from urllib.parse import quote, urlparse

import pytest
from conftest import ROOT

PATIENCE_MS = 300_000  # of a browser. A machine that is busy elsewhere can be ten times slower for a minute; what is there is not waited for
CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
FLAGS = ("--no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-quic --no-first-run --disable-background-networking --disable-component-update "
         "--disable-sync --autoplay-policy=no-user-gesture-required").split()
QUIET = ("Jupyter", "MathJax", "Permissions policy", "Source map", "favicon", "fontawesome", "module-federation", "net::ERR_FAILED", "service worker", "ServiceWorker", "GPU stall", "willReadFrequently", "WebGL")  # said by the application, not by us


def _wait(what, ready, timeout_s, process=None, log=None):
    "The first true answer of `ready`"
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if got := ready(): return got
        if process is not None and process.poll() is not None: break
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-3000:] if log is not None else ""
    pytest.fail(f"{what}: not within {timeout_s} s\n{tail}")


def _environment(home):
    "This Python, this checkout, no settings of whoever runs the tests"
    env = os.environ | dict(HOME=str(home), PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep))
    env |= {f"JUPYTER_{k}_DIR": str(home / k.lower()) for k in ("CONFIG", "DATA", "RUNTIME")} | dict(IPYTHONDIR=str(home / "ipython"))
    return env | dict(OMP_NUM_THREADS="1", JUPYTER_PLATFORM_DIRS="1")


def _stop(process):
    "The server and the kernels it started, which are in its session"
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try: process.wait(15)
        except subprocess.TimeoutExpired: pass
    try: os.killpg(process.pid, signal.SIGKILL)  # its own group: started with start_new_session
    except (ProcessLookupError, PermissionError): pass
    process.wait()


class Lab:
    "A running server; `folder` is what it shows, `url` its address on loopback."

    def __init__(self, home):
        self.home, self.folder, self.token = home, home / "notebooks", secrets.token_hex(16)
        self.folder.mkdir(parents=True)
        (quiet := home / "settings" / "@jupyterlab" / "apputils-extension").mkdir(parents=True)
        (quiet / "notification.jupyterlab-settings").write_text('{"fetchNews": "false"}')  # no box that asks about news
        self.log, runtime = home / "jupyter.log", home / "runtime"
        settings = dict(ip="127.0.0.1", port=8888 + secrets.randbelow(20_000), port_retries=100, root_dir=str(self.folder), open_browser=False)
        args = [f"--ServerApp.{k}={v}" for k, v in settings.items()]
        args += [f"--IdentityProvider.token={self.token}", "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
                 f"--LabApp.workspaces_dir={home / 'workspaces'}", f"--LabApp.user_settings_dir={home / 'settings'}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0: args.append("--allow-root")
        with self.log.open("w") as log:
            self.process = subprocess.Popen([sys.executable, "-m", "jupyterlab", *args], cwd=self.folder, env=_environment(home), stdout=log, stderr=log, start_new_session=True)
        said = _wait("JupyterLab started", lambda: next(runtime.glob("jpserver-*.json"), None), 600, self.process, self.log)
        self.url = _wait("its address", lambda: _read(said), 100)["url"]

    def stop(self): _stop(self.process)

    def add(self, notebook):
        "Copy a notebook of the checkout, or write one of the given cells; its address in the lab"
        if isinstance(notebook, (str, Path)):
            source = ROOT / notebook
            name = f"{source.stem}-{secrets.token_hex(3)}.ipynb"
            shutil.copy(source, self.folder / name)
        else:
            name = f"cells-{secrets.token_hex(3)}.ipynb"
            cells = [dict(cell_type="code", id=f"cell{i}", metadata={}, source=s, outputs=[], execution_count=None) for i, s in enumerate(notebook)]
            kernel = dict(kernelspec=dict(name="python3", display_name="python3", language="python"), language_info=dict(name="python"))
            (self.folder / name).write_text(json.dumps(dict(cells=cells, metadata=kernel, nbformat=4, nbformat_minor=5)))
        return name


class VoilaApp:
    "A notebook of the checkout as an app: `url`, `host`"

    def __init__(self, home, notebook, **env):
        home.mkdir(parents=True)
        (home / "runtime").mkdir()
        shutil.copy(ROOT / notebook, home)
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        self.log, self.host = home / "voila.log", f"127.0.0.1:{port}"
        self.url = f"http://{self.host}/"
        args = [sys.executable, "-m", "voila", Path(notebook).name, "--no-browser", f"--port={port}", "--Voila.ip=127.0.0.1"]
        with self.log.open("w") as log: self.process = subprocess.Popen(args, cwd=home, env=_environment(home) | env, stdout=log, stderr=log, start_new_session=True)
        _wait("Voilà started", self.answers, 600, self.process, self.log)

    def answers(self):
        with socket.socket() as s: return s.connect_ex(("127.0.0.1", int(self.host.split(":")[1]))) == 0

    def stop(self): _stop(self.process)


def _read(path):
    "JSON, or None while it is being written"
    try: return json.loads(path.read_text())
    except (json.JSONDecodeError, OSError): return None


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    "A JupyterLab for the tests of a file"
    if CHROMIUM is None: pytest.skip("chromium is not installed: apt install chromium")
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed: pip install jupyterlab")
    it = Lab(tmp_path_factory.mktemp("lab"))
    yield it
    it.stop()


@pytest.fixture(scope="module")
def chromium():
    "A headless browser for the tests of a file"
    if CHROMIUM is None: pytest.skip("chromium is not installed: apt install chromium")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    with sync_api.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        make = b.new_context

        def patient(**how):
            context = make(**how)
            context.set_default_timeout(PATIENCE_MS)
            return context
        b.new_context = patient
        yield b
        b.close()


def new_page(chromium, allowed=(), offline=False, **device):
    "A page that speaks with `allowed` hosts and ports only; what goes wrong is noted in `page.trouble`; `page.shot(name)` keeps a picture"
    context = chromium.new_context(**(dict(viewport=dict(width=1280, height=1000)) | device), offline=offline)
    page = context.new_page()
    page.trouble = []
    outside = lambda url: url.split(":")[0] in ("http", "https", "ws", "wss") and urlparse(url).netloc not in allowed
    def refuse(route):
        if not outside(route.request.url): return route.fallback()
        if "fontawesome" not in route.request.url: page.trouble.append(f"asked for {route.request.url[:200]}")  # Voilà's icons
        route.abort()
    context.route(re.compile("^https?:"), refuse)
    page.on("pageerror", lambda e: page.trouble.append(f"error: {e}"))
    page.on("console", lambda m: page.trouble.append(f"console: {m.text[:300]}") if m.type == "error" and not any(q in m.text for q in QUIET) else None)
    page.shot = MethodType(screenshot, page)
    return page


def screenshot(page, name, **kw):
    "Keep a picture of the page if GEOMUSIC_SCREENSHOTS names a folder"
    if folder := os.environ.get("GEOMUSIC_SCREENSHOTS"): page.screenshot(path=f"{folder}/{name}.png", **kw)


@pytest.fixture
def open_notebook(lab, chromium):
    "A function: notebook of the checkout, or list of cells -> the page that shows it in JupyterLab, with `run_all(timeout_s)`, `trouble` and `shot(name)`"
    pages = []
    def open_(notebook, **device):
        page = new_page(chromium, (urlparse(lab.url).netloc,), **device)
        pages.append(page)
        name = lab.add(notebook)
        page.run_all, page.restart, page.name = MethodType(run_all, page), MethodType(restart, page), name
        page.goto(f"{lab.url}lab/workspaces/{secrets.token_hex(3)}/tree/{quote(name)}?token={lab.token}")
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        page.wait_for_selector(".jp-NotebookPanel-toolbar .jp-Notebook-ExecutionIndicator[data-status='idle'], .jp-Notebook-ExecutionIndicator", state="attached")
        if page.locator(".jp-SideBar.jp-mod-left .lm-TabBar-tab.lm-mod-current").count(): page.keyboard.press("Control+b")  # the list of files takes room
        return page
    yield open_
    for page in pages: page.context.close()


KERNEL = """async (path) => {
  const base = JSON.parse(document.getElementById('jupyter-config-data').textContent)
  const r = await fetch(base.baseUrl + 'api/sessions?token=' + base.token)
  const s = (await r.json()).find(s => s.path.endsWith(path))
  return s ? s.kernel.execution_state : 'none'
}"""


def run_all(page, timeout_s=900, allow_errors=False):
    "Run all cells from the menu, wait until the kernel has nothing to do, and fail with the traceback if a cell failed"
    deadline = time.monotonic() + timeout_s
    while page.evaluate(KERNEL, page.name) not in ("idle",):  # a kernel that has not started yet
        assert time.monotonic() < deadline, "the kernel has not started"
        page.wait_for_timeout(200)
    page.locator(".jp-Notebook").click(position=dict(x=3, y=3))
    page.locator(".lm-MenuBar-item", has_text="Run").first.click()
    page.locator("li[data-command='runmenu:run-all']").click()
    page.wait_for_timeout(500)
    calm = 0
    while calm < 3:  # idle three times in a row, and no cell marked [*]
        assert time.monotonic() < deadline, f"still running after {timeout_s} s"
        busy = page.evaluate(KERNEL, page.name) != "idle" or page.locator(".jp-InputPrompt", has_text="[*]").count()
        calm = 0 if busy else calm + 1
        page.wait_for_timeout(200)
    if not allow_errors and page.locator("[data-mime-type='application/vnd.jupyter.stderr'], .jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").count():
        errors = page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.error']").all_inner_texts()
        assert not errors, "\n".join(errors)[-3000:]
    return page


RESTART = """async (path) => {
  const base = JSON.parse(document.getElementById('jupyter-config-data').textContent), xsrf = /_xsrf=([^;]+)/.exec(document.cookie)?.[1] ?? ''
  const r = await fetch(base.baseUrl + 'api/sessions?token=' + base.token)
  const s = (await r.json()).find(s => s.path.endsWith(path))
  return (await fetch(base.baseUrl + `api/kernels/${s.kernel.id}/restart?token=` + base.token, {method: 'POST', headers: {'X-XSRFToken': xsrf}})).status
}"""


def restart(page):
    "The kernel dies with all it knew, a new one comes, and the page is opened again (JupyterLab goes on sending to the old kernel's subshell if it is not)"
    assert page.evaluate(RESTART, page.name) == 200
    page.reload()
    page.wait_for_selector(".jp-Notebook .jp-Cell")


def until(page, expression, timeout_s=300, instead="document.title"):
    "Wait until an expression in the page is true; `instead` is asked when it never is. (Playwright's own wait_for_function needs eval, which a page's security policy may forbid.)"
    end = time.monotonic() + timeout_s
    while not page.evaluate(expression):
        if time.monotonic() > end: pytest.fail(f"still not true after {timeout_s} s: {expression}; instead: {page.evaluate(instead)}")
        page.wait_for_timeout(100)
