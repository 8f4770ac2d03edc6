//! Text that many messages share.

use std::time::Duration;

/// A duration as text: `60 s`, `1.5 s`, `20 ms`.
pub fn duration(time: Duration) -> String {
    let milliseconds = (time.as_secs_f64() * 1e3).round();
    if milliseconds < 1e3 {
        return format!("{milliseconds} ms");
    }
    let seconds = (time.as_secs_f64() * 10.0).round() / 10.0;
    format!("{seconds} s")
}

/// A number with its noun: `1 cell`, `2 cells`.
pub fn counted(count: usize, one: &str, several: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_is_singular() {
        let texts = [0, 1, 2].map(|count| counted(count, "cell has", "cells have"));
        assert_eq!(texts, ["0 cells have", "1 cell has", "2 cells have"]);
    }

    #[test]
    fn durations_are_rounded() {
        let texts = [0.0, 0.0204, 0.7, 0.9996, 1.0, 1.449, 1.5, 59.96, 60.0, 600.0]
            .map(|seconds| duration(Duration::from_secs_f64(seconds)));
        assert_eq!(texts, ["0 ms", "20 ms", "700 ms", "1 s", "1 s", "1.4 s", "1.5 s", "60 s", "60 s", "600 s"]);
    }
}
