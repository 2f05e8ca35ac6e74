"""Names of the flags that people type, and the settings that they stand for."""

from __future__ import annotations

FLAGS = {
    "ar": "aspect", "aspect": "aspect", "aspect_ratio": "aspect", "aspect-ratio": "aspect", "ratio": "aspect",
    "neg": "negative", "negative": "negative", "no": "negative", "negative_prompt": "negative",
    "negative-prompt": "negative", "camera": "camera", "cam": "camera", "motion": "motion", "mo": "motion",
    "m": "motion", "speed": "speed", "size": "size", "resolution": "resolution", "res": "resolution",
    "gs": "guidance", "guidance": "guidance", "cfg": "guidance", "cfg_scale": "guidance", "cfg-scale": "guidance",
    "fps": "fps", "seed": "seed", "w": "width", "width": "width", "h": "height", "height": "height",
    "style": "style", "v": "version", "version": "version", "q": "quality", "quality": "quality",
    "s": "stylize", "stylize": "stylize", "c": "chaos", "chaos": "chaos", "iw": "iw", "niji": "niji", "hd": "hd",
    "tile": "tile", "video": "video", "weird": "weird", "stop": "stop", "repeat": "repeat", "upbeta": "upbeta",
    "uplight": "uplight", "test": "test", "testp": "testp", "fast": "fast", "relax": "relax", "turbo": "turbo",
    "duration": "duration", "dur": "duration", "t": "duration", "loop": "loop", "cref": "cref", "sref": "sref",
    "oref": "oref", "cw": "cw", "sw": "sw", "ow": "ow", "sv": "sv", "p": "profile", "profile": "profile", "raw": "raw",
    "exp": "exp", "draft": "draft", "stealth": "stealth", "public": "public", "bs": "bs", "end": "end",
    "steps": "steps", "sampler": "sampler", "strength": "strength", "hide": "hide", "image": "image",
    "consistency": "consistency", "ct": "consistency",
}  # fmt: skip
"""Flags of Pika, Midjourney and similar services: every spelling, and the setting that it stands for."""
VALUELESS = {
    "hd", "tile", "video", "upbeta", "uplight", "test", "testp", "fast", "relax", "turbo", "loop", "raw", "draft",
    "stealth", "public", "hide",
}  # fmt: skip
"""Settings that take no value."""
ONE_DASH = {"aspect", "guidance", "fps", "motion", "seed", "steps", "consistency"}
"""Settings that are certain with one dash and a number, anywhere in a text (Pika's own spelling)."""
GAP_ALLOWED = {"aspect", "guidance", "fps", "motion", "seed", "camera", "negative"}
"""Settings that may have a space after the dash."""
WORD_VALUED = {"negative", "camera", "style", "sref", "cref", "oref", "image", "profile"}
"""Settings whose values are not numbers."""
REFERENCES = {"sref", "cref", "oref", "image", "profile"}
"""Settings whose values are addresses or codes."""
STYLE_PRESETS = {"raw", "expressive", "cute", "scenic", "original", "4a", "4b", "4c"}
"""Styles that are settings of a service (Midjourney's). Any other style is part of the picture that is asked for."""
UNDASHED = {"gs": (1, 50), "fps": (5, 240)}
"""Names that people type without a dash, with the range of their values: a ``GS 1250`` is a motorcycle."""
MAX_STYLE_WORDS = 4
"""Length in words of the longest style that ends without a comma or a quote; a longer one is a sentence."""
