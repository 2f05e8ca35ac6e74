"""Kills a real run with SIGKILL at random moments of every stage, lets it go on, and compares the end.

python benchmarks/kills.py --kills 30

The run is ``promptreel demo --quick``; with ``--small`` it is recipe `tiny`, cut down further than that, with its gate
and margins open, so that every stage has work whatever the weights are. It is killed about ``--per-run`` times on its
way, then ends; its summary must be that of a run that nobody killed, but for times, and at most one batch may be
rendered twice for each kill. Exits with 1 otherwise.
"""

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

BATCH = 8
SMALL = (
    "threads=1", f"generator.batch_size={BATCH}", "gate.fidelity=0", "sft.margin=-1000",
    "student.sampling={temperature=1.0, max_tokens=16}", "teacher.sampling={temperature=1.0, max_tokens=16}",
    "sample-1.sampling={temperature=1.0, max_tokens=16}", "sample-2.sampling={temperature=1.0, max_tokens=16}",
    "evolve.queries.take=4", "evolve.rounds=2", "sample-1.queries.take=4", "sample-2.queries.take=4",
    "pairs-1.rule.margin=0.001", "pairs-2.rule.margin=0.001", "sft.trainer.num_train_epochs=1",
    "dpo-1.trainer.num_train_epochs=1", "dpo-2.trainer.num_train_epochs=1",
    "evaluate.benchmarks.tiny-test.queries.take=4", "evaluate.benchmarks.tiny-test.seeds=1",
    "evaluate.benchmarks.tiny-ood.queries.take=2", "evaluate.benchmarks.tiny-ood.seeds=1",
)  # fmt: skip
DEMO_BATCH = 32
"""Of the demo's recipe."""
SHORT = 0.5
"""Seconds under which a stage is over before anyone could kill it from outside: it kills itself as it begins."""


def child(directory: Path, die_in: str | None, small: bool) -> None:
    """``promptreel run`` in a directory, which writes down what it renders beside it, and says what stage it is at."""
    from promptreel import cli
    from promptreel.generators.diffusers import DiffusersGenerator
    from promptreel.store import Database

    render, set_stage = DiffusersGenerator.render, Database.set_stage

    def logged(self: Any, requests: Any) -> Any:
        with log_of(directory).open("a") as log:
            log.writelines(f"{request.clip_id(self.fingerprint)}\n" for request in requests)
        return render(self, requests)

    def deadly(self: Any, name: str, kind: str, state: str, *rest: Any) -> None:
        set_stage(self, name, kind, state, *rest)
        print(name, file=sys.__stdout__, flush=True)  # progress bars take over the usual one
        if name == die_in and state == "running":
            os.kill(os.getpid(), signal.SIGKILL)

    DiffusersGenerator.render, Database.set_stage = logged, deadly  # type: ignore[method-assign]
    settings = [part for setting in SMALL for part in ("--set", setting)]
    command = ["run", "tiny", *settings] if small else ["demo", "--quick"]
    sys.argv = ["promptreel", *command, "--out", str(directory), "--json"]
    cli.main()


def start(directory: Path, die_in: str | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(directory)]
    return subprocess.Popen(
        [*command, *(["--die-in", die_in] if die_in else [])], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )


def log_of(directory: Path) -> Path:
    return directory.with_name(f"{directory.name}.log")


def finish(directory: Path) -> dict[str, Any]:
    """The summary of a run that is let go on to its end, without its times."""
    process = start(directory)
    process.communicate()
    if process.returncode not in (0, 4):
        raise SystemExit(f"the run in {directory} ended with {process.returncode}")
    return json.loads((directory / "summary.json").read_text())


def states(directory: Path) -> dict[str, str]:
    """Every stage that was begun, with its state."""
    if not (directory / "run.db").exists():
        return {}
    with sqlite3.connect(directory / "run.db") as connection:
        return dict(connection.execute("SELECT name, state FROM stages"))


def kill(directory: Path, stage: str, seconds: float, share: float) -> tuple[str, float] | None:
    """Let a run go on and kill it in a stage, after a share of the seconds that it takes.

    Where it was then, and when; ``None`` if it was past that stage, or came to its end first.
    """
    if states(directory).get(stage) == "done":
        return None
    process = start(directory, stage if seconds < SHORT else None)
    assert process.stdout
    next((line for line in process.stdout if line.decode().strip() == stage), None)
    began = time.monotonic()
    time.sleep(seconds * share)
    process.kill()
    after = time.monotonic() - began
    process.communicate()
    if process.returncode != -signal.SIGKILL:
        return None
    at_work = [name for name, state in states(directory).items() if state == "running"]
    return (at_work or ["between stages"])[0], after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-in", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.child, options.die_in, options.small)
        return
    with tempfile.TemporaryDirectory() as place:
        batch = BATCH if options.small else DEMO_BATCH
        failed = compare(Path(place), options.kills, options.per_run, batch, random.Random(options.seed))
    sys.exit(failed)


def compare(place: Path, kills: int, per_run: int, batch: int, chance: random.Random) -> bool:
    """Print a line for each kill and what came of it; whether anything was not as it must be."""
    whole = finish(place / "whole")
    seconds = whole.pop("seconds")
    rendered = log_of(place / "whole").read_text().split()
    hit: Counter[str] = Counter()
    runs = equal = twice = 0
    while hit.total() < kills:
        runs += 1
        directory = place / f"killed-{runs}"
        left = min(per_run, kills - hit.total())
        stages = list(seconds) * (left // len(seconds)) + chance.sample(list(seconds), left % len(seconds))
        for stage in sorted(stages, key=list(seconds).index):
            if killed := kill(directory, stage, seconds[stage], chance.random()):
                hit[killed[0]] += 1
                print(f"kill {hit.total():>3}  run {runs}  in {killed[0]:<12} after {killed[1]:6.2f} s", flush=True)
        summary = finish(directory)
        summary.pop("seconds")
        equal += summary == whole
        again = log_of(directory).read_text().split()
        twice += len(again) - len(set(again))
        if set(again) != set(rendered):
            print(f"run {runs} rendered other clips than the whole one")
    print(f"kills: {hit.total()} ({', '.join(f'{name} {count}' for name, count in hit.items())})")
    print(f"equal: {equal} of {runs} summaries")
    print(f"clips rendered twice: {twice}, of {len(rendered)} in a run; at most {hit.total() * batch} allowed")
    return equal < runs or twice > hit.total() * batch


if __name__ == "__main__":
    main()
