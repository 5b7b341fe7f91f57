//! The format, byte by byte. A change of `golden.txt` is a change of the format: it needs a new
//! version, part type or entry kind.

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_format_is_what_it_was() {
    let mut now: String = samples()
        .iter()
        .map(|(name, packet)| format!("{name}: {}\n", hex(&bytes_of(packet))))
        .collect();
    for entry in entries() {
        let mut bytes = Vec::new();
        encode_entry(&entry, &mut bytes);
        now += &format!("entry {}: {}\n", entry.index, hex(&bytes));
    }
    // Printed whole, so that a wanted change can be taken over.
    println!("{now}");
    let golden = include_str!("golden.txt");
    assert_eq!(now.lines().count(), golden.lines().count());
    for (now, golden) in now.lines().zip(golden.lines()) {
        assert_eq!(now, golden);
    }
}
