//! What is to happen, in the order of its time; of one instant, in the order in which it was
//! planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A point or a span of simulated time in microseconds.
pub type Micros = u64;

/// Nothing is planned as late as this.
pub const NEVER: Micros = Micros::MAX;

/// Events with their times.
pub struct Queue<T> {
    /// Time, serial number, place among the slots.
    heap: BinaryHeap<Reverse<(Micros, u64, u32)>>,
    /// The events themselves, which the heap need not move.
    slots: Vec<Option<T>>,
    free: Vec<u32>,
    serial: u64,
}

impl<T> Queue<T> {
    pub fn new() -> Queue<T> {
        Queue {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            serial: 0,
        }
    }

    pub fn push(&mut self, at: Micros, event: T) {
        let slot = match self.free.pop() {
            Some(slot) => {
                self.slots[slot as usize] = Some(event);
                slot
            }
            None => {
                self.slots.push(Some(event));
                self.slots.len() as u32 - 1
            }
        };
        self.serial += 1;
        self.heap.push(Reverse((at, self.serial, slot)));
    }

    /// Drops every event for which this does not hold.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        let slots = &mut self.slots;
        let free = &mut self.free;
        self.heap.retain(|Reverse((_, _, slot))| {
            let event = &mut slots[*slot as usize];
            let kept = event.as_ref().is_some_and(&keep);
            if !kept {
                *event = None;
                free.push(*slot);
            }
            kept
        });
    }

    /// The next event, unless it is later than `until`.
    pub fn pop(&mut self, until: Micros) -> Option<(Micros, T)> {
        let Reverse((at, _, slot)) = *self.heap.peek()?;
        if at > until {
            return None;
        }
        self.heap.pop();
        self.free.push(slot);
        let event = self.slots[slot as usize].take();
        Some((at, event.expect("a planned event is in its slot")))
    }
}
