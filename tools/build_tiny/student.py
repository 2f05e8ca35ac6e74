"""The packaged student: the last student of the tiny recipe, as one adapter of the base model."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from promptreel.config import load_recipe
from promptreel.package_files import locate
from promptreel.pipeline import run

RANK = 48
"""Of the adapter: SFT and two rounds of DPO, each of rank 16, add up to at most this."""

LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def forget_places(directory: Path) -> None:
    """Remove the paths of this machine from configurations."""
    for path in directory.rglob("*config.json"):
        kept = {key: value for key, value in json.loads(path.read_text()).items() if "name_or_path" not in key}
        path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n")


def train(directory: Path, out: Path) -> dict[str, float]:
    """Run the tiny recipe up to its last training stage and write the student's adapter into ``out``."""
    last = load_recipe("tiny")[0].trained()[-1]
    summary = run("tiny", directory, until=last)
    error = extract(locate("package:promptreel.tiny/weights/base"), directory / "models" / last, out)
    return {"error": error, "seconds": sum(summary.seconds.values())}


@torch.no_grad()
def extract(base: str, trained: Path, out: Path) -> float:
    """Write the difference of two models as a LoRA adapter; return the largest error of a weight."""
    before = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    after = AutoModelForCausalLM.from_pretrained(trained, dtype=torch.float32)
    config = LoraConfig(r=RANK, lora_alpha=RANK, target_modules=LAYERS, task_type="CAUSAL_LM")
    adapted = get_peft_model(before, config)
    worst = 0.0
    for name, layer in adapted.named_modules():
        if not hasattr(layer, "lora_A"):
            continue
        target = after.get_submodule(name.removeprefix("base_model.model."))
        change = target.weight - layer.base_layer.weight
        left, strengths, right = torch.linalg.svd(change, full_matrices=False)
        root = strengths[:RANK].sqrt()
        layer.lora_B["default"].weight.copy_(left[:, :RANK] * root)
        layer.lora_A["default"].weight.copy_(root[:, None] * right[:RANK])
        approximation = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        worst = max(worst, (approximation - change).abs().max().item())
    adapted.to(torch.bfloat16).save_pretrained(out)
    (out / "README.md").unlink(missing_ok=True)
    forget_places(out)
    return worst
