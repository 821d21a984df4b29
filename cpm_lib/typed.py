"""Dataclass fields from values somebody typed: names and types are checked, and mistakes explained."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from cpm_lib.errors import UserError


def nearest(word: str, choices: Sequence[str]) -> str:
    """A hint for a mistyped name: ``; did you mean 'x'?`` or the list of choices."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.5)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(choices)}"


def check_names(cls: type, names: Sequence[str] | Mapping[str, Any], prefix: str) -> None:
    known = [f.name for f in dataclasses.fields(cls)]
    for name in names:
        if name not in known:
            raise UserError(f"unknown setting '{prefix}{name}'{nearest(name, known)}")


def replace_fields(part: Any, values: Mapping[str, Any], prefix: str) -> Any:
    """`dataclasses.replace` that checks names and types."""
    check_names(type(part), values, prefix)
    hints = typing.get_type_hints(type(part))
    return dataclasses.replace(
        part, **{name: coerce(hints[name], value, prefix + name) for name, value in values.items()}
    )


def coerce(hint: Any, value: Any, name: str) -> Any:
    """`value` as the annotated type, or UserError; ints widen to float, lists become tuples."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for option in arguments:
            try:
                return coerce(option, value, name)
            except UserError:
                continue
    elif origin is Literal:
        if value in arguments and isinstance(value, str):
            return value
        raise UserError(f"{name}: '{value}' is not possible{nearest(str(value), [str(a) for a in arguments])}")
    elif origin is tuple and isinstance(value, (list, tuple)):
        items = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else arguments
        if len(items) == len(value):
            return tuple(coerce(item, v, name) for item, v in zip(items, value, strict=True))
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, bool):
        pass
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    wanted = getattr(hint, "__name__", str(hint)) if isinstance(hint, type) else str(hint)
    raise UserError(f"{name}: {value!r} is not of type {wanted}")
