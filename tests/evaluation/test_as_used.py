"""A system "as used" in an evaluation is exactly what ``Rewriter``, and so ``promptreel rewrite``, runs."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import fakes
import pytest
from policy_fakes import recipe_with

from promptreel import registry
from promptreel.config import EvaluateStage, Recipe, load_recipe
from promptreel.errors import Refused, ReplyError
from promptreel.execution.writer import CARD
from promptreel.pipeline import run
from promptreel.policy import REFUSED
from promptreel.rewriting import Rewriter
from promptreel.rewriting.loop import ATTEMPTS, SHORTENINGS
from promptreel.store import Run
from promptreel.training.job import TrainingJob
from promptreel.types import Candidate, Completion, Component, Failure, Message, Query, SamplingParams

LONG = "red fox " + "and more " * 60
"""A text with every word of its query, longer than the tiny video model reads."""
DRAWS: dict[str, list[str]] = {
    "blue box": ["a blue box"],
    "red ball": ["ball", "a ball", "", "<PROMPT>red", "a red ball", "another red ball"],
    "tiny green cross": ["cross", "tiny cross", "ring", "green cross", "tiny"],
    "white star": ["ring", "box", "ball", "moon", "sun", "hoop", "cube", "cone"],
    "gory ring": ["a gory ring"],
    "gory hoop": ["a gory hoop", "a gory hoop again", "a hoop"],
    "gory cube": ["cubes gory", "a block", "gory", "cubes"],
    "odd cone": ["unreadable odd cone", "an odd cone"],
    "lost sun": [""],
    "red fox": [LONG, "a red fox"],
    "red hen": ["red hen " + "and more " * 60],
}
"""Replies to each query, one for each time that it is asked; the last one is repeated."""
SHORTER = {"red fox": ["fox " * 70, "a short red fox"], "red hen": ["red hen " + "and more " * 50]}
"""Replies to requests for a shorter text."""


class Script:
    """A language model whose completions depend on the conversation and on how often it was asked, not on the seed."""

    asked: ClassVar[Counter[str]] = Counter()

    def __init__(self, model: str, adapter: str | None = None) -> None:
        self.fingerprint = f"script-{Path(model).name}"

    def complete(
        self, conversations: Sequence[list[Message]], sampling: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        return [Completion(self._reply(conversation[-1]["content"])) for conversation in conversations]

    def _reply(self, message: str) -> str:
        query = next(query for query in DRAWS if query in message)
        shorter = "tokens" in message
        script = SHORTER[query] if shorter else DRAWS[query]
        place = self.asked[f"{query} {shorter}"]
        self.asked[f"{query} {shorter}"] += 1
        return script[min(place, len(script) - 1)]


@pytest.fixture(autouse=True)
def script(monkeypatch: pytest.MonkeyPatch, fake_components: None) -> None:
    """Make every local language model the scripted one."""
    monkeypatch.setitem(registry.BUILT_IN["llm"], "local", "test_as_used:Script")
    Script.asked.clear()


def train(job: TrainingJob, examples: Sequence[Any]) -> dict[str, float]:
    """Publish a student that is nothing but its card."""
    (job.out / "model.safetensors").write_bytes(b"weights")
    (job.out / CARD).write_text(json.dumps({"format": job.writer.format, "sampling": {"temperature": 0.3}}))
    return {}


def recipe(format: str, safety: str, attempts: int = ATTEMPTS) -> Recipe:
    student = {"llm": {"name": "local", "model": "base"}, "format": format, "sampling": {"temperature": 0.3}}
    evolve = {**fakes.RECIPE["stage"][0], "queries": {"source": "evolved.txt"}}
    evaluate = {
        **fakes.RECIPE["stage"][-1],
        "systems": ["raw", "checked"],
        "benchmarks": {"mine": {"queries": {"source": "q.txt"}, "clips_per_prompt": 1}},
    }
    return recipe_with(
        {"fidelity": 1.0, "safety": safety},
        student=student,
        systems={"checked": {"student": "sft", "attempts": attempts}},
        stage=[evolve, {"kind": "sft", "data": "evolve", "margin": -1000.0}, evaluate],
    )


def evaluated(place: Path, format: str, safety: str, attempts: int = ATTEMPTS) -> dict[Query, Candidate]:
    """Return the candidates of the system "as used" of a finished run."""
    Path("evolved.txt").write_text("\n".join(fakes.QUERIES))
    Path("q.txt").write_text("\n".join(DRAWS))
    run(recipe(format, safety, attempts), place, trainers={"sft": train})
    with Run(place, writable=False) as opened:
        return opened.records.evaluation("mine")["checked"]


def bare(candidate: Candidate) -> Candidate:
    """Return a candidate without the things that only a run knows: its clips, its reward and its round."""
    return replace(candidate, round=0, clips=(), reward=None)


@pytest.mark.parametrize("safety", ["rewrite_to_safe", "refuse", "off"])
@pytest.mark.parametrize("format", ["brief", "faithful"])
def test_a_system_as_used_gives_exactly_the_candidates_of_the_rewriter(place: Path, format: str, safety: Any) -> None:
    """For queries that pass at once, after redraws, or never, and for texts that are withheld or too long."""
    found = evaluated(place, format, safety)
    Script.asked.clear()
    judge = Component("judge", "fake")
    rewrite = Rewriter(f"local:{place / 'models' / 'sft'}", profile="tiny", safety=safety, judge=judge)
    for query in map(Query, DRAWS):
        try:
            expected = rewrite(query)
        except Refused:
            assert query not in found or found[query].rejected == REFUSED
        except ReplyError:
            assert query not in found
        else:
            assert bare(found[query]) == bare(expected), query.text


def test_the_cases_are_those_that_they_are_meant_to_be(place: Path) -> None:
    found = {query.text: candidate for query, candidate in evaluated(place, "faithful", "rewrite_to_safe").items()}
    assert {text: (candidate.text, candidate.rejected) for text, candidate in found.items()} == {
        "blue box": ("a blue box", None),  # at once
        "red ball": ("a red ball", None),  # after redraws, two of them without a text
        "tiny green cross": ("tiny cross", "fidelity"),  # never: the first of the best
        "white star": ("ring", "fidelity"),  # never: all equal, so the first
        "gory hoop": ("a hoop", None),  # harmful ones are withheld
        "gory cube": ("a block", "fidelity"),  # harmful ones are never a fallback
        "odd cone": ("an odd cone", None),  # the one without a verdict is withheld
        "red fox": ("a short red fox", None),  # too long, and shortened twice
        "red hen": (("red hen " + "and more " * 50).strip(), "too long"),
    }
    assert set(DRAWS) - set(found) == {"gory ring", "lost sun"}  # withheld each time; no text
    assert SHORTENINGS == 2


def test_a_student_with_a_layout_of_its_own_is_drawn_again_where_others_are_asked_to_shorten(place: Path) -> None:
    found = {query.text: candidate for query, candidate in evaluated(place, "brief", "rewrite_to_safe").items()}
    assert (found["red fox"].text, found["red fox"].rejected) == ("a red fox", None)
    assert not [asked for asked in Script.asked if asked.endswith("True")]


def test_a_system_with_one_attempt_is_not_checked(place: Path) -> None:
    found = {query.text: candidate for query, candidate in evaluated(place, "brief", "rewrite_to_safe", 1).items()}
    assert found["red ball"].text == "ball"
    assert max(Script.asked.values()) == 1


@pytest.mark.parametrize("attempts", [2, 4])
def test_a_query_is_drawn_no_more_often_than_the_system_says(place: Path, attempts: int) -> None:
    evaluated(place, "brief", "rewrite_to_safe", attempts)
    assert max(Script.asked.values()) == attempts
    assert Script.asked["blue box False"] == 1


def test_the_checked_system_of_the_recipe_draws_as_often_as_the_rewriter() -> None:
    recipe, _ = load_recipe("tiny_promptreel")
    checked = recipe.systems["checked"]
    assert checked.attempts == ATTEMPTS
    assert checked.student == recipe.trained()[-1]
    assert "checked" in next(recipe.stages(EvaluateStage)).systems
    assert recipe.policy.policy() == Rewriter("tiny-student", profile="tiny").policy
