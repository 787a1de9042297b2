"""The memo of a process that works on another host.

SQLite and locks hold among the processes of one host alone. What works elsewhere has every call of the memo, its claims
and its ledger made at home: by one process on the host of the workspace, which is the only one that opens the database.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, TypeVar

# A function's module and name, and its arguments.
Call = tuple[str, str, tuple[Any, ...], dict[str, Any]]
F = TypeVar("F", bound=Callable[..., Any])

# What may be called so, and nothing else.
_calls: dict[tuple[str, str], Callable[..., Any]] = {}
_ask: Callable[[Call], Any] | None = None
# For whom a call is made at home: the part that asks, None for this process itself.
_asking: Any = None


def elsewhere(ask: Callable[[Call], Any]) -> None:
    """From now on this process has its calls made by `ask`."""
    global _ask
    _ask = ask


def at_home(function: F) -> F:
    """A function that is called at home, wherever it is called."""
    _calls[function.__module__, function.__qualname__] = function

    @functools.wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        if _ask is None:
            return function(*arguments, **named)
        return _ask((function.__module__, function.__qualname__, arguments, named))

    return called  # type: ignore[return-value]


def make(call: Call, asking: Any) -> Any:
    """Make a call of somebody elsewhere: what it gives, or its error."""
    global _asking
    module, name, arguments, named = call
    importlib.import_module(module)
    if (module, name) not in _calls:
        return LookupError(f"{module}.{name} is no call that is made at home")
    _asking = asking
    try:
        return _calls[module, name](*arguments, **named)
    except Exception as error:
        return error
    finally:
        _asking = None


def asking() -> Any:
    """For whom the call that is being made is made."""
    return _asking
