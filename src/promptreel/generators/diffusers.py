"""Text-to-video and text-to-image models in this process, through diffusers and a profile."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import diffusers
import numpy as np
import torch

from promptreel import profiles
from promptreel.errors import RenderError, UserError
from promptreel.store.files import fingerprint
from promptreel.types import Clip, Failure, RenderRequest


class DiffusersGenerator:
    """Any pipeline of diffusers that has a profile.

    Options other than those of the machine (``device``, ``dtype``, ``batch_size``) override the profile:
    ``model`` and ``adapter``, ``steps``, ``guidance``, ``frames``, ``height``, ``width``, and ``call`` with
    further arguments of the pipeline's call.

    Every request's noise comes from its own generator, seeded on the CPU, so that requests with equal seeds
    share it whatever the batch and the device.
    """

    def __init__(
        self,
        profile: str,
        batch_size: int = 1,
        device: str | None = None,
        dtype: str = "auto",
        model: str | None = None,
        adapter: str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        call: dict[str, Any] | None = None,
    ) -> None:
        known = profiles.load(profile)
        self.profile = known
        self.batch_size = batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = dtype
        self.model, self.adapter = model or known.model, adapter or known.adapter
        self.call: dict[str, Any] = {
            "height": height or known.height,
            "width": width or known.width,
            "num_inference_steps": steps or known.steps,
            "guidance_scale": known.guidance if guidance is None else guidance,
            **known.call,
            **(call or {}),
        }
        self.frames = frames or known.frames
        if known.frames > 1:
            self.call["num_frames"] = self.frames
        self.fingerprint = fingerprint(
            "diffusers", self.model, self.adapter, pipeline=known.pipeline, dtype=dtype, **self.call
        )

    @cached_property
    def _pipeline(self) -> Any:
        # Half precision is emulated, and slow, on most processors.
        on_cpu = torch.float32 if self.device == "cpu" else torch.bfloat16
        dtype = on_cpu if self.dtype == "auto" else getattr(torch, self.dtype)
        pipeline_class = getattr(diffusers, self.profile.pipeline)
        pipeline = pipeline_class.from_pretrained(self.model, dtype=dtype, use_safetensors=True)
        if self.adapter:
            pipeline.load_lora_weights(self.adapter)
            pipeline.fuse_lora()
        pipeline.set_progress_bar_config(disable=True)
        return pipeline.to(self.device)

    def render(self, requests: Sequence[RenderRequest]) -> list[Clip | Failure]:
        pipeline = self._pipeline
        arguments = dict(self.call)
        if self.profile.negative_prompt is not None:
            arguments["negative_prompt"] = [r.negative or self.profile.negative_prompt or "" for r in requests]
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
        texts = [request.prompt for request in requests]
        try:
            output = pipeline(prompt=texts, generator=generators, output_type="np", **arguments)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.profile.pipeline} refuses what it is called with: {error}") from error
        except (RuntimeError, MemoryError) as error:
            torch.cuda.empty_cache()
            raise RenderError(f"{type(error).__name__}: {error}", _reason(error)) from error
        media = output.frames if hasattr(output, "frames") else np.asarray(output.images)[:, None]
        clips: list[Clip | Failure] = []
        for request, frames in zip(requests, media, strict=True):
            if not np.isfinite(frames).all():
                clips.append(Failure("render", "the frames have values that are not numbers"))
                continue
            pixels = (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)
            clips.append(Clip(request.clip_id(self.fingerprint), pixels, self.profile.fps))
        return clips


def _reason(error: BaseException) -> str:
    """Whether a render failed for want of memory, which torch on the CPU says only in words."""
    words = str(error).lower()
    short = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return "memory" if short or "out of memory" in words or "can't allocate memory" in words else "render"
