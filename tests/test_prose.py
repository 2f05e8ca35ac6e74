"""Docstrings are plain technical English: a verb for a function, a noun for the rest."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "promptreel"
FILES = sorted(ROOT.rglob("*.py"))
RIDDLE = re.compile(r"^(what|whether|who|whose|which|where|how|why|when)\b", re.IGNORECASE)
ELSEWHERE = re.compile(r"\b(whoever|nobody)\b|\bwhat (?!is more\b)", re.IGNORECASE)
SHARE = 0.02
"""Largest share of docstrings with "whoever", "nobody" or "what …" in place of a noun."""


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of every docstring, those of attributes included."""
    for node in ast.walk(ast.parse(path.read_text())):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for statement in body:
            if (
                isinstance(statement, ast.Expr)
                and isinstance(statement.value, ast.Constant)
                and isinstance(statement.value.value, str)
            ):
                yield statement.lineno, statement.value.value.strip()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_docstring_begins_with_a_riddle(path: Path) -> None:
    assert not [f"{path.name}:{line}: {text[:80]}" for line, text in docstrings(path) if RIDDLE.match(text)]


def test_few_docstrings_avoid_a_noun() -> None:
    found = [(path, line, text) for path in FILES for line, text in docstrings(path)]
    vague = [f"{path.relative_to(ROOT)}:{line}: {text}" for path, line, text in found if ELSEWHERE.search(text)]
    assert len(vague) <= SHARE * len(found), "\n".join(vague)


def test_no_function_has_more_than_eight_parameters() -> None:
    """Constructors of components mirror options, and commands their command line."""
    long = []
    for path in FILES:
        if path.is_relative_to(ROOT / "cli"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name != "__init__":
                arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                own = [a for a in arguments if a.arg not in ("self", "cls")]
                if len(own) > 8:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {len(own)}")
    assert not long, "\n".join(long)


def test_files_hold_one_thought() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {lines}" for path in FILES if (lines := len(path.read_text().splitlines())) > 400
    ]
    assert not long, "\n".join(long)


def test_a_prompt_is_never_an_anonymous_pair() -> None:
    """A candidate, a render request, a table row or an example carries it, never ``(query, text)``."""
    pair = re.compile(r"tuple\[Query, str\]|(?<!\w)\((?:query|q), (?:text|candidate\.text|c\.text)\)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in FILES
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if pair.search(line)
    ]
    assert not found, "\n".join(found)
