"""Tiny random checkpoints in the shapes that real ones come in, with tokenizers of their own."""

import math
from collections import Counter

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    BertConfig,
    BertForPreTraining,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    ModernBertModel,
    MPNetConfig,
    MPNetForMaskedLM,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from corpus import KEYWORDS, SENTENCES, SUFFIXES

VOCABULARY = 400
LENGTH = 64
# Beyond 128 tokens a distance is in the last of MPNet's buckets.
MPNET_LENGTH = 144
SIZES = dict(
    vocab_size=VOCABULARY,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    hidden_act="gelu",
    hidden_dropout_prob=0.1,
    attention_probs_dropout_prob=0.1,
)


def wordpiece_vocabulary(special):
    """The tokens `special`, letters, words seen twice or more, word endings, then the commonest tails.

    Not the library's WordPieceTrainer, which numbers its pieces in the order of a hash map: each run gives another
    vocabulary. The longest-match rule at encoding time does not mind how the vocabulary came to be.
    """
    splitter = pre_tokenizers.BertPreTokenizer()
    lines = [sentence.lower() for sentence in SENTENCES] + [" ".join(KEYWORDS).lower()]
    counts = Counter(word for line in lines for word, _ in splitter.pre_tokenize_str(line))
    letters = sorted({letter for word in counts for letter in word})
    pieces = special + letters
    pieces += ["##" + letter for letter in letters if letter.isalnum()] + ["##" + suffix for suffix in SUFFIXES]
    pieces += sorted(word for word, count in counts.items() if len(word) > 1 and count > 1)
    spans = [(word, at, at + size) for word in counts for size in (2, 3) for at in range(1, len(word) - size + 1)]
    tails = Counter("##" + word[start:end] for word, start, end in spans)
    commonest = sorted(tails, key=lambda tail: (-tails[tail], tail))
    pieces = list(dict.fromkeys(pieces + commonest))[:VOCABULARY]
    assert len(pieces) == VOCABULARY
    return {piece: number for number, piece in enumerate(pieces)}


def wordpiece(vocabulary):
    """Lower-casing WordPiece, special tokens not put around the text yet."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=100))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(prefix="##")
    return tokenizer


def bert_tokenizer():
    """Lower-casing WordPiece with [CLS] text [SEP], put together as bert-base-uncased's tokenizer.json is."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = wordpiece_vocabulary(special)
    tokenizer = wordpiece(vocabulary)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def mpnet_tokenizer():
    """The same WordPiece with <s> text </s>, put together as all-mpnet-base-v2's tokenizer.json is."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", AddedToken("<mask>", lstrip=True)]
    tokenizer = wordpiece(wordpiece_vocabulary([str(getattr(token, "content", token)) for token in special]))
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def byte_level_bpe(unknown, special, size=VOCABULARY):
    """Byte-level BPE of `size` tokens with the tokens `special` first, not put around the text yet."""
    tokenizer = Tokenizer(models.BPE(unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES + [" " + keyword for keyword in KEYWORDS], trainer)
    assert tokenizer.get_vocab_size() == size
    return tokenizer


def roberta_tokenizer():
    """Byte-level BPE with <s> text </s>, put together as roberta-base's tokenizer.json is."""
    special = ["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)]
    tokenizer = byte_level_bpe("<unk>", special)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    return tokenizer


def modernbert_tokenizer():
    """Byte-level BPE with [CLS] text [SEP], put together as ModernBERT-base's tokenizer.json is."""
    special = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", AddedToken("[MASK]", lstrip=True)]
    tokenizer = byte_level_bpe(None, special)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return tokenizer


def xlm_roberta_tokenizer():
    """A unigram model with <s> text </s>, put together as xlm-roberta-base's tokenizer.json is.

    Not the library's UnigramTrainer: the likelihoods are those of how often a piece occurs.
    """
    words = Counter("▁" + word for line in SENTENCES + KEYWORDS for word in line.split())
    spans = Counter()
    for word, count in words.items():
        for size in (1, 2, 3):
            for at in range(len(word) - size + 1):
                spans[word[at : at + size]] += count
    letters = sorted(piece for piece in spans if len(piece) == 1)
    counts = spans | Counter({word: count for word, count in words.items() if count > 1})
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    longer = sorted((piece for piece in counts if len(piece) > 1), key=lambda piece: (-counts[piece], piece))
    pieces = letters + longer[: VOCABULARY - len(special) - len(letters) - 1]
    total = sum(counts[piece] for piece in pieces)
    vocabulary = [(token, 0.0) for token in special]
    vocabulary += [(piece, round(math.log(counts[piece] / total), 6)) for piece in pieces] + [("<mask>", 0.0)]
    assert len(vocabulary) == VOCABULARY
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([*special, AddedToken("<mask>", lstrip=True)])
    return tokenizer


def randomise(model, seed, norms=("LayerNorm.weight",)):
    """Weights far enough from nothing that a wrong transpose, bias or LayerNorm shows in the output.

    The names of LayerNorms' weights end with one of `norms`.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith(norms):
                parameter.copy_(1 + 0.1 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(0.15 * noise)


def make_bert(folder):
    """A checkpoint as bert-base-uncased has it: `bert.` prefix, pooler, and a pre-training head nobody asked for."""
    config = BertConfig(
        **SIZES, max_position_embeddings=LENGTH, type_vocab_size=2, layer_norm_eps=1e-12, pad_token_id=0
    )
    model = BertForPreTraining(config)
    randomise(model, seed=1)
    model.save_pretrained(folder)
    bert_tokenizer().save(str(folder / "tokenizer.json"))


def make_roberta(folder):
    """A checkpoint of the bare model, no prefix, in two shards with an index."""
    config = RobertaConfig(
        **SIZES,
        max_position_embeddings=LENGTH + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = RobertaModel(config)
    randomise(model, seed=2)
    model.save_pretrained(folder, max_shard_size="100KB")
    shards = sorted(path.name for path in folder.glob("*.safetensors"))
    assert shards == ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], shards
    roberta_tokenizer().save(str(folder / "tokenizer.json"))


def make_mpnet(folder):
    """A checkpoint as mpnet-base has it: `mpnet.` prefix, no token types, and the head of masked language modelling."""
    config = MPNetConfig(
        **SIZES,
        max_position_embeddings=MPNET_LENGTH + 2,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = MPNetForMaskedLM(config)
    randomise(model, seed=3)
    with torch.no_grad():
        # As large as the scores themselves, so that a wrong bucket shows.
        model.mpnet.encoder.relative_attention_bias.weight.mul_(5)
    model.save_pretrained(folder)
    mpnet_tokenizer().save(str(folder / "tokenizer.json"))


def make_xlm_roberta(folder):
    """A checkpoint as xlm-roberta-base has it: RoBERTa's names and prefix, and a unigram tokenizer."""
    config = XLMRobertaConfig(
        **SIZES,
        max_position_embeddings=LENGTH + 2,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    model = XLMRobertaForMaskedLM(config)
    randomise(model, seed=4, norms=("LayerNorm.weight", "layer_norm.weight"))
    model.save_pretrained(folder)
    xlm_roberta_tokenizer().save(str(folder / "tokenizer.json"))


def make_distilbert(folder):
    """A checkpoint as distilbert-base-uncased has it: `distilbert.` prefix and the `vocab_…` tensors of its head."""
    config = DistilBertConfig(
        vocab_size=SIZES["vocab_size"],
        dim=SIZES["hidden_size"],
        n_layers=SIZES["num_hidden_layers"],
        n_heads=SIZES["num_attention_heads"],
        hidden_dim=SIZES["intermediate_size"],
        max_position_embeddings=LENGTH,
        pad_token_id=0,
    )
    model = DistilBertForMaskedLM(config)
    randomise(model, seed=5, norms=("LayerNorm.weight", "layer_norm.weight"))
    model.save_pretrained(folder)
    bert_tokenizer().save(str(folder / "tokenizer.json"))


def modernbert_config(**settings):
    """Eight tokens on either side in the layers with a window."""
    return ModernBertConfig(
        vocab_size=SIZES["vocab_size"],
        hidden_size=SIZES["hidden_size"],
        num_attention_heads=SIZES["num_attention_heads"],
        intermediate_size=48,
        max_position_embeddings=LENGTH,
        local_attention=16,
        embedding_dropout=0.1,
        attention_dropout=0.1,
        mlp_dropout=0.1,
        pad_token_id=3,
        cls_token_id=1,
        bos_token_id=1,
        sep_token_id=2,
        eos_token_id=2,
        **settings,
    )


def make_modernbert(folder):
    """A checkpoint as ModernBERT-base has it: `model.` prefix, no biases; layers 0 and 3 are global, 1 and 2 local."""
    model = ModernBertForMaskedLM(modernbert_config(num_hidden_layers=4))
    assert model.config.layer_types == ["full_attention", *["sliding_attention"] * 2, "full_attention"]
    randomise(model, seed=6, norms=("norm.weight",))
    model.save_pretrained(folder)
    modernbert_tokenizer().save(str(folder / "tokenizer.json"))


def make_modernbert_biased(folder):
    """The bare model with every bias there can be, a local layer first."""
    config = modernbert_config(
        num_hidden_layers=2,
        layer_types=["sliding_attention", "full_attention"],
        attention_bias=True,
        mlp_bias=True,
        norm_bias=True,
    )
    model = ModernBertModel(config)
    randomise(model, seed=7, norms=("norm.weight",))
    model.save_pretrained(folder)
    modernbert_tokenizer().save(str(folder / "tokenizer.json"))
