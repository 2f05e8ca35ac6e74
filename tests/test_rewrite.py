"""Rewriting for creators: an endpoint, no training, and only the core installed."""

import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer

from promptreel import Rewriter, cli, prompts
from promptreel.errors import ReplyError, UserError
from promptreel.report.diff import compare, unsaid
from promptreel.rewriting.loop import ATTEMPTS, SHORTENINGS
from promptreel.rewriting.models import component_of, judge_of
from promptreel.types import Component

EXTRAS = ("torch", "transformers", "diffusers", "accelerate", "trl", "peft", "datasets", "av", "cv2", "safetensors")
WITHOUT_EXTRAS = f"""
import sys
from importlib.machinery import PathFinder

found = PathFinder.find_spec

def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {EXTRAS!r} else found(name, path, target)

PathFinder.find_spec = find_spec
from promptreel.cli import main
main()
"""
"""A program that runs the command line as if only the core were installed."""
SCENE = "A corgi is surfing on a green wave, seen from the side."


def tagged(text: str) -> dict[str, Any]:
    return {"content": f"Sure!\n<PROMPT>{text}</PROMPT>"}


def verdict(*facts: tuple[str, str, bool], unsafe: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a judge's reply, from the words, the status and the harm of each fact."""
    listed = [{"quote": quote, "status": status, "why": "so", "harmful": harm} for quote, status, harm in facts]
    kept = all(status == "kept" for _, status, harm in facts if not harm)
    found = {"facts": listed, "invented": [], "unsafe": unsafe, "faithful": kept, "harmless": not unsafe}
    return {"content": json.dumps(found)}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs ``promptreel rewrite`` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["promptreel", "rewrite", *arguments])
        with pytest.raises(SystemExit) as exit:
            cli.main()
        return int(exit.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.slow
def test_an_endpoint_rewrites_with_only_the_core_installed(tmp_path: Path) -> None:
    command = (sys.executable, "-c", WITHOUT_EXTRAS, "rewrite")
    with ChatServer(lambda number, body: tagged(SCENE)) as server:
        spec = f"endpoint:some/model@{server.url}"
        found = subprocess.run(
            [*command, "a corgi surfing", "--for", "wan2.2-5b", "--llm", spec],
            capture_output=True, text=True, env={**os.environ, "PROMPTREEL_CACHE": str(tmp_path)}, check=False,
        )  # fmt: skip
        without = subprocess.run(
            [*command, "a corgi", "--for", "wan2.2-5b", "--llm", spec, "--render", "out"],
            capture_output=True, text=True, cwd=tmp_path, check=False,
        )  # fmt: skip
    assert (found.returncode, found.stdout) == (0, SCENE + "\n"), found.stderr
    asked = server.requests[0]
    assert asked["model"] == "some/model"
    system = asked["messages"][0]["content"]
    assert "Wan 2.2 TI2V 5B" in system  # the model is named, its limit and its house style are said
    assert "512 tokens" in system
    assert "80 to 100 words" in system
    assert (without.returncode, len(server.requests)) == (
        2,
        1,
    )  # nothing is asked before it is clear that it is for nothing
    assert "pip install 'promptreel[local]'" in without.stderr


def test_modes_differ_in_what_they_may_add(call: Any) -> None:
    with ChatServer(lambda number, body: tagged(SCENE)) as server:
        for mode in ("faithful", "cinematic"):
            spec = f"endpoint:m@{server.url}"
            assert call("a corgi surfing", "--for", "wan2.2-5b", "--llm", spec, "--mode", mode)[0] == 0
        call("a corgi surfing", "--for", "wan2.2-5b", "--llm", f"endpoint:other@{server.url}")
    faithful, cinematic, default = (request["messages"][0]["content"] for request in server.requests)
    assert faithful == default
    assert "no camera moves" in faithful
    assert "one camera move" in cinematic
    assert "Add nothing that changes the scene" not in cinematic


def test_the_same_input_and_seed_cost_once(call: Any) -> None:
    command = ("a corgi surfing", "--for", "wan2.2-5b", "-n", "2", "--json", "--llm")
    with ChatServer(lambda number, body: tagged(f"{SCENE} Take {number}.")) as server:
        spec = f"endpoint:m@{server.url}"
        first = call(*command, spec)
        again = call(*command, spec)
        assert again == first
        assert len(server.requests) == 2
        other = call(*command, spec, "--seed", "1")
        assert other[1] != first[1]
        assert len(server.requests) == 4


def test_a_file_is_answered_except_for_queries_without_a_usable_reply(call: Any, tmp_path: Path) -> None:
    (tmp_path / "queries.txt").write_text("a corgi surfing\na cat sleeping\n")

    def behaviour(number: int, body: Any) -> Any:
        return {"content": "<PROMPT>a cor"} if "corgi" in body["messages"][-1]["content"] else tagged(SCENE)

    with ChatServer(behaviour) as server:
        command = ("--file", str(tmp_path / "queries.txt"), "--for", "wan2.2-5b", "--llm", f"endpoint:m@{server.url}")
        code, out, err = call(*command)
        assert (code, out) == (1, SCENE + "\n")
        assert err.count("error: the language model gave no prompt") == 1
        failed, answered = json.loads(call(*command, "--json")[1])
    assert (failed["rewrites"], "cut off" in failed["failed"]) == ([], True)
    assert answered["rewrites"][0]["text"] == SCENE


def test_a_server_that_fails_is_not_remembered(call: Any) -> None:
    def behaviour(number: int, body: Any) -> Any:
        return {"status": 400} if number == 0 else tagged(SCENE)

    with ChatServer(behaviour) as server:
        command = ("a corgi surfing", "--for", "wan2.2-5b", "--llm", f"endpoint:m@{server.url}")
        code, _, err = call(*command)
        assert (code, "gave no prompt" in err, "Traceback" in err) == (1, True, False)
        assert call(*command)[:2] == (0, SCENE + "\n")


LONG = "A large red circle moves right quickly past " + ", ".join(f"number {n}" for n in range(30))


def test_a_rewrite_that_would_be_cut_is_asked_for_again_shorter(call: Any) -> None:
    short = "A red circle moves right."
    with ChatServer(lambda number, body: tagged(LONG if number == 0 else short)) as server:
        code, out, err = call("a red ball going right", "--llm", f"endpoint:m@{server.url}", "--json")
    assert code == 0, err
    (written,) = json.loads(out)[0]["rewrites"]
    assert (written["text"], written["fits"], written["exact"]) == (short, True, True)
    system, user = (message["content"] for message in server.requests[1]["messages"])
    words = int(re.search(r"at most (\d+) words", system)[1])  # type: ignore[index]
    assert 10 < words < 48
    assert LONG.strip() in user


def test_a_rewrite_that_stays_too_long_is_given_whole_with_a_note(call: Any) -> None:
    with ChatServer(lambda number, body: tagged(LONG)) as server:
        code, out, err = call("a red ball going right", "--llm", f"endpoint:m@{server.url}")
    assert (code, out.strip()) == (0, LONG.strip())
    assert "the model reads 48 and cuts the rest" in err
    assert len(server.requests) == 1 + SHORTENINGS  # another draw would be as long


def test_an_estimated_length_is_called_one(call: Any) -> None:
    with ChatServer(lambda number, body: tagged(" ".join(f"a corgi surfs wave {n}" for n in range(200)))) as server:
        code, _, err = call("a corgi surfing", "--for", "wan2.2-5b", "--llm", f"endpoint:m@{server.url}")
    assert code == 0
    assert re.search(r"about \d+ tokens; the model reads 512", err)


def test_removed_and_lost_facts_are_noted_from_the_verdict(call: Any) -> None:
    def behaviour(number: int, body: Any) -> Any:
        judging = "You compare" in body["messages"][0]["content"]
        facts = (("corgi", "kept", False), ("surfing", "lost", False), ("bloody", "lost", True))
        return verdict(*facts) if judging else tagged("A corgi on a beach.")

    with ChatServer(behaviour) as server:
        spec = f"endpoint:m@{server.url}"
        command = ("a bloody corgi surfing", "--for", "wan2.2-5b", "--llm", spec, "--judge", spec)
        code, out, err = call(*command)
        assert (code, out) == (0, "A corgi on a beach.\n")
        assert "left out as harmful: bloody (so)" in err
        assert "lost: surfing" in err
        assert len(server.requests) == ATTEMPTS + 1  # no draft keeps surfing; one verdict, since all are the same
        assert call(*command) == (code, out, err)
        assert len(server.requests) == ATTEMPTS + 1  # verdicts are remembered too


def test_without_a_judge_missing_words_are_named(call: Any) -> None:
    with ChatServer(lambda number, body: tagged("A corgi on a beach.")) as server:
        _, _, err = call("a bloody corgi surfs", "--for", "wan2.2-5b", "--llm", f"endpoint:m@{server.url}")
    assert "not in these words: bloody, surfs" in err


def test_best_of_keeps_the_most_faithful_that_fits(call: Any) -> None:
    texts = [LONG, "A circle moves right.", "A red circle moves right.", "A red circle moves left."]
    with ChatServer(lambda number, body: tagged(texts[number] if number < 4 else LONG)) as server:
        spec = f"endpoint:m@{server.url}"
        code, out, _ = call("a red ball going right", "--llm", spec, "--best-of", "4")
        assert (code, out) == (0, "A red circle moves right.\n")
        assert call("a red ball", "--llm", spec, "--best-of", "2", "-n", "3")[0] == 2
        _, _, err = call("a corgi", "--for", "wan2.2-5b", "--llm", spec, "--best-of", "1")
        assert "no judge read" not in err


def test_best_of_without_a_judge_says_so(call: Any) -> None:
    with ChatServer(lambda number, body: tagged(f"A corgi, take {number}.")) as server:
        code, out, err = call("a corgi", "--for", "wan2.2-5b", "--llm", f"endpoint:m@{server.url}", "--best-of", "3")
    assert (code, len(out.splitlines())) == (0, 1)
    assert "no judge read these 3 different rewrites" in err


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets an editor that replaces what it is given by a text."""

    def set_to(text: str) -> None:
        script = tmp_path / "editor"
        script.write_text(f"#!{sys.executable}\nimport sys\nopen(sys.argv[1], 'w').write({text!r})\n")
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("VISUAL", str(script))

    return set_to


def test_the_editor_has_the_last_word(call: Any, editor: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(lambda number, body: tagged("A red circle moves left.")) as server:
        spec = f"endpoint:m@{server.url}"
        editor("A red circle\nmoves right.\n\n# 8 tokens\n")
        code, out, err = call("a red ball going right", "--llm", spec, "--edit")
        assert (code, out, err) == (0, "A red circle moves right.\n", "")  # judged again: nothing is lost now
        editor("# nothing\n")
        assert call("a red ball going right", "--llm", spec, "--edit")[:2] == (0, "")
        monkeypatch.setenv("VISUAL", "no-such-editor")
        code, out, err = call("a red ball going right", "--llm", spec, "--edit")
        assert (code, out) == (2, "")
        assert "set $VISUAL or $EDITOR" in err


def test_colours_are_for_terminals(call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(lambda number, body: tagged(SCENE)) as server:
        command = ("a corgi surfing", "--for", "wan2.2-5b", "--llm", f"endpoint:m@{server.url}")
        assert "\x1b" not in call(*command)[1]
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.delenv("NO_COLOR", raising=False)
        out = call(*command)[1]
    coloured = dict(re.findall(r"\x1b\[([\d;]+)m(\w+)\x1b\[0m", out)[::-1])
    assert re.sub(r"\x1b\[[\d;]*m", "", out) == SCENE + "\n"
    assert coloured == {"1;32": "corgi", "36": "green"}


def test_words_are_compared_in_any_form() -> None:
    pieces = list(compare("A running dog wears two glasses", "The dog runs, wearing 2 glasses."))
    assert "".join(piece for piece, _ in pieces) == "The dog runs, wearing 2 glasses."
    assert {piece for piece, kind in pieces if kind == "kept"} == {"dog", "runs", "wearing", "glasses"}
    assert {piece for piece, kind in pieces if kind == "added"} == {"2"}
    assert unsaid("A running dog wears two glasses", "The dog runs, wearing 2 glasses.") == ["two"]
    assert list(compare("", "")) == []


@pytest.mark.parametrize(
    ("spec", "component"),
    [
        ("endpoint:gpt-4o", Component("llm", "endpoint", {"model": "gpt-4o", "retries": 2})),
        (
            "endpoint:qwen3:8b@http://127.0.0.1:11434/v1",
            Component("llm", "endpoint", {"model": "qwen3:8b", "url": "http://127.0.0.1:11434/v1", "retries": 2}),
        ),
        (
            "endpoint:@cf/meta/llama@https://host/v1",
            Component("llm", "endpoint", {"model": "@cf/meta/llama", "url": "https://host/v1", "retries": 2}),
        ),
        ("local:some/model+adapter", Component("llm", "local", {"model": "some/model", "adapter": "adapter"})),
    ],
)
def test_specifications_are_read(spec: str, component: Component) -> None:
    assert component_of(spec) == component


@pytest.mark.parametrize("spec", ["gpt-4o", "endpoint:", "local:", "endpoint:qwen@localhost:11434/v1"])
def test_other_specifications_are_refused(spec: str) -> None:
    with pytest.raises(UserError, match="cannot read"):
        component_of(spec)


def test_a_judge_is_a_name_or_a_model() -> None:
    assert judge_of("tiny-oracle") == Component("judge", "tiny-oracle")
    judge = judge_of("endpoint:gpt-4o")
    assert (judge.name, judge.options["llm"]["model"]) == ("llm", "gpt-4o")


def test_weights_that_are_not_there_are_one_line(call: Any) -> None:
    code, out, err = call("a red ball", "--llm", "local:absent/model")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: cannot load the language model 'absent/model'")


def test_a_trained_student_takes_no_mode(call: Any) -> None:
    code, _, err = call("a red ball", "--llm", "tiny-base", "--mode", "faithful")
    assert (code, "trained to be asked in its own way" in err) == (2, True)
    code, _, err = call("a red ball", "--llm", "endpoint:m", "--mode", "cinematc")
    assert (code, "did you mean 'cinematic'" in err) == (2, True)


@pytest.mark.parametrize("reply", ["<PROMPT>a corgi sur", "<think>The person wants", "<think>a</think><prompt>b"])
def test_a_reply_that_is_cut_off_is_no_prompt(reply: str) -> None:
    with pytest.raises(ReplyError, match="cut off"):
        prompts.parse_rewrite(reply)


def test_python_gets_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    with ChatServer(lambda number, body: tagged(SCENE)) as server:
        rewrite = Rewriter(f"endpoint:m@{server.url}", profile="wan2.2-5b")
        found = rewrite("a corgi surfing --ar 9:16")
    assert (found.text, found.query.aspect, found.fits) == (SCENE, "9:16", True)
    assert "--ar" not in server.requests[0]["messages"][1]["content"]


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_fresh_installation_rewrites_through_an_endpoint(tmp_path: Path) -> None:
    python, script = (tmp_path / "venv" / "bin" / name for name in ("python", "promptreel"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    root = str(Path(__file__).parents[1])
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python)
    try:
        subprocess.run([*pip, "install", "--quiet", "--no-compile", root], capture_output=True, timeout=200, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"pip cannot install here: {(error.stderr or b'')[-200:].decode()}")
    listed = subprocess.run([*pip, "list", "--format", "json"], capture_output=True, text=True, check=True).stdout
    assert not {"torch", "transformers", "diffusers", "av"} & {package["name"] for package in json.loads(listed)}
    with ChatServer(lambda number, body: tagged(SCENE)) as server:
        found = subprocess.run(
            [script, "rewrite", "a corgi surfing", "--for", "wan2.2-5b", "--llm", f"endpoint:m@{server.url}"],
            capture_output=True, text=True, cwd=tmp_path, check=False,
            env={**os.environ, "PROMPTREEL_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
    assert (found.returncode, found.stdout) == (0, SCENE + "\n"), found.stderr
