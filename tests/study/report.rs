//! `telly report`: one page that needs nothing else, and says what the files say.

use std::path::Path;
use std::process::Command;

use crate::support::{
    self, Classification, WRONG_INPUT, Workspace, fails, names, python, stderr, telly, telly_json,
    telly_ok, text, train,
};
use serde_json::{Value, json};

fn read(path: &Path) -> String {
    fs_err::read_to_string(path).expect("readable")
}

/// Reads `page` as a browser would, by Python's own parsers, and complains of anything that is not
/// closed, that loads or runs something, or of a plot that is no XML. Prints what a reader sees.
const READER: &str = r##"
import re, sys
from html.parser import HTMLParser
from xml.etree import ElementTree
page = open(sys.argv[1], encoding="utf-8").read()
EMPTY = {"meta", "link", "br"}
class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.ids, self.text, self.hidden = [], [], [], 0
    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert tag not in {"script", "img", "iframe", "object", "embed", "image", "use"}, tag
        for name, value in attributes.items():
            assert not name.startswith("on"), name
            if name in {"href", "src"}:
                assert value.startswith("#") or value == "data:,", value
        if "id" in attributes:
            self.ids.append(attributes["id"])
        if tag not in EMPTY:
            self.open.append(tag)
    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.open.pop()
    def handle_endtag(self, tag):
        assert self.open.pop() == tag, (tag, self.getpos())
    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)
reader = Reader()
reader.feed(page)
reader.close()
assert not reader.open, reader.open
assert len(set(reader.ids)) == len(reader.ids), reader.ids
for target in re.findall(r'href="#([^"]*)"', page):
    assert target in reader.ids, target
plots = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
for plot in plots:
    ElementTree.fromstring(plot)
for word in ("http://", "https://", "<script", "url(", "@import"):
    assert word not in page, word
print(len(plots))
print("\n".join(text for text in reader.text if text.strip()))
"##;

/// What a reader of the page at `path` sees, the number of plots first; none without Python.
fn seen(path: &Path) -> Option<(usize, String)> {
    let python = python()?;
    let output = Command::new(python)
        .args(["-c", READER])
        .arg(path)
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", stderr(&output));
    let said = String::from_utf8(output.stdout).expect("UTF-8");
    let (plots, text) = said.split_once('\n').expect("a line");
    Some((plots.parse().expect("a number"), text.into()))
}

/// Of two K, one of them at two learning rates, as `telly sweep` writes it.
fn sweep() -> Value {
    let row = |freeze: Value, lr: f64, mean: f64, seconds: f64, best: bool, against: Value| {
        json!({
            "freeze": freeze,
            "lr": lr,
            "seeds": [1, 2, 3],
            "trainable_parameters": 21_241_152,
            "precompute_seconds": 12.5,
            "precompute_caches": 2,
            "cache_bytes": 34_000_000,
            "epoch_seconds": seconds,
            "train_seconds": seconds * 3.5,
            "peak_rss_bytes": 702_377_984,
            "valid": { "mean": mean - 0.01, "standard_deviation": 0.004 },
            "test": { "mean": mean, "standard_deviation": 0.0031 },
            "best_lr": best,
            "against_base": against,
        })
    };
    let against = |difference: f64, worse: bool| {
        json!({
            "difference": difference,
            "interval": [difference - 0.01, difference + 0.01],
            "p_value": if worse { 0.012 } else { 0.431 },
            "significantly_worse": worse,
        })
    };
    json!({
        "metric": "accuracy",
        "split": "test",
        "base": "none",
        "rows": [
            row(json!("none"), 5e-5, 0.9123, 41.25, true, Value::Null),
            row(json!(4), 5e-5, 0.9101, 9.75, true, against(-0.0022, false)),
            row(json!(4), 1e-4, 0.9042, 9.8, false, against(-0.0081, false)),
            row(json!(5), 5e-5, 0.8765, 5.5, true, against(-0.0358, true)),
        ],
        "cheapest_not_worse": { "freeze": 4, "lr": 5e-5 },
    })
}

/// As `telly rsa --json` prints it.
fn comparison() -> Value {
    let layer = |layer: usize, value: f64| {
        json!({
            "layer": layer,
            "pearson": value,
            "pearson_interval": [value - 0.02, value],
            "spearman": value - 0.1,
            "spearman_interval": null,
            "cka": if layer == 2 { Value::Null } else { json!(value) },
            "cka_interval": null,
        })
    };
    json!({
        "a": "models/<b>base",
        "b": "runs/mine",
        "texts": 1000,
        "layers": [layer(0, 1.0), layer(1, 0.987_654), layer(2, 0.75)],
    })
}

/// As `telly probe --json` prints it.
fn probes() -> Value {
    let layer = |layer: usize, value: f64| json!({ "layer": layer, "value": value, "weight": 0.5, "random_weights": value / 2.0, "interval": [value - 0.0123, value + 0.0123] });
    let probe = |name: &str, metric: &str| {
        json!({
            "probe": name,
            "metric": metric,
            "train": 1500,
            "test": 700,
            "chance": 0.125,
            "mixed": { "value": 0.912_345, "random_weights": 0.5 },
            "layers": [layer(0, 0.8), layer(1, 0.934_567)],
        })
    };
    json!({
        "model": "models/<i>base",
        "texts": { "train": 1500, "test": 700 },
        "seed": 0,
        "probes": [probe("lexical", "accuracy"), probe("syntactic", "mrr")],
    })
}

fn write_sweep(folder: &Path) {
    fs_err::create_dir_all(folder.join("runs")).expect("made");
    for (name, content) in [
        ("sweep.json", sweep().to_string()),
        (
            "sweep.toml",
            "task = \"classify\"\ntrain = \"<script>x</script>\"\n".into(),
        ),
    ] {
        fs_err::File::create(folder.join(name))
            .and_then(|mut file| std::io::Write::write_all(&mut file, content.as_bytes()))
            .expect("written");
    }
}

fn report(paths: &[&Path], out: &Path) -> Value {
    let mut arguments = vec!["report"];
    arguments.extend(paths.iter().map(|path| text(path)));
    arguments.extend(["--out", text(out)]);
    telly_json(&arguments)
}

/// Trains `run` of `work` with a validation split and `flags`; its summary.
fn train_validated(work: &Classification, flags: &str) -> Value {
    let mut precompute = work.precompute(
        &support::goldens().join("bert-tiny"),
        &work.path("train.jsonl"),
        "1",
    );
    precompute.args(["--valid", text(&work.path("other.jsonl"))]);
    assert!(precompute.status().expect("telly runs").success());
    telly_json(&train(&work.path("cache"), &work.path("run"), flags))
}

#[test]
fn a_run_is_reported_with_its_own_numbers() {
    let work = Classification::new();
    let (cache, run, out) = (work.path("cache"), work.path("run"), work.path("a.html"));
    let flags = "--epochs 3 --batch-size 8 --log-every 2 --lr 1e-3";
    let summary = train_validated(&work, flags);
    let made = report(&[&run], &out);
    assert_eq!(made["report"], text(&out));

    let page = read(&out);
    for metric in ["accuracy", "f1", "loss"] {
        let figure = &summary["valid"][metric];
        let shown = format!("{:.4}", figure.as_f64().expect("a number"));
        let shown = shown.strip_suffix(".0000").unwrap_or(&shown);
        assert!(
            page.contains(&format!(">{shown}</td>")),
            "{metric} {figure}"
        );
    }
    for (name, value) in summary.as_object().expect("an object") {
        if value.is_f64() {
            assert!(
                page.contains(&format!("title=\"{value}\"")),
                "{name} {value}"
            );
        }
    }
    let cache: Value = telly_json(&["cache", "inspect", text(&cache)]);
    for field in ["weights", "tokenizer", "config"] {
        let hash = cache["fingerprint"][field].as_str().expect("a hash");
        assert!(page.contains(&format!("<code>{hash}</code>")), "{field}");
    }
    let bytes = fs_err::read(run.join("model.safetensors")).expect("weights");
    assert!(page.contains(&blake3::hash(&bytes).to_hex().to_string()));
    if let Some((plots, seen)) = seen(&out) {
        assert_eq!(json!(plots), made["plots"]);
        // Loss, validation, learning rate, gradient norm.
        assert_eq!(plots, 4);
        let recipe = read(&run.join("recipe.toml"));
        for line in recipe.lines() {
            assert!(seen.contains(line), "no {line:?} in {seen}");
        }
    }

    // The same input makes the same page, in place of the old one.
    report(&[&run], &out);
    assert_eq!(read(&out), page);

    // A run that is killed leaves no summary and maybe half a line.
    std::fs::remove_file(run.join("summary.json")).expect("removed");
    let metrics = read(&run.join("metrics.jsonl"));
    let cut = &metrics[..metrics.len() / 2];
    work.0.write("run/metrics.jsonl", cut);
    report(&[&run], &out);
    let unfinished = read(&out);
    assert!(
        unfinished.contains("This run is not finished"),
        "{unfinished}"
    );
    assert!(unfinished.contains("step 2"), "{unfinished}");
    seen(&out);
}

#[test]
fn several_seeds_are_one_report() {
    let work = Classification::new();
    let (run, out) = (work.path("run"), work.path("a.html"));
    let flags = "--epochs 2 --batch-size 8 --log-every 2 --seeds 1,2,3";
    let summary = train_validated(&work, flags);
    report(&[&run], &out);
    let page = read(&out);
    let accuracy = &summary["valid"]["accuracy"];
    assert!(
        page.contains(&format!("title=\"{}\"", accuracy["mean"])),
        "{accuracy}"
    );
    if let Some((_, seen)) = seen(&out) {
        for words in ["seed 1", "seed 2", "seed 3", " ± ", "Training loss"] {
            assert!(seen.contains(words), "no {words:?} in {seen}");
        }
    }
    let seeds = ["seed-1", "seed-2"].map(|seed| run.join(seed));
    report(&[&seeds[0], &seeds[1]], &out);
    if let Some((_, seen)) = seen(&out) {
        assert!(seen.contains("Runs side by side"), "{seen}");
        assert!(seen.contains("Run run/seed-2"), "{seen}");
    }
    // Folders that are called alike are told apart.
    let other = work.path("other/run/seed-1");
    fs_err::create_dir_all(work.path("other/run")).expect("made");
    std::fs::rename(&seeds[1], &other).expect("moved");
    report(&[&seeds[0], &other], &out);
    let page = read(&out);
    for folder in [&seeds[0], &other] {
        let cell = format!("<th scope=\"row\">{}</th>", text(folder));
        assert!(page.contains(&cell), "no {cell} in {page}");
    }
}

#[test]
fn probes_are_shown_layer_by_layer() {
    let space = Workspace::new();
    let (out, plots) = (space.path("a.html"), space.path("svg"));
    let found = space.write("probe.json", &probes().to_string());
    let arguments = ["report", text(&found), "--out", text(&out)];
    let made = telly_json(&[&arguments[..], &["--plots", text(&plots)]].concat());
    // What was found, the weights, the lines.
    assert_eq!(made["plots"], 3);
    assert!(!read(&out).contains("<i>"));
    if let Some((count, seen)) = seen(&out) {
        assert_eq!(count, 3);
        for words in [
            "What the layers of <i>base know",
            "lexical: accuracy, syntactic: mrr",
            "0.9346 [0.9223, 0.9469]",
            "accuracy [95 %]",
            "0.9123",
            "0.4673",
            "random weights",
            "learnt from 1500, tested on 700; guessing gives 0.1250",
            "texts, train",
        ] {
            assert!(seen.contains(words), "no {words:?} in {seen}");
        }
    }
    let mut broken = probes();
    broken["probes"][0]["layers"] = json!([]);
    let broken = space.write("broken.json", &broken.to_string());
    fails(
        telly(&["report", text(&broken), "--out", text(&out)]),
        WRONG_INPUT,
        &[
            "broken.json` is not what `telly probe --json` prints",
            "telly probe MODEL",
        ],
    );
}

#[test]
fn a_study_is_sweeps_and_comparisons_on_one_page() {
    let space = Workspace::new();
    let (folder, out, plots) = (space.path("mine"), space.path("a.html"), space.path("svg"));
    write_sweep(&folder);
    let rsa = space.write("rsa.json", &comparison().to_string());
    let arguments = ["report", text(&folder), text(&rsa), "--out", text(&out)];
    let made = telly_json(&[&arguments[..], &["--plots", text(&plots)]].concat());
    // Quality, cost, epochs, memory; the heat map and the lines.
    assert_eq!(made["plots"], 6);
    assert_eq!(
        names(&plots),
        [
            "similarity-of-b-base-and-mine-heat-map.svg",
            "similarity-of-b-base-and-mine-layers.svg",
            "sweep-mine-cost.svg",
            "sweep-mine-epoch-seconds.svg",
            "sweep-mine-peak-memory.svg",
            "sweep-mine-quality.svg",
        ]
    );
    let page = read(&out);
    assert!(page.contains("&lt;script&gt;x&lt;/script&gt;"));
    assert!(!page.contains("<b>"));
    if let Some((count, seen)) = seen(&out) {
        assert_eq!(count, 6);
        for words in [
            "Take K = 4 at learning rate 5e-5",
            "differs from that of K = none by -0.0122 to +0.0078",
            "4 (take this)",
            "0.9101 ± 0.0031",
            "-0.0022 [-0.0122, +0.0078]",
            "-0.0358 [-0.0458, -0.0258], worse",
            "0.012",
            "41.2 s",
            "702 MB",
            "21,241,152",
            "0.9877 [0.9677, 0.9877]",
        ] {
            assert!(seen.contains(words), "no {words:?} in {seen}");
        }
    }
    // A plot's file is whole by itself: its own name space and no colours of the page's.
    for name in names(&plots) {
        let svg = read(&plots.join(name));
        assert!(svg.contains("xmlns=\"http://www.w3.org/2000/svg\""));
        assert!(!svg.contains("var("));
        if let Some(python) = python() {
            let parse =
                "import sys; from xml.etree import ElementTree; ElementTree.parse(sys.stdin)";
            let file = space.write("one.svg", &svg);
            let status = Command::new(python)
                .args(["-c", parse])
                .stdin(std::fs::File::open(file).expect("opened"))
                .status();
            assert!(status.expect("Python runs").success());
        }
    }
}

#[test]
fn a_sweep_that_is_not_finished_shows_its_runs() {
    let work = Classification::new();
    let (_, run) = work.trained();
    let folder = work.path("sweep");
    write_sweep(&folder);
    let swept = folder.join("runs/freeze-1/lr-5e-5");
    fs_err::create_dir_all(&swept).expect("made");
    std::fs::rename(run, swept.join("seed-1")).expect("moved");
    let out = work.path("a.html");
    // It was gone on with, and stopped before there was a new table.
    report(&[&folder], &out);
    let page = read(&out);
    assert!(
        page.contains("or are not finished: freeze-1/lr-5e-5/seed-1 (finished)."),
        "{page}"
    );
    // One of several runs is named by what tells it apart.
    report(&[&swept.join("seed-1")], &out);
    assert!(read(&out).contains("Run freeze-1/lr-5e-5/seed-1"));
    refused(
        &swept.join("seed-1/model.safetensors"),
        &work.path("b.html"),
        &["model.safetensors", "it is no text"],
    );
    std::fs::remove_file(folder.join("sweep.json")).expect("removed");
    report(&[&folder], &out);
    let page = read(&out);
    assert!(page.contains("This sweep is not finished"), "{page}");
    assert!(page.contains("freeze-1/lr-5e-5/seed-1"), "{page}");
    seen(&out);
}

fn refused(path: &Path, out: &Path, words: &[&str]) {
    let arguments = ["report", text(path), "--out", text(out)];
    fails(telly(&arguments), WRONG_INPUT, words);
}

#[test]
fn what_cannot_be_reported_is_told() {
    let space = Workspace::new();
    let out = space.write("a.html", "the old page");
    let sweep = space.path("sweep");
    write_sweep(&sweep);

    refused(&space.path("nothing"), &out, &["there is no `", "nothing`"]);
    refused(
        space.folder(),
        &out,
        &["neither a run nor a sweep", "recipe.toml"],
    );
    space.write("notes.txt", "hello\n");
    refused(
        &space.path("notes.txt"),
        &out,
        &["notes.txt` is damaged", "telly rsa --json"],
    );
    space.write("other.json", "{\"rows\": []}");
    refused(
        &space.path("other.json"),
        &out,
        &["other.json", "it has no `layers`"],
    );
    space.write("other.json", "{\"layers\": [{\"layer\": \"one\"}]}");
    refused(
        &space.path("other.json"),
        &out,
        &["other.json", "`layers`: ", "\"one\""],
    );
    space.write("sweep/sweep.json", "{\"metric\": \"accuracy\"");
    refused(&sweep, &out, &["sweep.json` is damaged", "telly sweep"]);
    space.write("sweep/sweep.json", "{\"metric\": \"accuracy\"}");
    refused(
        &sweep,
        &out,
        &["sweep.json` is damaged", "missing field `split`"],
    );
    std::fs::create_dir(space.path("run")).expect("made");
    space.write("run/recipe.toml", "epochs = ");
    refused(&space.path("run"), &out, &["recipe.toml", "is damaged"]);
    assert_eq!(read(&out), "the old page");

    write_sweep(&sweep);
    refused(
        &sweep,
        &space.path("no/a.html"),
        &["there is no folder", "no`"],
    );
    refused(&sweep, space.folder(), &["is a folder, expected a file"]);
    let file = [
        "report",
        text(&sweep),
        "--out",
        text(&out),
        "--plots",
        text(&out),
    ];
    fails(telly(&file), WRONG_INPUT, &["--plots", "expected a folder"]);
    assert_eq!(read(&out), "the old page");
    telly_ok(&["report", text(&sweep), "--out", text(&out)]);
    assert_ne!(read(&out), "the old page");
    let left = names(space.folder());
    assert!(
        left.iter().all(|name| !name.starts_with(".telly-")),
        "{left:?}"
    );
}
