//! The eight hot files: how many bytes of the window each of them has.

use super::catalogue::Entry;
use super::minute::{Response, Site};
use super::{HOT, HOT_COLUMN, facts};
use crate::ObjectId;

/// Responses for the hot files in a minute with so many bytes. Their bytes are met to within half an object each.
pub(super) fn responses(site: &Site, bytes: u64) -> Vec<Response> {
    let mut responses = Vec::new();
    for (id, share) in shares(site) {
        let entry = site.entry(id);
        let delivered = (share * bytes as f64 / entry.size as f64).round();
        let not_modified = site.not_modified(entry);
        let validated = (delivered * not_modified / (1.0 - not_modified)).round();
        responses.extend(std::iter::repeat_n(Response::whole(id, entry), delivered as usize));
        responses.extend(std::iter::repeat_n(Response::not_modified(id), validated as usize));
    }
    responses
}

/// Part of all bytes of the window that each hot file has.
fn shares(site: &Site) -> Vec<(ObjectId, f64)> {
    let delivered = |entry: &Entry| ((entry.requests - entry.not_modified) * entry.size) as f64;
    let sampled = |url: &str| site.hot().find(|(_, entry)| entry.url == url).map_or(0.0, |(_, entry)| delivered(entry));
    let [english, french] = [HOT[0], HOT[1]].map(sampled);
    let of_sample = |entry: &Entry| facts::SPLASH_SHARE * delivered(entry) / english;
    let is_page = |entry: &Entry| entry.url.contains("/match");
    let all = facts::HOT_SHARE * facts::BYTES[HOT_COLUMN] as f64 / 100.0;
    let pages = all - site.hot().filter(|(_, entry)| !is_page(entry)).map(|(_, entry)| of_sample(entry)).sum::<f64>();
    let share = |entry: &Entry| match entry.url {
        url if !is_page(entry) => facts::SPLASH_SHARE * sampled(url) / english,
        url if url.starts_with("/english/") => pages / 2.0 * english / (english + french),
        _ => pages / 2.0 * french / (english + french),
    };
    site.hot().map(|(id, entry)| (id, share(entry))).collect()
}
