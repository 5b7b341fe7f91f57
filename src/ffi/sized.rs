//! Structs that the host fills. The host may be compiled against an older or a newer header than
//! this library: the first field is `size`, the `sizeof` that the host's compiler saw.
//!
//! Such a struct is read as bytes and never through a reference: it may be shorter than ours.

use std::mem::MaybeUninit;

use super::code::{Failure, KEEL_ERR_UNSUPPORTED};

/// No struct of any version comes near; a larger `size` is memory that was never initialised.
const SIZE_MAX: usize = 4096;

/// Heap bytes that reading a struct may take: the text of a failure. What its pointers point to is
/// not counted.
pub const MAX_READ: usize = 1024;

/// A struct that starts with its size.
///
/// # Safety
/// `repr(C)`, the first field is `size: usize`, and all bytes zero is a valid value.
pub unsafe trait HostStruct: Copy {
    /// Its name in C.
    const NAME: &'static str;
    /// The macro in C that initialises it.
    const INIT: &'static str;
    /// `sizeof` in the first version that had it.
    const FIRST: usize;
}

/// Checks the `size` that a host wrote.
fn check_size<T: HostStruct>(size: usize) -> Result<(), Failure> {
    let (name, init) = (T::NAME, T::INIT);
    if size == 0 {
        return Err(Failure::invalid(format!(
            "{name}.size is 0: initialise with {init}"
        )));
    }
    if size < T::FIRST || size > SIZE_MAX {
        return Err(Failure::invalid(format!(
            "{name}.size is {size}, not from {} to {SIZE_MAX}: initialise with {init}",
            T::FIRST
        )));
    }
    Ok(())
}

/// Copies what the host gave; fields that its version lacks are zero. Fields that this version
/// lacks must be zero, or the host asks for something that would silently not happen.
///
/// # Safety
/// `host` is NULL or points to at least `size` readable bytes that start with `size`.
pub unsafe fn read<T: HostStruct>(host: *const T) -> Result<T, Failure> {
    if host.is_null() {
        return Err(Failure::invalid(format!("{} * is NULL", T::NAME)));
    }
    // SAFETY: a HostStruct starts with its size; unaligned memory is the host's right to give.
    let size = unsafe { host.cast::<usize>().read_unaligned() };
    check_size::<T>(size)?;
    let known = size.min(size_of::<T>());
    let mut copy = MaybeUninit::<T>::zeroed();
    // SAFETY: `known` bytes are readable by contract and fit; the rest stays zero, and zero is
    // valid by the trait's contract.
    let copy = unsafe {
        std::ptr::copy_nonoverlapping(host.cast::<u8>(), copy.as_mut_ptr().cast::<u8>(), known);
        copy.assume_init()
    };
    for at in known..size {
        // SAFETY: within the `size` bytes that the host vouches for.
        let byte = unsafe { host.cast::<u8>().add(at).read() };
        if byte != 0 {
            return Err(Failure::new(
                KEEL_ERR_UNSUPPORTED,
                format!(
                    "{} is {size} bytes long and byte {at} is set; this library knows {} bytes",
                    T::NAME,
                    size_of::<T>()
                ),
            ));
        }
    }
    Ok(copy)
}

/// Writes `value` to a struct whose `size` the host has set, which stays as it is: fields that
/// the host's version lacks are left out, fields that this version lacks are zeroed.
///
/// # Safety
/// `host` is NULL or points to at least `size` writable bytes that start with `size`.
pub unsafe fn write<T: HostStruct>(host: *mut T, value: &T) -> Result<(), Failure> {
    if host.is_null() {
        return Err(Failure::invalid(format!("{} * is NULL", T::NAME)));
    }
    // SAFETY: as in `read`.
    let size = unsafe { host.cast::<usize>().read_unaligned() };
    check_size::<T>(size)?;
    let known = size.min(size_of::<T>());
    let skip = size_of::<usize>();
    // SAFETY: `size` bytes are writable by contract, `known` of them exist in `value`, and both
    // are at least as long as their first field.
    unsafe {
        std::ptr::copy_nonoverlapping(
            std::ptr::from_ref(value).cast::<u8>().add(skip),
            host.cast::<u8>().add(skip),
            known - skip,
        );
        host.cast::<u8>().add(known).write_bytes(0, size - known);
    }
    Ok(())
}
