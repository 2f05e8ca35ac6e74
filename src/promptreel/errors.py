"""What can go wrong, as a small tree.

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

Every message says what is wrong, which value, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class PromptreelError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class UserError(PromptreelError):
    exit_code = 2


class RecipeError(UserError):
    pass


class QueryError(UserError):
    pass


class UnknownName(UserError):
    """``kind`` named ``name`` does not exist; the message suggests the nearest of ``known``."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown {kind} {name!r}{did_you_mean(name, known)}")


class MissingExtra(UserError):
    """``what`` needs the optional dependencies ``extra``."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs promptreel[{extra}]: type  pip install 'promptreel[{extra}]'")


class Refused(PromptreelError):
    exit_code = 3


class Interrupted(PromptreelError):
    exit_code = 130


class RunError(PromptreelError):
    pass


class RenderError(PromptreelError):
    """A batch could not be rendered. ``reason`` is what it is counted under: ``render`` or ``memory``."""

    def __init__(self, message: str, reason: str = "render") -> None:
        super().__init__(message)
        self.reason = reason


class ReplyError(PromptreelError):
    pass


def out_of_memory(error: BaseException) -> bool:
    """Whether an error is for want of memory, which torch says in words, and on the CPU in nothing else."""
    words = str(error).lower()
    short = isinstance(error, MemoryError) or getattr(error, "reason", "") == "memory"
    return short or any(said in words for said in ("out of memory", "can't allocate memory", "cannot allocate memory"))


def device_failed(error: BaseException) -> bool:
    """Whether an error says, in torch's words, that the GPU itself failed: nothing works on it in this process then."""
    words = str(error).lower()
    return not out_of_memory(error) and ("cuda error" in words or "hip error" in words)


def one_line(error: BaseException) -> str:
    """What an error says, with its kind, where its library takes many lines to say it."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Tells a fault of what is at work on a batch, a ``RenderError``, from one that no later batch could escape, a
    ``RunError``: files or packages that are not there, a device that failed.
    """
    try:
        yield
    except PromptreelError:
        raise
    except (OSError, ImportError) as error:
        raise RunError(f"{what} cannot be used: {one_line(error)}") from error
    except Exception as error:
        if device_failed(error):
            raise RunError(
                f"the device failed under {what} ({one_line(error)}); what was stored is whole: the same command goes "
                "on from here"
            ) from error
        raise RenderError(one_line(error), "memory" if out_of_memory(error) else "render") from error


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest known one, and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ";"
    return f"{hint} available: {', '.join(names) or 'none'}"


EXTRAS = {
    "torch": "local", "transformers": "local", "diffusers": "local", "accelerate": "local", "trl": "local",
    "peft": "local", "datasets": "local", "pyarrow": "local", "safetensors": "local", "cv2": "local", "av": "local",
    "matplotlib": "local", "fastapi": "serve", "uvicorn": "serve",
}  # fmt: skip
"""Which extra brings a module that is not part of the core."""


class importing:
    """Turns the absence of an optional dependency into the line that installs it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ModuleNotFoundError):
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra:
                raise MissingExtra(self.what, extra) from error
