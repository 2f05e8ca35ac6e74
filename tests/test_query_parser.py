"""The parser of typed queries loses nothing silently, and leaves everything uncertain in the text."""

import html
import re
import time
import unicodedata
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptreel import queries
from promptreel.errors import QueryError
from promptreel.queries.parser.cleaning import visible
from promptreel.types import Query


def test_a_query_that_asks_for_nothing_is_refused() -> None:
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
        ("a cat -neg blurry\nA dog follows the cat.", "a cat A dog follows the cat.", "blurry", {}),
        ("-neg blurry\na cat walks", "a cat walks", "blurry", {}),
        ("-neg blurry, bad. A cat walks.", "A cat walks.", "blurry, bad", {}),
        ('-neg "blurry" walking in the rain', "walking in the rain", "blurry", {}),
        ("a cat. Negative prompt:\nblurry, ugly\nA dog", "a cat. A dog", "blurry, ugly", {}),
        ("a dog, -no people, cars", "a dog", "people, cars", {}),
        ("a dog -ar 1:1 -no people", "a dog", "people", {"aspect": "1:1"}),
        ("a panda eating -camera pan", "a panda eating, camera pan", "", {"camera": "pan"}),
        ("a cat, camera pan -camera pan", "a cat, camera pan", "", {"camera": "pan"}),
        ("a dog -camera zoom in on his face", "a dog, camera zoom in on his face", "",
         {"camera": "zoom in on his face"}),
        ("a dog -camera static in the garden", "a dog, camera static in the garden", "",
         {"camera": "static in the garden"}),
        ("a dog - camera zoom out - motion 4", "a dog, camera zoom out", "", {"camera": "zoom out", "motion": "4"}),
        ("a cartoon -style art", "a cartoon, art style", "", {"style": "art"}),
        ("a vase --style van gogh sunflowers", "a vase, van gogh sunflowers style", "",
         {"style": "van gogh sunflowers"}),
        ('a castle -style "film noir" at night', "a castle at night, film noir style", "", {"style": "film noir"}),
        ("--style anime a girl runs through a long rain", "--style anime a girl runs through a long rain", "", {}),
        ("a cat--ar 16:9", "a cat", "", {"aspect": "16:9"}),
        ("\u4e00\u53ea\u732b--ar 16:9", "\u4e00\u53ea\u732b", "", {"aspect": "16:9"}),
        ("\u4e00\u53ea\u732b\uff0c-neg \u6a21\u7cca", "\u4e00\u53ea\u732b", "\u6a21\u7cca", {}),
        ("wo\u200bnder\u200bf\u00adu\u2060l\ufeff cat", "wonderful cat", "", {}),
        ("a cat, 16:9", "a cat", "", {"aspect": "16:9"}),
        ("a cat 16:9 -motion 2", "a cat", "", {"aspect": "16:9", "motion": "2"}),
        ("a cat, vertical 9:16", "a cat, vertical", "", {"aspect": "9:16"}),
        ("a cat gs 12 fps 24", "a cat", "", {"guidance": "12", "fps": "24"}),
        ("a cat -motion 2 -hd", "a cat", "", {"motion": "2", "hd": ""}),
        ("a cat --sref https://x.y/a https://x.y/b --sw 9", "a cat", "",
         {"sref": "https://x.y/a https://x.y/b", "sw": "9"}),
        ("a cat --ar", "a cat", "", {"debris": "--ar"}),
        ("a dog. Duration: 5s", "a dog.", "", {"aside": "Duration: 5s"}),
        ("a dog. With background music. On a beach", "a dog. On a beach", "", {"aside": "With background music"}),
        ("<table>a cat</table>, <lora:film:0.8>", "a cat", "", None),
        ("https://x.y/a.jpg\u4e00\u53ea\u732b", "\u4e00\u53ea\u732b", "", {"debris": "https://x.y/a.jpg"}),
        ("a cat\nSteps: 20, Sampler: Euler, Seed: 7, Size: 512x512", "a cat", "",
         {"debris": "Steps: 20, Sampler: Euler, Seed: 7, Size: 512x512"}),
        ('"a cat -ar 16:9" -motion 2', "a cat", "", {"aspect": "16:9", "motion": "2"}),
        ('a cat saying "hi" -neg "blurry, -ar" on a mat', 'a cat saying "hi" on a mat', "blurry, -ar", {}),
        ('a cat -camera zoom in on the "EXIT" sign', 'a cat, camera zoom in on the "EXIT" sign', "",
         {"camera": 'zoom in on the "EXIT" sign'}),
        ("a cat -camera pan-left", "a cat, camera pan-left", "", {"camera": "pan-left"}),
        ("a cat(--ar 1:1)dances", "a cat dances", "", {"aspect": "1:1"}),
        ("a cat -zoom-in", "a cat, camera zoom-in", "", {"camera": "zoom-in"}),
        ("a cat --no dogs. A bird sings", "a cat. A bird sings", "dogs", {}),
        ("### Prompt\nA cat\n### Negative prompt\ndogs", "Prompt A cat", "dogs", {}),
        ("Camera: zoom in\nAspect Ratio: 16:9", "Camera: zoom in", "",
         {"aspect": "16:9", "aside": "Aspect Ratio: 16:9"}),
        # Words that look like flags and are none stay.
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
def test_flags_wishes_and_debris_are_split_from_the_text(
    typed: str, text: str, negative: str, options: dict[str, str] | None
) -> None:
    query = queries.parse_query(typed)
    found = dict(query.options) if options is not None else None
    if typed.startswith("a cat, seed:42"):
        assert found
        assert [value for name, value in query.options if name == "seed"] == ["42", "7"]
        found["seed"] = "7"
    assert (query.text, query.negative, found) == (text, negative, options)


NO_FLAGS = [
    "a cat with fps 24",
    "a man says --no, I will not go", "a door with a sign saying -no entry", "a beach \u2014no people\u2014 at dusk",
    "BMW GS 1250 driving", "a BMW GS 1250", "ar15 rifle on table", "AR-15 rifle", "an AR 4 headset",
    "fps 2 shooter game", "a bus -stop in the rain", "a bus -stop", "a music -video of kids",
    "a man with a -camera in his hand", "a frying -pan of eggs", "a frying -pan", "a clock showing 16:9",
    "John 16:9 verse", "the score was 16:9 at half time", "<small dog> runs", "<head of a lion>", "<video> of a cat",
    "if a < b and c > d", "a gothic -style castle on a hill", "model -v8 engine", "Formula 1 -v 6 turbo",
    "T-800 robot, M-16 rifle", "temperature -5 to -10", "a low -angle shot", "a man -- tired and alone -- walks home",
    "he drove--fast--home", "I ran --fast and hard", "ls -la | grep -v foo", 'git commit --amend -m "fix"',
    "ignore --previous 3 instructions", "def f(x): return x--1", "gin in a ratio of 3:1", "a map at 1:50000 scale",
    "a 1:1 scale model", 'a 5" screen', "he is 6'2\" tall", ".NET logo next to a .22 rifle", "[wide shot] a desert",
    "(masterpiece:1.2), 1girl", "by @artist_name, a portrait", "joe@example.com waves", "#cat #dog a video",
    '{"prompt": "a cat", "ar": "16:9"}', "tokens: <|im_end|> system", "a_b __init__ snake_case",
    "\u00ab un chat \u00bb dort", "\u201ea\u201c and \u201cb\u201d", "a seed: 3 days later", "don`t stop",
    "lol:) <3 ^_^ -_-", "he waits for 10 seconds, then dives", "a man with a phone playing audio",
    "a movie with audio equipment", "\u0915\u094d\u200d\u0937 \u0914\u0930", "\u2764\ufe0f\u200d\U0001f525",
    "--style anime a girl runs through the rain",
    "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f flag", "wait... what?! no!!",
    '"--ar 16:9" written on a wall', 'a sign reading "-neg blurry"', 'a sign reading "no -neg" in red',
    'Movie poster, title "AR 16:9"', "a panda --pan-asian food", "a -pan-fried fish", "a 3-no-trump hand",
    "a seed123abc", "yes--no, maybe", "Genesis 16:9", "16mm -film look", "<user> and <a cat>", "a man :smile:",
    "cat::2 dog::-1", "e\u0301t\u00e9",
]  # fmt: skip


@pytest.mark.parametrize("typed", NO_FLAGS)
def test_text_that_is_not_certainly_a_flag_stays(typed: str) -> None:
    assert queries.parse_query(typed) == Query(typed)


ORDINARY = """a the in of no test fast video style camera motion negative ratio seed stop raw loop ar gs fps speed
size image end public draft pan zoom red ball well-known T-rex don't 3 42
16 9 it's \u732b \u0643\u0644\u0628 caf\u00e9""".split()


@given(st.lists(st.sampled_from(ORDINARY), min_size=1, max_size=12))
def test_plain_words_stay_in_the_text(typed: list[str]) -> None:
    text = " ".join([*typed, "home"])  # at the end "gs 3" would be a flag
    assert queries.parse_query(text) == Query(text)


PIECES = st.one_of(
    st.text(max_size=30),
    st.sampled_from([
        "a cat", "--ar 16:9", "-neg bad, worse", "-camera zoom in", "seed12", "&amp;lt;b&gt;", "**", "<br>", ", ",
        "-motion", "-gs 20", "\u201cwow", "--no", "with epic music", "with background music", "in mp4",
        "https://x.y/z", "-w 5", "-- ", "-h", "for 3 seconds", "\n\n", "\u200b", "-ar 16:9-motion 2", "- ar 9:16",
        "ar16:9", "in 9:16 format", "-zoom out", "-style anime", "--sref", "--new 4", "Negative prompt: bad",
        '<p class="x">', "<!-- no -->", "@you", "<@12>", "/imagine", "prompt:", "(Image: 1 Attachment)", "(fast)",
        "&nbsp", "&#39;", "\u200d", "\ud800", "\u4e00\u53ea\u732b", "\u0645\u06cc\u200c\u0631\u0648\u062f",
        "\U0001f600", '"",""', "- list", "24 fps", "for", "()", "16:9", "a bus -stop", "BMW GS 1250", "AR-15",
        "wo\u200bnder", "--style van gogh", "cat--ar 1:1", "\nA dog", "-no way", "--no, I", "<small dog>", "gs 12",
        "fps 24", "-camera", "--style", "-camera pan", "-hd", "--fast", "\uff0c-neg \u6a21\u7cca", ". Then", "(16:9)",
        "vertical 9:16", "Negative prompt:\n", "--sref 12", "-pan",
    ]),
)  # fmt: skip
TYPED = st.lists(PIECES, max_size=12).map(" ".join)


@given(TYPED)
def test_parsing_never_raises_and_a_parsed_text_stays_the_same(typed: str) -> None:
    once = queries.parse_query(typed)
    again = queries.parse_query(once.text)
    assert again.text == once.text
    assert again.negative == ""
    assert again.options == ()


def words(text: str) -> list[str]:
    """Return the visible runs of letters and of digits."""
    for _ in range(6):
        text = html.unescape(text)
    text = re.sub(r"</?(?:br|p|div|span|b|i|em|strong|u)\s*/?>", " ", text, flags=re.IGNORECASE)
    return re.findall(r"[^\W\d_]+|\d+", unicodedata.normalize("NFKC", visible(text)).lower())


@given(TYPED)
def test_no_word_is_lost_silently(typed: str) -> None:
    """Every typed word is in the text, the negative or an option, except names of flags, which become settings."""
    query = queries.parse_query(typed)
    shown = Counter(words(" ".join([query.text, query.negative, *(value for _, value in query.options)])))
    set_ = {name for name, _ in query.options} | ({"negative"} if query.negative else set())
    names = {part for name, setting in queries.FLAGS.items() if setting in set_ for part in re.split("[-_]", name)}
    names |= {"prompt"} if "negative" in set_ else set()
    names |= {"new"} & set_ | ({"x"} if "aspect" in set_ else set())
    assert (Counter(words(typed)) - shown).keys() <= names


@given(TYPED)
def test_words_of_the_text_keep_their_order_unless_a_flag_moves_them(typed: str) -> None:
    """Requests of camera and style flags come last; no other word changes its place."""
    query = queries.parse_query(typed)
    asked = words(query.text)
    if not any(name in ("camera", "style") for name, _ in query.options):
        left = iter(words(typed))
        assert all(word in left for word in asked)


LINE = st.lists(st.sampled_from("A dog runs over the hill, fast. Red sky".split()), min_size=1, max_size=8).map(
    " ".join
)


@given(
    LINE,
    st.sampled_from(["-neg", "--no", "--neg:", "-neg ", "Negative prompt:", ", -no a,", "-negative b,"]),
    LINE,
    LINE,
)
def test_a_negative_ends_with_its_line_and_keeps_the_next_one_out(
    before: str, flag: str, negative: str, after: str
) -> None:
    query = queries.parse_query(f"{before} {flag} {negative}\n{after}")
    assert words(query.text)[-len(words(after)) :] == words(after)
    assert len(words(query.negative)) <= len(words(f"{flag} {negative}"))


@pytest.mark.parametrize(
    "typed",
    [
        "-" * 5000, "--ar " * 3000, '"' * 3001, "&" * 4000, "-neg " * 2000, "a, " * 20_000, "word " * 10_000,
        " " * 50_000, "<p>" * 5000, "<a " * 5000, "&" + "amp;" * 10_000, "&lt;" * 3000, "(" * 3000 + ")" * 3000,
        ",;" * 5000, "16:9 " * 2000, "with the " * 5000, "- " * 5000, "@a " * 3000, "\u200d" * 5000,
        "\n\n".join(["a cat"] * 3000), "seed:1 " * 4000, "<!--" * 8000, "&#0038;" * 2500, "in a mp4 " * 2000,
        "-<br>" * 3000, "-camera zoom in and " * 900, "--style " * 2400, "a -no b, " * 2000,
    ],
    ids=range(28),
)  # fmt: skip
def test_repetitive_input_is_parsed_within_two_seconds(typed: str) -> None:
    began = time.process_time()
    text = queries.parse_query(typed).text
    assert time.process_time() - began < 2
    assert queries.parse_query(text).text == text


@pytest.mark.parametrize(
    "piece",
    [
        "seed:1 ",
        "<!--",
        "--ar ",
        "-neg ",
        "--style ",
        "--camera ",
        "-camera pan to ",
        "@a.",
        "16:9 ",
        "(",
        "<b ",
        "a--b ",
    ],
)
def test_parsing_time_grows_about_linearly_with_length(piece: str) -> None:
    """Four times the text takes about four times as long; the best of three runs counts, with a wide margin."""

    def seconds(length: int) -> float:
        took = []
        for _ in range(3):
            began = time.process_time()
            queries.parse_query(piece * (length // len(piece)))
            took.append(time.process_time() - began)
        return min(took)

    assert seconds(19_000) <= 8 * seconds(4_750) + 0.05


def test_a_document_is_refused_without_being_parsed() -> None:
    """A server may be sent 256 KiB, far more than a prompt could keep."""
    began = time.process_time()
    with pytest.raises(QueryError, match=r"46814 words; at most 2000"):
        queries.ask_for("a, --ar " * 23_407)
    assert time.process_time() - began < 1


def test_an_aspect_ratio_changes_the_id_of_a_query_and_other_options_do_not() -> None:
    plain, wide = queries.parse_query("a cat"), queries.parse_query("a cat -ar 16:9")
    assert wide.aspect == "16:9"
    assert plain.id != wide.id
    assert queries.parse_query("a cat -motion 3").id == plain.id
