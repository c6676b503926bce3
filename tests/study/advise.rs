//! `telly advise`: a pilot on a sample, and what it says about all of the data.

use std::path::Path;

use crate::support::{
    self, WRONG_INPUT, Workspace, fails, goldens, precompute, telly, telly_json, telly_ok, text,
    write_long_classification,
};
use serde_json::Value;

fn advise(work: &Workspace, out: &str) -> Vec<String> {
    let fixed = ["advise", "--task", "classify", "--max-length", "64"];
    let fixed = fixed.map(String::from).into_iter();
    let model = text(&goldens().join("bert-tiny")).to_owned();
    let train = text(&work.path("train.jsonl")).to_owned();
    let paths = ["--model".into(), model, "--train".into(), train];
    let small = "--rows 60 --seeds 1,2 --epochs 2 --provider cpu --freeze none,0..2 --out";
    fixed
        .chain(paths)
        .chain(small.split_whitespace().map(String::from))
        .chain([text(&work.path(out)).to_owned()])
        .collect()
}

#[test]
fn a_pilot_tells_what_all_of_the_data_costs() {
    let work = Workspace::new();
    let train = work.path("train.jsonl");
    write_long_classification(&train, 600);
    let arguments = advise(&work, "advice");
    let advice = telly_json(&arguments);
    assert_eq!(
        (&advice["rows"], &advice["pilot_rows"]),
        (&600.into(), &60.into())
    );
    let lines = |name: &str| {
        let text = fs_err::read_to_string(work.path(name)).expect("a sample");
        text.lines().map(String::from).collect::<Vec<_>>()
    };
    let (drawn, held_out) = (lines("advice/train.jsonl"), lines("advice/valid.jsonl"));
    assert_eq!((drawn.len(), held_out.len()), (60, 30));
    assert!(
        held_out.iter().all(|line| !drawn.contains(line)),
        "a row is in both"
    );
    let all = lines("train.jsonl");
    let parsed = |line: &str| serde_json::from_str::<Value>(line).expect("JSON");
    let all: Vec<Value> = all.iter().map(|line| parsed(line)).collect();
    assert!(drawn.iter().all(|line| all.contains(&parsed(line))));

    // Disk is that of the cache that is made of all of the data then.
    let predicted = &advice["predicted"];
    let base = advice["freeze"] == advice["base"];
    let freeze = if base {
        "none".into()
    } else {
        advice["freeze"].to_string()
    };
    let mut whole = precompute(
        "classify",
        &goldens().join("bert-tiny"),
        &train,
        &freeze,
        &work.path("cache"),
    );
    let length = whole
        .iter_mut()
        .find(|flag| *flag == "32")
        .expect("a length");
    *length = "64".into();
    let made = telly_json(&whole);
    let bytes = |value: &Value| value.as_f64().expect("bytes");
    let (told, found) = (bytes(&predicted["cache_bytes"]), bytes(&made["bytes"]));
    assert!(
        (told / found - 1.0).abs() < 0.02,
        "{told} told, {found} found"
    );
    // Ten times the steps.
    let rows = advice["pilot"]["rows"].as_array().expect("rows");
    let row = rows
        .iter()
        .find(|row| row["freeze"] == advice["freeze"])
        .expect("its row");
    let ratio = bytes(&predicted["epoch_seconds"]) / bytes(&row["epoch_seconds"]);
    assert!((ratio - 19.0 / 2.0).abs() < 1e-9, "{ratio}");
    for measured in [
        "train_peak_bytes",
        "precompute_peak_bytes",
        "precompute_seconds",
    ] {
        assert!(bytes(&predicted[measured]) > 0.0, "{measured}");
    }
    // The pilot learnt, and took the steps that all of the data will take.
    let losses = &advice["pilot_losses"];
    assert!(bytes(&losses["last"]) < bytes(&losses["first"]), "{losses}");
    assert_eq!(advice["pilot_epochs"], 19);

    // Layers are those of the best epoch of the base, which is told where it was not the last.
    let base = work.path("advice/runs/freeze-none/lr-5e-5/seed-1/summary.json");
    let base: Value = serde_json::from_slice(&fs_err::read(base).expect("a run")).expect("JSON");
    let early = format!("compared after epoch {} of 19", base["best_epoch"]);
    let told = advice["sentences"].to_string().contains(&early);
    assert_eq!(told, base["best_epoch"] != 19, "{early}");

    // It can be looked at.
    let (folder, page) = (work.path("advice"), work.path("advice.html"));
    telly_json(&["report", text(&folder), "--out", text(&page)]);
    let page = fs_err::read_to_string(page).expect("a page");
    for said in advice["sentences"].as_array().expect("sentences") {
        let said = said.as_str().expect("text");
        let escaped = said.replace('<', "&lt;").replace('>', "&gt;");
        let escaped = escaped.replace('\'', "&#39;");
        // There it begins with a capital.
        assert!(page.contains(&escaped[1..]), "{said}");
    }
    for heading in [
        "Advice advice",
        "Similarity of",
        "Pilot of advice",
        "What all of the data will cost",
    ] {
        assert!(page.contains(heading), "{heading}");
    }
    // The metric of two seeds is no reason to take a K.
    assert!(
        !page.contains("at learning rate"),
        "the sweep's rule speaks too"
    );

    // Nothing is trained again.
    let again = telly(&arguments).output().expect("telly runs");
    let said = support::stderr(&again);
    assert_eq!(said.matches("is finished").count(), 8, "{said}");
    let printed = String::from_utf8(again.stdout).expect("UTF-8");
    assert!(
        printed.contains("s of precompute") && printed.contains("60 of 600 records"),
        "{printed}"
    );
}

/// `arguments` without `flags` and their values.
fn without(mut arguments: Vec<String>, flags: &[&str]) -> Vec<String> {
    for flag in flags {
        let place = arguments.iter().position(|it| it == flag);
        let place = place.expect("there");
        arguments.drain(place..place + 2);
    }
    arguments
}

fn with(arguments: &[String], more: &[&str]) -> Vec<String> {
    let more = more.iter().map(ToString::to_string);
    arguments.iter().cloned().chain(more).collect()
}

/// The K of a pilot.
fn tried(advice: &Value) -> Vec<Value> {
    let rows = advice["pilot"]["rows"].as_array().expect("rows");
    rows.iter().map(|row| row["freeze"].clone()).collect()
}

/// What the runs of seed 1 in `folder` make of each row, compared by hand with what `advice` says.
fn says_what_the_rows_tell(folder: &Path, advice: &Value, lr: &str) {
    let scores = |freeze: &str| -> Vec<f64> {
        let run = folder.join(format!("runs/freeze-{freeze}/lr-{lr}/seed-1"));
        let (valid, file) = (folder.join("valid.jsonl"), folder.join("scores.jsonl"));
        let fixed = ["evaluate", "--run", text(&run), "--data", text(&valid)];
        telly_json(&[&fixed[..], &["--scores", text(&file)]].concat());
        let lines = fs_err::read_to_string(file).expect("scores");
        let score = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            line["score"].as_f64().expect("each row counts")
        };
        lines.lines().map(score).collect()
    };
    assert_ne!(advice["freeze"], "none", "there is something to compare");
    let chosen = advice["freeze"].to_string();
    let (chosen, base) = (scores(&chosen), scores("none"));
    assert_eq!(advice["difference"]["rows"], chosen.len());
    assert_eq!(advice["pilot_seeds"], 1);
    let said = advice["sentences"].to_string();
    if chosen == base {
        assert!(advice["difference"]["interval"].is_null(), "{advice}");
        let count = chosen.len();
        assert!(
            said.contains(&format!("none of the {count} rows")),
            "{said}"
        );
        return;
    }
    let differences = chosen.iter().zip(&base).map(|(one, other)| one - other);
    let rows = chosen.len() as f64;
    let mean = differences.clone().sum::<f64>() / rows;
    let squares = differences.map(|difference| (difference - mean).powi(2));
    let error = (squares.sum::<f64>() / (rows - 1.0) / rows).sqrt();
    let test = &advice["difference"];
    let number = |value: &Value| value.as_f64().expect("a number");
    assert!((number(&test["mean"]) - mean).abs() < 1e-12, "{test}");
    assert!(test["groups"].is_null(), "{test}");
    let reach = number(&test["interval"][1]) - mean;
    // Student's 97.5th percentile is between that of the normal distribution and 2.1 from 20 rows on.
    assert!(
        reach >= 1.95 * error && reach <= 2.1 * error,
        "{test}, {error}"
    );
    assert!(said.contains(&format!("by the {rows} rows")), "{said}");
}

/// Without K and seeds typed, the layers say which K are tried, and time how many seeds; more of it and
/// the same command goes on.
#[test]
fn time_decides_how_much_is_trained() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 200);
    let arguments = without(advise(&work, "advice"), &["--seeds", "--freeze"]);
    let within = |minutes| telly_json(&with(&arguments, &["--minutes", minutes]));
    let advice = within("0");
    assert_eq!(advice["pilot_seeds"], 1);
    // Two passes over 200 rows are 14 steps; there is time for one pass of 2.
    assert_eq!(
        (&advice["pilot_epochs"], &advice["pilot_epochs_wanted"]),
        (&1.into(), &7.into())
    );
    let layers = advice["similarities"]["layers"].as_array().expect("layers");
    let alike = layers
        .iter()
        .take_while(|layer| layer["pearson"].as_f64().expect("r") >= 0.98);
    let unchanged = alike.count().checked_sub(1);
    assert_eq!(advice["unchanged_layers"], serde_json::json!(unchanged));
    assert_eq!(advice["decided_by"], "similarity");
    let deepest = layers.len() - 2;
    let taken = unchanged.map(|unchanged| unchanged.min(deepest));
    assert_eq!(advice["freeze"], taken.map_or("none".into(), Value::from));
    says_what_the_rows_tell(&work.path("advice"), &advice, "5e-5");
    assert!(tried(&advice).contains(&advice["freeze"]), "{advice}");

    let more = within("60");
    assert_eq!(more["pilot_seeds"], 3);
    assert_eq!(more["decided_by"], "metric");
    assert_eq!(tried(&more), tried(&advice));
    // The runs that there were are not made anew, nor thrown away for want of time.
    assert_eq!(more["pilot_epochs"], 1);
    assert_eq!(within("0")["pilot_seeds"], 3);

    let typed = with(&arguments, &["--seeds", "1,2"]);
    let both = telly(&with(&typed, &["--minutes", "1"])).output();
    let both = both.expect("telly runs");
    assert_eq!(both.status.code(), Some(WRONG_INPUT));
    assert!(
        support::stderr(&both).contains("--minutes"),
        "both were taken"
    );
    // All steps of all seeds cannot be had of runs of fewer.
    fails(telly(&typed), WRONG_INPUT, &["7 times", "--seeds"]);
    let other = with(
        &without(arguments.clone(), &["--epochs"]),
        &["--epochs", "5"],
    );
    fails(telly(&other), WRONG_INPUT, &["--epochs", "other flags"]);
    let never = with(&arguments, &["--minutes", "nan"]);
    fails(telly(&never), WRONG_INPUT, &["--minutes"]);
}

/// With time for all steps, the one pass that told so is not kept.
#[test]
fn runs_take_all_steps_that_there_is_time_for() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 200);
    let arguments = without(advise(&work, "advice"), &["--seeds", "--freeze"]);
    let advice = telly_json(&with(&arguments, &["--minutes", "60"]));
    assert_eq!(
        (&advice["pilot_epochs"], &advice["pilot_epochs_wanted"]),
        (&7.into(), &7.into())
    );
    assert_eq!(advice["pilot_seeds"], 3);
    let summary = work.path("advice/runs/freeze-none/lr-5e-5/seed-1/summary.json");
    let summary: Value =
        serde_json::from_slice(&fs_err::read(summary).expect("a run")).expect("JSON");
    assert_eq!(summary["steps"], 14);
}

/// One seed of runs that differ: the rows tell by how much.
#[test]
fn the_rows_tell_two_runs_of_one_seed_apart() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 200);
    let arguments = without(advise(&work, "advice"), &["--seeds", "--epochs"]);
    let flags = ["--seeds", "1", "--lr", "1e-3", "--epochs", "5"];
    let advice = telly_json(&with(&arguments, &flags));
    says_what_the_rows_tell(&work.path("advice"), &advice, "1e-3");
    assert!(advice["difference"]["interval"].is_array(), "{advice}");
}

/// What has not changed the layers because it has learnt nothing is no reason to freeze them.
#[test]
fn a_pilot_that_learns_nothing_recommends_nothing() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 200);
    let arguments = without(advise(&work, "advice"), &["--seeds"]);
    let advice = telly_json(&with(&arguments, &["--seeds", "1", "--lr", "1e-9"]));
    assert_eq!(advice["unchanged_layers"], 3);
    assert_eq!(
        (&advice["freeze"], &advice["decided_by"]),
        (&"none".into(), &"nothing".into())
    );
    let said = advice["sentences"][0].as_str().expect("a sentence");
    assert!(said.contains("hardly learnt"), "{said}");
}

/// A run that fails costs itself alone.
#[test]
fn a_failed_run_is_told_and_the_rest_is_used() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 200);
    fs_err::create_dir_all(work.path("advice/runs")).expect("a folder");
    work.write("advice/runs/freeze-1", "in the way");
    let arguments = advise(&work, "advice");
    let failed = telly(&arguments).output().expect("telly runs");
    assert!(!failed.status.success());
    let said = support::stderr(&failed);
    assert!(said.contains("K = 1, learning rate 5e-5, seed 2"), "{said}");
    let advice = fs_err::read(work.path("advice/advice.json")).expect("advice");
    let advice: Value = serde_json::from_slice(&advice).expect("JSON");
    assert_eq!(
        tried(&advice),
        ["none".into(), Value::from(0), Value::from(2)]
    );
}

/// Layers are compared by the texts of the task, whatever their field is called.
#[test]
fn pairs_of_functions_are_compared_by_the_first() {
    let work = Workspace::new();
    let rows = (0..60).map(|row| {
        let (first, second) = (format!("int f{row} ( )"), format!("void g{} ( )", row / 2));
        serde_json::json!({ "func1": first, "func2": second, "label": row % 2 }).to_string() + "\n"
    });
    work.write("train.jsonl", &rows.collect::<String>());
    let fixed = advise(&work, "advice");
    let arguments = without(fixed, &["--task", "--seeds", "--freeze"]);
    let advice = telly_json(&with(&arguments, &["--task", "clone", "--minutes", "0"]));
    assert_eq!(advice["similarities"]["texts"], 20);
    assert_eq!(advice["similarities"]["max_length"], 64);
}

/// All of the data is read before anything is trained, and what is wrong with it is told of the user's file.
#[test]
fn wrong_records_are_told_before_anything_is_trained() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 100);
    let other = work.write("other.jsonl", "{\"text\": \"a\"}\n");
    let arguments = with(&advise(&work, "advice"), &["--valid", text(&other)]);
    let words = ["other.jsonl`, line 1", "label"];
    fails(telly(&arguments), WRONG_INPUT, &words);
    let unknown = work.write("other.jsonl", "{\"text\": \"a\", \"label\": \"new\"}\n");
    let arguments = with(&advise(&work, "advice"), &["--valid", text(&unknown)]);
    fails(telly(&arguments), WRONG_INPUT, &["label", "\"new\""]);
    assert!(!work.path("advice/runs").exists(), "a run was trained");
}

/// With one K there is nothing to compare.
#[test]
fn one_k_alone_is_not_advised() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 100);
    let arguments = without(advise(&work, "advice"), &["--seeds", "--freeze"]);
    let arguments = with(&arguments, &["--minutes", "0", "--freeze", "1"]);
    let advice = telly_json(&arguments);
    let sentences = advice["sentences"].to_string();
    assert!(sentences.contains("K = 1 alone is trained"), "{sentences}");
    assert!(!sentences.contains("take K"), "{sentences}");
}

/// Where groups are many and small, the sample has whole ones.
#[test]
fn a_sample_of_small_groups_has_partners() {
    let work = Workspace::new();
    let rows = (0..800).map(|row| {
        let group = row % 400;
        serde_json::json!({ "code": format!("int f{row} ( ) {group}"), "label": group }).to_string()
            + "\n"
    });
    work.write("train.jsonl", &rows.collect::<String>());
    let fixed = without(advise(&work, "advice"), &["--task", "--seeds", "--freeze"]);
    let advice = telly_json(&with(&fixed, &["--task", "clone", "--minutes", "0"]));
    assert_eq!(advice["pilot_rows"], 60);
    for (name, rows) in [("advice/train.jsonl", 60), ("advice/valid.jsonl", 30)] {
        let drawn = fs_err::read_to_string(work.path(name)).expect("a sample");
        let groups = drawn.lines().map(|line| {
            let record: Value = serde_json::from_str(line).expect("JSON");
            record["label"].as_i64().expect("a group")
        });
        let mut groups: Vec<i64> = groups.collect();
        assert_eq!(groups.len(), rows);
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(groups.len(), rows / 2, "{name}");
    }
}

/// What training changes in what the layers know of code is a part of the advice, where that is asked for.
#[test]
fn layers_are_probed_in_the_language_of_the_sample() {
    let work = Workspace::new();
    let rows = (0..90).map(|row| {
        let code = format!(
            "def f{row}(x):\n    if x > {row}:\n        return {}\n    return 'no'\n",
            row * 3
        );
        let label = ["odd", "even"][row % 2];
        serde_json::json!({ "text": code, "label": label }).to_string() + "\n"
    });
    work.write("train.jsonl", &rows.collect::<String>());
    let short = |out: &str| without(advise(&work, out), &["--seeds", "--freeze"]);
    let flags = ["--minutes", "0", "--language"];
    let arguments = with(&short("advice"), &[&flags[..], &["python"]].concat());
    let advice = telly_json(&arguments);
    let probes = &advice["probes"];
    assert_eq!(
        probes["texts"],
        serde_json::json!({ "train": 60, "test": 30 })
    );
    assert_eq!(probes["beside"], text(&goldens().join("bert-tiny")));
    let names: Vec<&Value> = probes["probes"]
        .as_array()
        .expect("probes")
        .iter()
        .map(|found| &found["probe"])
        .collect();
    assert_eq!(names, ["lexical", "structural"]);
    let said = |name: &str| {
        let sentences = advice["sentences"].as_array().expect("sentences").iter();
        let said = sentences.filter(|said| said.as_str().is_some_and(|said| said.contains(name)));
        said.count()
    };
    assert_eq!(
        [said("lexical probe"), said("structural probe")],
        [1, 1],
        "{advice}"
    );
    let page = work.path("advice.html");
    telly_ok(&["report", text(&work.path("advice")), "--out", text(&page)]);
    let page = fs_err::read_to_string(page).expect("a page");
    assert!(page.contains("Found by layer"), "no probes on the page");
    // Asked for again nothing is looked at twice, the seconds that it took are the same, and without the
    // flag what was found stays.
    let again = telly_json(&arguments);
    let unasked = telly_json(&with(&short("advice"), &["--minutes", "0"]));
    assert!(probes["seconds"].is_number() && advice["similarities"]["seconds"].is_number());
    for found in [&again, &unasked] {
        for name in ["probes", "similarities", "difference"] {
            assert_eq!(found[name], advice[name], "{name}");
        }
    }
    // What the commands cannot look at any more is left out, and said.
    let weights = "advice/runs/freeze-none/lr-5e-5/seed-1/model.safetensors";
    let mut bytes = fs_err::read(work.path(weights)).expect("a run's weights");
    let half = bytes.len() / 2;
    // Numbers that are none.
    bytes[half..].fill(u8::MAX);
    work.write_bytes(weights, &bytes);
    let output = telly_ok(&[&arguments[..], &["--json".into()]].concat());
    let left: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(
        left["probes"].is_null() && left["similarities"].is_null(),
        "{left}"
    );
    assert!(left["predicted"].is_object(), "{left}");
    let sentences = left["sentences"].to_string();
    assert!(sentences.contains("the layers are not probed"), "{left}");
    let said = support::stderr(&output);
    for what in ["the layers are not probed", "the layers are not compared"] {
        assert!(said.contains(what), "{said}");
    }
    // In another language none of it can be read, which is told before anything is trained.
    let arguments = with(&short("java"), &[&flags[..], &["java"]].concat());
    fails(
        telly(&arguments),
        WRONG_INPUT,
        &["0 functions to learn from and 0 to test on", "--language"],
    );
    assert!(!work.path("java/runs").exists(), "a run was trained");
}

#[test]
fn what_cannot_be_is_told() {
    let work = Workspace::new();
    work.write("train.txt", "1\t2\t1\n");
    work.write(
        "data.jsonl",
        "{\"idx\": 1, \"func\": \"a\"}\n{\"idx\": 2, \"func\": \"b\"}\n",
    );
    let model = goldens().join("bert-tiny");
    let (train, out) = (work.path("train.txt"), work.path("out"));
    let fixed = [
        "advise",
        "--task",
        "clone",
        "--model",
        text(&model),
        "--train",
        text(&train),
    ];
    let fixed = [&fixed[..], &["--out", text(&out)]].concat();
    fails(telly(&fixed), WRONG_INPUT, &["pairs", "sweep"]);
    write_long_classification(&work.path("train.jsonl"), 20);
    let mut few = advise(&work, "few");
    few.extend(["--rows", "2"].map(String::from));
    few.retain(|flag| flag != "60");
    let place = few.iter().position(|flag| flag == "--rows").expect("there");
    few.remove(place);
    fails(telly(&few), WRONG_INPUT, &["--rows 2"]);
    let arguments = without(advise(&work, "advice"), &["--freeze"]);
    let unprobed = with(&arguments, &["--freeze", "0,1", "--language", "java"]);
    fails(telly(&unprobed), WRONG_INPUT, &["--language", "add none"]);
}

/// Another sample is not taken for the one that the pilot was made of.
#[test]
fn another_sample_is_refused() {
    let work = Workspace::new();
    write_long_classification(&work.path("train.jsonl"), 200);
    let arguments = advise(&work, "advice");
    // A flag that was wrong before anything was made can be mended.
    let wrong = with(&arguments, &["--text-field", "nope"]);
    fails(telly(&wrong), WRONG_INPUT, &["no field `nope`"]);
    telly_json(&arguments);
    write_long_classification(&work.path("train.jsonl"), 300);
    fails(
        telly(&arguments),
        WRONG_INPUT,
        &["other data", "train.jsonl"],
    );
}
