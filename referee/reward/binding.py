"""From what a recipe says of a term to the function that computes it.

Guarantees: what a recipe names and the options that it gives are checked when it is loaded, in one line that says what
would be right. A user's own term is named `module:function`.
"""

from __future__ import annotations

import difflib
import inspect
from collections import defaultdict
from collections.abc import Callable
from dataclasses import MISSING, asdict, field, fields, is_dataclass, make_dataclass
from functools import partial
from typing import Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from evidence.errors import BadInput
from evidence.functions import load_function
from evidence.types import Sample
from referee.reward.ser import Ser
from referee.terms import BUILTIN
from referee.terms.view import GroupView

TERMS: dict[str, Any] = {**BUILTIN, "ser": Ser}
# A group of no completions, by which a built-in term says what it refuses of its options.
NOBODY = GroupView(
    Sample("", "", "", "", "", video_path="a"), (), (), terms=defaultdict(lambda: np.zeros(0, np.float32))
)


def bound_term(where: str, use: str, options: dict[str, Any]) -> Callable[..., Any]:
    """The term called `use`, with its options, to be called with a GroupView. `where`: its key in the config.

    Raises BadInput for a name that leads nowhere and for options that the term does not take.
    """
    term = _named(where, use)
    schema: Any = term if is_dataclass(term) else _schema(where, use, term)
    known = [one.name for one in fields(schema)]
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            takes = f"the nearest it takes is {near[0]}" if near else "it takes none"
            raise BadInput(f"{where}.options.{name}: {use} has no such option; {takes}")
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {name: value})
        except OmegaConfBaseException:
            wanted = get_type_hints(schema)[name]
            right = f"one of {', '.join(map(str, get_args(wanted)))}"
            if get_origin(wanted) is not Literal:
                right = f"of type {getattr(wanted, '__name__', wanted)}"
            raise BadInput(f"{where}.options.{name} = {value!r}: it has to be {right}") from None
    try:
        typed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), options))
    except OmegaConfBaseException as error:
        raise BadInput(f"{where}.options: {use}: {str(error).splitlines()[0]}") from None
    except BadInput as error:  # what a dataclass refuses by itself names the option first
        raise BadInput(f"{where}.options.{error}") from None
    if is_dataclass(term):
        return typed
    bound = partial(term, **asdict(typed))
    if use in BUILTIN:
        try:
            bound(NOBODY)
        except BadInput as error:
            raise BadInput(f"{where}.options: {error}") from None
    return bound


def option_names(use: str) -> list[str]:
    """The options that the term called `use` takes. Raises BadInput for a name that leads nowhere."""
    term = _named("use", use)
    return [option.name for option in fields(term if is_dataclass(term) else _schema("use", use, term))]


def _named(where: str, use: str) -> Any:
    if ":" not in use:
        if use not in TERMS:
            near = difflib.get_close_matches(use, TERMS, n=1, cutoff=0)[0]
            raise BadInput(
                f"{where}: no term is called {use}; the nearest is {near}; one of your own is written module:function"
            )
        return TERMS[use]
    return load_function(f"{where}.use", use)


def _schema(where: str, use: str, term: Callable[..., Any]) -> type:
    """A dataclass with the term's options, as its signature says."""
    try:
        parameters = list(inspect.signature(term).parameters.values())
        hints = get_type_hints(term)
    except (ValueError, TypeError, NameError) as error:  # no function of Python's, or its annotations name nothing
        raise BadInput(f"{where}.use = {use}: its signature cannot be read: {error}") from None
    options = parameters[1:]
    by_name = inspect.Parameter.KEYWORD_ONLY
    if not parameters or parameters[0].kind is by_name or any(one.kind is not by_name for one in options):
        raise BadInput(f"{where}.use = {use}: it has to be written as def {term.__name__}(view, *, option=default, …)")
    declared = [
        (one.name, hints.get(one.name, Any), field(default_factory=partial(_same, one.default)))
        if one.default is not one.empty
        else (one.name, hints.get(one.name, Any), field(default=MISSING))
        for one in options
    ]
    return make_dataclass(f"Options of {use}", declared, kw_only=True)


def _same(value: Any) -> Any:
    return value
