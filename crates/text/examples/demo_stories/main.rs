//! Generates the demo's stories: simple English, told from a known set of factors, with the value of every factor at
//! every character.
//!
//! ```text
//! cargo run --release -p monosema-text --example demo_stories -- --out data/demo/stories
//! ```
//!
//! writes the two files that are in the repository, bit for bit. With `--lm N` it writes N further stories, the
//! text that the demo's language model learns; with `--tokenizer DIR`, the labels of every token in Parquet.
//! `data/README.md` describes the factors and the files.

#![cfg_attr(test, allow(clippy::unwrap_used))]
#![allow(clippy::print_stderr)] // what a program says to its user

mod factors;
mod labels;
mod lines;
mod story;
mod template;
mod verbs;
mod words;

use std::{
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser;
use monosema_core::{AtomicFile, Seed};
use story::Story;

/// Generates the demo's stories.
#[derive(Parser)]
struct Args {
    /// Directory that train.jsonl, heldout.jsonl (and lm.jsonl, *.labels.parquet) go to.
    #[arg(long)]
    out: PathBuf,
    /// The seed of all stories.
    #[arg(long, default_value_t = SEED.0)]
    seed: u64,
    /// How many stories to harvest and to train dictionaries on.
    #[arg(long, default_value_t = TRAIN)]
    train: u64,
    /// How many stories to evaluate on.
    #[arg(long, default_value_t = HELDOUT)]
    heldout: u64,
    /// How many stories to train a language model on (26000 for the one in the repository).
    #[arg(long)]
    lm: Option<u64>,
    /// Write the factors into train.jsonl too.
    #[arg(long)]
    spans: bool,
    /// Also write train.labels.parquet and heldout.labels.parquet, for the tokens of this directory's tokenizer.json.
    #[arg(long)]
    tokenizer: Option<PathBuf>,
}

const SEED: Seed = Seed(2026);
const TRAIN: u64 = 2200;
const HELDOUT: u64 = 400;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    fs::create_dir_all(&args.out).with_context(|| args.out.display().to_string())?;
    let seed = Seed(args.seed);
    for (set, count, with_spans) in [("train", args.train, args.spans), ("heldout", args.heldout, true)] {
        write_stories(&args.out, seed, set, count, with_spans)?;
        if let Some(dir) = &args.tokenizer {
            write_labels(&args.out, seed, set, count, dir)?;
        }
    }
    if let Some(count) = args.lm {
        write_stories(&args.out, seed, "lm", count, false)?;
    }
    Ok(())
}

fn write_stories(out: &Path, seed: Seed, set: &str, count: u64, with_spans: bool) -> anyhow::Result<()> {
    let path = out.join(format!("{set}.jsonl"));
    let mut file = AtomicFile::create(&path).with_context(|| path.display().to_string())?;
    let mut writer: BufWriter<&mut File> = BufWriter::new(file.file_mut());
    let mut bytes = 0;
    for id in 0..count {
        let story = story::tell(seed, set, id);
        bytes += story.text.len();
        writeln!(writer, "{}", labels::line(id, &story, with_spans))?;
    }
    writer.flush()?;
    drop(writer);
    file.commit().with_context(|| path.display().to_string())?;
    eprintln!("{}: {count} stories, {bytes} bytes of text", path.display());
    Ok(())
}

fn write_labels(out: &Path, seed: Seed, set: &str, count: u64, tokenizer: &Path) -> anyhow::Result<()> {
    let file = tokenizer.join("tokenizer.json");
    let tokenizer = tokenizers::Tokenizer::from_file(&file)
        .map_err(anyhow::Error::from_boxed)
        .with_context(|| file.display().to_string())?;
    let stories: Vec<Story> = (0..count).map(|id| story::tell(seed, set, id)).collect();
    let path = out.join(format!("{set}.labels.parquet"));
    let tokens = labels::write_token_labels(&path, &stories, &tokenizer)?;
    eprintln!("{}: {tokens} tokens", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The repository's files are what this program writes: their lengths, and every story of them.
    #[test]
    fn the_files_of_the_repository_are_reproduced() {
        let stories = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/demo/stories");
        let mut texts = std::collections::BTreeSet::new();
        for (set, count, with_spans) in [("train", TRAIN, false), ("heldout", HELDOUT, true)] {
            let written = fs::read_to_string(stories.join(format!("{set}.jsonl"))).unwrap();
            assert_eq!(written.lines().count() as u64, count);
            for (id, line) in (0..).zip(written.lines()) {
                let story = story::tell(SEED, set, id);
                assert_eq!(line, labels::line(id, &story, with_spans));
                assert!(texts.insert(story.text), "a story told twice");
            }
        }
    }
}
