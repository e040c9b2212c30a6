"""Loads YAML files and `key=value` overrides into one instance of a typed dataclass.

Guarantees: every value has the type that its field declares. An unknown key, a value of the wrong type, a missing file,
a missing value and circular includes each raise BadInput, whose one line names the source, the fault and the remedy.
The schemas live beside the code that they configure.

A section whose class names a key as `SHORT` may be written as that key's value alone, and a list of such sections as a
single one: `data.train=a.json` is `data.train=[{path: a.json}]`.

A section whose class names a `FOLDER` may start from a recipe: a file `configs/FOLDER/NAME.yaml`, or a path to one,
that holds the section's keys. It is written `reward: NAME`, or `recipe: NAME` beside keys that override the recipe's.
A later recipe replaces everything set in the section before it. The resolved config holds the recipe's content, not
its name.

`${asset:NAME}` is the folder of an embedded model (orchestration/shipped).

A section whose class has a function `free_keys` has a mapping without declared keys. The function, given the section's
name and content, returns the keys that the mapping may have, so that they can be suggested for an unknown key.

Text stays as typed (orchestration/typed_yaml).

A file may start from other files: `include: [base.yaml]`, relative to itself. Later includes win over earlier ones, and
the file itself wins over what it includes.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from evidence.errors import BadInput
from orchestration.shipped import CONFIGS, asset
from orchestration.typed_yaml import declared_at, is_text, load_override, load_yaml, section_of

Schema = TypeVar("Schema")
Layer = tuple[str, dict[str, Any]]  # the name of a source of values, and its content as plain data
MOST_WHOLE = 2**53  # beyond it, a number is not exact in JSON; sections have their own, lower limits
PARTS = "parts"  # a folder of files that others include
MOVED = {"cluster.timeout_s": "limits"}  # old keys: the sections that replace them
SIMILAR = 0.8  # last parts of two keys: one letter in five wrong, or two of five swapped


OmegaConf.register_resolver("asset", asset)


def load_config(schema: type[Schema], path: str | Path | Layer | None, overrides: Sequence[str] = ()) -> Schema:
    """An instance of the dataclass `schema`: its defaults, then the file with its includes, then the overrides.

    path: None uses the defaults and overrides alone; a layer stands for the content of a file.
    Raises BadInput. The message of a section's `__post_init__`, which begins with the section's own key, is completed:
    "ranks = 0: must be 1 or more" becomes "learner.ranks = 0: …".
    """
    given = [path] if isinstance(path, tuple) else _read(Path(path), schema) if path is not None else []
    layers = list(given)
    layers += [_parse_override(schema, text) for text in overrides]
    layers = [(source, _expanded(schema, layer)) for source, layer in layers]
    layers = _with_recipes(schema, layers)
    source_of: dict[str, str] = {}

    def known_keys() -> list[str]:
        return list(_paths(schema, reduce(_overlaid, (layer for _, layer in layers))))

    for source, layer in layers:
        source_of |= dict.fromkeys(_checked(schema, layer, source, known_keys), source)
    name = "overrides" if path is None else path[0] if isinstance(path, tuple) else str(path)
    try:
        return _instance(OmegaConf.merge(schema, *(layer for _, layer in layers)))
    except MissingMandatoryValue as error:
        raise BadInput(f"{name}: {error.full_key} has no value; set it there or with {error.full_key}=…") from None
    except OmegaConfBaseException as error:  # faults that only appear when ${references} are resolved
        raise BadInput(f"{name}: {error.full_key}: {str(error).splitlines()[0]}") from None
    except BadInput as error:
        refused = str(error).split()[0].rstrip(":")
        sources = [source for key, source in source_of.items() if f"{key}.".startswith(f"{refused}.")]
        raise BadInput(f"{sources[-1] if sources else name}: {error}") from None


def unknown_keys(schema: Any, path: str | Path) -> list[str]:
    """The keys of a file and its includes that `schema` does not have, in their order. Raises BadInput."""
    keys = dict.fromkeys(key for _, layer in _read(Path(path), schema) for key in layer)
    return [key for key in keys if key not in schema.__dataclass_fields__]


def to_yaml(config: Any) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal instance."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _read(path: Path, hint: Any, parents: tuple[Path, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """(source, layer) of each file that `path` includes, in their order, then of `path` itself, all declared as `hint`.
    `parents`: the files that include it."""
    resolved = path.resolve()
    if resolved in parents:
        circle = " -> ".join(p.name for p in (*parents[parents.index(resolved) :], resolved))
        raise BadInput(f"{parents[-1]}: circular include: {circle}; remove one of them")
    try:
        layer = load_yaml(path.read_text(encoding="utf-8"), hint) or {}
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; {_nearby(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give a YAML file") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise BadInput(f"{path}: not valid YAML: {_one_line(error)}") from None
    if not isinstance(layer, dict):
        raise BadInput(f"{path}: holds {layer!r:.60}; a config is a mapping of keys to values")
    includes = layer.pop("include", [])
    if not isinstance(includes, list) or not all(isinstance(name, str) for name in includes):
        raise BadInput(f"{path}: include = {includes!r}: must be a list of file names")
    for name in includes:
        yield from _read(path.parent / name, hint, (*parents, resolved))
    yield str(path), layer


def _parse_override(schema: Any, text: str) -> tuple[str, dict[str, Any]]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise BadInput(f"override {text!r}: write it as key=value")
    source = f"override {key}=…"  # without the value, which may hold a password
    try:
        layer: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"{key}="]))
        keys, innermost = [], layer
        while isinstance(innermost[(last := next(iter(innermost)))], dict):
            keys.append(last)
            innermost = innermost[last]
        innermost[last] = load_override(value, declared_at(schema, [*keys, last]))
    except (YAMLError, OmegaConfBaseException) as error:
        raise BadInput(f"{source}: the value is not valid YAML: {_one_line(error)}") from None
    return source, layer


def _expanded(hint: Any, value: Any) -> Any:
    """`value`, declared as `hint`, with each section that is written by its `SHORT` key expanded."""
    section, short = section_of(hint), getattr(section_of(hint), "SHORT", None)
    if get_origin(hint) is list:
        entry_hint = get_args(hint)[0]
        entries = [value] if hasattr(section_of(entry_hint), "SHORT") and isinstance(value, str | dict) else value
        return [_expanded(entry_hint, entry) for entry in entries] if isinstance(entries, list) else entries
    if short and isinstance(value, str):
        return {short: value}
    if section and isinstance(value, dict):
        hints = get_type_hints(section)
        return {name: _expanded(hints.get(name), content) for name, content in value.items()}
    return value


def _with_recipes(schema: Any, layers: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The layers with each named recipe inserted below the layer that names it, and with the section that it replaces
    removed from earlier layers."""
    hints = get_type_hints(schema)
    folders = {name: section.FOLDER for name, hint in hints.items() if hasattr(section := section_of(hint), "FOLDER")}
    result: list[tuple[str, dict[str, Any]]] = []
    for source, layer in layers:
        for key, folder in folders.items():
            section = layer.get(key)
            if isinstance(section, dict) and isinstance(section.get("recipe"), str) and section["recipe"]:
                recipe = section.pop("recipe")
                result = [(earlier, {k: v for k, v in content.items() if k != key}) for earlier, content in result]
                for file, content in _read(recipe_file(folder, recipe, source), hints[key]):
                    result.append((file, {key: _expanded(hints[key], content)}))
        result.append((source, layer))
    return result


def recipe_file(folder: str, name: str, source: str, beside: Path = Path()) -> Path:
    """The YAML file called `name`: a path to it, from `beside`, or its name in configs/`folder`. Raises BadInput."""
    if name.endswith((".yaml", ".yml")):
        return beside / name
    recipes = CONFIGS / folder
    files = [path.relative_to(recipes) for path in recipes.rglob("*.yaml")]
    known = sorted(str(file.with_suffix("")) for file in files if file.parent.name != PARTS)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise BadInput(
            f"{source}: {recipes} holds no {name}.yaml; the nearest is {near[0] if near else 'none'}, all are: "
            f"{', '.join(known)}; or give a path that ends in .yaml"
        )
    return recipes / f"{name}.yaml"


def _checked(hint: Any, value: Any, source: str, known_keys: Callable[[], list[str]], key: str = "") -> Iterator[str]:
    """The dotted keys within `value`, declared as `hint`. Raises BadInput for an unknown key and for a wrong type.

    key: the dotted key of `value` itself. known_keys: returns the keys of the whole config.
    """
    section, origin = section_of(hint), get_origin(hint)
    prefix = f"{key}." if key else ""
    if section and isinstance(value, dict):
        hints = get_type_hints(section)
        for name, content in value.items():
            if name not in section.__dataclass_fields__:
                unknown = f"{prefix}{name}"
                while isinstance(content, dict) and content:  # the innermost key identifies the intended key best
                    last, content = next(iter(content.items()))
                    unknown += f".{last}"
                if (section_now := MOVED.get(unknown)) in known_keys():
                    raise BadInput(f"{source}: unknown key {unknown}; it was replaced by {section_now}.*")
                nearest = _nearest(unknown, [*(prefix + path for path in _paths(section)), *known_keys()])
                raise BadInput(f"{source}: unknown key {unknown}; the nearest known one is {nearest}")
            yield from _checked(hints[name], content, source, known_keys, f"{prefix}{name}")
    elif origin in (list, tuple) and isinstance(value, list) and value:
        for index, entry in enumerate(value):
            yield from _checked(get_args(hint)[0], entry, source, known_keys, f"{prefix}{index}")
    elif origin is dict and isinstance(value, dict):
        for name, entry in value.items():
            yield from _checked(get_args(hint)[1], entry, source, known_keys, f"{prefix}{name}")
    elif isinstance(value, str) and value == MISSING:
        raise BadInput(f"{source}: {key} = {MISSING}: is no value; give one, or leave the key out")
    elif isinstance(value, int) and abs(value) > MOST_WHOLE:
        raise BadInput(f"{source}: {key} = {value}: must be at most {MOST_WHOLE:,}")
    elif not _fits(value, hint):
        raise BadInput(f"{source}: {key} = {value!r}: must be {_describe(hint)}{_quoting(value, hint)}")
    else:
        yield key


def _instance(config: Any) -> Any:
    """The merged config as an instance of its schema. Raises BadInput that begins with the full key of the fault."""
    for path, section in _sections(config):
        try:
            instance = OmegaConf.to_object(section)
        except BadInput as error:
            raise BadInput(f"{path}{error}") from None
    return instance


def _sections(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, section) of every section of a merged config: inner sections before outer ones, itself last."""
    keys: Iterable[Any] = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            child = node[key]
            if isinstance(child, DictConfig | ListConfig):
                yield from _sections(child, f"{path}{key}.")
    if dataclasses.is_dataclass(OmegaConf.get_type(node)):
        yield path, node


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the declared type. The only plain value that an optional section takes is None."""
    if section := section_of(hint):
        return value is None and hint is not section
    field = dataclasses.make_dataclass("Field", [("value", hint, MISSING)])
    try:
        OmegaConf.merge(OmegaConf.structured(field), {"value": value})
    except (OmegaConfBaseException, TypeError):  # TypeError: a mapping where a list is declared
        return False
    return True


def _paths(schema: Any, written: Any = None) -> Iterator[str]:
    """The dotted keys of `schema`: for a list of sections, those of its first; for a mapping of sections, those of
    each name in `written`, the config as plain data."""
    written = written if isinstance(written, dict) else {}
    for name, hint in get_type_hints(schema).items():
        if name not in schema.__dataclass_fields__:
            continue
        yield name
        value, origin = written.get(name), get_origin(hint)
        sections = {name: value}
        if origin is list:
            sections = {f"{name}.0": None}
        elif origin is dict:
            sections = {f"{name}.{key}": content for key, content in value.items()} if isinstance(value, dict) else {}
        section = section_of(get_args(hint)[-1] if origin in (list, dict) else hint)
        for path, content in sections.items() if section else ():
            yield from (f"{path}.{key}" for key in _paths(section, content))
            if hasattr(section, "free_keys"):
                yield from (f"{path}.{key}" for key in section.free_keys(path.rpartition(".")[2], content))


def _overlaid(below: Any, above: Any) -> Any:
    """Two layers merged as plain data; `above` wins."""
    if not isinstance(below, dict) or not isinstance(above, dict):
        return above
    return below | {key: _overlaid(below.get(key), value) for key, value in above.items()}


def _nearest(key: str, known: list[str]) -> str:
    """The known key most like `key`.

    An equal last part counts most, so that `lr` finds `….schedule.lr`; then a similar last part; then the number of
    leading parts in common, so that keys of the same section win; then the similarity of the whole.
    """
    parts = key.split(".")

    def likeness(candidate: str) -> tuple[bool, bool, int, float]:
        other = candidate.split(".")
        last = _similarity(parts[-1], other[-1])
        shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(parts, other)))
        return last == 1, last >= SIMILAR, shared, last + _similarity(key, candidate)

    return max(known, key=likeness)


def _similarity(a: str, b: str) -> float:
    """0 to 1; 1 only for equal texts."""
    return difflib.SequenceMatcher(None, a, b).ratio()


def _describe(hint: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", NoneType: "null"}
    if hint in names:
        return names[hint]
    if dataclasses.is_dataclass(hint):
        short = f"text (the {hint.SHORT}) or " if hasattr(hint, "SHORT") else ""
        return f"{short}a section with the keys {', '.join(field.name for field in dataclasses.fields(hint))}"
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(map(_describe, get_args(hint)))
    if get_origin(hint) in (list, tuple):
        return f"a list, each {_describe(get_args(hint)[0])}"
    if get_origin(hint) is dict:
        return f"a mapping, each value {_describe(get_args(hint)[1])}"
    return str(hint).replace("typing.Literal", "one of ")


def _quoting(value: Any, hint: Any) -> str:
    """How to write text that was read as something else."""
    if not is_text(hint):
        return ""
    if isinstance(value, str):
        return "; ${…} refers to another key, \\${…} is the text itself" if "${" in value else ""
    return ", in quotes: 'null' is the word, '' is no text" if value is None else ", in quotes"


def _nearby(path: Path) -> str:
    """A hint for a missing file: similar names in its folder."""
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist either"
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0) if names else []
    return f"nearby: {', '.join(str(folder / name) for name in close)}" if close else f"{folder} holds no YAML file"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
