"""User-defined functions, named `module:function` in a config. The working directory is searched too."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from evidence.errors import BadInput


def load_function(key: str, name: str) -> Callable[..., Any]:
    """The function that the config's `key` names as `name` = `module:function`. Raises BadInput if there is none."""
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # a console script does not search it, `python -m` does
        sys.path.insert(0, os.getcwd())
    try:
        attribute = getattr(import_module(module), function, None)
    except Exception as error:  # importing the user's module may raise anything
        raise BadInput(f"{key} = {name}: {module} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(attribute):
        raise BadInput(f"{key} = {name}: {module} has no function {function}")
    return attribute
