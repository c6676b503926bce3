//! A file that the user names to be written.

use std::path::Path;

use crate::error::Error;

/// The folder that the file `out`, the value of `flag`, is in, and its name there.
pub(super) fn place<'a>(flag: &str, out: &'a Path) -> Result<(&'a Path, String), Error> {
    let wrong = |problem: String, hint: &str| Error::Usage {
        problem,
        hint: hint.into(),
    };
    let name = out.file_name().filter(|_| !out.is_dir());
    let Some(name) = name else {
        return Err(wrong(
            format!("`{flag} {}` is a folder, expected a file", out.display()),
            "name a file in it",
        ));
    };
    let folder = match out.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(wrong(
            format!(
                "`{flag} {}`: there is no folder `{}`",
                out.display(),
                folder.display()
            ),
            "make the folder first, or name a file elsewhere",
        ));
    }
    Ok((folder, name.to_string_lossy().into_owned()))
}
