//! How text is written.

use serde::{Deserialize, Serialize};

use super::Error;

/// How text is written; part of what decides a file of predictions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GenerationSettings {
    /// Hypotheses that are gone on with side by side: 1 is greedy decoding, or sampling.
    pub beam_size: usize,
    /// A finished hypothesis's sum of log-probabilities is divided by its number of new tokens, the
    /// one that ends it included, to this power. Of [`BeamRule::Transformers`].
    pub length_penalty: f64,
    /// When beam search is over. Of [`BeamRule::Transformers`].
    pub early_stopping: EarlyStopping,
    /// What beam search keeps, and when it is over.
    pub beam_rule: BeamRule,
    /// The most tokens that are written, the one that ends a text included. Less are where the
    /// model's positions end before.
    pub max_new_tokens: usize,
    /// Tokens that end a text.
    pub stop_tokens: Vec<u32>,
    /// Prompts at a time; as many as suit the model when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<usize>,
    /// How tokens are drawn; the most probable is taken when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sampling: Option<Sampling>,
}

impl Default for GenerationSettings {
    /// Greedy decoding of at most 128 tokens.
    fn default() -> Self {
        Self {
            beam_size: 1,
            length_penalty: 1.0,
            early_stopping: EarlyStopping::False,
            beam_rule: BeamRule::Transformers,
            max_new_tokens: 128,
            stop_tokens: Vec::new(),
            batch: None,
            sampling: None,
        }
    }
}

/// When beam search is over, before the most tokens are written: once as many hypotheses ended as
/// there are beams, and this. As transformers' `early_stopping`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EarlyStopping {
    /// And the best that goes on is no better than the worst of them, its score taken at its present
    /// length.
    #[default]
    False,
    /// At once.
    True,
    /// And the best that goes on cannot become better than the worst of them at any length.
    Never,
}

/// What beam search keeps, and when it is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BeamRule {
    /// That of transformers' `generate`: as many go on as there are beams, beside those that ended.
    #[default]
    Transformers,
    /// That of UniXcoder's own code: what ends takes a beam's place in its step; it is over once the
    /// best of a step ended and as many as there are beams in all, and sums of log-probabilities are
    /// compared as they are.
    Reference,
}

/// How tokens are drawn.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Logits are divided by it.
    pub temperature: f64,
    /// Only so many of the most probable tokens are drawn from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
    /// Of those only the most probable ones that together are at least this probable (Holtzman et
    /// al., 2020).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// Of the random numbers; each prompt has its own, whatever others are written beside it.
    pub seed: u64,
}

impl Default for Sampling {
    /// By the model's own probabilities.
    fn default() -> Self {
        Self {
            temperature: 1.0,
            top_k: None,
            top_p: None,
            seed: 0,
        }
    }
}

impl GenerationSettings {
    /// An error if nothing can be written like this.
    pub fn check(&self) -> Result<(), Error> {
        let refused = |problem: String, hint| Err(Error::Settings { problem, hint });
        if self.beam_size == 0 || self.max_new_tokens == 0 || self.batch == Some(0) {
            let problem = "a beam size, a batch or most new tokens of 0 leave nothing to write";
            return refused(problem.into(), "pass at least 1");
        }
        if !self.length_penalty.is_finite() {
            let problem = format!("a length penalty of {} is no number", self.length_penalty);
            return refused(
                problem,
                "1 compares means of log-probabilities, 0 their sums",
            );
        }
        let Some(sampling) = &self.sampling else {
            return Ok(());
        };
        if self.beam_size > 1 {
            let problem = format!("sampling with a beam size of {}", self.beam_size);
            return refused(problem, "draw tokens, or search with beams");
        }
        let temperature = sampling.temperature;
        if !(temperature > 0.0 && temperature.is_finite()) {
            let problem = format!("a temperature of {temperature}, expected one above 0");
            return refused(problem, "without sampling the most probable token is taken");
        }
        if sampling.top_k == Some(0) {
            let problem = "the 0 most probable tokens leave none to draw".into();
            return refused(problem, "pass at least 1, or leave top-k out");
        }
        match sampling.top_p {
            Some(share) if !(share > 0.0 && share <= 1.0) => {
                let problem = format!("a top-p of {share}, expected one above 0 and at most 1");
                refused(problem, "0.9 draws from the most probable nine tenths")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_as_they_are() {
        let settings = GenerationSettings {
            early_stopping: EarlyStopping::Never,
            stop_tokens: vec![2, 7],
            sampling: Some(Sampling {
                top_p: Some(0.9),
                ..Sampling::default()
            }),
            ..GenerationSettings::default()
        };
        let text = toml::to_string(&settings).expect("TOML");
        assert!(text.contains("early_stopping = \"never\""), "{text}");
        assert_eq!(
            toml::from_str::<GenerationSettings>(&text).expect("settings"),
            settings
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let sampling = |sampling| GenerationSettings {
            sampling: Some(sampling),
            ..GenerationSettings::default()
        };
        let refused = [
            GenerationSettings {
                beam_size: 0,
                ..GenerationSettings::default()
            },
            GenerationSettings {
                beam_size: 2,
                ..sampling(Sampling::default())
            },
            sampling(Sampling {
                temperature: 0.0,
                ..Sampling::default()
            }),
            sampling(Sampling {
                top_p: Some(1.5),
                ..Sampling::default()
            }),
        ];
        for settings in refused {
            assert!(settings.check().is_err(), "{settings:?}");
        }
        assert!(sampling(Sampling::default()).check().is_ok());
    }
}
