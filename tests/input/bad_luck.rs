//! Bad luck: a missing library or card, a disk that fills up, a folder that cannot be written to.
//! One clear error, the exit status of the contract, nothing half-written left behind.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::support::{
    self, Classification, FAILED, WRONG_INPUT, content, fails, goldens, names, precompute, stderr,
    telly, telly_json, text, train, write_search,
};

#[test]
fn providers_and_libraries() {
    let work = Classification::new();
    let model = goldens().join("bert-tiny");
    let mut command = work.precompute(&model, &work.path("train.jsonl"), "1");
    command.args(["--provider", "cuda"]);
    // The last `--provider` would clash with the first: the command line itself is wrong.
    let output = command.output().expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));

    let mut cuda = precompute(
        "classify",
        &model,
        &work.path("train.jsonl"),
        "1",
        &work.path("cache"),
    );
    cuda.iter_mut()
        .filter(|argument| *argument == "cpu")
        .for_each(|provider| *provider = "cuda".into());
    fails(
        telly(&cuda),
        WRONG_INPUT,
        &["--provider cuda", "setup.sh --gpu"],
    );
    assert!(!work.path("cache").exists());

    let library = work.0.write("libonnxruntime.so", "no library");
    let mut command = work.precompute(&model, &work.path("train.jsonl"), "1");
    command.args(["--onnxruntime", text(&library)]);
    fails(
        command,
        FAILED,
        &["cannot load ONNX Runtime", "libonnxruntime.so"],
    );

    // No `.onnxruntime/` beside the binary or in the folder it runs in.
    let binary = work.path("telly");
    fs_err::copy(env!("CARGO_BIN_EXE_telly"), &binary).expect("copied");
    let mut doctor = Command::new(&binary);
    doctor
        .arg("doctor")
        .current_dir(work.0.folder())
        .env_remove("ORT_DYLIB_PATH");
    let output = doctor.output().expect("telly runs");
    assert_eq!(output.status.code(), Some(FAILED));
    let said = stderr(&output);
    assert!(
        said.contains("no ONNX Runtime library") && said.contains("scripts/setup.sh"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("missing"));
}

/// A folder that cannot be written to. Root may write anywhere but to the kernel's own folders.
fn read_only_folder(work: &Classification) -> PathBuf {
    let folder = work.path("read-only");
    fs_err::create_dir(&folder).expect("a folder");
    let mut permissions = fs_err::metadata(&folder).expect("there").permissions();
    permissions.set_readonly(true);
    fs_err::set_permissions(&folder, permissions).expect("set");
    match fs_err::write(folder.join("probe"), "") {
        Ok(()) => PathBuf::from("/sys/kernel"),
        Err(_) => folder,
    }
}

#[test]
fn read_only_output_folders() {
    let work = Classification::new();
    let (cache, run) = work.trained();
    let folder = read_only_folder(&work);
    let out = folder.join("out");
    fails(
        telly(&["train", "--cache", text(&cache), "--out", text(&out)]),
        FAILED,
        &["cannot write", "may write to"],
    );
    let fresh = Classification::new();
    let mut command = fresh.precompute(
        &goldens().join("bert-tiny"),
        &fresh.path("train.jsonl"),
        "1",
    );
    command.args(["--graph", text(&out)]);
    fails(command, FAILED, &["cannot write", "may write to"]);
    let input = work.path("train.jsonl");
    let predict = ["predict", "--run", text(&run), "--input", text(&input)];
    let predict = telly(&[&predict[..], &["--output", text(&out)]].concat());
    fails(predict, FAILED, &["cannot write", "may write to"]);
    assert!(!out.exists());
}

fn search_precompute(data: &Path, cache: &Path) -> Vec<String> {
    precompute("search", &goldens().join("roberta-tiny"), data, "1", cache)
}

/// The disk fills up while the cache is written: here the limit on a file's size plays the disk.
/// Nothing half-written stays, and with room again the same command ends the work.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let work = Classification::new();
    let data = work.path("search.jsonl");
    write_search(&data, 200);
    let limited = |limit: &str| {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_telly")])
            .args(search_precompute(&data, &work.path("cache")));
        command.current_dir(support::project());
        command
    };
    // In KiB: enough for the manifest and the index, not for the shard.
    let output = limited("40").output().expect("bash runs");
    let said = stderr(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(FAILED), "{said}");
    assert!(
        said.contains("cannot write the cache") && said.contains("shard-00000"),
        "{said}"
    );
    let left = names(&work.path("cache"));
    assert!(
        left.iter()
            .all(|name| !name.starts_with(".telly") && !name.starts_with("shard")),
        "{left:?}"
    );
    let train = telly(&train(&work.path("cache"), &work.path("run"), ""));
    fails(
        train,
        WRONG_INPUT,
        &["incomplete", "goes on where it stopped"],
    );
    assert!(limited("unlimited").status().expect("bash runs").success());
    telly_json(&["cache", "verify", text(&work.path("cache"))]);
}

/// Runs the lines of `script`, in which `$disk` is a folder and `telly` the binary, where it may
/// mount; none, and said, if this machine lets nobody do that. What is mounted ends with it.
#[cfg(target_os = "linux")]
fn where_it_may_mount(disk: &Path, script: &str) -> Option<Output> {
    let script = format!("disk=$1; telly() {{ \"$telly\" \"$@\"; }}; {script}");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "bash", "-c"]);
    command.args([&script, "bash", text(disk)]);
    command.env("telly", env!("CARGO_BIN_EXE_telly"));
    command.env_remove("ORT_DYLIB_PATH");
    let output = command.current_dir(support::project()).output().ok();
    let mounted = output
        .filter(|output| output.status.code() != Some(99) && !stderr(output).contains("unshare"));
    match &mounted {
        Some(output) => println!("{}", stderr(output)),
        None => println!("left out: this machine lets nobody mount a disk"),
    }
    mounted
}

/// A disk that is too small is noticed before anything is computed: for one cache, and for the
/// third of three that fit one by one.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_too_small() {
    let work = Classification::new();
    let data = work.path("search.jsonl");
    write_search(&data, 400);
    let small = work.path("small");
    fs_err::create_dir(&small).expect("a folder");
    let model = goldens().join("roberta-tiny");
    let command = |freeze| precompute("search", &model, &data, freeze, &small.join("cache"));
    let dry = telly_json(&[command("1"), vec!["--dry-run".into()]].concat());
    let enough_for_one = (2 * dry["bytes"].as_u64().expect("bytes")).to_string();
    let on_disk = |freeze, size: &str| {
        let mount = format!("mount -t tmpfs -o size={size} none $disk || exit 99");
        where_it_may_mount(
            &small,
            &format!("{mount}; telly {}", command(freeze).join(" ")),
        )
    };
    for (freeze, size) in [("1", "64k"), ("1,2,3", &enough_for_one)] {
        let Some(output) = on_disk(freeze, size) else {
            return;
        };
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(FAILED), "{said}");
        assert!(
            said.contains("bytes and the disk of") && said.contains("hint: "),
            "{said}"
        );
    }
    let one = on_disk("1", &enough_for_one).expect("mounted before");
    assert!(one.status.success(), "{}", stderr(&one));
}

/// A disk that takes whole pages holds less than the sizes of the files say: it fills up in the
/// middle. With room again the same command ends the work.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_fills_up_in_the_middle() {
    let work = Classification::new();
    let data = work.path("search.jsonl");
    write_search(&data, 200);
    let small = work.path("small");
    fs_err::create_dir(&small).expect("a folder");
    let small_shards = |cache: &Path| {
        format!(
            "telly {} --shard-size 1KiB",
            search_precompute(&data, cache).join(" ")
        )
    };
    let (anew, cache) = (work.path("anew"), small.join("cache"));
    let (whole, command) = (small_shards(&anew), small_shards(&cache));
    let script = format!(
        "{whole} || exit 1
        mount -t tmpfs -o size=$(du --apparent-size -sk {anew} | cut -f1)k none $disk || exit 99
        {command} && exit 2
        mount -o remount,size=8m $disk || exit 3
        telly cache verify $disk/cache --json || exit 4
        {command} || exit 5
        diff -r $disk/cache {anew} || exit 6",
        anew = anew.display()
    );
    let Some(output) = where_it_may_mount(&small, &script) else {
        return;
    };
    let said = stderr(&output);
    assert!(output.status.success(), "{output:?}");
    assert!(
        said.contains("No space left") && said.contains("finished shards are kept"),
        "{said}"
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    println!("{printed}");
    assert!(!printed.contains("\"unwritten\":0,"), "{printed}");
}

/// As after an error of the disk, which Linux answers by making it read-only.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_has_become_read_only() {
    let work = Classification::new();
    let cache = work.path("cache");
    let command = |train: &str| {
        let model = goldens().join("bert-tiny");
        precompute("classify", &model, &work.path(train), "1", &cache)
    };
    telly_json(&command("other.jsonl"));
    let before = content(&cache);
    let script = format!(
        "mount --bind $disk $disk && mount -o remount,bind,ro $disk || exit 99
        telly cache verify $disk || exit 3
        telly {}",
        command("train.jsonl").join(" ")
    );
    let Some(output) = where_it_may_mount(&cache, &script) else {
        return;
    };
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(FAILED), "{said}");
    assert!(
        said.contains("cannot write the cache") && said.contains("may write to"),
        "{said}"
    );
    assert_eq!(content(&cache), before);
    telly_json(&command("train.jsonl"));
}

#[test]
fn nothing_is_left_behind() {
    let work = Classification::new();
    let before = names(work.0.folder());
    for freeze in ["9", "x"] {
        let train = work.path("train.jsonl");
        let mut command = work.precompute(&goldens().join("bert-tiny"), &train, freeze);
        let status = command.output().expect("telly runs").status;
        assert_eq!(status.code(), Some(WRONG_INPUT));
    }
    assert_eq!(names(work.0.folder()), before);
}
