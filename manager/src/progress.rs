//! How a pull tells what it does: bars on a terminal, docker's lines elsewhere, nothing when asked
//! to be quiet.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

/// Where to tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// What the command was asked for: `pull`.
    Stdout,
    /// Beside what the command was asked for: `run`.
    Stderr,
    /// `--quiet`
    Nowhere,
}

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Style {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// Lines
    Plain,
    /// One JSON object a line
    Json,
}

/// The progress of one pull or push.
pub(crate) struct Progress {
    output: Output,
    json: bool,
    bars: Option<MultiProgress>,
}

impl Progress {
    /// Looks whether `output` is a terminal.
    pub(crate) fn new(output: Output) -> Self {
        Self::styled(output, Style::Auto)
    }

    /// The same in the style that was asked for.
    pub(crate) fn styled(output: Output, style: Style) -> Self {
        let bars = match output {
            _ if style != Style::Auto => None,
            Output::Stdout if std::io::stdout().is_terminal() => Some(ProgressDrawTarget::stdout()),
            Output::Stderr if std::io::stderr().is_terminal() => Some(ProgressDrawTarget::stderr()),
            _ => None,
        };
        Self { output, json: style == Style::Json, bars: bars.map(MultiProgress::with_draw_target) }
    }

    /// One line of text.
    pub(crate) fn line(&self, text: &str) {
        if self.json {
            self.write(&json!({"status": text}).to_string());
        } else {
            self.write(text);
        }
    }

    fn write(&self, text: &str) {
        // A reader that went away is no reason to stop pulling.
        let write = || match self.output {
            Output::Stdout => writeln!(std::io::stdout(), "{text}"),
            Output::Stderr => writeln!(std::io::stderr(), "{text}"),
            Output::Nowhere => Ok(()),
        };
        let _ = match &self.bars {
            // Not their own `println`, which fills lines up with blanks instead of ending them.
            Some(bars) => bars.suspend(write),
            None => write(),
        };
    }

    /// A layer's own line, by the short form of its digest.
    pub(crate) fn layer(&self, short: &str, size: u64) -> LayerProgress<'_> {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(size).with_prefix(short.to_owned()));
            bar.set_style(downloading());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        LayerProgress { progress: self, short: short.to_owned(), size, bar }
    }
}

/// The progress of one layer.
pub(crate) struct LayerProgress<'a> {
    progress: &'a Progress,
    short: String,
    size: u64,
    bar: Option<ProgressBar>,
}

impl LayerProgress<'_> {
    /// Something has begun or is over: `Pulling fs layer`, `Download complete`.
    pub(crate) fn state(&self, state: &str) {
        match &self.bar {
            Some(bar) => bar.set_message(state.to_owned()),
            None => self.tell(state),
        }
    }

    /// The same, for a bar only: lines would be too many.
    pub(crate) fn show(&self, state: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(state.to_owned());
        }
    }

    fn tell(&self, state: &str) {
        if self.progress.json {
            self.progress.write(&json!({"id": self.short, "status": state, "size": self.size}).to_string());
        } else {
            self.progress.write(&format!("{}: {state}", self.short));
        }
    }

    /// So many more bytes are here.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
        }
    }

    /// The bar alone, for readers on other threads.
    pub(crate) fn share(&self) -> Shared {
        Shared(self.bar.clone())
    }

    /// The layer is done: its line stays above the bars that still move.
    pub(crate) fn finish(&self, state: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.tell(state);
    }
}

/// See [`LayerProgress::share`].
pub(crate) struct Shared(Option<ProgressBar>);

impl Shared {
    /// So many more bytes are over.
    pub(crate) fn advance(&self, bytes: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(bytes);
        }
    }
}

impl Drop for LayerProgress<'_> {
    fn drop(&mut self) {
        // A pull that fails leaves no bars in the way of its error.
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn downloading() -> ProgressStyle {
    let template = "{prefix}: {msg:18} [{bar:40}] {bytes}/{total_bytes}";
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}
