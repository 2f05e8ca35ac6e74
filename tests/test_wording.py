"""Texts of the tiny world can be parsed back into facts, in every style that the language model may write."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from build_tiny.corpus import MAKERS, example, random_query, with_unsafe
from build_tiny.styles import CHOICES, is_canonical, random_style, write
from promptreel.tiny.text_oracle import parse
from promptreel.tiny.wording import SPLITS, caption, split_of_facts, typed_queries
from promptreel.tiny.world import random_scene


@pytest.mark.parametrize("split", SPLITS)
def test_typed_queries_are_parsed_into_their_facts(split: str) -> None:
    queries = list(itertools.islice(typed_queries(split), 1000))
    right = [parse(text).stated == facts for text, facts in queries]
    assert np.mean(right) >= 0.99
    assert all(1 <= len(facts) <= 4 for _, facts in queries)


def test_splits_share_no_combination_of_facts_and_ood_has_those_of_test_in_other_words() -> None:
    queries = {split: list(itertools.islice(typed_queries(split), 600)) for split in SPLITS}
    facts = {split: {tuple(f.items()) for _, f in found} for split, found in queries.items()}
    assert not facts["train"] & facts["dev"]
    assert not facts["train"] & facts["test"]
    assert not facts["dev"] & facts["test"]
    assert all(split_of_facts(dict(combination)) == "test" for combination in facts["ood"])
    assert not {text for text, _ in queries["ood"]} & {text for text, _ in queries["train"]}


def test_streams_of_queries_are_the_same_every_time_and_never_repeat_one() -> None:
    first = [text for text, _ in itertools.islice(typed_queries("test"), 500)]
    assert first == [text for text, _ in itertools.islice(typed_queries("test"), 500)]
    assert len(set(first)) == len(first)


def test_every_style_states_the_facts_it_was_given() -> None:
    rng = np.random.default_rng(0)
    seen, right = set(), []
    for _ in range(2500):
        _, facts, _ = random_query(rng)
        style = random_style(rng)
        seen |= {(name, getattr(style, name)) for name in CHOICES}
        found = parse(write(facts, style, rng)).facts
        if style.form == "photo":
            facts = {name: value for name, value in facts.items() if name not in ("motion", "speed")}
        right.append(all(found.get(name) == (value,) for name, value in facts.items()))
    assert len(seen) == sum(map(len, CHOICES.values()))
    assert np.mean(right) >= 0.99


def test_unsafe_words_are_found_in_every_style() -> None:
    rng = np.random.default_rng(1)
    right = []
    for _ in range(1500):
        _, facts, unsafe = random_query(rng)
        text = with_unsafe(write(facts, random_style(rng), rng), unsafe)
        right.append(parse(text).unsafe == ((unsafe,) if unsafe else ()))
    assert np.mean(right) >= 0.99


@pytest.mark.parametrize("style", ["sentences", "tags"])
def test_canonical_captions_state_the_whole_scene(style: str) -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        scene = random_scene(rng, quality=str(rng.choice(["sharp", "poor"])))
        assert parse(caption(scene, style)).stated == scene.facts


def test_canonical_captions_are_at_most_a_tenth_of_pretraining() -> None:
    rng = np.random.default_rng(3)
    assert np.mean([is_canonical(random_style(rng)) for _ in range(5000)]) <= 0.10


def test_pretraining_has_every_kind_of_example() -> None:
    rng = np.random.default_rng(4)
    openings = {example(rng).messages[-1]["content"].split(":")[0] for _ in range(300)}
    assert openings == {"Rewrite for video", "Improve for video", "Repair for video"}
    assert len(MAKERS) == 3


@given(st.text(max_size=300))
def test_parsing_any_text_never_raises(text: str) -> None:
    found = parse(text)
    assert all(values for values in found.facts.values())


def test_two_values_of_an_attribute_are_a_contradiction() -> None:
    assert parse("a red and blue ball").facts["colour"] == ("red", "blue")
    assert "colour" not in parse("a red and blue ball").stated


@pytest.mark.parametrize("word", ["trianlge", "traingle", "triangl", "trriangle"])
def test_words_with_a_typing_slip_are_read(word: str) -> None:
    assert parse(f"a red {word}").stated == {"colour": "red", "shape": "triangle"}
