"""The command line: what a person types, what they read, and the exit code."""

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

import promptreel
from promptreel import cli


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a command, in this process."""
    monkeypatch.setattr(sys, "argv", ["promptreel", *arguments])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    out, err = capsys.readouterr()
    return int(exit.value.code or 0), out, err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "tniy"], "did you mean 'tiny'"),
        (["run", "absent.toml"], "cannot read the recipe"),
        (["run", "tiny", "--set", "evolve.rouns=2"], "did you mean 'rounds'"),
        (["run", "tiny", "--set", "generator.stepz=2"], "no option 'stepz'; did you mean 'steps'"),
        (["run", "tiny", "--set", "rewards.pixels.name=pixel"], "unknown reward 'pixel'; did you mean 'pixels'"),
        (["run", "tiny", "--set", "sft.trainer.learning_rat=1"], "SFTConfig takes no 'learning_rat'"),
        (["run", "tiny", "--set", "dpo-1.lora.rank=1"], "LoraConfig takes no 'rank'"),
        (["run", "tiny", "--set", "pairs-1.rule.margn=1"], "did you mean 'margin'"),
        (["run", "tiny", "--set", "teacher.format=breif"], "did you mean 'brief'"),
        (["run", "tiny", "--set", "profile=tinny"], "did you mean 'tiny'"),
        (["run", "tiny", "--until", "dpo-9"], "unknown stage 'dpo-9'; did you mean"),
        (["evolve", "--run", "absent"], "holds no run"),
        (["rewrite"], "nothing to rewrite"),
        (["rewrite", "  "], "asks for nothing"),
        (["rewrite", "word " * 10_000], "10000 words"),
        (["rewrite", "a corgi surfing"], "the tiny world cannot show 'a corgi surfing'"),
        (["rewrite", "--file", "absent.txt"], "cannot read absent.txt"),
        (["rewrite", "a ball", "--for", "wan9"], "unknown profile 'wan9'"),
        (["rewrite", "a ball", "--for", "wan2.2-5b"], "tiny-student knows nothing but the tiny world"),
        (["rewrite", "a ball", "--llm", "gpt"], "cannot read the language model 'gpt'"),
    ],
)
def test_a_mistake_costs_one_clear_line(arguments, message, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert code == 2
    assert out == ""
    assert message in err
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert "Traceback" not in err


def test_the_mistake_of_a_recipe_leaves_a_run_as_it_was(monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, capsys, "run", "tiny", "--set", "evolve.rouns=2")
    assert list(tmp_path.iterdir()) == []


def test_the_tiny_student_rewrites(monkeypatch, capsys) -> None:
    code, out, err = call(monkeypatch, capsys, "rewrite", "a crimson ball heading east", "--json")
    assert code == 0, err
    (row,) = json.loads(out)
    assert row["query"] == "a crimson ball heading east"
    assert row["rewrites"][0]["text"]
    assert row["rewrites"][0]["tokens"] > 3
    again = call(monkeypatch, capsys, "rewrite", "a crimson ball heading east", "--json")[1]
    assert again == out


def test_help_is_instant_and_loads_no_torch() -> None:
    check = "import sys; from promptreel import cli; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", check], check=True)

    def seconds(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        return time.perf_counter() - began

    help_command = ("-c", "import sys; sys.argv = ['promptreel', '--help']; from promptreel.cli import main; main()")
    bare = ("-c", "import typer, rich, pydantic")
    ratios = [seconds(*help_command) / seconds(*bare) for _ in range(7)]
    assert statistics.median(ratios) <= 1.5


def test_every_command_has_help(monkeypatch, capsys) -> None:
    names = [command.name or command.callback.__name__ for command in cli.app.registered_commands]
    stages = {"evolve", "sft", "sample", "pairs", "dpo", "evaluate"}
    assert stages | {"demo", "run", "merge", "export", "rewrite", "status", "init", "profiles", "doctor"} <= set(names)
    for name in names:
        code, out, _ = call(monkeypatch, capsys, name, "--help")
        assert code == 0
        assert "Usage" in out


def test_what_the_package_promises_is_there() -> None:
    assert all(getattr(promptreel, name) for name in promptreel.__all__)


def test_the_version_is_said(monkeypatch, capsys) -> None:
    code, out, _ = call(monkeypatch, capsys, "--version")
    assert (code, out) == (0, f"promptreel {promptreel.__version__}\n")


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).parent / "promptreel"
    assert subprocess.run([script, "--help"], check=True, capture_output=True).stdout
