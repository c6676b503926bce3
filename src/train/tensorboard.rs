//! Scalars as TensorBoard reads them: protobuf events in TFRecord framing
//! (`event.proto` and `record_writer.h` of TensorFlow).

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

#[derive(Clone, PartialEq, Message)]
struct Event {
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<Summary>,
}

#[derive(Clone, PartialEq, Message)]
struct Summary {
    #[prost(message, repeated, tag = "1")]
    value: Vec<Value>,
}

#[derive(Clone, PartialEq, Message)]
struct Value {
    #[prost(string, tag = "1")]
    tag: String,
    // Declared optional so that 0 is written too: in the original it is one of several kinds.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// What the names of event files begin with.
const PREFIX: &str = "events.out.tfevents.";

/// One event file.
pub(super) struct TensorBoard(File);

impl TensorBoard {
    /// Starts an event file in `folder`.
    pub(super) fn create(folder: &Path) -> io::Result<Self> {
        fs_err::create_dir_all(folder)?;
        let name = format!("{PREFIX}{:.0}.telly", wall_time());
        let file = fs_err::File::create(folder.join(name))?.into_parts().0;
        let mut board = Self(file);
        board.write(&Event {
            wall_time: wall_time(),
            file_version: Some("brain.Event:2".into()),
            ..Event::default()
        })?;
        Ok(board)
    }

    /// Goes on with the event file in `folder` after its first `bytes`; starts one if there is
    /// none.
    pub(super) fn resume(folder: &Path, bytes: u64) -> io::Result<Self> {
        for entry in fs_err::read_dir(folder)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                return Ok(Self(reopen(&entry.path(), bytes)?));
            }
        }
        Self::create(folder)
    }

    /// Brings the events to the disk; returns the file's length.
    pub(super) fn sync(&mut self) -> io::Result<u64> {
        self.0.sync_all()?;
        self.0.stream_position()
    }

    /// Adds scalars of `step`, each with its tag.
    pub(super) fn scalars(&mut self, step: usize, scalars: &[(String, f64)]) -> io::Result<()> {
        #[allow(clippy::cast_possible_truncation)] // TensorBoard's scalars are f32.
        let value = scalars.iter().map(|(tag, number)| Value {
            tag: tag.clone(),
            simple_value: Some(*number as f32),
        });
        self.write(&Event {
            wall_time: wall_time(),
            step: step as i64,
            file_version: None,
            summary: Some(Summary {
                value: value.collect(),
            }),
        })
    }

    fn write(&mut self, event: &Event) -> io::Result<()> {
        let data = event.encode_to_vec();
        let length = (data.len() as u64).to_le_bytes();
        let mut record = length.to_vec();
        record.extend(masked_checksum(&length).to_le_bytes());
        record.extend(&data);
        record.extend(masked_checksum(&data).to_le_bytes());
        self.0.write_all(&record)
    }
}

/// Opens `path` to go on after its first `bytes`, dropping what comes later.
pub(super) fn reopen(path: &Path, bytes: u64) -> io::Result<File> {
    let mut file = fs_err::OpenOptions::new().write(true).open(path)?;
    let found = file.metadata()?.len();
    if found < bytes {
        return Err(io::Error::other(format!(
            "`{}` has {found} bytes, fewer than the {bytes} of its last checkpoint",
            path.display()
        )));
    }
    file.set_len(bytes)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file.into_parts().0)
}

/// CRC-32C, rotated and shifted as TFRecord does.
fn masked_checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

fn wall_time() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
