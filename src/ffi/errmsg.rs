//! The detail of a thread's last failure.

use std::cell::RefCell;
use std::ffi::{CString, c_char};

thread_local! {
    static LAST: RefCell<CString> = RefCell::new(CString::default());
}

/// Text as C wants it: a NUL inside would cut it short, so it becomes a space.
pub fn c_text(text: &str) -> CString {
    let bytes: Vec<u8> = text
        .bytes()
        .map(|b| if b == 0 { b' ' } else { b })
        .collect();
    CString::new(bytes).unwrap_or_default()
}

/// Keeps the detail for this thread. Without effect in a thread that is ending.
pub fn set(text: &str) {
    let _ = LAST.try_with(|last| *last.borrow_mut() = c_text(text));
}

/// The detail of the last failure in the calling thread, "" if there was none; never NULL. It is
/// valid until the next failure in this thread. Successful calls leave it alone. Inside a
/// completion with a negative status, and inside `stopped`, it says why. Works without an engine.
#[unsafe(no_mangle)]
pub extern "C" fn keel_errmsg() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr())
        .unwrap_or(c"".as_ptr())
}
