//! Memory that must be left over when something is taken in. What waits is written, sent and applied with
//! more memory than it holds itself: were there none left for that, it would wait for ever for what nobody
//! but itself could give back.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::storage::lacks_memory;

/// What is needed beside what waits: a write of several entries is put together (2 MiB), a message to a
/// peer (1 MiB), and many small things.
const LEFT: usize = 4 << 20;
/// So much is taken in before it is asked for again.
const STRIDE: usize = 256 << 10;
/// What an input takes beside its data.
const INPUT: usize = 512;

/// Asks for memory before it is needed.
#[derive(Debug, Default)]
pub(super) struct Reserve {
    /// Bytes that were taken in since there was as much as there has to be.
    taken: AtomicUsize,
    /// The largest input of those that may wait, if it is a large one.
    largest: AtomicUsize,
}

impl Reserve {
    /// Whether there is memory for an input with so many bytes of data, and for what it brings about.
    pub fn admits(&self, bytes: usize) -> bool {
        self.admits_if(bytes, lacks_memory)
    }

    fn admits_if(&self, bytes: usize, lacks: impl FnOnce(usize) -> bool) -> bool {
        let cost = bytes.saturating_add(INPUT);
        if self.taken.load(Ordering::Relaxed).saturating_add(cost) < STRIDE {
            self.taken.fetch_add(cost, Ordering::Relaxed);
            return true;
        }
        let largest = self.largest.load(Ordering::Relaxed).max(bytes);
        // One that is larger than a write or a message usually is gets one of its own.
        let admitted = !lacks(LEFT + bytes + 2 * largest);
        if admitted {
            self.taken.store(0, Ordering::Relaxed);
        }
        admitted
    }

    /// Such an input was taken in.
    pub fn admitted(&self, bytes: usize) {
        if bytes >= STRIDE {
            self.largest.fetch_max(bytes, Ordering::Relaxed);
        }
    }

    /// None of those that were taken in waits any more.
    pub fn settle(&self) {
        self.largest.store(0, Ordering::Relaxed);
    }

    /// Whether there may be anything to be settled.
    pub fn is_settled(&self) -> bool {
        self.largest.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_memory_is_left_for_is_not_taken_in() {
        let reserve = Reserve::default();
        let admits = |bytes, left| reserve.admits_if(bytes, |needed| needed > left);
        assert!(admits(100, 0), "it was not asked for yet");
        assert!(!admits(STRIDE, LEFT + STRIDE) && admits(STRIDE, LEFT + 3 * STRIDE));
        let small = (0..).take_while(|_| admits(100, 0)).count();
        assert!(small > 100 && small * (100 + INPUT) < STRIDE, "{small}");
        assert!(!admits(100, LEFT), "nor later");
        assert!(admits(100, LEFT + 300) && admits(100, 0));
        reserve.admitted(8 << 20);
        assert!(
            !admits(STRIDE, LEFT + 3 * STRIDE),
            "one that waits needs more"
        );
        assert!(admits(STRIDE, LEFT + STRIDE + (16 << 20)));
        reserve.settle();
        assert!(reserve.is_settled() && admits(STRIDE, LEFT + 3 * STRIDE));
        reserve.admitted(100);
        assert!(reserve.is_settled(), "for a small one there is enough");
    }
}
