//! A hub of our own: as much of its API as is asked for, over plain HTTP, with a list of what was asked.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use monosema_core::digest_bytes;
use serde_json::{Value, json};
use sha1::{Digest, Sha1};

/// A repository: its files by path, as the hub holds them (`lfs` above 100 bytes).
#[derive(Clone, Default)]
pub(crate) struct Repo {
    pub(crate) commit: String,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Accepted terms are asked for: files are refused with this status.
    pub(crate) gated: Option<u16>,
}

/// What the server does wrong, by the path of the file.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Sends so many bytes of the first answer and hangs up.
    Cut(usize),
    /// Sends so many bytes of every answer and hangs up.
    CutAlways(usize),
    /// Answers every request for a part with all of it.
    IgnoresRange,
    /// Sends other bytes of the same number.
    Corrupt,
    /// Says that something went wrong, each time.
    Fails,
}

#[derive(Default)]
struct State {
    repos: BTreeMap<String, Repo>,
    faults: BTreeMap<String, Fault>,
    requests: Vec<String>,
}

pub(crate) struct Server {
    pub(crate) endpoint: String,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Serves `repos`, by `models/owner/name` or `datasets/owner/name`.
    pub(crate) fn start(repos: &[(&str, Repo)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let repos = repos.iter().map(|(name, repo)| ((*name).to_owned(), repo.clone())).collect();
        let state = Arc::new(Mutex::new(State { repos, ..State::default() }));
        let shared = state.clone();
        // Ends with the process: it holds nothing that anybody waits for.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = shared.clone();
                thread::spawn(move || serve(stream.unwrap(), &shared));
            }
        });
        Self { endpoint, state }
    }

    pub(crate) fn fault(&self, file: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(file.into(), fault);
    }

    pub(crate) fn mend(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub(crate) fn set(&self, name: &str, repo: Repo) {
        self.state.lock().unwrap().repos.insert(name.into(), repo);
    }

    /// What was asked since the last time: `GET path`, `GET path 10-19` for a part.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// The files of which bytes were asked for since the last time, and from which byte on.
    pub(crate) fn downloads(&self) -> Vec<String> {
        let gets = self
            .requests()
            .into_iter()
            .filter(|request| request.starts_with("GET") && request.contains("/resolve/"));
        gets.map(|request| request.split_once("/resolve/").unwrap().1.split_once('/').unwrap().1.to_owned())
            .collect()
    }
}

struct Request {
    method: String,
    path: String,
    range: Option<(usize, usize)>,
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut range = None;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        if header.trim().is_empty() {
            return Some(Request { method, path: path.split('?').next()?.to_owned(), range });
        }
        if let Some(bytes) = header.to_ascii_lowercase().strip_prefix("range: bytes=") {
            let (from, to) = bytes.trim().split_once('-').unwrap();
            range = Some((from.parse().unwrap(), to.parse().unwrap()));
        }
    }
}

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read(&mut reader) {
        let part = request.range.map_or(String::new(), |(from, to)| format!(" {from}-{to}"));
        let mut state = state.lock().unwrap();
        state.requests.push(format!("{} {}{part}", request.method, request.path));
        let keeps_open = answer(&mut stream, &request, &mut state);
        if !keeps_open {
            return;
        }
    }
}

/// Returns whether the connection stays open.
fn answer(stream: &mut TcpStream, request: &Request, state: &mut State) -> bool {
    let path = request.path.trim_start_matches('/');
    let head = request.method == "HEAD";
    if let Some(path) = path.strip_prefix("api/") {
        let (name, rest) = split_repo(path);
        let Some(repo) = state.repos.get(&name) else { return error(stream, 404, "RepoNotFound", head) };
        let (what, revision) = rest.split_once('/').unwrap_or((rest, "main"));
        if revision != "main" && revision != repo.commit {
            return error(stream, 404, "RevisionNotFound", head);
        }
        let body = match what {
            "revision" => json!({ "id": name, "sha": repo.commit }),
            "tree" => Value::Array(repo.files.iter().map(|(path, bytes)| entry(path, bytes)).collect()),
            _ => return error(stream, 404, "", head),
        };
        return send(
            stream,
            "200 OK",
            &["content-type: application/json"],
            body.to_string().as_bytes(),
            head,
            None,
        );
    }
    let path = if path.starts_with("datasets/") { path.to_owned() } else { format!("models/{path}") };
    let (name, rest) = split_repo(&path);
    let (revision, file) = rest.strip_prefix("resolve/").unwrap().split_once('/').unwrap();
    let repo = &state.repos[&name];
    assert_eq!(revision, repo.commit, "files are asked for at the commit");
    if let Some(status) = repo.gated {
        return error(stream, status, "GatedRepo", head);
    }
    let Some(bytes) = repo.files.get(file) else { return error(stream, 404, "EntryNotFound", head) };
    let fault = state.faults.get(file).copied();
    let mut bytes = bytes.clone();
    match fault {
        Some(Fault::Fails) => return error(stream, 500, "", head),
        Some(Fault::Corrupt) => bytes[0] ^= 1,
        _ => {}
    }
    let commit = format!("x-repo-commit: {}", repo.commit);
    let range = request.range.filter(|_| fault != Some(Fault::IgnoresRange));
    let (status, content_range, body) = match range {
        None => ("200 OK", String::new(), &bytes[..]),
        Some((from, to)) => {
            assert!(from <= to && to < bytes.len(), "a range within the file");
            let range = format!("content-range: bytes {from}-{to}/{}", bytes.len());
            ("206 Partial Content", range, &bytes[from..=to])
        }
    };
    let headers = [commit.as_str(), "etag: \"some\"", "x-other: 1", &content_range];
    let cut = match fault {
        Some(Fault::Cut(n)) if !head => {
            state.faults.remove(file);
            Some(n)
        }
        Some(Fault::CutAlways(n)) if !head => Some(n),
        _ => None,
    };
    send(stream, status, &headers, body, head, cut)
}

/// `models/owner/name/rest`.
fn split_repo(path: &str) -> (String, &str) {
    let mut parts = path.splitn(4, '/');
    let name = [parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap()].join("/");
    (name, parts.next().unwrap_or(""))
}

fn entry(path: &str, bytes: &[u8]) -> Value {
    if bytes.len() <= 100 {
        return json!({ "type": "file", "path": path, "size": bytes.len(), "oid": git(bytes) });
    }
    let sha256 = digest_bytes(bytes);
    let pointer =
        format!("version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {}\n", bytes.len());
    json!({
        "type": "file", "path": path, "size": bytes.len(), "oid": git(pointer.as_bytes()),
        "lfs": { "oid": sha256, "size": bytes.len(), "pointerSize": pointer.len() },
    })
}

fn git(bytes: &[u8]) -> String {
    let mut hasher = Sha1::new();
    hasher.update(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn error(stream: &mut TcpStream, status: u16, code: &str, head: bool) -> bool {
    let code = format!("x-error-code: {code}");
    send(stream, &format!("{status} No"), &[&code], b"{\"error\": \"no\"}", head, None)
}

fn send(
    stream: &mut TcpStream,
    status: &str,
    headers: &[&str],
    body: &[u8],
    head: bool,
    cut: Option<usize>,
) -> bool {
    let mut text = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n", body.len());
    for header in headers.iter().filter(|header| !header.is_empty()) {
        text.push_str(header);
        text.push_str("\r\n");
    }
    text.push_str("\r\n");
    let body = if head { &[][..] } else { &body[..cut.unwrap_or(body.len()).min(body.len())] };
    stream.write_all(text.as_bytes()).is_ok() && stream.write_all(body).is_ok() && cut.is_none()
}
