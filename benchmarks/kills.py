"""Kill a real run with SIGKILL at random moments of every stage, let it go on, and compare the end.

python benchmarks/kills.py --kills 30
python benchmarks/kills.py --small --engine processes --workers 2

The run is that of ``promptreel demo --quick``. With ``--small`` it is recipe ``tiny``, cut down further than that, with
its policy and margins open, so that every stage has work whatever the weights are. It is killed about ``--per-run``
times on its way, and then ends. Its summary must be that of a run without kills, but for times, and for each kill only
the batches at work may be rendered twice: one on the local engine, and two for each worker process, since one may wait
to be stored. Exits with 1 otherwise.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptreel.errors import PromptreelError
from promptreel.generators.diffusers import DiffusersGenerator
from promptreel.store import Run
from promptreel.store.records import Records
from promptreel.types import Clip, Failure, RenderRequest, StageRecord

LOG = "PROMPTREEL_KILLS_LOG"
"""Environment variable with the path of the file of a run's renders, which worker processes know too."""
BATCH = 8
SMALL = (
    "threads=1",
    f"generator.batch_size={BATCH}",
    "policy.fidelity=0",
    "policy.invented=allow",
    "sft.margin=-1000",
    "student.sampling={temperature=1.0, max_tokens=16}",
    "teacher.sampling={temperature=1.0, max_tokens=16}",
    "sample-1.sampling={temperature=1.0, max_tokens=16}",
    "sample-2.sampling={temperature=1.0, max_tokens=16}",
    "evolve.queries.take=4",
    "evolve.rounds=2",
    "sample-1.queries.take=4",
    "sample-2.queries.take=4",
    "pairs-1.rule.margin=0.001",
    "pairs-2.rule.margin=0.001",
    "sft.trainer.num_train_epochs=1",
    "dpo-1.trainer.num_train_epochs=1",
    "dpo-2.trainer.num_train_epochs=1",
    "evaluate.benchmarks.tiny-test.queries.take=4",
    "evaluate.benchmarks.tiny-test.clips_per_prompt=1",
    "evaluate.benchmarks.tiny-ood.queries.take=2",
    "evaluate.benchmarks.tiny-ood.clips_per_prompt=1",
)
QUICK_BATCH = 32
"""Batch size of the recipe ``tiny_quick``."""
SHORT = 0.5
"""Seconds under which a stage is over before it could be killed from outside: it kills itself as it begins."""


class LoggedGenerator(DiffusersGenerator):
    """The generator of the run, which writes down every clip that it is about to render."""

    def render(
        self, requests: Sequence[RenderRequest], on_step: Callable[[int, int], None] | None = None
    ) -> list[Clip | Failure]:
        with Path(os.environ[LOG]).open("a") as log:
            log.write("".join(f"{request.clip_id(self.fingerprint)}\n" for request in requests))
        return super().render(requests, on_step)


@dataclass(frozen=True)
class Setting:
    """The run that is killed."""

    small: bool
    engine: str
    workers: int

    @property
    def command(self) -> list[str]:
        workers = f", workers={self.workers}" if self.engine == "processes" else ""
        changes = [*(SMALL if self.small else ()), f"engine={{name='{self.engine}'{workers}}}"]
        settings = [part for change in changes for part in ("--set", change)]
        return ["run", "tiny" if self.small else "tiny_quick", *settings]

    @property
    def clips_at_work(self) -> int:
        """Clips that one kill may cost at most."""
        batches = 2 * self.workers if self.engine == "processes" else 1
        return batches * (BATCH if self.small else QUICK_BATCH)


def child(command: Sequence[str], directory: Path, die_in: str | None) -> None:
    """Run ``promptreel run`` in a directory; print the name of each stage as it begins, and kill itself in one."""
    from promptreel import cli, registry

    put_stage = Records.put_stage
    begun: set[str] = set()

    def told(self: Records, record: StageRecord) -> None:
        put_stage(self, record)
        if record.state == "running" and record.name not in begun:
            begun.add(record.name)
            print(record.name, file=sys.__stdout__, flush=True)  # progress bars take over the usual one
            if record.name == die_in:
                os.kill(os.getpid(), signal.SIGKILL)

    Records.put_stage = told  # type: ignore[method-assign]
    registry.register("generator", "diffusers", "kills:LoggedGenerator")
    sys.argv = ["promptreel", *command, "--out", str(directory), "--json"]
    cli.main()


def start(setting: Setting, directory: Path, die_in: str | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, __file__, "--child", str(directory), *(["--die-in", die_in] if die_in else [])]
    environment = {**os.environ, LOG: str(log_of(directory))}
    with errors_of(directory).open("w") as errors:
        return subprocess.Popen(
            [*command, "--", *setting.command], stdout=subprocess.PIPE, stderr=errors, env=environment
        )


def log_of(directory: Path) -> Path:
    """Return the path of the list of a run's renders."""
    return directory.with_name(f"{directory.name}.log")


def errors_of(directory: Path) -> Path:
    """Return the path of the messages of a run's last process."""
    return directory.with_name(f"{directory.name}.err")


def finish(setting: Setting, directory: Path) -> dict[str, Any]:
    """Let a run go on to its end; return its summary as data."""
    process = start(setting, directory)
    process.communicate()
    if process.returncode not in (0, 4):
        raise SystemExit(f"a run ended with {process.returncode}:\n{errors_of(directory).read_text()[-2000:]}")
    with Run(directory, writable=False) as run:
        summary = run.summary()
    assert summary
    return summary.to_json()


def states(directory: Path) -> dict[str, str]:
    """Return the state of every stage that was begun."""
    try:
        with Run(directory, writable=False) as run:
            return {name: record.state for name, record in run.records.stages().items()}
    except PromptreelError:  # it was killed before there was a database
        return {}


def kill(setting: Setting, directory: Path, stage: str, seconds: float, share: float) -> tuple[str, float] | None:
    """Let a run go on and kill it in a stage, after a share of the seconds that the stage takes.

    Return the stage at work then, and the seconds since it began; ``None`` if the stage was done, or the run ended.
    """
    if states(directory).get(stage) == "done":
        return None
    process = start(setting, directory, stage if seconds < SHORT else None)
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


def compare(place: Path, setting: Setting, kills: int, per_run: int, chance: random.Random) -> bool:
    """Kill runs and print a line for each kill, and the result; return True if a run ended in another way."""
    whole = finish(setting, place / "whole")
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
            if killed := kill(setting, directory, stage, seconds[stage], chance.random()):
                hit[killed[0]] += 1
                print(f"kill {hit.total():>3}  run {runs}  in {killed[0]:<12} after {killed[1]:6.2f} s", flush=True)
        summary = finish(setting, directory)
        summary.pop("seconds")
        equal += summary == whole
        again = log_of(directory).read_text().split()
        twice += len(again) - len(set(again))
        if set(again) != set(rendered):
            print(f"run {runs} rendered other clips than the whole one")
    allowed = hit.total() * setting.clips_at_work
    print(f"kills: {hit.total()} ({', '.join(f'{name} {count}' for name, count in hit.items())})")
    print(f"equal: {equal} of {runs} summaries")
    print(f"clips rendered twice: {twice}, of {len(rendered)} in a run; at most {allowed} allowed")
    return equal < runs or twice > allowed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--engine", choices=["local", "processes"], default="local")
    parser.add_argument("--workers", type=int, default=2, help="processes of --engine processes")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-in", help=argparse.SUPPRESS)
    parser.add_argument("command", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options.command, options.child, options.die_in)
        return
    setting = Setting(options.small, options.engine, options.workers)
    with tempfile.TemporaryDirectory() as place:
        failed = compare(Path(place), setting, options.kills, options.per_run, random.Random(options.seed))
    sys.exit(failed)


if __name__ == "__main__":
    main()
