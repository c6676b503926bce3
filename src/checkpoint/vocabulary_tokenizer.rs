//! A tokenizer built from vocabulary files, as transformers builds its fast ones.

use serde_json::{Map, Value};
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::processors::roberta::RobertaProcessing;

use super::special_tokens::{Defaults, SpecialTokens};
use super::vocabulary_files::{Pieces, VocabularyFiles};
use super::{Error, Family};

const BERT: Defaults = Defaults {
    tokens: &[
        ("unk_token", "[UNK]"),
        ("sep_token", "[SEP]"),
        ("pad_token", "[PAD]"),
        ("cls_token", "[CLS]"),
        ("mask_token", "[MASK]"),
    ],
    mask_takes_space: false,
};
const MPNET: Defaults = Defaults {
    tokens: &[
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "[UNK]"),
        ("sep_token", "</s>"),
        ("pad_token", "<pad>"),
        ("cls_token", "<s>"),
        ("mask_token", "<mask>"),
    ],
    mask_takes_space: true,
};
const ROBERTA: Defaults = Defaults {
    tokens: &[
        ("bos_token", "<s>"),
        ("eos_token", "</s>"),
        ("unk_token", "<unk>"),
        ("sep_token", "</s>"),
        ("pad_token", "<pad>"),
        ("cls_token", "<s>"),
        ("mask_token", "<mask>"),
    ],
    mask_takes_space: true,
};
/// The classes of transformers whose vocabulary files are understood.
const WORD_CLASSES: [&str; 3] = ["BertTokenizer", "DistilBertTokenizer", "MPNetTokenizer"];
const BYTE_CLASSES: [&str; 1] = ["RobertaTokenizer"];

/// Builds the tokenizer of a model of `family` from its vocabulary `files`.
pub(super) fn build(files: VocabularyFiles, family: Family) -> Result<Tokenizer, Error> {
    let path = files.path.clone();
    let wrong = |problem: String| Error::Vocabularies {
        path: path.clone(),
        problem,
    };
    let broken = |source: tokenizers::Error| Error::Tokenizer {
        path: path.clone(),
        source,
    };
    let class = class(&files).map_err(wrong)?;
    let mpnet = class
        .as_deref()
        .map_or(family == Family::Mpnet, |class| class.starts_with("MPNet"));
    let (defaults, normalizer) = match files.pieces {
        Pieces::Bytes { .. } => (&ROBERTA, None),
        Pieces::Words { .. } => {
            let defaults = if mpnet { &MPNET } else { &BERT };
            (
                defaults,
                Some(bert_normalizer(&files.config).map_err(wrong)?),
            )
        }
    };
    let special = SpecialTokens::new(&files, defaults).map_err(wrong)?;
    let prefix_space = flag(&files.config, "add_prefix_space", false).map_err(wrong)?;
    let trim_offsets = flag(&files.config, "trim_offsets", true).map_err(wrong)?;

    let (mut tokenizer, bytes) = match files.pieces {
        Pieces::Bytes { vocabulary, merges } => {
            let vocabulary: Vocab = vocabulary.into_iter().collect();
            let model = BPE::builder().vocab_and_merges(vocabulary, merges);
            (Tokenizer::new(model.build().map_err(broken)?), true)
        }
        Pieces::Words { vocabulary } => {
            let vocabulary: Vocab = vocabulary.into_iter().collect();
            if !vocabulary.contains_key(&special.unknown) {
                let unknown = special.unknown.escape_debug();
                return Err(wrong(format!("it has no token \"{unknown}\"")));
            }
            let model = WordPiece::builder().vocab(vocabulary);
            let model = model.unk_token(special.unknown.clone()).build();
            (Tokenizer::new(model.map_err(broken)?), false)
        }
    };
    if let Some(normalizer) = normalizer {
        let normalizer = tokenizer.with_normalizer(Some(normalizer));
        normalizer.map_err(broken)?;
    }
    if bytes {
        tokenizer.with_pre_tokenizer(Some(ByteLevel::new(prefix_space, true, true)));
    } else {
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    }
    tokenizer.add_tokens(special.added).map_err(broken)?;
    let known = |token: String| {
        let id = tokenizer.token_to_id(&token);
        let id = id.ok_or_else(|| wrong(format!("it has no token \"{}\"", token.escape_debug())));
        id.map(|id| (token, id))
    };
    let (first, last) = (known(special.first)?, known(special.last)?);
    if bytes || mpnet {
        let processing = RobertaProcessing::new(last, first)
            .trim_offsets(trim_offsets)
            .add_prefix_space(prefix_space);
        tokenizer.with_post_processor(Some(processing));
    } else {
        tokenizer.with_post_processor(Some(BertProcessing::new(last, first)));
    }
    Ok(tokenizer)
}

/// The class that the configuration names, which must be one of those whose files look like
/// these.
fn class(files: &VocabularyFiles) -> Result<Option<String>, String> {
    let field = "tokenizer_class";
    let class = match files.config.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(class)) => class,
        Some(other) => return Err(format!("`{field}` is {other}, expected a name")),
    };
    let name = class.strip_suffix("Fast").unwrap_or(class);
    let known: &[&str] = match files.pieces {
        Pieces::Bytes { .. } => &BYTE_CLASSES,
        Pieces::Words { .. } => &WORD_CLASSES,
    };
    // What any class of the library may be called; says nothing.
    let says_nothing = matches!(name, "PreTrainedTokenizer" | "TokenizersBackend");
    if says_nothing {
        return Ok(None);
    }
    if !known.contains(&name) {
        return Err(format!(
            "`{field}` is \"{}\", built from such files are: {}",
            class.escape_debug(),
            known.join(", ")
        ));
    }
    Ok(Some(name.to_owned()))
}

fn bert_normalizer(config: &Map<String, Value>) -> Result<BertNormalizer, String> {
    if !flag(config, "do_basic_tokenize", true)? {
        return Err("`do_basic_tokenize` is false, supported: true".into());
    }
    let accents = match config.get("strip_accents") {
        None | Some(Value::Null) => None,
        Some(_) => Some(flag(config, "strip_accents", false)?),
    };
    let chinese = flag(config, "tokenize_chinese_chars", true)?;
    let lowercase = flag(config, "do_lower_case", true)?;
    Ok(BertNormalizer::new(true, chinese, accents, lowercase))
}

fn flag(config: &Map<String, Value>, field: &str, default: bool) -> Result<bool, String> {
    match config.get(field) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(format!(
            "`{field}` of `tokenizer_config.json` is {other}, expected true or false"
        )),
    }
}
