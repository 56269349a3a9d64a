"Everything about the package is said once, in settings.ini."
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
parser = ConfigParser(delimiters=["="], comment_prefixes=["#"], interpolation=None)
parser.read(here / "settings.ini", encoding="utf-8")
cfg = parser["DEFAULT"]
needs = lambda key: cfg.get(key, "").split()
extras = {name: needs(f"{name}_requirements") for name in ("demo", "wandb", "tensorboard", "dask", "search", "explore", "classroom")}
notebook = extras["demo"] + needs("notebook_requirements")

setup(
    name=cfg["lib_name"], version=cfg["version"], description=cfg["description"], keywords=cfg["keywords"],
    author=cfg["author"], author_email=cfg["author_email"], license="MIT", url=cfg["git_url"],
    long_description=(here / "README.md").read_text(encoding="utf-8"), long_description_content_type="text/markdown",
    packages=find_packages(include=["geomusic", "geomusic.*"]), python_requires=f">={cfg['min_python']}",
    install_requires=needs("requirements"),
    extras_require=extras | {"notebooks": notebook, "dev": sum(extras.values(), notebook + needs("dev_requirements"))},
    entry_points={"console_scripts": needs("console_scripts")},
)
