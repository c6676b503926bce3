//! The `telly` binary: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    telly::cli::run()
}
