//! The state and the result of an operation in the guest.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of a cycle of writes. The evidence has it as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cycled {
    /// Completed rounds.
    pub rounds: u32,
    /// Writes that the kernel refused.
    pub refused: u32,
}

/// Where an operation is. The evidence has it as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Place {
    /// It has finished.
    Over,
    /// It waits in this function.
    In(String),
    /// Neither of these when the given time had passed.
    Elsewhere,
}

impl fmt::Display for Cycled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} rounds, {} refused", self.rounds, self.refused)
    }
}

impl From<Cycled> for String {
    fn from(cycled: Cycled) -> String {
        cycled.to_string()
    }
}

/// Also reads the form of earlier versions: `Cycled { rounds: 7, refused: 0 }`.
impl TryFrom<String> for Cycled {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Cycled, &'static str> {
        let numbers = text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok());
        match numbers.collect::<Vec<_>>()[..] {
            [rounds, refused] => Ok(Cycled { rounds, refused }),
            _ => Err("expected two numbers"),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Over => f.write_str("over"),
            Place::In(function) => write!(f, "in {function}"),
            Place::Elsewhere => f.write_str("elsewhere"),
        }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> String {
        place.to_string()
    }
}

/// Also reads the form of earlier versions: `Over`, `In("FUNCTION")`, `Elsewhere`.
impl TryFrom<String> for Place {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Place, &'static str> {
        let before = || text.strip_prefix("In(\"").and_then(|rest| rest.strip_suffix("\")"));
        match text.as_str() {
            "over" | "Over" => Ok(Place::Over),
            "elsewhere" | "Elsewhere" => Ok(Place::Elsewhere),
            _ => match text.strip_prefix("in ").or_else(before) {
                Some(function) => Ok(Place::In(function.to_owned())),
                None => Err("expected `over`, `in FUNCTION` or `elsewhere`"),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back() {
        for place in [Place::Over, Place::In("pci_wait_cfg".to_owned()), Place::Elsewhere] {
            assert_eq!(Place::try_from(place.to_string()), Ok(place));
        }
        let cycled = Cycled { rounds: 12, refused: 3 };
        assert_eq!(Cycled::try_from(cycled.to_string()), Ok(cycled));
        assert!(Place::try_from("on the moon".to_owned()).is_err());
        assert!(Cycled::try_from("12 rounds".to_owned()).is_err());
    }

    #[test]
    fn the_form_of_earlier_versions_is_read() {
        let place = |text: &str| Place::try_from(text.to_owned()).unwrap();
        assert_eq!(place("In(\"pci_wait_cfg\")"), Place::In("pci_wait_cfg".to_owned()));
        assert_eq!([place("Over"), place("Elsewhere")], [Place::Over, Place::Elsewhere]);
        let cycled = Cycled::try_from("Cycled { rounds: 12, refused: 3 }".to_owned());
        assert_eq!(cycled, Ok(Cycled { rounds: 12, refused: 3 }));
    }
}
