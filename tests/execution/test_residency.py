"""One device is enough: models that do not fit together take turns."""

import gc
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from transformers import AutoModelForCausalLM, XCLIPModel

from promptreel.config import load_recipe
from promptreel.errors import RenderError, RunError, UserError
from promptreel.execution.local_engine import LocalEngine
from promptreel.jobs import Worker
from promptreel.pipeline import Pipeline, run
from promptreel.store import Run
from promptreel.types import RenderRequest

SMALL = [
    "evolve.queries.take=4",
    "evolve.rounds=1",
    "evolve.children=2",
    "evaluate.systems=['raw','base']",
    "evaluate.benchmarks={}",
    "evaluate.benchmarks.tiny-test={queries={source='tiny-test', take=4}, clips_per_prompt=1}",
]
"""Overrides for a small evolution with the tiny recipe."""


class Room:
    """Room for so many models, and a factory of workers that need one each."""

    def __init__(self, size: int) -> None:
        self.size, self.built, self.models = size, 0, weakref.WeakSet[Any]()

    def factory(self, name: str) -> Worker:
        class Model:
            pass

        model = Model()
        model.itself = model  # type: ignore[attr-defined]  # like a real one, it is freed only by the collector
        self.built += 1
        self.models.add(model)

        def work(batch: Sequence[int]) -> list[str]:
            if len(self.models) > self.size:
                raise MemoryError(f"no room for {len(self.models)} models")
            return [f"{type(model).__name__} {name}{item}" for item in batch]

        return work


def results(
    engine: LocalEngine, factory: Callable[..., Worker], options: Mapping[str, Any], *batches: Sequence[Any]
) -> list[Any]:
    """Return the results of batches, one for each. Raises the first error of a worker."""
    found: dict[int, list[Any]] = {}
    for finished in engine.finished(engine.submit(factory, options, batches)):
        if finished.error:
            raise finished.error
        found[finished.number] = finished.results
    return [found[number] for number in range(len(batches))]


def test_models_that_do_not_fit_together_take_turns() -> None:
    room, engine = Room(2), LocalEngine()
    for name in "abcabc":
        found = results(engine, room.factory, {"name": name}, [1], [2])
        assert found == [[f"Model {name}1"], [f"Model {name}2"]]
    assert engine.resident == 2
    built = room.built
    results(engine, room.factory, {"name": "c"}, [1])
    assert room.built == built  # models that fit stay


def test_a_model_that_does_not_fit_alone_is_reported_at_once() -> None:
    room, engine = Room(0), LocalEngine()
    with pytest.raises(RunError, match=r"do not fit \(no room for 1 models\): load it smaller"):
        results(engine, room.factory, {"name": "a"}, [1])
    assert room.built == 1


def test_an_engine_keeps_at_least_one_model() -> None:
    with pytest.raises(UserError, match="resident is 0"):
        LocalEngine(resident=0)


def test_a_batch_of_renders_that_is_too_large_is_left_to_the_step_to_halve() -> None:
    tried = []

    def factory() -> Worker:
        def work(batch: Sequence[int]) -> list[int]:
            tried.append(len(batch))
            raise RenderError("CUDA out of memory", "memory")

        return work

    with pytest.raises(RenderError):
        results(LocalEngine(), factory, {}, [1, 2])
    assert tried == [2]


@pytest.mark.parametrize("error", [MemoryError("too little"), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_video_model_that_does_not_fit_is_loaded_once_for_all_batches(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for every batch and clip, each of which would be lost."""
    tried: list[str] = []

    def load(model: str, **options: Any) -> Any:
        tried.append(model)
        raise error

    monkeypatch.setattr(WanPipeline, "from_pretrained", load)
    recipe, _ = load_recipe("tiny", ["judge={name='tiny-oracle'}"])
    with Run(tmp_path) as opened:
        step = Pipeline(recipe, opened).context("evolve").step()
        with pytest.raises(RunError, match=r"cannot load .*: out of memory \(.*offload it or load it smaller"):
            step.render([RenderRequest("a red circle", "", seed) for seed in range(64)])
    assert len(tried) == 1


class Loads:
    """Counts of the tiny world's models that are alive, taken whenever one is loaded or a batch is stored.

    The bytes of all living weights are taken whenever a model is loaded. Nothing is collected before: garbage counts.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loaded: list[tuple[str, weakref.ref[Any]]] = []
        self.sizes: list[int] = []
        self.alive: list[int] = []
        self.weights: list[int] = []
        self._others = {id(weight): weight for weight in weights()}
        for kind in (AutoModelForCausalLM, WanPipeline, XCLIPModel):
            monkeypatch.setattr(kind, "from_pretrained", self._noting(kind.__name__, kind.from_pretrained))

    def _noting(self, name: str, load: Callable[..., Any]) -> Callable[..., Any]:
        def loading(*arguments: Any, **options: Any) -> Any:
            model = load(*arguments, **options)
            parts = model.components.values() if isinstance(model, WanPipeline) else [model]
            networks = [part for part in parts if isinstance(part, torch.nn.Module)]
            self.sizes.append(sum(weight.nbytes for network in networks for weight in network.parameters()))
            self.loaded.append((name, weakref.ref(model)))
            self.note()
            self.weights.append(sum(weight.nbytes for weight in weights() if id(weight) not in self._others))
            return model

        return loading

    def note(self, *_: object) -> None:
        self.alive.append(sum(model() is not None for _, model in self.loaded))


def weights() -> list[torch.nn.Parameter]:
    """Return all weights in this process."""
    return [found for found in gc.get_objects() if issubclass(type(found), torch.nn.Parameter)]


@pytest.mark.slow
@pytest.mark.parametrize("resident", [1, 8])
def test_a_staged_run_has_one_model_at_a_time(resident: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peak memory, too, is that of the largest model alone."""
    loads = Loads(monkeypatch)
    recipe, _ = load_recipe("tiny", [*SMALL, "engine.name=local", f"engine.resident={resident}"])
    run(recipe, tmp_path / "run", progress=loads.note, until="evolve")
    assert {name for name, _ in loads.loaded} == {"AutoModelForCausalLM", "WanPipeline", "XCLIPModel"}
    if resident == 1:
        assert max(loads.alive) == 1
        assert max(loads.sizes) <= max(loads.weights) <= 1.2 * max(loads.sizes)
        assert len(loads.loaded) > 3  # each had to be loaded again
    else:
        assert (max(loads.alive), len(loads.loaded)) == (3, 3)
        assert max(loads.weights) > 1.2 * max(loads.sizes)


def test_a_training_finds_the_memory_free() -> None:
    engine, room = LocalEngine(), Room(9)
    results(engine, room.factory, {"name": "a"}, [1])
    gc.disable()
    try:
        assert len(room.models) == 1
        engine.release()
        assert not room.models
    finally:
        gc.enable()
