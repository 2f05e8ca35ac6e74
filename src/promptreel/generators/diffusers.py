"""Text-to-video and text-to-image models in this process, through diffusers and a profile."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import diffusers
import numpy as np
import torch
from pydantic import ValidationError

from promptreel import profiles
from promptreel.errors import PromptreelError, RecipeError, RunError, UserError, did_you_mean
from promptreel.faults import classified, one_line, out_of_memory
from promptreel.fingerprint import fingerprint
from promptreel.profiles import Adapter, Profile
from promptreel.types import Clip, Failure, RenderRequest

REWRITERS = {
    "enable_prompt_enhancement": False,  # LTX-2
    "complex_human_instruction": None,  # SANA and SANA-Video, on by default
    "prompt_upsampling": False,  # Ideogram 4
    "caption_upsample_temperature": None,  # FLUX.2
}
"""Arguments by which pipelines rewrite prompts themselves, each with the value that switches it off."""
ON_STEP = "callback_on_step_end"
OWN = ("prompt", "negative_prompt", "generator", "output_type", "return_dict", "num_frames", "height", "width", ON_STEP)
"""Arguments of a pipeline's call that ``call`` cannot set, since requests and other options do."""
OFFLOAD = ("none", "model", "sequential")


class DiffusersGenerator:
    """Any pipeline of diffusers that has a profile.

    The options override the profile:

    - ``variant`` names one of the profile's variants.
    - ``model`` and ``revision``, ``steps``, ``guidance``, ``frames``, ``offload``, ``tiling``, ``slicing``, ``compile``
      and ``batch_size`` replace its values. Offloading does nothing on a CPU.
    - ``dtype`` is a torch dtype by name, or a table of them by component. ``auto`` is the profile's on a GPU, and
      float32 on a CPU.
    - ``height`` and ``width``, in pixels, hold for every request, whatever its aspect ratio.
    - ``scheduler`` and ``call`` are added to its tables, and ``adapters`` (paths, hub ids, or tables as in a profile)
      to its adapters.
    - ``device`` defaults to the first GPU, or the CPU.

    The noise of each request comes from a generator of its own, seeded on the CPU: requests with equal seeds share
    their noise in every batch and on every device.
    """

    def __init__(
        self,
        profile: str,
        variant: str | None = None,
        model: str | None = None,
        revision: str | None = None,
        adapters: Sequence[str | Mapping[str, Any]] = (),
        steps: int | None = None,
        guidance: float | None = None,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        scheduler: Mapping[str, Any] | None = None,
        call: Mapping[str, Any] | None = None,
        device: str | None = None,
        dtype: str | Mapping[str, str] = "auto",
        offload: str | None = None,
        tiling: bool | None = None,
        slicing: bool | None = None,
        compile: bool | None = None,
        batch_size: int | None = None,
    ) -> None:
        known = profiles.load(profile).variant(variant)
        self.profile = known
        self.batch_size = batch_size or known.batch_size
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = _dtypes(dtype, known, self.device)
        self.model = model or known.model
        self.revision = revision or (None if model else known.revision)
        self.adapters = (*known.adapters, *map(_adapter, adapters))
        self.scheduler = known.scheduler | dict(scheduler or {})
        self.offload = offload or known.offload
        self.tiling = known.tiling if tiling is None else tiling
        self.slicing = known.slicing if slicing is None else slicing
        self.compile = known.compile if compile is None else compile
        self.frames = frames or known.frames
        self.size = (width or known.width, height or known.height) if width or height else None
        self.guidance = known.guidance if guidance is None else guidance
        self.call: dict[str, Any] = {"num_inference_steps": steps or known.steps, **known.call, **(call or {})}
        if known.guidance_argument != "guider":
            self.call = {known.guidance_argument: self.guidance, **self.call}
        self.negative = known.negative_prompt
        if self.negative is None and self.call.get("true_cfg_scale", 1) > 1:
            self.negative = ""  # guidance-distilled pipelines need one to apply true_cfg_scale
        self._check(call or {})
        self.fingerprint = fingerprint(
            "diffusers",
            self.model,
            *(adapter.model for adapter in self.adapters),
            pipeline=known.pipeline,
            revision=self.revision,
            adapters=[[adapter.scale, adapter.load] for adapter in self.adapters] or None,
            scheduler=self.scheduler or None,
            dtype=self.dtype,
            guidance=self.guidance,
            size=self.size or [known.width, known.height, known.sizes],
            negative=self.negative,
            tiling=self.tiling or None,
            compile=self.compile or None,
            call=self.call,
        )

    def _check(self, given: Mapping[str, Any]) -> None:
        """Raise ``UserError`` for an option that the pipeline does not take, before anything is loaded."""
        name = self.profile.pipeline
        if name is None:
            raise RecipeError(f"diffusers has no pipeline for {self.profile.name}: name another generator")
        self._pipeline_class: Any = getattr(diffusers, name, None)
        if self._pipeline_class is None:
            raise UserError(f"diffusers {diffusers.__version__} has no {name}; a newer one may")
        takes = inspect.signature(self._pipeline_class.__call__).parameters
        self._reports_steps = ON_STEP in takes
        self.call = {key: off for key, off in REWRITERS.items() if key in takes} | self.call
        if "num_frames" in takes:  # a profile may have a video model render images
            self.call["num_frames"] = self.frames
        for argument in self.call:
            if argument not in takes:
                raise RecipeError(f"{name} takes no {argument!r} in its call{did_you_mean(argument, takes)}")
        for argument in OWN:
            if argument in given:
                raise RecipeError(f"call.{argument} is set by Promptreel; leave it out")
        if self.negative is not None and "negative_prompt" not in takes:
            raise RecipeError(f"{name} takes no negative prompt; leave it out of the profile {self.profile.name}")
        if self.profile.frames == 1 and self.frames != 1:
            raise RecipeError(f"{self.profile.name} renders images, not {self.frames} frames")
        if self.offload not in OFFLOAD:
            raise RecipeError(f"offload: no {self.offload!r}{did_you_mean(self.offload, OFFLOAD)}")
        if self.adapters and not hasattr(self._pipeline_class, "load_lora_weights"):
            raise RecipeError(f"{name} loads no adapters; leave them out")
        if not hasattr(diffusers, self.scheduler.get("name", "FlowMatchEulerDiscreteScheduler")):
            raise RecipeError(f"diffusers has no scheduler {self.scheduler['name']!r}")

    @cached_property
    def _pipeline(self) -> Any:
        """The loaded pipeline. Raises ``UserError`` or ``RunError``: a failure to load it is no fault of a request."""
        failed = f"cannot load {self.model} for {self.profile.name}"
        try:
            return self._load()
        except PromptreelError:
            raise
        except OSError as error:
            raise UserError(f"{failed}: {error}") from error
        except Exception as error:
            if out_of_memory(error):
                raise RunError(
                    f"{failed}: out of memory ({one_line(error)}); make room, offload it or load it smaller"
                ) from error
            raise RunError(f"{failed}: {one_line(error)}") from error

    def _load(self) -> Any:
        pipeline = self._pipeline_class.from_pretrained(
            self.model,
            revision=self.revision,
            dtype={name: getattr(torch, dtype) for name, dtype in self.dtype.items()},
            use_safetensors=True,
        )
        for number, adapter in enumerate(self.adapters):
            _fuse(pipeline, adapter, f"adapter{number}")
        if self.scheduler:
            changed = {key: value for key, value in self.scheduler.items() if key != "name"}
            kind = getattr(diffusers, self.scheduler.get("name", type(pipeline.scheduler).__name__))
            pipeline.scheduler = kind.from_config(pipeline.scheduler.config, **changed)
        if self.profile.guidance_argument == "guider":
            pipeline.guider = pipeline.guider.new(guidance_scale=self.guidance)
        if self.tiling:
            pipeline.vae.enable_tiling()
        if self.slicing:
            pipeline.vae.enable_slicing()
        if self.compile:
            for name in ("transformer", "transformer_2", "unet"):
                if getattr(pipeline, name, None) is not None:
                    getattr(pipeline, name).compile()
        pipeline.set_progress_bar_config(disable=True)
        if self.offload == "none" or self.device == "cpu":
            return pipeline.to(self.device)
        if self.offload == "model":
            pipeline.enable_model_cpu_offload(device=self.device)
        else:
            pipeline.enable_sequential_cpu_offload(device=self.device)
        return pipeline

    def render(
        self, requests: Sequence[RenderRequest], on_step: Callable[[int, int], None] | None = None
    ) -> list[Clip | Failure]:
        sizes = [self.size or self.profile.size(request.aspect) for request in requests]
        groups = list(dict.fromkeys(sizes))
        clips: dict[int, Clip | Failure] = {}
        for number, size in enumerate(groups):
            places = [place for place, own in enumerate(sizes) if own == size]
            steps = None
            if on_step and self._reports_steps:
                steps = _Steps(on_step, self.call["num_inference_steps"], number, len(groups))
            rendered = self._render([requests[place] for place in places], size, steps)
            clips.update(zip(places, rendered, strict=True))
        return [clips[place] for place in range(len(requests))]

    def _render(
        self, requests: Sequence[RenderRequest], size: tuple[int, int], steps: _Steps | None
    ) -> list[Clip | Failure]:
        """Return the clips of requests of one size (width, height)."""
        pipeline = self._pipeline
        arguments: dict[str, Any] = {"width": size[0], "height": size[1], **self.call}
        if self.negative is not None:
            arguments["negative_prompt"] = [request.negative or self.negative for request in requests]
        if steps:
            arguments[ON_STEP] = steps
        generators = [torch.Generator("cpu").manual_seed(request.seed) for request in requests]
        texts = [request.prompt for request in requests]
        try:
            with classified(self.model):
                output = self._call(pipeline, prompt=texts, generator=generators, output_type="np", **arguments)
        except PromptreelError:
            if steps and steps.error:
                raise steps.error from None
            raise
        media = output.frames if hasattr(output, "frames") else np.asarray(output.images)[:, None]
        clips: list[Clip | Failure] = []
        for request, frames in zip(requests, media, strict=True):
            if not np.isfinite(frames).all():
                clips.append(Failure("render", "the frames have values that are not numbers"))
                continue
            pixels = (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)
            clips.append(Clip(request.clip_id(self.fingerprint), pixels, self.profile.fps))
        return clips

    def _call(self, pipeline: Any, **arguments: Any) -> Any:
        try:
            return pipeline(**arguments)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.profile.pipeline} refuses what it is called with: {error}") from error
        except (RuntimeError, MemoryError):
            torch.cuda.empty_cache()  # a smaller batch may need the memory of this one
            raise


class _Steps:
    """A pipeline's ``callback_on_step_end`` that reports denoising steps, and changes nothing.

    Requests are rendered in groups of one size, one call after another: ``group`` is the number of this one, and
    ``groups`` the count of all. ``steps`` is the number of steps of a pipeline that does not tell its own. ``error`` is
    the exception that ``on_step`` raised, to cancel the render.
    """

    def __init__(self, on_step: Callable[[int, int], None], steps: int, group: int, groups: int) -> None:
        self.on_step, self.steps, self.group, self.groups = on_step, steps, group, groups
        self.error: BaseException | None = None

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        steps = int(getattr(pipeline, "num_timesteps", None) or self.steps)
        try:
            self.on_step(self.group * steps + step + 1, self.groups * steps)
        except BaseException as error:
            self.error = error
            raise
        return tensors


def _adapter(named: str | Mapping[str, Any]) -> Adapter:
    table = {"model": named} if isinstance(named, str) else named
    for key in table:
        if key not in Adapter.model_fields:
            raise RecipeError(f"an adapter has no {key!r}{did_you_mean(key, Adapter.model_fields)}")
    try:
        return Adapter.model_validate(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise RecipeError(f"adapter: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _fuse(pipeline: Any, adapter: Adapter, name: str) -> None:
    """Add an adapter's weights to those of the pipeline permanently."""
    pipeline.load_lora_weights(adapter.model, adapter_name=name, use_safetensors=True, **adapter.load)
    pipeline.fuse_lora(pipeline._lora_loadable_modules, lora_scale=adapter.scale, adapter_names=[name])
    pipeline.unload_lora_weights()


def _dtypes(asked: str | Mapping[str, str], profile: Profile, device: str) -> dict[str, str]:
    """Return the name of a dtype for each component, and as ``default`` for those without one."""
    if asked == "auto":  # half precision is emulated, and slow, on most processors
        asked = "float32" if device == "cpu" else profile.dtype
    found = {"default": asked} if isinstance(asked, str) else dict(asked)
    for name in found.values():
        if not isinstance(getattr(torch, name, None), torch.dtype):
            raise RecipeError(f"dtype: torch has no {name!r}; say float32, bfloat16 or float16")
    return found
