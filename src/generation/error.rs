use crate::error::Explain;
use crate::frozen;

/// Why text was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be built or run.
    #[error(transparent)]
    Frozen(#[from] frozen::Error),
    /// Tokens of the model attend to those behind them.
    #[error("a model whose tokens all attend to each other writes no text")]
    NotADecoder,
    /// Settings that contradict themselves.
    #[error("{problem}")]
    Settings {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// A prompt without tokens.
    #[error("prompt {prompt} is empty: there is nothing to go on with")]
    Empty {
        /// Which, counted from 0.
        prompt: usize,
    },
    /// A prompt that fills the model's positions.
    #[error(
        "prompt {prompt} ends at position {tokens}, expected at most {allowed}, all that the model has"
    )]
    TooLong {
        /// Which, counted from 0.
        prompt: usize,
        /// Positions that it takes.
        tokens: usize,
        /// Positions there are.
        allowed: usize,
    },
    /// Ctrl-C.
    #[error("interrupted: {finished} of {prompts} texts were written")]
    Interrupted {
        /// Texts that were whole.
        finished: usize,
        /// Texts there were to be.
        prompts: usize,
    },
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Frozen(error) => return error.hint(),
            Self::NotADecoder => {
                "use a decoder, such as Llama or Qwen2, or UniXcoder for a task that writes text"
                    .into()
            }
            Self::Settings { hint, .. } => (*hint).into(),
            Self::Empty { .. } => "leave the record out, or give it a text".into(),
            Self::TooLong { .. } => "cut sources shorter".into(),
            Self::Interrupted { .. } => return None,
        })
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Frozen(error) => error.is_input(),
            Self::Interrupted { .. } => false,
            _ => true,
        }
    }
}
