//! Layer-wise decay of the learning rate (Howard and Ruder, 2018, arXiv 1801.06146; Clark et al.,
//! 2020, arXiv 2003.10555), in the form that `BEiT`'s fine-tuning has it (Bao et al., 2021, arXiv
//! 2106.08254).

use super::Parameters;

/// What the learning rate of each of `parameters` is multiplied by, in their order, in an encoder
/// of `layers` layers: `decay^(layers - l)` for layer `l`, counted from 0, `decay^(layers + 1)` for
/// the embeddings, also where they are the output matrix too, and 1 for what lies above the layers or belongs to all of them: the head, a
/// last normalisation, MPNet's table of relative positions.
pub fn layer_scales(parameters: &Parameters, layers: usize, decay: f64) -> Vec<f64> {
    let scale = |name: &str| {
        let depth = depth(name).unwrap_or(layers + 1);
        // As a product, so that each layer's is exactly the next one's times `decay`.
        (depth..=layers).fold(1.0, |scale, _| scale * decay)
    };
    let parameters = parameters.iter();
    parameters.map(|parameter| scale(&parameter.name)).collect()
}

/// 0 for the embeddings, `l + 1` for layer `l`, none for the rest.
fn depth(name: &str) -> Option<usize> {
    // A decoder has one table, at the top of its names.
    if name.starts_with("embeddings.") || name.starts_with("embed_tokens.") {
        return Some(0);
    }
    let mut parts = name.split('.');
    parts.find(|part| matches!(*part, "layer" | "layers"))?;
    let layer: usize = parts.next()?.parse().ok()?;
    Some(layer + 1)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::super::Parameters;
    use super::layer_scales;

    #[test]
    fn each_layer_learns_slower_than_the_one_above() {
        let names = [
            ("embeddings.word_embeddings.weight", 0.0625),
            ("embeddings.LayerNorm.bias", 0.0625),
            ("embed_tokens.weight", 0.0625),
            ("encoder.layer.0.attention.self.query.weight", 0.125),
            ("transformer.layer.1.ffn.lin1.bias", 0.25),
            ("layers.2.mlp.Wi.weight", 0.5),
            ("encoder.relative_attention_bias.weight", 1.0),
            ("final_norm.weight", 1.0),
            ("classifier.weight", 1.0),
            ("lm_head.weight", 1.0),
        ];
        let mut parameters = Parameters::new(&Device::Cpu);
        for (name, _) in names {
            parameters.add(name, &[1], vec![0.0]).expect("added");
        }
        let expected: Vec<f64> = names.map(|(_, scale)| scale).into();
        assert_eq!(layer_scales(&parameters, 3, 0.5), expected);
        assert_eq!(layer_scales(&parameters, 3, 1.0), [1.0; 10]);
    }
}
