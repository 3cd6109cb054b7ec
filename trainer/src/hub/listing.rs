//! What a branch stands for, and what files a commit has.

use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

use serde::Deserialize;

use super::address::Address;
use super::error::Trouble;
use super::retry::Retry;
use super::{Hub, HubError, HubFile, named, names};

/// Bytes of the longest answer that is read: a thousand files of a page take 300 KB, the names of all files of a data set some megabytes.
const LONGEST_ANSWER: usize = 64 << 20;
/// Pages without a file, in a row, that a listing may have.
const EMPTY_PAGES: usize = 100;

/// A data set at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Commit {
    /// The data set, as it was asked for.
    pub dataset: String,
    /// The commit: 40 hexadecimal digits.
    pub sha: String,
}

/// A file of a data set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its path in the data set.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes in lower-case hexadecimal; the Hub knows it of large files.
    pub sha256: Option<String>,
}

impl Commit {
    /// A file of this commit, as [`Hub::download`] gets it.
    pub fn file(&self, entry: Entry) -> HubFile {
        HubFile {
            dataset: self.dataset.clone(),
            revision: self.sha.clone(),
            path: entry.path,
            bytes: entry.bytes,
            sha256: entry.sha256,
        }
    }
}

/// One page of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its files, in the server's order.
    pub files: Vec<Entry>,
    /// Its folders.
    pub folders: Vec<String>,
    /// Where the next page is; an address that [`Hub::pages`] takes.
    pub next: Option<String>,
}

/// What the Hub says of a data set; the rest is passed over.
#[derive(Deserialize)]
struct Info {
    sha: String,
}

/// What the Hub says of an entry; the rest is passed over.
#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl Hub {
    /// The commit that a branch, tag or commit stands for now.
    ///
    /// # Errors
    /// [`HubError`]: names that are none, what the Hub refuses, what does not pass.
    pub fn dataset(&self, id: &str, revision: &str) -> crate::Result<Commit> {
        names::check_dataset(id)?;
        names::check_revision(revision)?;
        let path = format!("api/datasets/{}/revision/{}", names::path(id), names::part(revision));
        let address = self.address(&path)?;
        let (_, body) = self.fetch(id, &address).map_err(|error| named(error, revision, ""))?;
        let info: Info = understood(&address, &body)?;
        if !names::is_commit(&info.sha) {
            let what = format!("the commit is {:?}, expected 40 hexadecimal digits", info.sha);
            return Err(answer(&address, what).into());
        }
        Ok(Commit {
            dataset: id.into(),
            sha: info.sha,
        })
    }

    /// All files below `folder` (`None`: of the data set) at a commit, in the server's order, a page at a time.
    ///
    /// # Errors
    /// As iterator items, of which an error is the last: [`HubError`], also for pages that never end and for files outside the folder.
    pub fn list<'a>(&'a self, id: &str, commit: &str, folder: Option<&str>) -> Listing<'a> {
        let first = self.first_page(id, commit, folder, true);
        Listing {
            pages: self.pages(id, folder, first),
            ready: Vec::new().into_iter(),
        }
    }

    /// The folders directly in `folder` at a commit, in the server's order.
    ///
    /// # Errors
    /// As those of [`Hub::list`].
    pub fn folders(&self, id: &str, commit: &str, folder: &str) -> crate::Result<Vec<String>> {
        let first = self.first_page(id, commit, Some(folder), false);
        let mut all = Vec::new();
        for page in self.pages(id, Some(folder), first) {
            all.extend(page?.folders);
        }
        Ok(all)
    }

    /// The pages of a listing of `folder` from an address on that [`Hub::first_page`] or an earlier page gave.
    pub fn pages<'a>(&'a self, id: &str, folder: Option<&str>, first: crate::Result<String>) -> Pages<'a> {
        Pages {
            hub: self,
            dataset: id.into(),
            folder: folder.map(str::to_string),
            next: Some(first),
            seen: HashSet::new(),
            empty: 0,
        }
    }

    /// The address of the first page of a listing of `folder`, with or without what is below its folders.
    ///
    /// # Errors
    /// [`HubError::Name`].
    pub fn first_page(&self, id: &str, commit: &str, folder: Option<&str>, recursive: bool) -> crate::Result<String> {
        names::check_dataset(id)?;
        names::check_commit(commit)?;
        let mut path = format!("api/datasets/{}/tree/{commit}", names::path(id));
        if let Some(folder) = folder {
            names::check_path(folder)?;
            path = format!("{path}/{}", names::path(folder));
        }
        let path = format!("{path}?recursive={recursive}&expand=false");
        Ok(self.address(&path)?.as_str().to_string())
    }

    /// A page of a listing of `folder`, at an address that [`Hub::first_page`] or the page before gave.
    ///
    /// # Errors
    /// [`HubError`]; an address that is not the Hub's is refused, because the token would go there.
    pub fn page(&self, id: &str, folder: Option<&str>, address: &str) -> crate::Result<Page> {
        let address = Address::parse(address).map_err(|what| HubError::Answer {
            address: self.endpoint.shown(),
            what: format!("the address of a page: {what}"),
        })?;
        self.check_own(&address, &address)?;
        let (next, body) = self
            .fetch(id, &address)
            .map_err(|error| named(error, "as given", folder.unwrap_or("file")))?;
        let items: Vec<Item> = understood(&address, &body)?;
        let mut page = Page {
            files: Vec::new(),
            folders: Vec::new(),
            next: None,
        };
        for item in items {
            let inside = folder.is_none_or(|f| item.path.strip_prefix(f).is_some_and(|rest| rest.starts_with('/')));
            if !inside || !names::is_plain_path(&item.path) {
                return Err(answer(&address, format!("it lists {:?}, which lies outside", item.path)).into());
            }
            match (item.kind.as_str(), item.lfs) {
                ("directory", _) => page.folders.push(item.path),
                ("file", Some(lfs)) if !names::is_sha256(&lfs.oid) => {
                    return Err(answer(&address, format!("the checksum of {:?} is {:?}", item.path, lfs.oid)).into());
                }
                ("file", lfs) => page.files.push(Entry {
                    path: item.path,
                    bytes: lfs.as_ref().map_or(item.size, |lfs| lfs.size),
                    sha256: lfs.map(|lfs| lfs.oid),
                }),
                (kind, _) => return Err(answer(&address, format!("it lists {:?} as a {kind:?}", item.path)).into()),
            }
        }
        if let Some(next) = next {
            let next = address
                .join(&next)
                .map_err(|e| answer(&address, format!("the next page: {e}")))?;
            self.check_own(&address, &next)?;
            page.next = Some(next.as_str().to_string());
        }
        Ok(page)
    }

    /// Refuses an address that the token must not go to.
    fn check_own(&self, at: &Address, next: &Address) -> Result<(), HubError> {
        if next.origin() == self.endpoint.origin() {
            return Ok(());
        }
        Err(answer(
            at,
            format!("the next page is at another host ({})", next.shown()),
        ))
    }

    /// The body at an address of the Hub, and where the next page is; what may pass is tried again.
    fn fetch(&self, dataset: &str, address: &Address) -> Result<(Option<String>, Vec<u8>), HubError> {
        let mut retry = Retry::new(&self.options, address.shown());
        let go = AtomicBool::new(false);
        loop {
            let outcome = self.ask(dataset, address, 0, &go).and_then(|mut answer| {
                let links = answer.headers.get_all("Link").iter();
                let next = links.filter_map(|link| link.to_str().ok()).find_map(next_page);
                Ok::<_, Trouble>((next, answer.whole(LONGEST_ANSWER, &go)?))
            });
            match outcome {
                Ok(found) => return Ok(found),
                Err(trouble) => retry.again(trouble, &go)?,
            }
        }
    }
}

fn answer(address: &Address, what: String) -> HubError {
    HubError::Answer {
        address: address.shown(),
        what,
    }
}

fn understood<'a, T: Deserialize<'a>>(address: &Address, body: &'a [u8]) -> Result<T, HubError> {
    serde_json::from_slice(body).map_err(|e| answer(address, format!("the answer is not what a Hub says ({e})")))
}

/// The address with `rel="next"` in a `Link` header (RFC 8288), exactly as it stands there.
fn next_page(header: &str) -> Option<String> {
    let mut rest = header;
    loop {
        let (target, behind) = rest.split_once('<')?.1.split_once('>')?;
        // Parameters reach to the next comma that is not in quotes.
        let mut link = unquoted(behind, ',');
        let parameters = link.next()?;
        let is_next = unquoted(parameters, ';').any(|parameter| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                let mut kinds = value.trim().trim_matches('"').split_whitespace();
                name.trim().eq_ignore_ascii_case("rel") && kinds.any(|kind| kind.eq_ignore_ascii_case("next"))
            })
        });
        if is_next {
            return Some(target.to_string());
        }
        rest = &behind[parameters.len()..];
    }
}

/// `text` divided at `separator` where that is not in quotes.
fn unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut quoted = false;
    text.split(move |c| {
        quoted ^= c == '"';
        c == separator && !quoted
    })
}

/// Pages of a listing, in order, with what makes one endless refused. After an error there is none.
pub struct Pages<'a> {
    hub: &'a Hub,
    dataset: String,
    folder: Option<String>,
    next: Option<crate::Result<String>>,
    seen: HashSet<String>,
    empty: usize,
}

impl Pages<'_> {
    fn turn(&mut self, address: crate::Result<String>) -> crate::Result<Page> {
        let address = address?;
        let page = self.hub.page(&self.dataset, self.folder.as_deref(), &address)?;
        self.check(&address, &page)?;
        self.next = page.next.clone().map(Ok);
        Ok(page)
    }

    /// Refuses pages that never end: what was there before, nothing again and again, or more than there may be.
    fn check(&mut self, address: &str, page: &Page) -> Result<(), HubError> {
        let problem = |what| HubError::Answer {
            address: address.split('?').next().unwrap_or_default().into(),
            what,
        };
        let before = self.seen.len();
        for path in page.files.iter().map(|file| &file.path).chain(&page.folders) {
            if !self.seen.insert(path.clone()) {
                return Err(problem(format!("it lists {path:?} twice")));
            }
        }
        self.empty = if self.seen.len() == before { self.empty + 1 } else { 0 };
        if self.empty > EMPTY_PAGES {
            return Err(problem(format!("{EMPTY_PAGES} pages in a row list nothing")));
        }
        let most = self.hub.options.most_files;
        if self.seen.len() > most {
            return Err(problem(format!("it lists more than {most} files")));
        }
        Ok(())
    }
}

impl Iterator for Pages<'_> {
    type Item = crate::Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        let address = self.next.take()?;
        Some(self.turn(address))
    }
}

/// The files of a listing; see [`Hub::list`].
pub struct Listing<'a> {
    pages: Pages<'a>,
    ready: std::vec::IntoIter<Entry>,
}

impl Iterator for Listing<'_> {
    type Item = crate::Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.ready.next() {
                return Some(Ok(entry));
            }
            match self.pages.next()? {
                Ok(page) => self.ready = page.files.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::next_page;

    #[test]
    fn the_next_page_is_found_among_links() {
        for (header, expected) in [
            (r#"<https://h/a?c=1>; rel="next""#, Some("https://h/a?c=1")),
            (r#"<https://h/a,b>; rel=next"#, Some("https://h/a,b")),
            (
                r#"<https://h/x>; rel="xet-auth", <https://h/a>; rel="next""#,
                Some("https://h/a"),
            ),
            (
                r#"<https://h/x>; title="a, <b>; rel=next"; rel="prev", <https://h/y>; Rel="last NEXT""#,
                Some("https://h/y"),
            ),
            (r#"<https://h/x>; rel="prev""#, None),
            (r#"<https://h/x>; rel="nextish""#, None),
            (r#"<https://h/x"#, None),
            ("", None),
        ] {
            assert_eq!(next_page(header).as_deref(), expected, "{header}");
        }
    }
}
