//! Writing to the disk what is in the page cache, without making it durable.

#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Writes the pages of that part of the file, and waits for them; `false` if the system cannot.
pub(super) fn write_out(file: &File, offset: u64, bytes: u64) -> io::Result<bool> {
    let (Ok(from), Ok(len)) = (offset.try_into(), bytes.try_into()) else {
        return Ok(false);
    };
    let flags = libc::SYNC_FILE_RANGE_WRITE | libc::SYNC_FILE_RANGE_WAIT_AFTER;
    loop {
        // SAFETY: the descriptor is the file's, which is open, and no memory is passed.
        let done = unsafe { libc::sync_file_range(file.as_raw_fd(), from, len, flags) };
        if done == 0 {
            return Ok(true);
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => {}
            // Forbidden by a filter of system calls, or of a file system that has no pages.
            Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::ESPIPE) => return Ok(false),
            _ => return Err(error),
        }
    }
}
