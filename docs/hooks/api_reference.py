"""The API reference: a page for each package, its modules' public names with their docstrings."""

from __future__ import annotations

from pathlib import Path

PACKAGES = ("evidence", "rollout", "referee", "learner", "evaluation", "orchestration")


def _modules(root: Path) -> dict[str, list[str]]:
    """Package, dotted: the modules that lie in it."""
    packages: dict[str, list[str]] = {}
    for path in sorted(path for name in PACKAGES for path in (root / name).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not parts[-1].startswith("__"):
            packages.setdefault(".".join(parts[:-1]), []).append(".".join(parts))
    return packages


def api_pages(root: Path) -> dict[str, str]:
    pages = {
        f"api/{package}.md": f"# {package}\n\n" + "\n".join(f"::: {module}\n" for module in modules)
        for package, modules in _modules(root).items()
    }
    listed = "\n".join(f"- [{package}]({package}.md)" for package in _modules(root))
    pages["api/index.md"] = f"# API\n\nOne page for each package, made from the docstrings.\n\n{listed}\n"
    return pages


def api_target(path: str, root: Path) -> str | None:
    """The page of a package or the place of a module; None for any other file."""
    name = path.strip("/").removesuffix(".py").replace("/", ".")
    if (root / path).is_dir():
        return f"api/{name}.md" if name in _modules(root) else None
    package = name.rpartition(".")[0]
    return f"api/{package}.md#{name}" if path.endswith(".py") and package in _modules(root) else None
