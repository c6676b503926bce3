//! The two that `telly rsa` compares: models that are run, or vectors that `telly precompute --pooled`
//! has kept.

use std::fmt::Display;
use std::path::Path;

use super::console;
use super::options::{RuntimeOptions, first_passed};
use super::studied::{Studied, StudiedOptions, missing_data};
use super::text_vectors::{TextVectors, texts};
use crate::cache::MANIFEST;
use crate::dataset::{Dataset, Source};
use crate::error::Error;
use crate::study::{self, LayerVectors, Pooled, TextHash, TextPooling};

/// Texts to compare by, unless told and where no vectors are kept.
const TEXTS: usize = 1000;

/// What the command line says of the texts.
pub(super) struct Asked<'a> {
    pub(super) data: Option<&'a Path>,
    pub(super) text_field: Option<&'a str>,
    pub(super) limit: Option<usize>,
    pub(super) pooling: Option<TextPooling>,
    /// A flag that says how models run, if one was passed.
    pub(super) running: Option<&'static str>,
}

/// One of the two.
enum Side<'a> {
    Model(Box<Studied<'a>>),
    Kept {
        folder: &'a Path,
        pooled: Box<Pooled>,
    },
}

/// Both, and what they agree on.
pub(super) struct Compared<'a> {
    sides: [Side<'a>; 2],
    form: TextVectors,
    /// What models are run on; none where both are kept.
    data: Option<Dataset>,
    /// How many texts are compared at most.
    limit: usize,
}

impl<'a> Side<'a> {
    fn open(path: &'a Path, options: &StudiedOptions) -> Result<Self, Error> {
        let Some(folder) = Pooled::folder(path) else {
            if path.join(MANIFEST).is_file() {
                return Err(Error::Usage {
                    problem: format!("`{}` is a cache of activations", path.display()),
                    hint: "name the model, or the folder of vectors that `telly precompute --pooled` wrote".into(),
                });
            }
            return Ok(Self::Model(Box::new(options.open(path)?)));
        };
        let pooled = Box::new(Pooled::read(folder)?);
        Ok(Self::Kept { folder, pooled })
    }

    fn path(&self) -> &'a Path {
        match self {
            Self::Model(studied) => studied.path,
            Self::Kept { folder, .. } => folder,
        }
    }

    fn layers(&self) -> usize {
        match self {
            Self::Model(studied) => studied.layers(),
            Self::Kept { pooled, .. } => pooled.vectors.layers.len() - 1,
        }
    }

    fn model(&self) -> Option<&Studied<'a>> {
        match self {
            Self::Model(studied) => Some(studied),
            Self::Kept { .. } => None,
        }
    }

    fn kept(&self) -> Option<(&'a Path, &Pooled)> {
        match self {
            Self::Model(_) => None,
            Self::Kept { folder, pooled } => Some((folder, pooled)),
        }
    }

    /// Which texts its vectors are of.
    fn texts(&self, form: &TextVectors, data: Option<&Dataset>) -> Result<Vec<TextHash>, Error> {
        match (self, data) {
            (Self::Kept { pooled, .. }, _) => Ok(pooled.texts.clone()),
            (Self::Model(studied), Some(data)) => form.hashes(studied, data),
            (Self::Model(_), None) => Ok(Vec::new()),
        }
    }
}

impl<'a> Compared<'a> {
    /// Those in `paths`; refuses what cannot be compared before anything is run.
    pub(super) fn open(
        paths: [&'a Path; 2],
        options: &StudiedOptions,
        asked: &Asked,
    ) -> Result<Self, Error> {
        // What is wrong with the flags is told before a model is opened.
        let typed = asked.data.map(|path| Source::of(path, "test"));
        let typed = typed.transpose()?;
        if typed.is_none() && paths.iter().all(|path| Pooled::folder(path).is_none()) {
            return Err(missing_data(&paths));
        }
        let sides = [
            Side::open(paths[0], options)?,
            Side::open(paths[1], options)?,
        ];
        let [expected, found] = sides.each_ref().map(Side::layers);
        if found != expected {
            return Err(study::Error::Layers { found, expected }.into());
        }
        let kept: Vec<(&Path, &Pooled)> = sides.iter().filter_map(Side::kept).collect();
        let lengths = kept
            .iter()
            .map(|(path, kept)| (*path, kept.source.max_length));
        let max_length = agreed("--max-length", options.max_length, lengths)?;
        let poolings = kept.iter().map(|(path, kept)| (*path, kept.source.pooling));
        let pooling = agreed("--pooling", asked.pooling, poolings)?;
        let fewest = kept.iter().map(|(_, kept)| kept.texts.len()).min();
        let limit = match (asked.limit, fewest) {
            (Some(limit), Some(fewest)) if fewest < limit => {
                console::say(&format!(
                    "vectors are kept of {fewest} texts: comparing by these"
                ));
                fewest
            }
            (Some(limit), _) => limit,
            (None, fewest) => fewest.unwrap_or(TEXTS),
        };
        let models: Vec<&Studied> = sides.iter().filter_map(Side::model).collect();
        let field = kept
            .iter()
            .find_map(|(_, kept)| kept.source.text_field.clone());
        let form = TextVectors {
            text_field: asked.text_field.map(str::to_owned).or(field),
            max_length: max_length.unwrap_or_else(|| options.max_length(models.iter().copied())),
            pooling: pooling.unwrap_or_default(),
        };
        let data = data(typed, asked, &models, &kept)?;
        let data = data.map(|source| texts(&source, Some(limit))).transpose()?;
        let compared = Self {
            sides,
            form,
            data,
            limit,
        };
        compared.check_texts()?;
        Ok(compared)
    }

    /// Refuses other texts on one side than on the other.
    fn check_texts(&self) -> Result<(), Error> {
        let [first, second] = &self.sides;
        if first.kept().or(second.kept()).is_none() {
            // Of the same data, by the same field.
            return Ok(());
        }
        let texts = |side: &Side| -> Result<Vec<TextHash>, Error> {
            let mut texts = side.texts(&self.form, self.data.as_ref())?;
            texts.truncate(self.limit);
            Ok(texts)
        };
        let [one, other] = [texts(first)?, texts(second)?];
        if one == other {
            return Ok(());
        }
        let same = one
            .iter()
            .zip(&other)
            .take_while(|(one, other)| one == other);
        Err(study::Error::OtherTexts {
            first: first.path().into(),
            second: second.path().into(),
            text: same.count() + 1,
        }
        .into())
    }

    pub(super) fn form(&self) -> &TextVectors {
        &self.form
    }

    /// The vectors of both, of the same texts.
    pub(super) fn vectors(self, runtime: &RuntimeOptions) -> Result<[LayerVectors; 2], Error> {
        let Self {
            sides,
            form,
            data,
            limit,
        } = self;
        let vectors = |side: Side| match side {
            Side::Kept { pooled, .. } => Ok(pooled.first(limit).vectors),
            Side::Model(studied) => {
                let data = data.as_ref().ok_or_else(|| missing_data(&[studied.path]))?;
                let mut frozen = form.frozen(&studied, runtime)?;
                form.compute(&studied, data, &mut frozen)
            }
        };
        let [first, second] = sides;
        Ok([vectors(first)?, vectors(second)?])
    }
}

/// Where the texts for `models` are: as `typed`, or where those of what is `kept` were; none without
/// models, where no flag that is for them may be `asked`.
fn data(
    typed: Option<Source>,
    asked: &Asked,
    models: &[&Studied],
    kept: &[(&Path, &Pooled)],
) -> Result<Option<Source>, Error> {
    if models.is_empty() {
        let passed = first_passed(&[
            ("--data", asked.data.is_some()),
            ("--text-field", asked.text_field.is_some()),
        ]);
        return match passed.or(asked.running) {
            None => Ok(None),
            Some(flag) => Err(Error::Usage {
                problem: format!("`{flag}` has nothing to act on: the vectors of both are kept"),
                hint: "leave it out".into(),
            }),
        };
    }
    if typed.is_some() {
        return Ok(typed);
    }
    let known = kept.iter().find_map(|(_, kept)| kept.source.data.as_ref());
    let known = known.ok_or_else(|| missing_data(&[]))?;
    Ok(Some(Source::of(known, "test")?))
}

/// The value of `flag` that was `typed` and that all the vectors in folders were made with; none where
/// nothing says.
fn agreed<'a, T: PartialEq + Display>(
    flag: &str,
    typed: Option<T>,
    kept: impl Iterator<Item = (&'a Path, T)>,
) -> Result<Option<T>, Error> {
    let typed = typed.map(|value| ("here".to_owned(), value));
    let kept = kept.map(|(path, value)| (format!("of the vectors in `{}`", path.display()), value));
    let mut said = typed.into_iter().chain(kept);
    let Some((place, value)) = said.next() else {
        return Ok(None);
    };
    match said.find(|(_, other)| *other != value) {
        None => Ok(Some(value)),
        Some((other_place, other)) => Err(Error::Usage {
            problem: format!("`{flag}` is {value} {place}, and {other} {other_place}"),
            hint: format!("make the vectors again with another `{flag}`, or leave the flag out"),
        }),
    }
}
