"""Trains the alignment reward: a tiny X-CLIP that tells a true description from one with a fact flipped.

Contrastive training on whole captions alone learns a bag of facts, so each clip meets descriptions of
itself with one fact changed beside the descriptions of the other clips. Both towers also name the facts,
through heads that are thrown away: without them neither learns anything for hundreds of steps. Half of the
clips have gone through the autoencoder, as everything does that the video models render.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import (
    PreTrainedTokenizerFast,
    VideoMAEImageProcessorPil,
    XCLIPConfig,
    XCLIPModel,
    XCLIPProcessor,
    XCLIPTextConfig,
    XCLIPVisionConfig,
)

from build_tiny.corpus import random_query
from build_tiny.data import HELD_OUT, clips, latents
from build_tiny.language_model import train_tokenizer
from build_tiny.optim import Schedule
from build_tiny.run import Progress
from build_tiny.styles import random_style, write
from promptreel import media
from promptreel.tiny.wording import STATABLE, caption, typed
from promptreel.tiny.world import SIZE, VALUES, Scene

FRAMES = 8
LONGEST = 64
"""Tokens of a description."""
STEPS, BATCH, NEGATIVES = 3800, 32, 3
NAMING = 2.0
"""Weight of naming the facts beside telling descriptions apart."""
DECODED = 8000
"""Clips that are also seen as the autoencoder gives them back."""


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    rng = np.random.default_rng([seed, 5])
    texts = []
    for _ in range(15000):
        query, facts, _ = random_query(rng)
        texts += [query, write(facts, random_style(rng), rng)]
    tokenizer = train_tokenizer(texts, ["<pad>"], 1023)
    # X-CLIP pools at the token with the highest id, which must therefore be the end.
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.post_processor = TemplateProcessing(
        single="$A <end>", special_tokens=[("<end>", tokenizer.token_to_id("<end>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>", model_max_length=LONGEST
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> XCLIPModel:
    width, heads = 128, 4
    text = XCLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=3 * width, num_hidden_layers=2,
        num_attention_heads=heads, max_position_embeddings=LONGEST, pad_token_id=0, bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    vision = XCLIPVisionConfig(
        hidden_size=width, intermediate_size=3 * width, num_hidden_layers=4, num_attention_heads=heads,
        mit_hidden_size=width, mit_intermediate_size=3 * width, mit_num_hidden_layers=1,
        mit_num_attention_heads=heads, image_size=SIZE, patch_size=16, num_frames=FRAMES,
    )  # fmt: skip
    return XCLIPModel(
        XCLIPConfig(
            text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=width, prompt_layers=1,
            prompt_num_attention_heads=heads,
        )
    )  # fmt: skip


def describe(scene: Scene, rng: np.random.Generator) -> tuple[str, dict[str, str], list[tuple[str, dict]]]:
    """A true description, the facts it states, and descriptions with one of them flipped."""
    kind = rng.choice(["sentences", "tags", "common", "rare"], p=[0.2, 0.1, 0.4, 0.3])
    seed = int(rng.integers(2**31))

    def say(facts: dict[str, str]) -> str:
        # The same seed words the flipped fact in the same way: only the fact differs.
        if kind in ("sentences", "tags"):
            return caption(Scene(**{"speed": None, **facts}), str(kind))
        return typed(facts, str(kind), np.random.default_rng(seed))

    facts = dict(scene.facts)
    if kind in ("common", "rare"):
        others = [name for name in STATABLE if name in facts and name not in ("shape", "speed")]
        kept = set(rng.permutation(others)[: int(rng.integers(0, 4))]) | {"shape"}
        if "motion" in kept and rng.random() < 0.5:
            kept.add("speed")
        facts = {name: facts[name] for name in STATABLE if name in kept and name in facts}
    flipped = [flip(facts, str(name), rng) for name in rng.permutation(list(facts))[:NEGATIVES]]
    return say(facts), facts, [(say(wrong), wrong) for wrong in flipped]


def flip(facts: dict[str, str], name: str, rng: np.random.Generator) -> dict[str, str]:
    """The facts with one of them changed to another value."""
    others = [value for value in VALUES[name] if value != facts[name]]
    if name == "motion" and "speed" in facts:
        others.remove("still")
    wrong = {**facts, name: str(rng.choice(others))}
    if name == "motion" and facts[name] == "still" and "quality" in facts:
        wrong["speed"] = str(rng.choice(VALUES["speed"]))  # a complete caption needs one
    return wrong


def pixels(frames: np.ndarray) -> torch.Tensor:
    """Frames ``(B, 9, H, W, 3)`` uint8 as the processor gives them: ``(B, 8, 3, H, W)`` in -1..1."""
    chosen = np.stack([media.sample(clip, FRAMES) for clip in frames])
    return torch.from_numpy(chosen).permute(0, 1, 4, 2, 3).float() / 127.5 - 1


@torch.no_grad()
def decoded(vae_path: Path, work: Path, seed: int) -> np.ndarray:
    """The first clips as the autoencoder gives them back, ``(DECODED, 9, 64, 64, 3)`` uint8; made on first use."""
    path = work / "decoded.npy"
    if not path.exists():
        vae = AutoencoderKLWan.from_pretrained(vae_path)
        videos, _ = latents(vae, work, seed)
        parts = []
        for at in range(0, DECODED, 40):
            back = vae.decode(videos[at : at + 40].float()).sample.permute(0, 2, 3, 4, 1)
            parts.append(((back + 1) * 127.5).round().clamp(0, 255).byte().numpy())
        np.save(work / "decoded.part.npy", np.concatenate(parts))
        (work / "decoded.part.npy").replace(path)
    return np.load(path, mmap_mode="r")


class Heads(nn.Module):
    """Names the facts that a tower has seen; the last value of every attribute is "not said"."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(width, len(values) + 1) for name, values in VALUES.items()})

    def forward(self, features: torch.Tensor, facts: list[dict[str, str]]) -> torch.Tensor:
        """The cross-entropy of naming the facts of each row of ``features``."""
        losses = []
        for name, layer in self.layers.items():
            values = VALUES[name]
            truth = torch.tensor([values.index(row[name]) if name in row else len(values) for row in facts])
            losses.append(nn.functional.cross_entropy(layer(features), truth))
        return torch.stack(losses).mean()


def train(vae_path: Path, work: Path, out: Path, seed: int, steps: int = STEPS) -> dict[str, float]:
    torch.manual_seed(seed)
    data, scenes = clips(work, seed)
    back = decoded(vae_path, work, seed)
    tokenizer = build_tokenizer(seed)
    model = build_model(tokenizer)
    heads = nn.ModuleList([Heads(model.config.projection_dim), Heads(model.config.text_config.hidden_size)])
    schedule = Schedule([model, heads], steps, muon=0.02, adam=1e-3, outer=("embed", "position", "class"))
    progress = Progress(out, nn.ModuleList([model, heads]), schedule, steps)
    for step in progress:
        rng = np.random.default_rng([seed, 6, step])
        index = rng.integers(0, len(data) - HELD_OUT, BATCH)
        through = rng.random(BATCH) < 0.5
        index = np.where(through, index % DECODED, index)
        seen = [back[i] if decoded_one else data[i] for i, decoded_one in zip(index, through, strict=True)]
        described = [describe(scenes[i], rng) for i in index]
        texts = [(text, facts) for text, facts, _ in described]
        texts += [wrong for _, _, flipped in described for wrong in flipped]
        true = torch.tensor(
            [[all(scenes[i].facts.get(n) == v for n, v in facts.items()) for _, facts in texts] for i in index]
        )
        tokens = tokenizer([t for t, _ in texts], return_tensors="pt", padding=True, truncation=True)
        outputs = model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"],
            pixel_values=pixels(np.stack(seen)),
        )  # fmt: skip
        logits = outputs.logits_per_video
        own = torch.arange(BATCH)
        # Other true descriptions of a clip are not held against it.
        others = true.clone()
        others[own, own] = False
        loss = nn.functional.cross_entropy(logits.masked_fill(others, -torch.inf), own)
        named = heads[0](outputs.video_embeds, [scenes[i].facts for i in index])
        named = named + heads[1](outputs.text_model_output.pooler_output, [facts for _, facts in texts])
        (loss + NAMING * named).backward()
        schedule.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=4.0)
        progress.log(loss=loss.item(), named=named.item())
    model.to(torch.bfloat16).save_pretrained(out)
    processor = XCLIPProcessor(
        VideoMAEImageProcessorPil(
            do_resize=False, do_center_crop=False, size={"height": SIZE, "width": SIZE},
            image_mean=[0.5] * 3, image_std=[0.5] * 3,
        ),
        tokenizer,
    )  # fmt: skip
    processor.save_pretrained(out)
    return {"parameters": sum(weight.numel() for weight in model.parameters()), **progress.summary()}
