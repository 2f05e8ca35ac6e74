"""Optional dependencies: the extra that installs each module, and the message when it is missing."""

from __future__ import annotations

from promptreel.errors import MissingExtra

EXTRAS = {
    "torch": "local", "transformers": "local", "diffusers": "local", "accelerate": "local", "trl": "local",
    "peft": "local", "datasets": "local", "pyarrow": "local", "safetensors": "local", "cv2": "local", "av": "local",
    "matplotlib": "local", "fastapi": "serve", "uvicorn": "serve",
}  # fmt: skip
"""Module to the extra that installs it."""


class importing:
    """Context that turns a missing optional module into ``MissingExtra``, with the command that installs it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ModuleNotFoundError):
            extra = EXTRAS.get((error.name or "").partition(".")[0])
            if extra:
                raise MissingExtra(self.what, extra) from error
