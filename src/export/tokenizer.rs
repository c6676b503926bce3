//! The tokenizer's files of an export.

use std::path::Path;

use serde_json::{Value, json};

use super::{Error, TrainedModel, config, folder};

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
/// Copied as they are, where the model has them.
const COPIED: [&str; 6] = [
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
];
/// What special tokens are called, to be found in a tokenizer whose model says nothing of them.
const SPECIAL: [(&str, [&str; 2]); 5] = [
    ("cls_token", ["[CLS]", "<s>"]),
    ("sep_token", ["[SEP]", "</s>"]),
    ("unk_token", ["[UNK]", "<unk>"]),
    ("mask_token", ["[MASK]", "<mask>"]),
    ("pad_token", ["[PAD]", "<pad>"]),
];

/// Copies the tokenizer, and writes its configuration; `takes_token_types` where the model can be
/// given them.
pub(super) fn write(
    folder: &Path,
    trained: &TrainedModel,
    takes_token_types: bool,
) -> Result<(), Error> {
    let checkpoint = &trained.checkpoint;
    let from = &checkpoint.folder;
    if let Some(mode) = trained.identity.encoding.mode_token() {
        let text = checkpoint.tokenizer.to_json_in_mode(mode)?;
        folder::write_text(folder, TOKENIZER, &text)?;
    } else if from.join(TOKENIZER).is_file() {
        let bytes = fs_err::read(from.join(TOKENIZER)).map_err(Error::Read)?;
        fs_err::write(folder.join(TOKENIZER), bytes).map_err(Error::Write)?;
    } else {
        folder::write_text(folder, TOKENIZER, &checkpoint.tokenizer.to_json()?)?;
    }
    for name in COPIED.into_iter().filter(|name| from.join(name).is_file()) {
        let bytes = fs_err::read(from.join(name)).map_err(Error::Read)?;
        fs_err::write(folder.join(name), bytes).map_err(Error::Write)?;
    }
    let mut config = match from.join(CONFIG) {
        path if path.is_file() => config::read(&path)?,
        _ => serde_json::Map::new(),
    };
    for field in [
        "_name_or_path",
        "name_or_path",
        "auto_map",
        "tokenizer_file",
    ] {
        config.remove(field);
    }
    for (field, names) in SPECIAL {
        let token = match field {
            "pad_token" => checkpoint.tokenizer.token(checkpoint.config.padding_id),
            _ => None,
        };
        let known = || {
            let mut names = names.iter();
            names.find(|name| checkpoint.tokenizer.id(name).is_some())
        };
        let token = token.or_else(|| known().map(ToString::to_string));
        if let (Some(token), true) = (token, config.get(field).is_none_or(Value::is_null)) {
            config.insert(field.into(), token.into());
        }
    }
    // The class that takes `tokenizer.json` as it is, as Telly does; a family's own may build
    // another tokenizer out of the vocabulary.
    config.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    config.insert("model_max_length".into(), json!(trained.longest()));
    // A model that is not told of token types takes type 0 for all, as Telly does with single texts.
    // The ONNX graph finds those of two texts itself.
    let mut inputs = vec!["input_ids", "attention_mask"];
    if takes_token_types && checkpoint.config.text_separator.is_some() {
        inputs.push("token_type_ids");
    }
    config.insert("model_input_names".into(), json!(inputs));
    let config = Value::Object(config);
    folder::write_text(folder, CONFIG, &format!("{config:#}\n"))
}
