"""nbdev's runner of notebooks, in which a line of an exported cell counts as the line of the module that it became: so coverage sees what chapters test.

python tests/chapter.py --path nbs/01_files.ipynb          # the options are those of nbdev_test
"""
import re
from pathlib import Path

import nbdev.test
from execnb.shell import CaptureShell
from IPython.core.compilerop import CachingCompiler

AT = {}  # the id of an exported cell: its module, and the number of lines above it
for module in sorted((Path(__file__).parent.parent / "geomusic").rglob("*.py")):
    for i, line in enumerate(module.read_text(encoding="utf-8").splitlines(), 1):
        if found := re.match(r"# %% \S+\.ipynb #(\S+)$", line):
            AT[found[1]] = str(module), i


class Compiler(CachingCompiler):
    "Gives an exported cell the name of its module"
    module = None

    def cache(self, transformed_code, number=0, raw_code=None):
        return self.module or super().cache(transformed_code, number, raw_code)


class Shell(CaptureShell):
    compiler_class = Compiler

    def cell(self, cell, *args, **kwargs):
        self.compile.module, above = AT.get(cell.id, (None, 0))
        cell.source = "#\n" * above + cell.source
        super().cell(cell, *args, **kwargs)


if __name__ == "__main__":
    nbdev.test.CaptureShell = Shell
    nbdev.test.nbdev_test()
