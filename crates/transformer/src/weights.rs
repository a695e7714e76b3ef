//! Strict loading: a model takes every tensor that a checkpoint holds, by name and shape, and no other.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{ModelError, blocks::transposed, formats::TensorSource};

/// How a checkpoint's tensor must be changed to be what the model's own name for it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Not at all.
    AsIs,
    /// Rows are columns.
    Transposed,
    /// Less by one than what is multiplied with, which is how transformers has the norms of Gemma.
    LessOne,
    /// The rows of each of `heads` heads are in the order of interleaved rotary pairs (0, half, 1, half + 1, …),
    /// which is how llama.cpp has the queries and keys of Llama.
    Interleaved {
        /// How many heads there are.
        heads: usize,
    },
    /// Queries, keys and values of each of `heads` heads in turn, not those of all heads, which is how transformers
    /// has those of GPT-NeoX.
    HeadByHead {
        /// How many heads there are.
        heads: usize,
    },
}

/// What a checkpoint's tensor is to the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// The weight of this name, stored so.
    Weight(String, Stored),
    /// Nothing: a buffer, or a part of the model that has nothing to do with language.
    Ignored,
    /// One too many.
    Unknown,
}

/// A checkpoint's tensors under the model's names.
pub(crate) struct Weights<'a> {
    path: PathBuf,
    source: &'a dyn TensorSource,
    /// The model's name → the name in the file.
    stored: BTreeMap<String, (&'a str, Stored)>,
    unknown: Vec<String>,
    taken: BTreeSet<String>,
    /// What the files should call the tensor of the model's name.
    name_in_file: NameInFile<'a>,
}

type NameInFile<'a> = Box<dyn Fn(&str) -> String + 'a>;

impl<'a> Weights<'a> {
    /// The tensors of `source`, which lies at `path`, in their roles. `name_in_file` is the way back from the names of
    /// weights.
    ///
    /// # Errors
    /// If two tensors of the files have the same name in the model.
    pub(crate) fn new(
        path: &Path,
        source: &'a dyn TensorSource,
        role: impl Fn(&str) -> Role,
        name_in_file: impl Fn(&str) -> String + 'a,
    ) -> Result<Self, ModelError> {
        let (mut stored, mut unknown) = (BTreeMap::<_, (&str, Stored)>::new(), Vec::new());
        for (name, tensor) in source.tensors() {
            let (own, how) = match role(name) {
                Role::Weight(own, how) => (own, how),
                Role::Ignored => continue,
                Role::Unknown => {
                    unknown.push(name.clone());
                    continue;
                }
            };
            if let Some((other, _)) = stored.get(&own) {
                let reason = format!("is the same weight of the model as {other}; remove one of them");
                return Err(ModelError::BadTensor {
                    file: tensor.file.clone(),
                    tensor: name.clone(),
                    reason,
                });
            }
            stored.insert(own, (name.as_str(), how));
        }
        let (path, name_in_file) = (path.to_owned(), Box::new(name_in_file));
        Ok(Self { path, source, stored, unknown, taken: BTreeSet::new(), name_in_file })
    }

    /// Whether there is a tensor `name`.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.stored.contains_key(name)
    }

    /// The values of the tensor `name`, row by row.
    ///
    /// # Errors
    /// If it is missing, of another shape than `shape`, unreadable, or if a value is not finite.
    pub(crate) fn take<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
    ) -> Result<Vec<f32>, ModelError> {
        let Some(&(stored_name, stored)) = self.stored.get(name) else {
            return Err(ModelError::MissingTensor {
                path: self.path.clone(),
                tensor: (self.name_in_file)(name),
                expected: shape.to_vec(),
            });
        };
        let found = &self.source.tensors()[stored_name];
        let mut expected = shape.to_vec();
        if stored == Stored::Transposed {
            expected.reverse();
        }
        if found.shape != expected {
            return Err(ModelError::MisshapenTensor {
                file: found.file.clone(),
                tensor: stored_name.to_owned(),
                expected,
                found: found.shape.clone(),
            });
        }
        let values = self.source.read(stored_name)?;
        if let Some(at) = values.iter().position(|x| !x.is_finite()) {
            return Err(ModelError::BadTensor {
                file: found.file.clone(),
                tensor: stored_name.to_owned(),
                reason: format!("value {at} is {}; the weights are damaged", values[at]),
            });
        }
        self.taken.insert(name.to_owned());
        Ok(restore(values, &shape, stored))
    }

    /// As [`Weights::take`] if `wanted`.
    pub(crate) fn take_if<const D: usize>(
        &mut self,
        wanted: bool,
        name: &str,
        shape: [usize; D],
    ) -> Result<Option<Vec<f32>>, ModelError> {
        wanted.then(|| self.take(name, shape)).transpose()
    }

    /// Takes a tensor that repeats `values` if the checkpoint spells it out: a tied output.
    pub(crate) fn take_copy<const D: usize>(
        &mut self,
        name: &str,
        shape: [usize; D],
        values: &[f32],
        of: &str,
    ) -> Result<(), ModelError> {
        if !self.has(name) || self.take(name, shape)? == values {
            return Ok(());
        }
        let (stored_name, _) = self.stored[name];
        Err(ModelError::BadTensor {
            file: self.source.tensors()[stored_name].file.clone(),
            tensor: stored_name.to_owned(),
            reason: format!(
                "differs from {}, though the configuration says that they are one (tied)",
                (self.name_in_file)(of)
            ),
        })
    }

    /// Ends the loading: whatever was not taken is one too many.
    pub(crate) fn finish(self) -> Result<(), ModelError> {
        let left = self.stored.iter().filter(|(own, _)| !self.taken.contains(*own));
        let mut tensors = self.unknown;
        tensors.extend(left.map(|(_, (stored_name, _))| (*stored_name).to_owned()));
        if tensors.is_empty() { Ok(()) } else { Err(ModelError::ExtraTensors { path: self.path, tensors }) }
    }
}

/// `values` of the file as a tensor of `shape`.
fn restore(values: Vec<f32>, shape: &[usize], stored: Stored) -> Vec<f32> {
    let rows = shape[0];
    let width = values.len() / rows.max(1);
    match stored {
        Stored::AsIs => values,
        Stored::Transposed => transposed(&values, width),
        Stored::LessOne => values.into_iter().map(|x| x + 1.0).collect(),
        Stored::Interleaved { heads } => {
            let d_head = rows / heads;
            reordered(&values, rows, |row| {
                let (head, within) = (row / d_head, row % d_head);
                let (half, pair) = (within / (d_head / 2), within % (d_head / 2));
                head * d_head + 2 * pair + half
            })
        }
        Stored::HeadByHead { heads } => {
            let d_head = rows / heads / 3;
            reordered(&values, rows, |row| {
                let (kind, within) = (row / (heads * d_head), row % (heads * d_head));
                let (head, place) = (within / d_head, within % d_head);
                (3 * head + kind) * d_head + place
            })
        }
    }
}

/// `values` of so many rows, of which each is what `source` says.
fn reordered(values: &[f32], rows: usize, source: impl Fn(usize) -> usize) -> Vec<f32> {
    let width = values.len() / rows.max(1);
    (0..rows).flat_map(|row| &values[source(row) * width..][..width]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::StoredTensor;

    struct Memory(BTreeMap<String, StoredTensor>, BTreeMap<String, Vec<f32>>);

    impl TensorSource for Memory {
        fn tensors(&self) -> &BTreeMap<String, StoredTensor> {
            &self.0
        }
        fn read(&self, name: &str) -> Result<Vec<f32>, ModelError> {
            Ok(self.1[name].clone())
        }
    }

    fn source(tensors: &[(&str, &[usize], &[f32])]) -> Memory {
        let stored = |shape: &[usize]| StoredTensor { file: "w".into(), shape: shape.to_vec() };
        Memory(
            tensors.iter().map(|(name, shape, _)| ((*name).to_owned(), stored(shape))).collect(),
            tensors.iter().map(|(name, _, values)| ((*name).to_owned(), values.to_vec())).collect(),
        )
    }

    fn weights(source: &Memory) -> Weights<'_> {
        let role = |name: &str| match name {
            "inv_freq" => Role::Ignored,
            "z" => Role::Unknown,
            name => Role::Weight(name.to_owned(), Stored::AsIs),
        };
        Weights::new(Path::new("m"), source, role, |own| format!("file.{own}")).unwrap()
    }

    #[test]
    fn rows_and_columns_return_to_their_places() {
        let x: Vec<f32> = (0..8).map(|i| i as f32).collect();
        // Stored [2, 4], meant [4, 2].
        assert_eq!(restore(x.clone(), &[4, 2], Stored::Transposed), [0., 4., 1., 5., 2., 6., 3., 7.]);
        // Two heads of four rows of one: pairs (0, 1) and (2, 3) of each hold rows (0, 2) and (1, 3).
        let interleaved = restore(x.clone(), &[8], Stored::Interleaved { heads: 2 });
        assert_eq!(interleaved, [0., 2., 1., 3., 4., 6., 5., 7.]);
        // Two heads of one query, one key and one value each, and rows of one.
        let by_head = restore(x[..6].to_vec(), &[6], Stored::HeadByHead { heads: 2 });
        assert_eq!(by_head, [0., 3., 1., 4., 2., 5.]);
        assert_eq!(restore(vec![-0.5, 1.0], &[2], Stored::LessOne), [0.5, 2.0]);
    }

    #[test]
    fn what_is_missing_misshapen_or_not_finite_is_named() {
        let source = source(&[("a", &[2], &[1.0, f32::NAN]), ("b", &[1, 2], &[1.0, 2.0])]);
        let mut weights = weights(&source);
        let error = |e: Result<Vec<f32>, ModelError>| e.unwrap_err().to_string();
        assert!(error(weights.take("c", [3, 4])).starts_with("m: tensor file.c [3, 4] is missing"));
        assert_eq!(error(weights.take("b", [2, 1])), "w: tensor b: expected shape [2, 1], found [1, 2]");
        assert_eq!(error(weights.take("a", [2])), "w: tensor a: value 1 is NaN; the weights are damaged");
    }

    #[test]
    fn two_tensors_of_one_name_are_an_error() {
        let source = source(&[("a", &[1], &[1.0]), ("x.a", &[1], &[1.0])]);
        let role = |name: &str| Role::Weight(name.trim_start_matches("x.").to_owned(), Stored::AsIs);
        let error = Weights::new(Path::new("m"), &source, role, str::to_owned).err().unwrap().to_string();
        assert!(error.contains("w: tensor x.a: is the same weight of the model as a;"), "{error}");
    }

    #[test]
    fn nothing_may_be_left_but_what_is_ignored() {
        let names = ["a", "b", "inv_freq", "z"];
        let source = source(&names.map(|name| (name, &[1][..], &[1.0][..])));
        let mut all = weights(&source);
        all.take("a", [1]).unwrap();
        let error = all.finish().unwrap_err();
        assert!(
            matches!(&error, ModelError::ExtraTensors { tensors, .. } if tensors == &["z", "b"]),
            "{error}"
        );
    }

    #[test]
    fn a_tied_copy_must_be_equal() {
        let source = source(&[("head", &[2], &[1.0, 2.0])]);
        weights(&source).take_copy("head", [2], &[1.0, 2.0], "embed").unwrap();
        weights(&source).take_copy("other", [2], &[1.0, 2.0], "embed").unwrap();
        let error = weights(&source).take_copy("head", [2], &[1.0, 3.0], "embed").unwrap_err();
        assert!(error.to_string().contains("differs from file.embed,"), "{error}");
    }
}
