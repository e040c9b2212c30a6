"""Hooks of mkdocs: pages that are made from other files of the repository, and links to such files.

The site has no links to a repository, so that it is complete wherever it lies: a link to a module goes to its page of
the API reference, one to a config to the page that shows it. What has no page keeps its text and loses the link.
"""

from __future__ import annotations

import posixpath
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from api_reference import api_pages, api_target
from config_reference import config_page, files_page, files_target

COPIED = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    **{
        f"assets/{path.parent.name}/README.md": f"assets/{path.parent.name}.md"
        for path in ROOT.glob("assets/*/README.md")
    },
}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")


def on_config(config: Any) -> Any:
    """Adds what is made here, and has no file of its own, to the navigation."""
    reference = next(section["Reference"] for section in config.nav if "Reference" in section)
    reference.append({"API": list(api_pages(ROOT))})
    cards = {
        path.removesuffix(".md").rpartition("/")[2]: path for path in COPIED.values() if path.startswith("assets/")
    }
    reference.append({"Embedded models": [{name: path} for name, path in sorted(cards.items())]})
    return config


def on_files(files: Files, config: Any) -> Files:
    made = {target: (ROOT / source).read_text(encoding="utf-8") for source, target in COPIED.items()}
    made |= {"reference/config.md": config_page(), "reference/files.md": files_page(ROOT), **api_pages(ROOT)}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links relative to the page's own source file, as they work in the repository."""
    here = page.file.src_uri
    source = next((origin for origin, target in COPIED.items() if target == here), f"docs/{here}")

    def relinked(match: re.Match[str]) -> str:
        image, text, link = match.groups()
        path, _, anchor = link.partition("#")
        if ":" in path or not path:
            return match[0]
        target = _target(posixpath.normpath(posixpath.join(posixpath.dirname(source), path)))
        if target is None:
            return text
        page_path, _, own_anchor = target.partition("#")
        anchor = anchor or own_anchor
        relative = posixpath.relpath(page_path, posixpath.dirname(here) or ".")
        return f"{image}[{text}]({relative}{'#' if anchor else ''}{anchor})"

    return markdown if here.startswith(("api/", "reference/")) else LINK.sub(relinked, markdown)


def _target(path: str) -> str | None:
    """The page, or page#anchor, that shows the repository's file or folder `path`; None if none does. Raises
    FileNotFoundError."""
    (ROOT / path).stat()
    if path in COPIED:
        return COPIED[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    if path.startswith("configs"):
        return files_target(path)
    return api_target(path, ROOT)
