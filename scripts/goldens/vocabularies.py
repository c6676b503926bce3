"""Token ids by transformers' tokenizers that are built from vocabulary files, for strings that are hard to split.

    python scripts/goldens/vocabularies.py                                  # tests/goldens/vocabularies
    python scripts/goldens/vocabularies.py --large OUT --data FOLDER --minilm FOLDER --mpnet FOLDER

The second form trains a byte-level BPE of 20,000 pieces on real code, takes the vocabularies of two real models, and
writes the ids of 10,000 snippets; `TELLY_TEST_VOCABULARIES=OUT cargo test --test input vocabularies` compares them.

Made with transformers 4.57.6, of the last line that has slow tokenizers; what each of those makes of the same strings is
said too. They differ from their own fast ones at characters without a meaning (U+FFFE, U+FFFF, U+10FFFF, U+0378), at
upper-case spellings of special tokens, and at spaces beside added tokens; the fast ones are the reference. With
`--check` nothing is written, and the installed version is held against the ids that are there: 5.23.0 gives the same but
for the space before RoBERTa's `<mask>` where no file says that the mask takes it, as roberta-base's own does.
"""

import argparse
import gzip
import json
import random
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizerFast, MPNetTokenizerFast, RobertaTokenizerFast

from corpus import KEYWORDS, SENTENCES

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# Marks of a task, as UniXcoder's vocabulary has them.
MODES = ["<encoder-only>", "<decoder-only>", "<encoder-decoder>"]
PIECES = 700

FRAGMENTS = [
    "", " ", "  ", "\t", "\n", "\r\n", "\r", "\x0b", "\x0c", "\x00", "\x01", "\x1b[0m", "\x7f", "\x85", "\xa0", "\xad",
    "a", "A", "return", "RETURN", "getHTTPResponseCode", "snake_case_name", "__init__", "x1", "1234567890", "0xFF",
    "3.14e-10", "don't", "we'll", "I'M", "they've", "'s", "''s", "\"\"\"", "//", "/* */", "->", "=>", "!=", "<<=", "::",
    "#include <stdio.h>", "if (x == 0) { y++; }", "def f(a, b=None):\n    return a\n", "\\n", "\\u0041", "%d%%", "@x",
    "É", "é", "e\u0301", "ñ", "ü", "ß", "İ", "ı", "Ⅷ", "ﬁ", "Å", "Ω", "ς", "Σ", "\u0300", "a\u0300\u0301\u0302",
    "日本語", "中文字符", "漢", "한국어", "각", "ไทย", "हिन्दी", "עברית", "العربية", "русский", "ё", "ЁЖ", "𠀀",
    "😀", "👩‍👩‍👧", "🏳️‍🌈", "🇩🇪", "👍🏽", "❤️", "𝕏", "𝒜", "①", "½", "²", "٣", "१",
    "\u200b", "\u200d", "\u200e", "\u2028", "\u2029", "\u202e", "\u3000", "\ufeff", "\ufffd", "\ufffe", "\uffff",
    "\ue000", "\U0010ffff", "\u0378", "\U000e0001", "\u180e",
    "[CLS]", "[SEP]", "[UNK]", "[MASK]", "[PAD]", "[cls]", "[unk]", "<s>", "</s>", "<pad>", "<unk>", "<S>", "<PAD>",
    "a<s>b", " <s> ", "[CLS]x[SEP]", "x[MASK]", "##ing", "##", "Ġ", "Ġthe", "<encoder-only>", "<Encoder-Only>", "<e0>",
    "extra", "EXTRA", "two words", "wo" * 60, "x" * 101, "x" * 99, "ab" * 300, "é" * 101, "日" * 120, "." * 40, " " * 30,
]
MASKS = ["<mask>", " <mask>", "a <mask> b", "a  <mask>  b", "\n<mask>\n", "x<mask>y", "<MASK>", " [MASK] "]


def strings():
    """Each fragment alone, those that a mask takes the space before, and mixtures."""
    generator = random.Random(7)
    mixed = []
    for _ in range(140):
        count = generator.randint(2, 7)
        parts = [generator.choice([fragment for fragment in FRAGMENTS if len(fragment) < 90]) for _ in range(count)]
        mixed.append(generator.choice(["", " ", " ", "\n", "\t"]).join(parts))
    return list(dict.fromkeys(FRAGMENTS + MASKS + mixed))


def byte_level(texts, pieces, special):
    """A byte-level BPE over `texts`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def write_json(path, value):
    path.write_text(json.dumps(value, ensure_ascii=True, indent=None) + "\n")


def token(content, **properties):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, **properties}


def write_folders(out):
    """Folders of vocabulary files as real models have them, with the class that reads each."""
    source = Path("tests/goldens")
    words = json.loads((source / "bert-tiny/tokenizer.json").read_text())["model"]["vocab"]
    words = sorted(words, key=words.get)
    own = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    more = ["É", "é", "##é", "日", "語", "😀", "İ", "A", "B", "RETURN", "return", "##A", "the", "The", "[unk]", "extra"]
    words += [word for word in more if word not in words]
    texts = SENTENCES + [" " + keyword for keyword in KEYWORDS]

    def folder(name):
        (out / name).mkdir(parents=True, exist_ok=True)
        return out / name

    def write_words(path, pieces):
        (path / "vocab.txt").write_text("".join(piece + "\n" for piece in pieces))

    def write_bytes(path, special):
        byte_level(texts, PIECES, special).model.save(str(path))

    write_words(folder("bert"), words)
    write_words(folder("bert-cased"), words)
    config = dict(do_lower_case=False, strip_accents=True, tokenize_chinese_chars=False, tokenizer_class="BertTokenizer")
    write_json(out / "bert-cased/tokenizer_config.json", config)
    write_words(folder("bert-added"), words)
    config = dict(do_lower_case=True, strip_accents=False, cls_token="[CLS]", unk_token=token("[UNK]", special=True, __type="AddedToken"))
    write_json(out / "bert-added/tokenizer_config.json", config)
    write_json(out / "bert-added/special_tokens_map.json", dict(mask_token=token("[MASK]", lstrip=True)))
    write_json(out / "bert-added/added_tokens.json", {"EXTRA": len(words), "two words": len(words) + 1})
    rest = [word for word in words if word not in own]
    write_words(folder("mpnet"), ["<s>", "<pad>", "</s>", "<unk>"] + ["[UNK]"] + rest + ["<mask>"])
    write_json(out / "mpnet/tokenizer_config.json", dict(do_lower_case=True, tokenizer_class="MPNetTokenizer"))
    write_bytes(folder("codebert"), SPECIAL)
    write_bytes(folder("unixcoder"), SPECIAL + MODES)
    config = dict(
        errors="replace",
        add_prefix_space=True,
        tokenizer_class="RobertaTokenizer",
        additional_special_tokens=["<e0>", "<e1>"],
        bos_token=token("<s>", __type="AddedToken"),
    )
    write_json(out / "unixcoder/tokenizer_config.json", config)
    mask = token("<mask>", lstrip=True, normalized=False)
    write_json(out / "unixcoder/special_tokens_map.json", dict(cls_token="<s>", sep_token="</s>", mask_token=mask))
    write_json(out / "unixcoder/added_tokens.json", {"<e0>": PIECES, "two words": PIECES + 1})
    write_bytes(folder("newer"), SPECIAL)
    decoder = {str(number): token(name, special=True, normalized=False) for number, name in enumerate(SPECIAL)}
    decoder["4"]["lstrip"] = True
    decoder[str(PIECES + 1)] = token("<encoder-only>", special=True, normalized=False)
    decoder[str(PIECES)] = token("extra", single_word=True, special=False)
    write_json(out / "newer/tokenizer_config.json", dict(added_tokens_decoder=decoder, mask_token="<mask>"))


CLASSES = {
    "bert": BertTokenizerFast,
    "bert-cased": BertTokenizerFast,
    "bert-added": BertTokenizerFast,
    "mpnet": MPNetTokenizerFast,
    "codebert": RobertaTokenizerFast,
    "unixcoder": RobertaTokenizerFast,
    "newer": RobertaTokenizerFast,
}


def encode(tokenizer, texts):
    return [tokenizer(text, add_special_tokens=True)["input_ids"] for text in texts]


def differing(name, texts, ids, others):
    different = [text for text, left, right in zip(texts, ids, others) if left != right]
    print(f"{name}: {len(texts) - len(different)} of {len(texts)} the same; others:", [text[:40] for text in different])


def compare(kind, folder, texts, ids):
    """What the slow tokenizer makes of the same, where there is one."""
    slow = getattr(transformers, CLASSES[kind].__name__.removesuffix("Fast"))
    if transformers.__version__.startswith("4."):
        differing(f"{folder.name}, slow", texts, ids, encode(slow.from_pretrained(folder), texts))


def make_small(out, check):
    if not check:
        write_folders(out)
        write_json(out / "strings.json", strings())
    texts = json.loads((out / "strings.json").read_text())
    for kind, fast in CLASSES.items():
        ids = encode(fast.from_pretrained(out / kind), texts)
        if check:
            there = json.loads((out / f"{kind}.json").read_text())
            differing(f"{kind}, {transformers.__version__}", texts, there, ids)
        else:
            write_json(out / f"{kind}.json", ids)
            compare(kind, out / kind, texts, ids)


def snippets(data, count):
    """Functions and their descriptions in five languages, as they come."""
    sources = [
        ("pystd/train.jsonl.gz", "code"),
        ("poj104/train.jsonl.gz", "code"),
        ("sard/train.jsonl.gz", "func"),
        ("pystd/train.jsonl.gz", "docstring"),
        ("bcb/data.jsonl.gz", "func"),
    ]
    texts = []
    for name, field in sources:
        path = data / name
        open_text = gzip.open if path.suffix == ".gz" else open
        with open_text(path, "rt", encoding="utf-8") as lines:
            found = [json.loads(line)[field] for line, _ in zip(lines, range(count // len(sources)))]
        texts += found
    assert len(texts) == count, len(texts)
    return texts


def make_large(out, arguments):
    texts = snippets(arguments.data, 10_000)
    out.mkdir(parents=True, exist_ok=True)
    for name, model in (("bert", arguments.minilm), ("mpnet", arguments.mpnet)):
        (out / name).mkdir(exist_ok=True)
        (out / name / "vocab.txt").write_bytes((model / "vocab.txt").read_bytes())
    (out / "codebert").mkdir(exist_ok=True)
    byte_level(texts[::2], 20_000, SPECIAL).model.save(str(out / "codebert"))
    texts += strings()
    write_json(out / "strings.json", texts)
    for kind in ("bert", "mpnet", "codebert"):
        ids = encode(CLASSES[kind].from_pretrained(out / kind), texts)
        write_json(out / f"{kind}.json", ids)
        print(f"{kind}: {sum(map(len, ids))} tokens", flush=True)
        compare(kind, out / kind, texts, ids)


def main():
    parser = argparse.ArgumentParser(description="Make ids of tokenizers that are built from vocabulary files.")
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/vocabularies"))
    parser.add_argument("--check", action="store_true", help="hold the installed transformers against what is there")
    parser.add_argument("--large", type=Path, help="write ids of real snippets to this folder")
    parser.add_argument("--data", type=Path, help="folder of data sets")
    parser.add_argument("--minilm", type=Path, default=Path("models/all-MiniLM-L6-v2"))
    parser.add_argument("--mpnet", type=Path, default=Path("models/all-mpnet-base-v2"))
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    if arguments.large:
        make_large(arguments.large, arguments)
    else:
        make_small(arguments.out, arguments.check)


if __name__ == "__main__":
    main()
