//! What an origin serves: objects with sizes, and bodies that follow from their names.

use bytes::Bytes as Body;
use std::{borrow::Cow, collections::HashMap, ops::Range, sync::LazyLock};
use vibra_model::Bytes;
use xxhash_rust::xxh3::xxh3_64;

/// When every object was last modified: 1998-01-01 00:00:00 UTC, in seconds since 1970. It lies before every request
/// of the traces, so that their conditional requests find the object unchanged.
pub const LAST_MODIFIED: u64 = 883_612_800;

/// Bodies are cut from this text, each from a place of its own.
static TEXT: LazyLock<Body> = LazyLock::new(|| (0u64..1 << 15).flat_map(word).collect());

fn word(number: u64) -> [u8; 8] {
    xxh3_64(&number.to_le_bytes()).to_le_bytes()
}

/// Why a path cannot be served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path:?} is no path that can be served: {why}")]
pub struct PathError {
    path: String,
    why: &'static str,
}

/// The index of an object within its catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId(pub u32);

/// One thing to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its path as servers see it: percent-decoded, without query, single slashes.
    pub path: Box<[u8]>,
    /// The length of its body.
    pub size: Bytes,
    /// Where in the text its body begins.
    start: usize,
}

impl Object {
    /// Its entity tag, quoted, in the form that nginx gives it.
    pub fn etag(&self) -> String {
        format!("\"{LAST_MODIFIED:x}-{:x}\"", self.size.0)
    }

    /// The first bytes of `range` of its body: as many as are at hand without copying, at least one unless `range`
    /// is empty. `range` counts from the start of the body and may reach beyond its end.
    pub fn chunk(&self, range: Range<u64>) -> Body {
        let left = range.end.min(self.size.0).saturating_sub(range.start);
        let from = (self.start as u64 + range.start) % TEXT.len() as u64;
        let until = (from + left).min(TEXT.len() as u64);
        TEXT.slice(from as usize..until as usize)
    }
}

/// The objects of an origin, each path once.
///
/// ```
/// use vibra_agent::Catalogue;
/// use vibra_model::Bytes;
///
/// let catalogue = Catalogue::new([("/index.html", Bytes(5_000)), ("/a%20b", Bytes(7))]).unwrap();
/// let (_, object) = catalogue.find("/index.html?language=en").unwrap();
/// assert_eq!(object.size, Bytes(5_000));
/// assert_eq!(catalogue.total(), Bytes(5_007));
/// assert!(catalogue.find("/other").is_none());
/// ```
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    objects: Vec<Object>,
    ids: HashMap<Box<[u8]>, ObjectId>,
}

impl Catalogue {
    /// The catalogue of these paths and sizes. Queries are cut off: they do not name another object. Where a path
    /// comes twice, the larger size counts.
    ///
    /// # Errors
    /// [`PathError`] at the first path that cannot be served: one that does not begin with `/`, leaves the root, has
    /// a NUL byte or a broken percent escape.
    ///
    /// # Panics
    /// At 2^32 objects.
    pub fn new<P: AsRef<str>>(items: impl IntoIterator<Item = (P, Bytes)>) -> Result<Self, PathError> {
        let mut catalogue = Catalogue::default();
        for (path, size) in items {
            let path = normal(path.as_ref())?.into_owned().into_boxed_slice();
            match catalogue.ids.get(&path) {
                Some(id) => {
                    let object = &mut catalogue.objects[id.0 as usize];
                    object.size = object.size.max(size);
                }
                None => catalogue.insert(path, size),
            }
        }
        Ok(catalogue)
    }

    fn insert(&mut self, path: Box<[u8]>, size: Bytes) {
        let id = ObjectId(u32::try_from(self.objects.len()).expect("fewer than 2^32 objects"));
        let start = (xxh3_64(&path) % TEXT.len() as u64) as usize;
        self.ids.insert(path.clone(), id);
        self.objects.push(Object { path, size, start });
    }

    /// The object that a request target such as `/a%20b?c=d` asks for.
    pub fn find(&self, target: &str) -> Option<(ObjectId, &Object)> {
        let id = *self.ids.get(&*normal(target).ok()?)?;
        Some((id, self.object(id)))
    }

    /// The object with this id.
    ///
    /// # Panics
    /// Where the id is of another, larger catalogue.
    pub fn object(&self, id: ObjectId) -> &Object {
        &self.objects[id.0 as usize]
    }

    /// Every object, in the order in which they were first given.
    pub fn objects(&self) -> impl ExactSizeIterator<Item = &Object> {
        self.objects.iter()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// The size of all objects together.
    pub fn total(&self) -> Bytes {
        self.objects.iter().map(|object| object.size).sum()
    }

    /// A number that differs, but for chance, between catalogues of different paths or sizes.
    pub fn digest(&self) -> u64 {
        let lines =
            self.objects.iter().flat_map(|object| [&*object.path, b"\0", &object.size.0.to_le_bytes()].concat());
        xxh3_64(&lines.collect::<Vec<u8>>())
    }
}

/// The path of a request target as servers see it.
fn normal(target: &str) -> Result<Cow<'_, [u8]>, PathError> {
    let path = target.split(['?', '#']).next().unwrap_or_default();
    let refuse = |why| Err(PathError { path: path.to_owned(), why });
    if !path.starts_with('/') {
        return refuse("it does not begin with '/'");
    }
    let Some(path) = decoded(path.as_bytes()) else { return refuse("a '%' is not followed by two hex digits") };
    if path.contains(&0) {
        return refuse("it has a NUL byte");
    }
    if path.split(|&c| c == b'/').any(|part| part == b"." || part == b"..") {
        return refuse("it has a '.' or '..' part");
    }
    if path.windows(2).all(|pair| pair != b"//") {
        return Ok(path);
    }
    let mut single = path.into_owned();
    single.dedup_by(|a, b| (*a, *b) == (b'/', b'/'));
    Ok(single.into())
}

/// Resolves percent escapes; `None` if one is broken.
fn decoded(path: &[u8]) -> Option<Cow<'_, [u8]>> {
    if !path.contains(&b'%') {
        return Some(path.into());
    }
    let hex = |digit: u8| Some((digit as char).to_digit(16)? as u8);
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path.iter();
    while let Some(&byte) = rest.next() {
        plain.push(match byte {
            b'%' => hex(*rest.next()?)? << 4 | hex(*rest.next()?)?,
            byte => byte,
        });
    }
    Some(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(object: &Object, range: Range<u64>) -> Vec<u8> {
        let mut body = Vec::new();
        while (body.len() as u64) < range.end - range.start {
            let chunk = object.chunk(range.start + body.len() as u64..range.end);
            assert!(!chunk.is_empty());
            body.extend_from_slice(&chunk);
        }
        body
    }

    #[test]
    fn a_body_follows_from_the_name_and_its_parts_fit() {
        let make = || Catalogue::new([("/a", Bytes(700_000)), ("/b", Bytes(700_000))]).unwrap();
        let (first, second) = (make(), make());
        let (a, b) = (first.find("/a").unwrap().1, first.find("/b").unwrap().1);
        let body = whole(a, 0..700_000);
        assert_eq!(body, whole(second.find("/a").unwrap().1, 0..700_000));
        assert_ne!(body, whole(b, 0..700_000));
        assert_eq!(whole(a, 300_000..650_000), body[300_000..650_000]);
        assert!(a.chunk(700_000..700_001).is_empty());
    }

    #[test]
    fn names_are_seen_as_servers_see_them() {
        let catalogue = Catalogue::new([("/x//y?q", Bytes(1)), ("/x/y", Bytes(3)), ("/%41%20", Bytes(2))]).unwrap();
        assert_eq!(catalogue.len(), 2);
        for (target, size) in [("/x/y", 3), ("/x//y?other", 3), ("/x/%79#part", 3), ("/A%20", 2)] {
            assert_eq!(catalogue.find(target).unwrap().1.size, Bytes(size), "{target}");
        }
        assert!(catalogue.find("/x/y/").is_none());
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        for bad in ["", "a", "/../a", "/a/%2e%2E/b", "/%00", "/%4", "/%zz", "http://a/b"] {
            assert!(Catalogue::new([(bad, Bytes(1))]).is_err(), "{bad:?}");
            assert!(Catalogue::default().find(bad).is_none());
        }
    }

    #[test]
    fn the_digest_tells_catalogues_apart() {
        let digest = |path, size| Catalogue::new([(path, Bytes(size))]).unwrap().digest();
        assert_eq!(digest("/a", 1), digest("/a", 1));
        assert_ne!(digest("/a", 1), digest("/a", 2));
        assert_ne!(digest("/a", 1), digest("/b", 1));
    }
}
