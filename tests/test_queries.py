"""Queries from files and data sets: nothing is lost silently, and what is wrong names its line."""

import re
import time
from collections import Counter
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
        ("q.txt", "a cat\n--ar 16:9\n", "line 2: the query '--ar 16:9' asks for nothing"),
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
    for typed in ("", " \n", "--ar 16:9", '""', "&nbsp;"):
        with pytest.raises(QueryError, match="asks for nothing"):
            queries.ask_for(typed)


@pytest.mark.parametrize(
    ("typed", "text", "negative", "options"),
    [
        ("a cat --ar 16:9", "a cat", "", {"aspect": "16:9"}),
        ("a cat -ar 9:16", "a cat", "", {"aspect": "9:16"}),
        ("a cat -ar 9x16", "a cat", "", {"aspect": "9:16"}),
        ("a cat \u2014ar 3:2", "a cat", "", {"aspect": "3:2"}),
        ("a cat -neg blurry, extra limbs", "a cat", "blurry, extra limbs", {}),
        ("-neg blurry, extra limbs -motion 3 a cat", "a cat", "blurry, extra limbs", {"motion": "3"}),
        ("a cat -gs 20 -motion 3 -fps 24", "a cat", "", {"guidance": "20", "motion": "3", "fps": "24"}),
        ("a cat -camera zoom in", "a cat, camera zoom in", "", {"camera": "zoom in"}),
        ("a cat -camera zoom in playing chess", "a cat playing chess, camera zoom in", "", {"camera": "zoom in"}),
        ("a cat seed123", "a cat", "", {"seed": "123"}),
        ("a cat, seed:42, on a mat -seed 7", "a cat, on a mat", "", {"seed": "7"}),
        ("a cat --v 5.2 --style raw --hd", "a cat", "", {"version": "5.2", "style": "raw", "hd": ""}),
        ("a cat --no dogs, birds --ar 1:1", "a cat", "dogs, birds", {"aspect": "1:1"}),
        ("a cat -w 1024 -h 576", "a cat", "", {"width": "1024", "height": "576"}),
        ("Tom &amp; Jerry &quot;run&quot;", 'Tom & Jerry "run"', "", {}),
        ("&quot;a cat&quot;", "a cat", "", {}),
        ('"a cat on a mat', "a cat on a mat", "", {}),
        ("\u201ca cat\u201d", "a cat", "", {}),
        ("a cat<br>on a mat", "a cat on a mat", "", {}),
        ("**a cat**\n\non a   mat", "a cat on a mat", "", {}),
        ("a cat, with epic background music", "a cat", "", {"aside": "with epic background music"}),
        ("a cat. Add sound effects of rain.", "a cat.", "", {"aside": "Add sound effects of rain"}),
        ("a cat, in mp4 format", "a cat", "", {"aside": "in mp4 format"}),
        ("a cat for 10 seconds", "a cat", "", {"aside": "for 10 seconds"}),
        ("a cat https://example.com/x.png", "a cat", "", {"debris": "https://example.com/x.png"}),
        ("a cat Message: 1 Attachment", "a cat", "", {"debris": "Message: 1 Attachment"}),
        # What looks like a flag and is none stays.
        ("a sci-fi -looking cat - on a mat", "a sci-fi -looking cat - on a mat", "", {}),
        ("a man listening to music", "a man listening to music", "", {}),
        ("a temperature of -5 degrees", "a temperature of -5 degrees", "", {}),
        ("a seed growing for days", "a seed growing for days", "", {}),
        ("dogs -v cats", "dogs -v cats", "", {}),
        ("ein Hund l\u00e4uft \u00fcber die Wiese", "ein Hund l\u00e4uft \u00fcber die Wiese", "", {}),
        ("\u4e00\u53ea\u732b -ar 16:9", "\u4e00\u53ea\u732b", "", {"aspect": "16:9"}),
        ("\U0001f600 smiling", "\U0001f600 smiling", "", {}),
        ("it's the dog's bone", "it's the dog's bone", "", {}),
    ],
)  # fmt: skip
def test_what_people_type_is_taken_apart(typed: str, text: str, negative: str, options: dict[str, str]) -> None:
    query = queries.parse_query(typed)
    found = dict(query.options)
    if typed.startswith("a cat, seed:42"):
        assert [value for name, value in query.options if name == "seed"] == ["7", "42"]
        found["seed"] = "7"
    assert (query.text, query.negative, found) == (text, negative, options)


PIECES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        "a cat|--ar 16:9|-neg bad, worse|-camera zoom in|seed12|&amp;lt;b&gt;|**|<br>|, |-motion|-gs 20|\u201cwow|--no"
        "|with epic music|with background music|in mp4|https://x.y/z|-w 5|-- |-h|for 3 seconds|\n\n|\u200b".split("|")
    ),
)
TYPED = st.lists(PIECES, max_size=12).map(" ".join)


@given(TYPED)
def test_parsing_never_raises_and_is_idempotent(typed: str) -> None:
    once = queries.parse_query(typed)
    again = queries.parse_query(once.text)
    assert again.text == once.text
    assert again.negative == ""
    assert again.options == ()


@given(TYPED)
def test_no_word_is_lost_silently(typed: str) -> None:
    import html

    def words(text: str) -> Counter[str]:
        for _ in range(6):
            text = html.unescape(text)
        text = re.sub(r"</?(?:br|p|div|span|b|i|em|strong|u)\s*/?>", " ", text, flags=re.IGNORECASE)
        return Counter(re.findall(r"[^\W_]+", text.lower()))

    query = queries.parse_query(typed)
    shown = " ".join([query.text, query.negative, *(f"{name} {value}" for name, value in query.options)])
    names = {*queries.FLAGS, "seed"}
    lost = words(typed).keys() - words(shown).keys()
    # A flag's own name is shown as what it sets, and a number may be glued to it.
    assert {re.sub(r"\d+$", "", word) for word in lost} <= {
        part for name in names for part in re.split("[-_]", name)
    } | {""}


@pytest.mark.parametrize("typed", ["-" * 5000, "--ar " * 3000, '"' * 3001, "&" * 4000, "-neg " * 2000, "a, " * 20000])
def test_absurd_input_is_parsed_in_time(typed: str) -> None:
    began = time.perf_counter()
    queries.parse_query(typed)
    assert time.perf_counter() - began < 20


def test_an_aspect_ratio_makes_another_query_and_other_options_do_not() -> None:
    plain, wide = queries.parse_query("a cat"), queries.parse_query("a cat -ar 16:9")
    assert wide.aspect == "16:9"
    assert plain.id != wide.id
    assert queries.parse_query("a cat -motion 3").id == plain.id
