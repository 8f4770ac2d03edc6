//! What comes from QEMU besides answers, and its text.

use std::fmt;

use qapi::qmp;
use serde_json::Value;

/// Something that QEMU did.
#[derive(Clone, Debug)]
pub enum QmpEvent {
    /// A QMP event.
    Sent(qmp::Event),
    /// The device with this id is no part of the machine any more. The harness looked.
    Left(String),
}

/// Of a QMP event its name and data: `QMP event DEVICE_DELETED (device pf0, path /machine/peripheral/pf0)`.
impl fmt::Display for QmpEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let event = match self {
            QmpEvent::Left(id) => return write!(f, "{id} left the machine"),
            QmpEvent::Sent(event) => serde_json::to_value(event).map_err(|_| fmt::Error)?,
        };
        write!(f, "QMP event {}", event["event"].as_str().unwrap_or("without a name"))?;
        let data = event["data"].as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
        let data: Vec<_> = data.map(|(name, value)| format!("{name} {}", text(value))).collect();
        if data.is_empty() { Ok(()) } else { write!(f, " ({})", data.join(", ")) }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_an_event_has_its_name_and_data() {
        let words = |json: &str| QmpEvent::Sent(serde_json::from_str(json).unwrap()).to_string();
        let deleted = r#"{"event": "DEVICE_DELETED", "timestamp": {"seconds": 1, "microseconds": 2},
            "data": {"device": "pf0", "path": "/machine/peripheral/pf0"}}"#;
        assert_eq!(words(deleted), "QMP event DEVICE_DELETED (device pf0, path /machine/peripheral/pf0)");
        let stop = r#"{"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}"#;
        assert_eq!(words(stop), "QMP event STOP");
        let shutdown = r#"{"event": "SHUTDOWN", "timestamp": {"seconds": 1, "microseconds": 2},
            "data": {"guest": true, "reason": "guest-reset"}}"#;
        assert_eq!(words(shutdown), "QMP event SHUTDOWN (guest true, reason guest-reset)");
        assert_eq!(QmpEvent::Left("pf0".to_owned()).to_string(), "pf0 left the machine");
    }
}
