//! Progress of long work: a bar with rate and time left on a terminal, a plain line now and then elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use rebel_trainer::run::Event;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Shows a run's [`Event`]s on standard error.
pub struct Progress {
    bar: Option<ProgressBar>,
    stage: String,
    steps: usize,
    /// Steps an earlier process has done.
    before: usize,
    started: Instant,
    last_line: Instant,
}

/// Seconds between two plain lines.
const QUIET: Duration = Duration::from_secs(10);

impl Progress {
    /// Nothing shown yet.
    pub fn new() -> Self {
        let now = Instant::now();
        Self { bar: None, stage: String::new(), steps: 0, before: 0, started: now, last_line: now }
    }

    /// Shows one event.
    pub fn show(&mut self, event: Event) {
        match event {
            Event::Stage { name, steps, done } => {
                self.finish();
                (self.stage, self.steps, self.before) = (name.to_string(), steps, done);
                (self.started, self.last_line) = (Instant::now(), Instant::now());
                if std::io::stderr().is_terminal() {
                    let style = "{prefix:>10} {wide_bar} {pos}/{len}  {per_sec}  {eta} left  {msg}";
                    let bar = ProgressBar::new(steps as u64)
                        .with_style(ProgressStyle::with_template(style).expect("a fixed template"))
                        .with_prefix(self.stage.clone());
                    bar.set_position(done as u64);
                    bar.reset_eta();
                    bar.enable_steady_tick(Duration::from_millis(250));
                    self.bar = Some(bar);
                }
            }
            Event::Step { done, line } => match &self.bar {
                Some(bar) => {
                    bar.set_position(done as u64);
                    bar.set_message(line);
                }
                None if self.last_line.elapsed() >= QUIET || done == self.steps => {
                    self.last_line = Instant::now();
                    let spent = self.started.elapsed().as_secs_f64();
                    let rate = (done - self.before.min(done)) as f64 / spent.max(1e-9);
                    let left = (self.steps.saturating_sub(done)) as f64 / rate.max(1e-9);
                    let (stage, steps) = (&self.stage, self.steps);
                    tell(format_args!("{stage:>10} {done}/{steps}  {rate:.1}/s  {left:.0}s left  {line}"));
                }
                None => {}
            },
            Event::Note(text) => match &self.bar {
                Some(bar) => bar.println(format!("{:>10} {text}", "")),
                None => tell(format_args!("{:>10} {text}", self.stage)),
            },
        }
    }

    /// Ends the bar, leaving its last line.
    pub fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.abandon();
        }
    }
}

/// One line on standard error. Progress is not worth ending a run for: if nobody can read it, it is lost.
fn tell(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
