//! Data in every format.

use std::path::Path;

use serde_json::json;
use telly::checkpoint::Checkpoint;
use telly::dataset::{Dataset, FieldChoice, Functions, PairFile, Records};
use telly::task::Encoding;

use crate::checkpoints::model;
use crate::harness::{BYTES_A_BYTE, folder, fuzz};
use crate::support::goldens;

#[test]
fn data_files() {
    let space = folder();
    let (_model, place, _) = model("config.json");
    let checkpoint = Checkpoint::open(place.parent().expect("a folder")).expect("a model");
    let encodings = [
        json!({"task": "classify", "text_field": null, "label_field": null, "max_length": 16}),
        json!({"task": "search", "query_field": null, "code_field": null, "max_query_length": 8, "max_code_length": 16}),
        json!({"task": "search", "query_field": null, "code_field": null, "negative_field": "other", "max_query_length": 8, "max_code_length": 16}),
        json!({"task": "clone", "form": "pairs", "max_length": 16}),
        json!({"task": "clone", "form": "groups", "max_length": 16}),
    ];
    let encodings: Vec<Encoding> = encodings
        .map(|encoding| serde_json::from_value(encoding).expect("an encoding"))
        .into();
    let read = |path: &Path| {
        let Ok(data) = Dataset::read(path) else {
            return false;
        };
        for encoding in &encodings {
            let records = Records::open(path).expect("read before");
            if let Ok((encoded, _)) = encoding.encode_training(records, &checkpoint) {
                assert_eq!(encoded.rows(), data.records.len());
            }
        }
        true
    };
    let classify = "{\"text\": \"return x1\", \"label\": 1}\n{\"text\": [\"the\", \"y\"], \"label\": 22}\n\n{\"text\": \"\", \"label\": 1}\n";
    let search = "\u{feff}{\"docstring\": \"sort 1 list\", \"code\": \"def f(): return 10\"}\r\n{\"docstring_tokens\": [\"a\"], \"code_tokens\": [\"b\", \"2\"]}";
    let negatives = "{\"query\": \"sort\", \"code\": \"f\", \"other\": [\"g\", [\"h\", \"1\"]]}\n{\"query\": \"b\", \"code\": \"g\", \"other\": \"f\"}";
    let pairs = "{\"func1\": \"return x\", \"func2\": \"the y\", \"label\": 1}\n{\"func1\": \"a\", \"func2\": \"a\", \"label\": \"0\"}";
    let lines = [classify, search, negatives, pairs];
    let lines: Vec<Vec<u8>> = lines.map(|text| text.as_bytes().to_vec()).into();
    let place = space.path().join("data.jsonl");
    fuzz(&place, lines.clone(), 0, 1, |_| read(&place));

    let array =
        "[{\"text\": \"return x1\", \"label\": 1},\n{\"text\": [\"the\", \"]y\"], \"label\": 22}]";
    let place = space.path().join("data.json");
    fuzz(&place, vec![array.into()], 0, 1, |_| read(&place));

    let table = "\u{feff}text,label\r\n\"return \"\"x1\"\"\",1\r\n\r\n\"the\ny\",22\n,1";
    for name in ["data.csv", "data.tsv"] {
        let table = table.replace(',', if name == "data.tsv" { "\t" } else { "," });
        let place = space.path().join(name);
        fuzz(&place, vec![table.into()], 0, 1, |_| read(&place));
    }

    let packed = lines
        .iter()
        .map(|bytes| zstd::encode_all(&bytes[..], 3).expect("packed"));
    let place = space.path().join("data.jsonl.zst");
    // A block of one byte again and again, at the very most.
    fuzz(&place, packed.collect(), 0, 1 << 15, |_| read(&place));

    let packed = lines.into_iter().map(|bytes| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &bytes).expect("packed");
        packed.finish().expect("packed")
    });
    let place = space.path().join("data.jsonl.gz");
    // What DEFLATE can make of a byte at the very most.
    fuzz(&place, packed.collect(), 0, 1032, |_| read(&place));
}

/// Pairs of functions, and places in Devign's array.
#[test]
fn data_files_beside_others() {
    let space = folder();
    let field = FieldChoice::new("--text-field", None, &["func"]);
    let place = space.path().join("train.txt");
    let functions = "{\"func\": \"a\", \"idx\": \"17\"}\n{\"func\": \"b\", \"idx\": 5}\n";
    let beside = space.path().join("data.jsonl");
    fs_err::write(&beside, functions).expect("written");
    let table = Functions::read(&beside, &field).expect("functions");
    let valid = vec![b"17\t5\t1\n5 5 0 3\n".to_vec()];
    fuzz(&place, valid, 0, 1, |_| {
        PairFile::read(&place, &table).is_ok_and(|file| {
            let places = file.pairs.iter().flat_map(|pair| [pair.first, pair.second]);
            assert!(places.max() < Some(2));
            true
        })
    });
    fuzz(&beside, vec![functions.into()], 0, 1, |_| {
        Functions::read(&beside, &field).is_ok()
    });
    let array = "[{\"func\": \"a\", \"target\": 1}, {\"func\": \"b\", \"target\": 0}]";
    fs_err::write(space.path().join("function.json"), array).expect("written");
    fuzz(
        &place,
        vec![b"1\n0\n\n 0\r\n1".to_vec()],
        array.len(),
        1,
        |_| Dataset::read(&place).is_ok_and(|data| (1..=2).contains(&data.records.len())),
    );
}

#[test]
fn parquet_files() {
    let space = folder();
    let golden = |name: &str| fs_err::read(goldens().join("formats").join(name)).expect("bytes");
    let valid = [
        "rows.snappy",
        "rows.gzip",
        "rows.zstd",
        "rows.plain",
        "tokens",
    ];
    let valid = valid.map(|name| golden(&format!("{name}.parquet")));
    let place = space.path().join("data.parquet");
    // A page may say that it unpacks to 4 MiB and 2¹⁵ times its size: so much is reserved first.
    let reserved = (4 << 20) / BYTES_A_BYTE;
    fuzz(
        &place,
        valid.into(),
        reserved,
        (1 << 15) / BYTES_A_BYTE,
        |_| Records::open(&place).is_ok_and(|mut records| records.all(|record| record.is_ok())),
    );
}
