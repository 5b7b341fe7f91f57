//! Whether there is memory: asked of the allocator that the process has, before it is needed.

/// What is asked for first. glibc takes the end of a large block for a sign that such blocks come often,
/// and keeps all up to that size in its heap from then on, in the whole process: only a block of more than
/// 32 MiB (`DEFAULT_MMAP_THRESHOLD_MAX`, mallopt(3)) changes nothing.
const UNNOTICED: usize = (32 << 20) + (1 << 16);

/// Whether so many bytes cannot be had now. What is allocated next without a way to fail may still not
/// be there, but only if somebody else took it meanwhile. It leaves the host's allocator as it was, unless
/// memory is short.
pub(crate) fn lacks_memory(len: usize) -> bool {
    !is_there(len.max(UNNOTICED)) && (len >= UNNOTICED || !is_there(len))
}

/// The same of so many blocks of `len` bytes at once. They are no larger than what the caller has, and
/// gives back, anyway: that changes no more than they do.
pub(crate) fn lacks_blocks(count: usize, len: usize) -> bool {
    let mut blocks = Vec::new();
    (0..count).any(|_| match reserved(len) {
        Some(block) => {
            blocks.push(block);
            false
        }
        None => true,
    })
}

fn is_there(len: usize) -> bool {
    reserved(len).is_some()
}

/// Nothing of it is touched.
fn reserved(len: usize) -> Option<Vec<u8>> {
    let mut block = Vec::new();
    block.try_reserve_exact(len).ok()?;
    // Else the compiler may leave out what nobody uses, and say that it was there.
    Some(std::hint::black_box(block))
}

#[cfg(all(test, target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
mod tests {
    use super::*;

    const CHILD: &str = "RAFTKEEL_PROBE";
    /// A new process maps blocks from 128 KiB on by themselves.
    const LARGE: usize = 1 << 20;

    /// Whether the allocator maps such a block by itself.
    fn is_mapped() -> bool {
        // SAFETY: it only reads counts.
        let mapped = || unsafe { libc::mallinfo2() }.hblks;
        let before = mapped();
        let block = std::hint::black_box(Vec::<u8>::with_capacity(LARGE));
        let after = mapped();
        // Its end would be noticed as well.
        std::mem::forget(block);
        after > before
    }

    #[test]
    #[ignore = "started by asking_for_memory_leaves_the_allocator_as_it_was"]
    fn asked() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        assert!(is_mapped(), "nothing was asked for yet");
        for len in [1, LARGE, 4 << 20, 12 << 20, 40 << 20] {
            assert!(!lacks_memory(len));
        }
        assert!(is_mapped(), "blocks of {LARGE} bytes are in the heap now");
        assert!(
            is_there(4 << 20) && !is_mapped(),
            "what it is like otherwise"
        );
    }

    /// In a process where nobody else allocates.
    #[test]
    fn asking_for_memory_leaves_the_allocator_as_it_was() {
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "--test-threads=1"])
            .arg("storage::probe::tests::asked")
            .env(CHILD, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&child.stdout);
        assert!(
            child.status.success() && said.contains("1 passed"),
            "{said}"
        );
    }
}
