//! Whether a provider can really be used: a session over a tiny graph is opened and run.

use ndarray::array;
use ort::value::TensorRef;

use super::onnx::{self, CHECK_INPUT, CHECK_OUTPUT};
use super::session::open_session;
use super::{Error, ProviderChoice, Runtime, SessionOptions};
use crate::cuda;

impl Runtime {
    /// Opens a session on `provider`, runs it, and holds what it puts out against what is right.
    pub fn try_provider(&self, provider: ProviderChoice) -> Result<(), Error> {
        let options = SessionOptions {
            provider,
            threads: Some(1),
            ..SessionOptions::default()
        };
        let mut session = open_session(self, &onnx::write_check(), &options)?;
        let refused = |reason: String| Error::NoCuda(cuda::Error::Refused { reason });
        let failed = |error: ort::Error| refused(error.to_string());
        let input = array![[5.0_f32, 6.0]];
        let input = TensorRef::from_array_view(&input).map_err(failed)?;
        let outputs = session
            .run(ort::inputs![CHECK_INPUT => input])
            .map_err(failed)?;
        let (_, found) = outputs[CHECK_OUTPUT]
            .try_extract_tensor::<f32>()
            .map_err(failed)?;
        if found != [23.0, 34.0] {
            return Err(refused(format!(
                "a product of two matrices is {found:?}, expected [23.0, 34.0]"
            )));
        }
        Ok(())
    }
}
