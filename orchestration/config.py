"""From YAML files and `key=value` overrides to one instance of a typed dataclass.

Guarantees: every value has the type that its field declares; a key that no field declares, a value of the wrong type,
a missing file, a missing value and a circle of includes are each refused by a BadInput of one line naming where it
was said, what was said and what would be right. The schemas live beside the code they configure.

A section whose class names a key as `SHORT` may be written as that key's value alone, and a list of such sections as
one of them: `data.train=a.json` is `data.train=[{path: a.json}]`.

A section whose class names a `FOLDER` may start from a recipe, a file `configs/FOLDER/NAME.yaml` or a path to one that
holds the section's keys: `reward: NAME`, or `recipe: NAME` beside keys that come on top. A later recipe takes the place
of all that was said of the section before. In the resolved config the recipe's content stands, and not its name.

A section whose class has a function `free_keys` has a mapping without declared keys: the function, given the section's
name and content, returns those that it may have, so that they can be suggested for an unknown key.

A file may start from others: `include: [base.yaml]`, relative to itself; what comes later wins, and the file itself
wins over what it includes.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import takewhile
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import MISSING, DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from evidence.errors import BadInput

Schema = TypeVar("Schema")
CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SIMILAR = 0.8  # of two keys: one letter of five is wrong, or two are swapped


def load_config(schema: type[Schema], path: str | Path | None, overrides: Sequence[str] = ()) -> Schema:
    """An instance of the dataclass `schema`: its defaults, then the file with its includes, then the overrides.

    Without a path the defaults and overrides stand alone. Raises BadInput, also for what the `__post_init__` of a
    section refuses, whose message begins with the section's own key: "ranks = 0: it has to be 1 or more" is told as
    "learner.ranks = 0: …".
    """
    layers = list(_read(Path(path), ())) if path is not None else []
    layers += [_parse_override(text) for text in overrides]
    layers = [(source, _written_out(schema, layer)) for source, layer in layers]
    layers = _with_recipes(schema, layers)
    said_by: dict[str, str] = {}

    def known_keys() -> list[str]:
        return list(_paths(schema, reduce(_overlaid, (layer for _, layer in layers))))

    for source, layer in layers:
        said_by |= dict.fromkeys(_checked(schema, layer, source, known_keys), source)
    name = str(path) if path is not None else "overrides"
    try:
        return _instance(OmegaConf.merge(schema, *(layer for _, layer in layers)))
    except MissingMandatoryValue as error:
        raise BadInput(f"{name}: {error.full_key} has no value; set it there or with {error.full_key}=…") from None
    except OmegaConfBaseException as error:  # what only shows when ${references} are followed
        raise BadInput(f"{name}: {error.full_key}: {str(error).splitlines()[0]}") from None
    except BadInput as error:
        refused = str(error).split()[0].rstrip(":")
        said = [source for key, source in said_by.items() if f"{key}.".startswith(f"{refused}.")]
        raise BadInput(f"{said[-1] if said else name}: {error}") from None


def to_yaml(config: Any) -> str:
    """The resolved config as YAML that `load_config` reads back to an equal instance."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def _read(path: Path, parents: tuple[Path, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(source, layer) of the files that `path` includes, in their order, and last of `path` itself."""
    here = path.resolve()
    if here in parents:
        circle = " -> ".join(p.name for p in (*parents[parents.index(here) :], here))
        raise BadInput(f"{parents[-1]}: its include goes round in a circle: {circle}; take one of them out")
    try:
        layer = OmegaConf.to_container(OmegaConf.load(path))
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file; {_nearby(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error}); give a YAML file") from None
    except (YAMLError, OmegaConfBaseException) as error:
        raise BadInput(f"{path}: not valid YAML: {_one_line(error)}") from None
    if not isinstance(layer, dict):
        raise BadInput(f"{path}: holds a list; a config is a mapping of keys to values")
    includes = layer.pop("include", [])
    if not isinstance(includes, list) or not all(isinstance(name, str) for name in includes):
        raise BadInput(f"{path}: include = {includes!r}: it has to be a list of file names")
    for name in includes:
        yield from _read(path.parent / name, (*parents, here))
    yield str(path), layer  # type: ignore[misc]


def _parse_override(text: str) -> tuple[str, dict[str, Any]]:
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise BadInput(f"override {text!r}: write it as key=value")
    source = f"override {key}=…"  # without the value, in which a password may be
    try:
        return source, OmegaConf.to_container(OmegaConf.from_dotlist([text]))  # type: ignore[return-value]
    except (YAMLError, OmegaConfBaseException) as error:
        raise BadInput(f"{source}: the value is not valid YAML: {_one_line(error)}") from None


def _written_out(hint: Any, value: Any) -> Any:
    """`value`, which `hint` declares, with every section in it that is written short (see the module's docstring)."""
    section, short = _section(hint), getattr(_section(hint), "SHORT", None)
    if get_origin(hint) is list:
        one = get_args(hint)[0]
        listed = [value] if hasattr(_section(one), "SHORT") and isinstance(value, str | dict) else value
        return [_written_out(one, each) for each in listed] if isinstance(listed, list) else listed
    if short and isinstance(value, str):
        return {short: value}
    if section and isinstance(value, dict):
        hints = get_type_hints(section)
        return {name: _written_out(hints.get(name), each) for name, each in value.items()}
    return value


def _with_recipes(schema: Any, layers: list[tuple[str, dict[str, Any]]]) -> list[tuple[str, dict[str, Any]]]:
    """The layers, with each recipe that a section of `schema` names laid under what names it, instead of what came
    before."""
    hints = get_type_hints(schema)
    folders = {name: section.FOLDER for name, hint in hints.items() if hasattr(section := _section(hint), "FOLDER")}
    found: list[tuple[str, dict[str, Any]]] = []
    for source, layer in layers:
        for key, folder in folders.items():
            section = layer.get(key)
            recipe = section.get("recipe") if isinstance(section, dict) else None
            if recipe and isinstance(recipe, str):
                del section["recipe"]
                found = [(earlier, {k: v for k, v in said.items() if k != key}) for earlier, said in found]
                for file, content in _read(recipe_file(folder, recipe, source), ()):
                    found.append((file, {key: _written_out(hints[key], content)}))
        found.append((source, layer))
    return found


def recipe_file(folder: str, name: str, source: str) -> Path:
    """The YAML file that `name` means: a path to one, or a name in configs/`folder`. Raises BadInput."""
    if name.endswith((".yaml", ".yml")):
        return Path(name)
    home = CONFIGS / folder
    known = sorted(path.stem for path in home.glob("*.yaml"))
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0)
        raise BadInput(
            f"{source}: {home} holds no {name}.yaml; the nearest is {near[0] if near else 'none'}, all are: "
            f"{', '.join(known)}; or give a path that ends in .yaml"
        )
    return home / f"{name}.yaml"


def _checked(hint: Any, value: Any, source: str, known_keys: Callable[[], list[str]], key: str = "") -> Iterator[str]:
    """The dotted keys within `value`, each known and each of its declared type; `hint` is declared for `key` itself.
    `known_keys`: those of the whole config."""
    section, origin = _section(hint), get_origin(hint)
    within = f"{key}." if key else ""
    if section and isinstance(value, dict):
        hints = get_type_hints(section)
        for name, each in value.items():
            if name not in section.__dataclass_fields__:
                unknown = f"{within}{name}"
                while isinstance(each, dict) and each:  # its first value's key tells most of what is meant
                    last, each = next(iter(each.items()))
                    unknown += f".{last}"
                nearest = _nearest(unknown, [*(within + path for path in _paths(section)), *known_keys()])
                raise BadInput(f"{source}: unknown key {unknown}; the nearest known one is {nearest}")
            yield from _checked(hints[name], each, source, known_keys, f"{within}{name}")
    elif origin in (list, tuple) and isinstance(value, list) and value:
        for index, each in enumerate(value):
            yield from _checked(get_args(hint)[0], each, source, known_keys, f"{within}{index}")
    elif origin is dict and isinstance(value, dict):
        for name, each in value.items():
            yield from _checked(get_args(hint)[1], each, source, known_keys, f"{within}{name}")
    elif not _fits(value, hint):
        raise BadInput(f"{source}: {key} = {value!r}: it has to be {_describe(hint)}")
    else:
        yield key


def _instance(config: Any) -> Any:
    """What the merged config says, as its schema. Raises BadInput beginning with the whole key of what is refused."""
    for path, section in _sections(config):
        try:
            instance = OmegaConf.to_object(section)
        except BadInput as error:
            raise BadInput(f"{path}{error}") from None
    return instance


def _sections(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, section) of all that a merged config holds, those within a section before it, itself the last."""
    keys = node if isinstance(node, DictConfig) else range(len(node))
    for key in keys:
        if not OmegaConf.is_missing(node, key) and not OmegaConf.is_interpolation(node, key):
            within = node[key]
            if isinstance(within, DictConfig | ListConfig):
                yield from _sections(within, f"{path}{key}.")
    if dataclasses.is_dataclass(OmegaConf.get_type(node)):
        yield path, node


def _fits(value: Any, hint: Any) -> bool:
    """Whether a plain value has the declared type; of sections only the absent one is a plain value."""
    if section := _section(hint):
        return value is None and hint is not section
    field = dataclasses.make_dataclass("Field", [("value", hint, MISSING)])
    try:
        OmegaConf.merge(OmegaConf.structured(field), {"value": value})
    except (OmegaConfBaseException, TypeError):  # the latter for a mapping where a list is declared
        return False
    return True


def _section(hint: Any) -> Any:
    """The dataclass that `hint` declares, also behind `| None`; None for a plain value."""
    options = [o for o in get_args(hint) if o is not NoneType] if get_origin(hint) in (Union, UnionType) else [hint]
    return options[0] if len(options) == 1 and dataclasses.is_dataclass(options[0]) else None


def _paths(schema: Any, written: Any = None) -> Iterator[str]:
    """The dotted keys of `schema`: for a list of sections, those of its first; for a mapping of sections, those of
    each name in `written`, a config in plain data."""
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
        section = _section(get_args(hint)[-1] if origin in (list, dict) else hint)
        for path, content in sections.items() if section else ():
            yield from (f"{path}.{key}" for key in _paths(section, content))
            if hasattr(section, "free_keys"):
                yield from (f"{path}.{key}" for key in section.free_keys(path.rpartition(".")[2], content))


def _overlaid(below: Any, above: Any) -> Any:
    """Two layers merged, as plain data: what `above` holds wins."""
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
    """From 0 to 1, which only equal texts have."""
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


def _nearby(path: Path) -> str:
    """What to try instead of a file that is not there."""
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist either"
    names = sorted(p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml"))
    close = difflib.get_close_matches(path.name, names, n=3, cutoff=0) if names else []
    return f"nearby: {', '.join(str(folder / name) for name in close)}" if close else f"{folder} holds no YAML file"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
