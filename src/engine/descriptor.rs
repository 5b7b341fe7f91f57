//! One pollable descriptor with a timer and wake-ups from other threads behind it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::core::Millis;

use super::Error;
use super::shared::Shared;

const WAKE: Token = Token(0);
const TIMER: Token = Token(1);
const FINISHED: Token = Token(2);

/// An epoll descriptor over a timerfd and an eventfd. Dropping it only closes: in a forked child
/// that leaves the parent's untouched.
pub(super) struct Descriptor {
    poll: Poll,
    events: Events,
    timer: OwnedFd,
    /// When the timer makes it readable, if it has not yet.
    armed: Option<Millis>,
}

impl Descriptor {
    /// Readable at once, so that the first dispatch happens, and whenever storage's own descriptor
    /// is, which must live as long.
    pub fn new(shared: &Shared, finished: Option<RawFd>) -> Result<Descriptor, Error> {
        let (timer, _low) = timers().map_err(|e| failed("timerfd_create", &e))?;
        let poll = Poll::new().map_err(|e| failed("epoll_create", &e))?;
        let waker = Waker::new(poll.registry(), WAKE).map_err(|e| failed("eventfd", &e))?;
        poll.registry()
            .register(&mut SourceFd(&timer.as_raw_fd()), TIMER, Interest::READABLE)
            .map_err(|e| failed("epoll_ctl", &e))?;
        if let Some(finished) = finished {
            poll.registry()
                .register(&mut SourceFd(&finished), FINISHED, Interest::READABLE)
                .map_err(|e| failed("epoll_ctl", &e))?;
        }
        waker.wake().map_err(|e| failed("eventfd", &e))?;
        let registry = poll.registry().try_clone();
        let registry = registry.map_err(|e| failed("dup", &e))?;
        let only = shared.waker.set(waker).is_ok() && shared.registry.set(registry).is_ok();
        assert!(only, "a member has one descriptor");
        Ok(Descriptor {
            poll,
            events: Events::with_capacity(4),
            timer,
            armed: None,
        })
    }

    pub fn fd(&self) -> RawFd {
        self.poll.as_raw_fd()
    }

    /// Milliseconds since boot, suspended time included.
    pub fn now() -> Millis {
        let now = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
        seconds * 1000 + nanos / 1_000_000
    }

    /// Whether the descriptor behind this is readable. Of a write that the system does by itself nothing
    /// else tells that it has ended.
    pub fn is_readable(registry: &Registry) -> bool {
        let mut fds = [PollFd::new(registry, PollFlags::IN)];
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    /// Takes the readiness away; what comes later makes it readable again.
    pub fn clear(&mut self) -> Result<(), Error> {
        match self.poll.poll(&mut self.events, Some(Duration::ZERO)) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Ok(()),
            other => other.map_err(|e| failed("epoll_wait", &e))?,
        }
        if self.events.iter().any(|event| event.token() == TIMER) {
            self.armed = None;
        }
        Ok(())
    }

    /// Makes it readable at `due`, or earlier: as a rule what is due moves on with every message,
    /// and to wake up once for nothing costs less than to set the timer each time.
    pub fn arm(&mut self, due: Millis) -> Result<(), Error> {
        // Zero would disarm it, and a far future must not overflow.
        let due = due.clamp(1, i64::MAX as u64 / 2);
        if self.armed.is_some_and(|armed| armed <= due) {
            return Ok(());
        }
        self.armed = Some(due);
        let value = Timespec {
            tv_sec: (due / 1000) as i64,
            tv_nsec: (due % 1000 * 1_000_000) as _,
        };
        let once = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)
            .map(drop)
            .map_err(|e| failed("timerfd_settime", &e.into()))
    }
}

/// A timer, and others that hold what was free of the descriptors 0 to 2: in a daemon that has closed
/// those, what is made as long as the others live does not get a number that anybody prints to.
fn timers() -> io::Result<(OwnedFd, Vec<OwnedFd>)> {
    const FIRST_FREE: RawFd = 3;
    // The clock that counts suspended time: a lease must not outlive a suspend.
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let mut low = Vec::new();
    loop {
        let timer = timerfd_create(TimerfdClockId::Boottime, flags)?;
        if timer.as_raw_fd() >= FIRST_FREE {
            return Ok((timer, low));
        }
        low.push(timer);
    }
}

fn failed(call: &str, error: &io::Error) -> Error {
    Error::Io(format!("{call}: {error}"))
}
