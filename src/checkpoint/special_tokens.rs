//! What `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json` say about tokens
//! that are more than pieces of text, put together as transformers does.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::vocabulary_files::VocabularyFiles;

/// What a kind of tokenizer calls its special tokens, and how a plain name is meant.
pub(super) struct Defaults {
    /// Field and token, in the order in which they get ids if they have none.
    pub(super) tokens: &'static [(&'static str, &'static str)],
    /// Whether the mask, given by its name alone, takes the space before it.
    pub(super) mask_takes_space: bool,
}

/// Tokens to add to the vocabulary, and two that are put around each text.
pub(super) struct SpecialTokens {
    pub(super) added: Vec<AddedToken>,
    pub(super) unknown: String,
    pub(super) first: String,
    pub(super) last: String,
}

impl SpecialTokens {
    /// What the `files` say, over the `defaults` of their kind; else what is wrong with them.
    pub(super) fn new(files: &VocabularyFiles, defaults: &Defaults) -> Result<Self, String> {
        let decoder = given(&files.config, "added_tokens_decoder");
        let mut fields = files.config.clone();
        if decoder.is_none() {
            // Newer configurations say all that this older file says.
            fields.extend(files.special.clone());
        }
        let further = further(&fields)?;
        let mut added = match decoder {
            Some(decoder) => decoder_tokens(decoder)?,
            None => older_tokens(files, &fields, &further)?,
        };
        let mut named = BTreeMap::new();
        for (field, default) in defaults.tokens {
            let takes_space = *field == "mask_token" && defaults.mask_takes_space;
            let plain = |text: &str| AddedToken::from(text, true).lstrip(takes_space);
            let token = match given(&fields, field) {
                None => plain(default),
                Some(value) => token(field, value, plain)?,
            };
            named.insert(*field, token.content.clone());
            add(&mut added, token);
        }
        for token in further {
            add(&mut added, token);
        }
        let mut text = |field: &str| named.remove(field).unwrap_or_default();
        Ok(Self {
            unknown: text("unk_token"),
            first: text("cls_token"),
            last: text("sep_token"),
            added,
        })
    }
}

/// A token that is there already keeps its properties, except for being special.
fn add(added: &mut Vec<AddedToken>, token: AddedToken) {
    match added
        .iter_mut()
        .find(|other| other.content == token.content)
    {
        Some(other) => other.special = true,
        None => added.push(token),
    }
}

/// A field that is there and not null.
fn given<'a>(fields: &'a Map<String, Value>, field: &str) -> Option<&'a Value> {
    fields.get(field).filter(|value| !value.is_null())
}

/// `additional_special_tokens`, `extra_special_tokens` as it is called since transformers 5.
fn further(fields: &Map<String, Value>) -> Result<Vec<AddedToken>, String> {
    let names = ["additional_special_tokens", "extra_special_tokens"];
    let Some((field, value)) = names
        .iter()
        .find_map(|field| Some((*field, given(fields, field)?)))
    else {
        return Ok(Vec::new());
    };
    let plain = |text: &str| AddedToken::from(text, true);
    match value {
        Value::Array(tokens) => tokens
            .iter()
            .map(|value| token(field, value, plain))
            .collect(),
        // By name of an attribute.
        Value::Object(tokens) => tokens
            .values()
            .map(|value| token(field, value, plain))
            .collect(),
        other => Err(format!("`{field}` is {other}, expected a list of tokens")),
    }
}

/// `added_tokens_decoder`: tokens by id.
fn decoder_tokens(decoder: &Value) -> Result<Vec<AddedToken>, String> {
    let field = "added_tokens_decoder";
    let Value::Object(entries) = decoder else {
        return Err(format!("`{field}` is {decoder}, expected tokens by id"));
    };
    let mut tokens = BTreeMap::new();
    for (id, value) in entries {
        let id: u32 = id
            .parse()
            .map_err(|_| format!("`{field}` has the id \"{}\"", id.escape_debug()))?;
        let plain = |text: &str| AddedToken::from(text, false);
        tokens.insert(id, token(field, value, plain)?);
    }
    Ok(tokens.into_values().collect())
}

/// `added_tokens.json`: ids by token. What else is named as special is so here too.
fn older_tokens(
    files: &VocabularyFiles,
    fields: &Map<String, Value>,
    further: &[AddedToken],
) -> Result<Vec<AddedToken>, String> {
    let content = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        value => Some(value.get("content")?.as_str()?.to_owned()),
    };
    let named = fields.iter().filter(|(field, _)| field.ends_with("_token"));
    let mut special: Vec<String> = named.filter_map(|(_, value)| content(value)).collect();
    special.extend(further.iter().map(|token| token.content.clone()));
    let mut tokens = BTreeMap::new();
    for (text, id) in &files.added {
        let id = id
            .as_u64()
            .ok_or_else(|| format!("`added_tokens.json` gives a token the id {id}"))?;
        tokens.insert(id, AddedToken::from(text, special.contains(text)));
    }
    Ok(tokens.into_values().collect())
}

/// A token: its name alone, meant as `plain` says, or with its properties.
fn token(
    field: &str,
    value: &Value,
    plain: impl FnOnce(&str) -> AddedToken,
) -> Result<AddedToken, String> {
    let properties = match value {
        Value::String(text) => return Ok(plain(text)),
        Value::Object(properties) => properties,
        other => return Err(format!("`{field}` is {other}, expected a token")),
    };
    let Some(content) = properties.get("content").and_then(Value::as_str) else {
        return Err(format!("`{field}` has no `content`"));
    };
    let flag = |name: &str, default: bool| match properties.get(name) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(format!(
            "`{field}`: `{name}` is {other}, expected true or false"
        )),
    };
    let special = flag("special", field != "added_tokens_decoder")?;
    Ok(AddedToken::from(content, special)
        .single_word(flag("single_word", false)?)
        .lstrip(flag("lstrip", false)?)
        .rstrip(flag("rstrip", false)?)
        .normalized(flag("normalized", !special)?))
}
