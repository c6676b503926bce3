//! The processes that a sweep or a pilot has telly run: each its own, so that its peak memory is its own.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value};

use crate::cli::console;
use crate::error::Error;
use crate::interrupt;

/// Between two looks at a process that runs.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Runs `telly command` as a process of its own, so that its peak memory is its own; the object it ends
/// with. What is interrupted goes on with `folder`.
pub(in crate::cli) fn telly_json(
    command: &str,
    flags: Vec<OsString>,
    folder: &Path,
) -> Result<Map<String, Value>, Error> {
    let stopped = || Error::Interrupted {
        kept: format!("the same command goes on with `{}`", folder.display()),
    };
    if interrupt::requested() {
        return Err(stopped());
    }
    let program = std::env::current_exe().map_err(Error::Output)?;
    let mut process = Command::new(program);
    process.arg(command).args(flags).arg("--json");
    let (status, stdout) = output_of(process).map_err(Error::Output)?;
    // What it finished counts, even if it was asked to stop meanwhile.
    if status.success()
        && let Some(last) = stdout.lines().last()
        && let Ok(object) = serde_json::from_str(last)
    {
        return Ok(object);
    }
    if interrupt::requested() || status.code() == Some(interrupt::EXIT_STATUS.into()) {
        return Err(stopped());
    }
    Err(Error::Child {
        command: format!("telly {command}"),
        status,
    })
}

/// [`telly_json`] of what can be done without: where it fails on its own, `without` is said, and there is none.
pub(in crate::cli) fn telly_json_if_it_can(
    command: &str,
    flags: Vec<OsString>,
    folder: &Path,
    without: &str,
) -> Result<Option<Map<String, Value>>, Error> {
    match telly_json(command, flags, folder) {
        Ok(found) => Ok(Some(found)),
        Err(Error::Child { .. }) => {
            console::say(without);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Runs `process` to its end, or to that of this one; what it wrote to stdout. Ctrl-C reaches this process
/// alone, which asks the other one to stop once: a second request would have it stop at once, and lose
/// what it did.
fn output_of(mut process: Command) -> io::Result<(ExitStatus, String)> {
    process.stdin(Stdio::null()).stdout(Stdio::piped());
    process.env(interrupt::RUN_BY, std::process::id().to_string());
    let mut child = process.process_group(0).spawn()?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        stdout.map_or(Ok(0), |mut stdout| stdout.read_to_string(&mut text))?;
        Ok::<_, io::Error>(text)
    });
    let mut asked = false;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if interrupt::requested() && !asked {
            asked = true;
            // It may have ended since.
            let _ = kill_process(Pid::from_child(&child), Signal::INT);
        }
        std::thread::sleep(LOOK_AGAIN);
    };
    let text = reader
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
    Ok((status, text))
}
