"Make README.md from nbs/index.ipynb, without Quarto: python tools/make_readme.py [OUT]"
import re
import sys
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent


def readme(notebook: Path) -> str:
    "The notebook as Markdown: hidden cells and directives gone, links pointing into nbs/."
    nb = nbformat.read(notebook, 4)
    nb.cells = [c for c in nb.cells if not re.search(r"^#\|\s*hide\b", c.source, re.M)]
    nb.metadata["language_info"] = {"name": "python"}
    for c in (c for c in nb.cells if c.cell_type == "code"):
        if re.search(r"^#\|\s*echo:\s*false", c.source, re.M):
            c.metadata["transient"] = {"remove_source": True}
        c.source = re.sub(r"(?m)^#\|.*\n?", "", c.source)
    text, resources = MarkdownExporter().from_notebook_node(nb)
    if resources.get("outputs"):
        raise SystemExit("the index shows an image of its own making; show a file under nbs/images instead")
    text = re.sub(r"\]\((?!https?:|#|mailto:)([^)]+)\)", r"](nbs/\1)", text)
    return "<!-- made from nbs/index.ipynb by tools/make_readme.py; do not edit -->\n" + re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


if __name__ == "__main__":
    out = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "README.md"
    out.write_text(readme(ROOT / "nbs" / "index.ipynb"), encoding="utf-8")
