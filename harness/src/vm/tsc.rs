//! The frequency of the host's time stamp counter (TSC). Under TCG the guest's TSC has the same frequency (QEMU
//! `include/qemu/timer.h`, `cpu_get_host_ticks()`).
//!
//! A kernel measures the TSC at boot, against timers that QEMU emulates. On a busy host the timers are late, and the
//! kernel may measure a frequency that is 20 times too low. Then its clock runs 20 times too fast, and its watchdogs
//! report errors. So the harness passes the frequency on the kernel's command line.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// The frequency is rounded to a multiple of this, in kHz. Each process measures it, and it is part of a snapshot's
/// cache key. The kernel itself refines the frequency if the given one is off by less than a hundredth
/// (`arch/x86/kernel/tsc.c`, `tsc_refine_calibration_work()`).
const STEP: f64 = 10_000.0;

/// How long the measurement takes.
const PERIOD: Duration = Duration::from_millis(50);

/// A reading of counter and clock is precise if both were read within this time.
const TOGETHER: Duration = Duration::from_micros(2);

/// The maximum number of attempts at a precise reading.
const READINGS: usize = 100;

/// The word of the kernel's command line with the frequency (Linux 5.8 and later). `None` on hosts of other
/// architectures.
pub fn word() -> Option<String> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    let khz = KHZ.get_or_init(|| Some(rounded(measure()?)));
    khz.map(|khz| format!("tsc_early_khz={khz}"))
}

/// Measures the frequency, in kHz.
fn measure() -> Option<f64> {
    let (began, from) = reading()?;
    thread::sleep(PERIOD);
    let (ended, to) = reading()?;
    Some(to.wrapping_sub(from) as f64 / ended.duration_since(began).as_secs_f64() / 1000.0)
}

fn rounded(khz: f64) -> u64 {
    ((khz / STEP).round().max(1.0) * STEP) as u64
}

/// Clock and counter at the same time: the reading that took the least time.
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
    fn the_frequency_is_rounded() {
        assert_eq!(rounded(2_596_141.3), 2_600_000);
        assert_eq!(rounded(2_594_999.0), 2_590_000);
        assert_eq!(rounded(1.0), 10_000);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn two_measurements_agree_with_each_other_and_with_the_word() {
        let (one, other) = (measure().unwrap(), measure().unwrap());
        assert!((one - other).abs() < one / 200.0, "{one} and {other} kHz");
        assert!((500_000.0..10_000_000.0).contains(&one), "{one} kHz");
        let word: f64 = word().unwrap().strip_prefix("tsc_early_khz=").unwrap().parse().unwrap();
        assert!((one - word).abs() < one / 200.0 + STEP / 2.0, "{one} kHz, and the word says {word}");
    }
}
