"""Profiles of video and image models, and the token counts of their text encoders."""

from promptreel.profiles.profile import Adapter, Profile, Variant, load, names
from promptreel.profiles.tokens import TokenCounter, token_counter

__all__ = ["Adapter", "Profile", "TokenCounter", "Variant", "load", "names", "token_counter"]
