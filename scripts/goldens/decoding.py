"""What greedy decoding and beam search write: transformers' `generate`, and the rule of UniXcoder's downstream code.

Transformers' beam search, as it runs here. In a step each running hypothesis is continued by every token, and the best
2 x num_beams continuations are looked at. Those among the first num_beams of them that end, by the end token or because
it is the last step, join the finished ones with their sum of log-probabilities / (number of new tokens, the end token
included) ^ length_penalty; the best num_beams of these are kept. The best num_beams that do not end go on. The search
is over after the last step, or when num_beams are finished and, unless early_stopping is true, the worst of them is not
below the best running hypothesis, whose sum is divided by its own number of new tokens ^ length_penalty; with "never"
and a length_penalty above 0, by the greatest possible number.

UniXcoder's rule keeps `size` hypotheses a step, ended ones among them, by the sum of log-probabilities alone; one that
ended is not continued, so its place is free in the next step. The search is over when the best of a step ended, in this
step or an earlier one, and `size` or more ended in all; or after the last step. Written is the best that ended, or, if
none did, the best of the last step. Here every step computes the whole of every hypothesis anew, without a cache.
"""

import json

import torch
from tokenizers import Tokenizer

import prefix_lm
from corpus import SENTENCES
from decoders import load_causal, unixcoder_sequence
from language_training import in_own_type

STEPS = 24
SIZES = (3, 5, 10)
# Tokens of each prompt, of UniXcoder's without the special ones around them.
LENGTHS = (1, 3, 6, 10, 17, 25)
# The largest difference of a score between float32 and float64.
TOLERANCE = 1e-4
# The two of UniXcoder's modes that write, and what ends each: `</s>`, and as in code completion signs of the language.
ENDS = {"encoder-decoder": ["</s>"], "decoder-only": ["</s>", ";", "}"]}


def prompts(tokenizer):
    """Token ids of six texts without special tokens."""
    texts = [" ".join(SENTENCES[7 * row + 2 : 7 * row + 4]) for row in range(len(LENGTHS))]
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    return [ids[:length] for ids, length in zip(encoded, LENGTHS, strict=True)]


def generated(model, prompt, **settings):
    """The new tokens that `generate` gives and their score; of greedy decoding the sum of log-probabilities."""
    output = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
        max_new_tokens=STEPS,
        do_sample=False,
        pad_token_id=model.config.eos_token_id,
        output_scores=True,
        return_dict_in_generate=True,
        **settings,
    )
    ids = output.sequences[0, len(prompt) :].tolist()
    if settings["num_beams"] > 1:
        score = output.sequences_scores.item()
    else:
        steps = [scores[0].log_softmax(-1)[token] for scores, token in zip(output.scores, ids, strict=True)]
        score = torch.stack(steps).sum().item()
    end = model.config.eos_token_id
    return ids[: ids.index(end) + 1] if end in ids else ids, score


def causal_cases(model, tokenizer):
    """Each prompt with what follows it, greedily and by every setting of beam search."""
    cases = []
    for prompt in prompts(tokenizer):
        ids, score = generated(model, prompt, num_beams=1)
        beams = []
        for size in SIZES:
            for penalty in (1.0, 0.0):
                for early in (False, True, "never"):
                    settings = {"num_beams": size, "length_penalty": penalty, "early_stopping": early}
                    found = generated(model, prompt, **settings)
                    beams.append(settings | dict(zip(("ids", "score"), found, strict=True)))
        cases.append({"prompt": prompt, "greedy": {"ids": ids, "score": score}, "beams": beams})
    return {"ends": [model.config.eos_token_id], "cases": cases}


def search(log_probabilities, size, ends):
    """UniXcoder's beam search; `log_probabilities` gives those of the token after a list of new ones."""
    running, finished, best_ended = [([], 0.0)], [], False
    for _ in range(STEPS):
        rows = [score + log_probabilities(ids) for ids, score in running]
        scores, places = torch.cat(rows).topk(size)
        vocabulary = len(rows[0])
        step = [
            ([*running[place // vocabulary][0], place % vocabulary], score)
            for place, score in zip(places.tolist(), scores.tolist(), strict=True)
        ]
        ended = [one for one in step if one[0][-1] in ends]
        running = [one for one in step if one[0][-1] not in ends]
        finished += ended
        best_ended = best_ended or step[0][0][-1] in ends
        if best_ended and len(finished) >= size:
            break
    return max(finished or running[:1], key=lambda one: one[1])


def unixcoder_cases(model, tokenizer, mode):
    """Each source (or context) with what is written after it, greedily and by beams."""
    matrix = model.embeddings.word_embeddings.weight
    start = [tokenizer.token_to_id("<mask0>")] if mode == "encoder-decoder" else []
    ends = [tokenizer.token_to_id(token) for token in ENDS[mode]]
    cases = []
    for pieces in prompts(tokenizer):
        prompt = unixcoder_sequence(tokenizer, mode, pieces)
        # A context is read causally: to the mask it is a target already.
        source, context = (prompt, start) if mode == "encoder-decoder" else ([], prompt)

        def log_probabilities(ids, source=source, context=context):
            assert model.config.pad_token_id not in ids, "the reference would not attend to it"
            last = prefix_lm.masked_states(model, source, context + ids)[-1][-1]
            return (last @ matrix.T).log_softmax(-1)

        ids, score = search(log_probabilities, 1, ends)
        beams = []
        for size in SIZES:
            found = search(log_probabilities, size, ends)
            beams.append({"beam_size": size} | dict(zip(("ids", "score"), found, strict=True)))
        cases.append({"prompt": prompt, "greedy": {"ids": ids, "score": score}, "beams": beams})
    return {"start": start, "ends": ends, "cases": cases}


def outputs(made):
    """Every output of a model, greedy ones first."""
    return [one for case in made["cases"] for one in [case["greedy"], *case["beams"]]]


def make_decoding(out, path, versions):
    """All outputs in float32; float64 must write the same, or a difference of rounding would pass for an error."""
    runs = [(name, load_causal, causal_cases, ()) for name in ("llama-tiny", "qwen2-tiny")]
    runs += [("unixcoder-tiny", prefix_lm.load_decoder, unixcoder_cases, (mode,)) for mode in ENDS]
    models = {}
    for name, load, make, more in runs:
        tokenizer = Tokenizer.from_file(str(out / name / "tokenizer.json"))
        model = load(out / name).eval()
        with torch.no_grad():
            made = make(model, tokenizer, *more)
            with in_own_type():
                exact = make(model.to(torch.float64), tokenizer, *more)
        pairs = list(zip(outputs(made), outputs(exact), strict=True))
        assert all(one["ids"] == other["ids"] for one, other in pairs), f"{name}: rounding changes what is written"
        furthest = max(abs(one["score"] - other["score"]) for one, other in pairs)
        assert furthest < TOLERANCE
        models[".".join([name, *more])] = made
        written = [one["ids"] for one, _ in pairs]
        ended = sum(ids[-1] in made["ends"] for ids in written)
        print(
            f"{path.name}: {name} {' '.join(more)}: {len(written)} outputs, {ended} ended before the last step,"
            f" {len({tuple(ids) for ids in written})} different, {min(map(len, written))} to {max(map(len, written))}"
            f" tokens; float64 differs by {furthest:.1e} in a score"
        )
    path.write_text(json.dumps({"max_new_tokens": STEPS, "models": models, "versions": versions}) + "\n")
