//! `config.json` of an export: the model's own, with what the head needs.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::classes::Target;
use super::tensors::StoredType;
use super::{Error, TrainedModel, folder};
use crate::task::Objective;

pub(super) const CONFIG: &str = "config.json";

/// Reads a JSON object of the model's folder.
pub(super) fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = fs_err::read_to_string(path).map_err(Error::Read)?;
    serde_json::from_str(&text).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })
}

/// Writes `config.json`; `target` is what loads the folder, and how its weights are stored, or
/// absent where no class does.
pub(super) fn write(
    folder: &Path,
    trained: &TrainedModel,
    target: Option<(&Target, StoredType)>,
) -> Result<(), Error> {
    let mut config = read(&trained.checkpoint.folder.join(CONFIG))?;
    // Of the model that this one was trained from: its place, its own head, code of its own.
    for field in [
        "_name_or_path",
        "architectures",
        "auto_map",
        "num_labels",
        "id2label",
        "label2id",
        "problem_type",
        "torch_dtype",
        "dtype",
    ] {
        config.remove(field);
    }
    if let Some((target, stored)) = target {
        config.insert("architectures".into(), json!([target.class]));
        config.insert("dtype".into(), stored.in_config().into());
        for (field, value) in &target.config {
            config.insert((*field).into(), (*value).into());
        }
    }
    if trained.writes_text() {
        let tied = trained.checkpoint.config.tied_language_head && !trained.trains_head();
        config.insert("tie_word_embeddings".into(), tied.into());
    } else if !trained.gives_embeddings() {
        let names = trained.class_names();
        let by_class: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(class, name)| (class.to_string(), json!(name)))
            .collect();
        let by_name: Map<String, Value> = names
            .iter()
            .enumerate()
            .map(|(class, name)| (name.clone(), json!(class)))
            .collect();
        config.insert("id2label".into(), by_class.into());
        config.insert("label2id".into(), by_name.into());
        let problem = match trained.objective() {
            Objective::SingleLabel => "single_label_classification",
            Objective::MultiLabel => "multi_label_classification",
            Objective::Regression => "regression",
        };
        config.insert("problem_type".into(), problem.into());
    }
    let config = Value::Object(config);
    folder::write_text(folder, CONFIG, &format!("{config:#}\n"))
}
