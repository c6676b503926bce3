//! BigCloneBench as CodeXGLUE has it: functions in one file, pairs of their ids in others.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::lines::Lines;
use super::{Error, FieldChoice, Label, Records, compression};

/// Where functions are looked for beside a file of pairs.
const FUNCTIONS: [&str; 4] = [
    "data.jsonl",
    "data.jsonl.gz",
    "data.jsonl.zst",
    "data.parquet",
];

/// Texts that pairs name by id, each there once.
#[derive(Debug, Clone)]
pub struct Functions {
    path: PathBuf,
    texts: Vec<String>,
    places: HashMap<Label, usize>,
}

impl Functions {
    /// The functions' file in the folder of the file `pairs`.
    pub fn beside(pairs: &Path) -> Result<PathBuf, Error> {
        let found = FUNCTIONS.iter().map(|name| pairs.with_file_name(name));
        let found = found.into_iter().find(|path| path.is_file());
        found.ok_or_else(|| Error::NothingBeside {
            path: pairs.to_owned(),
            names: FUNCTIONS.map(str::to_owned).into(),
            advice: "name the file of functions with `--functions`",
        })
    }

    /// Reads the functions of `path`: the text in the field `text`, the id in `idx`.
    pub fn read(path: &Path, text: &FieldChoice) -> Result<Self, Error> {
        let id = FieldChoice::new("", None, &["idx", "id"]);
        let (mut texts, mut places, mut lines) = (Vec::new(), HashMap::new(), Vec::new());
        for record in Records::open(path)? {
            let record = record?;
            // Pair files know no types: 7 and "7" are the same function.
            let id = match id.label(&record, path)? {
                Label::Text(id) => Label::read(&id),
                number @ Label::Integer(_) => number,
            };
            if let Some(first) = places.insert(id.clone(), texts.len()) {
                return Err(Error::SameFunction {
                    path: path.to_owned(),
                    line: record.line,
                    id,
                    first: lines[first],
                });
            }
            texts.push(text.text(&record, path)?);
            lines.push(record.line);
        }
        Ok(Self {
            path: path.to_owned(),
            texts,
            places,
        })
    }

    /// Every function's text, in the file's order, white space made one.
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// The place in [`texts`](Self::texts) of the function that a pair file calls `id`.
    pub fn place(&self, id: &str) -> Option<usize> {
        self.places.get(&Label::read(id)).copied()
    }
}

/// Two functions, and whether they are clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Place of the first among the functions' texts.
    pub first: usize,
    /// Place of the second.
    pub second: usize,
    /// 1 for clones, 0 for others.
    pub label: i64,
    /// Its line in the pair file, from 1.
    pub line: usize,
}

/// The pairs of one split, in the file's order.
#[derive(Debug, Clone)]
pub struct PairFile {
    /// The file.
    pub path: PathBuf,
    /// At least one.
    pub pairs: Vec<Pair>,
    /// How many pairs were left out, as a function of theirs is not there.
    pub dropped: usize,
}

impl PairFile {
    /// Reads the pairs of `path`, which may be packed: two ids and 0 or 1 a line, with white space
    /// between; what follows is passed over. As the reference does, a pair is left out if one of its
    /// functions is not there.
    pub fn read(path: &Path, functions: &Functions) -> Result<Self, Error> {
        let mut lines = Lines::new(path, compression::open(path)?);
        let (mut pairs, mut dropped) = (Vec::new(), 0);
        while let Some((line, text)) = lines.next()? {
            let mut columns = text.split_whitespace();
            let found = (columns.next(), columns.next(), columns.next());
            let (Some(first), Some(second), Some(label @ ("0" | "1"))) = found else {
                return Err(Error::NoPair {
                    path: path.to_owned(),
                    line,
                    found: text.chars().take(60).collect(),
                });
            };
            match (functions.place(first), functions.place(second)) {
                (Some(first), Some(second)) => pairs.push(Pair {
                    first,
                    second,
                    label: i64::from(label == "1"),
                    line,
                }),
                _ => dropped += 1,
            }
        }
        let path = path.to_owned();
        match (pairs.is_empty(), dropped) {
            (true, 0) => Err(Error::Empty { path }),
            (true, pairs) => Err(Error::NoFunctions {
                path,
                pairs,
                functions: functions.path.clone(),
            }),
            (false, dropped) => Ok(Self {
                path,
                pairs,
                dropped,
            }),
        }
    }

    /// What to tell the user of pairs that were left out.
    pub fn notice(&self) -> Option<String> {
        let (path, dropped) = (self.path.display(), self.dropped);
        let all = self.pairs.len() + dropped;
        (dropped > 0).then(|| {
            format!(
                "`{path}`: {dropped} of {all} pairs left out, as a function of theirs is missing"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with two functions, and pairs in `train.txt`.
    fn folder(functions: &str, pairs: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name, text: &str| {
            fs_err::write(folder.path().join(name), text).expect("written");
            folder.path().join(name)
        };
        write("data.jsonl", functions);
        let pairs = write("train.txt", pairs);
        (folder, pairs)
    }

    fn read(functions: &str, pairs: &str) -> Result<(Functions, PairFile), Error> {
        let (_folder, path) = folder(functions, pairs);
        let field = FieldChoice::new("--text-field", None, &["func"]);
        let functions = Functions::read(&Functions::beside(&path)?, &field)?;
        let pairs = PairFile::read(&path, &functions)?;
        Ok((functions, pairs))
    }

    const TWO: &str = "{\"func\": \"a\\n b\", \"idx\": \"7\"}\n{\"func\": \"c\", \"idx\": 8}\n";

    #[test]
    fn pairs_name_functions_by_id() {
        let (functions, file) = read(TWO, "7\t8\t1\n\n8 7 0 4\r\n8\t9\t1\n").expect("pairs");
        assert_eq!(functions.texts(), ["a b", "c"]);
        let pair = |first, second, label, line| Pair {
            first,
            second,
            label,
            line,
        };
        assert_eq!(file.pairs, [pair(0, 1, 1, 1), pair(1, 0, 0, 3)]);
        assert_eq!(file.dropped, 1);
        let notice = file.notice().expect("one was dropped");
        assert!(notice.contains("1 of 3 pairs left out"), "{notice}");
    }

    #[test]
    fn broken_files_are_named() {
        let same = format!("{TWO}{}", "{\"func\": \"d\", \"idx\": \"8\"}");
        let no_id = "{\"func\": \"d\"}";
        for (functions, pairs, words) in [
            (TWO, "7\t8\t1\n7\t8\n", "line 2: `7\t8` is no pair"),
            (TWO, "7\t8\t2\n", "line 1: `7\t8\t2` is no pair"),
            (TWO, "1\t8\t1\n7\t2\t1", "none of its 2 pairs"),
            (TWO, "\n", "no records"),
            (
                &same,
                "7\t8\t1\n",
                "line 3: the function 8 is there already, in line 2",
            ),
            (no_id, "7\t8\t1\n", "no field `idx` or `id`"),
        ] {
            let error = read(functions, pairs).expect_err("broken").to_string();
            assert!(error.contains(words), "{error}");
        }
        let (folder, path) = folder(TWO, "7\t8\t1\n");
        fs_err::remove_file(folder.path().join("data.jsonl")).expect("removed");
        let error = Functions::beside(&path).expect_err("no functions");
        assert!(error.to_string().contains("no `data.jsonl`"), "{error}");
    }
}
