//! Metrics of generated text agree with sacreBLEU, rouge-score, fuzzywuzzy, difflib and Levenshtein, and
//! with what the paper published of the outputs that it keeps.
#![allow(clippy::print_stdout, reason = "a test that cannot be made says so")]

use std::path::{Path, PathBuf};

use crate::support::{goldens, project, stderr, telly, telly_json, telly_ok};
use serde_json::Value;
use telly::task::text_metrics::{
    TextPair, TextScores, TextTask, bleu_overlap, chrf, chrf_overlap, corpus_bleu, edit_similarity,
    edit_similarity_levenshtein, exact_match, matching_ratio, rouge_l, sentence_bleu,
};

fn golden() -> Value {
    let text = fs_err::read_to_string(goldens().join("text-metrics.json")).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

/// The pairs of the golden, each with what is known of it.
fn pairs(golden: &Value) -> Vec<(&Value, TextPair<'_>)> {
    let cases = golden["pairs"].as_array().expect("an array").iter();
    cases
        .map(|case| {
            let pair = TextPair {
                reference: case["reference"].as_str().expect("a text"),
                hypothesis: case["hypothesis"].as_str().expect("a text"),
            };
            (case, pair)
        })
        .collect()
}

#[track_caller]
fn assert_near(found: f64, wanted: f64, name: &str) {
    assert!(
        (found - wanted).abs() < 1e-9,
        "{name}: {found}, expected {wanted}"
    );
}

#[test]
fn every_pair_agrees_with_the_outside_references() {
    for (case, pair) in pairs(&golden()) {
        let swapped = TextPair {
            reference: pair.hypothesis,
            hypothesis: pair.reference,
        };
        for (field, found) in [
            ("corpus_bleu", corpus_bleu(&bleu_overlap(pair))),
            (
                "matching_ratio",
                matching_ratio(pair.hypothesis, pair.reference),
            ),
            (
                "matching_ratio_swapped",
                matching_ratio(pair.reference, pair.hypothesis),
            ),
            ("edit_similarity", edit_similarity(pair)),
            (
                "edit_similarity_levenshtein",
                edit_similarity_levenshtein(pair),
            ),
            // Neither knows which text is which.
            (
                "edit_similarity_levenshtein",
                edit_similarity_levenshtein(swapped),
            ),
            ("rouge_l", rouge_l(pair)),
            ("rouge_l", rouge_l(swapped)),
            ("chrf", chrf(&chrf_overlap(pair))),
        ] {
            let wanted = case[field].as_f64().expect("a number");
            assert_near(found, wanted, &format!("{}, {field}", case["name"]));
        }
        assert_eq!(
            Some(exact_match(pair)),
            case["exact"].as_bool(),
            "{}",
            case["name"]
        );
    }
}

#[test]
fn smoothed_sentence_bleu_agrees_with_sacrebleu() {
    let golden = golden();
    let known = pairs(&golden).into_iter().filter_map(|(case, pair)| {
        let wanted = case["sentence_bleu"].as_f64()?;
        assert_near(sentence_bleu(pair), wanted, &case["name"].to_string());
        Some(())
    });
    assert!(known.count() > 20);
}

#[test]
fn a_corpus_agrees_with_sacrebleu() {
    let golden = golden();
    let pairs: Vec<TextPair> = pairs(&golden).into_iter().map(|(_, pair)| pair).collect();
    let wanted = |field: &str| golden["corpus"][field].as_f64().expect("a number");
    let metrics = TextScores::generate(&pairs).metrics();
    assert_near(metrics.bleu.expect("BLEU"), wanted("bleu"), "BLEU");
    assert_near(metrics.chrf.expect("a metric"), wanted("chrf"), "chrF");
    let swapped: Vec<TextPair> = pairs
        .iter()
        .map(|pair| TextPair {
            reference: pair.hypothesis,
            hypothesis: pair.reference,
        })
        .collect();
    let metrics = TextScores::generate(&swapped).metrics();
    assert_near(
        metrics.bleu.expect("BLEU"),
        wanted("bleu_swapped"),
        "BLEU, swapped",
    );
}

/// What the paper keeps of its outputs; none where they are not.
fn stored() -> Option<PathBuf> {
    let folder = project().join("../shared/data/telly-outputs");
    if !folder.is_dir() {
        println!(
            "skipped: no {}, which holds the paper's outputs",
            folder.display()
        );
        return None;
    }
    Some(folder)
}

/// What `telly score` says of two files.
fn score(task: &str, references: &Path, predictions: &Path) -> Value {
    let [references, predictions] =
        [references, predictions].map(|path| path.display().to_string());
    telly_json(&[
        "score",
        "--task",
        task,
        "--references",
        &references,
        "--predictions",
        &predictions,
    ])
}

#[test]
fn the_papers_numbers_come_out_of_its_outputs() {
    let Some(folder) = stored() else {
        return;
    };
    // The published numbers; of generation's BLEU what its evaluator says with both sides the right way
    // round, as the published one is another split's, swapped.
    for (name, task, wanted) in [
        (
            "generation-base",
            "generate",
            &[("bleu", 33.02), ("em", 17.4)][..],
        ),
        (
            "generation-k3",
            "generate",
            &[("bleu", 32.99), ("em", 19.0)],
        ),
        (
            "completion-base",
            "complete",
            &[
                ("em", 21.4),
                ("edit_similarity", 51.92),
                ("edit_similarity_levenshtein", 52.73),
            ],
        ),
        (
            "completion-k5",
            "complete",
            &[("em", 20.4), ("edit_similarity", 51.66)],
        ),
        ("summarization-python-k5", "summarize", &[("bleu", 19.18)]),
        ("summarization-ruby-k5", "summarize", &[("bleu", 14.7)]),
    ] {
        let (references, predictions) = match task {
            "complete" => (
                "completion-answers.jsonl".into(),
                format!("{name}/predictions.txt"),
            ),
            _ => (format!("{name}/test.gold"), format!("{name}/test.output")),
        };
        let found = score(task, &folder.join(&references), &folder.join(&predictions));
        for (metric, wanted) in wanted {
            let value = found["metrics"][metric].as_f64().expect("a number");
            let rounded = (value * 100.0).round() / 100.0;
            assert!(
                (rounded - wanted).abs() < 1e-9,
                "{name}, {metric}: {value}, expected {wanted}"
            );
        }
    }
}

/// Two files with these contents.
fn files(references: (&str, &str), predictions: (&str, &str)) -> (tempfile::TempDir, [PathBuf; 2]) {
    let folder = tempfile::tempdir().expect("a folder");
    let paths = [references, predictions].map(|(name, content)| {
        let path = folder.path().join(name);
        fs_err::write(&path, content).expect("written");
        path
    });
    (folder, paths)
}

#[test]
fn summaries_are_matched_by_their_index() {
    let references = "0\tReturns the name .\n1\tOpens a file .\n2\tCloses it .\n";
    let predictions = "2\tCloses it .\n0\tReturns the name .\n1\t\n";
    let (_folder, [gold, output]) = files(("test.gold", references), ("test.output", predictions));
    let found = score("summarize", &gold, &output);
    assert_eq!(found["rows"], 3);
    let em = found["metrics"]["em"].as_f64().expect("a number");
    assert_near(em, 200.0 / 3.0, "em");
    let texts = TextScores::new(
        TextTask::Summarize,
        &[
            ("Returns the name .", "Returns the name ."),
            ("Opens a file .", ""),
            ("Closes it .", "Closes it ."),
        ]
        .map(|(reference, hypothesis)| TextPair {
            reference,
            hypothesis,
        }),
    );
    assert_eq!(found["metrics"], Value::Object(texts.metrics().to_json()));
}

#[test]
fn fields_of_records_are_scored_and_the_table_names_what_bleu_is() {
    let (_folder, [references, predictions]) = files(
        (
            "test.jsonl",
            "{\"code\": \"int a ;\"}\n{\"code\": \"int  b ;\"}\n",
        ),
        (
            "mine.jsonl",
            "{\"best\": \"int a ;\"}\n{\"best\": \"int c ;\"}\n",
        ),
    );
    let [references, predictions] =
        [references, predictions].map(|path| path.display().to_string());
    for (task, field, bleu) in [
        ("generate", "code", "corpus BLEU-4 "),
        ("summarize", "code", "sentence BLEU-4 (smoothed) "),
    ] {
        let output = telly_ok(&[
            "score",
            "--task",
            task,
            "--references",
            &references,
            "--reference-field",
            field,
            "--predictions",
            &predictions,
            "--prediction-field",
            "best",
        ]);
        let table = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(table.contains(bleu), "{table}");
        assert!(
            table
                .lines()
                .any(|line| line.starts_with("exact match") && line.ends_with("  50.0000")),
            "{table}"
        );
    }
}

#[test]
fn files_that_do_not_fit_are_refused() {
    let gold = ("test.gold", "0\ta\n1\tb\n");
    for (predictions, words) in [
        (
            ("mine.txt", "a\n"),
            &["mine.txt` has 1 texts, expected 2", "test.gold", "hint: "][..],
        ),
        (
            ("mine.txt", "a\nb\n"),
            &[
                "test.gold` begins with an index and a tab, not every line of",
                "hint: ",
            ],
        ),
        (
            ("mine.txt", "0\ta\n0\tb\n"),
            &["mine.txt`, line 2: the index 0 is there already, in line 1"],
        ),
        (
            ("mine.txt", "0\ta\n7\tb\n"),
            &["test.gold`, line 2:", "has no line with the index 1"],
        ),
        (
            ("mine.jsonl", "{\"text\": \"a\"}\n"),
            &["line 1: no field `prediction`", "--prediction-field"],
        ),
        (("mine.txt", ""), &["holds no records"]),
    ] {
        let (_folder, [references, predictions]) = files(gold, predictions);
        let [references, predictions] =
            [references, predictions].map(|path| path.display().to_string());
        let mut command = telly(&[
            "score",
            "--task",
            "summarize",
            "--references",
            &references,
            "--predictions",
            &predictions,
        ]);
        let output = command.output().expect("telly runs");
        let errors = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        for word in words {
            assert!(errors.contains(word), "{errors}");
        }
    }
}
