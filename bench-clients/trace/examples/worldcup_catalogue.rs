//! Makes the catalogue of the World Cup site's objects from which its window is reconstructed
//! (`data/worldcup98/catalogue.tsv`), out of the Internet Traffic Archive's files:
//!
//! ```text
//! worldcup_catalogue OBJECT_MAP WC_DAY50_4_HEAD WC_DAY6_1_SAMPLE_CSV > catalogue.tsv
//! ```
//!
//! It takes what a server of static files can serve, that is, well-formed paths without a query:
//!
//! 1. the eight hot files of section 3.5.1,
//! 2. objects that were delivered in the sample of the evening of 1998-06-14, with their requests and sizes there,
//! 3. objects that were delivered in the sample of 1998-05-01, with their sizes then,
//! 4. up to [`COLUMN`] objects for each of Charsum's four sub-namespaces: those that the log met first, up to the day of
//!    the window, and that exist in both languages of the site, so that few mistyped ones are among them. Their sizes
//!    are not known.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::error::Error;
use std::path::Path;
use vibra_trace::generate::worldcup::{HOT, charsum};
use vibra_trace::{Options, Reader};

/// Candidates for each sub-namespace; Table 3.1 has at most 1,187 distinct objects in one.
const COLUMN: usize = 1300;

/// The last object that the log met on the day of the window (`Max Object ID` of the archive's summary of
/// `wc_day66_8`, in which the window lies).
const LAST_OBJECT: u32 = 77_734;

/// Files that the site had; a URL with another ending is seldom one.
const ENDINGS: [&str; 18] = [
    ".htm", ".html", ".gif", ".GIF", ".jpg", ".jpeg", ".class", ".js", ".swf", ".zip", ".hqx", ".mov", ".tif", ".mpg",
    ".au", ".wav", ".css", ".txt",
];

#[derive(Default)]
struct Entry {
    size: Option<u64>,
    requests: u64,
    not_modified: u64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [map, evening, day] = arguments.as_slice() else {
        return Err("usage: worldcup_catalogue OBJECT_MAP WC_DAY50_4_HEAD WC_DAY6_1_SAMPLE_CSV".into());
    };
    let numbers = numbers(&std::fs::read(map)?);
    let mut entries: BTreeMap<u32, (String, Entry)> = BTreeMap::new();
    for (url, entry) in evening_sample(Path::new(evening), Path::new(map))? {
        if let Some(&number) = numbers.get(&url).filter(|_| servable(&url)) {
            entries.insert(number, (url, entry));
        }
    }
    for (url, size) in day_sample(&std::fs::read(day)?) {
        if let Some(&number) = numbers.get(&url).filter(|_| servable(&url)) {
            let (_, entry) = entries.entry(number).or_insert((url, Entry::default()));
            entry.size = entry.size.or(Some(size));
        }
    }
    for url in HOT {
        let &number = numbers.get(url).ok_or_else(|| format!("the map lacks {url}"))?;
        entries.entry(number).or_insert((url.to_owned(), Entry::default()));
    }
    add_unsampled(&numbers, &mut entries);
    for (number, (url, entry)) in &entries {
        let size = entry.size.map_or("-".into(), |size| size.to_string());
        println!("{number}\t{size}\t{}\t{}\t{url}", entry.requests, entry.not_modified);
    }
    Ok(())
}

fn add_unsampled(numbers: &HashMap<String, u32>, entries: &mut BTreeMap<u32, (String, Entry)>) {
    let mut columns = [0; 4];
    for (url, _) in entries.values() {
        columns[charsum(url) % 4] += 1;
    }
    let mut others: Vec<(&String, u32)> = numbers.iter().map(|(url, &number)| (url, number)).collect();
    others.sort_by_key(|&(_, number)| number);
    for (url, number) in others {
        let column = &mut columns[charsum(url) % 4];
        let twin = twin(url).is_some_and(|twin| numbers.get(&twin).is_some_and(|&number| number <= LAST_OBJECT));
        let fits = twin && number <= LAST_OBJECT && servable(url) && !entries.contains_key(&number);
        if fits && *column < COLUMN {
            *column += 1;
            entries.insert(number, (url.clone(), Entry::default()));
        }
    }
}

/// The page or image of the same name in the site's other language.
fn twin(url: &str) -> Option<String> {
    let english = url.strip_prefix("/english/").map(|rest| format!("/french/{rest}"));
    english.or_else(|| url.strip_prefix("/french/").map(|rest| format!("/english/{rest}")))
}

fn servable(url: &str) -> bool {
    let path = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+~".contains(&byte);
    // "/" is left out: to a server of files it is another name of its index.
    let known = ENDINGS.iter().any(|ending| url.ends_with(ending));
    // A path with `..` in it names a file that has another name, too; one below a file names none.
    let plain = !url.contains("//") && !url.contains("/../") && !url.contains("/./") && !url.contains(".html/");
    url.starts_with('/') && url.bytes().all(path) && known && plain
}

/// Numbers of the objects by URL; of a URL that is there twice, the first. URLs with line breaks are left out.
fn numbers(map: &[u8]) -> HashMap<String, u32> {
    let mut numbers = HashMap::new();
    for line in map.split(|&byte| byte == b'\n') {
        let entry = std::str::from_utf8(line).ok().and_then(|line| line.trim_start().split_once(' '));
        if let Some((Ok(number), url)) = entry.map(|(number, url)| (number.parse(), url)) {
            numbers.entry(url.to_owned()).or_insert(number);
        }
    }
    numbers
}

/// The objects that were delivered in the evening sample.
fn evening_sample(log: &Path, map: &Path) -> Result<Vec<(String, Entry)>, vibra_trace::Error> {
    let options = Options { object_map: Some(map.into()), ..Options::default() };
    let (trace, _) = Reader::open(log, &options)?.read_all();
    let mut entries: Vec<(String, Entry)> = (trace.objects.iter())
        .map(|(_, object)| {
            (object.url.to_string(), Entry { size: Some(object.size).filter(|&size| size > 0), ..Entry::default() })
        })
        .collect();
    for request in &trace.requests {
        let (_, entry) = &mut entries[request.object.0 as usize];
        match request.status {
            200 | 206 => entry.requests += 1,
            304 => {
                entry.requests += 1;
                entry.not_modified += 1;
            }
            _ => {}
        }
    }
    entries.retain(|(_, entry)| entry.requests > 0);
    Ok(entries)
}

/// The objects that were delivered in the day sample, with their sizes: lines `client,date,time,url,status,size`.
fn day_sample(csv: &[u8]) -> HashMap<String, u64> {
    let mut sizes: HashMap<String, u64> = HashMap::new();
    let mut seen = HashSet::new();
    for line in csv.split(|&byte| byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok()) {
        let fields: Vec<&str> = line.trim_end().split(',').collect();
        let [_, _, _, url, "200", size] = fields.as_slice() else { continue };
        let Ok(size) = size.parse::<u64>() else { continue };
        if size > 0 && seen.insert((*url, size)) {
            let known = sizes.entry((*url).to_owned()).or_default();
            *known = size.max(*known);
        }
    }
    sizes
}
