//! Where a split's records are: a file, or files in a folder.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};

use super::{Error, Records, compression};

/// What people call the splits.
const NAMES: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("valid", &["valid", "validation", "val", "dev"]),
    ("test", &["test"]),
];

/// The files of one split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// What finds the files again: files or folders, at least one.
    pub given: Vec<PathBuf>,
    /// At least one, in order.
    pub files: Vec<PathBuf>,
}

impl Source {
    /// The split `split` in `path`: that file itself, or what the folder `path` has of it.
    pub fn of(path: &Path, split: &str) -> Result<Self, Error> {
        if !path.is_dir() {
            return Ok(Self::file(path));
        }
        if let Some(source) = Self::in_folder(path, split)? {
            return Ok(source);
        }
        // A folder of pieces that name no split.
        let files = data_files(path)?;
        let names_split = |file: &PathBuf| NAMES.iter().any(|&(name, _)| is_piece(file, name));
        if files.is_empty() || files.iter().any(names_split) {
            return Err(Error::NoSplit {
                path: path.to_owned(),
                split: split.to_owned(),
            });
        }
        Ok(Self {
            given: vec![path.to_owned()],
            files,
        })
    }

    /// The split `split` in `paths`, at least one: what [`of`](Self::of) finds in each, in their order.
    pub fn of_all(paths: &[PathBuf], split: &str) -> Result<Self, Error> {
        if let [path] = paths {
            return Self::of(path, split);
        }
        let mut all = Self {
            given: paths.to_vec(),
            files: Vec::new(),
        };
        for path in paths {
            let found = Self::of(path, split)?;
            // Lines without fields: their meaning is that of the whole file.
            if let Some(file) = found.text_file() {
                return Err(Error::SeveralTexts { path: file.into() });
            }
            all.files.extend(found.files);
        }
        Ok(all)
    }

    /// The first of what was given, to name the split by.
    pub fn path(&self) -> &Path {
        &self.given[0]
    }

    /// The split `split` of `folder`: the file of that name, as `train.jsonl.gz`; or all pieces of
    /// it, as `python_train_0.jsonl.gz` and `train-00000-of-00002.parquet`, by their numbers; or
    /// those in a folder of its name. None if there is nothing of it.
    pub fn in_folder(folder: &Path, split: &str) -> Result<Option<Self>, Error> {
        let files = data_files(folder)?;
        let names = names(split);
        let whole = |file: &&PathBuf| names.contains(&compression::stem(file).as_str());
        let mut found: Vec<PathBuf> = files.iter().filter(whole).cloned().collect();
        // What CodeXGLUE's scripts make of Devign lies beside the places it was made from.
        if found.iter().any(|file| !is_text(file)) {
            found.retain(|file| !is_text(file));
        }
        if let [first, second, ..] = found.as_slice() {
            return Err(Error::TwoFiles {
                first: first.clone(),
                second: second.clone(),
            });
        }
        if let Some(file) = found.pop() {
            return Ok(Some(Self::file(&file)));
        }
        let mut pieces = files;
        pieces.retain(|file| is_piece(file, split));
        if !pieces.is_empty() {
            return Ok(Some(Self {
                given: vec![folder.to_owned()],
                files: pieces,
            }));
        }
        let inner = names.iter().map(|name| folder.join(name));
        match inner.into_iter().find(|path| path.is_dir()) {
            Some(path) => Self::of(&path, split).map(Some),
            None => Ok(None),
        }
    }

    fn file(path: &Path) -> Self {
        Self {
            given: vec![path.to_owned()],
            files: vec![path.to_owned()],
        }
    }

    /// The file, if it is one text file alone: lines, no records.
    pub fn text_file(&self) -> Option<&Path> {
        match self.files.as_slice() {
            [file] if is_text(file) => Some(file),
            _ => None,
        }
    }

    /// The records, file after file.
    pub fn records(&self) -> Result<Records, Error> {
        Records::open_all(&self.files)
    }
}

fn is_text(file: &Path) -> bool {
    compression::ending_unpacked(file) == "txt"
}

fn names(split: &str) -> &[&str] {
    let known = NAMES.iter().find(|(name, _)| *name == split);
    known.map_or(&[], |(_, names)| names)
}

/// Whether the words of the file's name have a name of the split among them.
fn is_piece(file: &Path, split: &str) -> bool {
    let stem = compression::stem(file);
    let mut words = stem.split(|letter: char| !letter.is_alphanumeric());
    words.any(|word| names(split).contains(&word))
}

/// The data files of `folder`, `part-2` before `part-10`.
fn data_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in fs_err::read_dir(folder).map_err(Error::Read)? {
        let path = entry.map_err(Error::Read)?.path();
        if compression::is_data(&path) && path.is_file() {
            files.push(path);
        }
    }
    files.sort_by(|a, b| by_numbers(&compression::stem(a), &compression::stem(b)).then(a.cmp(b)));
    Ok(files)
}

/// Compares names, runs of digits in them by their value.
fn by_numbers(a: &str, b: &str) -> Ordering {
    let parts = |name: &str| -> Vec<(String, String)> {
        let mut parts = Vec::new();
        let mut rest = name;
        while !rest.is_empty() {
            let digits = rest.find(|letter: char| letter.is_ascii_digit());
            let (word, tail) = rest.split_at(digits.unwrap_or(rest.len()));
            let end = tail.find(|letter: char| !letter.is_ascii_digit());
            let (number, tail) = tail.split_at(end.unwrap_or(tail.len()));
            // Numbers of any length compare as text once they are equally long.
            let number = number.trim_start_matches('0');
            parts.push((word.to_owned(), format!("{:08}{number}", number.len())));
            rest = tail;
        }
        parts
    };
    parts(a).cmp(&parts(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(names: &[&str], split: &str) -> Result<Vec<String>, Error> {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let path = folder.path().join(name);
            fs_err::create_dir_all(path.parent().expect("a parent")).expect("a folder");
            fs_err::write(path, "{}").expect("written");
        }
        let source = Source::of(folder.path(), split)?;
        let files = source.files.iter().map(|path| {
            let inner = path.strip_prefix(folder.path()).expect("inside");
            inner.display().to_string()
        });
        Ok(files.collect())
    }

    #[test]
    fn a_split_is_found_by_its_name() {
        let codexglue = ["train.jsonl", "valid.jsonl.gz", "test.csv", "README.md"];
        assert_eq!(found(&codexglue, "train").expect("train"), ["train.jsonl"]);
        assert_eq!(
            found(&codexglue, "valid").expect("valid"),
            ["valid.jsonl.gz"]
        );
        assert_eq!(found(&codexglue, "test").expect("test"), ["test.csv"]);
        let devign = ["function.json", "train.jsonl", "train.txt", "valid.txt"];
        assert_eq!(found(&devign, "train").expect("train"), ["train.jsonl"]);
        assert_eq!(found(&devign, "valid").expect("valid"), ["valid.txt"]);
        assert_eq!(
            found(&["dev.parquet"], "valid").expect("dev"),
            ["dev.parquet"]
        );
        let pieces = [
            "python_train_10.jsonl.gz",
            "python_train_9.jsonl.gz",
            "python_test_0.jsonl.gz",
        ];
        assert_eq!(
            found(&pieces, "train").expect("pieces"),
            [pieces[1], pieces[0]]
        );
        let inner = ["train/part-1.jsonl", "train/part-0.jsonl", "x.jsonl"];
        assert_eq!(found(&inner, "train").expect("inner"), [inner[1], inner[0]]);
        assert_eq!(
            found(&["b.parquet", "a.parquet"], "train").expect("all"),
            ["a.parquet", "b.parquet"]
        );
    }

    #[test]
    fn what_is_not_there_or_twice_there_is_refused() {
        assert!(matches!(
            found(&["train.jsonl"], "test"),
            Err(Error::NoSplit { .. })
        ));
        assert!(matches!(
            found(&["notes.md"], "train"),
            Err(Error::NoSplit { .. })
        ));
        assert!(matches!(
            found(&["train.jsonl", "train.csv"], "train"),
            Err(Error::TwoFiles { .. })
        ));
    }
}
