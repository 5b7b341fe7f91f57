//! Writes that the kernel does by itself: Linux's asynchronous I/O (io_submit(2)).
//!
//! They go past the page cache, and end when the disk has what they wrote. Chosen over io_uring
//! because that is shut off in many containers.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::event::{EventfdFlags, eventfd};

use super::buffer::Buffer;
use super::vfs::Queue;

const COMMAND_PWRITE: u16 = 1;
const FLAG_RESFD: u32 = 1;
const RWF_DSYNC: i32 = 2;

/// `struct iocb` of linux/aio_abi.h.
#[repr(C)]
#[derive(Default)]
struct Control {
    data: u64,
    #[cfg(target_endian = "little")]
    key: u32,
    rw_flags: i32,
    #[cfg(target_endian = "big")]
    key: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// `struct io_event`.
#[repr(C)]
#[derive(Default)]
struct Event {
    data: u64,
    control: u64,
    result: i64,
    result2: i64,
}

/// How the ring of events begins that the kernel shows to the process, `struct aio_ring` of its
/// fs/aio.c: libaio reads it as well.
#[repr(C)]
struct Ring {
    id: u32,
    slots: u32,
    head: AtomicU32,
    tail: AtomicU32,
    magic: u32,
}

const RING_MAGIC: u32 = 0xa10a_10a1;

/// One write at a time.
pub(super) struct Aio {
    context: libc::c_ulong,
    event: OwnedFd,
    /// What the kernel was told. It has a copy, but who watches system calls, as valgrind does, looks
    /// at it once more when the write has ended.
    control: Box<Control>,
    /// What the kernel reads from.
    under_way: Option<Buffer>,
}

impl Aio {
    /// `None` where there is no such thing: an old container, no descriptors, too many users of it.
    pub(super) fn new() -> Option<Aio> {
        const FIRST_FREE: RawFd = 3;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).ok()?;
        // See `off_stdio`: nobody who prints may make it readable.
        let event = match event.as_raw_fd() < FIRST_FREE {
            true => rustix::io::fcntl_dupfd_cloexec(&event, FIRST_FREE).ok()?,
            false => event,
        };
        let mut context: libc::c_ulong = 0;
        // SAFETY: the kernel writes the one word that it is given, which must be 0 before.
        let made = unsafe { libc::syscall(libc::SYS_io_setup, 1_u32, &raw mut context) };
        (made == 0).then_some(Aio {
            context,
            event,
            control: Box::default(),
            under_way: None,
        })
    }

    /// Whether no event is there for sure; asked without a system call.
    fn is_quiet(&self) -> bool {
        let ring = std::ptr::with_exposed_provenance::<Ring>(self.context as usize);
        // SAFETY: the number of a context is the address of its ring, which is mapped for reading, and
        // for writing, as long as the context lives; the kernel changes head and tail only, which are
        // atomic here. Should it ever look otherwise, the magic number differs, which a page that is
        // mapped there has room for.
        let ring = unsafe { &*ring };
        let (head, tail) = (&ring.head, &ring.tail);
        ring.magic == RING_MAGIC && head.load(Ordering::Acquire) == tail.load(Ordering::Acquire)
    }

    /// The result of the write that has ended.
    fn event(&self, wait: bool) -> Option<i64> {
        let mut event = Event::default();
        let now = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let timeout = match wait {
            true => std::ptr::null(),
            false => &raw const now,
        };
        loop {
            // SAFETY: there is room for the one event that is asked for, and the time, where one is
            // given, lives as long as the call.
            let got = unsafe {
                libc::syscall(
                    libc::SYS_io_getevents,
                    self.context,
                    libc::c_long::from(wait),
                    1 as libc::c_long,
                    &raw mut event,
                    timeout,
                )
            };
            match got {
                1 => return Some(event.result),
                0 => return None,
                _ if io::Error::last_os_error().kind() == io::ErrorKind::Interrupted => {}
                _ => panic!("io_getevents: {}", io::Error::last_os_error()),
            }
        }
    }
}

impl Queue for Aio {
    fn fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }

    fn begin(&mut self, file: RawFd, buffer: Buffer, offset: u64) -> Result<(), Buffer> {
        assert!(self.under_way.is_none(), "one write at a time");
        assert!(buffer.is_aligned(), "whole pages at the address of one");
        let (Ok(fd), Ok(at), Ok(event_fd)) = (
            u32::try_from(file),
            i64::try_from(offset),
            u32::try_from(self.event.as_raw_fd()),
        ) else {
            return Err(buffer);
        };
        *self.control = Control {
            rw_flags: RWF_DSYNC,
            opcode: COMMAND_PWRITE,
            fd,
            buffer: buffer.bytes().as_ptr().expose_provenance() as u64,
            bytes: buffer.bytes().len() as u64,
            offset: at,
            flags: FLAG_RESFD,
            event_fd,
            ..Control::default()
        };
        let list = [&raw const *self.control];
        // SAFETY: the kernel copies what is in the list. It reads from the buffer, whose bytes do not
        // move when it is kept here, until the write has ended: only then is it given back, and
        // dropping this waits for it.
        let begun = unsafe {
            libc::syscall(
                libc::SYS_io_submit,
                self.context,
                1 as libc::c_long,
                list.as_ptr(),
            )
        };
        match begun {
            1 => {
                self.under_way = Some(buffer);
                Ok(())
            }
            _ => Err(buffer),
        }
    }

    fn end(&mut self, wait: bool) -> Option<(Buffer, io::Result<()>)> {
        self.under_way.as_ref()?;
        if !wait && self.is_quiet() {
            return None;
        }
        let result = self.event(wait)?;
        let buffer = self.under_way.take()?;
        let result = match usize::try_from(result) {
            Ok(written) if written == buffer.bytes().len() => Ok(()),
            Ok(written) => Err(io::Error::other(format!("only {written} bytes written"))),
            Err(_) => Err(io::Error::from_raw_os_error(-result as i32)),
        };
        Some((buffer, result))
    }
}

impl Drop for Aio {
    fn drop(&mut self) {
        // SAFETY: the context is this one's own. The kernel returns when nothing is under way any
        // more; in a forked child, where the context does not exist, at once with an error.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.context) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::dir::page::PAGE;
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;

    #[test]
    fn what_ended_is_in_the_file() {
        let path = std::env::temp_dir().join(format!("raftkeel-aio-{}", std::process::id()));
        std::fs::write(&path, vec![0; 4 * PAGE]).unwrap();
        let mut options = OpenOptions::new();
        let file = options.write(true).custom_flags(libc::O_DIRECT).open(&path);
        let (Ok(file), Some(mut aio)) = (file, Aio::new()) else {
            println!("SKIPPED: no asynchronous I/O here");
            return;
        };
        let mut buffer = Buffer::default();
        for round in 0..3 {
            assert!(buffer.restart(PAGE));
            buffer.appended().extend_from_slice(&[round + 1; PAGE]);
            let at = u64::from(round) * PAGE as u64;
            assert!(aio.begin(file.as_raw_fd(), buffer, at).is_ok());
            let (back, result) = aio.end(true).unwrap();
            result.unwrap();
            buffer = back;
            assert!(aio.end(false).is_none(), "it ends once");
        }
        let read = std::fs::read(&path).unwrap();
        let expected: Vec<u8> = [1, 2, 3, 0].into_iter().flat_map(|n| [n; PAGE]).collect();
        assert!(read == expected);
        // A descriptor that is none of a file for writing: an error, whenever it comes.
        assert!(buffer.restart(PAGE));
        buffer.appended().extend_from_slice(&[9; PAGE]);
        let (read_only, _keep) = std::io::pipe().unwrap();
        if aio.begin(read_only.as_raw_fd(), buffer, 0).is_ok() {
            assert!(aio.end(true).unwrap().1.is_err());
        }
        std::fs::remove_file(&path).unwrap();
    }
}
