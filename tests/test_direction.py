"""A file imports only from rows below its own, or from its own folder (ARCHITECTURE.md)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "promptreel"
ROWS = [
    {"types", "errors", "resources"},
    {"protocols"},
    {"config", "registry", "prompts", "profiles", "queries", "media", "access"},
    {"store", "recipes"},
    {"llms", "generators", "rewards", "engine", "tiny"},
    {"scoring", "desk"},
    {"rewriter", "evolution", "critique", "pairs", "training", "evaluation"},
    {"pipeline", "report"},
    {"server"},
    {"cli"},
    {"__main__"},
]
ROW = {room: number for number, rooms in enumerate(ROWS) for room in rooms}


def imports(path: Path) -> set[str]:
    """Rooms that a file imports anywhere in it, also inside functions."""
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


FILES = sorted(path for path in ROOT.rglob("*.py") if path != ROOT / "__init__.py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0].removesuffix(".py")
    assert room in ROW, f"{room} has no row; give it one here and in ARCHITECTURE.md"
    wrong = {other for other in imports(path) - {room} if ROW.get(other, 99) >= ROW[room]}
    assert not wrong, f"{path.relative_to(ROOT)} (row {ROW[room]}) imports {sorted(wrong)}"


def test_the_check_sees_a_wrong_import(tmp_path: Path) -> None:
    file = tmp_path / "types.py"
    file.write_text("def f():\n    from promptreel import cli\n    import promptreel.store.run\n")
    assert imports(file) == {"cli", "store"}
