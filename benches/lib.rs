//! Benchmarks, one Criterion file a stage: `cargo bench -p monosema-benches --bench store`.
//!
//! Figures and their commands are kept in BENCHMARKS.md.

use std::fs;

/// Processor time of this process, on Linux: fields 14 and 15 of `stat`, in hundredths of a second.
pub fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: f64 = fields.get(11..13)?.iter().filter_map(|field| field.parse::<f64>().ok()).sum();
    Some(ticks / 100.0)
}

/// The most memory that this process held at once, in 10⁶ bytes, on Linux.
pub fn peak_mb() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1.024e-3)
}
