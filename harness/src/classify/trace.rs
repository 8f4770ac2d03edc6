//! The stack of a report with the lines of the source, as `scripts/decode_stacktrace.sh` of the kernel shows it.

use kernels::{CodeError, InFunction, SourceLines};

use super::{Splat, frame, line};

/// Adds the lines of the source to the stacks of reports of this log, where they are known.
///
/// # Errors
/// As [`SourceLines::find_in`].
pub fn add_lines(splats: &mut [Splat], log: &str, source: &SourceLines) -> Result<(), CodeError> {
    let of_log: Vec<&str> = log.lines().collect();
    let of_splat = |splat: &Splat| places(of_log.get(splat.lines.clone()).unwrap_or_default());
    let frames: Vec<Vec<(String, InFunction)>> = splats.iter().map(of_splat).collect();
    // The source is read once for all reports.
    let all: Vec<InFunction> = frames.iter().flatten().map(|(_, place)| place.clone()).collect();
    if all.is_empty() {
        return Ok(());
    }
    let mut lines = source.find_in(&all)?.into_iter();
    for (splat, frames) in splats.iter_mut().zip(frames) {
        let own = lines.by_ref().take(frames.len()).collect();
        splat.trace = traced(frames, own);
    }
    Ok(())
}

/// The frames in these lines, as the kernel prints them.
fn places(lines: &[&str]) -> Vec<(String, InFunction)> {
    let mut found = Vec::new();
    for raw in lines {
        for message in line::messages(&line::without_colours(raw)) {
            found.extend(frame::place(&message.text).map(|place| (message.text.trim().to_owned(), place)));
        }
    }
    found
}

/// Each frame, and its line. None of them if no line is known.
fn traced(frames: Vec<(String, InFunction)>, lines: Vec<Option<String>>) -> Vec<String> {
    if lines.iter().all(Option::is_none) {
        return Vec::new();
    }
    let with_line = |((text, _), line): ((String, InFunction), Option<String>)| match line {
        Some(line) => format!("{text} at {line}"),
        None => text,
    };
    frames.into_iter().zip(lines).map(with_line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_their_lines_and_the_others_are_as_printed() {
        let log = "[    6.100000] RIP: 0010:show+0x10/0x20\r\n[    6.100000] Code: 00\n[    6.100000] Call Trace:\n[    6.100000]  <TASK>\n\
                   [    6.100000]  ? guess+0x1/0x20\n[    6.100000]  store+0x5/0x20\n";
        let frames = places(&log.lines().collect::<Vec<_>>());
        let line =
            |(_, place): &(String, InFunction)| (place.symbol == "show").then(|| format!("a.c:{}", place.offset));
        let lines = frames.iter().map(line).collect();
        assert_eq!(traced(frames.clone(), lines), ["RIP: 0010:show+0x10/0x20 at a.c:16", "store+0x5/0x20"]);
        let none = vec![None; frames.len()];
        assert!(traced(frames, none).is_empty());
    }
}
