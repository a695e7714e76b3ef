//! What holds at every token, and which half of the documents the token is in.

use std::collections::HashMap;

/// A value of a factor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Class {
    /// Which factor, as an index into [`Labels::factors`].
    pub(crate) factor: usize,
    /// The value.
    pub(crate) value: String,
}

/// The classes that each token is in. Factors and values are numbered as they come up.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    factors: Vec<String>,
    classes: Vec<Class>,
    numbers: HashMap<(String, String), u32>,
    /// Where each token's classes end in `members`.
    ends: Vec<usize>,
    members: Vec<u32>,
    held_out: Vec<bool>,
    halves: [Half; 2],
}

/// One half of the documents.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Half {
    /// Tokens in it.
    pub(crate) n: usize,
    /// Tokens in it of each class; of classes that never came up there, possibly no entry.
    positives: Vec<usize>,
}

impl Half {
    /// How many of its tokens are in `class`.
    pub(crate) fn positives(&self, class: usize) -> usize {
        self.positives.get(class).copied().unwrap_or(0)
    }

    /// How many are not.
    pub(crate) fn negatives(&self, class: usize) -> usize {
        self.n - self.positives(class)
    }
}

impl Labels {
    /// The number of a class, a new one if it comes up for the first time.
    pub(crate) fn number(&mut self, factor: &str, value: &str) -> u32 {
        let key = (factor.to_owned(), value.to_owned());
        if let Some(&number) = self.numbers.get(&key) {
            return number;
        }
        let number = u32::try_from(self.classes.len()).expect("fewer than 2^32 values");
        let index = self.factors.iter().position(|known| known == factor).unwrap_or_else(|| {
            self.factors.push(factor.to_owned());
            self.factors.len() - 1
        });
        self.classes.push(Class { factor: index, value: value.to_owned() });
        self.numbers.insert(key, number);
        number
    }

    /// Counts a token of these classes.
    pub(crate) fn push(&mut self, classes: &[u32], held_out: bool) {
        self.members.extend_from_slice(classes);
        self.ends.push(self.members.len());
        self.held_out.push(held_out);
        let half = &mut self.halves[usize::from(held_out)];
        half.n += 1;
        half.positives.resize(self.classes.len(), 0);
        classes.iter().for_each(|&class| half.positives[class as usize] += 1);
    }

    /// How many tokens there are.
    pub(crate) fn n(&self) -> usize {
        self.ends.len()
    }

    /// The classes of a token.
    pub(crate) fn of(&self, token: usize) -> &[u32] {
        let start = token.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.members[start..self.ends[token]]
    }

    /// Whether a token is of a class.
    pub(crate) fn is(&self, token: usize, class: usize) -> bool {
        self.of(token).contains(&(class as u32))
    }

    /// Whether a token is in the held-out half.
    pub(crate) fn is_held_out(&self, token: usize) -> bool {
        self.held_out[token]
    }

    /// The tokens of one half.
    pub(crate) fn tokens(&self, held_out: bool) -> impl Iterator<Item = usize> + '_ {
        (0..self.n()).filter(move |&token| self.held_out[token] == held_out)
    }

    /// One half.
    pub(crate) fn half(&self, held_out: bool) -> &Half {
        &self.halves[usize::from(held_out)]
    }

    /// The names of the factors.
    pub(crate) fn factors(&self) -> &[String] {
        &self.factors
    }

    /// Every class, by number.
    pub(crate) fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Classes with at least so many tokens in them, and so many that are not, in each half.
    pub(crate) fn eligible(&self, least: usize) -> Vec<usize> {
        let enough = |&class: &usize| {
            self.halves.iter().all(|half| half.positives(class) >= least && half.negatives(class) >= least)
        };
        (0..self.classes.len()).filter(enough).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_numbered_and_counted_half_by_half() {
        let mut labels = Labels::default();
        let (beach, dog) = (labels.number("place", "beach"), labels.number("animal", "dog"));
        labels.push(&[beach, dog], false);
        labels.push(&[], true);
        labels.push(&[beach], true);
        let farm = labels.number("place", "farm");
        labels.push(&[farm], false);
        assert_eq!(labels.number("place", "beach"), beach);
        assert_eq!(
            (labels.n(), labels.of(0), labels.of(1), labels.of(3)),
            (4, &[0, 1][..], &[][..], &[2][..])
        );
        assert_eq!(labels.factors(), ["place", "animal"]);
        assert_eq!(labels.classes()[2], Class { factor: 0, value: "farm".into() });
        let (fit, held_out) = (labels.half(false), labels.half(true));
        assert_eq!((fit.n, fit.positives(0), fit.positives(2), fit.negatives(2)), (2, 1, 1, 1));
        assert_eq!((held_out.n, held_out.positives(0), held_out.positives(2)), (2, 1, 0));
        assert_eq!(labels.eligible(1), [0], "animal and farm are in one half alone");
        assert_eq!(labels.tokens(true).collect::<Vec<_>>(), [1, 2]);
    }
}
