"""Rewards by X-CLIP models, which compare a whole clip with the query."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np
import torch
from transformers import AutoProcessor, XCLIPModel

from promptreel import media
from promptreel.fingerprint import fingerprint
from promptreel.protocols import Modality
from promptreel.types import Clip, Query, Scores

VERSION = 1


class XCLIP:
    """Video-text alignment by an X-CLIP model (Ni et al., ECCV 2022, arXiv 2208.02816), by path or hub id.

    ``revision`` is the revision of the model on the hub; ``device`` defaults to the first GPU, or the CPU.

    The only dimension, ``alignment``, is the logit of the query for the clip, which is their cosine times the model's
    temperature: about 15 to 30 for the released models. Frames are spread evenly, as many as the model takes. A query
    longer than the model's text encoder is cut: released models have 77 positions, two of them for special tokens.
    """

    dimensions: ClassVar[tuple[str, ...]] = ("alignment",)
    modality: ClassVar[Modality] = "video"

    def __init__(self, model: str, revision: str | None = None, device: str | None = None) -> None:
        self.model, self.revision = str(model), revision
        self.device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.fingerprint = fingerprint("xclip", self.model, revision=revision, version=VERSION)

    @cached_property
    def _loaded(self) -> tuple[XCLIPModel, AutoProcessor]:
        options = {"revision": self.revision} if self.revision else {}
        model = XCLIPModel.from_pretrained(self.model, dtype=torch.float32, use_safetensors=True, **options)
        return model.eval().to(self.device), AutoProcessor.from_pretrained(self.model, **options)

    @torch.inference_mode()
    def score(self, items: Sequence[tuple[Query, Clip]]) -> list[Scores]:
        model, processor = self._loaded
        texts = list(dict.fromkeys(query.text for query, _ in items))
        count = model.config.vision_config.num_frames
        videos = [list(media.sample(clip.frames, count)) for _, clip in items]
        longest = model.config.text_config.max_position_embeddings
        inputs = processor(
            text=texts, videos=videos, return_tensors="pt", padding=True, truncation=True, max_length=longest
        )
        logits = model(**inputs.to(self.device)).logits_per_video.cpu().numpy()
        columns = np.array([texts.index(query.text) for query, _ in items])
        return [{"alignment": float(value)} for value in logits[np.arange(len(items)), columns]]
