"""Queries from files and data sets: nothing is lost silently, and an error names its line."""

from collections import Counter
from itertools import pairwise
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
        ("quoted.csv", 'id,prompt\n1,"a\nred\n\nball"\n2,"a blue\u2028box"\n'),
        ("odd.jsonl", '{"text": "a red\u2028ball"}\r\n"a\\nblue\x85box"\r\n'),
        ("bom.txt", "\ufeffa red ball\r\na blue box\r\n"),
    ],
)
def test_files_of_every_format_give_the_same_queries(tmp_path: Path, name: str, content: str) -> None:
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
        ("q.txt", "a cat\n--ar 16:9\n", "line 2: the query '--ar 16:9' asks for nothing"),
        ("q.txt", "word " * 10_000, "10000 words"),
        ("q.csv", 'prompt\n"a\nb"\n""\n', "line 4: the query '' asks for nothing"),
        ("q.csv", 'prompt\n"' + "a" * 200_000 + '"\n', "not CSV"),
        ("q.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("q.jsonl", '"a"\n{"id": ' + "7" * 5000 + ', "query": "b"}', "line 2: not JSON"),
        ("q.txt", "a\n" + "\u732b" * 30_000, "line 2: the query has 30000 characters; at most 20000"),
        ("q.parquet", "not Parquet", "cannot read"),
    ],
)
def test_an_error_in_a_file_names_its_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(QueryError, match=message):
        queries.read(str(path))


def test_a_missing_source_and_missing_queries_are_errors(tmp_path: Path) -> None:
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


def test_slices_of_a_data_set_that_do_not_overlap_are_disjoint() -> None:
    first = queries.read("tiny-train", 0, 100, NAMED)
    second = queries.read("tiny-train", 100, 100, NAMED)
    assert len(first) == len(second) == 100
    assert not set(first) & set(second)
    assert queries.read("tiny-train", 0, 200, NAMED) == first + second


def test_exact_duplicates_are_read_once(tmp_path: Path) -> None:
    path = tmp_path / "twice.txt"
    path.write_text("a ball\na  ball\na box\n")
    assert queries.read(str(path)) == [Query("a ball"), Query("a box")]


def parquet(path: Path, **columns: list[object]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_unusable_rows_of_a_data_set_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = ["a red ball", None, "--ar 16:9", "A red ball.", "a blue box -ar 9:16", "word " * 3000, "a red ball"]
    path = parquet(tmp_path / "q.parquet", id=list(range(7)), prompt=rows)
    left_out = Counter[str]()
    found = queries.read(str(path), near=0.9, left_out=left_out)
    assert [(q.text, q.aspect) for q in found] == [("a red ball", ""), ("a blue box", "9:16")]
    assert left_out == {"no text": 1, "asks for nothing": 1, "near-duplicate": 1, "too long": 1, "duplicate": 1}
    with pytest.raises(QueryError, match=r"has only 2 .*left out: 1 .*near-duplicate"):
        queries.read(str(path), take=3, near=0.9)
    with pytest.raises(QueryError, match="no column 'query', 'prompt' or 'text'"):
        queries.read(str(parquet(tmp_path / "n.parquet", words=["a"])))


def test_data_sets_of_the_hub_are_read_by_name_split_and_column(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library also takes a directory for the name of a data set, which needs no network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    parquet(tmp_path / "someone" / "prompts" / "train-0.parquet", prompt=["a red ball"], caption=["a blue box"])
    parquet(tmp_path / "someone" / "prompts" / "test-0.parquet", prompt=["a green star"], caption=["x"])
    assert [q.text for q in queries.read("hub:someone/prompts")] == ["a red ball"]
    assert [q.text for q in queries.read("hub:someone/prompts:test")] == ["a green star"]
    assert [q.text for q in queries.read("hub:someone/prompts#caption")] == ["a blue box"]
    with pytest.raises(QueryError, match="no column 'captoin'; did you mean 'caption'"):
        queries.read("hub:someone/prompts:train#captoin")
    with pytest.raises(QueryError, match="cannot get the data set 'someone/prompts'"):
        queries.read("hub:someone/prompts:dev")
    with pytest.raises(QueryError, match="write hub:OWNER/NAME"):
        queries.read("hub:prompts")


def test_rows_without_a_text_are_counted_in_a_data_set_and_refused_in_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    left_out = Counter[str]()
    parquet(tmp_path / "someone" / "numbers" / "train-0.parquet", prompt=[1, None, 3])
    with pytest.raises(QueryError, match="left out: 3 no text"):
        queries.read("hub:someone/numbers", left_out=left_out)
    assert left_out == {"no text": 3}
    path = parquet(tmp_path / "some.parquet", prompt=["a red ball", None])
    with pytest.raises(QueryError, match="line 2: None is no text"):
        list(queries.read_file(path))


def test_an_unreadable_data_set_of_the_hub_gives_an_error_of_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for name, file, content in (("script", "script.py", "x = 1"), ("broken", "train.jsonl", '{"prompt": "a"}\n{"')):
        (tmp_path / "someone" / name).mkdir(parents=True)
        (tmp_path / "someone" / name / file).write_text(content)
    with pytest.raises(QueryError, match=r"scripts are no longer supported.*; give it as a file") as script:
        queries.read("hub:someone/script")
    with pytest.raises(QueryError, match=r"cannot get the data set 'someone/broken'.*JSON parse error") as broken:
        queries.read("hub:someone/broken")
    assert "\n" not in f"{script.value}{broken.value}"


def test_the_hub_offline_gives_an_error_of_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(QueryError, match=r"cannot get the data set 'a/b' .* from the hub: Couldn't reach"):
        queries.read("hub:a/b", take=5)


WORDS = st.lists(st.sampled_from("red blue ball box runs jumps fast slow over under".split()), min_size=1, max_size=9)


@given(st.lists(WORDS, max_size=25), st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_near_duplicates_are_found_as_by_comparing_all_pairs(texts: list[list[str]], near: float) -> None:
    def pairs(words: list[str]) -> set[object]:
        return set(pairwise(words)) or set(words)

    index = queries.NearDuplicates(near)
    kept: list[set[object]] = []
    for words in texts:
        own = pairs(words)
        duplicate = any(len(own & other) >= near * len(own | other) - 1e-9 for other in kept)
        assert index.seen(Query(" ".join(words))) == duplicate
        if not duplicate:
            kept.append(own)


def test_case_punctuation_and_width_do_not_make_another_query() -> None:
    index = queries.NearDuplicates(1.0)
    assert not index.seen(Query("A red ball, rolling!"))
    assert index.seen(Query("a red ball  rolling"))
    assert index.seen(Query("\uff21 RED ball rolling"))
    assert not index.seen(Query("\u4e00\u53ea\u732b\u5728\u8dd1"))
    assert not index.seen(Query("\u4e00\u53ea\u72d7\u5728\u8dd1"))
    assert not index.seen(Query("\U0001f600"))
    assert index.seen(Query("\U0001f600"))
    with pytest.raises(ValueError, match="above 0"):
        queries.NearDuplicates(0)


def test_a_query_is_in_the_same_part_of_a_split_in_every_file(tmp_path: Path) -> None:
    texts = [f"a ball number {n}" for n in range(400)]
    (tmp_path / "a.txt").write_text("\n".join(texts))
    (tmp_path / "b.txt").write_text("\n".join(f"{text.upper()}!" for text in reversed(texts)))
    parts = {
        name: [{q.text for q in queries.read(str(tmp_path / file), split=name)} for file in ("a.txt", "b.txt")]
        for name in ("train", "dev", "test")
    }
    assert sorted(text for first, _ in parts.values() for text in first) == sorted(texts)
    assert 290 <= len(parts["train"][0]) <= 350
    for first, second in parts.values():
        assert {text.lower().rstrip("!") for text in second} == first
