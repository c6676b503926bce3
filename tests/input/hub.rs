//! `--model owner/name`: models from a hub, which here is a small server on this machine.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::support::{
    self, Classification, FAILED, WRONG_INPUT, content, fails, goldens, names, stderr, text,
};
use serde_json::json;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const OTHER: &str = "89abcdef0123456789abcdef0123456789abcdef";

/// What the hub has, and how it behaves.
#[derive(Default)]
struct Hub {
    /// By path within the repository.
    files: BTreeMap<String, Vec<u8>>,
    /// Sends only so many bytes of a file, and no length.
    cut: Option<usize>,
    /// Asked of everyone who comes.
    token: Option<String>,
    /// In the place of every file's tag.
    tag: Option<String>,
    /// In the place of every file's length, as long as only that is asked for.
    length: Option<u64>,
    /// The requests, as `GET /path`.
    requests: Vec<String>,
}

/// A server with one model, `telly/tiny`, whose branch `main` and tag `v1` are [`COMMIT`].
struct Server {
    hub: Arc<Mutex<Hub>>,
    address: String,
}

impl Server {
    fn new(files: BTreeMap<String, Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let hub = Arc::new(Mutex::new(Hub {
            files,
            ..Hub::default()
        }));
        let shared = Arc::clone(&hub);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(&stream, &mut shared.lock().expect("no panic"));
            }
        });
        Self { hub, address }
    }

    fn change(&self, change: impl FnOnce(&mut Hub)) {
        change(&mut self.hub.lock().expect("no panic"));
    }

    /// The requests since the last call.
    fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.hub.lock().expect("no panic").requests)
    }
}

fn answer(mut stream: &TcpStream, hub: &mut Hub) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let request = lines.next().unwrap_or_default();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let header = |name: &str| {
        let lines = headers.iter().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value.to_owned())
    };
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    hub.requests.push(format!("GET {path}"));
    let mut send = |status: &str, more: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\n{more}\r\n");
        // Whoever asked may have gone.
        let _ = stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(body));
    };
    if let Some(token) = &hub.token
        && header("authorization") != Some(format!("Bearer {token}"))
    {
        return send("401 Unauthorized", "content-length: 0\r\n", b"");
    }
    let revisions = ["main", "v1", COMMIT];
    if let Some(revision) = path.strip_prefix("/api/models/telly/tiny/revision/") {
        if !revisions.contains(&revision) {
            return send("404 Not Found", "content-length: 0\r\n", b"");
        }
        let siblings = hub.files.keys().map(|name| json!({"rfilename": name}));
        let body = json!({"sha": COMMIT, "siblings": siblings.collect::<Vec<_>>()}).to_string();
        let more = format!(
            "content-type: application/json\r\ncontent-length: {}\r\n",
            body.len()
        );
        return send("200 OK", &more, body.as_bytes());
    }
    let file = path.strip_prefix("/telly/tiny/resolve/");
    let file = file.and_then(|rest| rest.split_once('/'));
    let file = file.filter(|(revision, _)| revisions.contains(revision));
    let Some(bytes) = file.and_then(|(_, name)| hub.files.get(name)) else {
        return send("404 Not Found", "content-length: 0\r\n", b"");
    };
    let range = header("range").unwrap_or_default();
    let range = range
        .strip_prefix("bytes=")
        .and_then(|range| range.split_once('-'));
    let (start, end) = range.expect("a range");
    let start: usize = start.parse().expect("a number");
    let last = end.parse().unwrap_or(bytes.len() - 1).min(bytes.len() - 1);
    let tag = blake3::hash(bytes).to_hex().to_string();
    let more = format!(
        "etag: \"{}\"\r\nx-repo-commit: {COMMIT}\r\ncontent-range: bytes {start}-{last}/{}\r\n",
        hub.tag.clone().unwrap_or(tag),
        hub.length.unwrap_or(bytes.len() as u64)
    );
    let body = bytes.get(start..=last).unwrap_or_default();
    match hub.cut {
        Some(cut) if body.len() > cut => send("206 Partial Content", &more, &body[..cut]),
        _ => {
            let more = format!("{more}content-length: {}\r\n", body.len());
            send("206 Partial Content", &more, body);
        }
    }
}

/// The golden checkpoint's files of these names, and others that are not needed.
fn files(wanted: &[&str]) -> BTreeMap<String, Vec<u8>> {
    let source = goldens().join("pytorch/bert");
    let read = |name: &str| fs_err::read(source.join(name)).expect("bytes");
    let mut files: BTreeMap<_, _> = wanted
        .iter()
        .map(|name| ((*name).to_owned(), read(name)))
        .collect();
    for unneeded in ["README.md", "tf_model.h5", "onnx/model.onnx"] {
        files.insert(unneeded.into(), b"not needed".to_vec());
    }
    files
}

const SAFETENSORS: [&str; 4] = [
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "vocab.txt",
];

/// A command that fills a cache with `model` from the hub.
fn precompute(work: &Classification, server: &Server, model: &str, cache: &str) -> Command {
    let (train, cache) = (work.path("train.jsonl"), work.path(cache));
    let arguments = support::precompute("classify", Path::new(model), &train, "1", &cache);
    let mut command = support::telly(&arguments);
    environment(&mut command, work, &server.address);
    command
}

fn environment(command: &mut Command, work: &Classification, address: &str) {
    for name in [
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_TOKEN",
        "HF_TOKEN_PATH",
        "HF_HUB_OFFLINE",
        "TRANSFORMERS_OFFLINE",
        "http_proxy",
        "HTTP_PROXY",
        "all_proxy",
        "ALL_PROXY",
    ] {
        command.env_remove(name);
    }
    command.env("HF_HOME", work.path("home"));
    command.env("HF_ENDPOINT", format!("http://{address}/"));
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().expect("telly runs");
    let said = stderr(&output);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    said
}

fn repository(work: &Classification) -> PathBuf {
    work.path("home/hub/models--telly--tiny")
}

fn snapshot(work: &Classification) -> PathBuf {
    repository(work).join("snapshots").join(COMMIT)
}

/// Brought once, with the files that are needed alone, laid out as Python does; then used without
/// the network, by later commands too.
#[test]
fn a_model_is_brought_once() {
    let work = Classification::new();
    let server = Server::new(files(&SAFETENSORS));
    let said = succeeds(precompute(&work, &server, "telly/tiny", "cache"));
    assert!(said.contains(&format!("snapshots/{COMMIT}")), "{said}");
    assert_eq!(
        names(&snapshot(&work)),
        ["config.json", "model.safetensors", "tokenizer.json"]
    );
    let reference = repository(&work).join("refs/main");
    assert_eq!(fs_err::read_to_string(reference).expect("text"), COMMIT);
    let blob = snapshot(&work).join("config.json");
    let blob = fs_err::canonicalize(blob).expect("a link");
    assert_eq!(
        blob.parent(),
        Some(&*fs_err::canonicalize(repository(&work).join("blobs")).expect("blobs"))
    );
    assert!(
        server
            .requests()
            .iter()
            .all(|request| !request.contains("vocab.txt"))
    );

    // The same cache as from a folder.
    let folder = goldens().join("pytorch/bert");
    let arguments = support::precompute(
        "classify",
        &folder,
        &work.path("train.jsonl"),
        "1",
        &work.path("folder"),
    );
    support::telly_ok(&arguments);
    let shards = |cache: &str| {
        let files = content(&work.path(cache)).into_iter();
        files
            .filter(|(name, _)| name.starts_with("shard"))
            .collect::<Vec<_>>()
    };
    assert!(shards("cache") == shards("folder"));

    // Nobody is asked any more.
    let mut offline = precompute(&work, &server, "telly/tiny", "again");
    offline.env("HF_HUB_OFFLINE", "1");
    succeeds(offline);
    succeeds(precompute(
        &work,
        &server,
        &format!("telly/tiny@{COMMIT}"),
        "commit",
    ));
    let (cache, run) = (work.path("cache"), work.path("run"));
    support::telly_ok(&support::train(&cache, &run, "--epochs 1"));
    let input = work.path("train.jsonl");
    support::telly_ok(&["evaluate", "--run", text(&run), "--data", text(&input)]);
    let mut by_name = support::telly(&support::train(
        &cache,
        &work.path("named"),
        "--epochs 1 --model telly/tiny",
    ));
    environment(&mut by_name, &work, &server.address);
    succeeds(by_name);
    assert_eq!(server.requests(), Vec::<String>::new());

    // The cache's model is gone: its name on the hub is known.
    fs_err::rename(repository(&work), work.path("moved")).expect("renamed");
    let gone = support::telly(&support::train(&cache, &work.path("x"), "--epochs 1"));
    fails(
        gone,
        WRONG_INPUT,
        &[
            "no checkpoint folder",
            &format!("--model telly/tiny@{COMMIT}"),
        ],
    );
}

/// Weights in pieces of `pytorch_model.bin`, a tokenizer from vocab.txt, a tag for a revision, and
/// another place for the cache.
#[test]
fn pieces_and_revisions() {
    let work = Classification::new();
    let wanted = [
        "config.json",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "vocab.txt",
    ];
    let server = Server::new(files(&wanted));
    let mut command = precompute(&work, &server, "telly/tiny@v1", "cache");
    command.env("HF_HUB_CACHE", work.path("elsewhere"));
    succeeds(command);
    let repository = work.path("elsewhere/models--telly--tiny");
    assert!(!work.path("home").exists());
    let mut found = names(&repository.join("snapshots").join(COMMIT));
    found.sort();
    let mut expected = wanted.map(String::from);
    expected.sort();
    assert_eq!(found, expected);
    let tag = fs_err::read_to_string(repository.join("refs/v1")).expect("text");
    assert_eq!(tag, COMMIT);
    assert!(!repository.join("refs/main").exists());
}

/// A folder of that name is what is meant, whatever the hub has.
#[test]
fn a_folder_wins() {
    let work = Classification::new();
    let server = Server::new(files(&SAFETENSORS));
    let folder = work.path("telly/tiny");
    fs_err::create_dir_all(&folder).expect("a folder");
    for (name, bytes) in files(&SAFETENSORS) {
        if !name.contains('/') {
            fs_err::write(folder.join(name), bytes).expect("written");
        }
    }
    let mut command = precompute(&work, &server, "telly/tiny", "cache");
    command.current_dir(work.0.folder());
    command.env("ORT_DYLIB_PATH", library());
    succeeds(command);
    assert_eq!(server.requests(), Vec::<String>::new());
}

/// ONNX Runtime's library, for a command that runs elsewhere.
fn library() -> PathBuf {
    let folder = support::project().join(".onnxruntime");
    let mut files = vec![folder];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let inside = fs_err::read_dir(&path).expect("a folder").flatten();
            files.extend(inside.map(|entry| entry.path()));
        } else if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so"))
        {
            return path;
        }
    }
    panic!("no ONNX Runtime: run scripts/setup.sh");
}

#[test]
fn what_cannot_be_brought() {
    let work = Classification::new();
    let server = Server::new(files(&SAFETENSORS));
    let refused = |model: &str, status: i32, words: &[&str]| {
        fails(precompute(&work, &server, model, "cache"), status, words);
        assert!(!work.path("cache").exists(), "a cache was left behind");
    };
    refused(
        "telly/other",
        WRONG_INPUT,
        &["no folder `telly/other`", "no model of that name"],
    );
    refused(
        "telly/tiny@v2",
        WRONG_INPUT,
        &["`telly/tiny` has no revision `v2`"],
    );
    refused(
        &format!("telly/tiny@{OTHER}"),
        WRONG_INPUT,
        &["has no revision", OTHER],
    );
    refused("telly/tiny@../../x", WRONG_INPUT, &["no checkpoint folder"]);
    refused("../telly/tiny", WRONG_INPUT, &["no checkpoint folder"]);

    let mut offline = precompute(&work, &server, "telly/tiny", "cache");
    offline.env("HF_HUB_OFFLINE", "1");
    fails(
        offline,
        WRONG_INPUT,
        &["telly/tiny", "HF_HUB_OFFLINE", "home/hub"],
    );
    assert!(!repository(&work).exists());

    let mut nobody = precompute(&work, &server, "telly/tiny", "cache");
    let closed = TcpListener::bind("127.0.0.1:0")
        .expect("a port")
        .local_addr();
    nobody.env(
        "HF_ENDPOINT",
        format!("http://{}", closed.expect("an address")),
    );
    fails(
        nobody,
        FAILED,
        &[
            "no folder `telly/tiny`",
            "cannot be got from the hub",
            "refused",
        ],
    );

    for (name, what) in [
        ("config.json", "`config.json`"),
        ("model.safetensors", "`model.safetensors`"),
    ] {
        let mut lost = Vec::new();
        server.change(|hub| lost = hub.files.remove(name).expect("there"));
        refused("telly/tiny", WRONG_INPUT, &["`telly/tiny` has no", what]);
        server.change(|hub| drop(hub.files.insert(name.into(), lost)));
    }
    assert!(!snapshot(&work).join("model.safetensors").exists());

    server.change(|hub| hub.length = Some(1 << 60));
    let lack = [
        "`config.json` of `telly/tiny` has 1152921504606846976 bytes",
        "HF_HUB_CACHE",
    ];
    refused("telly/tiny", FAILED, &lack);
    server.change(|hub| hub.length = None);

    server.change(|hub| hub.token = Some("secret".into()));
    refused(
        "telly/tiny",
        WRONG_INPUT,
        &["telly/tiny", "401", "HF_TOKEN"],
    );
    let mut with_token = precompute(&work, &server, "telly/tiny", "cache");
    with_token.env("HF_TOKEN", "secret");
    succeeds(with_token);
    assert!(snapshot(&work).join("model.safetensors").exists());
}

/// The token that `hf auth login` keeps.
#[test]
fn a_token_in_a_file() {
    let work = Classification::new();
    let server = Server::new(files(&SAFETENSORS));
    server.change(|hub| hub.token = Some("secret".into()));
    fs_err::create_dir(work.path("home")).expect("a folder");
    fs_err::write(work.path("home/token"), "secret\n").expect("written");
    succeeds(precompute(&work, &server, "telly/tiny", "cache"));
}

/// What was cut short is not taken for whole, and goes on.
#[test]
fn a_download_that_breaks_off() {
    let work = Classification::new();
    let server = Server::new(files(&SAFETENSORS));
    server.change(|hub| hub.cut = Some(12_000));
    let command = precompute(&work, &server, "telly/tiny", "cache");
    fails(
        command,
        FAILED,
        &["`model.safetensors` came with", "of 23528 bytes"],
    );
    assert!(!snapshot(&work).join("model.safetensors").exists());
    assert!(!repository(&work).join("refs/main").exists());
    let mut offline = precompute(&work, &server, "telly/tiny", "cache");
    offline.env("HF_HUB_OFFLINE", "1");
    fails(offline, WRONG_INPUT, &["has not got that model whole"]);
    server.change(|hub| hub.cut = None);
    succeeds(precompute(&work, &server, "telly/tiny", "cache"));
}

/// Names that lead elsewhere: in an index, and in what the hub says of a file.
#[test]
fn names_that_lead_elsewhere() {
    let work = Classification::new();
    let mut files = files(&["config.json", "vocab.txt"]);
    for name in ["../../../../evil.bin", "/evil.bin", "a/../../../evil.bin"] {
        let index = json!({"weight_map": {"a": name}}).to_string();
        files.insert("pytorch_model.bin.index.json".into(), index.into_bytes());
        let server = Server::new(files.clone());
        let home = work.path("home");
        let command = precompute(&work, &server, "telly/tiny", "cache");
        fails(
            command,
            WRONG_INPUT,
            &["pytorch_model.bin.index.json", "no plain file name"],
        );
        assert!(
            server
                .requests()
                .iter()
                .all(|request| !request.contains("evil"))
        );
        fs_err::remove_dir_all(home).expect("removed");
    }
    let server = Server::new(self::files(&SAFETENSORS));
    server.change(|hub| hub.tag = Some("../../../../evil".into()));
    let command = precompute(&work, &server, "telly/tiny", "cache");
    fails(command, FAILED, &["cannot be used", "evil"]);
    assert!(!repository(&work).join("blobs").exists());
}
