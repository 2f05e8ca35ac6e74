"""Tokenizers trained on a page of text, and text encoders with random weights to go with them."""

import json
from typing import Any

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

WORDS = (
    "a an the red green blue ball box star dog cat runs jumps falls turns left right up down slowly fast on under "
    "over sand snow water grass sky night day light dark soft sharp close wide camera pans follows shot of video"
).split()
CORPUS = [" ".join(WORDS[start:] + WORDS[:start]) for start in range(len(WORDS))] + ["assistant"] * 99
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WIDTH = 32
"""Hidden size of every text encoder."""


def t5_tokenizer() -> Any:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(
        CORPUS,
        trainers.UnigramTrainer(vocab_size=150, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    return transformers.T5Tokenizer(vocab=[tuple(piece) for piece in _model(trained)["vocab"]], extra_ids=0)


def clip_tokenizer() -> Any:
    trained = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    trained.pre_tokenizer = pre_tokenizers.Whitespace()
    special = ["<|startoftext|>", "<|endoftext|>"]
    trained.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=300, special_tokens=special, end_of_word_suffix="</w>", show_progress=False),
    )
    return transformers.CLIPTokenizer(*_bpe(trained), model_max_length=77)


def qwen_tokenizer() -> Any:
    trained = _byte_level(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer = transformers.Qwen2Tokenizer(*_bpe(trained))
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = CHAT
    return tokenizer


def llama_tokenizer() -> Any:
    special = ["<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|pad|>"]
    trained = _byte_level(special)
    trained.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", trained.token_to_id("<|begin_of_text|>"))]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained, bos_token=special[0], eos_token=special[1], pad_token=special[4]
    )


def _byte_level(special: list[str]) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trained.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trained.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=420, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return trained


def _bpe(trained: Tokenizer) -> tuple[dict[str, int], list[Any]]:
    state = _model(trained)
    return state["vocab"], [tuple(pair) for pair in state["merges"]]


def _model(trained: Tokenizer) -> dict[str, Any]:
    learned: dict[str, Any] = json.loads(trained.to_str())["model"]
    return learned


def t5_encoder(tokenizer: Any, kind: str = "T5") -> Any:
    config = getattr(transformers, f"{kind}Config")(
        vocab_size=max(len(tokenizer), 384), d_model=WIDTH, d_kv=8, d_ff=37, num_layers=2, num_heads=4
    )
    return getattr(transformers, f"{kind}EncoderModel")(config)


def clip_encoder(tokenizer: Any, projection: bool) -> Any:
    config = transformers.CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=37,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (transformers.CLIPTextModelWithProjection if projection else transformers.CLIPTextModel)(config)


LLM = {"hidden_size": WIDTH, "intermediate_size": 37, "num_hidden_layers": 4, "num_attention_heads": 4}
