"""The exceptions that Promptreel raises on purpose.

    PromptreelError
    ├── UserError             the input, the recipe or the set-up is wrong: exit 2, no traceback
    │   ├── RecipeError       a recipe key, value or stage order
    │   ├── QueryError        a query or a file of queries
    │   ├── UnknownName       a component, profile or split that does not exist
    │   └── MissingExtra      an optional dependency is not installed
    ├── Refused               the safety policy refuses the query: exit 3
    ├── Interrupted           a signal asked the run to stop; what was paid for is stored: exit 130
    ├── RunError              the run directory cannot be used as asked: exit 1
    ├── RenderError           a batch of renders failed: it is halved, then counted under its reason
    └── ReplyError            a model's reply could not be parsed; counted under its reason

Every message names the fault, the value, and the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class PromptreelError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by message, whatever a subclass's constructor takes: errors come back from worker processes."""
        return _restore, (type(self), self.args, self.__dict__)


def _restore(kind: type[PromptreelError], args: tuple[Any, ...], state: dict[str, Any]) -> PromptreelError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(state)
    return error


class UserError(PromptreelError):
    exit_code = 2


class RecipeError(UserError):
    pass


class QueryError(UserError):
    pass


class UnknownName(UserError):
    """Name of a ``kind`` that does not exist. The message suggests the nearest of ``known``."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)}")


class MissingExtra(UserError):
    """Absence of the optional dependencies ``extra`` that ``what`` needs."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs promptreel[{extra}]: type  pip install 'promptreel[{extra}]'")


class Refused(PromptreelError):
    exit_code = 3


class Interrupted(PromptreelError):
    exit_code = 130


class RunError(PromptreelError):
    pass


class RenderError(PromptreelError):
    """Failure of a whole batch of renders or scores, counted under ``reason``: ``render`` or ``memory``."""

    def __init__(self, message: str, reason: str = "render") -> None:
        super().__init__(message)
        self.reason = reason


class ReplyError(PromptreelError):
    pass


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the tail of a message about an unknown name: the nearest known name, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} available: {', '.join(names) or 'none'}"
