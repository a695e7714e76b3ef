//! Models and text from a hub that runs in the test: what is asked for, what is kept, what is said when it fails.

#![allow(clippy::unwrap_used)]

mod server;

use std::{
    fs,
    path::{Path, PathBuf},
};

use monosema_remote::{
    RemoteError, Sources,
    hub::{Address, Hub, ModelFiles},
};
use server::{Fault, Repo, Server};
use tempfile::TempDir;

fn commit(n: u8) -> String {
    format!("{n:02x}").repeat(20)
}

/// Bytes that no two places share.
fn bytes(n: usize, seed: u8) -> Vec<u8> {
    (0..n).map(|i| (i * 31 + i / 251) as u8 ^ seed).collect()
}

fn repo(files: &[(&str, Vec<u8>)]) -> Repo {
    let files = files.iter().map(|(path, bytes)| ((*path).to_owned(), bytes.clone())).collect();
    Repo { commit: commit(1), files, gated: None }
}

/// A model in two shards, with files that nobody needs.
fn sharded() -> Repo {
    let index = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-1.safetensors"}}"#;
    repo(&[
        ("config.json", b"{}".into()),
        ("tokenizer.json", b"{\"a\": 1}".into()),
        ("model.safetensors.index.json", index.into()),
        ("model-1.safetensors", bytes(300_000, 1)),
        ("model-2.safetensors", bytes(200_000, 2)),
        ("pytorch_model.bin", bytes(500, 3)),
        ("onnx/model.onnx", bytes(500, 4)),
        ("README.md", b"# Hello".into()),
    ])
}

struct World {
    server: Server,
    cache: TempDir,
}

impl World {
    fn new(repos: &[(&str, Repo)]) -> Self {
        Self { server: Server::start(repos), cache: TempDir::new().unwrap() }
    }

    fn hub(&self, offline: bool) -> Hub {
        Hub::at(&self.server.endpoint, self.cache.path(), offline).unwrap()
    }

    fn model(&self, address: &str) -> Result<ModelFiles, RemoteError> {
        self.hub(false).model(&Address::parse(address).unwrap())
    }

    fn offline(&self, address: &str) -> Result<ModelFiles, RemoteError> {
        self.hub(true).model(&Address::parse(address).unwrap())
    }

    fn error(&self, address: &str) -> String {
        self.model(address).unwrap_err().to_string()
    }

    fn blobs(&self) -> Vec<String> {
        names(&self.cache.path().join("models--o--n/blobs"))
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn says(error: &str, words: &[&str]) {
    for word in words {
        assert!(error.contains(word), "expected `{word}` in: {error}");
    }
}

#[test]
fn a_sharded_model_is_fetched_once_and_nothing_else_with_it() {
    let world = World::new(&[("models/o/n", sharded())]);
    let model = world.model("hf:o/n").unwrap();
    assert_eq!((model.name.as_str(), model.resolved), ("o/n", format!("hf:o/n@{}", commit(1))));
    let expected = sharded().files;
    assert_eq!(
        names(&model.path),
        [
            "config.json",
            "model-1.safetensors",
            "model-2.safetensors",
            "model.safetensors.index.json",
            "tokenizer.json"
        ]
    );
    for name in names(&model.path) {
        assert_eq!(fs::read(model.path.join(&name)).unwrap(), expected[&name], "{name}");
    }
    assert_eq!(
        world.server.downloads(),
        [
            "config.json",
            "tokenizer.json",
            "model.safetensors.index.json",
            "model-1.safetensors",
            "model-2.safetensors"
        ]
    );
    // The cache is the hub's: a large file by its SHA-256, a small one by git's hash, links by name.
    let blobs = world.blobs();
    for name in ["model-1.safetensors", "model-2.safetensors"] {
        let digest = monosema_core::digest_bytes(&expected[name]).to_string();
        assert!(blobs.contains(&digest), "{digest} in {blobs:?}");
    }
    // `printf '{}' | git hash-object --stdin`
    assert!(blobs.contains(&"9e26dfeeb6e641a33dae4961196235bdb965b21b".to_owned()), "{blobs:?}");
    assert_eq!(fs::read_to_string(world.cache.path().join("models--o--n/refs/main")).unwrap(), commit(1));
    // Another time only the revision is asked for, and of a commit nothing.
    world.model("hf:o/n@main").unwrap();
    assert_eq!(world.server.requests().len(), 2);
    world.model(&format!("hf:o/n@{}", commit(1))).unwrap();
    assert_eq!(world.server.requests(), Vec::<String>::new());
}

#[test]
fn one_file_of_weights_is_preferred_and_a_pickle_is_the_last_resort() {
    let mut files = sharded();
    files.files.insert("model.safetensors".into(), bytes(1000, 9));
    let mut pickle = repo(&[("config.json", b"{}".into()), ("pytorch_model.bin", bytes(500, 3))]);
    pickle.files.insert("tf_model.h5".into(), bytes(10, 1));
    let world = World::new(&[("models/o/n", files), ("models/o/p", pickle)]);
    let found = |name: &str| names(&world.model(name).unwrap().path);
    assert_eq!(found("hf:o/n"), ["config.json", "model.safetensors", "tokenizer.json"]);
    assert_eq!(found("hf:o/p"), ["config.json", "pytorch_model.bin"]);
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let world = World::new(&[("models/o/n", sharded())]);
    world.server.fault("model-1.safetensors", Fault::Cut(100_000));
    let model = world.model("hf:o/n").unwrap();
    let requests = world.server.downloads();
    let of_shard: Vec<_> = requests.iter().filter(|request| request.starts_with("model-1")).collect();
    // What arrived before the connection broke is kept; how much of it did is the system's affair.
    assert_eq!(of_shard.len(), 2, "{requests:?}");
    let from: usize = of_shard[1].split([' ', '-']).nth(2).unwrap().parse().unwrap();
    assert!((1..=100_000).contains(&from) && of_shard[1].ends_with("-299999"), "{of_shard:?}");
    assert_eq!(fs::read(model.path.join("model-1.safetensors")).unwrap(), bytes(300_000, 1));
    assert!(!world.blobs().iter().any(|name| name.ends_with(".incomplete")));
}

#[test]
fn what_a_killed_process_left_goes_on_too() {
    let world = World::new(&[("models/o/n", sharded())]);
    // Every connection brings a little, until one brings nothing.
    world.server.fault("model-2.safetensors", Fault::CutAlways(0));
    let error = world.error("hf:o/n");
    says(&error, &["hf:o/n/model-2.safetensors@"]);
    // Nothing has the name of a file that is not whole.
    assert!(
        !world
            .cache
            .path()
            .join(format!("models--o--n/snapshots/{}/model-2.safetensors", commit(1)))
            .exists()
    );
    let blobs = world.cache.path().join("models--o--n/blobs");
    let partial = names(&blobs).into_iter().find(|name| name.ends_with(".incomplete")).unwrap();
    fs::write(blobs.join(&partial), &bytes(200_000, 2)[..50_000]).unwrap();
    world.server.mend();
    world.server.requests();
    let model = world.model("hf:o/n").unwrap();
    assert_eq!(world.server.downloads(), ["model-2.safetensors 50000-199999"]);
    assert_eq!(fs::read(model.path.join("model-2.safetensors")).unwrap(), bytes(200_000, 2));
}

#[test]
fn what_was_left_of_something_else_is_never_taken_for_the_file() {
    let world = World::new(&[("models/o/n", sharded())]);
    world.server.fault("model-2.safetensors", Fault::CutAlways(0));
    world.error("hf:o/n");
    world.server.mend();
    let blobs = world.cache.path().join("models--o--n/blobs");
    let partial = blobs.join(names(&blobs).into_iter().find(|name| name.ends_with(".incomplete")).unwrap());
    // As after a power failure: the right length, other contents.
    fs::write(&partial, vec![0; 200_000]).unwrap();
    says(
        &world.error("hf:o/n"),
        &["model-2.safetensors", "damaged", "other contents", "run the command again"],
    );
    assert!(!partial.exists());
    assert_eq!(
        fs::read(world.model("hf:o/n").unwrap().path.join("model-2.safetensors")).unwrap(),
        bytes(200_000, 2)
    );
}

#[test]
fn a_server_that_does_not_continue_files_sends_them_again() {
    let world = World::new(&[("models/o/n", sharded())]);
    world.server.fault("model-1.safetensors", Fault::CutAlways(0));
    world.error("hf:o/n");
    let blobs = world.cache.path().join("models--o--n/blobs");
    let partial = blobs.join(names(&blobs).into_iter().find(|name| name.ends_with(".incomplete")).unwrap());
    fs::write(&partial, b"anything").unwrap();
    world.server.fault("model-1.safetensors", Fault::IgnoresRange);
    let model = world.model("hf:o/n").unwrap();
    assert_eq!(fs::read(model.path.join("model-1.safetensors")).unwrap(), bytes(300_000, 1));
}

#[test]
fn bytes_that_the_repository_does_not_have_are_thrown_away() {
    let world = World::new(&[("models/o/n", sharded())]);
    for file in ["config.json", "model-1.safetensors"] {
        world.server.fault(file, Fault::Corrupt);
        says(&world.error("hf:o/n"), &[file, "damaged", "thrown away"]);
        world.server.mend();
    }
    let other = World::new(&[("models/o/n", sharded())]);
    other.server.fault("config.json", Fault::Fails);
    says(&other.error("hf:o/n"), &["config.json", "500"]);
    assert!(world.model("hf:o/n").is_ok());
}

#[test]
fn what_is_not_there_or_not_for_us_is_said_with_what_to_do() {
    let gated = |status| Repo { gated: Some(status), ..sharded() };
    let no_model = repo(&[("README.md", b"# Hello".into())]);
    let gguf = repo(&[("a-q4.gguf", bytes(50, 1)), ("a-q8.gguf", bytes(60, 1))]);
    let mut lacks = sharded();
    lacks.files.remove("model-2.safetensors");
    let world = World::new(&[
        ("models/o/n", sharded()),
        ("models/o/g", gated(401)),
        ("models/o/h", gated(403)),
        ("models/o/r", no_model),
        ("models/o/q", gguf),
        ("models/o/l", lacks),
    ]);
    says(&world.error("hf:o/x"), &["hf:o/x@main", "does not exist", "private", "HF_TOKEN"]);
    says(&world.error("hf:o/n@v9"), &["hf:o/n@v9", "no revision v9", "/o/n"]);
    for gated in ["hf:o/g", "hf:o/h"] {
        let page = format!("{}/{}", world.server.endpoint, &gated[3..]);
        says(&world.error(gated), &[gated, "gated: accept its terms at", &page, "HF_TOKEN"]);
    }
    says(&world.error("hf:o/r"), &["expected config.json and model.safetensors", "found README.md"]);
    says(&world.error("hf:o/q"), &["a-q4.gguf, a-q8.gguf", "hf:o/q/a-q4.gguf@"]);
    says(&world.error("hf:o/q/b.gguf"), &["no such file", "a-q8.gguf"]);
    says(&world.error("hf:o/l"), &["model-2.safetensors", "no such file"]);
    says(&world.error("hf:datasets/o/n"), &["expected a model, found data"]);
}

#[test]
fn one_gguf_file_is_a_model() {
    let world =
        World::new(&[("models/o/q", repo(&[("x/a-q4.gguf", bytes(5000, 1)), ("b.gguf", bytes(60, 1))]))]);
    let model = world.model("hf:o/q/x/a-q4.gguf").unwrap();
    assert_eq!(fs::read(&model.path).unwrap(), bytes(5000, 1));
    assert!(model.path.ends_with("x/a-q4.gguf"));
    assert_eq!(model.resolved, format!("hf:o/q/x/a-q4.gguf@{}", commit(1)));
    assert_eq!(world.server.downloads(), ["x/a-q4.gguf"]);
}

#[test]
fn offline_what_the_cache_has_is_enough() {
    let world = World::new(&[("models/o/n", sharded())]);
    let error = world.offline("hf:o/n").unwrap_err().to_string();
    says(&error, &["hf:o/n@main", "HF_HUB_OFFLINE", "never asked for", world.cache.path().to_str().unwrap()]);
    world.server.fault("model-2.safetensors", Fault::Fails);
    world.error("hf:o/n");
    let error = world.offline("hf:o/n").unwrap_err().to_string();
    says(&error, &["model-2.safetensors", "HF_HUB_OFFLINE", "never fetched"]);
    world.server.mend();
    let online = world.model("hf:o/n").unwrap();
    world.server.requests();
    assert_eq!(world.offline("hf:o/n").unwrap(), online);
    assert_eq!(world.offline(&online.resolved).unwrap(), online);
    // Filled by another program, which leaves no list.
    fs::remove_dir_all(world.cache.path().join("models--o--n/.monosema")).unwrap();
    assert_eq!(world.offline("hf:o/n").unwrap(), online);
    assert_eq!(world.server.requests(), Vec::<String>::new());
}

#[test]
fn without_a_network_the_last_commit_will_do_if_the_cache_has_it() {
    let world = World::new(&[("models/o/n", sharded())]);
    let before = world.model("hf:o/n").unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub::at(&format!("http://{nobody}"), world.cache.path(), false).unwrap();
    assert_eq!(hub.model(&Address::parse("hf:o/n").unwrap()).unwrap(), before);
    let error = hub.model(&Address::parse("hf:o/other").unwrap()).unwrap_err().to_string();
    says(&error, &["hf:o/other@main", &format!("http://{nobody} cannot be reached"), "HF_HUB_OFFLINE=1"]);
}

#[test]
fn a_new_commit_brings_only_what_is_new() {
    let world = World::new(&[("models/o/n", sharded())]);
    let before = world.model("hf:o/n").unwrap();
    world.server.downloads();
    let mut changed = sharded();
    changed.commit = commit(2);
    changed.files.insert("config.json".into(), b"{\"a\": 2}".into());
    world.server.set("models/o/n", changed);
    let after = world.model("hf:o/n").unwrap();
    assert_eq!(world.server.downloads(), ["config.json"]);
    assert_ne!(after.path, before.path);
    assert_eq!(fs::read(after.path.join("config.json")).unwrap(), b"{\"a\": 2}");
    assert_eq!(fs::read(after.path.join("model-1.safetensors")).unwrap(), bytes(300_000, 1));
    assert_eq!(fs::read(before.path.join("config.json")).unwrap(), b"{}");
}

fn dataset() -> Repo {
    repo(&[
        ("README.md", b"# Text".into()),
        ("data/test-0.parquet", bytes(150, 7)),
        ("data/train-0.parquet", bytes(1000, 5)),
        ("data/train-1.parquet", bytes(2000, 6)),
    ])
}

fn paths(sources: &Sources) -> Vec<PathBuf> {
    sources.files.iter().map(|file| file.path().to_owned()).collect()
}

#[test]
fn text_is_found_without_being_fetched_and_fetched_when_its_turn_comes() {
    let world = World::new(&[("datasets/o/t", dataset())]);
    let find = |hub: &Hub, address: &str| Sources::on_hub(hub, &Address::parse(address).unwrap());
    let online = world.hub(false);
    let all = find(&online, "hf:datasets/o/t").unwrap();
    assert!(all.whole && all.files.len() == 4);
    let train = find(&online, "hf:datasets/o/t/data/train-*.parquet@main").unwrap();
    assert_eq!(paths(&train), [Path::new("data/train-0.parquet"), Path::new("data/train-1.parquet")]);
    assert_eq!(train.files.iter().map(|file| file.bytes()).collect::<Vec<_>>(), [1000, 2000]);
    assert_eq!(find(&online, "hf:datasets/o/t/data").unwrap().files.len(), 3);
    assert_eq!(find(&online, "hf:datasets/o/t/*.parquet").unwrap().files.len(), 0);
    let name = train.files[0].name();
    assert_eq!(name.to_str().unwrap(), format!("hf:datasets/o/t/data/train-0.parquet@{}", commit(1)));
    assert_eq!(world.server.downloads(), Vec::<String>::new());
    assert_eq!(fs::read(&*train.files[1].fetch().unwrap()).unwrap(), bytes(2000, 6));
    assert_eq!(world.server.downloads(), ["data/train-1.parquet"]);
    // Offline the list is known, and with it what the text is known by; one shard is there.
    let cached = find(&world.hub(true), "hf:datasets/o/t/data/train-*.parquet").unwrap();
    let identities =
        |sources: &Sources| sources.files.iter().map(|f| f.identity().unwrap()).collect::<Vec<_>>();
    assert_eq!(identities(&cached), identities(&train));
    assert_eq!(fs::read(&*cached.files[1].fetch().unwrap()).unwrap(), bytes(2000, 6));
    says(
        &cached.files[0].fetch().unwrap_err().to_string(),
        &["train-0.parquet", "HF_HUB_OFFLINE", "never fetched"],
    );
    let unknown = World::new(&[]);
    let error = find(&unknown.hub(true), &format!("hf:datasets/o/t@{}", commit(1))).unwrap_err().to_string();
    says(&error, &["list of its files was never fetched"]);
}

#[test]
fn equal_contents_are_known_by_the_same() {
    let mut moved = dataset();
    moved.commit = commit(3);
    let bytes = moved.files.remove("data/train-0.parquet").unwrap();
    moved.files.insert("elsewhere.parquet".into(), bytes);
    let world = World::new(&[("datasets/o/t", dataset()), ("datasets/o/u", moved)]);
    let identity = |address: &str| {
        let sources = Sources::on_hub(&world.hub(false), &Address::parse(address).unwrap()).unwrap();
        sources.files[0].identity().unwrap()
    };
    let first = identity("hf:datasets/o/t/data/train-0.parquet");
    assert_eq!(first, identity("hf:datasets/o/u/elsewhere.parquet"));
    assert_ne!(first, identity("hf:datasets/o/t/data/train-1.parquet"));
}

#[test]
fn a_list_that_leads_out_of_the_cache_is_refused() {
    let mut bad = sharded();
    bad.files.insert("../../x.json".into(), b"{}".into());
    let world = World::new(&[("models/o/n", bad)]);
    says(&world.error("hf:o/n"), &["damaged", "lies outside"]);
}

#[test]
fn two_at_once_fetch_a_file_once() {
    let world = World::new(&[("models/o/n", sharded())]);
    let hub = world.hub(false);
    let address = Address::parse("hf:o/n").unwrap();
    let paths: Vec<_> = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| hub.model(&address).unwrap().path));
        both.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(paths[0], paths[1]);
    let mut downloads = world.server.downloads();
    downloads.sort();
    let n = downloads.len();
    downloads.dedup();
    assert_eq!((n, downloads.len()), (5, 5));
}
