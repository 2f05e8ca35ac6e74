"""Real checkpoints of every pipeline class that a profile names, as small as their configurations allow.

Weights are random, tokenizers are trained here on a page of text. Everything is saved by ``save_pretrained``, so that
tests load it as users load the published models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tiny_encoders import (
    LLM,
    WIDTH,
    clip_encoder,
    clip_tokenizer,
    llama_tokenizer,
    qwen_tokenizer,
    t5_encoder,
    t5_tokenizer,
)


def image_vae() -> Any:
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 2, "up_block_types": ["UpDecoderBlock2D"] * 2}
    return diffusers.AutoencoderKL(
        **blocks, block_out_channels=(8, 16), latent_channels=4, norm_num_groups=2, shift_factor=0.1
    )


def cogvideox(scheduler: str = "CogVideoXDDIMScheduler", **transformer: Any) -> Any:
    tokenizer = t5_tokenizer()
    return diffusers.CogVideoXPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=diffusers.AutoencoderKLCogVideoX(
            down_block_types=["CogVideoXDownBlock3D"] * 4,
            up_block_types=["CogVideoXUpBlock3D"] * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
        ),
        transformer=diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=16,
            in_channels=4,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=WIDTH,
            num_layers=1,
            sample_width=4,
            sample_height=4,
            sample_frames=9,
            **transformer,
        ),
        scheduler=getattr(diffusers, scheduler)(),
    )


def cogvideox_5b() -> Any:
    return cogvideox("CogVideoXDPMScheduler", use_rotary_positional_embeddings=True)


def cogvideox_15() -> Any:
    rope = {"use_rotary_positional_embeddings": True, "patch_size_t": 2, "patch_bias": False}
    return cogvideox("CogVideoXDPMScheduler", **rope)


def wan(second: bool = False, vae: dict[str, Any] | None = None, **options: Any) -> Any:
    tokenizer = t5_tokenizer()
    vae = vae or {"base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1}
    channels = vae["z_dim"]

    def transformer() -> Any:
        return diffusers.WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=channels,
            out_channels=channels,
            text_dim=WIDTH,
            freq_dim=16,
            ffn_dim=32,
            num_layers=1,
            rope_max_seq_len=32,
        )

    return diffusers.WanPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer, "UMT5"),
        vae=diffusers.AutoencoderKLWan(**vae),
        transformer=transformer(),
        transformer_2=transformer() if second else None,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        **options,
    )


def wan_a14b() -> Any:
    return wan(second=True, boundary_ratio=0.875)


def wan_5b() -> Any:
    vae = {
        "base_dim": 4,
        "decoder_base_dim": 4,
        "z_dim": 8,
        "dim_mult": [1, 1, 1, 1],
        "num_res_blocks": 1,
        "latents_mean": [0.0] * 8,
        "latents_std": [1.0] * 8,
        "is_residual": True,
        "in_channels": 12,
        "out_channels": 12,
        "patch_size": 2,
        "scale_factor_spatial": 16,
    }
    return wan(vae=vae, expand_timesteps=True)


def ltx(timestep_conditioning: bool = False) -> Any:
    tokenizer = t5_tokenizer()
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        timestep_conditioning=timestep_conditioning,
    )
    vae.use_framewise_encoding = False
    vae.use_framewise_decoding = False
    return diffusers.LTXPipeline(
        tokenizer=tokenizer,
        text_encoder=t5_encoder(tokenizer),
        vae=vae,
        transformer=diffusers.LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=16,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=WIDTH,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )


def hunyuan_video() -> Any:
    tokenizer, tokenizer_2 = llama_tokenizer(), clip_tokenizer()
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, max_position_embeddings=2048, **LLM
    )
    return diffusers.HunyuanVideoPipeline(
        text_encoder=transformers.LlamaModel(config),
        tokenizer=tokenizer,
        text_encoder_2=clip_encoder(tokenizer_2, projection=False),
        tokenizer_2=tokenizer_2,
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4
        ),
        transformer=diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            rope_axes_dim=(2, 4, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )


def hunyuan_video_15() -> Any:
    tokenizer, tokenizer_2 = qwen_tokenizer(), transformers.ByT5Tokenizer()
    rope = {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    config = transformers.Qwen2_5_VLTextConfig(
        vocab_size=len(tokenizer), num_key_value_heads=2, rope_scaling=rope, max_position_embeddings=2048, **LLM
    )
    return diffusers.HunyuanVideo15Pipeline(
        text_encoder=transformers.Qwen2_5_VLTextModel(config),
        tokenizer=tokenizer,
        text_encoder_2=t5_encoder(tokenizer_2),
        tokenizer_2=tokenizer_2,
        vae=diffusers.AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(16, 16, 16, 16, 16), layers_per_block=1
        ),
        transformer=diffusers.HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=16,
            num_layers=1,
            num_refiner_layers=1,
            text_embed_dim=WIDTH,
            text_embed_2_dim=WIDTH,
            image_embed_dim=12,
            rope_axes_dim=(2, 6, 8),
            target_size=16,
            task_type="t2v",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        guider=diffusers.ClassifierFreeGuidance(guidance_scale=6.0),
    )


def sdxl() -> Any:
    tokenizers = [clip_tokenizer(), clip_tokenizer()]
    return diffusers.StableDiffusionXLPipeline(
        tokenizer=tokenizers[0],
        text_encoder=clip_encoder(tokenizers[0], projection=False),
        tokenizer_2=tokenizers[1],
        text_encoder_2=clip_encoder(tokenizers[1], projection=True),
        vae=image_vae(),
        unet=diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            layers_per_block=1,
            block_out_channels=(8, 16),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=2,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            transformer_layers_per_block=(1, 1),
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            cross_attention_dim=2 * WIDTH,
        ),
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1
        ),
    )


def sd3() -> Any:
    clips, t5 = [clip_tokenizer(), clip_tokenizer()], t5_tokenizer()
    return diffusers.StableDiffusion3Pipeline(
        tokenizer=clips[0],
        text_encoder=clip_encoder(clips[0], projection=True),
        tokenizer_2=clips[1],
        text_encoder_2=clip_encoder(clips[1], projection=True),
        tokenizer_3=t5,
        text_encoder_3=transformers.T5EncoderModel(
            transformers.T5Config(vocab_size=len(t5), d_model=2 * WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4)
        ),
        vae=image_vae(),
        transformer=diffusers.SD3Transformer2DModel(
            sample_size=32,
            patch_size=2,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            joint_attention_dim=2 * WIDTH,
            caption_projection_dim=32,
            pooled_projection_dim=2 * WIDTH,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def flux(guidance_embeds: bool = True) -> Any:
    clip, t5 = clip_tokenizer(), t5_tokenizer()
    return diffusers.FluxPipeline(
        tokenizer=clip,
        text_encoder=clip_encoder(clip, projection=False),
        tokenizer_2=t5,
        text_encoder_2=t5_encoder(t5),
        vae=image_vae(),
        transformer=diffusers.FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            pooled_projection_dim=WIDTH,
            guidance_embeds=guidance_embeds,
            axes_dims_rope=(4, 4, 8),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=guidance_embeds),
    )


def schnell() -> Any:
    return flux(guidance_embeds=False)


def qwen_image() -> Any:
    tokenizer = qwen_tokenizer()
    rope = {"type": "default", "rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
    text = {"vocab_size": len(tokenizer), "num_key_value_heads": 2, "rope_scaling": rope, **LLM}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
        "fullatt_block_indexes": [0],
    }
    config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision)
    return diffusers.QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=transformers.Qwen2_5_VLForConditionalGeneration(config),
        vae=diffusers.AutoencoderKLQwenImage(base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        transformer=diffusers.QwenImageTransformer2DModel(
            in_channels=64,
            out_channels=16,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=WIDTH,
            axes_dims_rope=(4, 6, 6),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.02),
    )


CHECKPOINTS: dict[str, Callable[[], Any]] = {
    "cogvideox-2b": cogvideox,
    "cogvideox-5b": cogvideox_5b,
    "cogvideox1.5-5b": cogvideox_15,
    "wan2.1-1.3b": wan,
    "wan2.1-14b": wan,
    "wan2.2-5b": wan_5b,
    "wan2.2-a14b": wan_a14b,
    "ltx-video": ltx,
    "hunyuanvideo": hunyuan_video,
    "hunyuanvideo-1.5": hunyuan_video_15,
    "sdxl": sdxl,
    "sd3.5-medium": sd3,
    "sd3.5-large": sd3,
    "flux.1-dev": flux,
    "flux.1-schnell": schnell,
    "qwen-image": qwen_image,
}
"""Profile to the function that makes a small pipeline of its class."""


def build(profile: str, to: Path) -> Path:
    """Save a checkpoint of the pipeline class of a profile, as small as possible, and return its directory."""
    return save(CHECKPOINTS[profile], to)


def save(make: Callable[[], Any], to: Path) -> Path:
    """Save the pipeline that ``make`` returns, with fixed random weights, and return its directory."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        pipeline = make()
        for parameter in _last_convolution(pipeline.vae.decoder.parameters()):
            parameter.data.mul_(3)  # random decoders give grey: spread the values over the range
        pipeline.save_pretrained(to)
    return to


def _last_convolution(parameters: Iterable[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    """Return the last of the parameters with four or more dimensions, as a list of one or none."""
    return [parameter for parameter in parameters if parameter.dim() > 3][-1:]


def prefix_length(tokenizer: Any) -> int:
    """Count the tokens of HunyuanVideo's instruction before the prompt, which its pipeline takes to be 95."""
    return len(tokenizer(DEFAULT_PROMPT_TEMPLATE["template"].partition("{}")[0]).input_ids)
