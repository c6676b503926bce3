//! Telly writes what transformers' `generate` writes, and by the reference's rule what UniXcoder's own
//! code does, token for token; and the same with keys and values kept as without, alone as beside
//! others.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

use crate::support::{DECODERS, Golden as HiddenGolden, goldens, python, run_python};
use ndarray::{Array1, Array2};
use serde_json::Value;
use telly::checkpoint::{AttentionPattern, Checkpoint, PrefixRule};
use telly::frozen::onnx::{self, Decoding};
use telly::frozen::{
    DecoderSession, FrozenPrecision, KeysAndValues, ProviderChoice, Runtime, SessionOptions, Step,
};
use telly::generation::{
    BeamRule, Decoder, EarlyStopping, Error, Generated, GenerationSettings, Sampling,
};
use telly::ragged::Ragged;

/// Of a score; the goldens' own distance from float64 is below 1e-5.
const TOLERANCE: f64 = 1e-3;
const MODELS: [&str; 4] = [
    "llama-tiny",
    "qwen2-tiny",
    "unixcoder-tiny.encoder-decoder",
    "unixcoder-tiny.decoder-only",
];

fn options() -> SessionOptions {
    SessionOptions {
        provider: ProviderChoice::Cpu,
        threads: Some(1),
        ..SessionOptions::default()
    }
}

fn runtime() -> Runtime {
    Runtime::load(None).expect("ONNX Runtime")
}

fn checkpoint(name: &str) -> Checkpoint {
    let (folder, mode) = name.split_once('.').unwrap_or((name, "decoder-only"));
    let mut checkpoint = Checkpoint::open(&goldens().join(folder)).expect("a checkpoint");
    checkpoint.config.attention_pattern = match mode {
        "decoder-only" => AttentionPattern::Causal,
        _ => AttentionPattern::Prefix(PrefixRule {
            separator: 2,
            occurrence: 2,
            padded_source: None,
        }),
    };
    checkpoint
}

fn decoder(checkpoint: &Checkpoint) -> Decoder {
    Decoder::new(&runtime(), checkpoint, &options()).expect("a decoder")
}

/// A model of `decoding.json`.
struct Golden {
    made: Value,
    steps: usize,
}

impl Golden {
    fn read(model: &str) -> Self {
        let text = fs_err::read_to_string(goldens().join("decoding.json")).expect("a golden");
        let all: Value = serde_json::from_str(&text).expect("JSON");
        Self {
            made: all["models"][model].clone(),
            steps: all["max_new_tokens"].as_u64().expect("a number") as usize,
        }
    }

    fn cases(&self) -> &[Value] {
        self.made["cases"].as_array().expect("cases")
    }

    /// Each prompt with the tokens that a text starts with.
    fn prompts(&self) -> Ragged<u32> {
        let start = ids(&self.made["start"]);
        let mut prompts = Ragged::new(1);
        for case in self.cases() {
            prompts.push(&[ids(&case["prompt"]), start.clone()].concat());
        }
        prompts
    }

    fn settings(&self) -> GenerationSettings {
        GenerationSettings {
            max_new_tokens: self.steps,
            stop_tokens: ids(&self.made["ends"]),
            ..GenerationSettings::default()
        }
    }

    /// The settings of one of a case's beams.
    fn beam_settings(&self, beam: &Value) -> GenerationSettings {
        let size = |name: &str| beam[name].as_u64().map(|size| size as usize);
        let settings = self.settings();
        let Some(beam_size) = size("num_beams") else {
            return GenerationSettings {
                beam_size: size("beam_size").expect("a size"),
                beam_rule: BeamRule::Reference,
                ..settings
            };
        };
        GenerationSettings {
            beam_size,
            length_penalty: beam["length_penalty"].as_f64().expect("a number"),
            early_stopping: match &beam["early_stopping"] {
                Value::Bool(true) => EarlyStopping::True,
                Value::Bool(false) => EarlyStopping::False,
                _ => EarlyStopping::Never,
            },
            ..settings
        }
    }
}

fn ids(value: &Value) -> Vec<u32> {
    let ids = value.as_array().into_iter().flatten();
    ids.map(|id| id.as_u64().expect("an id") as u32).collect()
}

/// `found` with its end is `expected`'s tokens, at its score.
fn check(found: &Generated, expected: &Value, about: &str) -> f64 {
    let tokens: Vec<u32> = found.ids.iter().copied().chain(found.end).collect();
    assert_eq!(tokens, ids(&expected["ids"]), "{about}");
    assert_eq!(found.finished, found.end.is_some());
    let score = expected["score"].as_f64().expect("a score");
    let difference = (found.score - score).abs();
    assert!(
        difference < TOLERANCE,
        "{about}: {} for {score}",
        found.score
    );
    difference
}

fn texts(
    decoder: &mut Decoder,
    prompts: &Ragged<u32>,
    settings: &GenerationSettings,
) -> Vec<Generated> {
    let mut told = Vec::new();
    let texts = decoder.generate((0, prompts), settings, &mut |new| told.push(new));
    assert!(told.iter().all(|&new| new > 0), "{told:?}");
    assert_eq!(told.iter().sum::<usize>(), prompts.len());
    texts.expect("texts")
}

#[test]
fn greedy_decoding_writes_the_same() {
    for model in MODELS {
        let golden = Golden::read(model);
        let found = texts(
            &mut decoder(&checkpoint(model)),
            &golden.prompts(),
            &golden.settings(),
        );
        let pairs = found.iter().zip(golden.cases());
        let furthest = pairs.map(|(found, case)| check(found, &case["greedy"], model));
        println!(
            "{model}: largest difference of a score {:.1e}",
            furthest.fold(0.0, f64::max)
        );
    }
}

#[test]
fn beams_write_the_same() {
    for model in MODELS {
        let golden = Golden::read(model);
        let (mut decoder, prompts) = (decoder(&checkpoint(model)), golden.prompts());
        let beams = golden.cases()[0]["beams"].as_array().expect("beams").len();
        let (mut furthest, mut ended) = (0.0_f64, 0);
        for beam in 0..beams {
            let settings = golden.beam_settings(&golden.cases()[0]["beams"][beam]);
            let found = texts(&mut decoder, &prompts, &settings);
            for (case, (found, expected)) in found.iter().zip(golden.cases()).enumerate() {
                let about = format!("{model}, case {case}, {settings:?}");
                furthest = furthest.max(check(found, &expected["beams"][beam], &about));
                ended += usize::from(found.finished);
            }
        }
        println!(
            "{model}: {beams} settings, {ended} texts ended; largest difference of a score {furthest:.1e}"
        );
    }
}

/// How prompts are put together changes nothing but rounding.
#[test]
fn a_text_is_the_same_alone_and_beside_others() {
    for model in MODELS {
        let golden = Golden::read(model);
        let (mut decoder, prompts) = (decoder(&checkpoint(model)), golden.prompts());
        let beams = golden.beam_settings(&golden.cases()[0]["beams"][0]);
        let sampling = GenerationSettings {
            sampling: Some(Sampling {
                seed: 3,
                ..Sampling::default()
            }),
            ..golden.settings()
        };
        for settings in [golden.settings(), beams, sampling] {
            let together = texts(&mut decoder, &prompts, &settings);
            for batch in [1, 4] {
                let batch = Some(batch);
                let settings = GenerationSettings {
                    batch,
                    ..settings.clone()
                };
                for (one, other) in texts(&mut decoder, &prompts, &settings)
                    .iter()
                    .zip(&together)
                {
                    assert_eq!((&one.ids, one.end), (&other.ids, other.end), "{settings:?}");
                    assert!((one.score - other.score).abs() < 1e-4);
                }
            }
        }
    }
}

/// Runs `ids` of one sequence, of which `before` are in `states`.
fn step(
    session: &mut DecoderSession,
    sequence: &[u32],
    before: usize,
    prefix_length: usize,
    first_position: usize,
    states: KeysAndValues,
) -> (Vec<f32>, KeysAndValues) {
    let length = sequence.len() - before;
    let shape = (1, length);
    let step = Step {
        ids: Array2::from_shape_fn(shape, |(_, place)| i64::from(sequence[before + place])),
        mask: Array2::ones((1, sequence.len())),
        positions: Array2::from_shape_fn(shape, |(_, place)| {
            (first_position + before + place) as i64
        }),
        prefix_lengths: Array1::from_elem(1, prefix_length as i64),
        last_tokens: Array1::from_elem(1, length as i64 - 1),
    };
    session.run(step, states).expect("logits")
}

/// Keys and values that are kept say what computing everything anew says.
#[test]
fn kept_keys_and_values_change_nothing() {
    for model in MODELS.into_iter().chain(DECODERS) {
        let checkpoint = checkpoint(model);
        let mut session = DecoderSession::new(&runtime(), &checkpoint, &options()).expect("one");
        let first_position = if model.starts_with("unixcoder") { 2 } else { 0 };
        let mut sequence = vec![0, 9, 2, 30, 31, 2, 19];
        let prefix_length = checkpoint.config.attention_pattern.prefix_length(&sequence);
        let (mut before, mut kept) = (0, session.nothing(1).expect("nothing"));
        let mut furthest = 0.0_f32;
        for _ in 0..12 {
            let place = (prefix_length, first_position);
            let (logits, states) = step(&mut session, &sequence, before, place.0, place.1, kept);
            let nothing = session.nothing(1).expect("nothing");
            let (anew, _) = step(&mut session, &sequence, 0, place.0, place.1, nothing);
            let pairs = logits.iter().zip(&anew);
            let differences = pairs.map(|(one, other)| (one - other).abs());
            furthest = differences.fold(furthest, f32::max);
            (before, kept) = (sequence.len(), states);
            let best = (0..anew.len()).max_by(|&one, &other| anew[one].total_cmp(&anew[other]));
            sequence.push(best.expect("a vocabulary") as u32);
        }
        println!("{model}: largest difference of a logit {furthest:.1e}");
        assert!(furthest < 1e-4, "{model}: {furthest}");
    }
}

/// As in the reference's training, a target's positions go on behind its source's padding: at once, and
/// token by token.
#[test]
fn positions_go_on_behind_the_padding() {
    let golden = HiddenGolden::read("unixcoder-tiny.encoder-decoder-padded.hidden.safetensors");
    let mut checkpoint = checkpoint("unixcoder-tiny.encoder-decoder");
    let padded = golden.metadata["padded_source_length"].parse();
    checkpoint.config.attention_pattern = AttentionPattern::Prefix(PrefixRule {
        separator: 2,
        occurrence: 2,
        padded_source: Some(padded.expect("a number")),
    });
    let (mut decoder, sequences) = (decoder(&checkpoint), golden.sequences());
    let settings = |max_new_tokens| GenerationSettings {
        max_new_tokens,
        ..GenerationSettings::default()
    };
    let (states, width) = (golden.floats("hidden.3"), checkpoint.config.hidden_size);
    let shape = [checkpoint.config.vocabulary_size, width];
    let words = checkpoint
        .weights
        .tensor(&checkpoint.config.language_head().name, &shape);
    let words = words.expect("the embeddings");
    for (row, text) in texts(&mut decoder, &sequences, &settings(1))
        .iter()
        .enumerate()
    {
        let last = (sequences.offsets()[row + 1] - 1) * width;
        let state = &states[last..last + width];
        let logits = words.chunks_exact(width).map(|word| {
            let products = word.iter().zip(state);
            products.map(|(a, b)| f64::from(*a) * b).sum()
        });
        let logits: Vec<f64> = logits.collect();
        let best = logits.iter().copied().fold(f64::MIN, f64::max);
        let sum: f64 = logits.iter().map(|logit| (logit - best).exp()).sum();
        assert_eq!(logits[text.ids[0] as usize].to_bits(), best.to_bits());
        assert!((text.score + sum.ln()).abs() < 1e-4, "{}", text.score);
    }
    let at_once = texts(&mut decoder, &sequences, &settings(4));
    let mut prompts: Vec<Vec<u32>> = sequences.iter().map(<[u32]>::to_vec).collect();
    let mut scores = vec![0.0; prompts.len()];
    for _ in 0..4 {
        let all = prompts.iter().map(Vec::as_slice).collect::<Ragged<u32>>();
        for (row, text) in texts(&mut decoder, &all, &settings(1)).iter().enumerate() {
            prompts[row].extend(&text.ids);
            scores[row] += text.score;
        }
    }
    for (row, text) in at_once.iter().enumerate() {
        assert_eq!(text.ids, prompts[row][sequences.length(row)..]);
        assert!((text.score - scores[row]).abs() < 1e-4);
    }
}

fn sampled(seed: u64, temperature: f64) -> Sampling {
    Sampling {
        temperature,
        seed,
        ..Sampling::default()
    }
}

#[test]
fn a_seed_decides_what_is_drawn() {
    let golden = Golden::read("llama-tiny");
    let (mut decoder, prompts) = (decoder(&checkpoint("llama-tiny")), golden.prompts());
    let mut draw = |sampling| {
        let settings = GenerationSettings {
            sampling: Some(sampling),
            ..golden.settings()
        };
        texts(&mut decoder, &prompts, &settings)
    };
    let first = draw(sampled(1, 1.0));
    assert_eq!(first, draw(sampled(1, 1.0)));
    assert_ne!(first, draw(sampled(2, 1.0)));
    for (cold, case) in draw(sampled(1, 1e-6)).iter().zip(golden.cases()) {
        check(cold, &case["greedy"], "next to no temperature");
    }
}

/// The first token over many prompts that are all the same, each with its own random numbers.
#[test]
fn tokens_are_drawn_as_probable_as_they_are() {
    const DRAWS: usize = 4000;
    /// Tokens expected less often are counted together.
    const LEAST: f64 = 8.0;
    let checkpoint = checkpoint("llama-tiny");
    let golden = Golden::read("llama-tiny");
    let prompts = golden.prompts();
    let prompt = prompts.sequence(1);
    let mut session = DecoderSession::new(&runtime(), &checkpoint, &options()).expect("a session");
    let nothing = session.nothing(1).expect("nothing");
    let (logits, _) = step(&mut session, prompt, 0, 0, 0, nothing);
    let temperature = 0.8;
    let weights = logits
        .iter()
        .map(|logit| (f64::from(*logit) / temperature).exp());
    let weights: Vec<f64> = weights.collect();
    let sum: f64 = weights.iter().sum();
    let same = prompts.gather(&vec![1; DRAWS]);
    let settings = GenerationSettings {
        max_new_tokens: 1,
        sampling: Some(sampled(11, temperature)),
        batch: Some(500),
        stop_tokens: Vec::new(),
        ..golden.settings()
    };
    let mut counts = vec![0.0; logits.len()];
    for text in texts(&mut decoder(&checkpoint), &same, &settings) {
        counts[text.ids[0] as usize] += 1.0;
    }
    let (mut square, mut bins, mut rare) = (0.0, 0, [0.0, 0.0]);
    for (weight, count) in weights.iter().zip(counts) {
        let expected = weight / sum * DRAWS as f64;
        if expected < LEAST {
            rare = [rare[0] + expected, rare[1] + count];
            continue;
        }
        square += (count - expected).powi(2) / expected;
        bins += 1;
    }
    square += (rare[1] - rare[0]).powi(2) / rare[0].max(f64::MIN_POSITIVE);
    // With `bins` degrees of freedom: its mean is that, its variance twice.
    let freedom = f64::from(bins);
    println!("chi-square {square:.1} of {bins} degrees of freedom");
    assert!(bins >= 10, "{bins}: too few to say anything");
    assert!(square < freedom + 4.0 * (2.0 * freedom).sqrt(), "{square}");
}

#[test]
fn what_cannot_be_gone_on_with_is_refused() {
    let golden = Golden::read("unixcoder-tiny.decoder-only");
    let mut checkpoint = checkpoint("unixcoder-tiny.decoder-only");
    let longest = checkpoint.config.longest_sequence();
    let mut decoder = decoder(&checkpoint);
    let settings = GenerationSettings {
        stop_tokens: Vec::new(),
        ..golden.settings()
    };
    let mut generate = |prompt: &[u32]| {
        let prompts = Ragged::from_iter([prompt]);
        decoder.generate((0, &prompts), &settings, &mut |_| {})
    };
    assert!(matches!(generate(&[]), Err(Error::Empty { prompt: 0 })));
    let filled = vec![7; longest];
    // The position of the last token is not needed: it is written, and read by nothing.
    let last = generate(&filled).expect("a text");
    assert_eq!((last[0].ids.len(), last[0].finished), (1, false));
    assert_eq!(generate(&filled[2..]).expect("a text")[0].ids.len(), 3);
    let over = generate(&vec![7; longest + 1]);
    assert!(matches!(over, Err(Error::TooLong { prompt: 0, .. })));
    checkpoint.config.attention_pattern = AttentionPattern::Bidirectional;
    let refused = Decoder::new(&runtime(), &checkpoint, &options());
    assert!(matches!(refused, Err(Error::NotADecoder)));
}

/// A trained output matrix takes the place of the embeddings'.
#[test]
fn a_trained_output_matrix_is_used() {
    let golden = Golden::read("qwen2-tiny");
    let mut checkpoint = checkpoint("qwen2-tiny");
    let before = texts(
        &mut decoder(&checkpoint),
        &golden.prompts(),
        &golden.settings(),
    );
    let shape = [
        checkpoint.config.vocabulary_size,
        checkpoint.config.hidden_size,
    ];
    let head = checkpoint.config.language_head();
    assert!(head.tied);
    let mut matrix = checkpoint
        .weights
        .tensor(&head.name, &shape)
        .expect("a matrix");
    checkpoint
        .weights
        .replace("lm_head.weight", &shape, matrix.clone());
    assert_eq!(
        texts(
            &mut decoder(&checkpoint),
            &golden.prompts(),
            &golden.settings()
        ),
        before
    );
    matrix.reverse();
    checkpoint.weights.replace("lm_head.weight", &shape, matrix);
    assert_ne!(
        texts(
            &mut decoder(&checkpoint),
            &golden.prompts(),
            &golden.settings()
        ),
        before
    );
}

/// The exported graph, with logits of all tokens, writes the same in Python.
#[test]
fn python_decodes_with_the_exported_graph() {
    let Some(python) = python() else { return };
    for model in MODELS {
        let folder = tempfile::tempdir().expect("a folder");
        let file = "model.onnx";
        let written = onnx::write_decoder(
            &checkpoint(model),
            Decoding::AllTokens,
            FrozenPrecision::Fp32,
            &[],
            file,
        );
        written
            .expect("a graph")
            .write(folder.path(), file)
            .expect("a file");
        let golden = goldens().join("decoding.json");
        let path = folder.path().join(file);
        print!(
            "{}",
            run_python(
                &python,
                "check_decoder.py",
                &[&path, &golden, model.as_ref()]
            )
        );
    }
}
