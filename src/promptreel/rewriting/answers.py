"""Answers to queries, as the command line, the server and the studio show them: write, edit, render, choose."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from promptreel.errors import Refused, ReplyError
from promptreel.execution.batches import silent
from promptreel.rewriting.loop import rank
from promptreel.rewriting.preview import Preview, Progress, Rendered
from promptreel.rewriting.rewriter import Rewriter
from promptreel.types import Candidate, Query

Edit = Callable[[Candidate], str | None]
"""Editor of a candidate: it returns the text to use, unchanged to keep it, or ``None`` to drop it."""


@dataclass
class Answer:
    """Everything found for one query."""

    query: Query
    candidates: list[Candidate] = field(default_factory=list)
    """The chosen ones, best first."""
    error: Refused | ReplyError | None = None
    """Reason for which there are none."""
    drawn: int = 0
    """Distinct candidates that were written."""
    typed: Candidate | None = None
    """The query read as if it were a candidate, where it is rendered too."""
    rendered: Mapping[str, Rendered] = field(default_factory=dict)
    """By text, the query's own included."""
    side_by_side: Path | None = None

    def choose(self, count: int) -> None:
        """Keep the best candidates: by their texts, and equal ones by reward."""
        self.candidates = sorted(self.candidates, key=self._quality, reverse=True)[:count]

    def _quality(self, candidate: Candidate) -> tuple[object, ...]:
        shown = self.rendered.get(candidate.text)
        reward = shown.candidate.reward if shown else None
        return *rank(candidate), reward is not None, 0.0 if reward is None else reward


@dataclass(frozen=True)
class Options:
    """Options of a request for rewrites."""

    count: int = 1
    """Candidates to give for each query."""
    best_of: int | None = None
    """Candidates to write for each query and choose from; ``None`` writes ``count``."""
    edit: Edit | None = None


def answer(
    rewriter: Rewriter,
    queries: Sequence[Query],
    options: Options,
    preview: Preview | None = None,
    progress: Progress = silent,
) -> Iterator[Answer]:
    """Yield the answer to each query: one that cannot be answered has the reason, and the others are answered anyway.

    With a preview, query and candidates are rendered, and the choice among ``best_of`` comes after it.
    """
    for query in queries:
        found = Answer(query)
        try:
            found.candidates = rewriter.candidates(query, options.best_of or options.count)
        except (Refused, ReplyError) as error:
            found.error = error
            yield found
            continue
        found.drawn = len(found.candidates)
        if options.best_of and not preview:
            found.choose(options.count)
        if options.edit:
            found.candidates = _edited(rewriter, found.candidates, options.edit)
        if preview:
            _render(rewriter, found, preview, progress)
            if options.best_of:
                found.choose(options.count)
        yield found


def _edited(rewriter: Rewriter, candidates: Sequence[Candidate], edit: Edit) -> list[Candidate]:
    """Return the candidates as a person leaves them; a changed one is judged anew."""
    edited = []
    for candidate in candidates:
        text = edit(candidate)
        if text == candidate.text:
            edited.append(candidate)
        elif text:
            edited.append(rewriter.examine(candidate.query, text))
    return edited


def _render(rewriter: Rewriter, found: Answer, preview: Preview, progress: Progress) -> None:
    """Render clips of the query and of its candidates, without those that are too long or withheld by the policy."""
    typed = rewriter.examine(found.query, found.query.text)
    found.typed = typed
    shown = [] if typed.withheld else [typed]
    shown += [candidate for candidate in found.candidates if candidate.fits and not candidate.withheld]
    found.rendered, found.side_by_side = preview.show(found.query, shown, progress)
