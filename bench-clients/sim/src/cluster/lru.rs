//! What was used when: objects in the order of their last use.

/// No entry.
const NONE: u32 = u32::MAX;

/// Objects, each with a value, from the most to the least recently used. Every operation takes constant time; memory
/// grows with the objects that are in it, and by four bytes for each number up to the largest that ever was.
#[derive(Debug, Clone)]
pub(super) struct Lru<V> {
    /// By object: its entry, or [`NONE`].
    places: Vec<u32>,
    entries: Vec<Entry<V>>,
    newest: u32,
    oldest: u32,
    /// A list of entries to be taken again, by `older`.
    vacant: u32,
}

#[derive(Debug, Clone)]
struct Entry<V> {
    object: u32,
    newer: u32,
    older: u32,
    value: V,
}

impl<V: Copy> Lru<V> {
    pub(super) fn new() -> Self {
        Lru { places: Vec::new(), entries: Vec::new(), newest: NONE, oldest: NONE, vacant: NONE }
    }

    /// Notes a use of `object`; its value, or `None` if it is not here.
    #[inline]
    pub(super) fn touch(&mut self, object: u32) -> Option<V> {
        let place = *self.places.get(object as usize)?;
        if place == NONE {
            return None;
        }
        if place != self.newest {
            self.unlink(place);
            self.link(place);
        }
        Some(self.entries[place as usize].value)
    }

    /// Puts `object` in as just used; returns the value that it had.
    pub(super) fn put(&mut self, object: u32, value: V) -> Option<V> {
        if let Some(before) = self.touch(object) {
            self.entries[self.newest as usize].value = value;
            return Some(before);
        }
        let entry = Entry { object, newer: NONE, older: NONE, value };
        let place = if self.vacant == NONE {
            self.entries.push(entry);
            self.entries.len() as u32 - 1
        } else {
            let place = self.vacant;
            self.vacant = self.entries[place as usize].older;
            self.entries[place as usize] = entry;
            place
        };
        if object as usize >= self.places.len() {
            self.places.resize(object as usize + 1, NONE);
        }
        self.places[object as usize] = place;
        self.link(place);
        None
    }

    /// The least recently used, with its value.
    pub(super) fn oldest(&self) -> Option<(u32, V)> {
        let oldest = self.entries.get(self.oldest as usize)?;
        Some((oldest.object, oldest.value))
    }

    /// Takes the least recently used out.
    pub(super) fn pop_oldest(&mut self) -> Option<(u32, V)> {
        let (object, value) = self.oldest()?;
        let place = self.oldest;
        self.unlink(place);
        self.places[object as usize] = NONE;
        self.entries[place as usize].older = self.vacant;
        self.vacant = place;
        Some((object, value))
    }

    fn link(&mut self, place: u32) {
        let before = self.newest;
        let entry = &mut self.entries[place as usize];
        (entry.newer, entry.older) = (NONE, before);
        match before {
            NONE => self.oldest = place,
            _ => self.entries[before as usize].newer = place,
        }
        self.newest = place;
    }

    fn unlink(&mut self, place: u32) {
        let Entry { newer, older, .. } = self.entries[place as usize];
        match newer {
            NONE => self.newest = older,
            _ => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            _ => self.entries[older as usize].newer = newer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn is_a_list_in_order_of_use(steps in prop::collection::vec((0u32..12, 0u8..4), 0..200)) {
            let mut lru = Lru::new();
            // The most recently used last.
            let mut list: Vec<(u32, u8)> = Vec::new();
            for (object, step) in steps {
                let known = list.iter().position(|(other, _)| *other == object);
                match step {
                    0 => {
                        let oldest = if list.is_empty() { None } else { Some(list.remove(0)) };
                        prop_assert_eq!(lru.pop_oldest(), oldest);
                    }
                    1 => {
                        let found = known.map(|place| list.remove(place));
                        list.extend(found);
                        prop_assert_eq!(lru.touch(object), found.map(|(_, value)| value));
                    }
                    _ => {
                        let before = known.map(|place| list.remove(place).1);
                        list.push((object, step));
                        prop_assert_eq!(lru.put(object, step), before);
                    }
                }
                prop_assert_eq!(lru.oldest(), list.first().copied());
            }
        }
    }
}
