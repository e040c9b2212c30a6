"""Binding of a recipe's term to the function that computes it.

Guarantees: a term's name and options are checked when the recipe is loaded; an error is one line that gives the remedy.
A user-defined term is named `module:function`.
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
# A group without completions; calling a built-in term on it only checks the term's options.
EMPTY_GROUP = GroupView(
    Sample("", "", "", "", "", video_path="a"), (), (), terms=defaultdict(lambda: np.zeros(0, np.float32))
)


def bound_term(where: str, use: str, options: dict[str, Any]) -> Callable[..., Any]:
    """The term called `use` with its options bound, ready to be called with a GroupView. `where`: its config key.

    Raises BadInput for an unknown term and for options that the term does not take.
    """
    term = _named(where, use)
    schema: Any = term if is_dataclass(term) else _schema(where, use, term)
    known = [option.name for option in fields(schema)]
    for name, value in options.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0)
            remedy = f"the nearest option is {near[0]}" if near else "it has no options"
            raise BadInput(f"{where}.options.{name}: {use} has no such option; {remedy}")
        try:
            OmegaConf.merge(OmegaConf.structured(schema), {name: value})
        except OmegaConfBaseException:
            hint = get_type_hints(schema)[name]
            wanted = f"one of {', '.join(map(str, get_args(hint)))}"
            if get_origin(hint) is not Literal:
                wanted = f"of type {getattr(hint, '__name__', hint)}"
            raise BadInput(f"{where}.options.{name} = {value!r}: must be {wanted}") from None
    try:
        typed: Any = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), options))
    except OmegaConfBaseException as error:
        raise BadInput(f"{where}.options: {use}: {str(error).splitlines()[0]}") from None
    except BadInput as error:  # raised by the dataclass itself; its message begins with the option's name
        raise BadInput(f"{where}.options.{error}") from None
    if is_dataclass(term):
        return typed
    bound = partial(term, **asdict(typed))
    if use in BUILTIN:
        try:
            bound(EMPTY_GROUP)
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
                f"{where}: no term is called {use}; the nearest is {near}; write your own terms as module:function"
            )
        return TERMS[use]
    return load_function(f"{where}.use", use)


def _schema(where: str, use: str, term: Callable[..., Any]) -> type:
    """A dataclass of the term's options, made from its signature."""
    try:
        parameters = list(inspect.signature(term).parameters.values())
        hints = get_type_hints(term)
    except (ValueError, TypeError, NameError) as error:  # a C function, or annotations with undefined names
        raise BadInput(f"{where}.use = {use}: its signature cannot be read: {error}") from None
    options = parameters[1:]
    by_name = inspect.Parameter.KEYWORD_ONLY
    if not parameters or parameters[0].kind is by_name or any(option.kind is not by_name for option in options):
        raise BadInput(f"{where}.use = {use}: must be written as def {term.__name__}(view, *, option=default, …)")
    declared = [
        (option.name, hints.get(option.name, Any), field(default_factory=partial(_identity, option.default)))
        if option.default is not option.empty
        else (option.name, hints.get(option.name, Any), field(default=MISSING))
        for option in options
    ]
    return make_dataclass(f"Options of {use}", declared, kw_only=True)


def _identity(value: Any) -> Any:
    return value
