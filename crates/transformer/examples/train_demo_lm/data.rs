//! The tokenizer, and stories as windows of its tokens.

use std::path::Path;

use anyhow::Context;
use monosema_core::{AtomicFile, Seed};
use monosema_text::{Corpus, TextConfig, Tokenizer};
use rand::{Rng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokenizers::{
    AddedToken,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
    },
    pre_tokenizers::byte_level::ByteLevel,
};

const D_VOCAB: usize = 1024;
const END_OF_TEXT: &str = "<|endoftext|>";

/// The first of the special tokens.
pub(crate) const END_OF_TEXT_ID: u32 = 0;

/// The texts in `file`.
pub(crate) fn read_stories(file: &Path) -> anyhow::Result<Vec<String>> {
    let config = TextConfig::new(vec![file.display().to_string()]);
    let documents = Corpus::open(&config)?.documents();
    Ok(documents.map(|d| d.map(|d| d.text)).collect::<Result<_, _>>()?)
}

/// Trains a ByteLevel BPE on `stories` and writes it to `dir`. Token 0 ends a text; nothing begins one.
pub(crate) fn train_tokenizer(stories: &[String], dir: &Path) -> anyhow::Result<Tokenizer> {
    let trainer = BpeTrainer::builder()
        .vocab_size(D_VOCAB)
        .min_frequency(2)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        // Any text can be encoded, not only the stories' letters.
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut inner = tokenizers::Tokenizer::new(BPE::default());
    inner.with_pre_tokenizer(Some(ByteLevel::new(false, true, true)));
    inner.with_decoder(Some(ByteLevel::new(false, true, true)));
    inner
        .train(&mut TrainerWrapper::from(trainer), stories.iter().map(String::as_str))
        .map_err(anyhow::Error::from_boxed)?;
    let text = inner.to_string(true).map_err(anyhow::Error::from_boxed)?;
    AtomicFile::write(dir.join("tokenizer.json"), text.as_bytes())?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": null,
        "eos_token": END_OF_TEXT,
        "add_bos_token": false,
        "clean_up_tokenization_spaces": false,
    });
    AtomicFile::write(
        dir.join("tokenizer_config.json"),
        (serde_json::to_string_pretty(&config)? + "\n").as_bytes(),
    )?;
    let tokenizer = Tokenizer::from_dir(dir).context("reading the new tokenizer back")?;
    anyhow::ensure!(tokenizer.special().eos == Some(END_OF_TEXT_ID), "the end of text is another token");
    Ok(tokenizer)
}

/// The tokens of all stories, each with the end of text behind it.
pub(crate) fn tokenize(stories: &[String], tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    let encoded = tokenizer.encode_batch(stories.iter().map(String::as_str).collect())?;
    Ok(encoded.into_iter().flat_map(|story| story.into_iter().chain([END_OF_TEXT_ID])).collect())
}

/// Windows of a long text, shuffled anew for every epoch. Where an epoch begins to cut is drawn too, so that a token is
/// not always at the same position.
pub(crate) struct Windows<'a> {
    tokens: &'a [u32],
    length: usize,
    rng: ChaCha8Rng,
    /// Where the windows still to come in this epoch begin.
    begins: Vec<usize>,
}

impl<'a> Windows<'a> {
    /// Windows of `length` inputs and as many targets.
    pub(crate) fn new(tokens: &'a [u32], length: usize, seed: Seed) -> anyhow::Result<Self> {
        anyhow::ensure!(
            tokens.len() > 2 * length,
            "{} tokens are too few for windows of {length}",
            tokens.len()
        );
        Ok(Self { tokens, length, rng: seed.stream("train_demo_lm.windows"), begins: Vec::new() })
    }

    /// Inputs and targets of `n` windows, row after row.
    pub(crate) fn batch(&mut self, n: usize) -> (Vec<i32>, Vec<i32>) {
        let (mut inputs, mut targets) = (Vec::new(), Vec::new());
        for _ in 0..n {
            let begin = self.next_begin();
            let window = &self.tokens[begin..=begin + self.length];
            inputs.extend(window[..self.length].iter().map(|&t| t as i32));
            targets.extend(window[1..].iter().map(|&t| t as i32));
        }
        (inputs, targets)
    }

    fn next_begin(&mut self) -> usize {
        loop {
            if let Some(begin) = self.begins.pop() {
                return begin;
            }
            let first = self.rng.random_range(0..self.length);
            self.begins = (first..self.tokens.len() - self.length).step_by(self.length).collect();
            self.begins.shuffle(&mut self.rng);
        }
    }
}
