//! What decoders gather beside their records.

use crate::format::{Record, Sizes};
use crate::{Method, Objects};
use std::collections::HashMap;

/// Objects with their sizes, and clients by name.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) objects: Objects,
    /// By object: whether its size was seen in a response that has the whole of it.
    whole: Vec<bool>,
    clients: HashMap<Box<str>, u32>,
}

impl Tables {
    /// The number of the client of this name: they are counted from 0 as they appear.
    pub(crate) fn client(&mut self, name: &str) -> u32 {
        if let Some(&client) = self.clients.get(name) {
            return client;
        }
        let client = self.clients.len() as u32;
        self.clients.insert(name.into(), client);
        client
    }

    /// Learns the size of a record's object: the largest body of a 200 response to GET (or of one whose status is not
    /// logged); before the first of these, of a 206.
    pub(crate) fn learn(&mut self, record: &Record, sizes: Sizes) {
        let (Sizes::Logged, Method::Get, Some(bytes)) = (sizes, record.method, record.bytes.get()) else { return };
        let whole = match record.status {
            200 | 0 => true,
            206 => false,
            _ => return,
        };
        let index = record.object.0 as usize;
        if self.whole.len() <= index {
            self.whole.resize(self.objects.len(), false);
        }
        let known = self.objects[record.object].size;
        let replaces = if whole == self.whole[index] { bytes > known } else { whole };
        if replaces {
            self.objects.set_size(record.object, bytes);
        }
        self.whole[index] |= whole;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ObjectId;

    fn sizes(responses: &[(Method, u16, Option<u64>)]) -> u64 {
        let mut tables = Tables::default();
        let object = tables.objects.intern("/a");
        for &(method, status, bytes) in responses {
            let record = Record { offset: 0, time: 0, client: 0, object, bytes: bytes.into(), method, status };
            tables.learn(&record, Sizes::Logged);
        }
        tables.objects[ObjectId(0)].size
    }

    #[test]
    fn the_largest_whole_body_is_the_size() {
        use Method::{Get, Head};
        assert_eq!(sizes(&[(Get, 200, Some(5)), (Get, 200, Some(9)), (Get, 200, Some(7))]), 9);
        assert_eq!(sizes(&[(Get, 206, Some(99)), (Get, 200, Some(9)), (Get, 206, Some(20))]), 9);
        assert_eq!(sizes(&[(Get, 206, Some(3)), (Get, 206, Some(4))]), 4);
        assert_eq!(sizes(&[(Get, 404, Some(3)), (Head, 200, Some(4)), (Get, 200, None), (Get, 304, Some(0))]), 0);
    }

    #[test]
    fn clients_are_numbered() {
        let mut tables = Tables::default();
        assert_eq!(["a", "b", "a"].map(|name| tables.client(name)), [0, 1, 0]);
    }
}
