"""Queries and their rewrites side by side: clips, texts that are not rendered, and notes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chat_server import ChatServer
from test_cli import call
from test_rewrite import tagged

from promptreel import media, registry


def test_raw_and_rewrite_are_rendered_from_one_noise_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from promptreel.generators.diffusers import DiffusersGenerator

    asked = []
    render = DiffusersGenerator.render
    monkeypatch.setattr(DiffusersGenerator, "render", lambda self, r, on_step=None: asked.extend(r) or render(self, r))
    texts = ["A red circle moves right.", "A red circle moves right quickly."]
    with ChatServer(lambda number, body: tagged(texts[number % 2])) as server:
        spec = f"endpoint:m@{server.url}"
        command = ("a red ball going right", "--llm", spec, "--render", str(tmp_path), "--json", "--best-of", "2")
        code, out, err = call(monkeypatch, capsys, "rewrite", *command)
        assert code == 0, err
        assert {request.prompt for request in asked} == {"a red ball going right", *texts}
        assert len({request.seed for request in asked}) == 1
        (row,) = json.loads(out)
        together, raw = (media.decode(Path(row[name]).read_bytes(), name) for name in ("side_by_side", "video"))
        assert together.shape[:2] == raw.shape[:2]
        assert together.shape[2] >= 3 * raw.shape[2]
        assert abs(together[:, :, : raw.shape[2] - 8].astype(int) - raw[:, :, :-8]).mean() < 3  # as typed is left
        rewards = {
            w["text"]: w["reward"]
            for w in json.loads(call(monkeypatch, capsys, "rewrite", *command, "-n", "2")[1])[0]["rewrites"]
        }
        assert len(asked) == 3  # nothing is rendered twice
        assert rewards[row["rewrites"][0]["text"]] == max(rewards.values())


def test_an_image_is_shown_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    from promptreel import registry
    from promptreel.execution.batches import silent
    from promptreel.queries import ask_for
    from promptreel.rewriting.preview import Preview
    from promptreel.types import Candidate, Clip

    class Painter:
        fingerprint, batch_size = "painter", 1

        def render(self, requests: list[Any], on_step: Any = None) -> list[Clip]:
            colour = [255, 0, 0] if requests[0].prompt == "red" else [0, 0, 255]
            frames = np.full((1, 4, 6, 3), colour, np.uint8)
            return [Clip(requests[0].clip_id(self.fingerprint), frames, 1.0)]

    monkeypatch.setattr(registry, "build", lambda component: Painter())
    query = ask_for("red")
    candidates = [Candidate(query, "red"), Candidate(query, "blue")]
    shown, together = Preview("sdxl", tmp_path, 0).show(query, candidates, silent)
    assert shown["red"].file is not None
    assert shown["red"].file.name == "raw.png"
    picture = cv2.imread(str(together))[..., ::-1]
    assert (picture[0, 0].tolist(), picture[0, -1].tolist()) == ([255, 0, 0], [0, 0, 255])


@pytest.fixture
def rendered(fake_components: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Renders of the fake generator so far, by prompt; it renders for every profile."""
    import fakes

    monkeypatch.setitem(registry.BUILT_IN["generator"], "diffusers", "fakes:FakeGenerator")
    return fakes.FakeGenerator.rendered


def test_a_harmful_query_is_not_rendered_as_typed(
    rendered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "A red circle moves right."
    with ChatServer(lambda number, body: tagged(text)) as server:
        command = ("rewrite", "a bloody red ball going right", "--llm", f"endpoint:m@{server.url}", "--render")
        code, _, err = call(monkeypatch, capsys, *command, str(tmp_path / "out"))
        assert code == 0, err
        assert list(rendered) == [text]
        assert "as typed it is not rendered: it is harmful" in err
        assert [path.name for path in tmp_path.rglob("*.mp4")] == ["rewrite-1.mp4"]
        (row,) = json.loads(call(monkeypatch, capsys, *command, str(tmp_path / "out"), "--json")[1])
        assert (row["video"], row["failure"]) == (None, "it is harmful")
        code, _, err = call(monkeypatch, capsys, *command, str(tmp_path / "off"), "--safety", "off")
        assert "a bloody red ball going right" in rendered  # where harm is not judged


def test_a_rewrite_that_is_made_harmful_is_not_rendered(
    rendered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("click.edit", lambda text, extension: "A bloody red circle moves right.")
    with ChatServer(lambda number, body: tagged("A red circle moves right.")) as server:
        command = ("rewrite", "a red ball going right", "--llm", f"endpoint:m@{server.url}", "--edit", "--render")
        code, _, err = call(monkeypatch, capsys, *command, str(tmp_path))
    assert (code, list(rendered)) == (0, ["a red ball going right"])
    assert "note: not rendered: it is harmful" in err


def test_a_query_that_is_cut_is_said_to_be(
    rendered: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "a red ball going right " + "going right " * 40
    with ChatServer(lambda number, body: tagged("A red circle moves right.")) as server:
        command = ("rewrite", query, "--llm", f"endpoint:m@{server.url}", "--render", str(tmp_path))
        _, _, err = call(monkeypatch, capsys, *command)
    assert "tokens; the model reads 48 and cuts the rest" in err
    assert "note: as typed it has" in err
