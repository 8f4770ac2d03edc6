//! How long each phase of a cell took, and each step of its guest's start.

use serde::{Deserialize, Serialize};

/// How long each phase of a cell took, in seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Phases {
    /// Until the agent's first message. This includes the steps below, before them a wait for another cell that takes
    /// the snapshot, and after them the time to take a snapshot.
    pub boot: f64,
    /// The steps of the guest's start; none if it did not boot.
    #[serde(flatten)]
    pub steps: Steps,
    /// The scenario and its proofs.
    pub scenario: f64,
    /// Of that, for how long QEMU was ready to run and waited for the host's CPUs, all its threads together.
    #[serde(default)]
    pub starved: f64,
    /// Ending QEMU and reading its log.
    pub teardown: f64,
}

/// The steps of a guest's start, in seconds; none for steps that it did not take. Their sum is the time from the start
/// of QEMU's process to the agent's first message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Steps {
    /// From the start of QEMU's process to its greeting on QMP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qemu: Option<f64>,
    /// From QEMU's greeting to the first byte on the console: firmware, and the kernel up to its console.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<f64>,
    /// From the first byte on the console (from QEMU's greeting, if the console stayed empty) to the agent's hello: the
    /// kernel's drivers, and the agent itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<f64>,
    /// For a guest from a snapshot, in place of `kernel` and `agent`: from QEMU's greeting to the agent's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<f64>,
}

impl Steps {
    /// The sum of all steps, in seconds.
    pub fn total(&self) -> f64 {
        [self.qemu, self.kernel, self.agent, self.restore].into_iter().flatten().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_were_not_taken_are_left_out() {
        let steps = Steps { qemu: Some(0.25), restore: Some(0.5), ..Steps::default() };
        let text = serde_json::to_string(&steps).unwrap();
        assert_eq!(text, r#"{"qemu":0.25,"restore":0.5}"#);
        assert_eq!((serde_json::from_str::<Steps>(&text).unwrap(), steps.total()), (steps, 0.75));
    }
}
