"""The command ``promptreel serve``, from its start to its end."""

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from chat_server import ChatServer
from test_cli import call

from promptreel.errors import Interrupted, UserError
from promptreel.server import run

SECRET = "a-secret-of-no-use"


@contextmanager
def command(*arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server in a process of its own, and its base URL. Torch cannot be had there: a served endpoint needs none."""
    code = "import sys; sys.modules['torch'] = None; from promptreel.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", "--port", "0", *arguments],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": "src", **environment},
        cwd=Path(__file__).parents[1],
    )
    assert process.stderr
    try:
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, f"it ended: {said}"
            said += line
        (url,) = re.findall(r"http://\S+/v1", said)
        yield process, url
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def ask(url: str, **options: Any) -> str:
    with openai.OpenAI(base_url=url, api_key=SECRET, max_retries=0) as client:
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "a cat"}], **options)
    return answer.choices[0].message.content or ""


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_a_signal_lets_the_request_under_way_end_and_then_ends_the_server(number: signal.Signals) -> None:
    with (
        ChatServer(lambda n, body: {"delay": 1.0}) as model,
        command("--llm", f"endpoint:m@{model.url}", "--for", "wan2.2-5b", PROMPTREEL_TOKEN=SECRET) as (process, url),
        ThreadPoolExecutor(1) as pool,
    ):
        with pytest.raises(openai.AuthenticationError), openai.OpenAI(base_url=url, api_key="wrong") as client:
            client.models.list()
        answer = pool.submit(ask, url)
        while not model.requests:
            assert process.poll() is None
        process.send_signal(number)
        assert answer.result(20) == "re: a cat"
        _, said = process.communicate(timeout=20)
    assert process.returncode == 130
    assert said == "stopped\n"
    assert SECRET not in said


def test_the_token_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run.read_token(None) is None
    monkeypatch.setenv(run.TOKEN, "from-environment")
    assert run.read_token(None) == "from-environment"
    (tmp_path / "token").write_text("from-file\n")
    assert run.read_token(tmp_path / "token") == "from-file"
    for wrong in ("", "\n", "two words", "naïve"):
        (tmp_path / "token").write_text(wrong)
        with pytest.raises(UserError, match="must be one word"):
            run.read_token(tmp_path / "token")
    with pytest.raises(UserError, match="cannot read the token"):
        run.read_token(tmp_path / "absent")


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        (["--host", "0.0.0.0"], True),
        (["--host", "0.0.0.0", "--token-file", "token"], False),
        ([], False),
    ],
)
def test_an_open_door_without_a_token_is_warned_about(
    arguments: list[str],
    warned: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "token").write_text(SECRET)
    monkeypatch.chdir(tmp_path)
    heard = []

    def serve(app: object, listening: socket.socket) -> None:
        heard.append(listening.getsockname()[0])
        raise Interrupted("stopped")

    monkeypatch.setattr(run, "serve", serve)
    asked = ["serve", "--llm", "endpoint:m@http://127.0.0.1:1/v1", "--for", "wan2.2-5b", "--port", "0"]
    code, out, err = call(monkeypatch, capsys, *asked, *arguments)
    assert (code, out) == (130, "")
    assert heard == [arguments[1] if arguments else "127.0.0.1"]
    assert ("warning: anyone who reaches 0.0.0.0 can use this model: set PROMPTREEL_TOKEN" in err) == warned
    assert SECRET not in err
    assert "m rewrites for wan2.2-5b at http://" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--llm", "nonsense"], "cannot read the language model 'nonsense'"),
        (["--llm", "local:absent/model"], "cannot load the language model 'absent/model'"),
        (["--for", "tinny"], "did you mean 'tiny'"),
        (["--safety", "sometimes"], "unknown safety policy"),
        (["--token-file", "absent"], "cannot read the token in absent"),
        (["--port", "TAKEN"], "cannot listen on 127.0.0.1 port"),
        (["--host", "192.0.2.1"], "cannot listen on 192.0.2.1"),
    ],
)
def test_a_wrong_start_is_one_line_and_exit_2(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with run.open_port("127.0.0.1", 0) as taken:
        given = [str(taken.getsockname()[1]) if argument == "TAKEN" else argument for argument in arguments]
        code, _, err = call(monkeypatch, capsys, "serve", "--port", "0", *given)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
