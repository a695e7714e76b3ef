//! Documents to windows: tokenised in chunks, cut as the plan says.

use std::collections::VecDeque;

use crate::{Context, ContextPlan, Corpus, Document, Flaws, TextError, Tokenizer};

/// Text tokenised at once: enough to keep all cores busy, little enough to hold.
const CHUNK_BYTES: usize = 1 << 20;

/// Memory that a byte of text takes while it is tokenised: measured, 83 to 95 with byte-level BPE.
const MEMORY_PER_BYTE: u64 = 95;

impl Corpus {
    /// Bytes of memory that tokenising takes at most, roughly: of a .txt file all of its text at once.
    pub fn tokenizing_bytes(&self) -> u64 {
        MEMORY_PER_BYTE * self.largest_document().max(self.bytes().min(CHUNK_BYTES as u64))
    }
}

/// Documents tokenised at once, however short.
const CHUNK_DOCUMENTS: usize = 1024;

/// Packs `documents` into windows as `plan` says.
///
/// The tokens of the documents follow one another, with the plan's separator between two documents of a
/// window, and are cut every `plan.length` tokens (BOS included). A last window of two tokens or more is kept
/// at its own length; without `span_documents` that holds for every document. Documents without a token
/// leave no trace.
///
/// # Errors
/// Those of `documents` and of the tokenizer; and [`TextError::NoContexts`] if there is no window at all. After
/// an error the stream ends.
pub fn contexts<'a>(
    documents: impl Iterator<Item = Result<Document, TextError>> + 'a,
    tokenizer: &'a Tokenizer,
    plan: &ContextPlan,
) -> impl Iterator<Item = Result<Context, TextError>> + 'a {
    Contexts {
        documents,
        tokenizer,
        packer: Packer::new(plan.clone()),
        state: State::Reading,
        n_documents: 0,
        n_tokens: 0,
        n_contexts: 0,
    }
}

#[derive(PartialEq)]
enum State {
    Reading,
    Ending,
    Done,
}

struct Contexts<'a, I> {
    documents: I,
    tokenizer: &'a Tokenizer,
    packer: Packer,
    state: State,
    n_documents: u64,
    n_tokens: u64,
    n_contexts: u64,
}

impl<I: Iterator<Item = Result<Document, TextError>>> Contexts<'_, I> {
    /// Tokenises and packs the next chunk of documents.
    fn read_chunk(&mut self) -> Result<(), TextError> {
        let (mut chunk, mut bytes) = (Vec::new(), 0);
        while bytes < CHUNK_BYTES && chunk.len() < CHUNK_DOCUMENTS {
            let Some(document) = self.documents.next().transpose()? else {
                self.state = State::Ending;
                break;
            };
            bytes += document.text.len();
            chunk.push(document);
        }
        let encoded = self.tokenizer.encode_batch(chunk.iter().map(|d| d.text.as_str()).collect())?;
        for (document, tokens) in chunk.iter().zip(&encoded) {
            self.n_documents += 1;
            self.n_tokens += tokens.len() as u64;
            self.packer.push(document, tokens, self.tokenizer);
        }
        Ok(())
    }

    fn try_next(&mut self) -> Result<Option<Context>, TextError> {
        loop {
            if let Some(context) = self.packer.ready.pop_front() {
                self.n_contexts += 1;
                return Ok(Some(context));
            }
            match self.state {
                State::Reading => self.read_chunk()?,
                State::Ending => {
                    self.packer.close_window();
                    self.state = State::Done;
                }
                State::Done if self.n_contexts == 0 => {
                    return Err(TextError::NoContexts { documents: self.n_documents, tokens: self.n_tokens });
                }
                State::Done => return Ok(None),
            }
        }
    }
}

impl<I: Iterator<Item = Result<Document, TextError>>> Iterator for Contexts<'_, I> {
    type Item = Result<Context, TextError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.state == State::Done && self.packer.ready.is_empty() {
            return None;
        }
        let next = self.try_next();
        if next.is_err() {
            self.state = State::Done;
            self.packer.ready.clear();
        }
        next.transpose()
    }
}

/// Cuts tokens into windows.
struct Packer {
    plan: ContextPlan,
    open: Context,
    /// The document of the last token, and how many of its tokens there have been.
    last: (u64, u64),
    ready: VecDeque<Context>,
}

impl Packer {
    fn new(plan: ContextPlan) -> Self {
        Self { plan, open: Context::default(), last: (0, 0), ready: VecDeque::new() }
    }

    fn push(&mut self, document: &Document, tokens: &[u32], tokenizer: &Tokenizer) {
        let &Document { id: document, flaws, .. } = document;
        if tokens.is_empty() {
            return;
        }
        if !self.plan.span_documents {
            self.close_window();
        }
        // An open window holds an earlier document. A closed one needs no separator: nothing crosses its edge.
        if let (Some(separator), Some(&earlier)) = (self.plan.separator, self.open.documents.last()) {
            self.put(separator, earlier, false, tokenizer);
        }
        for (i, &token) in tokens.iter().enumerate() {
            if let (Some(bos), true) = (self.plan.bos, self.open.is_empty()) {
                self.put(bos, document, false, tokenizer);
            }
            if i == 0 && flaws != Flaws::default() {
                self.open.flaws.push((self.open.len(), flaws));
            }
            self.put(token, document, i + 1 == tokens.len(), tokenizer);
        }
    }

    /// Appends a token; `is_last` if it is the last of its document.
    fn put(&mut self, token: u32, document: u64, is_last: bool, tokenizer: &Tokenizer) {
        let verdict = self.plan.judge(self.open.len(), is_last, token, tokenizer);
        let place = if self.last.0 == document { self.last.1 } else { 0 };
        self.last = (document, place + 1);
        if self.open.is_empty() {
            self.open.before = place;
        }
        self.open.tokens.push(token);
        self.open.documents.push(document);
        self.open.verdicts.push(verdict);
        if self.open.len() == self.plan.length {
            self.close_window();
        }
    }

    /// Keeps the open window if it is long enough to predict anything in.
    fn close_window(&mut self) {
        let window = std::mem::take(&mut self.open);
        if window.len() >= 2 {
            self.ready.push_back(window);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::special::tests::tokenizer;
    use std::{collections::BTreeSet, path::PathBuf};

    /// Words of the test tokenizer: a 3, b 4, c 5; `<s>` 1, `</s>` 2.
    fn pack(texts: &[&str], plan: &ContextPlan) -> Result<Vec<Context>, TextError> {
        contexts(documents(texts), &tokenizer(false), plan).collect()
    }

    fn documents(texts: &[&str]) -> impl Iterator<Item = Result<Document, TextError>> {
        texts.iter().enumerate().map(|(id, text)| {
            let (source, flaws) = (PathBuf::from("x.txt"), Flaws::default());
            Ok(Document { id: id as u64, source, text: (*text).to_owned(), flaws, beside: None })
        })
    }

    fn plan(length: usize) -> ContextPlan {
        ContextPlan {
            length,
            bos: None,
            separator: None,
            span_documents: true,
            skip_first: 0,
            positions: None,
            skip_bos: false,
            skip_special: false,
            only_tokens: None,
            skip_tokens: BTreeSet::new(),
        }
    }

    fn tokens(contexts: &[Context]) -> Vec<&[u32]> {
        contexts.iter().map(|c| c.tokens.as_slice()).collect()
    }

    #[test]
    fn documents_follow_one_another() {
        let packed = pack(&["a b", "", "c", "a a"], &plan(2)).unwrap();
        assert_eq!(tokens(&packed), [[3, 4], [5, 3]]);
        assert_eq!(packed[1].documents, [2, 3]);
        // The fifth token alone is no window; a sixth makes it one.
        let packed = pack(&["a b", "", "c", "a a", "b"], &plan(4)).unwrap();
        assert_eq!(tokens(&packed), [[3, 4, 5, 3].as_slice(), &[3, 4]]);
        assert_eq!(packed[1].documents, [3, 4]);
    }

    #[test]
    fn separators_stand_between_documents_and_never_first() {
        let plan = ContextPlan { separator: Some(2), ..plan(3) };
        // `a b` leaves room for its separator, which fills the window; `c a b` leaves none.
        let packed = pack(&["a b", "c a b", "a", "b"], &plan).unwrap();
        assert_eq!(tokens(&packed), [[3, 4, 2], [5, 3, 4], [3, 2, 4]]);
        assert_eq!(packed[0].documents, [0, 0, 0]);
        assert_eq!(packed[2].documents, [2, 2, 3]);
        // After the last document stands nothing.
        assert_eq!(tokens(&pack(&["a", "b", ""], &plan).unwrap()), [[3, 2, 4]]);
    }

    #[test]
    fn every_window_begins_with_bos() {
        let plan = ContextPlan { bos: Some(1), separator: Some(1), ..plan(4) };
        let packed = pack(&["a b c a", "b"], &plan).unwrap();
        assert_eq!(tokens(&packed), [[1, 3, 4, 5], [1, 3, 1, 4]]);
        assert_eq!(packed[1].documents, [0, 0, 0, 1]);
        // A token left over makes a window together with BOS.
        let packed = pack(&["a b c a b c", "c"], &ContextPlan { separator: None, ..plan.clone() }).unwrap();
        assert_eq!(tokens(&packed), [[1, 3, 4, 5].as_slice(), &[1, 3, 4, 5], &[1, 5]]);
        assert_eq!(packed[2].documents, [1, 1]);
    }

    #[test]
    fn documents_kept_apart_end_in_short_windows() {
        let plan = ContextPlan { span_documents: false, ..plan(3) };
        let packed = pack(&["a b c a b", "c", "a b c", "b a"], &plan).unwrap();
        assert_eq!(tokens(&packed), [[3, 4, 5].as_slice(), &[3, 4], &[3, 4, 5], &[4, 3]]);
        let documents: Vec<_> = packed.iter().map(|c| c.documents[0]).collect();
        assert_eq!(documents, [0, 0, 2, 3]);
    }

    #[test]
    fn first_positions_and_special_tokens_do_not_count() {
        let counted = |skip_first, skip_special| {
            let skip_bos = skip_special;
            let plan = ContextPlan {
                bos: Some(1),
                separator: Some(2),
                skip_first,
                skip_bos,
                skip_special,
                ..plan(5)
            };
            let packed = pack(&["a </s> b", "c"], &plan).unwrap();
            assert_eq!(tokens(&packed), [[1, 3, 2, 4, 2].as_slice(), &[1, 5]]);
            packed
                .iter()
                .map(|c| (0..c.len()).map(|position| c.counts(position)).collect())
                .collect::<Vec<Vec<bool>>>()
        };
        let (yes, no) = (true, false);
        assert_eq!(counted(0, false), [vec![yes; 5], vec![yes; 2]]);
        assert_eq!(counted(0, true), [vec![no, yes, no, yes, no], vec![no, yes]]);
        assert_eq!(counted(2, true), [vec![no, no, no, yes, no], vec![no, no]]);
        assert_eq!(counted(2, false), [vec![no, no, yes, yes, yes], vec![no, no]]);
    }

    #[test]
    fn flaws_go_with_the_window_in_which_their_document_begins() {
        let flaws = |invalid_utf8, nul| Flaws { invalid_utf8, nul };
        let all = [flaws(1, 0), flaws(0, 0), flaws(7, 7), flaws(0, 2)];
        let documents = documents(&["a b c a", "b", "", "c"]).zip(all);
        let documents = documents.map(|(document, flaws)| document.map(|d| Document { flaws, ..d }));
        let (tokenizer, plan) = (tokenizer(false), ContextPlan { bos: Some(1), ..plan(4) });
        // <s> a b c | <s> a b c
        let mut packed: Vec<_> = contexts(documents, &tokenizer, &plan).map(Result::unwrap).collect();
        let found: Vec<_> = packed.iter().map(|context| context.flaws.clone()).collect();
        assert_eq!(found, [vec![(1, flaws(1, 0))], vec![(3, flaws(0, 2))]], "and nothing of no token's");
        packed[1].truncate(3);
        assert_eq!(packed[1].flaws, []);
    }

    #[test]
    fn a_token_keeps_its_place_within_its_document_through_all_windows() {
        let places = |packed: &[Context]| -> Vec<(u64, u64)> {
            packed.iter().flat_map(|c| c.documents.iter().copied().zip(c.places())).collect()
        };
        let plan = ContextPlan { bos: Some(1), separator: Some(2), ..plan(4) };
        // <s> a b c | <s> a </s> b | <s> c
        let packed = pack(&["a b c a", "b c"], &plan).unwrap();
        assert_eq!(tokens(&packed), [[1, 3, 4, 5].as_slice(), &[1, 3, 2, 4], &[1, 5]]);
        let expected = [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (0, 6), (1, 0), (1, 1), (1, 2)];
        assert_eq!(places(&packed), expected);
        // A window that is too short to be one takes its places with it.
        let apart = ContextPlan { span_documents: false, bos: None, separator: None, ..plan };
        let packed = pack(&["a b c a b", "b c"], &apart).unwrap();
        assert_eq!(places(&packed), [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]);
        let alone = pack(&["", "b c"], &apart).unwrap();
        assert_eq!(places(&alone), [(1, 0), (1, 1)], "what comes before does not matter");
    }

    #[test]
    fn the_last_token_of_each_document_can_be_chosen() {
        let last = |span_documents| {
            let positions = Some("last".parse().unwrap());
            let plan = ContextPlan { positions, span_documents, ..plan(3) };
            let packed = pack(&["a b", "c", "a b c a b"], &plan).unwrap();
            packed.iter().map(|c| c.counted().collect::<Vec<_>>()).collect::<Vec<_>>()
        };
        // `a b c`, `a b c`, `a b`; apart: `a b`, `a b c`, `a b`.
        assert_eq!(last(true), [vec![1, 2], vec![], vec![1]]);
        assert_eq!(last(false), [vec![1], vec![], vec![1]]);
    }

    #[test]
    fn text_without_a_window_is_an_error_and_the_stream_ends() {
        for texts in [[].as_slice(), &["", "  "], &["a"]] {
            let tokenizer = tokenizer(false);
            let all: Vec<_> = contexts(documents(texts), &tokenizer, &plan(8)).collect();
            assert_eq!(all.len(), 1);
            let error = all[0].as_ref().unwrap_err();
            let expected = (texts.len() as u64, texts.iter().filter(|t| !t.trim().is_empty()).count() as u64);
            assert!(
                matches!(error, TextError::NoContexts { documents, tokens } if (*documents, *tokens) == expected),
                "{error}"
            );
        }
    }

    #[test]
    fn chunks_leave_no_seam() {
        // More documents than a chunk holds, and more bytes.
        let text = "a b c ".repeat(100);
        let texts: Vec<&str> = (0..3000).map(|_| text.trim()).collect();
        let packed = pack(&texts, &plan(7)).unwrap();
        let all: Vec<u32> = packed.iter().flat_map(|c| c.tokens.clone()).collect();
        let n = 3000 * 300 / 7 * 7 + if 3000 * 300 % 7 >= 2 { 3000 * 300 % 7 } else { 0 };
        assert_eq!(all.len(), n);
        assert!(all.iter().enumerate().all(|(i, &t)| t == 3 + (i % 3) as u32));
        let documents = packed.iter().flat_map(|c| c.documents.clone());
        assert!(documents.enumerate().all(|(i, d)| d == (i / 300) as u64));
    }
}
