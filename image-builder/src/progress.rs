//! Progress bars of long steps. They are drawn on a terminal only, and go when the step is done.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar that counts bytes.
#[must_use]
pub fn bytes(step: &str, size: u64) -> ProgressBar {
    bar(size, &format!("{step} {{bar:30}} {{bytes}}/{{total_bytes}} {{eta}} {{msg}}"))
}

/// A bar that counts things.
#[must_use]
pub fn things(step: &str, number: u64) -> ProgressBar {
    bar(number, &format!("{step} {{bar:30}} {{pos}}/{{len}} {{eta}}"))
}

/// Something that turns while a program works that does not say how far it is.
#[must_use]
pub fn turning(step: &str) -> ProgressBar {
    let bar = bar(0, &format!("{step} {{spinner}} {{elapsed}}"));
    bar.enable_steady_tick(std::time::Duration::from_millis(200));
    bar
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let style = ProgressStyle::with_template(template);
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
