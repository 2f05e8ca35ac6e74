"""Token counts of prompts, by the tokenizer of a video model's text encoder."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from promptreel.profiles.profile import Profile, load

if TYPE_CHECKING:
    from tokenizers import Tokenizer

TIMEOUT = 10.0
"""Seconds to wait for the hub's answer whether it has a tokenizer."""
BYTES_PER_TOKEN = 4
"""Approximate bytes per token of plain English in UTF-8, for the vocabularies of CLIP, T5, Llama and Qwen."""


class TokenCounter:
    """Counter of the tokens of a prompt, as a profile's text encoder counts them, special tokens included.

    ``exact`` is false without the model's tokenizer (no network, a gated model). Counts are estimates then, and must
    be called so.
    """

    def __init__(self, profile: Profile, tokenizer: Tokenizer | None) -> None:
        self.profile, self._tokenizer = profile, tokenizer
        self.exact = tokenizer is not None

    def __call__(self, text: str) -> int:
        """Return the number of tokens of a prompt."""
        special = self.profile.special_tokens
        if self._tokenizer is None:
            return math.ceil(len(text.encode()) / BYTES_PER_TOKEN) + (1 if special is None else special)
        return len(self._tokenizer.encode(text, add_special_tokens=special is None).ids) + (special or 0)

    def fits(self, text: str) -> bool:
        """Return True if the text encoder reads all of a prompt."""
        return self(text) <= self.profile.token_limit


@cache
def token_counter(name: str, model: str | None = None) -> TokenCounter:
    """Return the token counter of a profile; ``model`` is a path or hub id of other weights for it.

    It needs no torch: only the tokenizer of the model is read, from disk or from the hub.
    """
    profile = load(name)
    return TokenCounter(profile, _tokenizer(profile, model or profile.model))


def _tokenizer(profile: Profile, model: str) -> Tokenizer | None:
    """Load the tokenizer of a profile's text encoder from disk or the hub; ``None`` if it cannot be had."""
    from tokenizers import Tokenizer

    local = Path(model) / profile.tokenizer / "tokenizer.json"
    file = str(local) if local.exists() else None
    if file is None and profile.tokenizer_hub:
        file = _download(profile.tokenizer_hub, None)
    if file is None and not Path(model).is_dir():
        file = _download(model, profile.tokenizer)
    if file is None:
        return None
    tokenizer = Tokenizer.from_file(file)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _download(model: str, folder: str | None) -> str | None:
    """Return the path of a tokenizer's file from the cache or the hub; ``None`` without the file or an answer."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache

    name = f"{folder}/tokenizer.json" if folder else "tokenizer.json"
    try:
        cached = try_to_load_from_cache(model, name)
        if isinstance(cached, str):
            return cached
        # Asked once: a download would try for half a minute to reach a hub that does not answer.
        get_hf_file_metadata(hf_hub_url(model, name), timeout=TIMEOUT)
        return hf_hub_download(model, name)
    except Exception:  # noqa: BLE001 - the hub client's HTTP library, and so its exceptions, changed between versions
        return None
