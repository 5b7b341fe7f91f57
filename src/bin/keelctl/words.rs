//! Numbers as people read them.

/// A number of bytes, to three digits.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if count < 1024 {
        return format!("{count} B");
    }
    let mut value = count as f64 / 1024.0;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let digits = if value < 9.995 {
        2
    } else {
        usize::from(value < 99.95)
    };
    format!("{value:.digits$} {}", UNITS[unit])
}

/// "1 group", "2 groups".
pub fn count(count: u64, thing: &str) -> String {
    match count {
        1 => format!("1 {thing}"),
        _ => format!("{count} {}", plural(thing)),
    }
}

fn plural(thing: &str) -> String {
    match (thing.strip_suffix('y'), thing.ends_with('x')) {
        (Some(stem), _) => format!("{stem}ies"),
        (None, true) => format!("{thing}es"),
        (None, false) => format!("{thing}s"),
    }
}

/// "7", or "5 to 7", with what is counted before it.
pub fn range(thing: &str, (low, high): (u64, u64)) -> String {
    match low == high {
        true => format!("{thing} {low}"),
        false => format!("{} {low} to {high}", plural(thing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_three_digits() {
        for (number, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (10 * 1024, "10.0 KiB"),
            (100 * 1024, "100 KiB"),
            (1_023_488, "0.98 MiB"),
            (4 << 20, "4.00 MiB"),
            (5 << 40, "5.00 TiB"),
            (u64::MAX, "16777216 TiB"),
        ] {
            assert_eq!(bytes(number), text);
        }
    }
}
