"""Rewards by CLIP models, which compare single frames with the query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, ClassVar

import torch
from transformers import AutoProcessor, CLIPModel

from promptreel import media
from promptreel.fingerprint import fingerprint
from promptreel.protocols import Modality
from promptreel.types import Clip, Query, Scores

VERSION = 1


class CLIP:
    """Image-text alignment by a CLIP model (Radford et al., arXiv 2103.00020), by path or hub id.

    The model may be one that was tuned on people's preferences, such as PickScore (``yuvalkirstain/PickScore_v1``,
    arXiv 2305.01569), whose ``processor`` is ``laion/CLIP-ViT-H-14-laion2B-s32B-b79K``.

    - ``processor`` is the path or hub id of the processor; by default that of the model.
    - ``revision`` is the revision of the model on the hub.
    - ``device`` defaults to the first GPU, or the CPU.
    - ``frames`` is the number of frames, spread evenly, whose mean scores a clip.
    - ``dimension`` names the only dimension: two CLIP models of one recipe need different names.

    The score is the logit of the query for a frame, which is their cosine times the model's temperature: about 15 to 30
    for the released models. A query longer than the model's text encoder is cut: released models have 77 positions, two
    of them for special tokens.
    """

    dimensions: tuple[str, ...] = ("alignment",)
    modality: ClassVar[Modality] = "image"

    def __init__(
        self,
        model: str,
        processor: str | None = None,
        revision: str | None = None,
        device: str | None = None,
        frames: int = 4,
        dimension: str = "alignment",
    ) -> None:
        self.model, self.processor, self.revision = str(model), str(processor or model), revision
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.frames, self.dimension = frames, dimension
        self.dimensions = (dimension,)  # the class declares the default
        self.fingerprint = fingerprint(
            "clip", self.model, self.processor, revision=revision, frames=frames, dimension=dimension, version=VERSION
        )

    @classmethod
    def dimensions_of(cls, options: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the dimensions of a reward model with these options, without building it."""
        return (str(options["dimension"]),) if "dimension" in options else cls.dimensions

    @cached_property
    def _loaded(self) -> tuple[CLIPModel, AutoProcessor]:
        options = {"revision": self.revision} if self.revision else {}
        model = CLIPModel.from_pretrained(self.model, dtype=torch.float32, use_safetensors=True, **options)
        own = options if self.processor == self.model else {}
        return model.eval().to(self.device), AutoProcessor.from_pretrained(self.processor, **own)

    @torch.inference_mode()
    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        model, processor = self._loaded
        texts = list(dict.fromkeys(query.text for query, _ in items))
        counts = [min(self.frames, len(clip.frames)) for _, clip in items]
        images = [frame for (_, clip), n in zip(items, counts, strict=True) for frame in media.sample(clip.frames, n)]
        longest = model.config.text_config.max_position_embeddings
        inputs = processor(
            text=texts, images=images, return_tensors="pt", padding=True, truncation=True, max_length=longest
        )
        logits = model(**inputs.to(self.device)).logits_per_image.cpu().split(counts)
        return [
            {self.dimension: float(rows[:, texts.index(query.text)].mean())}
            for (query, _), rows in zip(items, logits, strict=True)
        ]
