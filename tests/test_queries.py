"""Queries from files and data sets: nothing is lost silently, and what is wrong names its line."""

import re
import time
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
        ("q.csv", 'prompt\n"a\nb"\n""\n', "line 4: the query '' asks for nothing"),
        ("q.csv", 'prompt\n"' + "a" * 200_000 + '"\n', "not CSV"),
        ("q.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("q.parquet", "not Parquet", "cannot read"),
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


def parquet(path: Path, **columns: list[object]) -> Path:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_a_large_set_loses_its_unusable_rows_and_says_so(tmp_path: Path) -> None:
    rows = ["a red ball", None, "--ar 16:9", "A red ball.", "a blue box -ar 9:16", "word " * 3000, "a red ball"]
    path = parquet(tmp_path / "q.parquet", id=list(range(7)), prompt=rows)
    left_out = Counter[str]()
    found = queries.read(str(path), near=0.9, left_out=left_out)
    assert [(q.text, q.aspect) for q in found] == [("a red ball", ""), ("a blue box", "9:16")]
    assert left_out == {"asks for nothing": 1, "near-duplicate": 1, "too long": 1, "duplicate": 1}
    with pytest.raises(QueryError, match=r"has only 2 .*left out: 1 .*near-duplicate"):
        queries.read(str(path), take=3, near=0.9)
    with pytest.raises(QueryError, match="no column 'query', 'prompt' or 'text'"):
        queries.read(str(parquet(tmp_path / "n.parquet", words=["a"])))


def test_data_sets_of_the_hub_are_read_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library takes a directory where it would take a name of the hub, which needs no network."""
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


def test_offline_the_hub_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach 'a/b' on the Hub (OfflineModeIsEnabled)")

    monkeypatch.setattr("datasets.load_dataset", offline)
    with pytest.raises(QueryError, match=r"cannot get the data set 'a/b' .* from the hub: Couldn't reach"):
        queries.read("hub:a/b", take=5)


WORDS = st.lists(st.sampled_from("red blue ball box runs jumps fast slow over under".split()), min_size=1, max_size=9)


@given(st.lists(WORDS, max_size=25), st.sampled_from([0.3, 0.5, 0.7, 0.9, 1.0]))
def test_near_duplicates_are_found_exactly(texts: list[list[str]], near: float) -> None:
    """As comparing every query with every other one would find them."""

    def pairs(words: list[str]) -> set[object]:
        return set(pairwise(words)) or set(words)

    likeness = queries.Likeness(near)
    kept: list[set[object]] = []
    for words in texts:
        mine = pairs(words)
        alike = any(len(mine & other) >= near * len(mine | other) - 1e-9 for other in kept)
        assert likeness.known(Query(" ".join(words))) == alike
        if not alike:
            kept.append(mine)


def test_spelling_makes_no_other_query() -> None:
    likeness = queries.Likeness(1.0)
    assert not likeness.known(Query("A red ball, rolling!"))
    assert likeness.known(Query("a red ball  rolling"))
    assert likeness.known(Query("\uff21 RED ball rolling"))
    assert not likeness.known(Query("\u4e00\u53ea\u732b\u5728\u8dd1"))
    assert not likeness.known(Query("\u4e00\u53ea\u72d7\u5728\u8dd1"))
    assert not likeness.known(Query("\U0001f600"))
    assert likeness.known(Query("\U0001f600"))
    with pytest.raises(ValueError, match="above 0"):
        queries.Likeness(0)


def test_content_decides_the_split(tmp_path: Path) -> None:
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
        ("a cat -ar 16:9-motion 2-gs12.", "a cat", "", {"aspect": "16:9", "motion": "2", "guidance": "12"}),
        ("a cat,-ar16:9 - motion 3", "a cat", "", {"aspect": "16:9", "motion": "3"}),
        ("a cat fps-24 ar 16.9", "a cat", "", {"fps": "24", "aspect": "16:9"}),
        ("a cat \uff0d\uff0dar 16\uff1a9", "a cat", "", {"aspect": "16:9"}),
        ("a cat -zoom out", "a cat, camera zoom out", "", {"camera": "zoom out"}),
        ("a cat -style anime", "a cat, anime style", "", {"style": "anime"}),
        ("a cat. Negative prompt: blurry, ugly", "a cat.", "blurry, ugly", {}),
        ("a cat at 24fps", "a cat", "", {"aside": "at 24fps"}),
        ("a cat in 9:16 format", "a cat", "", {"aspect": "9:16", "aside": "in 9:16 format"}),
        ("prompt: a cat --cw 100 --new 3", "a cat", "", {"debris": "prompt:", "cw": "100", "new": "3"}),
        ("/imagine a cat", "a cat", "", {"debris": "/imagine"}),
        ("@Pika a cat", "a cat", "", {"debris": "@Pika"}),
        ("a cat (Image: 1 Attachment)", "a cat", "", {"debris": "(Image: 1 Attachment)"}),
        ("a cat <@1234>", "a cat", "", {"debris": "<@1234>"}),
        ("a cat (fast)", "a cat", "", {"debris": "(fast)"}),
        ("a cat <https://x.y/z.png>", "a cat", "", {"debris": "<https://x.y/z.png>"}),
        ("a cat <:wow:123>", "a cat", "", {"debris": "<:wow:123>"}),
        ('<a href="x">a cat', "a cat", "", {"debris": '<a href="x">'}),
        ("a cat\ud800\x00 on a\u00ad mat", "a cat on a mat", "", {}),
        # What looks like a flag and is none stays.
        ("R&D on fish&region &copycat", "R&D on fish&region &copycat", "", {}),
        ("Luke 10:1 at 9:16 am, a 3:2 win", "Luke 10:1 at 9:16 am, a 3:2 win", "", {}),
        ("a low -angle shot - dark - moody", "a low -angle shot - dark - moody", "", {}),
        ("\u0645\u06cc\u200c\u0631\u0648\u062f", "\u0645\u06cc\u200c\u0631\u0648\u062f", "", {}),
        ("\U0001f468\u200d\U0001f467 dance", "\U0001f468\u200d\U0001f467 dance", "", {}),
        ("santa`s home", "santa`s home", "", {}),
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
        assert [value for name, value in query.options if name == "seed"] == ["42", "7"]
        found["seed"] = "7"
    assert (query.text, query.negative, found) == (text, negative, options)


PIECES = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        "a cat|--ar 16:9|-neg bad, worse|-camera zoom in|seed12|&amp;lt;b&gt;|**|<br>|, |-motion|-gs 20|\u201cwow|--no"
        "|with epic music|with background music|in mp4|https://x.y/z|-w 5|-- |-h|for 3 seconds|\n\n|\u200b"
        "|-ar 16:9-motion 2|- ar 9:16|ar16:9|in 9:16 format|-zoom out|-style anime|--sref|--new 4|Negative prompt: bad"
        '|<p class="x">|<!-- no -->|@you|<@12>|/imagine|prompt:|(Image: 1 Attachment)|(fast)|&nbsp|&#39;|\u200d|\ud800'
        '|\u4e00\u53ea\u732b|\u0645\u06cc\u200c\u0631\u0648\u062f|\U0001f600|"",""|- list|24 fps|for|()|16:9'.split("|")
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
    names = {*queries.FLAGS, "seed", "negative-prompt", "x"}
    lost = words(typed).keys() - words(shown).keys()
    # A flag's own name is shown as what it sets, and a number may be glued to it.
    assert {re.sub(r"\d+$", "", word) for word in lost} <= {
        part for name in names for part in re.split("[-_]", name)
    } | {""}


@pytest.mark.parametrize(
    "typed",
    [
        "-" * 5000, "--ar " * 3000, '"' * 3001, "&" * 4000, "-neg " * 2000, "a, " * 20_000, "word " * 10_000,
        " " * 50_000, "<p>" * 5000, "<a " * 5000, "&" + "amp;" * 10_000, "&lt;" * 3000, "(" * 3000 + ")" * 3000,
        ",;" * 5000, "16:9 " * 2000, "with the " * 5000, "- " * 5000, "@a " * 3000, "\u200d" * 5000,
        "\n\n".join(["a cat"] * 3000),
    ],
    ids=range(20),
)  # fmt: skip
def test_absurd_input_is_parsed_in_time(typed: str) -> None:
    began = time.process_time()
    text = queries.parse_query(typed).text
    assert time.process_time() - began < 2
    assert queries.parse_query(text).text == text


def test_an_aspect_ratio_makes_another_query_and_other_options_do_not() -> None:
    plain, wide = queries.parse_query("a cat"), queries.parse_query("a cat -ar 16:9")
    assert wide.aspect == "16:9"
    assert plain.id != wide.id
    assert queries.parse_query("a cat -motion 3").id == plain.id
