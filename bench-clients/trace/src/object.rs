//! What requests ask for.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// Which object of a trace: an index into its [`Objects`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

/// One thing that can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Path and query, as they were requested.
    pub url: Arc<str>,
    /// Bytes of the whole object: the largest body that the trace logs for it, from a 200 response if there was one.
    /// 0 if no body was ever logged.
    pub size: u64,
}

impl Object {
    /// The object's name, which dispatchers hash: the URL without its query.
    pub fn name(&self) -> &str {
        self.url.split('?').next().unwrap_or_default()
    }

    /// The URL as it can stand in a request line: an absolute path, and what is no printable ASCII percent-encoded.
    /// Logs hold URLs that no client could send as they are (blanks, quotes, line breaks).
    pub fn target(&self) -> Cow<'_, str> {
        target(&self.url)
    }
}

fn target(url: &str) -> Cow<'_, str> {
    let fit = |byte: u8| {
        byte.is_ascii_graphic() && !matches!(byte, b'"' | b'<' | b'>' | b'#' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
    };
    if url.starts_with('/') && url.bytes().all(fit) {
        return Cow::Borrowed(url);
    }
    let mut out = String::with_capacity(url.len() + 8);
    if !url.starts_with('/') {
        out.push('/');
    }
    for byte in url.bytes() {
        if fit(byte) {
            out.push(byte.into());
        } else {
            // Writing to a String cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    Cow::Owned(out)
}

/// The distinct objects of a trace, each URL once, in the order in which they were first seen.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    list: Vec<Object>,
    ids: HashMap<Arc<str>, ObjectId>,
}

impl Objects {
    /// No objects.
    pub fn new() -> Self {
        Self::default()
    }

    /// The id of `url`, which is added with size 0 if it is new.
    ///
    /// # Panics
    ///
    /// At 2^32 objects.
    pub fn intern(&mut self, url: &str) -> ObjectId {
        if let Some(&id) = self.ids.get(url) {
            return id;
        }
        let id = ObjectId(u32::try_from(self.list.len()).expect("fewer than 2^32 objects"));
        let url: Arc<str> = url.into();
        self.ids.insert(url.clone(), id);
        self.list.push(Object { url, size: 0 });
        id
    }

    /// The id of `url`, if it is here.
    pub fn find(&self, url: &str) -> Option<ObjectId> {
        self.ids.get(url).copied()
    }

    /// The object with this id, if there is one.
    pub fn get(&self, id: ObjectId) -> Option<&Object> {
        self.list.get(id.0 as usize)
    }

    /// Sets the size of an object in bytes; an id that is not here is ignored.
    pub fn set_size(&mut self, id: ObjectId, size: u64) {
        if let Some(object) = self.list.get_mut(id.0 as usize) {
            object.size = size;
        }
    }

    /// All objects with their ids, in the order of their ids.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (ObjectId, &Object)> {
        self.list.iter().enumerate().map(|(i, object)| (ObjectId(i as u32), object))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Bytes of all objects together.
    pub fn total_bytes(&self) -> u64 {
        self.list.iter().fold(0, |sum, object| sum.saturating_add(object.size))
    }
}

impl PartialEq for Objects {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for Objects {}

/// # Panics
///
/// If the id is of another trace.
impl std::ops::Index<ObjectId> for Objects {
    type Output = Object;

    fn index(&self, id: ObjectId) -> &Object {
        &self.list[id.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_interned_once() {
        let mut objects = Objects::new();
        let a = objects.intern("/a");
        let b = objects.intern("/b?x=1");
        assert_eq!(objects.intern("/a"), a);
        objects.set_size(a, 10);
        objects.set_size(b, 5);
        assert_eq!((objects.len(), objects.total_bytes()), (2, 15));
        assert_eq!(&*objects[b].url, "/b?x=1");
        assert_eq!(objects[b].name(), "/b");
        assert_eq!(objects.find("/c"), None);
    }

    #[test]
    fn a_target_is_fit_for_a_request_line() {
        for (url, expected) in [
            ("/a?b=c&d", "/a?b=c&d"),
            ("/a b\n\"é", "/a%20b%0A%22%C3%A9"),
            ("no slash", "/no%20slash"),
            ("", "/"),
            ("/100%25", "/100%25"),
        ] {
            assert_eq!(target(url), expected);
        }
    }
}
