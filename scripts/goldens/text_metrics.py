"""Reference values of the metrics of generated text, out of sacreBLEU, rouge-score, fuzzywuzzy, difflib and Levenshtein.

    python scripts/goldens/text_metrics.py --out tests/goldens/text-metrics.json

BLEU is sacreBLEU's counting, precisions and geometric mean. What Telly's two kinds of it have of their own is told to it:
the smoothing (sacreBLEU's `add-k` from order 2 on, or counts with 1 added), and for sentences the brevity penalty, which is
put in the place of sacreBLEU's.
"""

import argparse
import difflib
import importlib
import json
import math
import random
import re
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import Levenshtein
from rouge_score import rouge_scorer
from sacrebleu.metrics import BLEU, CHRF
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

PACKAGES = ("sacrebleu", "rouge-score", "fuzzywuzzy", "Levenshtein")
PAIRS = {
    "equal": ("Return the sum of two numbers .", "Return the sum of two numbers ."),
    "near": ("Return the sum of two numbers .", "Returns sum of the two given numbers"),
    "nothing in common": ("open a file", "xyz qqq"),
    "both empty": ("", ""),
    "empty hypothesis": ("close the file", ""),
    "empty reference": ("", "close the file"),
    "one word": ("stop", "stop"),
    "shorter than the orders": ("stop it now", "stop it"),
    "repeated words": ("the cat the cat on the mat", "the the the the the cat cat mat mat"),
    "repeated letters": ("aaaaaaaaab", "baaaaaaaaa"),
    "white space": ("  a\tb \u00a0 c\u2003d\x1ce ", "a b c d e"),
    "case": ("HTTP Request Handler", "http request HANDLER"),
    "signs": ("foo_bar(x, 'y')->z[1.5] += -3; // don't", "foo_bar (x,'y') -> z [1.5] -= 3 ; don't"),
    "numbers": ("1,000.5 items in 3-4 days, v1.2-rc", "1,000 items in 3 - 4 days , v1.2 rc"),
    "accents": ("Größe der Datei über naïve café", "Grosse der Datei uber naive cafe"),
    "combining marks": ("cafe\u0301 au lait e\u0301te\u0301", "caf\u00e9 au lait \u00e9t\u00e9"),
    "Greek": ("ΟΔΥΣΣΕΥΣ και ΠΗΝΕΛΟΠΗ ς", "οδυσσευς και πηνελοπη σ"),
    "Turkish": ("İSTANBUL ıspanak", "istanbul ispanak"),
    "Chinese": ("返回两个数的和。再见", "返回数的和。再见了"),
    "Hindi": ("नमस्ते दुनिया का योग", "नमस्ते दुनिया योग"),
    "emoji": ("ship it 🚀🚀 now 👩‍💻", "ship 🚀 it now 👩‍💻 ①Ⓐ½"),
    "code": (
        'public static int max ( int arg0 , int arg1 ) { return arg0 > arg1 ? arg0 : arg1 ; }',
        'int max ( int arg0 , int arg1 ) { if ( arg0 > arg1 ) return arg0 ; return arg1 ; }',
    ),
    "code, truncated": ("for ( int i = 0 ; i < n ; i ++ ) { sum += a [ i ] ; }", "for ( int i = 0 ; i"),
    "HTML": ("a &lt; b &amp;&amp; c &quot;d&quot; <skipped> e", "a < b && c \"d\" e"),
}


def long_pairs():
    """Texts around and above the 200 letters from which difflib leaves out common ones, of few letters and of many."""
    generator = random.Random(7)
    words = "return value of list index name node = == ( ) ; . this . size get ( i ) null if".split()
    pairs = {}
    for length, edits in ((199, 20), (200, 20), (201, 20), (450, 60), (1200, 300)):
        reference = []
        while len(" ".join(reference)) < length:
            reference.append(generator.choice(words))
        reference = " ".join(reference)[:length]
        letters = list(reference)
        for _ in range(edits):
            place = generator.randrange(len(letters))
            letters[place : place + generator.randrange(4)] = generator.choice(words)
        pairs[f"{length} letters"] = (reference, "".join(letters))
    binary = ["".join(generator.choice("ab") for _ in range(260)) for _ in range(2)]
    pairs["260 of two letters"] = tuple(binary)
    wide = [chr(generator.randrange(0x4E00, 0x5200)) for _ in range(300)]
    other = wide[150:] + wide[:100] + [" "] * 40
    pairs["300 of many letters"] = ("".join(wide), "".join(other))
    return pairs


def fuzzywuzzy_ratio(with_levenshtein):
    """fuzzywuzzy's `ratio` with one of its back ends: it takes difflib where Levenshtein cannot be imported."""
    for name in [name for name in sys.modules if name.startswith("fuzzywuzzy")]:
        del sys.modules[name]
    kept = sys.modules["Levenshtein"]
    if not with_levenshtein:
        sys.modules["Levenshtein"] = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("fuzzywuzzy.fuzz")
    sys.modules["Levenshtein"] = kept
    assert (module.SequenceMatcher is difflib.SequenceMatcher) != with_levenshtein
    return module.ratio


def sentence_bleu(reference, hypothesis):
    """None where a program without the least positive number says 0: no word in common, or no word."""
    nist = Tokenizer13a()
    split = [" ".join(re.findall(r"[\w]+|[^\s\w]", text.lower())) for text in (reference, hypothesis)]
    reference, hypothesis = map(nist, split)
    bleu = BLEU(tokenize="none", smooth_method="add-k", smooth_value=1, effective_order=False)
    score = bleu.corpus_score([hypothesis], [[reference]])
    if score.score == 0:
        return None
    wanted, found = len(reference.split()), len(hypothesis.split())
    return score.score / score.bp * math.exp(min(0, 1 - (wanted + 1) / (found + 1)))


def corpus_bleu(references, hypotheses):
    """Smoothed at every order, of words between white space."""
    spaced = [[" ".join(text.split()) for text in texts] for texts in (references, hypotheses)]
    bleu = BLEU(tokenize="none", smooth_method="none", effective_order=False)
    counted = bleu.corpus_score(spaced[1], [spaced[0]])
    counts, totals = ([count + 1 for count in counts] for counts in (counted.counts, counted.totals))
    if counted.sys_len == 0:
        return 0.0
    return BLEU.compute_bleu(counts, totals, counted.sys_len, counted.ref_len, smooth_method="none").score


def main():
    parser = argparse.ArgumentParser(description="Make the reference values of the metrics of generated text.")
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/text-metrics.json"), help="file to write")
    out = parser.parse_args().out
    difflib_ratio, levenshtein_ratio = fuzzywuzzy_ratio(False), fuzzywuzzy_ratio(True)
    rouge = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
    chrf = CHRF()
    cases = []
    pairs = PAIRS | long_pairs()
    for name, (reference, hypothesis) in pairs.items():
        cases.append({
            "name": name,
            "reference": reference,
            "hypothesis": hypothesis,
            "exact": reference.split() == hypothesis.split(),
            "sentence_bleu": sentence_bleu(reference, hypothesis),
            "corpus_bleu": corpus_bleu([reference], [hypothesis]),
            "matching_ratio": difflib.SequenceMatcher(None, hypothesis, reference).ratio(),
            "matching_ratio_swapped": difflib.SequenceMatcher(None, reference, hypothesis).ratio(),
            "edit_similarity": difflib_ratio(hypothesis, reference),
            "edit_similarity_levenshtein": levenshtein_ratio(hypothesis, reference),
            "levenshtein_ratio": Levenshtein.ratio(hypothesis, reference),
            "rouge_l": 100 * rouge.score(reference, hypothesis)["rougeL"].fmeasure,
            "chrf": chrf.corpus_score([hypothesis], [[reference]]).score,
        })
    references, hypotheses = zip(*pairs.values())
    corpus = {
        "bleu": corpus_bleu(references, hypotheses),
        "bleu_swapped": corpus_bleu(hypotheses, references),
        "chrf": chrf.corpus_score(hypotheses, [references]).score,
    }
    texts = [
        f'  "versions": {json.dumps({name: version(name) for name in PACKAGES})}',
        f'  "corpus": {json.dumps(corpus)}',
        '  "pairs": [\n    ' + ",\n    ".join(json.dumps(case) for case in cases) + "\n  ]",
    ]
    out.write_text("{\n" + ",\n".join(texts) + "\n}\n")


if __name__ == "__main__":
    main()
