//! Memory that a disk can read from directly: it begins where a page does.

use super::page::PAGE;

/// Bytes at such an address, put together by appending and then written as a whole. The memory is
/// used again.
#[derive(Default)]
pub(super) struct Buffer {
    memory: Vec<u8>,
    /// Bytes of it before the first that counts.
    start: usize,
}

impl Buffer {
    /// Empties it, with room for so many bytes; whoever appends more loses the address, which
    /// [`Buffer::is_aligned`] tells. False if there is no such memory: then it is as it was.
    #[must_use]
    pub(super) fn restart(&mut self, room: usize) -> bool {
        self.memory.clear();
        if self.memory.try_reserve_exact(room + PAGE).is_err() {
            return false;
        }
        self.start = self.memory.as_ptr().align_offset(PAGE).min(PAGE);
        self.memory.resize(self.start, 0);
        true
    }

    /// Bytes that it has.
    pub(super) fn len(&self) -> usize {
        self.memory.len() - self.start
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.memory[self.start..]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..]
    }

    /// To append to; what is there stays.
    pub(super) fn appended(&mut self) -> &mut Vec<u8> {
        &mut self.memory
    }

    /// Appends zeros up to the end of a page.
    pub(super) fn pad(&mut self) {
        let end = self.start + self.len().next_multiple_of(PAGE);
        self.memory.resize(end, 0);
    }

    /// Whether a disk can read from it directly.
    pub(super) fn is_aligned(&self) -> bool {
        self.bytes().as_ptr().addr().is_multiple_of(PAGE) && self.len().is_multiple_of(PAGE)
    }

    /// Bytes of memory that it keeps.
    pub(super) fn capacity(&self) -> usize {
        self.memory.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_where_a_page_does_until_too_much_is_appended() {
        let mut buffer = Buffer::default();
        for room in [PAGE, 100, 5 * PAGE, 2 * PAGE] {
            assert!(buffer.restart(room));
            buffer.appended().extend_from_slice(&[7; 90]);
            assert_eq!((buffer.len(), buffer.bytes()), (90, &[7; 90][..]));
            buffer.pad();
            assert_eq!(buffer.len(), PAGE);
            assert!(buffer.is_aligned());
            assert!(buffer.bytes()[90..].iter().all(|byte| *byte == 0));
        }
        buffer.appended().push(1);
        assert!(!buffer.is_aligned(), "{} bytes", buffer.len());
        assert!(!buffer.restart(usize::MAX / 4));
    }
}
