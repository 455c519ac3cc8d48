"""The documentation site, made by Sphinx: `make docs` writes build/docs/index.html."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from mm1.version import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "mm1"
author = "the mm1 authors"
release = version = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "commands", "recipe_keys"]
exclude_patterns = ["results/*.csv"]
html_theme = "furo"
html_title = f"mm1 {__version__}"
html_show_copyright = False

# Headings can be linked to as on GitHub: file.md#a-heading.
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# tests/docs runs the notebook; its outputs are stored in it.
nb_execution_mode = "off"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def inside(app: Sphinx, name: str, content: list[str]) -> None:
    """Lead links to files beside docs/, which a reader of the repository follows, to their pages here."""
    content[0] = content[0].replace("../../benchmarks/README.md", "/reference/benchmarks.md")
    content[0] = content[0].replace("(../benchmarks/README.md", "(/reference/benchmarks.md")


def setup(app: Sphinx) -> None:
    """Register what changes pages as they are read."""
    app.connect("source-read", inside)
