"""Measure the memory of a staged run: a student, a video model and a reward take turns, or are loaded together.

python benchmarks/residency.py

The models are the tiny world's with random weights, made wide, so that most of the memory is weights (``--shipped``
takes them as they come). Each of them writes, renders or scores a few items through the engine, twice, in a fresh
process: alone, with everything resident, and staged. Peak memory is the operating system's (``ru_maxrss``), less that
of the process before its first model. Exits with 1 if the staged peak is more than a fifth above the largest model's
alone.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

QUERIES = 4
SHIPPED = {"student": "base", "video model": "video", "reward": "alignment"}
ROLES = list(SHIPPED)
LIMIT = 1.2


def widen(out: str) -> None:
    """Write the three models, wider and with random weights."""
    from diffusers import WanPipeline, WanTransformer3DModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, AutoTokenizer, XCLIPConfig, XCLIPModel

    import promptreel.tiny

    weights = Path(promptreel.tiny.__file__).parent / "weights"
    config = AutoConfig.from_pretrained(
        weights / "base", hidden_size=896, head_dim=64, num_attention_heads=14, num_key_value_heads=14,
        intermediate_size=2432, num_hidden_layers=12, dtype="float32",
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(Path(out, "student"))
    AutoTokenizer.from_pretrained(weights / "base").save_pretrained(Path(out, "student"))

    pipeline = WanPipeline.from_pretrained(weights / "video", use_safetensors=True)
    shape = {**pipeline.transformer.config, "num_attention_heads": 12, "ffn_dim": 2304, "num_layers": 12}
    pipeline.register_modules(transformer=WanTransformer3DModel.from_config(shape))
    pipeline.save_pretrained(Path(out, "video model"))

    tower = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 4}
    small = XCLIPConfig.from_pretrained(weights / "alignment").to_dict()
    wide = XCLIPConfig(
        text_config=small["text_config"] | tower, vision_config=small["vision_config"] | tower,
        projection_dim=512, prompt_num_attention_heads=4,
    )  # fmt: skip
    XCLIPModel(wide).float().save_pretrained(Path(out, "reward"))
    AutoProcessor.from_pretrained(weights / "alignment").save_pretrained(Path(out, "reward"))


def work(clips: str, models: dict[str, str], roles: list[str], resident: int) -> dict[str, object]:
    """Let models work in turns.

    Return peak memory in MB above that of the libraries, and the most models alive at once.
    """
    import numpy as np
    import torch
    from diffusers import WanPipeline
    from transformers import LlamaForCausalLM, XCLIPModel
    from trl import SFTTrainer  # noqa: F401 - a run has imported this, too, before it is done

    from promptreel import registry
    from promptreel.execution.local_engine import LocalEngine
    from promptreel.execution.workers import llm_worker, render_worker, reward_worker
    from promptreel.media import ClipStore
    from promptreel.tiny.wording import caption
    from promptreel.tiny.world import FPS, random_scene, render
    from promptreel.types import Clip, ClipToScore, Component, Query, RenderRequest, SamplingParams

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    scenes = [random_scene(rng) for _ in range(QUERIES)]
    texts = [caption(scene) for scene in scenes]
    store = ClipStore(clips)
    for number, scene in enumerate(scenes):
        store.write(Clip(f"{number:064x}", render(scene, 0), FPS))
    generator = Component("generator", "diffusers", {"profile": "tiny", "model": models["video model"]})
    known = registry.build(generator).fingerprint
    student = Component("llm", "local", {"model": models["student"]})
    reward = Component("reward", "xclip", {"model": models["reward"]})
    params = SamplingParams(max_tokens=16)
    asked = [([{"role": "user", "content": f"Rewrite for video: {text}"}], params) for text in texts]
    shown = [ClipToScore(Query(text), f"{number:064x}", FPS) for number, text in enumerate(texts)]
    tasks = {
        "student": (llm_worker, {"llm": student}, asked),
        "video model": (
            render_worker, {"generator": generator, "clips": store, "fingerprint": known},
            [RenderRequest(text, "", 0) for text in texts],
        ),
        "reward": (reward_worker, {"reward": reward, "clips": store}, shown),
    }  # fmt: skip

    def peak() -> float:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    before, most = peak(), []
    engine = LocalEngine(resident=resident)
    kinds = {LlamaForCausalLM: "student", WanPipeline: "video model", XCLIPModel: "reward"}
    for role in roles * 2:
        factory, options, items = tasks[role]
        (finished,) = engine.finished(engine.submit(factory, options, [items]))
        if finished.error:
            raise finished.error
        alive = sorted(name for found in gc.get_objects() if (name := kinds.get(type(found))))
        most = max(most, alive, key=len)
    return {"peak": peak() - before, "at once": most}


def fresh(task: str, **options: object) -> str:
    """Do a task in a process of its own. It would inherit the peak of this one, which therefore stays small."""
    command = [sys.executable, __file__, "--child", json.dumps([task, options])]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"}, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return done.stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shipped", action="store_true", help="the tiny models as they come: mostly not weights")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        task, asked = json.loads(options.child)
        print(json.dumps({"widen": widen, "work": work}[task](**asked)))
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        models = {role: str(Path(scratch, role)) for role in ROLES}
        if options.shipped:
            models = {role: f"package:promptreel.tiny/weights/{name}" for role, name in SHIPPED.items()}
        else:
            fresh("widen", out=scratch)
        alone = {f"{role} alone": ([role], 1) for role in ROLES}
        ways = {**alone, "everything resident": (ROLES, 8), "staged": (ROLES, 1)}
        peaks = {}
        for way, (roles, resident) in ways.items():
            clips = str(Path(scratch, way))
            found = json.loads(
                fresh("work", clips=clips, models=models, roles=roles, resident=resident).splitlines()[-1]
            )
            peaks[way] = found["peak"]
            print(f"{way:<20} {found['peak']:6.0f} MB, at once: {', '.join(found['at once'])}", flush=True)
    largest = max(peaks[way] for way in alone)
    together, staged = peaks["everything resident"] / largest, peaks["staged"] / largest
    print(f"of the largest model alone: everything resident {together:.2f}, staged {staged:.2f}")
    return int(staged > LIMIT and not options.shipped)


if __name__ == "__main__":
    sys.exit(main())
