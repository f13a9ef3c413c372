//! The eight hot files.

use super::minute::{Response, Site};
use super::{HOT, facts};

/// Responses for the hot files in a minute with so many bytes. Their bytes are met to within half an object each.
pub(super) fn responses(site: &Site, bytes: u64) -> Vec<Response> {
    let mut responses = Vec::new();
    for (id, entry) in site.hot() {
        let percent: f64 = HOT.iter().zip(facts::HOT_BYTES).filter(|(url, _)| **url == entry.url).map(|(_, p)| p).sum();
        let delivered = (percent / 100.0 * bytes as f64 / entry.size as f64).round();
        let not_modified = site.not_modified(entry);
        let validated = (delivered * not_modified / (1.0 - not_modified)).round();
        responses.extend(std::iter::repeat_n(Response::whole(id, entry), delivered as usize));
        responses.extend(std::iter::repeat_n(Response::not_modified(id), validated as usize));
    }
    responses
}
