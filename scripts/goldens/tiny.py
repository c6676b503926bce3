"""Three tiny random checkpoints in the shapes that real ones come in, with tokenizers of their own."""

from collections import Counter

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForPreTraining, MPNetConfig, MPNetForMaskedLM, RobertaConfig, RobertaModel

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


def roberta_tokenizer():
    """Byte-level BPE with <s> text </s>, put together as roberta-base's tokenizer.json is."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True)],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES + [" " + keyword for keyword in KEYWORDS], trainer)
    tokenizer.post_processor = processors.RobertaProcessing(
        ("</s>", 2), ("<s>", 0), trim_offsets=True, add_prefix_space=False
    )
    assert tokenizer.get_vocab_size() == VOCABULARY
    return tokenizer


def randomise(model, seed):
    """Weights far enough from nothing that a wrong transpose, bias or LayerNorm shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if name.endswith("LayerNorm.weight"):
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
