"""A file imports only from rows below its own, or from its own room; ARCHITECTURE.md holds the rows."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
ROOT = PROJECT / "src" / "promptreel"


def rows() -> dict[str, int]:
    """Return the row of every room, from the first block of ARCHITECTURE.md."""
    block = (PROJECT / "ARCHITECTURE.md").read_text().split("```")[1]
    found: dict[str, int] = {}
    for line in block.strip().splitlines():
        number, rooms = re.match(r"\s*(\d+)  (.*)", line).groups()  # type: ignore[union-attr]
        names = re.split(r"\s{4,}", rooms)[0]
        found.update({room.strip("/"): int(number) for room in names.split()})
    return found


ROW = rows()
INSIDE = {0, 2}
"""Rows whose rooms may import each other, as long as there is no circle."""


def imports(path: Path) -> set[str]:
    """Return the rooms that a file imports anywhere in it, also inside functions."""
    rooms = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "promptreel" else [module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        rooms |= {name.split(".")[1] for name in names if name.startswith("promptreel.")}
    return rooms


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = room_of(path)
    assert room in ROW, f"{room} has no row: give it one in ARCHITECTURE.md"
    wrong = {
        other
        for other in imports(path) - {room}
        if ROW.get(other, 99) > ROW[room] or (ROW.get(other) == ROW[room] and ROW[room] not in INSIDE)
    }
    assert not wrong, f"{path.relative_to(ROOT)} (row {ROW[room]}) imports {sorted(wrong)}"


def test_rooms_of_one_row_import_each_other_in_no_circle() -> None:
    inside = {room for room, row in ROW.items() if row in INSIDE}
    arrows: dict[str, set[str]] = {room: set() for room in inside}
    for path in FILES:
        if room_of(path) in inside:
            arrows[room_of(path)] |= imports(path) & inside - {room_of(path)}

    def follow(room: str, trail: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        if room in trail:
            yield (*trail, room)
            return
        for other in arrows[room]:
            yield from follow(other, (*trail, room))

    assert not [circle for room in inside for circle in follow(room, ())]


def modules(path: Path) -> set[str]:
    """Return the modules of the package that a file imports when it is loaded."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("promptreel"):
            found.add(node.module or "")
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def test_no_files_import_each_other_in_a_circle() -> None:
    names = {".".join(("promptreel", *path.relative_to(ROOT).with_suffix("").parts)): path for path in FILES}
    arrows = {name: {other for other in modules(path) if other in names} for name, path in names.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' -> '.join([*trail, name])}"
        if name not in done:
            for other in arrows[name]:
                visit(other, (*trail, name))
            done.add(name)

    for name in arrows:
        visit(name, ())


def test_every_room_that_has_a_row_exists() -> None:
    there = {path.name.removesuffix(".py") for path in ROOT.iterdir()}
    assert not set(ROW) - there


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "types.py"
    file.write_text("def f():\n    from promptreel import cli\n    import promptreel.store.run\n")
    assert imports(file) == {"cli", "store"}
