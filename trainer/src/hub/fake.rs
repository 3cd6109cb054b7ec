//! A Hub on this machine, for tests: the part of the protocol that the client uses, a second port that large files are redirected to, and faults when they are wanted.
//!
//! It answers one request a connection and keeps a log of what was asked, and with which token. The command's tests take this file too (`cli/tests/hub.rs`), so it needs
//! nothing of this crate.
#![allow(dead_code, reason = "each crate's tests use a part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The commit that its branches stand for, until another is set.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A request, as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Path and query, encoded.
    pub path: String,
    /// The first byte that `Range` asks for.
    pub from: Option<u64>,
    /// The token, if one came.
    pub token: Option<String>,
    /// Whether the second port was asked.
    pub elsewhere: bool,
    /// Its number, from 0.
    pub number: usize,
}

impl Asked {
    /// Whether a file's bytes are asked for, or where they are.
    pub fn is_file(&self) -> bool {
        self.elsewhere || self.path.contains("/resolve/")
    }
}

/// What goes wrong with an answer. The body's faults are of the answer that holds the bytes.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Another answer: status, headers (name, value), body.
    Answer(u16, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection is closed instead of an answer.
    Closed,
    /// The connection is closed after so many bytes of the body.
    Cut(usize),
    /// After so many bytes of the body nothing comes any more.
    Hang(usize),
    /// So many bytes at a time, with a pause before each.
    Drip(usize, Duration),
    /// The last byte that is sent is another.
    Wrong,
    /// The file has so many bytes more.
    Longer(usize),
    /// The file lacks so many bytes at its end.
    Shorter(usize),
    /// The body's length is not told, and there are so many bytes more.
    Unannounced(usize),
    /// `Range` is passed over.
    Whole,
    /// `Range` is passed over, and the connection closed after so many bytes.
    WholeCut(usize),
}

type Script = Box<dyn FnMut(&Asked) -> Option<Fault> + Send>;

/// What the Hub has and does.
pub struct Contents {
    /// The name of its one data set.
    pub dataset: String,
    /// The commit of every branch.
    pub commit: String,
    /// Files by their paths; those that end in `.parquet` are large ones.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The token that is needed, if one is.
    pub token: Option<String>,
    /// Entries a page.
    pub page: usize,
    script: Script,
    log: Vec<Asked>,
    hung: bool,
}

impl Contents {
    /// Whether a [`Fault::Hang`] has sent all that it sends, since the script was given.
    pub fn hung(&self) -> bool {
        self.hung
    }
}

/// The Hub; it ends when it is dropped.
pub struct FakeHub {
    contents: Arc<Mutex<Contents>>,
    over: Arc<AtomicBool>,
    ports: [u16; 2],
}

impl FakeHub {
    /// A Hub with a data set of these files, open to everybody.
    ///
    /// # Panics
    /// If the machine has no free port.
    pub fn start(dataset: &str, files: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        let contents = Arc::new(Mutex::new(Contents {
            dataset: dataset.into(),
            commit: COMMIT.into(),
            files: files.into_iter().collect(),
            token: None,
            page: 2,
            script: Box::new(|_| None),
            log: Vec::new(),
            hung: false,
        }));
        let over = Arc::new(AtomicBool::new(false));
        let listeners = [0, 1].map(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port"));
        let ports = [0, 1].map(|i: usize| listeners[i].local_addr().expect("it is bound").port());
        for (i, listener) in listeners.into_iter().enumerate() {
            let (contents, over) = (contents.clone(), over.clone());
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let Ok(stream) = stream else { continue };
                    let connection = Connection {
                        contents: contents.clone(),
                        over: over.clone(),
                        elsewhere: i == 1,
                        ports,
                    };
                    // A client that has gone is its own business.
                    std::thread::spawn(move || connection.serve(stream));
                }
            });
        }
        Self { contents, over, ports }
    }

    /// Its address.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    /// The address of its second port, another origin.
    pub fn elsewhere(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[1])
    }

    /// What it has, to look at or to change.
    pub fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Decides from here on what goes wrong, request by request.
    pub fn script(&self, script: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
        let mut contents = self.contents();
        contents.script = Box::new(script);
        contents.hung = false;
    }

    /// What was asked so far.
    pub fn log(&self) -> Vec<Asked> {
        self.contents().log.clone()
    }
}

impl Drop for FakeHub {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for port in self.ports {
            // Only to wake it.
            let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, port));
        }
    }
}

struct Connection {
    contents: Arc<Mutex<Contents>>,
    over: Arc<AtomicBool>,
    elsewhere: bool,
    ports: [u16; 2],
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body: body.into(),
        }
    }

    fn refusal(status: u16, code: &str, message: &str) -> Self {
        Self::new(status, json!({ "error": message }).to_string())
            .with("X-Error-Code", code)
            .with("X-Error-Message", message)
    }

    fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Connection {
    fn serve(self, mut stream: TcpStream) -> Option<()> {
        let mut asked = self.read(&stream)?;
        let (response, fault) = {
            let mut contents = self.contents.lock().unwrap_or_else(PoisonError::into_inner);
            asked.number = contents.log.len();
            contents.log.push(asked.clone());
            let fault = (contents.script)(&asked);
            (self.answer(&contents, &asked, fault.as_ref()), fault)
        };
        let mut response = match &fault {
            Some(Fault::Closed) => return None,
            Some(Fault::Answer(status, headers, body)) => Response {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
            },
            _ => response,
        };
        if let (Some(Fault::Wrong), Some(last)) = (&fault, response.body.last_mut()) {
            *last ^= 1;
        }
        let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", response.status);
        for (name, value) in &response.headers {
            head += &format!("{name}: {value}\r\n");
        }
        if !matches!(fault, Some(Fault::Unannounced(_))) {
            head += &format!("Content-Length: {}\r\n", response.body.len());
        }
        stream.write_all((head + "\r\n").as_bytes()).ok()?;
        let body = &response.body;
        match fault {
            Some(Fault::Cut(n) | Fault::WholeCut(n)) => stream.write_all(&body[..n.min(body.len())]).ok()?,
            Some(Fault::Hang(n)) => {
                stream.write_all(&body[..n.min(body.len())]).ok()?;
                self.contents.lock().unwrap_or_else(PoisonError::into_inner).hung = true;
                self.pause(Duration::from_secs(60));
            }
            Some(Fault::Drip(n, pause)) => {
                for chunk in body.chunks(n) {
                    self.pause(pause);
                    stream.write_all(chunk).ok()?;
                }
            }
            _ => stream.write_all(body).ok()?,
        }
        Some(())
    }

    /// Waits, but not beyond the Hub's end.
    fn pause(&self, pause: Duration) {
        let step = Duration::from_millis(5);
        for _ in 0..pause.as_millis().div_ceil(step.as_millis()) {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(step);
        }
    }

    fn read(&self, stream: &TcpStream) -> Option<Asked> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next()?.ok()?;
        let mut asked = Asked {
            path: first.split(' ').nth(1)?.to_string(),
            from: None,
            token: None,
            elsewhere: self.elsewhere,
            number: 0,
        };
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            match (name.to_ascii_lowercase().as_str(), value.trim()) {
                ("authorization", value) => asked.token = Some(value.strip_prefix("Bearer ").unwrap_or(value).into()),
                ("range", value) => asked.from = value.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok(),
                _ => {}
            }
        }
        Some(asked)
    }

    fn answer(&self, has: &Contents, asked: &Asked, fault: Option<&Fault>) -> Response {
        let (path, query) = asked.path.split_once('?').unwrap_or((&asked.path, ""));
        if self.elsewhere {
            let name = percent_decode_str(path.trim_start_matches('/')).decode_utf8_lossy();
            return match has.files.get(name.as_ref()) {
                Some(file) => bytes(file, asked, fault),
                None => Response::new(404, ""),
            };
        }
        if has.token.is_some() && asked.token != has.token {
            return Response::refusal(401, "GatedRepo", "Access to the data set is restricted.");
        }
        let api = format!("/api/datasets/{}/", has.dataset);
        let files = format!("/datasets/{}/resolve/", has.dataset);
        if let Some(rest) = path.strip_prefix(&api) {
            if let Some(revision) = rest.strip_prefix("revision/") {
                return match revision {
                    "main" | "refs%2Fpr%2F1" => Response::new(
                        200,
                        json!({ "id": has.dataset, "sha": has.commit, "gated": "auto" }).to_string(),
                    ),
                    _ => Response::refusal(404, "RevisionNotFound", "Invalid rev id"),
                };
            }
            if let Some(tree) = rest.strip_prefix(&format!("tree/{}", has.commit)) {
                return self.tree(has, path, tree, query);
            }
            return Response::refusal(404, "RevisionNotFound", "Invalid rev id");
        }
        if let Some(rest) = path.strip_prefix(&files) {
            let Some(encoded) = rest.strip_prefix(&format!("{}/", has.commit)) else {
                return Response::refusal(404, "RevisionNotFound", "Invalid rev id");
            };
            let name = percent_decode_str(encoded).decode_utf8_lossy();
            return match has.files.get(name.as_ref()) {
                Some(_) if name.ends_with(".parquet") => Response::new(302, "").with(
                    "Location",
                    format!("http://127.0.0.1:{}/{encoded}?signature=secret", self.ports[1]),
                ),
                Some(file) => bytes(file, asked, fault),
                None => Response::refusal(404, "EntryNotFound", "Entry not found"),
            };
        }
        Response::refusal(401, "RepoNotFound", "Repository not found")
    }

    fn tree(&self, has: &Contents, path: &str, tree: &str, query: &str) -> Response {
        let value = |name: &str| {
            query
                .split('&')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        let folder = percent_decode_str(tree.trim_start_matches('/')).decode_utf8_lossy();
        let prefix = if folder.is_empty() {
            String::new()
        } else {
            format!("{folder}/")
        };
        let mut entries: Vec<Value> = Vec::new();
        let mut folders = BTreeSet::new();
        for (name, file) in &has.files {
            let Some(rest) = name.strip_prefix(&prefix) else {
                continue;
            };
            let recursive = value("recursive") == Some("true");
            for (at, _) in rest.match_indices('/').take(if recursive { usize::MAX } else { 1 }) {
                let folder = format!("{prefix}{}", &rest[..at]);
                if folders.insert(folder.clone()) {
                    entries.push(json!({ "type": "directory", "oid": "0", "size": 0, "path": folder }));
                }
            }
            if recursive || !rest.contains('/') {
                let mut entry = json!({ "type": "file", "oid": "0", "size": file.len(), "path": name });
                if name.ends_with(".parquet") {
                    entry["lfs"] = json!({ "oid": sha256(file), "size": file.len(), "pointerSize": 134 });
                }
                entries.push(entry);
            }
        }
        if entries.is_empty() {
            return Response::refusal(404, "EntryNotFound", "Entry not found");
        }
        let from = value("cursor")
            .and_then(|c| c.parse().ok())
            .unwrap_or(0)
            .min(entries.len());
        let to = (from + has.page).min(entries.len());
        let response = Response::new(200, Value::from(entries[from..to].to_vec()).to_string());
        if to == entries.len() {
            return response;
        }
        let others: String = query
            .split('&')
            .filter(|pair| !pair.starts_with("cursor="))
            .map(|pair| format!("{pair}&"))
            .collect();
        let next = format!("http://127.0.0.1:{}{path}?{others}cursor={to}", self.ports[0]);
        response.with(
            "Link",
            format!("<http://127.0.0.1/x>; rel=\"prev\", <{next}>; rel=\"next\""),
        )
    }
}

/// A file, or what `Range` asks for of it.
fn bytes(file: &[u8], asked: &Asked, fault: Option<&Fault>) -> Response {
    let mut file = file.to_vec();
    match fault {
        Some(Fault::Longer(n) | Fault::Unannounced(n)) => file.resize(file.len() + n, 7),
        Some(Fault::Shorter(n)) => file.truncate(file.len().saturating_sub(*n)),
        _ => {}
    }
    let whole = file.len() as u64;
    match asked.from {
        Some(_) if matches!(fault, Some(Fault::Whole | Fault::WholeCut(_))) => Response::new(200, file),
        Some(from) if from >= whole => Response::new(416, "").with("Content-Range", format!("bytes */{whole}")),
        Some(from) => Response::new(206, &file[from as usize..])
            .with("Content-Range", format!("bytes {from}-{}/{whole}", whole - 1)),
        None => Response::new(200, file),
    }
}

/// SHA-256 in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}

/// Bytes that do not repeat soon, the same each time.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}
