//! When a peer is spoken to: pushes, probes, polls and answers (detection.md 4.2, 4.4).

use crate::core::Millis;

use super::message::KeepaliveKind;

/// How urgently an answer of a peer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interest {
    /// The next push will do.
    Usual,
    /// It is LATE, or the own lease grows old.
    Alive,
    /// A verdict is near and it is a witness.
    Row,
}

/// The answer that is owed to a peer; the richer one satisfies both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Owed {
    Nothing,
    Reply,
    ReplyWithRow,
}

/// What is to be sent to a peer now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// A push, probe or poll.
    pub(super) ask: Option<KeepaliveKind>,
    /// A reply, with or without a row.
    pub(super) reply: Option<bool>,
}

/// The timetable of one peer.
#[derive(Debug)]
pub(super) struct Schedule {
    push_due: Millis,
    asked_at: Millis,
    owed: Owed,
}

impl Schedule {
    /// The first push is due at once: the sooner a node is heard, the sooner it is judged by
    /// deadtime instead of initdead.
    pub(super) fn new(now: Millis) -> Schedule {
        Schedule {
            push_due: now,
            asked_at: now,
            owed: Owed::Nothing,
        }
    }

    /// A keepalive of this kind came from the peer.
    pub(super) fn asked(&mut self, kind: KeepaliveKind) {
        let owed = match kind {
            KeepaliveKind::Push | KeepaliveKind::Probe => Owed::Reply,
            KeepaliveKind::Poll => Owed::ReplyWithRow,
            KeepaliveKind::Reply => Owed::Nothing,
        };
        self.owed = self.owed.max(owed);
    }

    /// hb_keepalive changed: the next push must not wait for the old one.
    pub(super) fn hasten(&mut self, now: Millis, keepalive: Millis) {
        self.push_due = self.push_due.min(now.saturating_add(keepalive));
    }

    /// When the next push, probe or poll is due.
    pub(super) fn next(&self, keepalive: Millis, interest: Interest) -> Millis {
        match interest {
            Interest::Usual => self.push_due,
            Interest::Alive | Interest::Row => {
                let again = self.asked_at.saturating_add(keepalive / 4);
                self.push_due.min(again)
            }
        }
    }

    /// Takes what is due now. `ask` is not more than one packet: a push says everything.
    pub(super) fn take(
        &mut self,
        now: Millis,
        keepalive: Millis,
        interest: Interest,
        dice: &mut Dice,
    ) -> Due {
        let ask = if now >= self.push_due {
            self.push_due = now.saturating_add(dice.jitter(keepalive));
            // A push carries the row and an echo, which is all that a reply could say.
            self.owed = Owed::Nothing;
            Some(KeepaliveKind::Push)
        } else if now >= self.next(keepalive, interest) {
            Some(match interest {
                Interest::Row => KeepaliveKind::Poll,
                Interest::Alive | Interest::Usual => KeepaliveKind::Probe,
            })
        } else {
            None
        };
        if ask.is_some() {
            self.asked_at = now;
        }
        let reply = match std::mem::replace(&mut self.owed, Owed::Nothing) {
            Owed::Nothing => None,
            owed => Some(owed == Owed::ReplyWithRow),
        };
        Due { ask, reply }
    }

    /// Something else leaves for the peer now. A push that is due soon goes with it; a plain
    /// reply is spared, because every packet carries the echo.
    pub(super) fn ride(&mut self, now: Millis, keepalive: Millis, dice: &mut Dice) -> Due {
        if now.saturating_add(keepalive / 4) >= self.push_due {
            self.push_due = now;
            return self.take(now, keepalive, Interest::Usual, dice);
        }
        let reply = (self.owed == Owed::ReplyWithRow).then_some(true);
        self.owed = Owed::Nothing;
        Due { ask: None, reply }
    }
}

/// Seeded randomness (SplitMix64): the same seed gives the same run.
#[derive(Debug)]
pub(super) struct Dice(pub(super) u64);

impl Dice {
    /// `keepalive` +-10 %, so that nodes started together do not keep speaking together.
    fn jitter(&mut self, keepalive: Millis) -> Millis {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        keepalive - keepalive / 10 + z % (keepalive / 5 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use KeepaliveKind::{Poll, Probe, Push, Reply};

    const KEEPALIVE: Millis = 1000;

    fn take(s: &mut Schedule, now: Millis, interest: Interest) -> Due {
        s.take(now, KEEPALIVE, interest, &mut Dice(7))
    }

    #[test]
    fn a_push_is_due_every_keepalive_give_or_take_a_tenth() {
        let (mut s, mut dice) = (Schedule::new(0), Dice(1));
        let mut spread = (Millis::MAX, 0);
        let mut last = 0;
        assert_eq!(take(&mut s, 0, Interest::Usual).ask, Some(Push));
        for now in 1..200_000 {
            if s.take(now, KEEPALIVE, Interest::Usual, &mut dice)
                .ask
                .is_some()
            {
                spread = (spread.0.min(now - last), spread.1.max(now - last));
                last = now;
            }
        }
        assert!(spread.0 >= 900 && spread.1 <= 1100, "{spread:?}");
        assert!(spread.1 - spread.0 > 100, "{spread:?} is hardly random");
    }

    #[test]
    fn a_call_after_a_long_pause_sends_one_push_not_many() {
        let mut s = Schedule::new(0);
        take(&mut s, 90_000, Interest::Usual);
        assert_eq!(take(&mut s, 90_001, Interest::Usual), Due::default());
    }

    #[test]
    fn interest_quadruples_the_rate() {
        let mut s = Schedule::new(0);
        take(&mut s, 0, Interest::Alive);
        assert_eq!(take(&mut s, 249, Interest::Alive).ask, None);
        assert_eq!(take(&mut s, 250, Interest::Alive).ask, Some(Probe));
        assert_eq!(s.next(KEEPALIVE, Interest::Row), 500);
        assert_eq!(take(&mut s, 500, Interest::Row).ask, Some(Poll));
        assert_eq!(take(&mut s, 2000, Interest::Row).ask, Some(Push));
    }

    #[test]
    fn every_question_is_answered_once_and_a_push_answers_too() {
        let mut s = Schedule::new(0);
        take(&mut s, 0, Interest::Usual);
        s.asked(Reply);
        assert_eq!(take(&mut s, 1, Interest::Usual).reply, None);
        s.asked(Poll);
        s.asked(Probe);
        assert_eq!(take(&mut s, 2, Interest::Usual).reply, Some(true));
        assert_eq!(take(&mut s, 3, Interest::Usual).reply, None);
        s.asked(Push);
        assert_eq!(take(&mut s, 4, Interest::Usual).reply, Some(false));
        s.asked(Poll);
        let due = take(&mut s, 5000, Interest::Usual);
        assert_eq!((due.ask, due.reply), (Some(Push), None));
    }

    #[test]
    fn a_push_rides_along_in_its_last_quarter_and_a_plain_reply_is_spared() {
        let (mut s, mut dice) = (Schedule::new(0), Dice(7));
        take(&mut s, 0, Interest::Usual);
        let due = s.next(KEEPALIVE, Interest::Usual);
        s.asked(Push);
        assert_eq!(s.ride(due - 251, KEEPALIVE, &mut dice), Due::default());
        assert_eq!(take(&mut s, due - 251, Interest::Usual).reply, None);
        s.asked(Poll);
        assert_eq!(s.ride(due - 251, KEEPALIVE, &mut dice).reply, Some(true));
        assert_eq!(s.ride(due - 250, KEEPALIVE, &mut dice).ask, Some(Push));
        assert!(s.next(KEEPALIVE, Interest::Usual) > due);
    }

    #[test]
    fn a_shorter_keepalive_is_in_force_at_once() {
        let mut s = Schedule::new(0);
        s.take(0, 20_000, Interest::Usual, &mut Dice(7));
        s.hasten(10, 1000);
        assert_eq!(take(&mut s, 1010, Interest::Usual).ask, Some(Push));
    }
}
