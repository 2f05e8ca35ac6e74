"""Ids, fingerprints and strings that never change: stored runs and trained students are found by them.

A test that fails here says that every run made so far would be rendered, scored and judged again. The values are those
of commit cd0c935.
"""

import hashlib
import sys
from importlib import resources
from typing import Any

import pytest

from promptreel import registry
from promptreel.fingerprint import content_id, content_seed
from promptreel.types import Component, Query, RenderRequest

SERVER = {"name": "endpoint", "model": "m", "url": "http://127.0.0.1:8000/v1"}
TINY = "package:promptreel.tiny/weights"


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("query", "a red ball", "", ""), "d3676b3ca4bcf942fd8c153a306875f577d70ca2b633d7619f7d538f8bdf78fb"),
        (
            ("clip", "generator", "a red ball", "", 7),
            "b0135dcdf020ee27ba7d991d29f00de776da13b264905e898b1359a5748dd37f",
        ),
        (("verdict", "judge", "q", "a red ball"), "747b4af3666e3e991093ac9b511b6297b0a41ca80224e00dd47ac5ce8434c022"),
        (("score", "reward", "q", "c"), "7f9a900e5e1113d8fc7727c629d1627e91c0cdc2f3f78688e33c413f2719d7b5"),
        (
            ("typed", "a red ball", "blur", (("aspect", "16:9"),)),
            "36c2590a7512fa74b97b28ae5727e77d34f0c1381ee035ed558e3dcd7d176753",
        ),
        (("rendered together", ["a", "b"]), "346c7703a32ec00f4b8176aa8edc2084dd94fe312aec939a59dd533d1953a954"),
        (({"b": 1, "a": [None, True, 1.5, "ü"]},), "a9eb05d221cc16ec889473eb1b7543cff296c4a91d8053ff024be65cd41e1bcf"),
    ],
)
def test_content_ids(parts: tuple[Any, ...], expected: str) -> None:
    assert content_id(*parts) == expected


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("evolve", 0), 42510741),
        ((1, "evaluate/tiny-test", 1), 3850020365),
        (("said", 0), 1784441126),
    ],
)
def test_content_seeds(parts: tuple[Any, ...], expected: int) -> None:
    assert content_seed(*parts) == expected


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (Query("a red ball"), "d3676b3ca4bcf942fd8c153a306875f577d70ca2b633d7619f7d538f8bdf78fb"),
        (Query("a red ball", "blur"), "e71a16cde7036bd6beedd278f1c5ca37dc9a0d0ee84c8f3530ff4ce3356c30e7"),
        (
            Query("a red ball", "", (("aspect", "16:9"), ("seed", "3"))),
            "4000506ca32b0536b20f150da9a919bde2e71835b55cfb83892261ae457ff1b2",
        ),
    ],
)
def test_ids_of_queries(query: Query, expected: str) -> None:
    assert query.id == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (RenderRequest("a red ball", "", 7), "ddd690f139985204aa16c5a9fcc2625cdb1e1103cee015a903a44435ca0c3c76"),
        (
            RenderRequest("a red ball", "blur", 7, "16:9"),
            "2f1a607c723a8e733f4970d182836df398a99ee71c62d72705a7ef034bcb5c54",
        ),
    ],
)
def test_ids_of_clips(request_: RenderRequest, expected: str) -> None:
    assert request_.clip_id("diffusers:0123456789abcdef01234567") == expected


@pytest.mark.parametrize(
    ("kind", "name", "options", "expected"),
    [
        ("reward", "pixels", {}, "pixels:1"),
        ("reward", "tiny-oracle", {}, "tiny-oracle:1"),
        ("reward", "clip", {"model": "org/clip"}, "clip:ff7c781433922ab47a5b454b"),
        (
            "reward",
            "clip",
            {
                "model": "yuvalkirstain/PickScore_v1",
                "processor": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
                "frames": 1,
                "dimension": "preference",
            },
            "clip:e3cf15cc3940dd630555287f",
        ),
        ("reward", "xclip", {"model": "org/xclip"}, "xclip:87ec358a5ab75f847699ce8d"),
        ("reward", "xclip", {"model": f"{TINY}/alignment"}, "xclip:1321e1788c7def2938064957"),
        ("judge", "tiny-oracle", {}, "tiny-text-oracle:2"),
        ("judge", "tiny-judge", {}, "llm-judge:e67d01b94b628aba69afdd64"),
        ("judge", "tiny-judge", {"errors": 0.2, "attempts": 4}, "llm-judge:9f57cb9d43b68ef5c3f7798d"),
        ("judge", "llm", {"llm": SERVER}, "llm-judge:ad9746631ddb3f02fe775dd0"),
        (
            "judge",
            "llm",
            {"llm": SERVER, "temperature": 0.3, "max_tokens": 900, "attempts": 3},
            "llm-judge:9f47715dc24524f03df6a7a1",
        ),
        ("judge", "guard", {"llm": SERVER}, "guard:2a2bc061ca21d2c195dbdbc9"),
        (
            "judge",
            "guard",
            {"llm": SERVER, "family": "llama-guard", "strict": False},
            "guard:717340285ad59f26a561fe0c",
        ),
        ("judge", "moderation", {}, "moderation:3b60c643f3ba61a543018193"),
        (
            "judge",
            "moderation",
            {"model": "m", "url": "http://127.0.0.1:8000/v1"},
            "moderation:db42bdbd77b4ab19db9b979e",
        ),
        (
            "judge",
            "guarded",
            {"facts": {"name": "tiny-oracle"}, "guard": {"name": "moderation"}},
            "guarded(tiny-text-oracle:2,moderation:3b60c643f3ba61a543018193)",
        ),
        ("llm", "tiny-judge", {"errors": 0.1}, "tiny-judge:2:0.1"),
        ("llm", "tiny-canonical", {}, "tiny-canonical:1:sentences:False"),
        ("llm", "tiny-canonical", {"style": "tags", "still": True}, "tiny-canonical:1:tags:True"),
        ("llm", "endpoint", {"model": "gpt-4o"}, "endpoint:d2eb73d0d6be0c7c699e0e62"),
        ("llm", "endpoint", {"model": "m", "url": "http://127.0.0.1:8000/v1"}, "endpoint:7c7c73cffc25aed41b9418a8"),
        (
            "llm",
            "endpoint",
            {
                "model": "m",
                "url": "http://me:secret@host/v1",
                "options": {"reasoning_effort": "low", "extra_headers": {"a": "b"}},
            },
            "endpoint:dfe229fb798d1841294a6c9c",
        ),
        ("llm", "local", {"model": "org/model"}, "local:c1733f3aa954278c22f2d810"),
        (
            "llm",
            "local",
            {"model": "org/model", "adapter": "org/adapter", "revision": "v1", "dtype": "bfloat16"},
            "local:2b943691c551dabad8f3a83e",
        ),
        ("llm", "local", {"model": f"{TINY}/base"}, "local:b14eb82cc0692d9518d7f42d"),
        (
            "llm",
            "local",
            {"model": f"{TINY}/base", "adapter": f"{TINY}/student"},
            "local:baf5e16c7a67d79a27b01763",
        ),
        ("generator", "diffusers", {"profile": "tiny", "device": "cpu"}, "diffusers:00de2eb8ba7a58a367dd14c4"),
        ("generator", "diffusers", {"profile": "tiny-tags", "device": "cpu"}, "diffusers:5937180bd2d29a7e485b370b"),
        ("generator", "diffusers", {"profile": "wan2.1-1.3b", "device": "cpu"}, "diffusers:8e0af43f362d191b20952947"),
        (
            "generator",
            "diffusers",
            {"profile": "cogvideox-2b", "device": "cpu", "dtype": "bfloat16", "steps": 20, "height": 256, "width": 256},
            "diffusers:c7f05aa65d61bec0c7fac20e",
        ),
    ],
)
def test_fingerprints(kind: str, name: str, options: dict[str, Any], expected: str) -> None:
    assert registry.build(Component(kind, name, options)).fingerprint == expected


@pytest.mark.parametrize(
    ("kind", "name", "constant", "expected"),
    [
        ("reward", "pixels", "VERSION", 1),
        ("reward", "clip", "VERSION", 1),
        ("reward", "xclip", "VERSION", 1),
        ("reward", "tiny-oracle", "VERSION", 1),
        ("judge", "tiny-oracle", "JUDGE_VERSION", 2),
        ("judge", "tiny-judge", "VERSION", 2),
        ("judge", "llm", "VERSION", 1),
        ("judge", "guard", "VERSION", 1),
        ("judge", "moderation", "VERSION", 1),
    ],
)
def test_versions(kind: str, name: str, constant: str, expected: int) -> None:
    assert getattr(sys.modules[registry.find(kind, name).__module__], constant) == expected


TEMPLATES = {
    "guard.standard.j2": "2f3b9493c17d463ec1d17d01a1edf551228cf846fc8217fea14131771450edab",
    "propose.brief.j2": "32f8e3c9eb509e6c9edd609e9d705de8588c1a0105596ece526d5a7156f7ad37",
    "propose.standard.j2": "5f8984a72b476d00e2e9dee683c17ba2ad440e7683051ec5afe0def57a552665",
    "refine.brief.j2": "3b3c477ba00a98e9dc488cccd124d2d649fc0e0153b47470a4c5acb662235ddc",
    "refine.standard.j2": "ef7e11e5c4d6a8e4024fd0820da15528b7703ee4194a80f87c3a3904327796be",
    "rewrite.brief.j2": "d369d6556a68172a57b2bf51e7e107aeb340d67e365844c136c8fb68eaff5521",
    "rewrite.cinematic.j2": "e0585cbed8d07bfb0965b0059a71a9d651cc08b1b9d0777235141b06608e6eeb",
    "rewrite.faithful.j2": "7b2ad4a1574b295a8108711fa2f7233cd12a85858e16bafb6c0410e23ab03848",
    "rewrite.prompt_a_video.j2": "9454e628c5b2bf5c1b754aae726ca2826237458773281f51580cccf725306afe",
    "rewrite.standard.j2": "ec6609dd63bb5052f8e1110575e67aa25c3c1bb81470f32f097ebc2beaa52628",
    "rewrite.vpo.j2": "d067b463113b4a353664ac8def5e1c67513528affe3ba03e6207be483cad755c",
    "shorten.standard.j2": "4a30f8d458f9763be530ff27e4b147f50cc1d6538a78be814e2aeb87d7474352",
    "verdict.standard.j2": "7cdec55ee236857c7156bccefced046f0e003333184a7853b7c0c544b10ef4bd",
}
"""Templates and their sha256. A model that was trained on a template is asked with it."""


def test_templates() -> None:
    place = resources.files("promptreel") / "templates"
    assert {entry.name: hashlib.sha256(entry.read_bytes()).hexdigest() for entry in place.iterdir()} == TEMPLATES


WEIGHTS = """
alignment/config.json alignment/model.safetensors alignment/processor_config.json alignment/tokenizer.json
alignment/tokenizer_config.json
base/chat_template.jinja base/config.json base/generation_config.json base/model.safetensors base/promptreel.json
base/tokenizer.json base/tokenizer_config.json
manifest.json
student/adapter_config.json student/adapter_model.safetensors
video-tags/pytorch_lora_weights.safetensors
video/model_index.json
video/scheduler/scheduler_config.json
video/text_encoder/config.json video/text_encoder/model.safetensors
video/tokenizer/tokenizer.json video/tokenizer/tokenizer_config.json
video/transformer/config.json video/transformer/diffusion_pytorch_model.safetensors
video/vae/config.json video/vae/diffusion_pytorch_model.safetensors
"""


def test_files_of_the_tiny_weights() -> None:
    """Names of files are part of a directory's identity; their content is pinned by the fingerprints above."""
    with resources.as_file(resources.files("promptreel.tiny") / "weights") as place:
        found = {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}
    assert found == set(WEIGHTS.split())
