"""The means of `repair`: ways to look at Lago's code and to adapt it."""

from __future__ import annotations

import functools
from types import CodeType
from typing import Any, Callable, Iterable, Iterator

#: A repair returns whether Lago needed it (and so has it now).
Repair = Callable[[], bool]


class StandIn:
    """A module as the code of one Lago module expects it to be.

    It is put in the place of, for example, the name `yaml` in `lago.utils`.
    The rejected alternative is to change `yaml` itself, which belongs to
    everything in the process.

    Args:
        real: the module to stand in for
        names: what this one has instead of, or beyond, the real module
    """

    def __init__(self, real: Any, **names: Any) -> None:
        self._real = real
        self.__dict__.update(names)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


def mentions(function: Callable[..., Any], *words: str) -> bool:
    """Tell whether the code of a function uses all these names or strings.

    For code that cannot be tried out without a connection or a VM.
    """
    code: CodeType = function.__code__
    return set(words) <= set(_words(code.co_names + code.co_consts))


def _words(values: Iterable[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple):  # names of keyword arguments
            yield from _words(value)


def as_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a function so that bytes that it returns are decoded."""
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = function(*args, **kwargs)
        return result.decode() if isinstance(result, bytes) else result

    return wrapper
