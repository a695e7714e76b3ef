//! Text with labels, read by the model and by the dictionary.

use burn::tensor::Device;
use monosema_core::Seed;
use monosema_sae::Dictionary;
use monosema_text::{Context, ContextBatch, Document, TextError, Tokenizer, contexts, limited};
use monosema_transformer::{Capture, LanguageModel};
use rand::Rng;

use crate::{
    error::EvalError, evaluate::UP_TO_HOOK, host, plan::EvalPlan, positions::Positions,
    reconstruct::chunk_rows, windows::tokens,
};

/// What reads text.
pub(crate) struct Reader<'a> {
    pub(crate) plan: &'a EvalPlan,
    pub(crate) model: &'a LanguageModel,
    pub(crate) tokenizer: &'a Tokenizer,
    pub(crate) dictionary: &'a Dictionary,
    pub(crate) device: &'a Device,
}

/// A window of tokens, and what there is at those that count, in their order.
pub(crate) struct Window<'a> {
    pub(crate) context: &'a Context,
    /// Activations where the dictionary reads, `[n_counted, d_in]`.
    pub(crate) x: &'a [f32],
    /// The latents that are active, and their values, of each.
    pub(crate) acts: &'a [Vec<(u32, f32)>],
}

impl Reader<'_> {
    /// Reads `documents` up to `limit` counted tokens and shows window after window in the order of the text. `in_text` says in an error which text it is, and
    /// `name` in another one.
    pub(crate) fn read(
        &self,
        documents: impl Iterator<Item = Result<Document, TextError>>,
        limit: Option<u64>,
        name: &str,
        in_text: impl Fn(TextError) -> EvalError,
        mut visit: impl FnMut(Window<'_>),
    ) -> Result<(), EvalError> {
        let windows = contexts(documents, self.tokenizer, &self.plan.context);
        let mut windows = limited(windows, limit).peekable();
        while windows.peek().is_some() {
            let batch: Result<Vec<_>, _> = windows.by_ref().take(self.plan.batch_contexts).collect();
            self.batch(&ContextBatch { contexts: batch.map_err(&in_text)? }, name, &in_text, &mut visit)?;
        }
        Ok(())
    }

    fn batch(
        &self,
        batch: &ContextBatch,
        name: &str,
        in_text: impl Fn(TextError) -> EvalError,
        visit: &mut impl FnMut(Window<'_>),
    ) -> Result<(), EvalError> {
        let d_in = self.dictionary.d_in();
        let hook = self.plan.hook();
        let mut capture = Capture::new([hook]);
        self.model.run(tokens(self.model, batch, in_text)?, &mut capture);
        let x = capture.take(hook).expect("the plan checked that the model has the hook");
        let x = host::values(x, UP_TO_HOOK)?;
        let x = Positions::new(batch).gather(&x, d_in);
        if x.iter().any(|x| !x.is_finite()) {
            return Err(EvalError::NotFinite { name: name.to_owned(), what: "an activation" });
        }
        let acts = self.encode(&x)?;
        let mut before = 0;
        for context in &batch.contexts {
            let counted = before..before + context.n_counted();
            before = counted.end;
            visit(Window { context, x: &x[counted.start * d_in..counted.end * d_in], acts: &acts[counted] });
        }
        Ok(())
    }

    /// The active latents of `x [n, d_in]`.
    fn encode(&self, x: &[f32]) -> Result<Vec<Vec<(u32, f32)>>, EvalError> {
        let (d_in, d_sae) = (self.dictionary.d_in(), self.dictionary.d_sae());
        let mut all = Vec::with_capacity(x.len() / d_in);
        for x in x.chunks(chunk_rows(d_sae) * d_in) {
            let tokens = host::tensor(x.to_vec(), [x.len() / d_in, d_in], self.device);
            let acts = host::values(self.dictionary.encode(tokens), "encoding activations")?;
            let active = |row: &[f32]| (0..).zip(row.iter().copied()).filter(|&(_, act)| act > 0.0).collect();
            all.extend(acts.chunks_exact(d_sae).map(active));
        }
        Ok(all)
    }
}

/// Two halves of documents: of every two that follow one another, one is held out, by chance.
pub(crate) struct Halves {
    draws: Box<dyn Iterator<Item = bool>>,
    drawn: Vec<bool>,
}

impl Halves {
    /// Those of the labelled text `name`.
    pub(crate) fn new(seed: Seed, name: &str) -> Self {
        let mut stream = seed.stream(&format!("halves of {name}"));
        Self { draws: Box::new(std::iter::repeat_with(move || stream.random())), drawn: Vec::new() }
    }

    /// Whether a document is held out.
    pub(crate) fn is_held_out(&mut self, document: u64) -> bool {
        let pair = usize::try_from(document / 2).expect("documents that were read are counted in memory");
        while self.drawn.len() <= pair {
            self.drawn.extend(self.draws.next());
        }
        self.drawn[pair] ^ document.is_multiple_of(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_equal_and_stay() {
        let mut halves = Halves::new(Seed(3), "x");
        let found: Vec<bool> = (0..200).map(|document| halves.is_held_out(document)).collect();
        assert_eq!(found.iter().filter(|&&held_out| held_out).count(), 100);
        assert!(found.chunks(2).all(|pair| pair[0] != pair[1]));
        assert!(found.chunks(2).any(|pair| pair[0]) && found.chunks(2).any(|pair| pair[1]));
        let mut again = Halves::new(Seed(3), "x");
        assert_eq!(again.is_held_out(199), found[199]);
        assert_ne!((0..200).map(|d| Halves::new(Seed(3), "y").is_held_out(d)).collect::<Vec<_>>(), found);
    }
}
