"""Pretrains the tiny language model: a Llama that has read prompts of every style and prefers none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from build_tiny.corpus import example
from build_tiny.optim import Schedule
from build_tiny.run import Progress
from promptreel.execution.writer import CARD

VOCABULARY = 1024
SPECIAL = ["<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STEPS, BATCH = 2500, 64
LONGEST = 256
"""Tokens; longer examples are left out."""


def train_tokenizer(texts: list[str], special: list[str], vocabulary: int) -> Tokenizer:
    """A byte-level BPE: any text can be written, digits one by one."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    rng = np.random.default_rng([seed, 1])
    texts = []
    for _ in range(20000):
        drawn = example(rng)
        texts += [drawn.messages[-1]["content"], drawn.answer]
    return PreTrainedTokenizerFast(
        tokenizer_object=train_tokenizer(texts, SPECIAL, VOCABULARY),
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=CHAT_TEMPLATE,
        padding_side="left",
        model_max_length=512,
    )


def _encode(tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator) -> tuple[list[int], int]:
    """Token ids of an example and how many of them are the prompt."""
    drawn = example(rng)
    prompt = tokenizer.apply_chat_template(drawn.messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(drawn.answer + "<|end|>", add_special_tokens=False)["input_ids"]
    return ids + answer, len(ids)


def train(out: Path, seed: int, steps: int = STEPS) -> dict[str, float]:
    """Train into ``out``; an interrupted training goes on from its last checkpoint."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=160, intermediate_size=432, num_hidden_layers=6,
            num_attention_heads=5, num_key_value_heads=5, max_position_embeddings=512,
            tie_word_embeddings=True, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id, bos_token_id=None,
        )
    )  # fmt: skip
    schedule = Schedule([model], steps, muon=0.02, adam=3e-3)
    progress = Progress(out, model, schedule, steps, every=100)
    for step in progress:
        rng = np.random.default_rng([seed, 2, step])
        rows: list[tuple[list[int], int]] = []
        while len(rows) < BATCH:
            row = _encode(tokenizer, rng)
            if len(row[0]) <= LONGEST:
                rows.append(row)
        rows.sort(key=lambda row: len(row[0]))
        answers = sum(len(ids) - start for ids, start in rows)
        total = 0.0
        # Sorted by length and computed in quarters, so that little padding is computed.
        for at in range(0, BATCH, BATCH // 4):
            part = rows[at : at + BATCH // 4]
            width = max(len(ids) for ids, _ in part)
            inputs = torch.full((len(part), width), tokenizer.pad_token_id)
            labels = torch.full((len(part), width), -100)
            for index, (ids, start) in enumerate(part):
                inputs[index, : len(ids)] = torch.tensor(ids)
                labels[index, start : len(ids)] = torch.tensor(ids[start:])
            logits = model(inputs).logits[:, :-1].flatten(0, 1)
            loss = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten(), reduction="sum") / answers
            loss.backward()
            total += loss.item()
        schedule.step()
        progress.log(loss=total)
    model.generation_config.max_new_tokens = 96
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / CARD).write_text(json.dumps({"format": "brief", "sampling": {"temperature": 0.7, "max_tokens": 80}}) + "\n")
    return {"parameters": sum(weight.numel() for weight in model.parameters()), **progress.summary()}
