"""Conversion of the vocabulary's dataclasses to plain JSON values and back.

Guarantees: `decode(type(x), json.loads(json.dumps(encode(x))))` equals x bit for bit: arrays keep dtype, shape and
the bits of every NaN, floats their sign and value. (Outside arrays the bits of a NaN are not kept; lone surrogates in
a text, which no UTF-8 file can hold, are not promised.) The encoded values are standard JSON: NaN and the infinities
are the strings "nan", "inf" and "-inf". Arrays are {"dtype", "shape", "base64"}, in C order; decoded arrays are
writable.

`decode` accepts only what `encode` returns. For any other value, missing and unknown keys included, it raises
BadInput with the place (`Group.trajectories[2].text`) and the fault.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from evidence.errors import BadInput

T = TypeVar("T")

NOT_FINITE = ("nan", "inf", "-inf")
# numpy's names of the dtypes that are plain bits: bool, int, unsigned and float, with their size in bytes.
DTYPE = re.compile(r"[|<>][biuf][0-9]{1,2}")


def encode(value: Any) -> Any:
    """`value` as dicts, lists, strings, numbers and None. Raises TypeError for types outside the vocabulary."""
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and DTYPE.fullmatch(value.dtype.str):
        data = base64.b64encode(value.tobytes()).decode()
        return {"dtype": value.dtype.str, "shape": list(value.shape), "base64": data}
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, str | int):
        return value
    raise TypeError(f"{type(value).__name__} has no JSON form: {value!r:.60}")


def decode(kind: type[T], data: Any) -> T:
    """The instance of the dataclass `kind` that `encode` turned into `data`. Raises BadInput."""
    return _dataclass(kind, data, kind.__name__)


@cache
def _hints(kind: type) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _dataclass(kind: type, data: Any, where: str) -> Any:
    hints = _hints(kind)
    given = _object(data, where)
    if absent := [name for name in hints if name not in given]:
        raise BadInput(f"{where}: the key '{absent[0]}' is missing")
    if unknown := [name for name in given if name not in hints]:
        raise BadInput(f"{where}: unknown key '{unknown[0]}'; the keys are {', '.join(hints)}")
    return kind(**{name: _value(hint, given[name], f"{where}.{name}") for name, hint in hints.items()})


def _value(hint: Any, data: Any, where: str) -> Any:
    """`data` as the type `hint`: a dataclass, an array, str, int, float, a tuple, a dict by str, or `… | None`."""
    origin, of = get_origin(hint), get_args(hint)
    if origin is UnionType:
        (other,) = (arg for arg in of if arg is not NoneType)
        return None if data is None else _value(other, data, where)
    if origin is tuple:
        return _tuple(of, data, where)
    if origin is dict:
        return {key: _value(of[1], item, f"{where}[{key!r}]") for key, item in _object(data, where).items()}
    if hint is np.ndarray:
        return _array(data, where)
    if hint is float:
        return _float(data, where)
    if is_dataclass(hint) and isinstance(hint, type):
        return _dataclass(hint, data, where)
    if type(data) is not hint:  # not isinstance: True is an instance of int
        raise _wrong(where, {str: "a string", int: "a whole number"}[hint], data)
    return data


def _tuple(of: tuple[Any, ...], data: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(data, list):
        raise _wrong(where, "a list", data)
    hints = of[:1] * len(data) if of[1:] == (...,) else of
    if len(hints) != len(data):
        raise _wrong(where, f"a list of {len(hints)}", data)
    return tuple(_value(hint, item, f"{where}[{place}]") for place, (hint, item) in enumerate(zip(hints, data)))


def _float(data: Any, where: str) -> float:
    if data in NOT_FINITE or (type(data) in (int, float) and abs(data) <= sys.float_info.max):
        return float(data)
    raise _wrong(where, f"a number, or one of {', '.join(NOT_FINITE)} as a string", data)


def _array(data: Any, where: str) -> np.ndarray:
    given = _object(data, where)
    if set(given) != {"dtype", "shape", "base64"}:
        raise _wrong(where, "an array's dtype, shape and base64", data)
    try:
        if not DTYPE.fullmatch(given["dtype"]):
            raise ValueError(f"dtype {given['dtype']!r:.40} is not numeric")
        if not all(type(side) is int and side >= 0 for side in given["shape"]):
            raise ValueError(f"shape {given['shape']!r:.40} is not a list of sizes")
        dtype = np.dtype(given["dtype"])
        raw = bytearray(base64.b64decode(given["base64"], validate=True))
        if math.prod(given["shape"]) * dtype.itemsize != len(raw):
            raise ValueError(f"{len(raw)} bytes do not fill shape {given['shape']!r:.40} of {dtype.str}")
        return np.ndarray(tuple(given["shape"]), dtype, raw)
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInput(f"{where}: not an array: {error}") from None


def _object(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise _wrong(where, "an object", data)
    return data


def _wrong(where: str, wanted: str, data: Any) -> BadInput:
    return BadInput(f"{where}: must be {wanted}, not {data!r:.60}")
