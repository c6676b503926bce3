//! A disk that fails at a chosen call, or whose power is cut there.
//!
//! Every change is made in a real folder, so that what reads it sees what it would see, and is
//! written down beside it: which bytes and which names were synced. After a power cut the folder
//! is made again from what was synced and as much of the rest as [`Survival`] says, for a system
//! may write what was not synced in any order, or not at all. Nothing is assumed but that a
//! rename within a folder is atomic and that what fsync has returned for stays.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Change;

thread_local! {
    static DISK: RefCell<Option<LossyDisk>> = const { RefCell::new(None) };
}

/// What the disk of this thread makes of `change`; none if it is the system's.
pub(super) fn perform(change: Change) -> Option<io::Result<()>> {
    DISK.with_borrow_mut(|disk| disk.as_mut().map(|disk| disk.perform(change)))
}

/// When and how the disk fails; calls are counted from 0.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trouble {
    None,
    /// This call fails with this number of the operating system's; of a write, half is done.
    Once(usize, i32),
    /// As `Once`, and so does every call after it.
    From(usize, i32),
    /// From this call on nothing is done any more.
    PowerCut(usize),
}

/// What a power cut leaves of that which was not synced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Survival {
    /// Nothing.
    Nothing,
    /// Every name; the bytes of its files as this says.
    Names(Bytes),
    /// Each change of a name by chance, in their order, and the bytes of each file by chance.
    Random(u64),
}

/// What a power cut leaves of bytes that were not synced.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bytes {
    Lost,
    FirstHalf,
    /// A file of the right length.
    Zeros,
    Whole,
}

enum Node {
    File {
        bytes: Vec<u8>,
        synced: Vec<u8>,
    },
    Folder {
        names: Names,
        synced: Names,
        /// Since the last sync; each is atomic.
        changes: Vec<Vec<(OsString, Option<usize>)>>,
    },
}

/// Number of the node that has each name.
type Names = BTreeMap<OsString, usize>;

/// See the page above.
pub(crate) struct LossyDisk {
    root: PathBuf,
    /// The first is the root.
    nodes: Vec<Node>,
    trouble: Trouble,
    hard_links: bool,
    calls: usize,
    /// The change that failed first.
    failed: Option<String>,
}

impl LossyDisk {
    /// The disk that holds what is in `root`, all of it synced.
    pub(crate) fn new(root: &Path, trouble: Trouble, hard_links: bool) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            nodes: Vec::new(),
            trouble,
            hard_links,
            calls: 0,
            failed: None,
        };
        disk.take_in(root);
        disk
    }

    fn take_in(&mut self, path: &Path) -> usize {
        let number = self.nodes.len();
        if path.is_file() {
            let bytes = fs_err::read(path).expect("bytes");
            let synced = bytes.clone();
            self.nodes.push(Node::File { bytes, synced });
            return number;
        }
        self.nodes.push(folder());
        let entries = fs_err::read_dir(path).expect("a folder");
        let found: Names = entries
            .map(|entry| entry.expect("an entry"))
            .map(|entry| (entry.file_name(), self.take_in(&entry.path())))
            .collect();
        if let Node::Folder { names, synced, .. } = &mut self.nodes[number] {
            synced.clone_from(&found);
            *names = found;
        }
        number
    }

    /// Lets `run` change this disk in place of the system's; what it returned, and the disk.
    pub(crate) fn during<T>(self, run: impl FnOnce() -> T) -> (T, Self) {
        DISK.set(Some(self));
        let outcome = run();
        (outcome, DISK.take().expect("set above"))
    }

    /// How often it was asked to change something.
    pub(crate) fn calls(&self) -> usize {
        self.calls
    }

    /// The change that failed first.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.as_deref()
    }

    fn perform(&mut self, change: Change) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        let code = match self.trouble {
            Trouble::Once(failing, code) if call == failing => Some(code),
            Trouble::From(failing, code) if call >= failing => Some(code),
            Trouble::PowerCut(failing) if call >= failing => Some(5),
            _ => None,
        };
        if let Some(code) = code {
            self.failed.get_or_insert_with(|| match change {
                Change::Write(path, _) => format!("Write({})", path.display()),
                other => format!("{other:?}"),
            });
            if let (Change::Write(path, bytes), Trouble::Once(..) | Trouble::From(..)) =
                (change, self.trouble)
            {
                let half = Change::Write(path, &bytes[..bytes.len() / 2]);
                half.perform()?;
                self.record(half);
            }
            return Err(io::Error::from_raw_os_error(code));
        }
        if matches!(change, Change::Link(..)) && !self.hard_links {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // Syncing for real would only take time.
        if !matches!(change, Change::SyncFile(..) | Change::SyncFolder(_)) {
            change.perform()?;
        }
        self.record(change);
        Ok(())
    }

    fn record(&mut self, change: Change) {
        match change {
            Change::CreateFolder(path) => self.create(path, folder()),
            Change::CreateFile(path) => self.create(
                path,
                Node::File {
                    bytes: Vec::new(),
                    synced: Vec::new(),
                },
            ),
            Change::Write(path, written) => {
                let number = self.find(path);
                if let Node::File { bytes, .. } = &mut self.nodes[number] {
                    *bytes = written.to_vec();
                }
            }
            Change::SyncFile(path, _) | Change::SyncFolder(path) => {
                let number = self.find(path);
                match &mut self.nodes[number] {
                    Node::File { bytes, synced } => synced.clone_from(bytes),
                    Node::Folder {
                        names,
                        synced,
                        changes,
                    } => {
                        synced.clone_from(names);
                        changes.clear();
                    }
                }
            }
            Change::Rename(from, to) => {
                assert_eq!(from.parent(), to.parent(), "else it is not atomic");
                let node = self.find(from);
                self.name(to, vec![(name(from), None), (name(to), Some(node))]);
            }
            Change::Link(from, to) => {
                let node = self.find(from);
                self.name(to, vec![(name(to), Some(node))]);
            }
            Change::RemoveFile(path) | Change::RemoveFolder(path) => {
                self.name(path, vec![(name(path), None)]);
            }
        }
    }

    fn create(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        self.name(path, vec![(name(path), Some(number))]);
    }

    /// Changes names in the folder of `path`, all at once.
    fn name(&mut self, path: &Path, change: Vec<(OsString, Option<usize>)>) {
        let number = self.find(path.parent().expect("below the root"));
        if let Node::Folder { names, changes, .. } = &mut self.nodes[number] {
            apply(names, &change);
            changes.push(change);
        }
    }

    fn find(&self, path: &Path) -> usize {
        let below = path.strip_prefix(&self.root).expect("below the root");
        below
            .iter()
            .fold(0, |number, name| match &self.nodes[number] {
                Node::Folder { names, .. } => names[name],
                Node::File { .. } => panic!("{} is in a file", path.display()),
            })
    }

    /// Makes the root hold what a power cut leaves.
    pub(crate) fn lose_power(&self, survival: Survival) {
        let mut random = ChaCha8Rng::seed_from_u64(match survival {
            Survival::Random(seed) => seed,
            _ => 0,
        });
        // A file with several names has one fate.
        let fates: Vec<Bytes> = (0..self.nodes.len())
            .map(|_| match survival {
                Survival::Nothing => Bytes::Lost,
                Survival::Names(bytes) => bytes,
                Survival::Random(_) => [Bytes::Lost, Bytes::FirstHalf, Bytes::Zeros, Bytes::Whole]
                    [random.random_range(0..4)],
            })
            .collect();
        let chance = match survival {
            Survival::Nothing => 0.0,
            Survival::Names(_) => 1.0,
            Survival::Random(_) => random.random_range(0.0..1.0),
        };
        fs_err::remove_dir_all(&self.root).expect("removed");
        self.leave(0, &self.root, &fates, &mut || random.random_bool(chance));
    }

    fn leave(&self, node: usize, path: &Path, fates: &[Bytes], keep: &mut impl FnMut() -> bool) {
        match &self.nodes[node] {
            Node::File { bytes, synced } if bytes == synced => {
                fs_err::write(path, bytes).expect("written");
            }
            Node::File { bytes, synced } => {
                let left = match fates[node] {
                    Bytes::Lost => synced.clone(),
                    Bytes::FirstHalf => bytes[..bytes.len() / 2].to_vec(),
                    Bytes::Zeros => vec![0; bytes.len()],
                    Bytes::Whole => bytes.clone(),
                };
                fs_err::write(path, left).expect("written");
            }
            Node::Folder {
                synced, changes, ..
            } => {
                fs_err::create_dir(path).expect("a folder");
                let mut names = synced.clone();
                for change in changes {
                    if keep() {
                        apply(&mut names, change);
                    }
                }
                for (name, &node) in &names {
                    self.leave(node, &path.join(name), fates, keep);
                }
            }
        }
    }
}

fn folder() -> Node {
    Node::Folder {
        names: Names::new(),
        synced: Names::new(),
        changes: Vec::new(),
    }
}

fn name(path: &Path) -> OsString {
    path.file_name().expect("a name").to_owned()
}

fn apply(names: &mut Names, change: &[(OsString, Option<usize>)]) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk;
    use crate::publish::publish;

    /// What is left of `changes` after a power cut: names, and lengths.
    fn left(changes: impl FnOnce(&Path), survival: Survival) -> Vec<(String, u64)> {
        let space = tempfile::tempdir().expect("a folder");
        let root = space.path().join("root");
        fs_err::create_dir(&root).expect("a folder");
        let disk = LossyDisk::new(&root, Trouble::None, true);
        let ((), disk) = disk.during(|| changes(&root));
        disk.lose_power(survival);
        let entries = fs_err::read_dir(&root).expect("a folder");
        let mut names: Vec<(String, u64)> = entries
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, entry.metadata().expect("there").len())
            })
            .collect();
        names.sort();
        names
    }

    /// Written and renamed, but never synced: the classic mistake, which this disk must show.
    fn careless(root: &Path) {
        disk::create_file(&root.join("new")).expect("created");
        disk::write(&root.join("new"), b"content").expect("written");
        disk::rename(&root.join("new"), &root.join("name")).expect("renamed");
    }

    #[test]
    fn what_was_not_synced_is_lost_or_torn() {
        let name = |length| vec![("name".to_owned(), length)];
        assert_eq!(left(careless, Survival::Nothing), []);
        assert_eq!(left(careless, Survival::Names(Bytes::Lost)), name(0));
        assert_eq!(left(careless, Survival::Names(Bytes::FirstHalf)), name(3));
        assert_eq!(left(careless, Survival::Names(Bytes::Whole)), name(7));
        let random: std::collections::BTreeSet<_> = (0..100)
            .map(|seed| left(careless, Survival::Random(seed)))
            .collect();
        assert!(random.len() >= 5, "{random:?}");
    }

    #[test]
    fn what_was_published_stays() {
        for survival in [Survival::Nothing, Survival::Names(Bytes::Lost)] {
            let publish = |root: &Path| publish(root, "name", b"content").expect("published");
            assert_eq!(left(publish, survival), [("name".to_owned(), 7)]);
        }
    }
}
