//! Metrics agree with scikit-learn and NumPy.

mod support;

use serde_json::Value;
use support::goldens;
use telly::task::{
    ClassificationMetrics, MultiLabelMetrics, RankingMetrics, RegressionMetrics, rank_of,
};

fn reference() -> Value {
    let text = fs_err::read_to_string(goldens().join("metrics.json")).expect("a golden file");
    serde_json::from_str(&text).expect("JSON")
}

fn array<'a>(value: &'a Value, key: &str) -> &'a Vec<Value> {
    value[key].as_array().expect("an array")
}

/// The numbers of `case`, with the name of each and where it is found.
fn compare(case: &Value, found: &[(&str, f64)]) {
    for (field, number) in found {
        assert_same(
            *number,
            &case[*field],
            &format!("{}, {field}", case["name"]),
        );
    }
}

#[test]
fn sets_and_numbers_agree_with_scikit_learn_and_scipy() {
    let text = fs_err::read_to_string(goldens().join("classifier-metrics.json"));
    let golden: Value = serde_json::from_str(&text.expect("a golden")).expect("JSON");
    for case in array(&golden, "sets") {
        let decisions = |field: &str| -> Vec<Vec<u8>> {
            serde_json::from_value(case[field].clone()).expect("a matrix")
        };
        let [known, found] = ["labels", "predictions"].map(decisions);
        let flat = |rows: &[Vec<u8>]| -> Vec<bool> {
            rows.concat().iter().map(|&member| member == 1).collect()
        };
        let metrics = MultiLabelMetrics::new(&flat(&found), &flat(&known), known[0].len(), 0.0);
        compare(
            case,
            &[
                ("micro_f1", metrics.micro_f1),
                ("macro_f1", metrics.macro_f1),
                ("precision", metrics.precision),
                ("recall", metrics.recall),
                ("accuracy", metrics.accuracy),
            ],
        );
    }
    for case in array(&golden, "numbers") {
        let numbers = |field: &str| -> Vec<f32> {
            serde_json::from_value(case[field].clone()).expect("numbers")
        };
        let metrics = RegressionMetrics::new(&numbers("predictions"), &numbers("labels"), 0.0);
        compare(
            case,
            &[
                ("pearson", metrics.pearson),
                ("spearman", metrics.spearman),
                ("mse", metrics.mse),
            ],
        );
    }
}

/// Classes of labels and predictions by their first appearance, and how many there are.
fn classes(case: &Value) -> (Vec<i64>, Vec<u32>, usize) {
    let mut known: Vec<&Value> = Vec::new();
    let mut class = |label| {
        known
            .iter()
            .position(|&other| other == label)
            .unwrap_or_else(|| {
                known.push(label);
                known.len() - 1
            })
    };
    let labels: Vec<usize> = array(case, "labels").iter().map(&mut class).collect();
    let predictions: Vec<usize> = array(case, "predictions").iter().map(&mut class).collect();
    let labels = labels
        .into_iter()
        .map(|class| i64::try_from(class).expect("small"));
    let predictions = predictions
        .into_iter()
        .map(|class| u32::try_from(class).expect("small"));
    (labels.collect(), predictions.collect(), known.len())
}

fn assert_same(found: f64, expected: &Value, what: &str) {
    let expected = expected.as_f64().expect("a number");
    assert!(
        (found - expected).abs() < 1e-12,
        "{what}: {found}, expected {expected}"
    );
}

#[test]
fn classification_agrees_with_scikit_learn() {
    for case in array(&reference(), "classification") {
        let (labels, predictions, count) = classes(case);
        // One class more than occurs: it counts for nothing.
        let metrics = ClassificationMetrics::new(&predictions, &labels, count + 1, 0.0);
        let name = case["name"].to_string();
        assert_same(metrics.accuracy, &case["accuracy"], &name);
        assert_same(metrics.f1, &case["macro_f1"], &name);
    }
}

#[test]
fn ranking_agrees_with_numpy() {
    for case in array(&reference(), "ranking") {
        let right = array(case, "right");
        let ranks: Vec<usize> = array(case, "scores")
            .iter()
            .zip(right)
            .map(|(scores, right)| {
                let scores: Vec<f32> = serde_json::from_value(scores.clone()).expect("scores");
                let right: usize = serde_json::from_value(right.clone()).expect("an index");
                rank_of(right, &scores)
            })
            .collect();
        let expected: Vec<usize> = serde_json::from_value(case["ranks"].clone()).expect("ranks");
        assert_eq!(ranks, expected);
        let metrics = RankingMetrics::new(&ranks, 0.0);
        let name = case["name"].to_string();
        assert_same(metrics.mean_reciprocal_rank, &case["mrr"], &name);
        assert_same(metrics.recall_at_1, &case["recall"]["1"], &name);
        assert_same(metrics.recall_at_5, &case["recall"]["5"], &name);
        assert_same(metrics.recall_at_10, &case["recall"]["10"], &name);
    }
}
