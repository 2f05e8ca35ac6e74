"""The run of fakes that the golden file is made of: ``python tools/golden_fakes.py FILE`` writes its canonical form.

``tests/golden/fakes.json`` was made from the code of commit cd0c935, the last before the change of the database's
layout, checked out in OLD:

    PYTHONPATH=OLD/src:OLD/tests python tools/golden_fakes.py tests/golden/fakes.json

``tests/test_golden.py`` runs the same recipe with the code at hand and compares. The file is written again only for a
change of values that is meant, from the code before that change and the code after it, with both compared by
``tools/golden.py``:

    PYTHONPATH=src:tests python tools/golden_fakes.py tests/golden/fakes.json
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import fakes

import golden
from promptreel import registry
from promptreel.pipeline import run

QUERIES = ["red ball", "broken hoop", "gory star", "slow box", "blue box", "tiny ring", "dim cross", "green tree"]
"""Queries in an order that gives every stage some that fail. Broken ones do not render, slow ones get no completion,
gory ones are unsafe, and a dim one has no verdict until it is mended."""
OLD = not hasattr(registry, "register")
"""True for code up to commit cd0c935."""


class Mender(fakes.FakeLLM):
    """The fake language model, which also mends the drafts that it is asked to repair, by leaving out harm.

    Some drafts lose both words of a query (rejected for fidelity) or leave out harm themselves, and those of a dim
    query are unreadable. Only the texts of the fake's results are changed, so the class fits every version of them.
    """

    def complete(self, *given: Any) -> list[Any]:
        """Return the fake's results with other texts."""
        return [replace(r, text=_mended(r.text)) if hasattr(r, "text") else r for r in super().complete(*given)]


def _mended(echo: str) -> str:
    """Return the completion in place of the fake's, which repeats the request and ends with a part of the seed."""
    task, _, query = echo.splitlines()[0].partition(" for video: ")
    end = echo.split()[-1]
    if task == "Repair":
        return f"{query.replace('gory', 'plain')} mended {end}"
    if task == "Rewrite" and int(end[1:]) % 3 == 0:
        return f"something else {end}"
    if task == "Rewrite" and int(end[1:]) % 5 == 0:
        echo = echo.replace("gory", "plain")
    return echo.replace("dim", "dim unreadable")


def recipe(engine: Mapping[str, Any] | None = None) -> Any:
    """Return the recipe: every stage of the fakes that trains nothing."""
    source = {"source": "q.txt"}
    critique = {"kind": "critique", "queries": {**source, "take": 7}, "candidates": 3, "rounds": 2}
    stages: list[dict[str, Any]] = [critique, *(dict(stage) for stage in fakes.RECIPE["stage"])]
    for stage in stages:
        if stage["kind"] == "evolve":
            stage["queries"] = {**source, "take": 5}
        if stage["kind"] == "sample":
            stage["queries"] = {**source, "skip": 3, "take": 5}
    writer = {**fakes.FAKE_LLM, "llm": {"name": "mender"}}
    made = fakes.recipe(stage=stages, student=writer, teacher=writer)
    return made if engine is None else type(made).model_validate({**made.resolved(), "engine": engine})


@contextlib.contextmanager
def registered() -> Any:
    """Make the components of the recipe known; in worker processes, too, where there are any."""
    with contextlib.ExitStack() as stack:
        if OLD:
            for kind, name in fakes.NAMES.items():
                stack.enter_context(mock.patch.dict(registry.BUILT_IN[kind], {"fake": f"fakes:{name}"}))
            stack.enter_context(mock.patch.dict(registry.BUILT_IN["llm"], {"mender": "golden_fakes:Mender"}))
        else:
            from promptreel.testing import register_fakes

            register_fakes()
            registry.register("llm", "mender", "golden_fakes:Mender")
        yield


def run_fakes(directory: Path, engine: Mapping[str, Any] | None = None) -> None:
    """Run the recipe in ``directory / "run"``, on its own engine or another one."""
    with registered(), contextlib.chdir(directory):
        Path("q.txt").write_text("\n".join(QUERIES))
        if OLD:
            run(recipe(), "x", Path("run"))
        else:
            run(recipe(engine), Path("run"))


def main(path: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run_fakes(Path(directory))
        golden.write(golden.read(Path(directory) / "run"), path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
