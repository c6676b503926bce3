"""Tiny random checkpoints of the models that write text, in the shapes that real ones come in."""

import json

import torch
from tokenizers import AddedToken, Regex, normalizers, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    RobertaConfig,
    RobertaModel,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

from tiny import SIZES, VOCABULARY, byte_level_bpe, randomise

POSITIONS = 128
WIDTHS = dict(
    vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=POSITIONS
)
NORMS = ("norm.weight",)
# How text is split before BPE in Qwen2's tokenizer.json; a fact of the format.
QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Ids 0 to 19 of UniXcoder's vocabulary that a task names; the others are filled up.
UNIXCODER_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<encoder-decoder>", "<encoder-only>", "<decoder-only>"]
UNIXCODER_SPECIAL += [f"<unused{number}>" for number in range(8, 19)] + ["<mask0>"]
# The embedding of the token that ends a text is this much larger, so that random weights end some texts and not others.
END_SIZE = 2.5
SHARPER = ("q_proj.weight", "k_proj.weight", "query.weight", "key.weight")


def smollm2_tokenizer():
    """Byte-level BPE, each digit a piece, nothing put around the text, as SmolLM2's tokenizer.json is."""
    tokenizer = byte_level_bpe(None, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def starcoder2_tokenizer():
    """The same with StarCoder2's marks for filling in the middle."""
    special = ["<|endoftext|>", "<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"]
    tokenizer = byte_level_bpe(None, special)
    digits = pre_tokenizers.Digits(individual_digits=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    return tokenizer


def qwen2_tokenizer():
    """Byte-level BPE over Qwen2's own split of NFC text; its special tokens come last, added to the vocabulary."""
    tokenizer = byte_level_bpe(None, [], size=VOCABULARY - 3)
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2_SPLIT), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def unixcoder_tokenizer():
    """Byte-level BPE with <s> text </s> and the marks of a mode and of a task under UniXcoder's own ids."""
    special = [AddedToken(token, lstrip=True) if token == "<mask>" else token for token in UNIXCODER_SPECIAL]
    tokenizer = byte_level_bpe("<unk>", special)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    assert tokenizer.token_to_id("<encoder-only>") == 6 and tokenizer.token_to_id("<mask0>") == 19
    return tokenizer


def sharpen(model):
    """Attention that differs from token to token, so that a wrong mask or position shows and texts vary."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(SHARPER):
                parameter *= 2


def save(model, tokenizer, folder, end):
    """Random weights as bfloat16, as such models are published; `end` is the token that ends a text."""
    sharpen(model)
    with torch.no_grad():
        model.lm_head.weight[end] *= END_SIZE
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def older_config(folder, rope_scaling, **fields):
    """config.json as published checkpoints have it: `rope_theta` and `rope_scaling`, where transformers 5 writes
    `rope_parameters`, and no `layer_types`."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("layer_types", None)
    rotary = config.pop("rope_parameters")
    config |= {"rope_theta": rotary["rope_theta"], "rope_scaling": rope_scaling, "torch_dtype": config.pop("dtype")}
    config |= fields
    path.write_text(json.dumps(dict(sorted(config.items())), indent=2) + "\n")


def make_llama(folder):
    """As SmolLM2-Instruct, but for an output matrix of its own: two heads of keys for four of queries, no biases."""
    config = LlamaConfig(
        **WIDTHS,
        intermediate_size=48,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=False,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    randomise(model, seed=11, norms=NORMS)
    save(model, smollm2_tokenizer(), folder, end=2)


def make_llama_scaled(folder):
    """As Llama 3.2: the output matrix is the embeddings', and frequencies are scaled in three bands.

    Of a head's four wavelengths, 6.3, 63, 628 and 6283 tokens, the first stays, the second lies between 16 and 64
    tokens' bounds and is mixed, the last two are eight times longer.
    """
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
        "rope_type": "llama3",
    }
    config = LlamaConfig(
        **WIDTHS,
        intermediate_size=48,
        num_key_value_heads=2,
        rms_norm_eps=1e-5,
        rope_parameters=scaling | {"rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    randomise(model, seed=12, norms=NORMS)
    save(model, smollm2_tokenizer(), folder, end=2)
    older_config(folder, scaling)


def make_qwen2(folder):
    """As Qwen2.5: one head of keys, biases on queries, keys and values, the output matrix the embeddings'."""
    config = Qwen2Config(
        **WIDTHS,
        intermediate_size=48,
        num_key_value_heads=1,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=397,
        eos_token_id=397,
    )
    model = Qwen2ForCausalLM(config)
    randomise(model, seed=13, norms=NORMS)
    save(model, qwen2_tokenizer(), folder, end=397)
    older_config(folder, None, sliding_window=POSITIONS, max_window_layers=2)


def make_starcoder2(folder):
    """As StarCoder2: LayerNorms, a plain block of two matrices, biases everywhere, output matrix tied."""
    config = Starcoder2Config(
        **WIDTHS,
        intermediate_size=64,
        num_key_value_heads=2,
        norm_epsilon=1e-5,
        hidden_act="gelu_pytorch_tanh",
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True,
        use_bias=True,
        sliding_window=None,
        residual_dropout=0.1,
        embedding_dropout=0.1,
        attention_dropout=0.1,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = Starcoder2ForCausalLM(config)
    randomise(model, seed=14, norms=NORMS)
    save(model, starcoder2_tokenizer(), folder, end=0)


def make_unixcoder(folder):
    """As unixcoder-base: RoBERTa's names without prefix, ten token types, a configuration that says no decoder."""
    config = RobertaConfig(
        **SIZES,
        max_position_embeddings=POSITIONS + 2,
        type_vocab_size=10,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = RobertaModel(config)
    randomise(model, seed=15)
    sharpen(model)
    with torch.no_grad():
        words = model.embeddings.word_embeddings.weight
        words[config.eos_token_id] *= END_SIZE
        words[config.pad_token_id] = 0  # never the likeliest: the reference does not attend to padding that it wrote
    model.save_pretrained(folder)
    unixcoder_tokenizer().save(str(folder / "tokenizer.json"))
