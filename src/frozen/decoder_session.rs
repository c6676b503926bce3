//! A whole model that writes text in ONNX Runtime, step by step: from tokens, and the keys and values
//! of those before them, to logits.

use ndarray::{Array1, Array2, Array4};
use ort::session::Session;
use ort::value::{DynValue, Tensor};

use super::onnx::{self, Decoding};
use super::session::{Inputs, failed, open_session};
use super::{Error, ProviderChoice, Runtime, SessionOptions};
use crate::checkpoint::{AttentionPattern, Checkpoint};

/// The name under which weights in memory are found: [`onnx::DATA_FILE`] without its ending.
const FILE: &str = "frozen.onnx";

/// A whole model that goes on with sequences of tokens, several at a time.
pub struct DecoderSession {
    session: Session,
    /// Puts rows of keys or values together anew.
    gather: Session,
    takes_prefixes: bool,
    /// Of the keys or values of no tokens: heads and head size.
    heads: [usize; 2],
    vocabulary: usize,
    /// The graph's names for keys and values, layer after layer.
    past: Vec<String>,
    present: Vec<String>,
}

/// Keys and values of a batch's tokens in every layer, where ONNX Runtime put them.
pub struct KeysAndValues {
    states: Vec<DynValue>,
}

/// What a batch goes on with.
pub struct Step {
    /// Token ids, padded on the right, `[rows, length]`.
    pub ids: Array2<i64>,
    /// 1 for each token there is, 0 for padding, those of earlier steps first,
    /// `[rows, earlier + length]`.
    pub mask: Array2<i64>,
    /// Where the tokens stand, `[rows, length]`: counted as the model's positions are. That of padding
    /// must be one the model has.
    pub positions: Array2<i64>,
    /// How many tokens of each sequence all others attend to, `[rows]`. Read where the attention
    /// pattern has a prefix.
    pub prefix_lengths: Array1<i64>,
    /// Which token of this step logits are wanted of, `[rows]`.
    pub last_tokens: Array1<i64>,
}

impl DecoderSession {
    /// Builds the graph of `checkpoint`, whose attention pattern is causal or has a prefix, and a
    /// session to run it.
    ///
    /// # Panics
    /// If every token attends to every token: such a model writes nothing.
    pub fn new(
        runtime: &Runtime,
        checkpoint: &Checkpoint,
        options: &SessionOptions,
    ) -> Result<Self, Error> {
        let config = &checkpoint.config;
        assert!(!config.attention_pattern.is_bidirectional(), "a decoder");
        let mut options = options.clone();
        if options.provider == ProviderChoice::Tensorrt {
            // It plans for a longest sequence, and these grow.
            options.provider = ProviderChoice::Cuda;
        }
        let decoding = Decoding::LastToken;
        let precision = options.precision;
        let model = onnx::write_decoder(checkpoint, decoding, precision, &[], FILE)?.into_model();
        let gather = onnx::write_gather(checkpoint, FILE).into_model();
        Ok(Self {
            session: open_session(runtime, &model, &options)?,
            gather: open_session(runtime, &gather, &options)?,
            takes_prefixes: config.attention_pattern != AttentionPattern::Causal,
            heads: [config.key_value_heads, config.head_size()],
            vocabulary: config.vocabulary_size,
            past: (0..config.layers).flat_map(onnx::past_names).collect(),
            present: (0..config.layers).flat_map(onnx::present_names).collect(),
        })
    }

    /// Logits there are of a token.
    pub fn vocabulary(&self) -> usize {
        self.vocabulary
    }

    /// Bytes of the keys and values of one token.
    pub fn bytes_a_token(&self) -> usize {
        self.past.len() * self.heads[0] * self.heads[1] * size_of::<f32>()
    }

    /// Those of no tokens, of so many sequences.
    pub fn nothing(&self, rows: usize) -> Result<KeysAndValues, Error> {
        let [heads, size] = self.heads;
        let none = || Tensor::from_array(Array4::<f32>::zeros((rows, heads, 0, size)));
        let states = self.past.iter().map(|_| Ok(none()?.into_dyn()));
        let states = states.collect::<ort::Result<_>>().map_err(failed)?;
        Ok(KeysAndValues { states })
    }

    /// Goes on by `step` behind the tokens of `past`: logits `[rows, vocabulary]`, flat, and the keys
    /// and values of all tokens.
    pub fn run(
        &mut self,
        step: Step,
        past: KeysAndValues,
    ) -> Result<(Vec<f32>, KeysAndValues), Error> {
        let inputs = self.inputs(step, past).map_err(failed)?;
        let mut outputs = self.session.run(inputs).map_err(failed)?;
        let logits = outputs[onnx::LOGITS].try_extract_tensor::<f32>();
        let logits = logits.map_err(failed)?.1.to_vec();
        let states = self.present.iter().map(|name| {
            let value = outputs.remove(name);
            value.ok_or_else(|| failed(ort::Error::new(format!("there is no output `{name}`"))))
        });
        let states = states.collect::<Result<_, _>>()?;
        match logits.iter().position(|number| !number.is_finite()) {
            Some(place) => Err(Error::NotFinite {
                sequence: place / self.vocabulary,
            }),
            None => Ok((logits, KeysAndValues { states })),
        }
    }

    /// The sequences `rows` of `states`, in that order; one may come several times.
    pub fn gather(
        &mut self,
        states: KeysAndValues,
        rows: &[usize],
    ) -> Result<KeysAndValues, Error> {
        let rows: Array1<i64> = rows.iter().map(|&row| row as i64).collect();
        let gathered = states.states.into_iter().map(|states| {
            let rows = Tensor::from_array(rows.clone())?;
            let inputs = ort::inputs![onnx::STATES => states, onnx::ROWS => rows];
            let mut outputs = self.gather.run(inputs)?;
            let gathered = outputs.remove(onnx::GATHERED);
            gathered.ok_or_else(|| ort::Error::new("there is no output `gathered`"))
        });
        let states = gathered.collect::<ort::Result<_>>().map_err(failed)?;
        Ok(KeysAndValues { states })
    }

    fn inputs(&self, step: Step, past: KeysAndValues) -> ort::Result<Inputs> {
        let mut inputs = ort::inputs![
            onnx::INPUT_IDS => Tensor::from_array(step.ids)?,
            onnx::ATTENTION_MASK => Tensor::from_array(step.mask)?,
            onnx::POSITION_IDS => Tensor::from_array(step.positions)?,
            onnx::LAST_TOKEN => Tensor::from_array(step.last_tokens)?,
        ];
        if self.takes_prefixes {
            let lengths = Tensor::from_array(step.prefix_lengths)?;
            inputs.push((onnx::PREFIX_LENGTHS.into(), lengths.into()));
        }
        let states = self.past.iter().zip(past.states);
        inputs.extend(states.map(|(name, states)| (name.clone().into(), states.into())));
        Ok(inputs)
    }
}
