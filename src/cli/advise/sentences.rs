//! What `telly advise` says in words.

use serde_json::{Map, Value};

use super::difference::Difference;
use super::pilot::{Found, Losses};
use super::row_of;
use crate::checkpoint::Freeze;
use crate::study::{self, Changes, PILOT_LEVEL, UNCHANGED};

/// Why no K but `base` is to be taken, where it has hardly learnt.
pub(super) fn unlearnt(base: Freeze, losses: &Losses) -> String {
    format!(
        "take K = {base}, or ask again: it has hardly learnt from the sample (its training loss went {}), so that the K cannot be told apart. More `--minutes` or `--rows` in another `--out` may do, or another learning rate",
        losses.said()
    )
}

/// Why `chosen` is to be taken, by the `changes` of the layers.
pub(super) fn reason(table: &study::Table, chosen: Freeze, changes: Option<&Changes>) -> String {
    let base = table.base;
    if table.best().all(|row| row.freeze == base) {
        return format!("nothing was compared: K = {base} alone is trained");
    }
    let Some(changes) = changes else {
        return format!(
            "take K = {base}: the seeds do not tell the K apart, and there are no layers to compare"
        );
    };
    let Some(layers) = changes.unchanged() else {
        return format!(
            "take K = {base}: training on the sample changes the embeddings already (Pearson's r below {UNCHANGED})"
        );
    };
    let next = changes.pearson.get(layers + 1).copied().flatten();
    let next = next.map(|next| format!(", but layer {} not ({next:.3})", layers + 1));
    let alike = format!(
        "training all layers on the sample leaves layers 0 to {layers} nearly as they were (Pearson's r of {UNCHANGED} or more){}",
        next.unwrap_or_default()
    );
    if let Some(row) = row_of(table, chosen).filter(|_| chosen != base) {
        return format!("take K = {chosen} (learning rate {:e}): {alike}", row.lr);
    }
    let mut others = table.best().filter(|row| row.freeze != base);
    if others.any(|row| row.freeze <= Freeze::Layers(layers)) {
        format!(
            "take K = {base}: every other K up to {layers} is significantly worse (p < {PILOT_LEVEL}), although {alike}"
        )
    } else {
        format!("take K = {base}: {alike}, and no K up to {layers} was tried")
    }
}

/// How `chosen` differs from the base, and how sure that is: by `rows` where there is one seed; nothing of
/// the base itself.
pub(super) fn difference(
    table: &study::Table,
    chosen: Freeze,
    rows: Option<&Difference>,
    seeds_left: bool,
) -> Option<String> {
    let study::Table { metric, base, .. } = table;
    let row = row_of(table, chosen).filter(|_| chosen != *base)?;
    let confident = |[low, high]: [f64; 2]| {
        format!(
            "with 95 % confidence its {metric} on the sample differs from that of K = {base} by {low:+.4} to {high:+.4}"
        )
    };
    let more = if seeds_left {
        ": more `--minutes` train more"
    } else {
        ""
    };
    if let Some(rows) = rows {
        let measured = rows.said();
        let Some(interval) = rows.interval else {
            return Some(format!(
                "its {metric} on the sample is that of K = {base}: none of the {measured} that it is measured on tells them apart{more}"
            ));
        };
        let worse = if interval[1] < 0.0 {
            "; a smaller K may lose less"
        } else {
            ""
        };
        return Some(format!(
            "{}, by the {measured} that it is measured on{worse}; what another seed would change is not in that{more}",
            confident(interval),
        ));
    }
    if let Some(against) = row.against_base {
        let seeds = table.pairs(row);
        return Some(format!(
            "{} ({seeds} seeds)",
            confident(against.test.interval)
        ));
    }
    Some(format!(
        "its {metric} on the sample differs from that of K = {base} by {:+.4}; how much of that is chance one seed does not tell{more}",
        table.compared(row)?.mean - table.compared(row_of(table, *base)?)?.mean
    ))
}

/// That the layers were compared after fewer epochs than were trained, where it is so: the weights that were best
/// on the records to validate on are those that are kept.
pub(super) fn compared_early(found: &Found) -> Option<String> {
    found.similarities.as_ref()?;
    let first = found.trained.runs.first()?;
    let epochs = |name: &str| first.summary.get(name)?.as_u64();
    let (best, trained) = (epochs("best_epoch")?, epochs("epochs")?);
    (best < trained).then(|| {
        format!(
            "the layers were compared after epoch {best} of {trained}, whose weights were the best on the records to validate on: the others may have changed them more"
        )
    })
}

/// How the layers have changed, what all of the data will cost, and how far the pilot can be trusted.
pub(super) fn costs_and_limits(advice: &Value, epochs: usize) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(layers) = advice["similarities"]["layers"].as_array() {
        let shown = layers.iter().filter_map(|layer| {
            Some(format!(
                "{} {:.3}",
                layer["layer"],
                layer["pearson"].as_f64()?
            ))
        });
        lines.push(format!(
            "what layers represent before and after fine-tuning all of them on the sample (layer, Pearson's r): {}",
            shown.collect::<Vec<_>>().join(", ")
        ));
    }
    for (name, who) in [
        ("predicted", "all of the data with"),
        ("predicted_base", "beside it,"),
    ] {
        let Some(found) = advice[name].as_object() else {
            continue;
        };
        if name == "predicted_base" && advice["freeze"] == advice["base"] {
            continue;
        }
        lines.push(cost(found, who, epochs));
    }
    let passes = |name: &str| advice[name].as_u64().unwrap_or(0);
    let (taken, wanted) = (passes("pilot_epochs"), passes("pilot_epochs_wanted"));
    if taken < wanted {
        lines.push(format!(
            "each run took {taken} of {wanted} passes over the sample, for want of time: fewer steps change less, and more `--minutes` in another `--out` take more"
        ));
    }
    lines.push(format!(
        "from {} of {} records: a K that is not worse on so few may be on all; `telly sweep` tells for sure",
        advice["pilot_rows"], advice["rows"]
    ));
    lines
}

/// K as it is typed.
fn named(freeze: &Value) -> String {
    freeze
        .as_str()
        .map_or_else(|| freeze.to_string(), String::from)
}

fn cost(found: &Map<String, Value>, who: &str, epochs: usize) -> String {
    let number = |name: &str| found.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let freeze = named(&found["freeze"]);
    let (precompute, epoch) = (number("precompute_seconds"), number("epoch_seconds"));
    let peak = number("train_peak_bytes").max(number("precompute_peak_bytes"));
    let in_all = match epochs {
        1 => "1 epoch".into(),
        epochs => format!("{epochs} epochs"),
    };
    format!(
        "{who} K = {freeze}: {precompute:.0} s of precompute, {epoch:.0} s an epoch, {:.0} s for {in_all} in all, without evaluation; {:.0} MB of disk, {:.0} MB of memory",
        precompute + epochs as f64 * epoch,
        number("cache_bytes") / 1e6,
        peak / 1e6
    )
}
