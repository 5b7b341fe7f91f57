//! Panics that must not end the host, nor be printed where its data goes (c-api.md, measured fact 2).

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `f`; a panic becomes its text. Nothing is printed. What `f` was changing must not be used
/// any more after one.
pub(crate) fn catch<T>(f: impl FnOnce() -> T) -> Result<T, String> {
    install_hook();
    let outer = INSIDE.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(f));
    INSIDE.set(outer);
    result.map_err(|payload: Box<dyn Any + Send>| {
        // Dropping a payload may run code that panics again.
        std::mem::forget(payload);
        // A thread that is ending may have lost it already.
        let text = PANIC.try_with(RefCell::take);
        format!("internal error: {}", text.as_deref().unwrap_or("panic"))
    })
}

/// Inside [`catch`] a panic's text is kept for its caller; elsewhere the previous hook has it.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if INSIDE.try_with(Cell::get).unwrap_or(false) {
                let _ = PANIC.try_with(|text| *text.borrow_mut() = info.to_string());
            } else {
                previous(info);
            }
        }));
    });
}

/// Locks it also after a panic of whoever held it: for what no panic leaves half changed, or what
/// nobody goes on with after one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
