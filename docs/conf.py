"""The documentation site, made by Sphinx: `make docs` writes build/docs/index.html."""

from __future__ import annotations

import re
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


DOCS = Path(__file__).parent
BESIDE = {
    "changelog.md": DOCS.parent / "CHANGELOG.md",
    "reference/benchmarks.md": DOCS.parent / "benchmarks" / "README.md",
}
"""Pages that are files beside docs/."""
_LINK = re.compile(r"\]\((?![a-z]+:|#|/)([^)#\s]+)(#[^)\s]*)?\)")


def inside(app: Sphinx, name: str, content: list[str]) -> None:
    """Put files beside docs/ into their pages, and lead links that a reader of the repository follows to pages here."""
    page = f"{name}.md"
    file = BESIDE.get(page, DOCS / page)
    pages = {outside: inner for inner, outside in BESIDE.items()}

    def led(link: re.Match[str]) -> str:
        target = (file.parent / link[1]).resolve()
        if target in pages:
            return f"](/{pages[target]}{link[2] or ''})"
        if target.is_relative_to(DOCS):
            return f"](/{target.relative_to(DOCS)}{link[2] or ''})"
        return link[0]

    if page in BESIDE:
        content[0] = file.read_text()
    if page.endswith(".md") and file.is_file():
        content[0] = _LINK.sub(led, content[0])


def setup(app: Sphinx) -> None:
    """Register what changes pages as they are read."""
    app.connect("source-read", inside)
