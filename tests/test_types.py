"""Identity is content."""

import pytest

from promptreel.fingerprint import content_id, content_seed
from promptreel.strict_json import load_json
from promptreel.types import Fact, Message, Query, RenderRequest, SamplingParams, Verdict


def test_ids_depend_on_content_alone() -> None:
    assert Query("a").id == Query("a").id
    assert Query("a").id != Query("b").id
    assert Query("a", "b").id != Query("a").id
    assert content_id({"x": 1, "y": 2}) == content_id({"y": 2, "x": 1})
    assert content_id("ab", "c") != content_id("a", "bc")


def test_a_clip_is_the_generator_the_prompt_the_negative_prompt_and_the_seed() -> None:
    request = RenderRequest("a ball", "", 1)
    ids = {
        request.clip_id("g"),
        request.clip_id("h"),
        RenderRequest("a box", "", 1).clip_id("g"),
        RenderRequest("a ball", "blur", 1).clip_id("g"),
        RenderRequest("a ball", "", 2).clip_id("g"),
    }
    assert len(ids) == 5


def test_seeds_are_stable() -> None:
    assert content_seed("evolve", 0) == content_seed("evolve", 0)
    assert 0 <= content_seed("x") < 2**32


def test_a_seed_belongs_to_what_is_said_and_not_to_what_is_beside_it() -> None:
    a, b = ([Message(role="user", content=text)] for text in "ab")
    alone = SamplingParams(0.7, seed=3).each([a])
    among = SamplingParams(0.7, seed=3).each([b, a, a])
    assert among[1] == alone[0] != SamplingParams(0.7, seed=4).each([a])[0]
    assert len({row.seed for row in among}) == 3
    assert {row.temperature for row in among} == {0.7}


def test_verdicts_count_what_is_kept_and_name_what_is_not() -> None:
    verdict = Verdict((Fact("red", "kept"), Fact("left", "changed"), Fact("small", "lost")), ("gory",))
    assert verdict.fidelity == pytest.approx(1 / 3)
    assert verdict.problems == ["changed: left", "lost: small", "unsafe: gory"]
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert Verdict(()).fidelity == 1.0
    with pytest.raises(ValueError, match="kept, lost or changed"):
        Fact("red", "fine")


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[" * 100_000, "9" * 5000, '{"a": NaN}', "[-Infinity]", '{"a": 1, "a": 1}',
        '[{"b": {"a": 1, "a": 2}}]', '{"\\ud800": 1, "\\ud801": 2}',
    ],
    ids=range(9),
)  # fmt: skip
def test_what_is_not_strictly_json_is_one_kind_of_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_json(text)


def test_json_that_is_read_can_be_stored() -> None:
    """Escapes may name halves of surrogate pairs, of which no text can be made."""
    found = load_json(r'{"whole \ud83d\udc31": ["half \ud800", "\udc31\ud83d", "\\ud800"], "n": 1.5}')
    assert found == {"whole 🐱": ["half \ufffd", "\ufffd\ufffd", "\\ud800"], "n": 1.5}
    assert content_id(found)
