"""How Sphinx builds the site: `make docs`."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from pathlib import Path

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.inspect import signature, stringify_signature

import fusioncam_core

ROOT = Path(__file__).resolve().parent.parent

project = "fusioncam"
author = "The fusioncam authors"
project_copyright = "The fusioncam authors"
version = release = fusioncam_core.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_design",
]
exclude_patterns = ["_build"]
suppress_warnings = ["myst.header"]  # pages that a program writes have their headings at one level

# --- pages

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

# --- notebooks: pages with `{code-cell}`, run by the build


def _library_digest() -> str:
    """Of what a notebook's outputs depend on besides its own code: the library, the examples and all versions."""
    digest = hashlib.sha256()
    sources = [path for folder in ("fusioncam_core", "backends", "examples") for path in (ROOT / folder).rglob("*.py")]
    for path in sorted([*sources, ROOT / "constraints.txt"]):
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


nb_execution_mode = "cache"
# jupyter-cache compares a notebook's code alone: a folder for each state of the library keeps old outputs away.
nb_execution_cache_path = str(
    Path(os.environ.get("FUSIONCAM_DOCS_CACHE", ROOT / ".docs-cache")).resolve() / _library_digest()
)
nb_execution_raise_on_error = True
nb_execution_show_tb = True  # else a notebook fails without a word about where
nb_execution_timeout = 180
nb_execution_in_temp = True
nb_merge_streams = True

# --- the reference

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings say what is taken and returned, in the words of shapes
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [("Attributes", "params_style")]  # "Variables" otherwise
python_maximum_signature_line_length = 80
add_module_names = False
toc_object_entries_show_parents = "hide"

# Single backticks in docstrings are code, and a link where they name something of the reference.
default_role = "py:obj"
nitpicky = True
# What is in backticks is mostly code that has no page, such as `relu=False`, and annotations name foreign classes. What
# remains, and must resolve, are the roles and links that somebody wrote on purpose.
nitpick_ignore_regex = [(r"py:(obj|class|exc)", r".*")]

# --- how it looks

html_theme = "furo"
pygments_style = "friendly"
pygments_dark_style = "github-dark"
html_title = f"fusioncam {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
templates_path = ["_templates"]
html_sidebars = {
    "**": [
        "sidebar/brand.html",
        "sidebar/versions.html",
        "sidebar/search.html",
        "sidebar/scroll-start.html",
        "sidebar/navigation.html",
        "sidebar/scroll-end.html",
    ]
}
# The other versions that are published beside this one: docs/releasing.md.
html_context = {"other_versions": os.environ.get("FUSIONCAM_DOCS_VERSIONS", "").split()}

# --- `make docs-links`

linkcheck_timeout = 20
linkcheck_retries = 2
linkcheck_ignore = [r"https://doi\.org/.*"]  # publishers answer programs with 403

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?:examples|benchmarks|backends|fusioncam_core|tests)[^)\s]*\)")
_MARKUP = re.compile(r"\*|(?<=\w)_(?!\w)")
_ROOT_PAGES = {"CHANGELOG": "changelog", "CONTRIBUTING": "contributing", "SECURITY": "security", "README": "index"}


def _keep_links_inside(app: Sphinx, docname: str, source: list[str]) -> None:
    """Links that lead out of docs/ work where the repository is read: on the site they are text, or the site's page."""
    up = "../" * docname.count("/")
    text = _OUTSIDE.sub(lambda found: f"`{found[1].strip('`')}`", source[0])
    for name, page in _ROOT_PAGES.items():
        text = re.sub(rf"\]\((?:\.\./)+{name}\.md", f"]({up}{page}.md", text)
    source[0] = text


def _show_as_code(app: Sphinx, env: object, node: pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """What a docstring has in single backticks and no page names is code, and no broken link."""
    return contnode if node.get("reftype") == "obj" else None


def _stars_as_stars(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Docstrings are text with code in backticks: outside of them (B, *size) is no emphasis, "weight_*" no link."""
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = line.split("`")
            lines[number] = "`".join(part if at % 2 else _MARKUP.sub(r"\\\g<0>", part) for at, part in enumerate(parts))


def _signature_of_the_constructor(
    app: Sphinx, what: str, name: str, thing: object, options: object, arguments: str | None, returns: str | None
) -> tuple[str, None] | None:
    """Of an explainer that of `__init__`: `__new__`, which Sphinx asks first, takes whatever comes."""
    if what != "class" or not issubclass(thing, fusioncam_core.Explainer):
        return None
    return stringify_signature(signature(thing.__init__, bound_method=True), show_annotation=False), None


def _is_no_empty_glob(record: logging.LogRecord) -> bool:
    """Whether a warning is of something else than a folder that has no page yet; Sphinx gives that one no type."""
    return "toctree glob pattern" not in str(record.msg)


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect what is written above."""
    logging.getLogger("sphinx.sphinx.directives.other").addFilter(_is_no_empty_glob)
    app.connect("source-read", _keep_links_inside)
    app.connect("missing-reference", _show_as_code)
    app.connect("autodoc-process-signature", _signature_of_the_constructor)
    app.connect("autodoc-process-docstring", _stars_as_stars, priority=400)  # before napoleon reads it
    return {"parallel_read_safe": True, "parallel_write_safe": True}
