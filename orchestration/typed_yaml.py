"""YAML whose plain scalars are read by the type that a config's schema declares for them.

YAML 1.1 turns unquoted text into other values: `0123` into 83, `1:30` into 90, `yes` into true, 20261126_2118 into
202611262118. Guarantees: where the schema declares text, the text stays as typed, in files, in lists and mappings of
text and in overrides, and a quoted word is that word. `null` means None, in optional text nothing does too; where text
is required, None is refused by orchestration/config, and an override may give the empty text. A number keeps its
decimal meaning: `010` is 10, and `1:30` is not a number. Everything else is read as OmegaConf reads YAML.

A schema is a type hint: a dataclass, a type that a dataclass's field may declare, or None where nothing is declared.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml
from omegaconf import OmegaConf

TEXT_TAG = "tag:yaml.org,2002:str"
MERGE_TAG = "tag:yaml.org,2002:merge"
NONE = ("", "null")  # how optional text without a value is written
# Octal and base 60 of YAML 1.1, which nobody means who types a number.
MISREAD_NUMBER = re.compile(r"[-+]?(0[0-9_]+|[0-9][0-9_]*(:[0-9.]+)+)")


def load_yaml(text: str, hint: Any) -> Any:
    """The content of a YAML document, declared as `hint`, as plain data. Raises YAMLError and OmegaConfBaseException.

    ${references} stay as they are.
    """
    root = yaml.compose(text, Loader=yaml.CSafeLoader)
    if root is None:
        return None
    if not isinstance(root, yaml.ScalarNode):
        OmegaConf.create(text)  # raises for duplicate keys and circular aliases, and gives their lines
    _keep_text(root, hint)
    document = yaml.MappingNode("tag:yaml.org,2002:map", [(yaml.ScalarNode(TEXT_TAG, "root"), root)])
    return OmegaConf.to_container(OmegaConf.create(yaml.serialize(document)))["root"]  # type: ignore[call-overload,index]


def load_override(text: str, hint: Any) -> Any:
    """The value of an override `key=text`, whose key is declared as `hint`. Raises as `load_yaml`.

    A section or a list that may be written as one text is read as YAML if it begins with a bracket or a brace.
    """
    if is_text(hint) or (_is_short(hint) and not text.lstrip().startswith(("[", "{"))):
        stripped = text.strip()
        empty_is_none = is_optional(hint) or not is_text(hint)
        return None if stripped == "null" or (empty_is_none and not stripped) else _unquoted(stripped, default=text)
    return load_yaml(text, hint)


def section_of(hint: Any) -> Any:
    """The dataclass that `hint` declares, with or without `| None`; None for a plain value."""
    options = _options(hint)
    return options[0] if len(options) == 1 and dataclasses.is_dataclass(options[0]) else None


def declared_at(hint: Any, keys: list[str]) -> Any:
    """The hint of the value that `keys` lead to, None if nothing is declared there."""
    for key in keys:
        hint = _inner(hint, key)
    return hint


def is_text(hint: Any) -> bool:
    """Whether a field declares text, optional or one of several words included."""
    options = _options(hint)
    return bool(options) and all(
        option is str or (get_origin(option) is Literal and all(isinstance(word, str) for word in get_args(option)))
        for option in options
    )


def is_optional(hint: Any) -> bool:
    """Whether a field may be None."""
    return NoneType in get_args(hint)


def _options(hint: Any) -> list[Any]:
    """The types between which a union chooses, without None."""
    return [o for o in get_args(hint) if o is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]


def _is_short(hint: Any) -> bool:
    """Whether a section, or a list of sections, may be written as one text (`SHORT`, orchestration/config)."""
    return hasattr(section_of(get_args(hint)[0] if get_origin(hint) is list else hint), "SHORT")


def _inner(hint: Any, key: str) -> Any:
    """The hint of the entry `key` of a mapping."""
    if get_origin(hint) is dict:
        return get_args(hint)[1]
    section = section_of(get_args(hint)[0] if _is_short(hint) and get_origin(hint) is list else hint)
    return get_type_hints(section).get(key) if section else None


def _keep_text(node: yaml.Node, hint: Any) -> None:
    """Mark the plain scalars below `node` that are text by their declaration, and the keys of declared mappings."""
    if isinstance(node, yaml.ScalarNode):
        if not node.style and _is_plain_text(node.value, hint):
            node.tag, node.style = TEXT_TAG, "'"
    elif isinstance(node, yaml.SequenceNode):
        entry = get_args(hint)[0] if get_origin(hint) in (list, tuple) else None
        for child in node.value:
            _keep_text(child, entry)
    elif get_origin(hint) is dict or section_of(hint) or _is_short(hint):
        for key, child in _entries(node):
            if isinstance(key, yaml.ScalarNode):
                if not key.style:  # None or empty: plain
                    key.tag, key.style = TEXT_TAG, "'"
                _keep_text(child, _inner(hint, key.value))


def _entries(node: yaml.Node) -> Iterator[tuple[yaml.Node, yaml.Node]]:
    """The entries of a mapping and of the mappings that it merges (`<<`)."""
    for key, child in node.value:
        if key.tag != MERGE_TAG:
            yield key, child
        else:
            for merged in child.value if isinstance(child, yaml.SequenceNode) else [child]:
                if isinstance(merged, yaml.MappingNode):
                    yield from _entries(merged)


def _is_plain_text(text: str, hint: Any) -> bool:
    """Whether an unquoted scalar is to be kept as text."""
    if is_text(hint) or _is_short(hint):
        return text not in NONE
    return any(option in (int, float) for option in _options(hint)) and bool(MISREAD_NUMBER.fullmatch(text))


def _unquoted(text: str, default: str) -> str:
    """The content of a quoted text; `default` if `text` is not one."""
    if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0]:
        try:
            node = yaml.compose(text, Loader=yaml.CSafeLoader)
        except yaml.YAMLError:
            return default
        if isinstance(node, yaml.ScalarNode) and node.style == text[0]:
            return node.value
    return default
