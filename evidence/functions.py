"""Functions of a user's own, named `module:function` in a config. The working directory is searched, too, as for a
script."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from evidence.errors import BadInput


def load_function(key: str, name: str) -> Callable[..., Any]:
    """What `name`, written module:function under the config's `key`, leads to. Raises BadInput."""
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # a console script does not search it, `python -m` does
        sys.path.insert(0, os.getcwd())
    try:
        found = getattr(import_module(module), function, None)
    except Exception as error:  # whatever the user's module does when it is imported
        raise BadInput(f"{key} = {name}: {module} cannot be imported: {type(error).__name__}: {error}") from None
    if not callable(found):
        raise BadInput(f"{key} = {name}: {module} has no function {function}")
    return found
