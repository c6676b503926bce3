//! How text is written: flags of the commands that do so, and what they mean.

use super::options::first_passed;
use crate::error::Error;
use crate::generation::{BeamRule, EarlyStopping, GenerationSettings, Sampling};
use clap::Args;

/// How text is written.
#[derive(Args, Debug, Clone, Default)]
#[command(next_help_heading = "Generation")]
pub(super) struct GenerationOptions {
    /// Hypotheses of beam search; 1 is greedy decoding. As UniXcoder summarises: `--beam-size 10
    /// --beam-rule reference --max-new-tokens 128` [default: the task's].
    #[arg(long, value_name = "N")]
    pub beam_size: Option<usize>,
    /// A text's sum of log-probabilities is divided by its number of tokens to this power [default: 1].
    #[arg(long, value_name = "X")]
    pub length_penalty: Option<f64>,
    /// Whether beam search is over once there are as many whole texts as beams; false and never wait
    /// for better ones [default: false].
    #[arg(long, value_enum)]
    pub early_stopping: Option<EarlyStopping>,
    /// Whose beam search it is [default: the task's].
    #[arg(long, value_enum)]
    pub beam_rule: Option<BeamRule>,
    /// The most tokens of a text, the one that ends it included [default: the task's].
    #[arg(long, value_name = "N")]
    pub max_new_tokens: Option<usize>,
    /// A text ends behind the first of these that it holds, as `--stop-text ';' --stop-text '{'`; each
    /// must be found in a token.
    #[arg(long, value_name = "TEXT", action = clap::ArgAction::Append)]
    pub stop_text: Vec<String>,
    /// Draw tokens by their probabilities, in place of the most probable.
    #[arg(long)]
    pub sample: bool,
    /// With `--sample`: what logits are divided by; below 1 the probable becomes more so [default: 1].
    #[arg(long, value_name = "X")]
    pub temperature: Option<f64>,
    /// With `--sample`: draw from so many of the most probable tokens.
    #[arg(long, value_name = "N")]
    pub top_k: Option<usize>,
    /// With `--sample`: draw from the most probable tokens that together are this probable, as 0.9.
    #[arg(long, value_name = "X")]
    pub top_p: Option<f64>,
    /// With `--sample`: of the random numbers [default: 0].
    #[arg(long, value_name = "N")]
    pub generation_seed: Option<u64>,
    /// Prompts that are gone on with at a time [default: by the memory that keys and values take].
    #[arg(long, value_name = "N")]
    pub generation_batch: Option<usize>,
}

impl GenerationOptions {
    /// The settings that are meant, with `usual` where nothing is said.
    pub(super) fn settings(&self, usual: &GenerationSettings) -> Result<GenerationSettings, Error> {
        let beam_rule = self.beam_rule.unwrap_or(usual.beam_rule);
        let of_transformers = self.length_penalty.is_some() || self.early_stopping.is_some();
        if of_transformers && beam_rule == BeamRule::Reference {
            return Err(Error::Usage {
                problem: "`--length-penalty` and `--early-stopping` have nothing to act on with the beam rule reference".into(),
                hint: "leave them out, or pass `--beam-rule transformers`".into(),
            });
        }
        let sampling = self.sampling()?;
        let usual_size = if sampling.is_some() {
            1
        } else {
            usual.beam_size
        };
        let settings = GenerationSettings {
            beam_size: self.beam_size.unwrap_or(usual_size),
            length_penalty: self.length_penalty.unwrap_or(usual.length_penalty),
            early_stopping: self.early_stopping.unwrap_or(usual.early_stopping),
            beam_rule,
            max_new_tokens: self.max_new_tokens.unwrap_or(usual.max_new_tokens),
            stop_tokens: usual.stop_tokens.clone(),
            batch: self.generation_batch.or(usual.batch),
            sampling,
        };
        settings.check()?;
        Ok(settings)
    }

    /// The first of these flags that was typed.
    pub(super) fn given(&self) -> Option<&'static str> {
        first_passed(&[
            ("--beam-size", self.beam_size.is_some()),
            ("--length-penalty", self.length_penalty.is_some()),
            ("--early-stopping", self.early_stopping.is_some()),
            ("--beam-rule", self.beam_rule.is_some()),
            ("--max-new-tokens", self.max_new_tokens.is_some()),
            ("--stop-text", !self.stop_text.is_empty()),
            ("--sample", self.sample),
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--generation-seed", self.generation_seed.is_some()),
            ("--generation-batch", self.generation_batch.is_some()),
        ])
    }

    fn sampling(&self) -> Result<Option<Sampling>, Error> {
        let passed = first_passed(&[
            ("--temperature", self.temperature.is_some()),
            ("--top-k", self.top_k.is_some()),
            ("--top-p", self.top_p.is_some()),
            ("--generation-seed", self.generation_seed.is_some()),
        ]);
        match passed {
            Some(flag) if !self.sample => Err(Error::Usage {
                problem: format!("`{flag}` has nothing to act on without `--sample`"),
                hint: "pass `--sample`, or leave the flag out".into(),
            }),
            _ if !self.sample => Ok(None),
            _ => {
                let usual = Sampling::default();
                Ok(Some(Sampling {
                    temperature: self.temperature.unwrap_or(usual.temperature),
                    top_k: self.top_k,
                    top_p: self.top_p,
                    seed: self.generation_seed.unwrap_or(usual.seed),
                }))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: GenerationOptions,
    }

    fn settings(flags: &[&str]) -> Result<GenerationSettings, Error> {
        let typed = std::iter::once(&"command").chain(flags);
        let usual = GenerationSettings {
            beam_size: 10,
            beam_rule: BeamRule::Reference,
            stop_tokens: vec![2],
            ..GenerationSettings::default()
        };
        Command::parse_from(typed).options.settings(&usual)
    }

    #[test]
    fn flags_win_over_what_is_usual() {
        let found = settings(&[]).expect("settings");
        assert_eq!((found.beam_size, found.sampling), (10, None));
        let flags = [
            "--beam-rule",
            "transformers",
            "--early-stopping",
            "never",
            "--beam-size",
            "3",
        ];
        let found = settings(&flags).expect("settings");
        assert_eq!(found.early_stopping, EarlyStopping::Never);
        assert_eq!((found.beam_size, found.stop_tokens), (3, vec![2]));
        let found = settings(&["--sample", "--top-p", "0.9"]).expect("settings");
        assert_eq!(
            (found.beam_size, found.sampling.map(|one| one.top_p)),
            (1, Some(Some(0.9)))
        );
    }

    #[test]
    fn flags_that_act_on_nothing_are_refused() {
        for flags in [
            ["--top-k", "5"],
            ["--length-penalty", "2"],
            ["--beam-size", "0"],
        ] {
            assert!(settings(&flags).is_err(), "{flags:?}");
        }
        assert!(settings(&["--sample", "--beam-size", "2"]).is_err());
    }
}
