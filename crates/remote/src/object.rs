//! Object stores: `s3://bucket/path`, `gs://bucket/path`, `az://container/path`, by the `object_store` crate and the usual
//! environment variables. `file:///path` is one too, which behaves as they do: for tests, and for disks that are shared.

mod failure;
mod file;
mod folder;
mod url;

use std::{io::Write, sync::Arc};

use futures_util::{StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, path::Path};
use tempfile::TempPath;

pub use file::RemoteFile;
pub use folder::Folder;
use url::Url;
pub use url::is_object;

use crate::{RemoteError, runtime, source::Chosen};

/// How often in a row a fetch that brings nothing is tried.
const ATTEMPTS: u32 = 5;

/// An object, as it was when it was found.
#[derive(Clone, Debug)]
pub struct Object {
    store: Arc<dyn ObjectStore>,
    /// `s3://bucket`.
    place: String,
    meta: ObjectMeta,
}

/// The objects that `entry` names, by their names, and whether it named a whole place.
pub(crate) fn find(entry: &str) -> Result<(Vec<Object>, bool), RemoteError> {
    let url = Url::parse(entry)?;
    let store = url.open()?;
    find_in(&store, &url)
}

fn find_in(store: &Arc<dyn ObjectStore>, url: &Url) -> Result<(Vec<Object>, bool), RemoteError> {
    let object = |meta| Object { store: store.clone(), place: url.place(), meta };
    let has_glob = url.path.contains(['*', '?', '[']);
    if !url.path.is_empty() && !has_glob {
        match runtime::wait(async { Ok(store.get_opts(&url.object()?, head()).await) })? {
            Ok(found) => return Ok((vec![object(found.meta)], false)),
            // Then it is what several have in front.
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(url.explain(error)),
        }
    }
    // What is certain about the names, as far as it ends in a `/`.
    let certain =
        if has_glob { url.path.split(['*', '?', '[']).next().unwrap_or_default() } else { &url.path };
    let certain =
        if has_glob { certain.rsplit_once('/').map_or("", |(directory, _)| directory) } else { certain };
    let prefix =
        Some(certain).filter(|prefix| !prefix.is_empty()).map(|prefix| url.path_of(prefix)).transpose()?;
    let listed = async { Ok(store.list(prefix.as_ref()).try_collect::<Vec<_>>().await) };
    let mut metas = runtime::wait(listed)?.map_err(|error| url.explain(error))?;
    let path = Some(url.path.as_str());
    let chosen = Chosen::new(path, metas.iter().map(|meta| meta.location.as_ref()))
        .map_err(|reason| url.bad(&reason))?;
    // What is named like a directory is what consoles make of one.
    metas.retain(|meta| chosen.takes(meta.location.as_ref()) && !is_hidden(&meta.location));
    metas.sort_by(|a, b| a.location.cmp(&b.location));
    if metas.is_empty() {
        let reason =
            "there is no object of this name, and none below it; names are told apart by case".to_owned();
        return Err(RemoteError::NotFound { what: url.to_string(), reason });
    }
    Ok((metas.into_iter().map(object).collect(), chosen.is_whole()))
}

fn head() -> GetOptions {
    GetOptions { head: true, ..GetOptions::default() }
}

fn is_hidden(path: &Path) -> bool {
    path.filename().is_none_or(|name| name.starts_with('.'))
}

impl Object {
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.place, self.meta.location)
    }

    pub(crate) fn path(&self) -> &str {
        self.meta.location.as_ref()
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.meta.size
    }

    pub(crate) fn identity(&self) -> String {
        let ObjectMeta { last_modified, size, e_tag, version, .. } = &self.meta;
        // Every store of the three has entity tags. What has none is told by its time.
        let tag = e_tag.clone().unwrap_or_else(|| format!("{}@{last_modified}", self.name()));
        format!("tag:{tag} {size} {}", version.as_deref().unwrap_or_default())
    }

    /// Fetches it into a temporary file, whose name ends as the object's does.
    pub(crate) async fn download(&self) -> Result<TempPath, RemoteError> {
        let name = self.meta.location.filename().unwrap_or_default();
        let directory = std::env::temp_dir();
        let mut file = tempfile::Builder::new()
            .prefix("monosema-")
            .suffix(&format!("-{name}"))
            .tempfile_in(&directory)
            .map_err(RemoteError::io(&directory))?;
        let (mut have, mut attempts) = (0, 0);
        while have < self.bytes() {
            let before = have;
            let Err(error) = self.continue_to(&mut file, &mut have).await else { break };
            attempts = if have > before { 1 } else { attempts + 1 };
            match error {
                Broken::Store(error) if attempts < ATTEMPTS && !failure::is_final(&error) => {
                    tracing::debug!("{}: {error}; trying again", self.name());
                }
                Broken::Store(error) => return Err(failure::explain(&self.name(), error)),
                Broken::Here(error) => return Err(error),
            }
        }
        if have != self.bytes() {
            let reason = format!("expected {} bytes, found {have}", self.bytes());
            return Err(RemoteError::Damaged { what: self.name(), reason });
        }
        Ok(file.into_temp_path())
    }

    async fn continue_to(&self, file: &mut tempfile::NamedTempFile, have: &mut u64) -> Result<(), Broken> {
        let options = GetOptions {
            // What was found is what is read: another object of the same name is an error.
            if_match: self.meta.e_tag.clone(),
            range: (*have > 0).then_some(GetRange::Offset(*have)),
            ..GetOptions::default()
        };
        let found = self.store.get_opts(&self.meta.location, options).await.map_err(Broken::Store)?;
        let mut stream = found.into_stream();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(Broken::Store)?;
            let left = self.bytes().saturating_sub(*have);
            let writing = RemoteError::writing(file.path(), &self.name(), left, "TMPDIR");
            file.write_all(&piece).map_err(writing).map_err(Broken::Here)?;
            *have += piece.len() as u64;
        }
        Ok(())
    }
}

/// Why a fetch ended early.
enum Broken {
    Store(object_store::Error),
    Here(RemoteError),
}

#[cfg(test)]
mod tests {
    use object_store::{ObjectStoreExt, memory::InMemory};

    use super::*;
    use crate::SourceFile;

    fn store(objects: &[(&str, &str)]) -> Arc<dyn ObjectStore> {
        let store = InMemory::new();
        for (name, text) in objects {
            let put = async { store.put(&Path::from(*name), text.to_string().into()).await };
            runtime::wait(async { Ok(put.await.unwrap()) }).unwrap();
        }
        Arc::new(store)
    }

    fn names(store: &Arc<dyn ObjectStore>, entry: &str) -> Result<Vec<String>, String> {
        let found = find_in(store, &Url::parse(entry).unwrap()).map_err(|error| error.to_string())?;
        Ok(found.0.iter().map(Object::name).collect())
    }

    #[test]
    fn names_globs_and_prefixes_are_found_in_order() {
        let store =
            store(&[("a/2.txt", ""), ("a/1.txt", ""), ("a/b/3.txt", ""), ("a/.x", ""), ("ab.txt", "")]);
        let of = |entry: &str| names(&store, entry).unwrap().join(" ");
        assert_eq!(of("s3://c/a/*.txt"), "s3://c/a/1.txt s3://c/a/2.txt");
        assert_eq!(of("s3://c/a/[2-9].txt"), "s3://c/a/2.txt");
        assert_eq!(of("s3://c/a/**/*.txt"), "s3://c/a/1.txt s3://c/a/2.txt s3://c/a/b/3.txt");
        assert_eq!(of("s3://c/a"), "s3://c/a/1.txt s3://c/a/2.txt s3://c/a/b/3.txt");
        assert_eq!(of("s3://c/a/1.txt"), "s3://c/a/1.txt");
        assert_eq!(of("s3://c/ab*"), "s3://c/ab.txt");
        assert_eq!(of("s3://c").split(' ').count(), 4);
        let error = names(&store, "s3://c/x/*.txt").unwrap_err();
        assert!(error.contains("s3://c/x/*.txt: not found: there is no object"), "{error}");
    }

    #[test]
    fn an_object_is_fetched_for_as_long_as_it_is_held() {
        let store = store(&[("a/1.txt", "text"), ("a/0.txt", "")]);
        let (objects, _) = find_in(&store, &Url::parse("s3://c/a").unwrap()).unwrap();
        let [empty, object] = objects.try_into().unwrap_or_else(|_| panic!());
        assert_eq!(std::fs::read(&*SourceFile::Object(empty).fetch().unwrap()).unwrap(), b"");
        let file = SourceFile::Object(object);
        assert_eq!((file.bytes(), file.name().to_str()), (4, Some("s3://c/a/1.txt")));
        let fetched = file.fetch().unwrap();
        let path = fetched.to_path_buf();
        assert!(path.to_str().unwrap().ends_with("1.txt"));
        assert_eq!(std::fs::read(&path).unwrap(), b"text");
        drop(fetched);
        assert!(!path.exists());
    }

    #[test]
    fn an_object_that_changed_is_not_read_for_the_one_that_was_found() {
        let store = store(&[("1.txt", "text")]);
        let of = || find_in(&store, &Url::parse("s3://c/1.txt").unwrap()).unwrap().0.remove(0);
        let before = of();
        assert_eq!(before.identity(), of().identity());
        let put = async { store.put(&Path::from("1.txt"), "others".into()).await };
        runtime::wait(async { Ok(put.await.unwrap()) }).unwrap();
        assert_ne!(before.identity(), of().identity());
        let error = SourceFile::Object(before).fetch().unwrap_err().to_string();
        assert!(error.contains("s3://c/1.txt") && error.contains("changed"), "{error}");
        assert_eq!(std::fs::read(&*SourceFile::Object(of()).fetch().unwrap()).unwrap(), b"others");
    }
}
