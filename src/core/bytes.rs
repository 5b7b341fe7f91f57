//! Immutable bytes shared between the log, messages and storage without copying.
//!
//! Whoever makes them chooses how many there are, and lack of memory for many must not end the process:
//! `Arc<[u8]>` cannot fail softly, so that many lie in a vector of their own, behind the `Arc`.

use std::collections::TryReserveError;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// So many are allocated at once with their count of references, and that cannot fail softly.
const FEW: usize = 2048;

/// What an `Arc` counts its references in.
const COUNTS: usize = 2 * size_of::<usize>();

/// Bytes that are never changed; a copy refers to the same ones.
#[derive(Clone)]
pub struct Bytes(Held);

#[derive(Clone)]
enum Held {
    Few(Arc<[u8]>),
    Many(Arc<Vec<u8>>),
}

impl Bytes {
    /// A copy of these, if there is memory for them.
    pub fn copy(bytes: &[u8]) -> Result<Bytes, TryReserveError> {
        if bytes.len() <= FEW {
            // As much is had softly first, and given back for it.
            let mut tried = Vec::<u8>::new();
            tried.try_reserve_exact(bytes.len() + COUNTS)?;
            std::hint::black_box(&mut tried);
            drop(tried);
            return Ok(Bytes(Held::Few(bytes.into())));
        }
        let mut copy = Vec::new();
        copy.try_reserve_exact(bytes.len())?;
        copy.extend_from_slice(bytes);
        Ok(copy.into())
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Held::Few(bytes) => bytes,
            Held::Many(bytes) => bytes,
        }
    }
}

/// Takes them over if they are many.
impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Bytes {
        Bytes(match bytes.len() <= FEW {
            true => Held::Few(bytes.into()),
            false => Held::Many(Arc::new(bytes)),
        })
    }
}

/// Aborts the process if there is no memory for them; see [`Bytes::copy`].
impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Bytes {
        bytes.to_vec().into()
    }
}

impl<const N: usize> From<[u8; N]> for Bytes {
    fn from(bytes: [u8; N]) -> Bytes {
        bytes[..].into()
    }
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes::from([])
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Bytes) -> bool {
        **self == **other
    }
}

impl Eq for Bytes {}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_what_they_were_made_of() {
        assert_eq!(
            size_of::<Arc<[u8]>>(),
            size_of::<Bytes>(),
            "entries are no larger for it"
        );
        for len in [0, 1, FEW, FEW + 1, 3 * FEW] {
            let plain = vec![5; len];
            let copied = Bytes::copy(&plain).unwrap();
            let taken = Bytes::from(plain.clone());
            assert_eq!(plain, *copied);
            assert_eq!(copied, taken);
            assert_eq!(copied, Bytes::from(&plain[..]));
            assert_eq!(format!("{plain:?}"), format!("{copied:?}"));
        }
        assert_ne!(Bytes::from([1, 2]), Bytes::from([1, 3]));
        assert!(Bytes::default().is_empty());
    }
}
