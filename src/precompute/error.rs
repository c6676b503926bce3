use crate::error::Explain;
use crate::frozen::FrozenPrecision;

/// Why a cache was not filled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The frozen half puts out something else than the checkpoint says.
    #[error(
        "the frozen half in {precision} does not agree with the checkpoint computed in fp32: over {tokens} sampled tokens its {measure} is {found:.6}, expected {expected}"
    )]
    Parity {
        /// What it computes in.
        precision: FrozenPrecision,
        /// How many tokens were compared.
        tokens: usize,
        /// What was measured.
        measure: &'static str,
        /// Its value.
        found: f64,
        /// Its bound, in words.
        expected: String,
    },
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        let Self::Parity { precision, .. } = self;
        Some(match precision {
            FrozenPrecision::Fp32 => {
                "another ONNX Runtime (`--onnxruntime`) or `--provider cpu` may compute it right; please report it".into()
            }
            FrozenPrecision::Int8 => {
                "this model loses too much in 8 bits: leave out `--frozen-precision int8`".into()
            }
        })
    }

    fn is_input(&self) -> bool {
        false
    }
}
