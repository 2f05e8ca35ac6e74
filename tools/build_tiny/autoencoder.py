"""Trains the autoencoder of the tiny video models: 16 times smaller in space, 4 times in time.

First on single frames, which are cheap: the layers of time start as if every frame stood alone. Then on
clips, most of them five frames long, which exercise everything that nine do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLWan
from diffusers.models.autoencoders import autoencoder_kl_wan as wan

from build_tiny.data import HELD_OUT, clips
from build_tiny.optim import Schedule
from build_tiny.run import Progress
from promptreel.tiny.world import Scene, backdrop

CHANNELS = 64
PATCH = 4
IMAGE_STEPS, IMAGE_BATCH = 2500, 32
CLIP_STEPS, CLIP_BATCH = 5300, 8
ON_SHAPE, POOR = 5.0, 0.3
"""Weights of a pixel on or beside the shape, and of one of a poor clip, where others count 1: a star differs from a
cross in a few pixels, and the grain of a poor clip cannot be learned."""
SLOPES, SPREAD = 0.7, 1e-3
"""Weights, beside the mean absolute error, of the error of the slopes and of the Kullback-Leibler term."""


def build() -> AutoencoderKLWan:
    vae = AutoencoderKLWan(
        base_dim=32, z_dim=CHANNELS, dim_mult=[1, 2, 2], num_res_blocks=1, temperal_downsample=[True, True],
        is_residual=True, patch_size=PATCH, in_channels=3 * PATCH**2, out_channels=3 * PATCH**2,
        latents_mean=[0.0] * CHANNELS, latents_std=[1.0] * CHANNELS,
        scale_factor_temporal=4, scale_factor_spatial=16,
    )  # fmt: skip
    with torch.no_grad():
        # A wide posterior would drown what the latents say before they say anything.
        vae.quant_conv.weight[CHANNELS:] = 0
        vae.quant_conv.bias[CHANNELS:] = -5
        for layer in vae.modules():
            if isinstance(layer, wan.WanResidualBlock):
                layer.conv2.weight.zero_()
            elif isinstance(layer, wan.WanAttentionBlock):
                layer.proj.weight.zero_()
        for layer in vae.modules():
            if isinstance(layer, wan.WanCausalConv3d) and layer.kernel_size[0] == 3:
                layer.weight[:, :, :2] = 0  # the present frame only
        for layer in vae.modules():
            if isinstance(layer, wan.WanResample) and hasattr(layer, "time_conv"):
                _start_as_identity(layer)
    return vae


def _start_as_identity(layer: wan.WanResample) -> None:
    """Halving time starts as the mean of two frames, doubling it as each frame twice."""
    weight, own = layer.time_conv.weight, range(layer.dim)
    weight.zero_()
    layer.time_conv.bias.zero_()
    if layer.mode == "downsample3d":
        weight[own, own, 1] = weight[own, own, 2] = 0.5
    else:
        weight[own, own, 2] = 1
        weight[[layer.dim + i for i in own], own, 2] = 1


class _FlatConvolutions:
    """While open, a single frame is convolved in two dimensions: the same numbers, three times faster."""

    def __enter__(self) -> None:
        self.usual = usual = wan.WanCausalConv3d.forward

        def forward(layer, x, cache_x=None):
            if cache_x is not None or x.shape[2] != 1 or layer.stride[0] != 1:
                return usual(layer, x, cache_x)
            pad = layer._padding
            return F.conv2d(x.squeeze(2), layer.weight[:, :, -1], layer.bias, padding=(pad[2], pad[0])).unsqueeze(2)

        wan.WanCausalConv3d.forward = forward

    def __exit__(self, *_: object) -> None:
        wan.WanCausalConv3d.forward = self.usual


def reconstruct(vae: AutoencoderKLWan, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return reconstructed pixels ``(B, 3, T, H, W)`` in -1..1, unclamped so that gradients flow, and the KL."""
    posterior = vae.encode(pixels).latent_dist
    vae.clear_cache()
    latents = vae.post_quant_conv(posterior.sample())
    parts = []
    for index in range(latents.shape[2]):
        vae._conv_idx = [0]
        parts.append(
            vae.decoder(
                latents[:, :, index : index + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx,
                first_chunk=index == 0,
            )
        )  # fmt: skip
    vae.clear_cache()
    spread = 0.5 * (posterior.mean**2 + posterior.var - 1 - posterior.logvar).mean()
    return wan.unpatchify(torch.cat(parts, 2), PATCH), spread


def _weights(pixels: torch.Tensor, scenes: list[Scene]) -> torch.Tensor:
    """Return the weight of each pixel, ``(B, 1, T, H, W)``; 1 is a background pixel of a sharp clip."""
    behind = np.stack([backdrop(scene.background, scene.pattern) for scene in scenes]) / 127.5 - 1
    away = (pixels - torch.from_numpy(behind).float().permute(0, 3, 1, 2)[:, :, None]).abs().sum(1, keepdim=True)
    near = F.max_pool3d((away > 0.5).float(), (1, 5, 5), stride=1, padding=(0, 2, 2))
    sharp = torch.tensor([scene.quality == "sharp" for scene in scenes]).view(-1, 1, 1, 1, 1)
    return torch.where(sharp, 1 + (ON_SHAPE - 1) * near, POOR)


def _loss(vae: AutoencoderKLWan, pixels: torch.Tensor, scenes: list[Scene]) -> tuple[torch.Tensor, float]:
    back, spread = reconstruct(vae, pixels)
    error, weight = back - pixels, _weights(pixels, scenes)
    wide, high = weight[..., 1:], weight[..., 1:, :]
    slopes = (wide * error.diff(dim=-1).abs()).mean() + (high * error.diff(dim=-2).abs()).mean()
    absolute = (weight * error.abs()).mean()
    return absolute + 2 * (weight * error**2).mean() + SLOPES * slopes + SPREAD * spread, absolute.item()


def train(work: Path, out: Path, seed: int) -> dict[str, float]:
    """Train from scratch into ``out``; an interrupted training goes on from its last checkpoint."""
    torch.manual_seed(seed)
    data, scenes = clips(work, seed)
    trainable = len(data) - HELD_OUT
    vae = build()
    for layer in vae.modules():
        if isinstance(layer, torch.nn.Conv3d):
            layer.to(memory_format=torch.channels_last_3d)
    outer = ("conv_in", "conv_out")

    def phase(name: str, steps: int, muon: float, adam: float, batch) -> dict[str, float]:
        schedule = Schedule([vae], steps, muon=muon, adam=adam, outer=outer)
        progress = Progress(out / name, vae, schedule, steps)
        for step in progress:
            rng = np.random.default_rng([seed, 7, step])
            torch.manual_seed(int(rng.integers(2**62)))
            index, frames = batch(rng, step)
            pixels = torch.tensor(frames).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            loss, absolute = _loss(vae, pixels, [scenes[i] for i in index])
            loss.backward()
            schedule.step()
            progress.log(error=absolute, loss=loss.item())
        return progress.summary()

    def images(rng: np.random.Generator, step: int) -> tuple[np.ndarray, np.ndarray]:
        index = rng.integers(0, trainable, IMAGE_BATCH)
        return index, data[index, rng.integers(0, data.shape[1], IMAGE_BATCH)][:, None]

    def videos(rng: np.random.Generator, step: int) -> tuple[np.ndarray, np.ndarray]:
        index = np.sort(rng.integers(0, trainable, CLIP_BATCH))
        if step % 3 == 0:
            return index, data[index]
        start = int(rng.integers(0, data.shape[1] - 4))
        return index, data[index, start : start + 5]

    with _FlatConvolutions():
        first = phase("images", IMAGE_STEPS, 0.012, 3e-3, images)
    second = phase("clips", CLIP_STEPS, 0.012, 2e-3, videos)
    _normalise(vae, data[:500])
    vae.to(torch.bfloat16).save_pretrained(out)
    return {
        "parameters": sum(weight.numel() for weight in vae.parameters()),
        "steps": first["steps"] + second["steps"],
        "seconds": first["seconds"] + second["seconds"],
        "error": second["error"],
    }


@torch.no_grad()
def _normalise(vae: AutoencoderKLWan, data: np.ndarray) -> None:
    """Record the mean and spread of every latent channel, by which pipelines normalise them."""
    latents = torch.cat(
        [
            vae.encode(
                torch.from_numpy(data[at : at + 50]).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            ).latent_dist.mode()
            for at in range(0, len(data), 50)
        ]
    )
    vae.register_to_config(
        latents_mean=latents.mean((0, 2, 3, 4)).tolist(), latents_std=latents.std((0, 2, 3, 4)).tolist()
    )
