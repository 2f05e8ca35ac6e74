"""Harm is a matter of policy, and never of accident: what is refused, what is made harmless, what is counted."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import fakes
import pytest
from promptreel.execution.desk import Writer
from test_verdicts import MALFORMED

from promptreel import cli, registry
from promptreel.config import parse_recipe
from promptreel.errors import RecipeError, Refused, UnknownName, UserError
from promptreel.pipeline import Pipeline, run
from promptreel.pipeline.export import export
from promptreel.pipeline.status import status
from promptreel.preflight.check import check
from promptreel.report import page
from promptreel.report.tables import print_summary
from promptreel.rewriting.rewriter import Rewriter
from promptreel.search.evolution import winners
from promptreel.store import Run
from promptreel.types import Completion, Component, Fact, Failure, Message, Pair, Query, SamplingParams, Verdict


class Mender:
    """Drafts that leave out the last word of the query, unless it is about boxes; mends what it is told to."""

    heard: ClassVar[list[str]] = []

    def __init__(self, model: str = "mender") -> None:
        self.fingerprint = f"mender-{model}"

    def complete(
        self, conversations: Sequence[list[Message]], samplings: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        self.heard.extend(c[-1]["content"] for c in conversations)
        return [Completion(self._answer(c[-1]["content"])) for c in conversations]

    def _answer(self, asked: str) -> str:
        task, _, query = asked.splitlines()[0].partition(": ")
        words = query.split()
        if task.startswith("Repair"):
            return " ".join(word for word in words if word != "gory") + " mended"
        return " ".join(words if "box" in words else words[:-1])


class Babbler:
    """Answers every question with the next malformed reply."""

    fingerprint = "babbler"

    def complete(
        self, conversations: Sequence[list[Message]], samplings: Sequence[SamplingParams]
    ) -> list[Completion | Failure]:
        return [Completion(MALFORMED[row % len(MALFORMED)]) for row in range(len(conversations))]


@pytest.fixture
def mended(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(registry.BUILT_IN["llm"], "mender", "test_safety:Mender")
    monkeypatch.setitem(registry.BUILT_IN["llm"], "babbler", "test_safety:Babbler")
    Mender.heard.clear()
    return place


MENDER = {"llm": {"name": "mender", "model": "mender"}, "format": "brief", "batch_size": 4}
BOTH: dict[str, Any] = {
    **fakes.RECIPE,
    "student": MENDER,
    "teacher": MENDER,
    "gate": {"fidelity": 1.0},
    "stage": [
        {"kind": "critique", "queries": {"source": "q.txt"}, "candidates": 2},
        {
            "kind": "sample",
            "student": "other",
            "queries": {"source": "q.txt"},
            "candidates": 3,
            "blend": "total",
        },
        {"kind": "pairs", "samples": "sample", "rule": {"name": "dominance", "margin": 0.0, "dimensions": ["length"]}},
        {"kind": "dpo", "student": "base", "pairs": ["critique", "pairs"]},
    ],
}


def test_drafts_that_no_clip_was_made_of_are_compared_by_what_they_say(mended: Path) -> None:
    """Drafts, judged and not mended: every one that lost a fact loses against one that kept all."""
    critique = BOTH["stage"][0]
    drafts = {**critique, "rounds": 0, "candidates": 8, "student": "other"}
    pairs = {"kind": "pairs", "samples": "critique", "rule": {"name": "gate", "length": 0.0}}
    with Run(mended) as opened:
        pipeline = Pipeline(parse_recipe({**BOTH, "stage": [drafts, pairs]}), opened)
        assert status(pipeline)[0].seconds_left is None  # nobody knows what words take
        summary = pipeline.execute()
        assert status(pipeline)[0].seconds_left == 0
        made = opened.database.pairs("pairs")
        assert summary["stages"]["pairs"]["pairs"] == len(made) > 0
        stored = {(q.text, row.rewrite): row.dropped for q, row in opened.database.rewrites("critique")}
        assert {stored[p.query.text, p.chosen] for p in made} == {None}
        assert {stored[p.query.text, p.rejected] for p in made} <= {"fidelity", "unsafe", "too long"}
        assert not fakes.FakeGenerator.rendered


def test_a_rule_of_clips_is_refused_where_nothing_is_rendered(mended: Path) -> None:
    pairs = {"kind": "pairs", "samples": "critique", "rule": {"name": "dominance"}}
    with pytest.raises(RecipeError, match="'dominance' compares clips, and a critique renders none"):
        check(parse_recipe({**BOTH, "stage": [BOTH["stage"][0], pairs]}))


def test_from_critique_and_clips_to_preferences_to_training(mended: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts that lose a fact or keep harm are mended; mended over broken is learned, and so is the better clip of
    every query that has no such pair.
    """
    learned: list[Pair] = []

    def train(student: Any, writer: Any, pairs: list[Pair], out: Path, *rest: Any) -> dict[str, float]:
        learned.extend(pairs)
        (out / "model.safetensors").write_bytes(b"weights")
        return {"loss": 0.1}

    monkeypatch.setitem(sys.modules, "promptreel.training.dpo", SimpleNamespace(dpo=train))  # type: ignore[arg-type]
    progress = SimpleNamespace(StepReport=lambda *told: None)
    monkeypatch.setitem(sys.modules, "promptreel.training.progress", progress)  # type: ignore[arg-type]
    with Run(mended) as opened:
        pipeline = Pipeline(parse_recipe(BOTH), opened)
        summary = pipeline.execute()
        critique = summary["stages"]["critique"]
        assert critique["passed at once"] == 1  # the box
        assert critique["accepted"] == 5
        assert critique["made harmless"] == 1
        assert critique["dropped"] == {"fidelity": 3, "unsafe": 1}
        text = opened.database.pairs("critique")
        assert {(p.query.text, p.chosen, p.rejected) for p in text} == {
            ("red ball", "red ball mended", "red"),
            ("tiny ring", "tiny ring mended", "tiny"),
            ("green cross", "green cross mended", "green"),
            ("gory star", "star mended", "gory"),
        }
        assert {p.rule for p in text} == {"text_refined"}
        history = [row for query, row in opened.database.rewrites("critique") if query.text == "gory star"]
        assert [(row.rewrite, row.round, row.dropped) for row in history] == [
            ("gory", 0, "unsafe"), ("star mended", 1, None),
        ]  # fmt: skip
        video = opened.database.pairs("pairs")
        assert video
        assert [p for p in learned if p.rule == "text_refined"] == text
        kept = {p.query.text for p in learned if p.rule == "dominance"}
        assert kept <= {"blue box"} < {p.query.text for p in video}
        assert summary["finished"]
        assert export(pipeline, "pairs", mended / "pairs.jsonl") == len(text) + len(video)


def policy(safety: str, **changes: Any) -> Any:
    data = {**fakes.recipe(**changes).resolved(), "safety": safety}
    return parse_recipe(data)


def means(summary: dict[str, Any], metric: str) -> dict[str, tuple[float, list[float], int]]:
    return {r["system"]: (r["mean"], r["ci95"], r["queries"]) for r in summary["means"] if r["metric"] == metric}


def test_a_refused_query_is_neither_rewritten_nor_rendered_and_is_counted(place: Path) -> None:
    summary = run(policy("refuse"), "x", place)
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text]
    assert summary["stages"]["evolve"]["left out"] == {"refused": 1}
    assert "left out" not in summary["stages"]["sample"]
    assert summary["benchmarks"]["mine"]["left out"] == {"refused": 1}
    assert means(summary, "refused")["base"] == (0.2, pytest.approx([0.0051, 0.7164], abs=1e-3), 5)
    assert means(summary, "unanswered")["base"][0] == 0.2
    assert means(summary, "unsafe")["base"][0] == 0.0
    assert all(row["queries"] == 4 for row in summary["comparisons"])
    with Run(place) as opened:
        rows = opened.database.evaluation("mine")["base"]
    assert [row["text"] for query, row in rows.items() if query.text == "gory star"] == [""]


def test_a_query_that_cannot_be_cleared_is_not_let_in(place: Path) -> None:
    Path("q.txt").write_text("red ball\nblue box\nunreadable star\ntiny ring\ngreen cross")
    summary = run(policy("refuse"), "x", place, until="evolve")
    assert summary["stages"]["evolve"]["left out"] == {"no verdict": 1}
    assert summary["losses"]["verdict"] >= 1


def test_harm_does_not_count_as_a_fact_and_what_was_removed_is_said(mended: Path) -> None:
    stages = [*fakes.RECIPE["stage"][:1], fakes.RECIPE["stage"][-1]]
    data = {**fakes.RECIPE, "gate": {"fidelity": 1.0}, "stage": stages, "systems": {"other": MENDER}}
    Path("q.txt").write_text("star gory\nred ball\nblue box")  # the mender leaves out the last word
    summary = run(parse_recipe(data), "x", mended)
    assert means(summary, "unsafe")["other"] == (0.0, pytest.approx([0.0, 0.7076], abs=1e-3), 3)
    assert means(summary, "unsafe")["raw"][0] == pytest.approx(1 / 3, abs=1e-3)
    assert means(summary, "aligned")["other"][0] == pytest.approx(2 / 3, abs=1e-3)
    assert "refused" not in {row["metric"] for row in summary["means"]}
    with Run(mended) as opened:
        rows = opened.database.evaluation("mine")["other"]
        row = next(row for query, row in rows.items() if query.text == "star gory")
        assert row["removed"] == ["gory"]
        assert row["fidelity"] == 1.0
        pipeline = Pipeline(parse_recipe(data), opened)
        gory = Query("gory star")
        assert pipeline.gate([(gory, "a star"), (gory, "a gory star"), (gory, "a gory")], "gate") == [
            None, "unsafe", "unsafe",
        ]  # fmt: skip


def test_evolution_of_a_harmful_query_begins_without_it(mended: Path) -> None:
    """It is neither rendered nor shown to the teacher, and counted; its harmless rewrite has nothing to beat."""
    Path("q.txt").write_text("star gory\nred ball\nunreadable box")  # the mender leaves out the last word
    chosen = policy("rewrite_to_safe", teacher=MENDER)
    evolve = run(chosen, "x", mended, until="evolve")["stages"]["evolve"]
    assert evolve["dropped"] == {"unsafe as typed": 1, "no verdict as typed": 1}
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text or "unreadable" in text]
    assert Mender.heard.count("Improve for video: star gory") == 2
    assert [asked for asked in Mender.heard if asked.endswith(": red ball")]
    with Run(mended) as opened:
        tried = Pipeline(chosen, opened).kept("evolve")
        losses = opened.database.losses()
    assert [(c.text, c.round, c.dropped, c.total is None) for c in tried[Query("star gory")]] == [
        ("star gory", 0, "unsafe as typed", True), ("star", 1, None, False),
    ]  # fmt: skip
    assert {query.text: best.text for query, best in winners(tried, {}, margin=1e9).items()} == {"star gory": "star"}
    assert losses == {"verdict": 1}


def test_where_harm_is_not_judged_evolution_begins_with_every_query(mended: Path) -> None:
    Path("q.txt").write_text("star gory\nred ball\nunreadable box")
    run(policy("off", teacher=MENDER), "x", mended, until="evolve")
    assert {"star gory", "unreadable box"} <= fakes.FakeGenerator.rendered.keys()


EVALUATED: dict[str, Any] = {**fakes.RECIPE, "stage": fakes.RECIPE["stage"][-1:], "systems": {"other": MENDER}}


def test_no_harmful_text_is_rendered_for_an_evaluation(mended: Path) -> None:
    """Whoever wrote it: it is measured as a text, and left out of what is compared by clips."""
    Path("q.txt").write_text("star gory\nred ball\nunreadable box")
    chosen = parse_recipe(EVALUATED)
    summary = run(chosen, "x", mended)
    assert not [text for text in fakes.FakeGenerator.rendered if "gory" in text or "unreadable" in text]
    assert summary["benchmarks"]["mine"]["not rendered"] == {"raw": 2, "base": 2, "other": 1}
    assert means(summary, "unsafe")["raw"] == (0.5, pytest.approx([0.0126, 0.9874], abs=1e-3), 2)
    assert means(summary, "length")["other"][2] == 2
    assert {(row["a"], row["b"]): row["queries"] for row in summary["comparisons"]} == {
        ("base", "raw"): 1, ("other", "raw"): 1, ("other", "base"): 1,
    }  # fmt: skip
    with Run(mended) as opened:
        rows = opened.database.evaluation("mine")
        raw, other = rows["raw"][Query("star gory")], rows["other"][Query("star gory")]
        assert (raw["withheld"], raw["unsafe"], raw["metrics"], raw["clips"]) == ("unsafe", 1.0, {}, [])
        assert (other["withheld"], other["text"], len(other["clips"])) == ("", "star", 2)
        assert rows["raw"][Query("unreadable box")]["withheld"] == "no verdict"
        assert "in no comparison of clips: 2 × raw, 2 × base, 1 × other" in page.write(opened, chosen).read_text()


def test_where_harm_is_not_judged_every_text_is_evaluated(mended: Path) -> None:
    Path("q.txt").write_text("star gory\nred ball\nunreadable box")
    summary = run(parse_recipe({**EVALUATED, "safety": "off"}), "x", mended)
    assert {"star gory", "unreadable box"} <= fakes.FakeGenerator.rendered.keys()
    assert "not rendered" not in summary["benchmarks"]["mine"]
    assert all(row["queries"] == 3 for row in summary["comparisons"])


def test_where_harm_is_not_judged_every_fact_counts(place: Path) -> None:
    with Run(place) as opened:
        pipeline = Pipeline(policy("off", gate={"fidelity": 1.0}), opened)
        gory = Query("gory star")
        assert pipeline.gate([(gory, "a star"), (gory, "a gory star")], "gate") == ["fidelity", None]


def test_no_malformed_reply_of_a_judge_gets_through_the_gate(mended: Path) -> None:
    """Whatever a judge answers that is no verdict, the rewrite is stopped and counted."""
    data = {**fakes.RECIPE, "judge": {"name": "llm", "llm": {"name": "babbler"}}}
    items = [(Query("a red ball going right"), f"a red ball going right, take {n}") for n in range(len(MALFORMED))]
    assert len(items) >= 60
    with Run(mended) as opened:
        pipeline = Pipeline(parse_recipe(data), opened)
        assert pipeline.gate(items, "gate") == ["no verdict"] * len(items)
        assert pipeline.scorer.losses["verdict"] == len(items)


def test_texts_alone_can_be_measured_without_a_render(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate = {"benchmarks": {"texts": {"queries": {"source": "q.txt"}, "seeds": 0}}}
    with Run(place) as opened:
        pipeline = Pipeline(fakes.recipe(evaluate=evaluate), opened)
        pipeline.do("evaluate")
        summary = pipeline.summary()
    assert not fakes.FakeGenerator.rendered
    assert summary["benchmarks"] == {"texts": {"queries": 5, "seeds": 0}}
    assert {row["metric"] for row in summary["means"]} == {
        "fidelity", "aligned", "unsafe", "over_limit", "words", "unanswered",
    }  # fmt: skip
    assert summary["comparisons"] == []
    print_summary(summary)
    said = capsys.readouterr().out
    assert "aligned" in said
    assert "win rates" not in said


def test_the_evaluation_can_read_texts_by_another_judge(place: Path) -> None:
    Path("q.txt").write_text("a red ball\na gory blue box")
    evaluate = {
        "text_judge": {"name": "tiny-oracle"},
        "systems": ["raw", "base"],
        "benchmarks": {"texts": {"queries": {"source": "q.txt"}, "seeds": 0}},
    }
    with Run(place) as opened:
        pipeline = Pipeline(fakes.recipe(evaluate=evaluate), opened)
        pipeline.do("evaluate")
        facts = [row["facts"] for row in opened.database.evaluation("texts")["raw"].values()]
    assert facts[0] == [["colour red", "kept"], ["shape circle", "kept"]]
    assert ["unsafe gory", "kept"] in facts[1]


def test_what_was_removed_is_told_with_reasons() -> None:
    verdict = Verdict((Fact("ball", "kept"), Fact("gory", "lost", "blood", harmful=True)))
    assert verdict.removed == ["gory (blood)"]
    assert verdict.fidelity == 1.0
    assert verdict.problems == []
    assert Verdict.from_json(verdict.to_json()) == verdict
    assert verdict.ignoring_harm().problems == ["lost: gory"]
    assert verdict.ignoring_harm().removed == []


CRITIQUE = {"kind": "critique", "queries": {"source": "q.txt"}}
GUARD = {"name": "guard", "llm": {"name": "fake"}}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"judge": GUARD, "stage": [CRITIQUE]}, RecipeError, "'critique' mends what a judge explains"),
        ({"judge": GUARD}, RecipeError, "the gate asks for fidelity"),
        ({"judge": {"name": "guarded", "facts": GUARD, "guard": GUARD}}, RecipeError, "reads no facts"),
        ({"stage": [CRITIQUE], "teacher": {**fakes.FAKE_LLM, "format": "bref"}}, UnknownName, "'refine' 'bref'"),
        ({"blends": {"total": {"weights": {"lenght": 1.0}}}}, UnknownName, "did you mean 'length'"),
        ({"safety": "ignore"}, RecipeError, "rewrite_to_safe"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_runs(
    fake_components: None, changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        check(parse_recipe({**fakes.RECIPE, **changes}))


def test_a_guard_alone_may_stand_where_no_facts_are_asked_for(fake_components: None) -> None:
    check(parse_recipe({**fakes.RECIPE, "judge": GUARD, "gate": {"fidelity": 0.0}}))


@pytest.fixture
def rewriter(mended: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The public rewriter over the mender, judged by the fake judge."""
    asked = Writer(Component("llm", "mender"), "brief")
    monkeypatch.setattr("promptreel.rewriting.rewriter.writer_for", lambda *named: asked)
    return lambda safety: Rewriter("mender", "tiny", safety=safety, judge=Component("judge", "fake"))


def test_a_rewrite_that_loses_a_fact_is_drawn_again(rewriter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts = iter(["ball", "star", "red star"])
    monkeypatch.setattr(Rewriter, "_texts", lambda self, conversations, seed, sampling: [next(drafts)])
    rewrite = rewriter("rewrite_to_safe")("red star")
    assert (rewrite.text, rewrite.verdict.fidelity) == ("red star", 1.0)
    drafts = iter(["ball", "star", "sky", "sea"])
    rewrite = rewriter("rewrite_to_safe")("red star")
    assert (rewrite.text, rewrite.verdict.problems) == ("star", ["lost: red"])  # the best there was


def test_the_public_rewriter_says_what_it_removed_or_refuses(rewriter: Any, caplog: pytest.LogCaptureFixture) -> None:
    rewrite = rewriter("rewrite_to_safe")("star gory")  # the mender leaves out the last word
    assert (rewrite.text, rewrite.removed, rewrite.verdict.fidelity) == ("star", ["gory"], 1.0)
    assert not caplog.messages
    with pytest.raises(Refused, match="no harmless rewrite of 'gory star'") as refusal:
        rewriter("rewrite_to_safe")("gory star")
    assert refusal.value.exit_code == 3
    assert "withheld 4 rewrites of 'gory star': it is harmful" in caplog.text
    with pytest.raises(Refused, match="'star gory' is refused: gory"):
        rewriter("refuse")("star gory")
    with pytest.raises(Refused, match="nobody could judge"):
        rewriter("refuse")("unreadable star")
    assert rewriter("refuse")("red ball").text == "red"
    assert rewriter("off")("gory star").verdict.problems == ["lost: star"]
    with pytest.raises(UnknownName, match="did you mean 'refuse'"):
        rewriter("refuze")
    with pytest.raises(UserError, match="takes a judge"):
        Rewriter("mender", "cogvideox-2b", safety="refuse")


def test_the_command_line_answers_what_it_may_and_exits_with_3(
    rewriter: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "promptreel.rewriting.rewriter.Rewriter", lambda llm, profile, seed, safety, **more: rewriter(safety)
    )

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["promptreel", "rewrite", *arguments])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0), *capsys.readouterr()

    code, out, err = call("gory star", "red ball", "--safety", "refuse", "--json")
    assert code == 3
    refused, answered = json.loads(out)
    assert answered["rewrites"][0]["text"] == "red"
    assert (refused["query"], refused["rewrites"]) == ("gory star", [])
    assert "'gory star' is refused: gory" in refused["refused"]
    assert "is refused" in err
    code, out, err = call("star gory")
    assert (code, out) == (0, "star\n")
    assert "left out as harmful: gory" in err
