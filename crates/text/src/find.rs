//! The files that an entry of `files` names, here or elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
};

use monosema_remote::{SourceFile, Sources, is_remote};

use crate::{TextError, corpus::format_of, formats};

/// The files of one entry of `files`, all of known formats, sorted.
pub(crate) fn expand(entry: &str) -> Result<Vec<SourceFile>, TextError> {
    if is_remote(entry) {
        return elsewhere(entry, Sources::find(entry)?);
    }
    let local = |path: PathBuf| {
        let bytes = path.metadata().map_err(|source| TextError::Io { path: path.clone(), source })?.len();
        Ok(SourceFile::Local { path, bytes })
    };
    expand_here(entry)?.into_iter().map(local).collect()
}

/// What `file` is known by, however it is spelt: two of the same are one.
pub(crate) fn identity(file: &SourceFile) -> PathBuf {
    match file {
        // What cannot be resolved cannot be read either, and reading says why.
        SourceFile::Local { path, .. } => fs::canonicalize(path).unwrap_or_else(|_| path.clone()),
        elsewhere => elsewhere.name(),
    }
}

/// Those of the files found as `entry` that are text.
fn elsewhere(entry: &str, found: Sources) -> Result<Vec<SourceFile>, TextError> {
    let n_found = found.files.len();
    let mut files = found.files;
    files.retain(|file| formats::of(file.path()).is_some());
    // A repository has the same text in several forms, often.
    let of_hub = matches!(files.first(), Some(SourceFile::Hub { .. }));
    if let Some(best) = files.iter().map(|file| formats::preference(format_of(file.path()))).min()
        && found.whole
        && of_hub
    {
        files.retain(|file| formats::preference(format_of(file.path())) == best);
    }
    if files.is_empty() {
        let reason = format!("none of its {n_found} file(s) ends in {}", formats::endings());
        return Err(TextError::NoFiles { entry: entry.into(), reason });
    }
    let (n, bytes) = (files.len(), files.iter().map(SourceFile::bytes).sum::<u64>());
    tracing::debug!(
        "text `{entry}`: {n} of {n_found} file(s), {bytes} bytes; {} first",
        files[0].name().display()
    );
    Ok(files)
}

/// The paths of one entry of `files` that names something here.
fn expand_here(entry: &str) -> Result<Vec<PathBuf>, TextError> {
    let none = |reason: &str| TextError::NoFiles { entry: entry.into(), reason: reason.into() };
    let path = Path::new(entry);
    let mut files = Vec::new();
    // A path that exists is meant as it stands, even if it has a `[` in it.
    if path.is_dir() {
        walk(path, &mut files)?;
    } else if path.exists() {
        if formats::of(path).is_none() {
            return Err(TextError::UnknownFormat { file: path.to_owned(), known: formats::endings() });
        }
        return Ok(vec![path.to_owned()]);
    } else if entry.contains(['*', '?', '[']) {
        let matches = glob::glob(entry).map_err(|e| none(&format!("not a glob: {e}")))?;
        for found in matches {
            let found = found.map_err(|e| TextError::Io { path: e.path().to_owned(), source: e.into() })?;
            if found.is_file() {
                files.push(found);
            }
        }
    } else {
        return Err(none("no such file or directory (a relative path begins at the working directory)"));
    }
    files.sort();
    let found = files.len();
    let known: Vec<_> = files.into_iter().filter(|path| formats::of(path).is_some()).collect();
    match (found, known.len()) {
        (0, _) => Err(none("no file there")),
        (_, 0) => Err(none(&format!("none of its {found} file(s) ends in {}", formats::endings()))),
        (found, known_files) => {
            if found > known_files {
                tracing::info!("text `{entry}`: {} file(s) of other kinds are left out", found - known_files);
            }
            Ok(known)
        }
    }
}

/// Every file below `directory`, hidden ones aside. Linked directories are not followed: links may be circular.
fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), TextError> {
    let io = |source| TextError::Io { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(io)? {
        let entry = entry.map_err(io)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if entry.file_type().map_err(io)?.is_dir() {
            walk(&path, files)?;
        } else if path.is_file() {
            files.push(path);
        }
    }
    Ok(())
}
