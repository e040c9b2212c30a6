"""Pages on configs, made from the dataclasses and from configs/: every key with its type, its default and what the
docstring of its section says, and the text of every file."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import MISSING

from orchestration.answering.settings import AnswerConfig
from orchestration.commands.calibrate import CalibrateConfig
from orchestration.commands.sft import SftConfig
from orchestration.settings import TrainConfig
from orchestration.supervision.standalone_policy import StandalonePolicyConfig
from orchestration.typed_yaml import section_of

COMMANDS = {
    "ser train": TrainConfig,
    "ser sft": SftConfig,
    "ser calibrate": CalibrateConfig,
    "ser answer, ser serve": AnswerConfig,
    "ser eval": StandalonePolicyConfig,
}
LANGUAGES = {".yaml": "yaml", ".sbatch": "bash"}  # of the files that are shown
HEAD = """# Configuration

The keys of each command's config: `key=value` on the command line, or in a YAML file.
A section that several commands have stands once.
`required` keys have no default.
How files include others and what else a value may be: [the loader](../api/orchestration.md#orchestration.config).
"""


def config_page() -> str:
    sections: dict[type, list[str]] = {}
    parts = [HEAD]
    for command, schema in COMMANDS.items():
        parts.append(f"\n## {command}\n\n{_table(schema)}\n")
        for path, section in nested(schema):
            sections.setdefault(section, []).append(f"`{path}` of {command}")
    parts.append("\n## Sections\n")
    for section, places in sections.items():
        parts.append(f"\n### {section.__name__}\n\n{', '.join(places)}\n\n{_table(section)}\n")
    return "".join(parts)


def nested(schema: Any, path: str = "") -> Iterator[tuple[str, type]]:
    """(dotted path, section) of each section within a schema; NAME stands for the keys of a mapping."""
    for name, hint in keys(schema).items():
        part = {list: ".0", dict: ".NAME"}.get(get_origin(hint), "")  # type: ignore[call-overload]
        section = section_of(get_args(hint)[-1] if part else hint)
        if section:
            yield f"{path}{name}{part}", section
            yield from nested(section, f"{path}{name}{part}.")


def keys(schema: Any) -> dict[str, Any]:
    hints = get_type_hints(schema)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def read(schema: Any) -> tuple[str, dict[str, str]]:
    """The docstring of a section: what it says of the whole, and of each of its keys. It names keys as `a, b: …`."""
    base = schema.__base__
    of_key = read(base)[1] if dataclasses.is_dataclass(base) else {}
    text = inspect.cleandoc(schema.__doc__ or "")
    if text.startswith(f"{schema.__name__}("):  # a dataclass without a docstring has its signature there
        return "", of_key
    names = "|".join(map(re.escape, keys(schema)))
    named = re.compile(rf"(?:^|(?<=\s))((?:`?(?:{names})`?)(?:, `?(?:{names})`?)*):(?= )")
    whole = []
    for paragraph in text.split("\n\n"):
        first, *rest = named.split(re.sub(r"\s+", " ", paragraph))
        whole.append(first)
        for listed, meaning in zip(rest[::2], rest[1::2]):
            of_key |= dict.fromkeys(listed.replace("`", "").split(", "), _sentence(meaning))
    return "\n\n".join(filter(None, whole)), of_key


def _sentence(text: str) -> str:
    text = re.sub(r";$", ".", text.strip()).replace("|", "\\|")
    return re.sub(r"<(?=[a-z/])(?=[^`]*(?:`[^`]*`[^`]*)*$)", "&lt;", text)


def _table(schema: Any) -> str:
    hints, (whole, of_key) = keys(schema), read(schema)
    rows = [
        f"| `{f.name}` | {_type(hints[f.name])} | {_default(f)} | {of_key.get(f.name, '')} |"
        for f in dataclasses.fields(schema)
    ]
    return "\n".join([whole, "", "| key | type | default | meaning |", "|---|---|---|---|", *rows])


def _type(hint: Any) -> str:
    section = section_of(hint)
    text = inspect.formatannotation(hint)
    text = (
        re.sub(r"\b(?:\w+\.)+(?=\w)", "", text).replace("|", "or").replace("NoneType", "null").replace("None", "null")
    )
    inner = section or next((s for arg in get_args(hint) if (s := section_of(arg))), None)
    return (
        f"[{inner.__name__}](#{inner.__name__.lower()})" + (" (list)" if get_origin(hint) is list else "")
        if inner
        else f"`{text}`"
    )


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default is not dataclasses.MISSING:
        value = field.default
    elif field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    else:
        value = MISSING
    if value == MISSING:
        return "required"
    if dataclasses.is_dataclass(value):
        return _changed(value)
    return f"`{_plain(value)}`"


def _changed(value: Any) -> str:
    """The values in which a section's default differs from the defaults of its keys."""
    own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    base = {f.name: f.default if f.default is not dataclasses.MISSING else None for f in dataclasses.fields(value)}
    changed = {k: v for k, v in own.items() if base[k] is not None and v != base[k]}
    return ", ".join(f"`{key}={_plain(v)}`" for key, v in changed.items())


def _plain(value: Any) -> str:
    words = {None: "null", True: "true", False: "false", "": "''"}
    if isinstance(value, bool | None | str) and value in words:
        return words[value]
    return (
        repr(value).replace("|", "\\|")
        if not isinstance(value, str)
        else value.replace("\n", "\\n").replace("|", "\\|")
    )


def files_target(path: str) -> str:
    """Where the page of configs shows the file or folder `path`."""
    return f"reference/files.md#{_anchor(path.removeprefix('configs').strip('/'))}"


def files_page(root: Path) -> str:
    parts = ["# Configs that come with SER\n\nThe files of `configs/`. Recipes and configs of commands go by name.\n"]
    files = [path for path in sorted((root / "configs").rglob("*")) if path.suffix in LANGUAGES]
    for folder in dict.fromkeys(path.parent for path in files):
        name = str(folder.relative_to(root / "configs"))
        parts.append(f"\n## {name} {{ #{_anchor(name)} }}\n")
        for path in (file for file in files if file.parent == folder):
            anchor, text = _anchor(f"{name}/{path.name}"), path.read_text(encoding="utf-8").rstrip()
            parts.append(f"\n### {path.stem} {{ #{anchor} }}\n\n```{LANGUAGES[path.suffix]}\n{text}\n```\n")
    return "".join(parts)


def _anchor(name: str) -> str:
    return re.sub(r"[/.]", "-", name)
