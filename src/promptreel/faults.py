"""Classification of errors: one batch at fault, the machine, or a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from promptreel.errors import PromptreelError, RenderError, RunError
from promptreel.types import Completion, Failure


def out_of_memory(error: BaseException) -> bool:
    """Return True for a lack of memory. On a CPU torch reports it only in the message."""
    words = str(error).lower()
    short = isinstance(error, MemoryError) or getattr(error, "reason", "") == "memory"
    return short or any(said in words for said in ("out of memory", "can't allocate memory", "cannot allocate memory"))


def device_failed(error: BaseException) -> bool:
    """Return True for an error of the GPU itself, after which nothing works on it in this process."""
    words = str(error).lower()
    return not out_of_memory(error) and ("cuda error" in words or "hip error" in words)


def one_line(error: BaseException) -> str:
    """Return type and message of an error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


@contextmanager
def classified(what: str) -> Iterator[None]:
    """Raise ``RenderError`` for an error of this batch, ``RunError`` for one that every later batch would meet too.

    Missing files or packages and a failed device are of the second kind.
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


def raise_if_unanswered(results: Sequence[Completion | Failure]) -> None:
    """Raise ``RunError`` if every request failed and one of the failures is transient: the server cannot be reached.

    Stored failures are never asked for again, so those of an outage must not be stored.
    """
    failures = [result for result in results if isinstance(result, Failure) and result.transient]
    if failures and len(failures) == len(results):
        why = f"{failures[0].reason} {failures[0].detail}".strip()
        raise RunError(f"nobody answers ({why}); what was stored is whole: the same command goes on from here")
