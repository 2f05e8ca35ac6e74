"""Profiles: every pipeline class that one names loads, renders, counts tokens and follows its seeds."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import diffusers
import numpy as np
import peft
import pytest
import tiny_encoders
import tiny_pipelines
import torch
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

import profiles_table
from promptreel import profiles
from promptreel.config import parse_recipe
from promptreel.errors import RecipeError, UnknownName, UserError
from promptreel.generators.diffusers import DiffusersGenerator
from promptreel.preflight.check import check
from promptreel.types import Clip, RenderRequest

# diffusers' Euler scheduler hands a tensor to numpy in a way that numpy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PROFILES = list(tiny_pipelines.CHECKPOINTS)
OTHERS = ["sdxl", "cogvideox-2b", "ltx-video", "hunyuanvideo", "sd3.5-medium", "flux.1-dev", "qwen-image"]
SLOWEST = pytest.param("hunyuanvideo-1.5", marks=pytest.mark.slow)
VARIED = [name for name in PROFILES if profiles.load(name).variants and name != "hunyuanvideo-1.5"]
REQUESTS = [RenderRequest("a red ball", "", seed) for seed in (1, 2)]
REQUESTS.append(RenderRequest("the blue dog jumps over water", "", 1))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the checkpoint directory of each profile, built on first use."""
    root = tmp_path_factory.mktemp("checkpoints")

    class Built(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            self[name] = tiny_pipelines.build(name, root / name)
            return self[name]

    return Built()


def small(profile: str, checkpoint: Path, **options: Any) -> DiffusersGenerator:
    """Return the generator as a recipe builds it, at the size that the checkpoint is made for."""
    frames = {"frames": 9} if profiles.load(profile).frames > 1 else {}
    size = {} if "height" in options else {"height": 32, "width": 32}
    return DiffusersGenerator(profile, model=str(checkpoint), steps=2, device="cpu", **size, **frames, **options)


def pixels(clips: list[Any]) -> np.ndarray:
    assert all(isinstance(clip, Clip) for clip in clips)
    return np.stack([clip.frames for clip in clips]).astype(int)


def test_every_profile_has_a_small_checkpoint_for_these_tests() -> None:
    assert set(PROFILES) == {name for name in profiles.names() if not name.startswith("tiny")}


@pytest.mark.parametrize("name", PROFILES)
def test_a_clip_depends_on_its_seed_and_not_on_its_batch(name: str, checkpoints: dict[str, Path]) -> None:
    assert profiles.load(name).deterministic
    generator = small(name, checkpoints[name])
    whole = pixels(generator.render(REQUESTS))
    assert whole.shape[1:] == (9 if profiles.load(name).frames > 1 else 1, 32, 32, 3)
    alone, again = (pixels(generator.render(REQUESTS[1:2]))[0] for _ in range(2))
    assert (alone == again).all()
    assert np.abs(whole[1] - alone).max() <= 2  # but for rounding
    assert (whole[0] != whole[1]).any(), "the seed changes nothing"
    assert (whole[0] != whole[2]).any(), "the prompt changes nothing"
    assert whole.std() > 10, "a grey clip hides every difference"


class Read(BaseException):
    """Carrier of the arguments of a text encoder's call."""


@pytest.mark.parametrize("name", PROFILES)
def test_the_pipeline_cuts_prompts_at_the_token_limit(
    name: str, checkpoints: dict[str, Path], monkeypatch: Any
) -> None:
    profile = profiles.load(name)
    count = profiles.token_counter(name, str(checkpoints[name]))
    assert count.exact
    generator, before = small(name, checkpoints[name]), 0
    pipeline = generator._pipeline
    tokenizer = getattr(pipeline, profile.tokenizer)
    if name == "hunyuanvideo":  # the tokens before the prompt are fewer with a tokenizer this small
        before = tiny_pipelines.prefix_length(tokenizer)
        generator.call["prompt_template"] = {**DEFAULT_PROMPT_TEMPLATE, "crop_start": before}
    elif hasattr(pipeline, "prompt_template_encode_start_idx"):
        system = getattr(pipeline, "system_message", None) or pipeline.prompt_template_encode.split("system\n")[1]
        system = f"<|im_start|>system\n{system.partition('<|im_end|>')[0]}<|im_end|>\n<|im_start|>user\n"
        before = pipeline.prompt_template_encode_start_idx = len(tokenizer(system).input_ids)

    def read(*_: Any, **given: Any) -> NoReturn:
        raise Read(given)

    encoder = getattr(pipeline, profile.tokenizer.replace("tokenizer", "text_encoder"))
    monkeypatch.setattr(pipeline.transformer if name == "qwen-image" else encoder, "forward", read_positionally(read))

    def seen(tokens: int) -> int:
        """Count the tokens of a prompt of a length that reach the encoder, or the denoiser if that cuts."""
        with pytest.raises(Read) as caught:
            generator.render([RenderRequest(prompt_of(tokens, count), "", 1)])
        given = caught.value.args[0]
        if name == "qwen-image":
            return int(given["encoder_hidden_states"].shape[1])
        ids = given["input_ids"][0].tolist()
        end = tokenizer.pad_token_id
        length = len(ids) - next((at for at, token in enumerate(reversed(ids)) if token != end), len(ids))
        ended = profile.special_tokens is None and end == tokenizer.eos_token_id  # CLIP pads with its end
        return length + ended - before

    limit = profile.token_limit
    assert [seen(limit - 1), seen(limit), seen(limit + 1)] == [limit - 1, limit, limit]


def read_positionally(read: Any) -> Any:
    return lambda *given, **named: read(**({"input_ids": given[0]} if given else {}), **named)


def prompt_of(tokens: int, count: profiles.TokenCounter) -> str:
    """Return a prompt of a number of tokens."""
    text = "red"
    parts = [*(f" {word}" for word in tiny_encoders.WORDS), "t"]
    text += next(part for part in parts if count(text + 2 * part) == count(text) + 2) * (tokens - count(text))
    assert count(text) == tokens
    return text


def test_a_count_without_the_tokenizer_is_marked_as_an_estimate() -> None:
    count = profiles.token_counter("wan2.2-5b")
    assert not count.exact
    text = "A red ball rolls slowly across wet sand at dusk while small waves wash over its shadow."
    assert 15 <= count(text) <= 30
    assert count.fits(text)
    assert not count.fits(text * 40)
    assert profiles.token_counter("tiny").exact


def test_a_request_is_rendered_at_the_size_of_its_aspect_ratio(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    known = profiles.load("wan2.1-1.3b")
    assert known.size() == known.size("nonsense") == known.size("16:0") == (832, 480)
    assert known.size("9:16") == known.size("2:3") == (480, 832)
    assert profiles.load("cogvideox-2b").size("9:16") == (720, 480)
    file = tmp_path / "small.toml"
    source = (Path(profiles.__file__).parent / "wan2.1-1.3b.toml").read_text()
    source = re.sub("480", "32", re.sub("832", "48", source))
    file.write_text(re.sub('"Wan-AI.*"', f'"{checkpoints["wan2.1-1.3b"]}"', source))
    generator = DiffusersGenerator(str(file), steps=1, frames=5)
    asked = [RenderRequest("a ball", "", 1, aspect) for aspect in ("", "9:16", "16:9")]
    plain, tall, wide = generator.render(asked)
    assert [clip.frames.shape[1:3] for clip in (plain, tall, wide)] == [(32, 48), (48, 32), (32, 48)]
    assert (plain.frames == wide.frames).all()
    assert [clip.id for clip in (plain, tall, wide)] == [request.clip_id(generator.fingerprint) for request in asked]
    assert asked[0].clip_id("g") == RenderRequest("a ball", "", 1).clip_id("g") != asked[1].clip_id("g")
    fixed = DiffusersGenerator(str(file), steps=1, frames=5, height=16, width=32)
    assert {clip.frames.shape[1:3] for clip in fixed.render(asked)} == {(16, 32)}


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("wan2.1-1.3b", {}),
        ("sdxl", {}),
        ("hunyuanvideo", {"true_cfg_scale": 4.0}),
        ("flux.1-dev", {"true_cfg_scale": 4.0}),
        pytest.param("hunyuanvideo-1.5", {}, marks=pytest.mark.slow),  # always reads 1,985 tokens
    ],
)
def test_the_negative_prompt_of_a_query_reaches_the_pipeline(
    name: str, call: dict[str, Any], checkpoints: dict[str, Path]
) -> None:
    generator = small(name, checkpoints[name], call=call)
    plain, without = generator.render([RenderRequest("a ball", negative, 1) for negative in ("", "sand water sky")])
    assert (plain.frames != without.frames).any()


@pytest.mark.parametrize("name", ["qwen-image", SLOWEST])
def test_guidance_reaches_pipelines_that_name_it_differently(name: str, checkpoints: dict[str, Path]) -> None:
    strong, none = (small(name, checkpoints[name], guidance=value) for value in (9.0, 1.0))
    assert (pixels(strong.render(REQUESTS[:1])) != pixels(none.render(REQUESTS[:1]))).any()
    assert strong.fingerprint != none.fingerprint


def lora(checkpoint: Path, to: Path, component: str = "transformer") -> Path:
    """Save a LoRA adapter with random weights for a denoiser, as diffusers does."""
    pipeline = diffusers.DiffusionPipeline.from_pretrained(checkpoint)
    model = getattr(pipeline, component)
    model.add_adapter(peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    weights = peft.get_peft_model_state_dict(model)
    layers = "unet_lora_layers" if component == "unet" else "transformer_lora_layers"
    type(pipeline).save_lora_weights(to, **{layers: weights})
    return to


@pytest.mark.parametrize("name", ["wan2.1-1.3b", *(pytest.param(n, marks=pytest.mark.slow) for n in OTHERS)])
def test_adapters_are_fused_at_their_scale(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = str(lora(checkpoints[name], tmp_path / "lora", "unet" if name == "sdxl" else "transformer"))
    base = small(name, checkpoints[name])
    plain = pixels(base.render(REQUESTS[:1]))
    full = small(name, checkpoints[name], adapters=[path])
    none = small(name, checkpoints[name], adapters=[{"model": path, "scale": 0.0}])
    twice = small(name, checkpoints[name], adapters=[path, path])
    assert np.abs(pixels(none.render(REQUESTS[:1])) - plain).max() <= 1
    assert (pixels(full.render(REQUESTS[:1])) != plain).any()
    assert (pixels(twice.render(REQUESTS[:1])) != pixels(full.render(REQUESTS[:1]))).any()
    assert len({g.fingerprint for g in (base, full, none, twice)}) == 4


def test_an_adapter_can_go_into_the_second_transformer(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    path = str(lora(checkpoints["wan2.2-a14b"], tmp_path / "lora"))
    both = [{"model": path}, {"model": path, "load": {"load_into_transformer_2": True}}]
    plain = small("wan2.2-a14b", checkpoints["wan2.2-a14b"])._pipeline
    tuned = small("wan2.2-a14b", checkpoints["wan2.2-a14b"], adapters=both)._pipeline
    for part in ("transformer", "transformer_2"):
        before, after = (getattr(p, part).blocks[0].attn1.to_q.weight for p in (plain, tuned))
        assert not torch.equal(before, after), part


def test_a_variant_changes_only_the_settings_that_it_names() -> None:
    whole, fast = (DiffusersGenerator("wan2.2-a14b", variant=variant) for variant in (None, "lightning"))
    assert whole.call["num_inference_steps"] == 40
    assert (fast.call["num_inference_steps"], fast.guidance, fast.call["guidance_scale_2"]) == (4, 1.0, 1.0)
    assert [adapter.load.get("load_into_transformer_2", False) for adapter in fast.adapters] == [False, True]
    assert fast.call["max_sequence_length"] == 512
    assert fast.fingerprint != whole.fingerprint
    assert DiffusersGenerator("wan2.2-a14b", variant="lightning", steps=6).call["num_inference_steps"] == 6
    turbo = DiffusersGenerator("sd3.5-large", variant="turbo")
    assert turbo.model == "stabilityai/stable-diffusion-3.5-large-turbo"
    with pytest.raises(UnknownName, match="did you mean 'lightning'"):
        DiffusersGenerator("sdxl", variant="lightening")


@pytest.mark.parametrize("name", [*VARIED, SLOWEST])
def test_every_variant_renders(name: str, checkpoints: dict[str, Path], tmp_path: Path) -> None:
    for variant, chosen in profiles.load(name).variants.items():
        generator = small(name, checkpoints[name], variant=variant)
        if "decode_timestep" in chosen.call:
            model = tiny_pipelines.save(lambda: tiny_pipelines.ltx(timestep_conditioning=True), tmp_path / variant)
            generator = small(name, model, variant=variant)
        component = "unet" if name == "sdxl" else "transformer"
        generator.adapters = tuple(
            profiles.Adapter(
                model=str(lora(checkpoints[name], tmp_path / "lora", component)),
                load={key: value for key, value in adapter.load.items() if key != "weight_name"},
            )
            for adapter in chosen.adapters
        )
        generator.call["num_inference_steps"] = 2
        whole, alone = (pixels(generator.render(some)) for some in (REQUESTS[:2], REQUESTS[1:2]))
        assert np.abs(whole[1] - alone[0]).max() <= 2
        if "name" in chosen.scheduler:
            assert type(generator._pipeline.scheduler).__name__ == chosen.scheduler["name"]


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"call": {"guidence_scale": 3}}, "takes no 'guidence_scale' in its call; did you mean 'guidance_scale'"),
        ({"call": {"prompt": "a ball"}}, "call.prompt is set by Promptreel"),
        ({"dtype": "float15"}, "torch has no 'float15'"),
        ({"dtype": {"default": "bfloat16", "vae": "half-ish"}}, "torch has no 'half-ish'"),
        ({"offload": "modell"}, "did you mean 'model'"),
        ({"scheduler": {"name": "EulerScheduler"}}, "no scheduler 'EulerScheduler'"),
        ({"adapters": [{"modle": "x"}]}, "an adapter has no 'modle'; did you mean 'model'"),
        ({"adapters": [{"scale": 1}]}, "adapter: model: Field required"),
        ({"profile": "sdxl", "frames": 9}, "sdxl renders images, not 9 frames"),
        ({"profile": "hunyuanvideo-1.5", "adapters": ["x/y"]}, "loads no adapters"),
        ({"profile": "hunyuanvideo-1.5", "call": {"guidance_scale": 3}}, "takes no 'guidance_scale'"),
    ],
)
def test_wrong_options_are_errors_before_anything_loads(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(complaint)):
        DiffusersGenerator(**{"profile": "wan2.1-1.3b", **options})


def test_a_recipe_with_a_wrong_option_of_the_pipeline_does_not_start() -> None:
    writer = {"llm": {"name": "tiny-canonical"}}
    recipe = {
        "name": "wrong",
        "profile": "ltx-video",
        "generator": {"name": "diffusers", "call": {"frame_rat": 24}},
        "student": writer,
        "teacher": writer,
        "judge": {"name": "tiny-oracle"},
        "rewards": {},
        "objectives": {},
        "stage": [],
    }
    with pytest.raises(RecipeError, match="did you mean 'frame_rate'"):
        check(parse_recipe(recipe))


def test_the_error_about_an_unloadable_model_names_it(tmp_path: Path) -> None:
    generator = DiffusersGenerator("wan2.1-1.3b", model=str(tmp_path))
    with pytest.raises(UserError, match=re.escape(f"cannot load {tmp_path} for wan2.1-1.3b")):
        generator.render(REQUESTS[:1])


def test_the_prompt_rewriter_built_into_a_pipeline_is_switched_off(tmp_path: Path) -> None:
    source = (Path(profiles.__file__).parent / "ltx-video.toml").read_text()
    for pipeline, argument, off in [
        ("LTX2Pipeline", "enable_prompt_enhancement", False),
        ("SanaPipeline", "complex_human_instruction", None),
    ]:
        file = tmp_path / f"{pipeline}.toml"
        text = source.replace("LTXPipeline", pipeline).replace(", frame_rate = 25", "")
        if pipeline == "SanaPipeline":
            text = text.replace("frames = 161", "frames = 1")
        file.write_text(text)
        assert DiffusersGenerator(str(file)).call[argument] is off


def test_a_component_can_be_kept_out_of_half_precision(checkpoints: dict[str, Path]) -> None:
    on_gpu = DiffusersGenerator("wan2.2-5b", device="cuda")
    assert on_gpu.dtype == {"default": "bfloat16", "vae": "float32"}
    assert DiffusersGenerator("wan2.2-5b", device="cpu").dtype == {"default": "float32"}
    generator = small("wan2.2-5b", checkpoints["wan2.2-5b"], dtype=on_gpu.dtype)
    first, again = (pixels(generator.render(REQUESTS[:2])) for _ in range(2))
    assert (first == again).all()
    pipeline = generator._pipeline
    assert (pipeline.transformer.dtype, pipeline.vae.dtype) == (torch.bfloat16, torch.float32)


def test_options_that_save_memory_change_clips_only_by_rounding(checkpoints: dict[str, Path]) -> None:
    for name in ("cogvideox-2b", "sdxl"):
        plain = small(name, checkpoints[name], tiling=False)
        saving = small(name, checkpoints[name], tiling=True, slicing=True, offload="model")
        assert np.abs(pixels(plain.render(REQUESTS[:2])) - pixels(saving.render(REQUESTS[:2]))).max() <= 2, name
        assert saving._pipeline.vae.use_tiling
        assert saving._pipeline.vae.use_slicing
        assert plain.fingerprint != saving.fingerprint


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script_method:DeprecationWarning"
)  # torch imports a deprecated module of its own
def test_all_denoisers_are_compiled_with_the_option_compile(checkpoints: dict[str, Path]) -> None:
    pipeline = small("wan2.2-a14b", checkpoints["wan2.2-a14b"], compile=True)._pipeline
    assert all(part._compiled_call_impl is not None for part in (pipeline.transformer, pipeline.transformer_2))
    assert pipeline.vae._compiled_call_impl is None


@pytest.fixture
def gpu() -> Iterator[str]:
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    yield "cuda"
    torch.cuda.empty_cache()


@pytest.mark.gpu
@pytest.mark.parametrize("name", PROFILES)
def test_offloading_changes_clips_only_by_rounding(name: str, checkpoints: dict[str, Path], gpu: str) -> None:
    clips = []
    for offload in ("none", "model", "sequential"):
        generator = small(name, checkpoints[name], offload=offload, dtype="float32")
        generator.device = gpu
        clips.append(pixels(generator.render(REQUESTS)))
    assert np.abs(clips[0] - clips[1]).max() <= 2
    assert np.abs(clips[0] - clips[2]).max() <= 2


def test_the_documentation_page_of_profiles_is_up_to_date() -> None:
    page = Path(__file__).parents[1] / "docs" / "profiles.md"
    assert page.read_text() == profiles_table.page(), "run: python tools/profiles_table.py > docs/profiles.md"


@pytest.mark.parametrize("name", profiles.names())
def test_a_profile_has_a_licence_a_house_style_and_sizes_of_the_right_shape(name: str) -> None:
    profile = profiles.load(name)
    assert profile.name == name
    assert profile.licence
    assert profile.house_style
    for width, height in [profile.size(), *profile.sizes.values()]:
        assert width % 8 == height % 8 == 0
    for aspect, (width, height) in profile.sizes.items():
        across, up = map(int, aspect.split(":"))
        assert width / height == pytest.approx(across / up, rel=0.08), aspect
