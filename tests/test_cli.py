"""The command line: arguments, output and exit codes."""

import hashlib
import json
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sqlalchemy
from recipe_files import write_recipe

import promptreel
import promptreel.store
from promptreel import cli
from promptreel.config import load_recipe


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Return exit code, stdout and stderr of a command, run in this process."""
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
        (["run"], "nothing to run: name a recipe"),
        (["run", "--out", "absent"], "holds no run"),
        (["run", "--out", "absent", "--stage", "evolve"], "holds no run"),
        (["run", "--out", "absent", "--set", "seed=1"], "--set changes a recipe, so name one"),
        (["run", "tiny", "--stage", "evolve"], "--stage does one stage of a run that was begun"),
        (["run", "--stage", "evolve"], "--stage does one stage of a run that was begun"),
        (["status", "--run", "absent"], "holds no run"),
        (["report", "--run", "absent"], "holds no run"),
        (["export", "--run", "absent", "--what", "sft", "--to", "x.jsonl"], "holds no run"),
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
    assert row.keys() == {"query", "rewrites", "video", "failure", "side_by_side"}
    assert row["query"] == "a crimson ball heading east"
    (written,) = row["rewrites"]
    assert written.keys() == {
        "text", "tokens", "exact", "fits", "fidelity", "problems", "removed", "video", "reward", "failure",
    }  # fmt: skip
    assert written["text"]
    assert written["tokens"] > 3
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
    assert sorted(names) == [
        "demo", "doctor", "evaluate", "export", "init", "merge", "profiles", "report", "rewrite", "run", "serve",
        "status",
    ]  # fmt: skip
    for name in names:
        code, out, _ = call(monkeypatch, capsys, name, "--help")
        assert code == 0
        assert "Usage" in out


def test_every_public_name_can_be_imported_from_an_instant_package() -> None:
    assert set(promptreel.__all__) == {"Candidate", "Query", "Rewriter", "Summary", "load_recipe", "run"}
    assert all(getattr(promptreel, name) for name in promptreel.__all__)
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        promptreel.absent  # noqa: B018
    check = "import sys, promptreel; assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
    assert (Path(promptreel.__file__).parent / "py.typed").exists()


def test_the_version_is_printed(monkeypatch, capsys) -> None:
    code, out, _ = call(monkeypatch, capsys, "--version")
    assert (code, out) == (0, f"promptreel {promptreel.__version__}\n")


def test_the_console_script_is_installed() -> None:
    script = Path(sys.executable).parent / "promptreel"
    assert subprocess.run([script, "--help"], check=True, capture_output=True).stdout


@pytest.fixture
def begun(place: Path, monkeypatch, capsys) -> Path:
    """The directory of a run of the recipe of fakes whose first stage is done."""
    write_recipe(Path("fake.toml"))
    code, _, err = call(monkeypatch, capsys, "run", "fake.toml", "--out", str(place), "--until", "evolve")
    assert code == 0, err
    return place


def states(monkeypatch, capsys, run: Path) -> dict[str, str]:
    code, out, err = call(monkeypatch, capsys, "status", "--run", str(run), "--json")
    assert code == 0, err
    return {stage["name"]: stage["state"] for stage in json.loads(out)["stages"]}


def test_a_run_goes_on_without_its_recipe(begun: Path, monkeypatch, capsys) -> None:
    code, out, err = call(monkeypatch, capsys, "run", "--out", str(begun), "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["finished"]
    assert summary == json.loads((begun / "summary.json").read_text())
    assert set(states(monkeypatch, capsys, begun).values()) == {"done"}
    assert "evaluate: render" in err or "evaluate/mine: render" in err  # stderr is no terminal here
    assert (begun / "report.html").exists()


def test_one_stage_of_a_run_is_done_at_a_time(begun: Path, monkeypatch, capsys) -> None:
    code, _, err = call(monkeypatch, capsys, "run", "--out", str(begun), "--stage", "pairs")
    assert (code, "stage 'pairs' needs 'sample', which is not done" in err) == (1, True)
    code, _, err = call(monkeypatch, capsys, "run", "--out", str(begun), "--stage", "smaple")
    assert (code, "unknown stage 'smaple'; did you mean 'sample'" in err) == (2, True)
    code, out, err = call(monkeypatch, capsys, "run", "--out", str(begun), "--stage", "sample", "--json")
    assert code == 0, err
    assert set(json.loads(out)["stages"]) == {"evolve", "sample"}
    assert states(monkeypatch, capsys, begun) == {"evolve": "done", "sample": "done", "pairs": "new", "evaluate": "new"}
    code, out, err = call(monkeypatch, capsys, "evaluate", "--run", str(begun), "--json")
    assert code == 0, err
    assert json.loads(out)["benchmarks"]["mine"]["clips_per_prompt"] == 2
    code, _, err = call(monkeypatch, capsys, "evaluate", "--run", str(begun))
    assert (code, "every evaluate stage is done: evaluate" in err) == (2, True)


def test_own_queries_are_evaluated_with_as_many_clips_as_asked_for(begun: Path, monkeypatch, capsys) -> None:
    Path("own.txt").write_text("red ball\nnew thing\n")
    command = ("evaluate", "--run", str(begun), "--queries", "own.txt", "--systems", "raw,base")
    code, out, err = call(monkeypatch, capsys, *command, "--clips", "3", "--json")
    assert code == 0, err
    summary = json.loads(out)
    assert summary["systems"] == ["raw", "base"]
    assert summary["benchmarks"]["own.txt"]["clips_per_prompt"] == 3
    assert summary["renders"] == {"evaluate:own.txt": 12}
    code, out, _ = call(monkeypatch, capsys, *command)
    assert code == 0
    assert "own.txt: 2 queries × 2 clips" in out


def test_a_finished_run_with_failures_exits_with_4_and_lists_them(place: Path, monkeypatch, capsys) -> None:
    Path("q.txt").write_text("broken ball\nslow box\nred star\nblue ring\nfine cross")
    write_recipe(Path("fake.toml"))
    code, out, _ = call(monkeypatch, capsys, "run", "fake.toml", "--out", str(place))
    assert code == 4
    assert "× render" in out
    _, out, _ = call(monkeypatch, capsys, "status", "--run", str(place), "--json")
    assert json.loads(out)["failures"]["render"] > 0
    code, out, _ = call(monkeypatch, capsys, "status", "--run", str(place))
    assert (code, "× render (such as: broken)" in out) == (0, True)


def test_data_of_a_run_are_exported_as_lines(begun: Path, monkeypatch, capsys) -> None:
    command = ("export", "--run", str(begun), "--what", "scores", "--to", "scores.jsonl")
    code, out, err = call(monkeypatch, capsys, *command)
    lines = Path("scores.jsonl").read_text().splitlines()
    assert (code, out) == (0, f"{len(lines)} lines in scores.jsonl.\n"), err
    assert "reward" in json.loads(lines[0])
    code, _, err = call(monkeypatch, capsys, "merge", "--run", str(begun), "--to", "plain")
    assert (code, "no student is trained yet" in err) == (1, True)


def contents(run: Path) -> dict[str, str]:
    """Return a hash of every file of a run, and of every table of its database."""
    files = {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file()
    }
    address = f"{(run / 'run.db').absolute().as_uri()}?immutable=1"  # looking leaves no files beside it
    engine = sqlalchemy.create_engine("sqlite://", creator=lambda: sqlite3.connect(address, uri=True))
    with engine.connect() as connection:
        for table in sqlalchemy.inspect(connection).get_table_names():
            rows = sorted(repr(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}"))
            files[f"table {table}"] = hashlib.sha256("\n".join(rows).encode()).hexdigest()
    engine.dispose()
    return files


def test_looking_at_a_run_changes_nothing_in_it(begun: Path, monkeypatch, capsys) -> None:
    call(monkeypatch, capsys, "run", "--out", str(begun), "--stage", "sample")
    drawn = {"report.html", "before-after.gif"}
    for name in drawn:
        (begun / name).unlink(missing_ok=True)
    before = contents(begun)
    assert len([name for name in before if name.startswith("table ")]) > 8
    for command in (("status",), ("status", "--json"), ("report",)):
        code, _, err = call(monkeypatch, capsys, *command, "--run", str(begun))
        assert code == 0, err
        after = contents(begun)
        assert {name: value for name, value in after.items() if name not in drawn} == before
    assert (begun / "report.html").exists()


def test_a_run_at_work_can_be_looked_at(begun: Path, monkeypatch, capsys) -> None:
    with promptreel.store.Run(begun):
        assert states(monkeypatch, capsys, begun)["evolve"] == "done"
        assert call(monkeypatch, capsys, "report", "--run", str(begun))[0] == 0
        code, _, err = call(monkeypatch, capsys, "run", "--out", str(begun), "--stage", "sample")
        assert (code, "another process works on" in err) == (1, True)


def test_status_loads_no_model_library(begun: Path) -> None:
    code = (
        "import sys\n"
        "sys.argv = ['promptreel', 'status', '--run', sys.argv[1]]\n"
        "from promptreel.cli import main\n"
        "try:\n    main()\nexcept SystemExit as exit:\n    assert not exit.code\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'datasets', 'trl'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(begun)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "evolve" in done.stdout


def test_the_demos_run_shipped_recipes(monkeypatch, capsys, tmp_path) -> None:
    asked = []

    def run(recipe, directory, *overrides, **options):
        asked.append((recipe, str(directory), overrides))
        return promptreel.Summary(recipe=recipe, finished=True, systems=(), ceiling=None)

    monkeypatch.setattr("promptreel.pipeline.run", run)
    monkeypatch.chdir(tmp_path)
    code, out, _ = call(monkeypatch, capsys, "demo", "--quick")
    assert (code, "too few queries to claim anything" in out) == (0, True)
    code, out, _ = call(monkeypatch, capsys, "demo", "--out", "mine", "--json")
    assert (code, json.loads(out)["finished"]) == (0, True)
    assert asked == [("tiny_quick", "runs/demo", ()), ("tiny_demo", "mine", ())]
    assert {load_recipe(name)[0].name for name, *_ in asked} == {"tiny_demo", "tiny_quick"}
