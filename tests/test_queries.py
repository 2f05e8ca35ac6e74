"""Queries from files and data sets: nothing is lost silently, and what is wrong names its line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptreel import queries
from promptreel.errors import QueryError, UnknownName
from promptreel.tiny import datasets
from promptreel.types import Query

NAMED = {"tiny-train": datasets.train, "tiny-test": datasets.test}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.txt", "a red ball\n\n  a blue   box \n"),
        ("q.jsonl", '{"query": "a red ball"}\n"a blue box"\n'),
        ("q.csv", "id,prompt\n1,a red ball\n2,a blue box\n"),
        ("bom.txt", "\ufeffa red ball\r\na blue box\r\n"),
    ],
)
def test_files_are_read(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert [query.text for query in queries.read(str(path))] == ["a red ball", "a blue box"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", '{"query": "a"}\n{"query": ', "line 2: not JSON"),
        ("q.jsonl", '{"q": "a"}\n', "line 1: no text"),
        ("q.csv", "id\n1\n", "line 2: no text"),
        ("q.txt", "\n \n", "has only 0"),
        ("q.txt", "word " * 10_000, "10000 words"),
    ],
)
def test_what_is_wrong_names_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(QueryError, match=message):
        queries.read(str(path))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="no file of queries"):
        queries.read("absent.txt")
    with pytest.raises(UnknownName, match="did you mean 'tiny-test'"):
        queries.read("tiny-tets", named=NAMED)
    with pytest.raises(QueryError, match="no end"):
        queries.read("tiny-test", named=NAMED)
    path = tmp_path / "two.txt"
    path.write_text("a\nb\n")
    with pytest.raises(QueryError, match="has only 2"):
        queries.read(str(path), take=3)


def test_slices_of_a_data_set_are_disjoint() -> None:
    first = queries.read("tiny-train", 0, 100, NAMED)
    second = queries.read("tiny-train", 100, 100, NAMED)
    assert len(first) == len(second) == 100
    assert not set(first) & set(second)
    assert queries.read("tiny-train", 0, 200, NAMED) == first + second


def test_duplicates_count_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text("a ball\na  ball\na box\n")
    assert queries.read(str(path)) == [Query("a ball"), Query("a box")]


def test_an_empty_query_is_refused() -> None:
    with pytest.raises(QueryError, match="empty"):
        queries.parse_query(" \n")


@given(st.text(min_size=1, max_size=200).filter(lambda text: text.split()))
def test_a_query_keeps_every_word(text: str) -> None:
    assert queries.parse_query(text).text.split() == text.split()
