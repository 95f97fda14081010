//! What a process knows of the machine and of its own use of it; `None` where the system does not tell.

use std::time::Duration;

use cpu_time::ProcessTime;

/// CPU time of all threads of this process, those included that have ended.
pub fn cpu_time() -> Option<Duration> {
    ProcessTime::try_now().ok().map(|time| time.as_duration())
}

/// The most memory of this process that was ever resident, bytes (Linux).
pub fn peak_resident() -> Option<u64> {
    bytes("/proc/self/status", "VmHWM:")
}

/// Memory that a new process could have without swapping, bytes (Linux).
pub fn available() -> Option<u64> {
    bytes("/proc/meminfo", "MemAvailable:")
}

/// The value of a line `name ... kB` of one of the kernel's files.
fn bytes(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let kib: u64 =
        text.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_costs_cpu_time_and_held_memory_shows_in_the_peak() {
        let begun = cpu_time().expect("a clock");
        let held: Vec<u64> = (0..20_000_000u64).map(|i| i.wrapping_mul(i)).collect();
        assert!(held.iter().fold(0, |a: u64, &b| a ^ b) != 1);
        assert!(cpu_time().unwrap() > begun);
        if cfg!(target_os = "linux") {
            assert!(peak_resident().unwrap() >= 160_000_000);
            assert!(available().unwrap() > 0);
        }
    }
}
