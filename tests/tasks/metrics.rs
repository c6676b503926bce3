//! Metrics agree with scikit-learn and NumPy.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]

use crate::support::goldens;
use candle_core::{Device, Tensor};
use serde_json::Value;
use telly::task::{
    ClassificationMetrics, MultiLabelMetrics, PairMetrics, RankingMetrics, RegressionMetrics,
    RetrievalMetrics, average_precision_at_r, rank_of,
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
        assert_same(metrics.precision, &case["macro_precision"], &name);
        assert_same(metrics.recall, &case["macro_recall"], &name);
    }
}

#[test]
fn pairs_agree_with_scikit_learn() {
    for case in array(&reference(), "binary") {
        let labels: Vec<i64> = serde_json::from_value(case["labels"].clone()).expect("labels");
        let scores: Vec<f32> = serde_json::from_value(case["predictions"].clone()).expect("scores");
        let metrics = PairMetrics::new(&scores, &labels, 0.5, 0.0);
        let name = case["name"].to_string();
        assert_same(metrics.accuracy, &case["accuracy"], &name);
        assert_same(metrics.precision, &case["precision"], &name);
        assert_same(metrics.recall, &case["recall"], &name);
        assert_same(metrics.f1, &case["f1"], &name);
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
                rank_of(right, &scores, |_| false)
            })
            .collect();
        let expected: Vec<usize> = serde_json::from_value(case["ranks"].clone()).expect("ranks");
        assert_eq!(ranks, expected);
        let metrics = RankingMetrics::new(&ranks, None, 0.0);
        let name = case["name"].to_string();
        assert_same(metrics.mean_reciprocal_rank, &case["mrr"], &name);
        assert_same(metrics.recall_at_1, &case["recall"]["1"], &name);
        assert_same(metrics.recall_at_5, &case["recall"]["5"], &name);
        assert_same(metrics.recall_at_10, &case["recall"]["10"], &name);
        let limit: usize = serde_json::from_value(case["limit"].clone()).expect("a rank");
        let limited = RankingMetrics::new(&ranks, Some(limit), 0.0);
        assert_same(limited.mean_reciprocal_rank, &case["limited_mrr"], &name);
        assert_same(limited.recall_at_10, &case["recall"]["10"], &name);
    }
}

/// A model that puts everything in one place must not look like a perfect one.
#[test]
fn ties_and_what_is_no_number_count_against_the_model() {
    let same = |other: usize| other == 2;
    assert_eq!(rank_of(0, &[0.5, 0.5, 0.5, 0.5], |_| false), 4);
    // The right code twice is not one more to be beaten by.
    assert_eq!(rank_of(0, &[0.5, 0.5, 0.5, 0.25], same), 2);
    assert_eq!(rank_of(0, &[f32::NAN; 3], |_| false), 3);
    assert_eq!(rank_of(0, &[0.5, f32::NAN, 0.25], |_| false), 2);
    let precision = average_precision_at_r(0, &[1.0, f32::NAN, f32::NAN, 0.5], &[0, 0, 1, 0]);
    // A stranger, then one of two: half of a half.
    assert!((precision - 0.25).abs() < 1e-12, "{precision}");
}

#[test]
fn retrieval_agrees_with_the_brute_force() {
    for case in array(&reference(), "retrieval") {
        let groups: Vec<i64> = serde_json::from_value(case["groups"].clone()).expect("groups");
        let expected = array(case, "precisions");
        for (row, (scores, expected)) in array(case, "scores").iter().zip(expected).enumerate() {
            let scores: Vec<f32> = serde_json::from_value(scores.clone()).expect("scores");
            let found = average_precision_at_r(row, &scores, &groups);
            let name = format!("{}, row {row}", case["name"]);
            // A group of one has nothing to find.
            let none = Value::from(0.0);
            let expected = if expected.is_null() { &none } else { expected };
            assert_same(found, expected, &name);
        }
    }
}

/// Vectors drawn at random, some the same: the mean over rows, and a loss by its definition.
#[test]
fn retrieval_of_vectors_is_what_its_rows_are() {
    let mut state = 7u64;
    let mut draw = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for rows in [2usize, 5, 70, 150] {
        let groups: Vec<i64> = (0..rows)
            .map(|_| i64::try_from(draw(9)).expect("small"))
            .collect();
        let vectors: Vec<[f32; 2]> = (0..rows)
            .map(|_| {
                #[allow(clippy::cast_precision_loss, reason = "below 40")]
                let angle = draw(40) as f32 / 20.0;
                [angle.cos(), angle.sin()]
            })
            .collect();
        let tensor =
            Tensor::from_slice(vectors.as_flattened(), (rows, 2), &Device::Cpu).expect("a tensor");
        let metrics = RetrievalMetrics::new(&tensor, &groups).expect("metrics");
        let cosine =
            |a: usize, b: usize| vectors[a][0] * vectors[b][0] + vectors[a][1] * vectors[b][1];
        let (mut precisions, mut losses) = (Vec::new(), Vec::new());
        for row in 0..rows {
            let partners: Vec<usize> = (0..rows)
                .filter(|&other| other != row && groups[other] == groups[row])
                .collect();
            if partners.is_empty() {
                continue;
            }
            let scores: Vec<f32> = (0..rows).map(|other| cosine(row, other)).collect();
            precisions.push(average_precision_at_r(row, &scores, &groups));
            let power = |other: usize| (20.0 * f64::from(scores[other])).exp();
            let negatives: f64 = (0..rows)
                .filter(|&other| groups[other] != groups[row])
                .map(power)
                .sum();
            let of_partner =
                |&partner: &usize| -(power(partner) / (power(partner) + negatives)).ln();
            losses.push(partners.iter().map(of_partner).sum::<f64>() / partners.len() as f64);
        }
        let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len().max(1) as f64;
        assert!(
            (metrics.map_at_r - mean(&precisions)).abs() < 1e-9,
            "{rows}"
        );
        assert!(
            (metrics.loss - mean(&losses)).abs() < 1e-4,
            "{rows}: {} {}",
            metrics.loss,
            mean(&losses)
        );
    }
}
