//! Models that write text, as `transformers` loads them.

use super::classes::{ClassChoice, HeadTensor, Reading, Target};
use super::{Error, TrainedModel};
use crate::checkpoint::{Family, OUTPUT_MATRIX};
use crate::task::{SOURCE, TextLayout};

/// `…ForCausalLM` of a decoder. `UniXcoder`'s own code takes the bare model and its embeddings as the
/// matrix from states to words, which no class does.
pub(super) fn target(trained: &TrainedModel, choice: ClassChoice) -> Result<Target, Error> {
    if choice != ClassChoice::Auto {
        return Err(Error::Meaningless {
            flag: "--class".into(),
            reason: "the run writes text, and has no classes",
        });
    }
    let config = &trained.checkpoint.config;
    let (name, is_encoder) = (config.family.class(), config.family == Family::Roberta);
    let shape = vec![config.vocabulary_size, config.hidden_size];
    let weights = &trained.checkpoint.weights;
    let own = weights.check(OUTPUT_MATRIX, &shape).is_ok();
    // A checkpoint with tied matrices may hold both.
    let own = own && (!config.tied_language_head || trained.trains_head());
    let head = own.then(|| {
        Ok::<_, Error>(HeadTensor {
            name: OUTPUT_MATRIX.into(),
            values: weights.tensor(OUTPUT_MATRIX, &shape)?,
            shape,
        })
    });
    Ok(Target {
        class: if is_encoder {
            format!("{name}Model")
        } else {
            format!("{name}ForCausalLM")
        },
        prefix: if is_encoder {
            ""
        } else {
            config.family.prefix()
        },
        head: head.transpose()?.into_iter().collect(),
        reading: Reading::Output,
        config: Vec::new(),
        disguise: None,
    })
}

/// A piece of Python that can be copied.
pub(super) fn how_to_load(trained: &TrainedModel, target: Option<&Target>) -> String {
    let Some((_, encoding)) = trained.identity.encoding.text() else {
        unreachable!("it writes text")
    };
    let longest = encoding.max_target_length;
    match (&encoding.layout, target) {
        (TextLayout::Prompt { template, end }, Some(target)) => format!(
            "```python
from transformers import AutoTokenizer, {class}

model = {class}.from_pretrained(\".\").eval()
tokenizer = AutoTokenizer.from_pretrained(\".\")
template = {template:?}
inputs = tokenizer(template.replace({SOURCE:?}, \"the source\"), return_tensors=\"pt\")
written = model.generate(**inputs, max_new_tokens={longest}, eos_token_id={end}, do_sample=False)
print(tokenizer.decode(written[0, inputs[\"input_ids\"].shape[1]:], skip_special_tokens=True))
```

The prompt's parts and the source were encoded apart from each other, which may differ by a token
where they meet.
",
            class = target.class,
        ),
        (TextLayout::Unixcoder { .. }, Some(target)) => format!(
            "The weights are those of `{}`. `transformers` has no class that writes with them: UniXcoder's own
code does, with the word embeddings as its output matrix{}.
",
            target.class,
            if trained.trains_head() {
                ", or `lm_head.weight` of this folder, which was trained apart from them"
            } else {
                ""
            }
        ),
        (_, None) => "The graph has past keys and values, under the names that `optimum` has for them:
`optimum.onnxruntime.ORTModelForCausalLM.from_pretrained(\".\")` loads it.
"
        .into(),
    }
}
