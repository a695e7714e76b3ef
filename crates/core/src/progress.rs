//! Progress of a long stage: a bar on a terminal, a log line every so often elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};

/// How often progress is logged where no terminal shows a bar.
const LOG_INTERVAL: Duration = Duration::from_secs(15);

/// Counts units (tokens, usually) towards a known or estimated total.
pub struct Progress {
    stage: &'static str,
    unit: &'static str,
    bar: ProgressBar,
    on_terminal: bool,
    skipped: u64,
    started: Instant,
    logged: Instant,
}

impl Progress {
    /// Starts to count `total` `unit`s of `stage`. The bar goes to standard error.
    pub fn start(stage: &'static str, unit: &'static str, total: u64) -> Self {
        let on_terminal = std::io::stderr().is_terminal();
        let bar = if on_terminal { ProgressBar::new(total) } else { ProgressBar::hidden() };
        bar.set_length(total);
        let template = format!(
            "{stage:>9} [{{bar:30}}] {{human_pos}}/{{human_len}} {unit} {{per_sec}}, {{eta}} left {{msg}}"
        );
        let style = ProgressStyle::with_template(&template).expect("the template above is well formed");
        bar.set_style(style.progress_chars("=> "));
        let now = Instant::now();
        Self { stage, unit, bar, on_terminal, skipped: 0, started: now, logged: now }
    }

    /// Counts `n` units that were done before: no part of the speed.
    pub fn skip(&mut self, n: u64) {
        self.bar.inc(n);
        self.bar.reset_eta();
        self.skipped += n;
    }

    /// Counts `n` more units; `message` tells what else a watcher wants to know.
    pub fn advance(&mut self, n: u64, message: impl FnOnce() -> String) {
        self.bar.inc(n);
        if self.on_terminal {
            self.bar.set_message(message());
        } else if self.logged.elapsed() >= LOG_INTERVAL {
            self.logged = Instant::now();
            let (done, total) = (self.bar.position(), self.bar.length().unwrap_or(0));
            let rate = (done - self.skipped) as f64 / self.started.elapsed().as_secs_f64();
            let left = Duration::from_secs_f64((total.saturating_sub(done)) as f64 / rate.max(1e-9));
            tracing::info!(
                "{}: {done}/{total} {} ({rate:.0}/s, {} left) {}",
                self.stage,
                self.unit,
                HumanDuration(left),
                message()
            );
        }
    }

    /// Ends the count and returns units per second.
    pub fn finish(self) -> f64 {
        (self.bar.position() - self.skipped) as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }
}

/// However the stage ends, what it says next begins on a line of its own.
impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
