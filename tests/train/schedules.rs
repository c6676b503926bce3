//! The learning rate of every step is that of transformers' schedulers.

use crate::support::goldens;
use clap::ValueEnum;
use serde_json::Value;
use telly::train::Schedule;

#[test]
fn every_step_as_in_transformers() {
    let text = fs_err::read_to_string(goldens().join("schedules.json")).expect("a golden");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let peak = golden["peak"].as_f64().expect("a rate");
    let cases = golden["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 15);
    for case in cases {
        let name = case["schedule"].as_str().expect("a name");
        let schedule = Schedule::from_str(name, false).expect("a schedule");
        let number =
            |field: &str| usize::try_from(case[field].as_u64().expect(field)).expect(field);
        let (warmup, steps) = (number("warmup"), number("steps"));
        let rates: Vec<f64> = serde_json::from_value(case["rates"].clone()).expect("rates");
        for (step, expected) in rates.into_iter().enumerate() {
            let found = schedule.learning_rate(step, warmup, steps, peak);
            assert!(
                (found - expected).abs() <= 1e-18,
                "{name}, {warmup} of {steps}, step {step}: {found}, expected {expected}"
            );
        }
    }
}
