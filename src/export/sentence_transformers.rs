//! What `sentence-transformers` reads beside the model: the modules, one after the other.

use std::path::Path;

use serde_json::{Value, json};

use super::{Error, TrainedModel, folder};
use crate::trainable::Pooling;

/// Writes the modules: the model, pooling, unit length.
pub(super) fn write(folder: &Path, trained: &TrainedModel) -> Result<(), Error> {
    let module = |number: usize, path: &str, name: &str| {
        json!({
            "idx": number,
            "name": number.to_string(),
            "path": path,
            "type": format!("sentence_transformers.models.{name}"),
        })
    };
    let modules = json!([
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
        module(2, "2_Normalize", "Normalize"),
    ]);
    let pooling = trained.identity.pooling;
    let pooling = json!({
        "word_embedding_dimension": trained.checkpoint.config.hidden_size,
        "pooling_mode_cls_token": pooling == Pooling::Cls,
        "pooling_mode_mean_tokens": pooling == Pooling::Mean,
        "pooling_mode_max_tokens": false,
        "pooling_mode_mean_sqrt_len_tokens": false,
    });
    let transformer = json!({ "max_seq_length": trained.longest(), "do_lower_case": false });
    let whole = json!({
        "prompts": {},
        "default_prompt_name": null,
        "similarity_fn_name": "cosine",
    });
    let files: [(&str, Value); 4] = [
        ("modules.json", modules),
        ("1_Pooling/config.json", pooling),
        ("sentence_bert_config.json", transformer),
        ("config_sentence_transformers.json", whole),
    ];
    for (name, content) in files {
        folder::write_text(folder, name, &format!("{content:#}\n"))?;
    }
    // It has nothing to say, but is looked for.
    fs_err::create_dir_all(folder.join("2_Normalize")).map_err(Error::Write)
}
