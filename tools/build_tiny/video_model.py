"""Trains the tiny video model: a WanPipeline that has read only complete canonical captions.

Text encoder and transformer are trained together by flow matching on the latents of the autoencoder. A
fifth of the batches are single frames with captions of images. The second video model is a LoRA adapter of
the first, trained on captions written as tags.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict
from tokenizers.processors import TemplateProcessing
from torch import nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from build_tiny.corpus import example
from build_tiny.data import HELD_OUT, clips, latents
from build_tiny.language_model import train_tokenizer
from build_tiny.optim import Schedule
from build_tiny.run import Progress
from promptreel.tiny.wording import caption

TOKENS = 48
"""Tokens of a prompt that the pipeline reads (``max_sequence_length`` in the profile)."""
STEPS, BATCH = 3600, 32
TAG_STEPS, TAG_RANK = 2000, 32
IMAGES = 0.2
"""Share of batches that are single frames."""
EMPTY = 0.1
"""Share of captions left empty, for classifier-free guidance."""
SHIFT = 2.0
"""Of the noise levels, in training and sampling alike."""
AVERAGE = 0.999
"""Decay of the averaged weights, which are the ones shipped."""


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Knows every word of the world, also those that no caption has: they stay untrained."""
    rng = np.random.default_rng([seed, 3])
    texts = [text for _ in range(20000) for drawn in [example(rng)] for text in (drawn.answer,)]
    tokenizer = train_tokenizer(texts, ["<pad>", "</s>"], 1024)
    tokenizer.post_processor = TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", tokenizer.token_to_id("</s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=TOKENS
    )


def build_pipeline(vae: AutoencoderKLWan, seed: int) -> WanPipeline:
    tokenizer = build_tokenizer(seed)
    encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(tokenizer), d_model=128, d_kv=32, d_ff=256, num_layers=2, num_heads=4,
            dropout_rate=0.0, feed_forward_proj="gated-gelu", pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )  # fmt: skip
    channels = vae.config.z_dim
    transformer = WanTransformer3DModel(
        patch_size=(1, 1, 1), num_attention_heads=4, attention_head_dim=48, in_channels=channels,
        out_channels=channels, text_dim=128, freq_dim=128, ffn_dim=640, num_layers=5,
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(shift=SHIFT)
    return WanPipeline(tokenizer, encoder, vae, scheduler, transformer)


def normalised(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Latents as the pipeline gives them to the transformer."""
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    return (latents - mean) / std


def train(vae_path: Path, work: Path, out: Path, seed: int, steps: int = STEPS) -> dict[str, float]:
    """Train from scratch into ``out``; an interrupted training goes on from its last checkpoint."""
    torch.manual_seed(seed)
    vae = AutoencoderKLWan.from_pretrained(vae_path)
    pipeline = build_pipeline(vae, seed)
    model = nn.ModuleDict({"encoder": pipeline.text_encoder, "transformer": pipeline.transformer})
    averaged = torch.optim.swa_utils.AveragedModel(
        model, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE), use_buffers=False
    )
    schedule = Schedule(
        [pipeline.text_encoder, pipeline.transformer], steps, muon=0.01, adam=2e-3,
        outer=("shared", "embed_tokens", "patch_embedding", "proj_out", "relative"),
    )  # fmt: skip
    progress = Progress(out, nn.ModuleList([model, averaged]), schedule, steps, every=250)
    flow_matching(pipeline, work, progress, seed, "sentences", lambda: averaged.update_parameters(model))
    model.load_state_dict(averaged.module.state_dict())
    pipeline.to(torch.bfloat16).save_pretrained(out)
    return {
        "parameters": sum(w.numel() for part in (model, vae) for w in part.parameters()),
        **progress.summary(),
    }


def train_tags(video: Path, work: Path, out: Path, seed: int, steps: int = TAG_STEPS) -> dict[str, float]:
    """Fine-tune the transformer of a trained pipeline on captions written as tags; a LoRA adapter in ``out``."""
    torch.manual_seed(seed)
    pipeline = WanPipeline.from_pretrained(video, dtype=torch.float32)
    pipeline.text_encoder.requires_grad_(False)
    pipeline.transformer.requires_grad_(False)
    targets = ["text_embedder.linear_1", "text_embedder.linear_2", "to_q", "to_k", "to_v", "to_out.0"]
    targets += ["ffn.net.0.proj", "ffn.net.2"]
    pipeline.transformer.add_adapter(LoraConfig(r=TAG_RANK, lora_alpha=TAG_RANK, target_modules=targets))
    adapter = nn.ParameterList([w for w in pipeline.transformer.parameters() if w.requires_grad])
    schedule = Schedule([adapter], steps, muon=None, adam=2e-3)
    progress = Progress(out, adapter, schedule, steps, every=250)
    flow_matching(pipeline, work, progress, seed, "tags")
    layers = {name: weight.bfloat16() for name, weight in get_peft_model_state_dict(pipeline.transformer).items()}
    WanPipeline.save_lora_weights(out, transformer_lora_layers=layers)
    return {"parameters": sum(weight.numel() for weight in adapter), **progress.summary()}


def flow_matching(
    pipeline: WanPipeline,
    work: Path,
    progress: Progress,
    seed: int,
    style: str,
    after_step: Callable[[], None] = lambda: None,
) -> None:
    """The training loop: predict noise minus latents at a random noise level, from the caption."""
    _, scenes = clips(work, seed)
    videos, images = (normalised(pipeline.vae, part) for part in latents(pipeline.vae, work, seed))
    trainable = len(videos) - HELD_OUT
    for step in progress:
        rng = np.random.default_rng([seed, 4, step])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        still = rng.random() < IMAGES
        index = rng.integers(0, trainable, BATCH)
        clean = (images if still else videos)[index].float()
        texts = ["" if rng.random() < EMPTY else caption(scenes[i], style, still=still) for i in index]
        noise = torch.randn(clean.shape, generator=generator)
        level = torch.sigmoid(torch.randn(BATCH, generator=generator))
        level = SHIFT * level / (1 + (SHIFT - 1) * level)
        mixed = level.view(-1, 1, 1, 1, 1)
        embeds = pipeline._get_t5_prompt_embeds(texts, max_sequence_length=TOKENS)
        predicted = pipeline.transformer((1 - mixed) * clean + mixed * noise, level * 1000, embeds).sample
        loss = ((predicted - (noise - clean)) ** 2).mean()
        loss.backward()
        progress.schedule.step()
        after_step()
        progress.log(loss=loss.item())
