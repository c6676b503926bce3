//! All probes of a model, from one pass over the texts.

use std::collections::{HashMap, HashSet};

use rand::SeedableRng;
use rand::seq::{SliceRandom, index};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::chance::{precision_of_chance, reciprocal_rank_of_chance, share_of_most_frequent};
use super::classes::probe_classes;
use super::training::ProbeSettings;
use super::vectors::{Paired, probe_vectors};
use super::{CodeText, Features, Readings};
use crate::checkpoint::Checkpoint;
use crate::frozen::FrozenEncoder;
use crate::ragged::Ragged;
use crate::study::each_sequence::each_sequence;
use crate::study::layer_vectors::mean;
use crate::study::syntax::{COMPLEXITY_CLASSES, TokenClass};
use crate::study::{Error, TextPooling};

/// With fewer tokens the lexical probe tells nothing.
pub(in crate::study) const LEAST_TOKENS: usize = 8;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// Of a token: identifier, keyword, operator, number or string.
    Lexical,
    /// Of a function: which syntax tree is its own.
    Syntactic,
    /// Of a function: its cyclomatic complexity, 1 to 5, or more.
    Structural,
    /// Of a function: which others solve the same problem.
    Semantic,
}

impl Probe {
    /// What tells how well it is found.
    pub fn metric(self) -> &'static str {
        match self {
            Self::Lexical | Self::Structural => "accuracy",
            Self::Syntactic => "mrr",
            Self::Semantic => "map@r",
        }
    }

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lexical => "lexical",
            Self::Syntactic => "syntactic",
            Self::Structural => "structural",
            Self::Semantic => "semantic",
        }
    }

    fn settings(self, seed: u64) -> ProbeSettings {
        ProbeSettings {
            epochs: 20,
            batch_size: match self {
                Self::Lexical | Self::Structural => 128,
                Self::Syntactic | Self::Semantic => 64,
            },
            learning_rate: 3e-3,
            seed,
        }
    }
}

/// Whether labels are the texts' own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LabelOrder {
    /// They are.
    Own,
    /// They are in random order, in training and in test: what is found then is chance.
    Random,
}

/// What a probe came to.
#[derive(Debug, Clone, PartialEq)]
pub struct ProbeResult {
    /// Examples it learnt from.
    pub train: usize,
    /// Examples it was tested on.
    pub test: usize,
    /// What guessing gives: always the class that is most frequent in training, or a random order.
    pub chance: f64,
    /// What it found.
    pub readings: Readings,
    /// Of each test example what it is a part of: the problem that its text solves where that is known, else
    /// its text. Examples of one are not independent.
    pub clusters: Vec<i64>,
}

/// The texts and what is looked for in them.
pub struct Suite {
    /// Learnt from.
    pub train: Vec<CodeText>,
    /// Tested on.
    pub test: Vec<CodeText>,
    /// Tokens that the lexical probe learns from at most; it is tested on as many at most.
    pub tokens: usize,
    /// Of the draw of tokens.
    pub seed: u64,
}

/// How many problems there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Problems {
    /// To learn from.
    pub train: usize,
    /// To test on.
    pub test: usize,
}

impl Problems {
    /// How many the codes of `splits` solve; none without the semantic probe.
    pub fn of(splits: &[SplitFeatures; 2]) -> Option<Self> {
        let count = |split: &SplitFeatures| {
            let groups = split.groups.as_ref()?;
            Some(groups.iter().collect::<HashSet<_>>().len())
        };
        Some(Self {
            train: count(&splits[0])?,
            test: count(&splits[1])?,
        })
    }
}

/// How a model takes texts.
#[derive(Debug, Clone, Copy)]
pub struct TextForm<'a> {
    /// Token before each, as `UniXcoder`'s `<encoder-only>`.
    pub mode_token: Option<&'a str>,
    /// Most tokens of each, special ones included.
    pub max_length: usize,
}

/// What a model makes of a split's texts.
#[derive(Debug, Clone, PartialEq)]
pub struct SplitFeatures {
    /// The mean over each code's tokens.
    pub codes: Features,
    /// Codes that are longer than the model was given of them.
    pub codes_cut: usize,
    /// The codes' syntax trees; none without the syntactic probe.
    pub traversals: Option<Traversals>,
    /// Single tokens; none without the lexical probe.
    pub tokens: Option<Tokens>,
    /// The class of each code's complexity.
    pub complexities: Vec<u32>,
    /// The problem that each code solves; none without the semantic probe.
    pub groups: Option<Vec<i64>>,
}

/// What a model makes of single tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Tokens {
    /// Of each its hidden states.
    pub features: Features,
    /// The class of each, from 0.
    pub classes: Vec<u32>,
    /// The place among the codes of the text that each stands in.
    pub texts: Vec<u32>,
}

/// What a model makes of syntax trees.
#[derive(Debug, Clone, PartialEq)]
pub struct Traversals {
    /// The mean over each tree's tokens.
    pub features: Features,
    /// Equal for trees that are the same tokens.
    pub groups: Vec<i64>,
    /// Trees that are longer than the model was given of them.
    pub cut: usize,
}

/// A text's tokens and those of them that a class is known of.
struct Encoded {
    sequences: Ragged<u32>,
    /// Places of single tokens by sequence, with the number of each among all.
    wanted: Vec<Vec<(usize, usize)>>,
    classes: Vec<u32>,
    /// Of each single token the text that it stands in.
    token_texts: Vec<u32>,
    codes: usize,
    codes_cut: usize,
    traversal_groups: Vec<i64>,
    traversals_cut: usize,
}

impl Suite {
    /// What `checkpoint`, run by `frozen` at every depth, makes of the texts of both splits, for
    /// `probes`; `label` stands before the progress.
    pub fn features(
        &self,
        checkpoint: &Checkpoint,
        frozen: &mut FrozenEncoder,
        form: TextForm,
        probes: &[Probe],
        label: &str,
    ) -> Result<[SplitFeatures; 2], Error> {
        let train = self.split_features(&self.train, checkpoint, frozen, form, probes, label)?;
        let test = self.split_features(&self.test, checkpoint, frozen, form, probes, label)?;
        Ok([train, test])
    }

    fn split_features(
        &self,
        texts: &[CodeText],
        checkpoint: &Checkpoint,
        frozen: &mut FrozenEncoder,
        form: TextForm,
        probes: &[Probe],
        label: &str,
    ) -> Result<SplitFeatures, Error> {
        let encoded = self.encode(texts, checkpoint, form, probes)?;
        if probes.contains(&Probe::Lexical) && encoded.classes.len() < LEAST_TOKENS {
            return Err(Error::Tokens {
                found: encoded.classes.len(),
            });
        }
        let (width, layers) = (frozen.hidden_size(), frozen.depths().len());
        let trees = encoded.sequences.len() - encoded.codes;
        let mut codes = Features::zeros(encoded.codes, layers, width);
        let mut traversals = Features::zeros(trees, layers, width);
        let mut tokens = Features::zeros(encoded.classes.len(), layers, width);
        each_sequence(
            frozen,
            &encoded.sequences,
            TextPooling::Masked,
            label,
            &mut |index, states| {
                for (layer, states) in states.iter().enumerate() {
                    let vector = match index.checked_sub(encoded.codes) {
                        None => codes.vector_mut(index, layer),
                        Some(tree) => traversals.vector_mut(tree, layer),
                    };
                    mean(states, vector);
                    for &(place, number) in &encoded.wanted[index] {
                        let state = &states[place * width..][..width];
                        tokens.vector_mut(number, layer).copy_from_slice(state);
                    }
                }
            },
        )?;
        Ok(SplitFeatures {
            codes,
            codes_cut: encoded.codes_cut,
            traversals: probes.contains(&Probe::Syntactic).then_some(Traversals {
                features: traversals,
                groups: encoded.traversal_groups,
                cut: encoded.traversals_cut,
            }),
            tokens: probes.contains(&Probe::Lexical).then_some(Tokens {
                features: tokens,
                classes: encoded.classes,
                texts: encoded.token_texts,
            }),
            complexities: texts.iter().map(|text| text.complexity).collect(),
            groups: probes
                .contains(&Probe::Semantic)
                .then(|| texts.iter().map(|text| text.group).collect()),
        })
    }

    /// Codes, and after them their trees if a probe asks for these.
    fn encode(
        &self,
        texts: &[CodeText],
        checkpoint: &Checkpoint,
        form: TextForm,
        probes: &[Probe],
    ) -> Result<Encoded, Error> {
        let tokenizer = &checkpoint.tokenizer;
        let encode = |texts: Vec<String>| {
            tokenizer.encode_with_spans(texts, form.mode_token, form.max_length)
        };
        let codes = encode(texts.iter().map(|text| text.text.clone()).collect())?;
        let (mut codes_cut, mut traversals_cut) = (0, 0);
        let mut sequences = Ragged::new(1);
        let mut labelled = Vec::new();
        for (number, (text, found)) in (0..).zip(texts.iter().zip(&codes)) {
            sequences.push(&found.ids);
            codes_cut += usize::from(found.cut);
            if probes.contains(&Probe::Lexical) {
                let places = text.labelled(&found.spans).into_iter();
                labelled.extend(places.map(|(place, class)| (number, place, class)));
            }
        }
        let mut wanted = vec![Vec::new(); texts.len()];
        let (mut classes, mut token_texts) = (Vec::new(), Vec::new());
        let mut random = ChaCha8Rng::seed_from_u64(self.seed);
        let count = self.tokens.min(labelled.len());
        let mut drawn = index::sample(&mut random, labelled.len(), count).into_vec();
        drawn.sort_unstable();
        for chosen in drawn {
            let (text, place, class) = labelled[chosen];
            wanted[text as usize].push((place, classes.len()));
            classes.push(class as u32);
            token_texts.push(text);
        }
        let mut traversal_groups = Vec::new();
        if probes.contains(&Probe::Syntactic) {
            let trees = encode(texts.iter().map(|text| text.traversal.clone()).collect())?;
            let mut known: HashMap<Vec<u32>, i64> = HashMap::new();
            for tree in trees {
                sequences.push(&tree.ids);
                traversals_cut += usize::from(tree.cut);
                let next = known.len() as i64;
                traversal_groups.push(*known.entry(tree.ids).or_insert(next));
                wanted.push(Vec::new());
            }
        }
        Ok(Encoded {
            sequences,
            wanted,
            classes,
            token_texts,
            codes: texts.len(),
            codes_cut,
            traversal_groups,
            traversals_cut,
        })
    }
}

/// Trains and tests `probe` on what a model made of the splits, in an order drawn by `seed`; `label` stands
/// before the progress.
///
/// # Panics
/// If `splits` were not made for `probe`.
pub fn probe_splits(
    probe: Probe,
    splits: &[SplitFeatures; 2],
    order: LabelOrder,
    seed: u64,
    label: &str,
) -> Result<ProbeResult, Error> {
    let settings = probe.settings(seed);
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    match probe {
        Probe::Lexical | Probe::Structural => {
            let [train, test] = splits.each_ref().map(|split| {
                let (features, classes) = match (probe, &split.tokens) {
                    (Probe::Lexical, tokens) => {
                        let tokens = tokens.as_ref().expect("made for it");
                        (&tokens.features, &tokens.classes)
                    }
                    _ => (&split.codes, &split.complexities),
                };
                let mut classes = classes.clone();
                if order == LabelOrder::Random {
                    classes.shuffle(random);
                }
                (features, classes)
            });
            let classes = match probe {
                Probe::Lexical => TokenClass::COUNT,
                _ => COMPLEXITY_CLASSES,
            };
            let sizes = [train.1.len(), test.1.len()];
            let chance = share_of_most_frequent(&train.1, &test.1, classes);
            let [train, test] =
                [&train, &test].map(|(features, classes)| (*features, &classes[..]));
            let readings = probe_classes(train, test, classes, &settings, label)?;
            let texts = text_clusters(&splits[1]);
            let clusters = match (probe, &splits[1].tokens) {
                (Probe::Lexical, Some(tokens)) => {
                    let of_tokens = tokens.texts.iter();
                    of_tokens.map(|&text| texts[text as usize]).collect()
                }
                _ => texts,
            };
            Ok(ProbeResult::new(sizes, chance, readings, clusters))
        }
        Probe::Syntactic | Probe::Semantic => {
            let [train, test] = splits.each_ref().map(|split| {
                if probe == Probe::Semantic {
                    let mut groups = split.groups.clone().expect("made for it");
                    if order == LabelOrder::Random {
                        groups.shuffle(random);
                    }
                    return Paired::Groups {
                        features: split.codes.clone(),
                        groups,
                    };
                }
                let traversals = split.traversals.as_ref().expect("made for it");
                let mut rows: Vec<usize> = (0..split.codes.examples()).collect();
                if order == LabelOrder::Random {
                    rows.shuffle(random);
                }
                Paired::Sides {
                    queries: traversals.features.clone(),
                    codes: split.codes.select(rows),
                    groups: traversals.groups.clone(),
                }
            });
            let sizes = splits.each_ref().map(|split| split.codes.examples());
            let chance = match &test {
                Paired::Sides { groups, .. } => reciprocal_rank_of_chance(groups),
                Paired::Groups { groups, .. } => precision_of_chance(groups),
            };
            let readings = probe_vectors(train, test, &settings, label)?;
            let clusters = text_clusters(&splits[1]);
            Ok(ProbeResult::new(sizes, chance, readings, clusters))
        }
    }
}

/// Of each text of `split` what it is a part of: its problem where that is known, else itself.
fn text_clusters(split: &SplitFeatures) -> Vec<i64> {
    let alone = || (0..).take(split.codes.examples()).collect();
    split.groups.clone().unwrap_or_else(alone)
}

impl ProbeResult {
    fn new([train, test]: [usize; 2], chance: f64, readings: Readings, clusters: Vec<i64>) -> Self {
        Self {
            train,
            test,
            chance,
            readings,
            clusters,
        }
    }
}
