//! Progress on stderr: a bar on a terminal, now and then a plain line elsewhere.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle, WeakProgressBar};

/// A plain line is written at most this often.
const PLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// The bar that was shown last.
static BAR: Mutex<Option<WeakProgressBar>> = Mutex::new(None);

/// A line on stderr, above the bar if there is one.
pub(crate) fn say(line: &str) {
    // A closed stderr is no reason to stop working.
    let write = || {
        let _ = writeln!(std::io::stderr(), "{line}");
    };
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(bar) = bar.and_then(|bar| bar.upgrade()) {
        bar.suspend(write);
    } else {
        write();
    }
}

/// How far one piece of work is.
pub(crate) struct Progress {
    label: String,
    unit: &'static str,
    total: u64,
    done: u64,
    skipped: u64,
    message: String,
    bar: Option<ProgressBar>,
    started: Instant,
    last_line: Instant,
}

impl Progress {
    /// Starts `label` with `total` of `unit` to do; 0 where that is not known.
    ///
    /// # Panics
    /// Never: the template is a constant.
    pub(crate) fn new(label: &str, total: u64, unit: &'static str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let template = if total == 0 {
                format!("{{prefix}} {{human_pos}} {unit} ({{per_sec}}) {{msg}}")
            } else {
                format!(
                    "{{prefix}} [{{bar:30}}] {{human_pos}}/{{human_len}} {unit} ({{per_sec}}, {{eta}} left) {{msg}}"
                )
            };
            let style = ProgressStyle::with_template(&template).expect("a valid template");
            let bar = if total == 0 {
                ProgressBar::no_length()
            } else {
                ProgressBar::new(total)
            };
            let bar = bar.with_style(style.progress_chars("=> "));
            bar.set_prefix(label.to_owned());
            bar.enable_steady_tick(Duration::from_millis(200));
            let mut last = BAR.lock().unwrap_or_else(PoisonError::into_inner);
            *last = Some(bar.downgrade());
            bar
        });
        let now = Instant::now();
        Self {
            label: label.into(),
            unit,
            total,
            done: 0,
            skipped: 0,
            message: String::new(),
            bar,
            started: now,
            last_line: now,
        }
    }

    /// What to show beside the numbers, as the loss.
    pub(crate) fn set_message(&mut self, message: String) {
        if let Some(bar) = &self.bar {
            bar.set_message(message.clone());
        }
        self.message = message;
    }

    /// `count` were done before this piece of work began.
    pub(crate) fn skip(&mut self, count: u64) {
        self.done += count;
        self.skipped += count;
        if let Some(bar) = &self.bar {
            bar.inc(count);
            bar.reset_eta();
        }
    }

    /// `count` more are done.
    pub(crate) fn advance(&mut self, count: u64) {
        self.done += count;
        match &self.bar {
            Some(bar) => bar.inc(count),
            None if self.last_line.elapsed() >= PLAIN_INTERVAL => self.plain_line(),
            None => {}
        }
    }

    fn plain_line(&mut self) {
        self.last_line = Instant::now();
        let elapsed = self.started.elapsed();
        let (open, now) = (
            self.total - self.done.min(self.total),
            self.done - self.skipped,
        );
        let left = elapsed.mul_f64(open as f64 / now.max(1) as f64);
        let (label, unit, message) = (&self.label, self.unit, &self.message);
        let rate = now as f64 / elapsed.as_secs_f64();
        if self.total == 0 {
            let done = self.done;
            let _ = writeln!(
                std::io::stderr(),
                "{label}: {done} {unit}, {rate:.0}/s {message}"
            );
            return;
        }
        let percent = 100 * self.done / self.total.max(1);
        // A closed stderr is no reason to stop working.
        let _ = writeln!(
            std::io::stderr(),
            "{label}: {percent} %, {}/{} {unit}, {rate:.0}/s, {} left {message}",
            self.done,
            self.total,
            HumanDuration(left),
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
