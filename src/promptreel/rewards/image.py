"""Rewards by models that look at single frames and read the query: of an image, or of a few frames of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from transformers import AutoProcessor, CLIPModel

from promptreel import media
from promptreel.store.files import fingerprint
from promptreel.types import Clip, Query, Scores

VERSION = 1


class CLIP:
    """Image-text alignment by a CLIP model (Radford et al., arXiv 2103.00020), by path or hub id, also by one that was
    tuned on what people prefer: PickScore (``yuvalkirstain/PickScore_v1``, arXiv 2305.01569), whose ``processor`` is
    ``laion/CLIP-ViT-H-14-laion2B-s32B-b79K``.

    One dimension, called ``dimension``: the logit of the query for a frame, which is their cosine times the model's
    temperature; about 15 to 30 for the released models. Of a clip, the mean of ``frames`` frames spread evenly. What
    the text encoder does not read of a long query is cut.
    """

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
        self.frames, self.dimensions = frames, (dimension,)
        self.fingerprint = fingerprint(
            "clip", self.model, self.processor, revision=revision, frames=frames, dimension=dimension, version=VERSION
        )

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
            {self.dimensions[0]: float(rows[:, texts.index(query.text)].mean())}
            for (query, _), rows in zip(items, logits, strict=True)
        ]
