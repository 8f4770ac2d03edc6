//! The frequency of the host's time stamp counter, which is that of a guest's under TCG too (QEMU `include/qemu/timer.h`,
//! `cpu_get_host_ticks()`).
//!
//! A kernel measures it when it boots, against timers that QEMU emulates. On a busy host these come late, and a kernel may
//! take the counter for 20 times as slow as it is: then its clock runs 20 times as fast, and its watchdogs bark. So it is
//! told.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The frequency is told in steps of so many kHz: it is measured by each process, and part of what a snapshot is kept under.
/// The kernel itself makes it more precise, if it is right by a hundredth (`arch/x86/kernel/tsc.c`,
/// `tsc_refine_calibration_work()`).
const STEP: f64 = 10_000.0;

/// How long it is measured.
const PERIOD: Duration = Duration::from_millis(50);

/// A reading of counter and clock is good if both were read within this.
const TOGETHER: Duration = Duration::from_micros(2);

/// How many readings are made to get a good one.
const READINGS: usize = 100;

/// The word of the kernel's command line that tells it the frequency (Linux 5.8 and later); none on hosts of another
/// architecture.
pub fn word() -> Option<String> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    let khz = KHZ.get_or_init(|| Some(rounded(measure()?)));
    khz.map(|khz| format!("tsc_early_khz={khz}"))
}

/// The frequency in kHz.
fn measure() -> Option<f64> {
    let (began, from) = reading()?;
    thread::sleep(PERIOD);
    let (ended, to) = reading()?;
    Some(to.wrapping_sub(from) as f64 / ended.duration_since(began).as_secs_f64() / 1000.0)
}

fn rounded(khz: f64) -> u64 {
    ((khz / STEP).round().max(1.0) * STEP) as u64
}

/// Clock and counter at one moment: of some readings the one that took the least time.
fn reading() -> Option<(Instant, u64)> {
    let mut best: Option<(Duration, Instant, u64)> = None;
    for _ in 0..READINGS {
        let before = Instant::now();
        let counter = counter()?;
        let took = before.elapsed();
        if best.is_none_or(|(least, ..)| took < least) {
            best = Some((took, before, counter));
        }
        if took < TOGETHER {
            break;
        }
    }
    best.map(|(_, when, counter)| (when, counter))
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 CPU has the instruction, and Linux lets user space use it.
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_coarser_than_what_is_measured() {
        assert_eq!(rounded(2_596_141.3), 2_600_000);
        assert_eq!(rounded(2_594_999.0), 2_590_000);
        assert_eq!(rounded(1.0), 10_000);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn two_measurements_agree_and_the_kernel_is_told_no_other_frequency() {
        let (one, other) = (measure().unwrap(), measure().unwrap());
        assert!((one - other).abs() < one / 200.0, "{one} and {other} kHz");
        assert!((500_000.0..10_000_000.0).contains(&one), "{one} kHz");
        let told: f64 = word().unwrap().strip_prefix("tsc_early_khz=").unwrap().parse().unwrap();
        assert!((one - told).abs() < one / 200.0 + STEP / 2.0, "{one} kHz, and the kernel is told {told}");
    }
}
