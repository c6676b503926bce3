//! What fine-tuning on a sample changes in what the layers know of code, by probes.

use std::ffi::OsString;
use std::path::Path;

use serde_json::{Map, Value};

use super::kept::{kept, last, of_run};
use super::sample::{TRAIN, VALID, write_texts};
use crate::checkpoint::Freeze;
use crate::cli::probe::texts::TextOptions;
use crate::cli::sweep::folder::Sweep;
use crate::cli::sweep::process::telly_json_if_it_can;
use crate::error::Error;
use crate::study::probe::{Finding, Probe};
use crate::study::syntax::Language;
use crate::train::RunIdentity;

/// The codes that probes learn from and are tested on.
const PROBED: [(&str, &str); 2] = [(TRAIN, "probed-train.jsonl"), (VALID, "probed-test.jsonl")];
/// What is looked for in them.
const LOOKED_FOR: [Probe; 2] = [Probe::Lexical, Probe::Structural];
/// Tokens that the lexical probe learns from, and is tested on: more take longer than the rest of a pilot.
const TOKENS: &str = "2000";
/// What the probes found.
const KEPT: &str = "probes.json";

/// Writes the codes of the sample, and refuses those that `telly probe` would refuse, as of another `language`,
/// before anything is trained.
pub(super) fn check(sweep: &Sweep, language: Language) -> Result<(), Error> {
    let Some(encoding) = sweep.encoding(Freeze::Nothing)? else {
        return Ok(());
    };
    let (field, _) = encoding.studied_text();
    let folder = &sweep.folder;
    for files in PROBED {
        write_texts(folder, files, "code", |record, path| {
            Ok(field.verbatim(record, path)?)
        })?;
    }
    let [train, test] = PROBED.map(|(_, probed)| folder.join(probed));
    TextOptions::of(train, test, language)
        .read(&LOOKED_FOR, 0)
        .map(drop)
}

/// What `telly probe` says of the sample's codes, which are in `language`: of the pilot's base, which has
/// trained all layers of the `model`, beside that model. Without a language what it has said of the same
/// run before. None where there is no such run, or where the probes fail.
pub(super) fn probe(
    sweep: &Sweep,
    model: &Path,
    language: Option<Language>,
) -> Result<Option<Map<String, Value>>, Error> {
    let Some(run) = sweep.first_run(Freeze::Nothing) else {
        return Ok(None);
    };
    let Some((identity, weights)) = RunIdentity::read(&run)? else {
        return Ok(None);
    };
    let folder = &sweep.folder;
    let Some(language) = language else {
        return Ok(last(folder, KEPT, |of| of["run"] == weights));
    };
    let (_, length) = identity.encoding.studied_text();
    let [(_, train), (_, test)] = PROBED;
    let mut flags: Vec<OsString> = vec![run.clone().into(), "--beside".into(), model.into()];
    flags.extend(["--data".into(), folder.join(train).into()]);
    flags.extend(["--test".into(), folder.join(test).into()]);
    flags.extend(["--language", language.name()].map(OsString::from));
    let looked_for = LOOKED_FOR.map(Probe::name).join(",");
    flags.extend(["--probe", &looked_for, "--tokens", TOKENS].map(OsString::from));
    flags.extend(["--max-length", &length.to_string()].map(OsString::from));
    flags.extend(sweep.typed(&["provider", "threads", "onnxruntime"]));
    kept(folder, KEPT, of_run(&run, &flags)?, || {
        let without = "the layers are not probed; the advice goes without";
        telly_json_if_it_can("probe", flags, folder, without)
    })
}

/// What `found` says of the layers that `chosen` freezes, and of those above.
pub(super) fn said(found: &Map<String, Value>, chosen: Freeze) -> Vec<String> {
    let findings = found.get("probes").cloned().unwrap_or_default();
    let findings: Vec<Finding> = serde_json::from_value(findings).unwrap_or_default();
    findings
        .iter()
        .map(|finding| said_of(finding, chosen))
        .collect()
}

fn said_of(finding: &Finding, chosen: Freeze) -> String {
    let (name, metric) = (finding.probe.name(), &finding.metric);
    let changed = finding.layers.iter().filter_map(|layer| {
        let [low, high] = layer.reading.above_beside?;
        let by = layer.reading.value - layer.reading.beside?;
        (low > 0.0 || high < 0.0).then_some((layer.layer, by))
    });
    let changed: Vec<(usize, f64)> = changed.collect();
    if changed.is_empty() {
        return format!(
            "the {name} probe finds in no layer that it has gained or lost anything ({metric} on {}, 95 %)",
            finding.tested_on()
        );
    }
    let layers = changed
        .iter()
        .map(|(layer, by)| format!("{layer} {by:+.4}"));
    let layers = layers.collect::<Vec<_>>().join(", ");
    let frozen = changed
        .iter()
        .filter(|(layer, _)| *layer <= chosen.layers())
        .count();
    let frozen = match (chosen, frozen) {
        (Freeze::Nothing, _) => String::new(),
        (_, 0) => format!("; K = {chosen} freezes none of them"),
        (_, count) if count == changed.len() => format!("; K = {chosen} freezes all of them"),
        (_, count) => format!("; K = {chosen} freezes {count} of them"),
    };
    format!(
        "what the {name} probe finds has changed in these layers (by {metric} on {}, 95 % for each layer by itself and for this seed alone): {layers}{frozen}",
        finding.tested_on()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// What a probe found of layers that training has moved by so much.
    fn finding(differences: [Option<f64>; 4]) -> Map<String, Value> {
        let layers = differences.into_iter().enumerate().map(|(layer, difference)| {
            let by = difference.unwrap_or(0.0);
            let above = difference.map(|by| [by - 0.01, by + 0.01]);
            json!({ "layer": layer, "value": 0.5 + by, "beside": 0.5, "above_beside": above, "weight": 0.25 })
        });
        let found = json!([{
            "probe": "lexical",
            "metric": "accuracy",
            "train": 500,
            "test": 400,
            "test_clusters": 30,
            "chance": 0.4,
            "mixed": { "value": 0.5 },
            "layers": layers.collect::<Vec<_>>(),
        }]);
        Map::from_iter([("probes".to_owned(), found)])
    }

    fn said_of(differences: [Option<f64>; 4], chosen: Freeze) -> String {
        let lines = said(&finding(differences), chosen);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains("400 in 30 independent parts"),
            "{lines:?}"
        );
        lines[0].clone()
    }

    #[test]
    fn layers_that_have_changed_are_named_beside_those_that_are_frozen() {
        let two = [None, Some(0.005), Some(-0.02), Some(0.05)];
        let frozen = |layers| said_of(two, Freeze::Layers(layers));
        assert!(frozen(1).ends_with(": 2 -0.0200, 3 +0.0500; K = 1 freezes none of them"));
        assert!(frozen(2).ends_with("; K = 2 freezes 1 of them"));
        assert!(frozen(3).ends_with("; K = 3 freezes all of them"));
        assert!(said_of(two, Freeze::Nothing).ends_with(": 2 -0.0200, 3 +0.0500"));
        let nothing = [None, Some(0.005), Some(-0.005), None];
        assert!(said_of(nothing, Freeze::Layers(1)).contains("finds in no layer"));
    }
}
