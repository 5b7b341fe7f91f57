//! The only code that touches single bytes: a reader that cannot leave its input, and a writer.

use std::collections::TryReserveError;

use crate::core::NodeId;

use super::WireError;

/// Takes values off the front of a slice. After an error the rest is not to be used.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads from the first byte on.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// `Trailing` if anything is left.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(WireError::Trailing)
        }
    }

    /// The next `len` bytes, not copied.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, tail) = self
            .rest
            .split_at_checked(len)
            .ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, tail) = self.rest.split_first_chunk().ok_or(WireError::Truncated)?;
        self.rest = tail;
        Ok(*head)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, WireError> {
        self.array().map(u8::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_le_bytes)
    }

    /// One byte, 0 or 1; anything else is `BadValue`, for every value has one encoding only.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, WireError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(WireError::BadValue { what }),
        }
    }

    /// A node; 0 is `BadValue`.
    pub fn node(&mut self, what: &'static str) -> Result<NodeId, WireError> {
        NodeId::new(self.u64()?).ok_or(WireError::BadValue { what })
    }

    /// A node or, as 0, none.
    pub fn optional_node(&mut self) -> Result<Option<NodeId>, WireError> {
        self.u64().map(NodeId::new)
    }

    /// A count of items of at least `item_len` bytes each, all of which must be there: so it is safe
    /// to allocate for as many.
    pub fn count(
        &mut self,
        what: &'static str,
        max: usize,
        item_len: usize,
    ) -> Result<usize, WireError> {
        let len = self.u32()? as usize;
        if len > max {
            return Err(WireError::TooLong { what, len, max });
        }
        match len.checked_mul(item_len) {
            Some(bytes) if bytes <= self.rest.len() => Ok(len),
            _ => Err(WireError::Truncated),
        }
    }

    /// Bytes with their length before them, not copied.
    pub fn bytes(&mut self, what: &'static str, max: usize) -> Result<&'a [u8], WireError> {
        let len = self.count(what, max, 1)?;
        self.take(len)
    }

    /// UTF-8 with its length in bytes before it.
    pub fn text(&mut self, what: &'static str, max: usize) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(what, max)?).map_err(|_| WireError::BadValue { what })
    }
}

/// Appends values to a vector, each as the [`Reader`]'s method of the same name takes it; or counts
/// how long they are.
#[derive(Debug)]
pub struct Writer<'a>(Out<'a>);

#[derive(Debug)]
enum Out<'a> {
    Bytes(&'a mut Vec<u8>),
    Length(&'a mut usize),
}

/// How many bytes `write` writes.
pub fn length(write: impl FnOnce(&mut Writer<'_>)) -> usize {
    let mut len = 0;
    write(&mut Writer(Out::Length(&mut len)));
    len
}

/// What `write` writes, if there is memory for it.
pub fn try_written(write: impl Fn(&mut Writer<'_>)) -> Result<Vec<u8>, TryReserveError> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length(&write))?;
    write(&mut Writer::new(&mut bytes));
    Ok(bytes)
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Writer<'a> {
        Writer(Out::Bytes(out))
    }

    /// Bytes as they are, without a length.
    pub fn raw(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Out::Bytes(out) => out.extend_from_slice(bytes),
            Out::Length(len) => **len += bytes.len(),
        }
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) {
        self.raw(&[value]);
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) {
        self.raw(&value.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) {
        self.raw(&value.to_le_bytes());
    }

    /// One byte.
    pub fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// A node.
    pub fn node(&mut self, id: NodeId) {
        self.u64(id.get());
    }

    /// A node or none.
    pub fn optional_node(&mut self, id: Option<NodeId>) {
        self.u64(NodeId::raw(id));
    }

    /// How many items follow. Panics above `max`: the reader would refuse it.
    pub fn count(&mut self, what: &'static str, max: usize, len: usize) {
        assert!(len <= max, "{what}: {len} is more than the limit of {max}");
        let len = u32::try_from(len).unwrap_or_else(|_| panic!("{what}: {len} does not fit u32"));
        self.u32(len);
    }

    /// Bytes with their length before them. Panics above `max`.
    pub fn bytes(&mut self, what: &'static str, max: usize, bytes: &[u8]) {
        self.count(what, max, bytes.len());
        self.raw(bytes);
    }

    /// UTF-8 with its length before it. Panics above `max` bytes.
    pub fn text(&mut self, what: &'static str, max: usize, text: &str) {
        self.bytes(what, max, text.as_bytes());
    }

    /// Bytes that `write` appends, with their length before them: for what is not encoded yet.
    pub fn nested(&mut self, write: impl FnOnce(&mut Writer<'_>)) {
        let at = self.len();
        self.u32(0);
        write(self);
        let len = self.len() - at - 4;
        let len = u32::try_from(len).unwrap_or_else(|_| panic!("{len} bytes do not fit u32"));
        if let Out::Bytes(out) = &mut self.0 {
            out[at..at + 4].copy_from_slice(&len.to_le_bytes());
        }
    }

    fn len(&self) -> usize {
        match &self.0 {
            Out::Bytes(out) => out.len(),
            Out::Length(len) => **len,
        }
    }
}
