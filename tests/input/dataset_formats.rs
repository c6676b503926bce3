//! The same rows give the same cache whatever format they come in, Parquet as pyarrow writes it;
//! what is wrong with a file is said by line; the folders that people have are read as they are.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::support::{
    self, Workspace, content, fails, goldens, precompute, stderr, telly, telly_json, telly_ok,
    text, train, write_classification, write_search,
};
use serde_json::{Value, json};
use telly::dataset::{FieldChoice, Functions, PairFile, Records};

const WRONG_INPUT: i32 = support::WRONG_INPUT;

fn formats() -> PathBuf {
    goldens().join("formats")
}

/// `telly precompute` over `data`, the flag and path of each split; the files of the cache, but for
/// where the data lay.
fn cache(
    space: &Workspace,
    name: &str,
    task: &str,
    data: &[(&str, &Path)],
) -> Vec<(String, Vec<u8>)> {
    let folder = space.path(name);
    let model = goldens().join("bert-tiny");
    let mut arguments = precompute(task, &model, Path::new(""), "1", &folder);
    let place = arguments.iter().position(|word| word == "--train");
    let place = place.expect("a training split");
    arguments.drain(place..place + 2);
    for (flag, path) in data {
        arguments.extend([(*flag).to_owned(), text(path).to_owned()]);
    }
    telly_json(&arguments);
    let files = content(&folder).into_iter().map(|(name, bytes)| {
        if name != "manifest.json" {
            return (name, bytes);
        }
        let mut manifest: Value = serde_json::from_slice(&bytes).expect("JSON");
        // Where the data lay, and the checksum over that too.
        for field in ["data", "blake3"] {
            assert!(!manifest[field].is_null(), "{field}");
            manifest[field] = Value::Null;
        }
        (name, manifest.to_string().into_bytes())
    });
    files.collect()
}

/// The same cache as from `expected`, or which file of it differs.
fn assert_same(found: &[(String, Vec<u8>)], expected: &[(String, Vec<u8>)], what: &str) {
    let names = |files: &[(String, Vec<u8>)]| -> Vec<String> {
        files.iter().map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(names(found), names(expected), "{what}");
    for ((name, found), (_, expected)) in found.iter().zip(expected) {
        assert!(found == expected, "{what}: {name} differs");
    }
}

#[test]
fn every_format_gives_the_same_cache() {
    let space = Workspace::new();
    let expected = cache(
        &space,
        "jsonl",
        "classify",
        &[("--train", &formats().join("rows.jsonl"))],
    );
    for name in [
        "rows.jsonl.gz",
        "rows.jsonl.zst",
        "rows.json",
        "rows.csv",
        "rows.csv.gz",
        "rows.csv.zst",
        "rows.tsv",
        "rows.snappy.parquet",
        "rows.gzip.parquet",
        "rows.zstd.parquet",
        "rows.plain.parquet",
        "rows.binary.parquet",
        "rows.pandas.parquet",
    ] {
        let found = cache(
            &space,
            name,
            "classify",
            &[("--train", &formats().join(name))],
        );
        assert_same(&found, &expected, name);
    }
    // The rows do count: without the last the cache is another.
    let rows = fs_err::read_to_string(formats().join("rows.jsonl")).expect("text");
    let short: Vec<&str> = rows.lines().take(rows.lines().count() - 1).collect();
    let short = space.write("short.jsonl", &short.join("\n"));
    assert_ne!(
        cache(&space, "short", "classify", &[("--train", &short)]),
        expected
    );
}

#[test]
fn lists_of_tokens_are_read_from_parquet() {
    let space = Workspace::new();
    let [lines, parquet] = ["tokens.jsonl", "tokens.parquet"].map(|name| formats().join(name));
    let expected = cache(&space, "jsonl", "search", &[("--train", &lines)]);
    let found = cache(&space, "parquet", "search", &[("--train", &parquet)]);
    assert_same(&found, &expected, "tokens.parquet");
}

/// A cache made from one format is fresh for another: what counts is the content.
#[test]
fn a_cache_fits_its_data_in_any_format() {
    let space = Workspace::new();
    let folder = space.path("cache");
    let model = goldens().join("bert-tiny");
    let rows = |name: &str| formats().join(name);
    telly_ok(&precompute(
        "classify",
        &model,
        &rows("rows.jsonl"),
        "1",
        &folder,
    ));
    let again = telly_ok(&precompute(
        "classify",
        &model,
        &rows("rows.csv.zst"),
        "1",
        &folder,
    ));
    assert!(stderr(&again).contains("Fresh"), "{}", stderr(&again));
    let parquet = rows("rows.zstd.parquet");
    let trained = train(
        &folder,
        &space.path("run"),
        &format!("--epochs 1 --train {}", text(&parquet)),
    );
    let trained = telly_ok(&trained);
    assert!(stderr(&trained).contains("Fresh"), "{}", stderr(&trained));
}

fn split(path: &Path, pieces: &[(usize, PathBuf)]) {
    let whole = fs_err::read_to_string(path).expect("text");
    let mut lines = whole.lines();
    for (count, piece) in pieces {
        let lines: Vec<&str> = lines.by_ref().take(*count).collect();
        fs_err::create_dir_all(piece.parent().expect("a folder")).expect("a folder");
        fs_err::write(piece, lines.join("\n")).expect("written");
    }
}

#[test]
fn a_folder_has_its_splits() {
    let space = Workspace::new();
    let [whole, valid] = ["whole.jsonl", "valid.jsonl"].map(|name| space.path(name));
    write_search(&whole, 30);
    write_search(&valid, 8);
    let expected = cache(
        &space,
        "files",
        "search",
        &[("--train", &whole), ("--valid", &valid)],
    );
    // CodeSearchNet: a folder a split, with numbered files.
    let data = space.path("data");
    let piece = |number| data.join(format!("train/python_train_{number}.jsonl"));
    split(&whole, &[(20, piece(2)), (10, piece(10))]);
    fs_err::copy(&valid, data.join("valid.jsonl")).expect("copied");
    let found = cache(&space, "folder", "search", &[("--data", &data)]);
    assert_same(&found, &expected, "--data");
    let found = cache(
        &space,
        "inner",
        "search",
        &[("--train", &data.join("train")), ("--valid", &data)],
    );
    assert_same(&found, &expected, "--train FOLDER");
    // What the manifest says of its data is enough to repair it.
    let repaired = telly_json(&["cache", "verify", text(&space.path("folder")), "--repair"]);
    println!("{repaired}");
    assert_eq!(content(&space.path("folder")).len(), expected.len());
}

/// Devign's own files give what CodeXGLUE's script makes of them.
#[test]
fn devign_as_its_authors_gave_it() {
    let space = Workspace::new();
    let functions: Vec<Value> = (0..12)
        .map(|place| {
            let func = format!("return {}\n  x{place};", "the ".repeat(place % 3));
            json!({"project": "FFmpeg", "target": place % 2, "func": func})
        })
        .collect();
    let json = serde_json::to_string_pretty(&functions).expect("JSON");
    let devign = space.path("devign");
    fs_err::create_dir_all(&devign).expect("a folder");
    fs_err::write(devign.join("function.json"), json).expect("written");
    // Not in order: the script goes through the functions, not through this.
    fs_err::write(devign.join("train.txt"), "7\n2\n\n0\r\n3\n11\n").expect("written");
    fs_err::write(devign.join("valid.txt"), "1\n4\n").expect("written");
    let lines = |places: &[usize]| {
        let lines: Vec<String> = places
            .iter()
            .map(|&place| functions[place].to_string())
            .collect();
        lines.join("\n")
    };
    let chosen = space.write("train.jsonl", &lines(&[0, 2, 3, 7, 11]));
    let valid = space.write("valid.jsonl", &lines(&[1, 4]));
    let expected = cache(
        &space,
        "lines",
        "classify",
        &[("--train", &chosen), ("--valid", &valid)],
    );
    let found = cache(&space, "raw", "classify", &[("--data", &devign)]);
    assert_same(&found, &expected, "devign");

    fs_err::write(devign.join("train.txt"), "7\n12\n").expect("written");
    refused(
        &space,
        &devign,
        &["train.txt", "line 2: place 12", "12 functions"],
    );
    fs_err::write(devign.join("train.txt"), "7\nx\n").expect("written");
    refused(
        &space,
        &devign,
        &["train.txt", "line 2: `x`", "function.json"],
    );
}

/// `telly precompute` refuses `data` and says all of `words`.
fn refused(space: &Workspace, data: &Path, words: &[&str]) {
    let model = goldens().join("bert-tiny");
    let command = precompute("classify", &model, data, "1", &space.path("refused"));
    fails(telly(&command), WRONG_INPUT, words);
    assert!(!space.path("refused").exists(), "a cache was left behind");
}

/// Each file, by name and content, is refused with all of its words.
fn refused_each(cases: &[(&str, &[u8], &[&str])]) {
    let space = Workspace::new();
    for (name, bytes, words) in cases {
        let path = space.path(name);
        fs_err::write(&path, bytes).expect("written");
        refused(&space, &path, &[&[*name], *words].concat());
    }
}

#[test]
fn a_file_that_is_not_what_its_name_says() {
    let table = fs_err::read(formats().join("rows.csv")).expect("bytes");
    let zstd = fs_err::read(formats().join("rows.jsonl.zst")).expect("bytes");
    let parquet = fs_err::read(formats().join("rows.plain.parquet")).expect("bytes");
    // An offset that is negative: the library panics at it.
    let mut negative = fs_err::read(formats().join("rows.snappy.parquet")).expect("bytes");
    negative[859] ^= 1;
    let first_line = "line 1, column 1: not a JSON object: it begins with `text,label,score,fla`";
    refused_each(&[
        ("a.jsonl", &parquet, &["holds a Parquet file", ".parquet"]),
        (
            "b.csv",
            b"PK\x03\x04 xl/",
            &["a spreadsheet", "save the spreadsheet as .csv"],
        ),
        (
            "c.csv",
            b"{\"text\": \"a\", \"label\": 1}\n",
            &["holds JSON", ".jsonl"],
        ),
        ("d.jsonl", &table, &[first_line, ".csv"]),
        ("e.jsonl.gz", &table, &["is not gzip", ".zst is zstd"]),
        (
            "f.jsonl.zst",
            &zstd[..zstd.len() / 2],
            &["cannot read it", "cut off"],
        ),
        ("g.jsonl", &zstd, &["holds zstd", ".zst"]),
        (
            "h.parquet",
            &parquet[..parquet.len() - 9],
            &["not a Parquet file"],
        ),
        ("i.parquet", b"text,label\na,1\n", &["not a Parquet file"]),
        (
            "negative.parquet",
            &negative,
            &["should not be negative", "write it again"],
        ),
        (
            "j.parquet.gz",
            &parquet,
            &["must not be packed", "unpack it"],
        ),
        ("k.jsonl", b"\xff\xfe{\0}\0", &["text in UTF-16", "UTF-8"]),
    ]);
}

#[test]
fn a_broken_table_is_named_by_line() {
    refused_each(&[
        (
            "c.csv",
            b"text,label\na,0\nb\n",
            &["line 3: the row has 1 of the 2 columns"],
        ),
        (
            "d.csv",
            b"return x,0\nreturn y,1\n",
            &[
                "line 2: no field `label`",
                "`return x`",
                "the first line names the columns",
            ],
        ),
        (
            "e.csv",
            b"text,label\na,0\n\n\"b,1\nc,0\n",
            &["line 4: a quote", "never closed", "written twice"],
        ),
        (
            "f.csv",
            b"text,label\na,0\n\xff,1\n",
            &["line 3, column 1: not UTF-8", "save it as that"],
        ),
        (
            "g.csv",
            b"text,label\na\0,0\n",
            &["line 2, column 2: a NUL byte"],
        ),
        (
            "h.csv",
            b"text;label\na;0\n",
            &["with a semicolon in its name", "commas"],
        ),
        (
            "i.csv",
            b"text,label\na,\nb,1\n",
            &["line 2: field `label` is \"\"", "--label-field"],
        ),
        ("j.csv", b"text,label\n", &["no records"]),
    ]);
}

#[test]
fn what_else_is_wrong_with_data() {
    let array = b"[{\"text\": \"a\", \"label\": 0},\n {\"text\": \"b\" \"label\": 1}]";
    refused_each(&[("a.json", array, &["line 2, column 15"])]);
    let space = Workspace::new();
    let cases: [(PathBuf, &[&str]); 3] = [
        (
            formats().join("rows.brotli.parquet"),
            &["row 1: cannot read it", "snappy"],
        ),
        (
            formats().join("tokens.parquet"),
            &[
                "tokens.parquet`, row 1: no field `label`",
                "`code_tokens`",
                "--label-field",
            ],
        ),
        (space.path("none"), &["none", "No such file"]),
    ];
    for (path, words) in cases {
        refused(&space, &path, words);
    }
    let folder = space.path("folder");
    fs_err::create_dir_all(&folder).expect("a folder");
    refused(
        &space,
        &folder,
        &["no file of the train split", "train.jsonl"],
    );
    fs_err::write(folder.join("train.jsonl"), "{}").expect("written");
    fs_err::write(folder.join("train.csv"), "a\n1\n").expect("written");
    refused(&space, &folder, &["train.csv", "train.jsonl", "both there"]);
}

/// A number that stands in a table is the number of JSON; a class that the training split lacks is
/// named with its row.
#[test]
fn splits_may_come_in_different_formats() {
    let space = Workspace::new();
    let train = space.write(
        "train.jsonl",
        "{\"text\": \"a\", \"label\": 0}\n{\"text\": \"b\", \"label\": 1}\n",
    );
    let valid = space.write("valid.csv", "label,text\n 1,\"c, d\"\n0,e\n");
    let lines = space.write(
        "valid.jsonl",
        "{\"text\": \"c, d\", \"label\": 1}\n{\"text\": \"e\", \"label\": 0}\n",
    );
    let expected = cache(
        &space,
        "lines",
        "classify",
        &[("--train", &train), ("--valid", &lines)],
    );
    let found = cache(
        &space,
        "table",
        "classify",
        &[("--train", &train), ("--valid", &valid)],
    );
    assert_same(&found, &expected, "valid.csv");

    let unseen = space.write("unseen.tsv", "label\ttext\n1\ta\n2\tb\n");
    let model = goldens().join("bert-tiny");
    let mut command = telly(&precompute(
        "classify",
        &model,
        &train,
        "1",
        &space.path("unseen"),
    ));
    command.args(["--valid", text(&unseen)]);
    fails(
        command,
        WRONG_INPUT,
        &["unseen.tsv`, line 3: label 2", "0, 1"],
    );
}

/// A pipe can be read once only.
#[test]
fn records_may_come_through_a_pipe() {
    let space = Workspace::new();
    let rows = space.path("rows.jsonl");
    write_classification(&rows, 24);
    let piped = |arguments: &[String]| {
        let mut command = telly(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("telly runs");
        let mut stdin = child.stdin.take().expect("a pipe");
        let bytes = fs_err::read(&rows).expect("bytes");
        stdin.write_all(&bytes).expect("written");
        drop(stdin);
        let output = child.wait_with_output().expect("telly ends");
        assert!(output.status.success(), "{}", stderr(&output));
        output.stdout
    };
    let model = goldens().join("bert-tiny");
    let folder = space.path("piped");
    piped(&precompute(
        "classify",
        &model,
        Path::new("-"),
        "1",
        &folder,
    ));
    let again = telly_ok(&precompute("classify", &model, &rows, "1", &folder));
    assert!(stderr(&again).contains("Fresh"), "{}", stderr(&again));

    let run = space.path("run");
    telly_ok(&train(&folder, &run, "--epochs 1"));
    let predict = |input: &str| {
        let words = [
            "predict",
            "--run",
            text(&run),
            "--input",
            input,
            "--output",
            "-",
        ];
        words.map(String::from)
    };
    let expected = telly_ok(&predict(text(&rows))).stdout;
    assert_eq!(String::from_utf8_lossy(&expected).lines().count(), 24);
    assert_eq!(piped(&predict("-")), expected);
}

/// What CodeXGLUE's own files hold, where `TELLY_TEST_DATA` says that they are there.
#[test]
fn codexglue_as_it_comes() {
    let Some(data) = std::env::var_os("TELLY_TEST_DATA").map(PathBuf::from) else {
        println!("TELLY_TEST_DATA names no folder with bcb, poj104, sard and pystd: not read");
        return;
    };
    let split = data.join("bcb/train.txt.gz");
    let field = FieldChoice::new("--text-field", None, &["func"]);
    let functions = Functions::beside(&split).expect("functions beside the pairs");
    let functions = Functions::read(&functions, &field).expect("functions");
    assert_eq!(functions.texts().len(), 22_723);
    let pairs = PairFile::read(&split, &functions).expect("pairs");
    assert_eq!((pairs.pairs.len(), pairs.dropped), (73_341, 0));
    let clones = pairs.pairs.iter().filter(|pair| pair.label == 1).count();
    println!("bcb: {clones} of {} pairs are clones", pairs.pairs.len());
    for (folder, field, rows) in [
        ("poj104", "code", 32_000),
        ("sard", "func", 10_632),
        ("pystd", "code", 24_000),
    ] {
        let field = FieldChoice::new("", None, &[field]);
        let source = telly::dataset::Source::of(&data.join(folder), "train").expect("a split");
        let mut count = 0;
        let mut records: Records = source.records().expect("records");
        while let Some(chunk) = records.chunk().expect("a chunk") {
            assert!(chunk.records.len() <= 4096);
            for record in &chunk.records {
                assert!(!field.text(record, &chunk.path).expect("a text").is_empty());
            }
            count += chunk.records.len();
        }
        assert_eq!(count, rows, "{folder}");
    }
}
