//! "Did you mean": the known name that is most similar to an unknown one.

/// The candidate that is most similar to `name`, if one is similar enough to be suggested.
pub fn near<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (likeness(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.7)
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, candidate)| candidate)
}

fn likeness(name: &str, candidate: &str) -> f64 {
    let (name, candidate) = (name.to_lowercase(), candidate.to_lowercase());
    if name.len() >= 3 && candidate.contains(&name) {
        return 0.9;
    }
    strsim::jaro_winkler(&name, &candidate).min(0.4 + strsim::normalized_damerau_levenshtein(&name, &candidate))
}

/// An unknown name. The error suggests the most similar known name, or lists all known names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no {kind} `{name}`{}", hint(.near, .known))]
pub struct Unknown {
    /// What the name should have been of: a kernel, a bug, ...
    pub kind: &'static str,
    /// The name that is not known.
    pub name: String,
    /// The most similar known name, if one is similar enough.
    pub near: Option<String>,
    /// All known names.
    pub known: Vec<String>,
}

impl Unknown {
    /// The error for a `name` that is not among `known`.
    pub fn new<'a>(kind: &'static str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Unknown {
        let known: Vec<String> = known.into_iter().map(str::to_owned).collect();
        let near = near(name, known.iter().map(String::as_str)).map(str::to_owned);
        Unknown { kind, name: name.to_owned(), near, known }
    }
}

fn hint(near: &Option<String>, known: &[String]) -> String {
    match near {
        Some(near) => format!("; did you mean `{near}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known: {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARIANTS: [&str; 5] = ["stock", "revert-only", "v2-series", "early-num-vfs", "sriov-mutex"];

    #[test]
    fn a_misspelt_or_shortened_name_finds_its_candidate() {
        for (typed, meant) in [
            ("stok", Some("stock")),
            ("revert_only", Some("revert-only")),
            ("mutex", Some("sriov-mutex")),
            ("v2-", Some("v2-series")),
            // Two characters are in too many names.
            ("v2", None),
        ] {
            assert_eq!(near(typed, VARIANTS), meant, "{typed}");
        }
    }

    #[test]
    fn an_unlike_name_is_not_suggested() {
        assert_eq!(near("kasan", VARIANTS), None);
        insta::assert_snapshot!(Unknown::new("kernel", "kasan", ["stock", "revert-only"]), @"there is no kernel `kasan`; known: stock, revert-only");
        insta::assert_snapshot!(Unknown::new("kernel", "stcok", ["stock", "revert-only"]), @"there is no kernel `stcok`; did you mean `stock`?");
    }
}
