//! `--model`: a folder, or the name of a model on the hub.

use std::path::{Path, PathBuf};

use super::console;
use crate::checkpoint;
use crate::error::Error;

/// The folder of `model`, which is brought from the hub where it has to be.
pub(super) fn located(model: &Path) -> Result<PathBuf, Error> {
    let folder = checkpoint::locate(model)?;
    if folder != model {
        console::say(&format!(
            "`{}` is at `{}`",
            model.display(),
            folder.display()
        ));
    }
    Ok(folder)
}
