//! Vectors of texts at every layer in a file: what one pass found serves any number of comparisons.

use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use super::described::{self, finite_numbers, write_described};
use super::{Error, LayerVectors, TextPooling};
use crate::cache::Fingerprint;
use crate::mapping::MappedFile;

/// The file in its folder: `layer.0` to `layer.L`, float32 `[texts, hidden]`, and `texts`, uint8
/// `[texts, 32]`, BLAKE3 of each text; its metadata is a [`PooledSource`].
pub const POOLED: &str = "pooled.safetensors";
const KIND: &str = "pooled vectors";

/// Tells a text from any other.
pub type TextHash = [u8; 32];

/// That of `text`, as the model's tokenizer gets it.
pub fn text_hash(text: &str) -> TextHash {
    *blake3::hash(text.as_bytes()).as_bytes()
}

/// What pooled vectors were made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PooledSource {
    /// Folder of the checkpoint or run, or its name on the hub.
    pub model: PathBuf,
    /// The texts; none where they came by stdin.
    pub data: Option<PathBuf>,
    /// The flag, if it was passed.
    pub text_field: Option<String>,
    /// What a text's vector is the mean over.
    pub pooling: TextPooling,
    /// Most tokens of a text.
    pub max_length: usize,
    /// Of all that decides the vectors.
    pub fingerprint: Fingerprint,
}

/// The vectors of some texts at every layer of a model, and what they were made from.
#[derive(Debug, Clone, PartialEq)]
pub struct Pooled {
    /// Where they come from.
    pub source: PooledSource,
    /// Which texts, in order.
    pub texts: Vec<TextHash>,
    /// Their vectors.
    pub vectors: LayerVectors,
}

impl PooledSource {
    /// Vectors that `model` made of at most `max_length` tokens of each text of `data`; `fingerprint` is
    /// of the model and how it ran, and gets `pooling`, `max_length` and the `texts`.
    pub fn new(
        (model, data): (PathBuf, Option<PathBuf>),
        text_field: Option<String>,
        (pooling, max_length): (TextPooling, usize),
        mut fingerprint: Fingerprint,
        texts: &[TextHash],
    ) -> Self {
        fingerprint.set("pooling", pooling.to_string());
        fingerprint.set("max_length", max_length);
        let texts = blake3::hash(texts.as_flattened());
        fingerprint.set("texts", texts.to_hex().as_str());
        Self {
            model,
            data,
            text_field,
            pooling,
            max_length,
            fingerprint,
        }
    }
}

impl Pooled {
    /// The folder that has such a file, if `path` is that folder or the file itself.
    pub fn folder(path: &Path) -> Option<&Path> {
        let folder = if path.ends_with(POOLED) {
            match path.parent()? {
                here if here.as_os_str().is_empty() => Path::new("."),
                folder => folder,
            }
        } else {
            path
        };
        folder.join(POOLED).is_file().then_some(folder)
    }

    /// Writes them as the file of `folder`, which is there; it is whole or not there at all.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        let Self {
            source,
            texts,
            vectors,
        } = self;
        let shape = || vec![vectors.texts, vectors.width];
        let layers = vectors.layers.iter().enumerate().map(|(layer, numbers)| {
            let bytes = bytemuck::cast_slice(numbers);
            (layer_name(layer), Dtype::F32, shape(), bytes)
        });
        let hashes = (
            "texts".to_owned(),
            Dtype::U8,
            vec![texts.len(), size_of::<TextHash>()],
            texts.as_flattened(),
        );
        let views = layers
            .chain([hashes])
            .map(|(name, dtype, shape, bytes): (_, _, _, &[u8])| {
                let view = TensorView::new(dtype, shape, bytes)
                    .unwrap_or_else(|_| unreachable!("the bytes are those of the shape"));
                (name, view)
            });
        write_described(folder, POOLED, KIND, source, views)
    }

    /// What the file of `folder` was made from, without its vectors.
    pub fn source(folder: &Path) -> Result<PooledSource, Error> {
        let (path, file) = open(folder)?;
        source(&path, &file)
    }

    /// Those in the file of `folder`.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let (path, file) = open(folder)?;
        let source = source(&path, &file)?;
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let tensors =
            SafeTensors::deserialize(&file).map_err(|error| damaged(error.to_string()))?;
        let tensor = |name: &str, dtype: Dtype, shape: Option<&[usize]>| {
            let tensor = tensors.tensor(name);
            let tensor = tensor.map_err(|error| damaged(error.to_string()))?;
            let fits = shape.is_none_or(|shape| tensor.shape() == shape);
            if tensor.dtype() != dtype
                || tensor.shape().len() != 2
                || tensor.shape()[1] == 0
                || !fits
            {
                let (found, shape) = (tensor.dtype(), tensor.shape());
                return Err(damaged(format!("`{name}` is {found:?} {shape:?}")));
            }
            Ok(tensor)
        };
        let hashes = tensor("texts", Dtype::U8, None)?;
        let (texts, rest) = hashes.data().as_chunks();
        if hashes.shape()[1] != size_of::<TextHash>() || !rest.is_empty() {
            return Err(damaged(format!("`texts` is {:?}", hashes.shape())));
        }
        let width = tensor(&layer_name(0), Dtype::F32, None)?.shape()[1];
        let shape = [texts.len(), width];
        let layers = (0..tensors.len() - 1).map(|layer| {
            let name = layer_name(layer);
            let tensor = tensor(&name, Dtype::F32, Some(&shape))?;
            finite_numbers(&tensor)
                .ok_or_else(|| damaged(format!("`{name}` has a number that is not finite")))
        });
        let layers = layers.collect::<Result<Vec<Vec<f32>>, Error>>()?;
        Ok(Self {
            source,
            texts: texts.to_vec(),
            vectors: LayerVectors {
                texts: shape[0],
                width,
                layers,
            },
        })
    }

    /// Those of the first `texts` texts, or of all if there are fewer.
    #[must_use]
    pub fn first(mut self, texts: usize) -> Self {
        self.texts.truncate(texts);
        let vectors = &mut self.vectors;
        vectors.texts = self.texts.len();
        for layer in &mut vectors.layers {
            layer.truncate(vectors.texts * vectors.width);
        }
        self
    }
}

fn layer_name(layer: usize) -> String {
    format!("layer.{layer}")
}

fn open(folder: &Path) -> Result<(PathBuf, MappedFile), Error> {
    let path = folder.join(POOLED);
    let file = MappedFile::open(&path).map_err(Error::Read)?;
    Ok((path, file))
}

fn source(path: &Path, file: &MappedFile) -> Result<PooledSource, Error> {
    described::source(path, file, KIND)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled() -> Pooled {
        let texts: Vec<TextHash> = ["a", "b", "c"].into_iter().map(text_hash).collect();
        let source = PooledSource::new(
            ("models/a".into(), Some("texts.jsonl".into())),
            None,
            (TextPooling::Masked, 64),
            Fingerprint::default(),
            &texts,
        );
        let vectors = LayerVectors {
            texts: 3,
            width: 2,
            layers: vec![
                vec![0.5, -1.0, 2.0, 3.0, f32::MIN_POSITIVE, 7.0],
                vec![1.0; 6],
            ],
        };
        Pooled {
            source,
            texts,
            vectors,
        }
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let folder = tempfile::tempdir().expect("a folder");
        let written = pooled();
        written.write(folder.path()).expect("written");
        assert_eq!(Pooled::read(folder.path()).expect("readable"), written);
        let source = Pooled::source(folder.path()).expect("readable");
        assert_eq!(source, written.source);
        let first = written.first(2);
        assert_eq!((first.texts.len(), first.vectors.texts), (2, 2));
        assert_eq!(first.vectors.layers[0], [0.5, -1.0, 2.0, 3.0]);
    }

    #[test]
    fn what_is_no_such_file_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(POOLED);
        pooled().write(folder.path()).expect("written");
        let whole = fs_err::read(&path).expect("bytes");
        let mut fewer = pooled();
        fewer.texts.pop();
        fewer.write(folder.path()).expect("written");
        let error = Pooled::read(folder.path()).expect_err("two texts of three vectors");
        assert!(
            error.to_string().contains("`layer.0` is F32 [3, 2]"),
            "{error}"
        );
        let mut empty = pooled();
        empty.vectors.width = 0;
        empty.vectors.layers = vec![Vec::new(); 2];
        empty.write(folder.path()).expect("written");
        let error = Pooled::read(folder.path()).expect_err("vectors of no numbers");
        assert!(error.to_string().contains("F32 [3, 0]"), "{error}");
        for end in [0, 7, 100, whole.len() - 1] {
            fs_err::write(&path, &whole[..end]).expect("written");
            let error = Pooled::read(folder.path()).expect_err("it is cut");
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
        }
    }
}
