//! Numbers as people read them: in tables, in tooltips, and beside the ticks of an axis.

/// A figure in a table: five significant digits, whole numbers whole, `–` for what is not defined.
pub fn format_figure(value: Option<f64>) -> String {
    let Some(value) = value else { return "–".into() };
    if value.fract() == 0.0 && value.abs() < 1e9 {
        return format!("{value:.0}");
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-4..6).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let decimals = usize::try_from((4 - magnitude).clamp(0, 8)).expect("clamped above 0");
    format!("{value:.decimals$}")
}

/// `1,234,567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// In as little space as three or four digits take: `81.9k`, `4M`, `0.275`, `5e-5`; `–` for what is not finite.
pub fn short(value: f64) -> String {
    if !value.is_finite() {
        return "–".into();
    }
    let size = value.abs();
    if size == 0.0 {
        return "0".into();
    }
    // 999,950 is 1000.0k when rounded: the unit changes a little before.
    for (unit, suffix) in [(1e9, "B"), (1e6, "M"), (1e3, "k")] {
        let first = if suffix == "k" { 9_999.5 } else { 0.9995 * unit };
        if (first..1e15).contains(&size) {
            return trim(&significant(value / unit, 3)) + suffix;
        }
    }
    if (1e-3..1e5).contains(&size) {
        return trim(&significant(value, 4));
    }
    let text = format!("{value:.2e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trim(mantissa)),
        None => text,
    }
}

/// The labels of ticks on a linear axis: of one unit, with as many decimals as tell neighbours apart.
pub(crate) fn tick_labels(ticks: &[f64]) -> Vec<String> {
    let largest = ticks.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
    let step = ticks.windows(2).map(|pair| (pair[1] - pair[0]).abs()).fold(f64::INFINITY, f64::min);
    let (unit, suffix) = match largest {
        _ if ticks.len() < 2 => return ticks.iter().map(|&v| short(v)).collect(),
        1e15.. => return ticks.iter().map(|&v| short(v)).collect(),
        1e9.. => (1e9, "B"),
        1e6.. => (1e6, "M"),
        1e4.. => (1e3, "k"),
        1e-3.. => (1.0, ""),
        _ => return ticks.iter().map(|&v| short(v)).collect(),
    };
    let decimals = decimals(step / unit);
    let label = |&value: &f64| {
        // Rounding errors of a tick at zero are not to be read.
        if value.abs() < step * 1e-6 {
            "0".to_owned()
        } else {
            format!("{:.decimals$}{suffix}", value / unit)
        }
    };
    ticks.iter().map(label).collect()
}

/// A power of ten that is a share, as an axis shows it.
pub(crate) fn power(exponent: i32) -> String {
    match exponent {
        0 => "100 %".into(),
        -1 => "10 %".into(),
        -2 => "1 %".into(),
        -3 => "0.1 %".into(),
        _ => format!("1e{exponent}"),
    }
}

/// How many decimals show a step of 1, 2, 2.5 or 5 times a power of ten.
fn decimals(step: f64) -> usize {
    (0..8)
        .find(|&n| {
            let scaled = step * 10_f64.powi(n);
            (scaled - scaled.round()).abs() < 1e-6 * scaled.max(1.0)
        })
        .map_or(8, |n| usize::try_from(n).unwrap_or(0))
}

fn significant(value: f64, digits: i32) -> String {
    let magnitude = value.abs().log10().floor() as i32;
    let decimals = usize::try_from(digits - 1 - magnitude).unwrap_or(0);
    format!("{value:.decimals$}")
}

/// Without zeros at the end of its decimals.
fn trim(text: &str) -> String {
    if !text.contains('.') {
        return text.to_owned();
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable_at_every_size() {
        for (value, expected) in [
            (0.0, "0"),
            (1.0, "1"),
            (4608.0, "4608"),
            (3.377_04, "3.3770"),
            (45.2311, "45.231"),
            (0.083_121_9, "0.083122"),
            (-0.5, "-0.50000"),
            (0.000_868_06, "0.00086806"),
            (12_345.678, "12346"),
            (1.234_56e-5, "1.235e-5"),
            (6.02e23, "6.020e23"),
            (f64::INFINITY, "inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(format_figure(Some(value)), expected);
        }
        assert_eq!(format_figure(None), "–");
    }

    #[test]
    fn short_numbers_by_hand() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "0"),
            (81_920.0, "81.9k"),
            (3_997_696.0, "4M"),
            (999_960.0, "1M"),
            (1e9, "1B"),
            (9_999.0, "9999"),
            (0.274_976, "0.275"),
            (-1.5, "-1.5"),
            (5e-5, "5e-5"),
            (1.234e-4, "1.23e-4"),
            (6.02e23, "6.02e23"),
            (f64::NAN, "–"),
            (f64::NEG_INFINITY, "–"),
        ] {
            assert_eq!(short(value), expected, "{value}");
        }
    }

    #[test]
    fn whole_numbers_are_grouped() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn ticks_of_an_axis_agree_on_a_unit() {
        assert_eq!(tick_labels(&[0.0, 5e5, 1e6]), ["0", "0.5M", "1.0M"]);
        assert_eq!(tick_labels(&[0.0, 0.25, 0.5]), ["0", "0.25", "0.50"]);
        assert_eq!(tick_labels(&[-1e-18, 0.1, 0.2]), ["0", "0.1", "0.2"]);
        assert_eq!(tick_labels(&[0.0, 5000.0, 10_000.0]), ["0", "5k", "10k"]);
        assert_eq!(tick_labels(&[0.0, 2e-5, 4e-5]), ["0", "2e-5", "4e-5"]);
        assert_eq!(tick_labels(&[3.0]), ["3"]);
        assert!(tick_labels(&[]).is_empty());
    }

    #[test]
    fn shares_are_percentages_while_they_are_large() {
        assert_eq!([0, -2, -4].map(power), ["100 %", "1 %", "1e-4"]);
    }
}
