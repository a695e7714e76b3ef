//! Formats that dictionaries are stored in. A new one is one file and one line in `formats!`.

mod about;
mod keys;
mod module_names;
mod tensor_file;

use std::path::Path;

use burn::tensor::Device;
use monosema_core::HookPoint;

use self::about::About;
use crate::{Description, Dictionary, Sae, SaeConfig, SaeError, Scales, Size, Weights};

/// What a user says of a dictionary whose files say something else, or nothing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Given {
    /// Where in the model the activations are taken.
    pub hook: Option<HookPoint>,
    /// Where what comes out belongs, of a transcoder.
    pub hook_out: Option<HookPoint>,
    /// The language model.
    pub model_name: Option<String>,
}

/// A dictionary of which only names, types and shapes were read.
pub(crate) struct Opened {
    architecture: SaeConfig,
    size: Size,
    about: About,
    /// An error counts only if nobody else says it.
    hook: Result<HookPoint, SaeError>,
    /// Of a transcoder.
    hook_out: Result<HookPoint, SaeError>,
    /// What the weights were trained on activations multiplied by.
    scales: Option<Scales>,
    read: Read,
}

/// Reads the numbers: the weights, and log10(frequency + 1e-10) of every latent if it is known.
type Read = Box<dyn FnOnce() -> Result<(Weights, Option<Vec<f32>>), SaeError>>;

impl Opened {
    fn describe(self, given: &Given) -> Result<(Description, Option<Scales>, Read), SaeError> {
        let Self { architecture, size, mut about, hook, hook_out, scales, read } = self;
        let hook = given.hook.map_or(hook, Ok)?;
        let hook_out = match size.output {
            Some(_) => Some(given.hook_out.map_or(hook_out, Ok)?),
            None => None,
        };
        if let Some(scales) = scales {
            about.scale = Some(scales.input);
        }
        if given.model_name.is_some() {
            about.model_name.clone_from(&given.model_name);
        }
        Ok((Description { architecture, size, metadata: about.at(hook, hook_out) }, scales, read))
    }
}

/// A directory layout that holds one dictionary.
pub(crate) trait DictionaryFormat {
    /// What people call it.
    const NAME: &'static str;

    /// The files by which it is known.
    const FILES: &'static [&'static str];

    /// Files that say something of what it computes, where they are there.
    const MORE_FILES: &'static [&'static str] = &[];

    /// Opens a dictionary, strictly: whatever is missing, extra or misshapen is an error, and what is no function of one
    /// activation at a time, or none that is known here, is refused with the reason.
    fn open(directory: &Path) -> Result<Opened, SaeError>;

    /// Whether the format can hold this dictionary, for the tool whose format it is.
    ///
    /// # Errors
    /// What it cannot hold.
    fn expresses(_: &Dictionary) -> Result<(), SaeError> {
        Err(SaeError::NotExpressible { format: Self::NAME, what: "it is only read".into() })
    }

    /// Writes a dictionary whose numbers are all finite, or nothing. Returns the names of the files written.
    fn save(dictionary: &Dictionary, _: &Path) -> Result<Vec<String>, SaeError> {
        Self::expresses(dictionary).map(|()| Vec::new())
    }
}

macro_rules! formats {
    ($($name:ident => $module:ident),+ $(,)?) => {
        $(pub mod $module;)+

        /// Every known format.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Format {
            $(
                #[doc = concat!("See [`", stringify!($module), "`].")]
                $name,
            )+
        }

        impl Format {
            /// All formats, in the order in which they are looked for.
            pub const ALL: &'static [Self] = &[$(Self::$name),+];

            /// What people call it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $module::$name::NAME,)+ }
            }

            /// The files by which it is known.
            pub fn files(self) -> &'static [&'static str] {
                match self { $(Self::$name => $module::$name::FILES,)+ }
            }

            fn more_files(self) -> &'static [&'static str] {
                match self { $(Self::$name => $module::$name::MORE_FILES,)+ }
            }

            fn open(self, directory: &Path) -> Result<Opened, SaeError> {
                match self { $(Self::$name => $module::$name::open(directory),)+ }
            }

            /// Whether the format can hold this dictionary, for the tool whose format it is.
            ///
            /// # Errors
            /// What it cannot hold.
            pub fn expresses(self, dictionary: &Dictionary) -> Result<(), SaeError> {
                match self { $(Self::$name => $module::$name::expresses(dictionary),)+ }
            }

            /// Writes a dictionary in this format into an existing directory. Returns the names of the files.
            pub fn save(self, dictionary: &Dictionary, directory: &Path) -> Result<Vec<String>, SaeError> {
                match self { $(Self::$name => $module::$name::save(dictionary, directory),)+ }
            }
        }
    };
}

formats! {
    SaeLens => saelens,
    Sparsify => sparsify,
    DictionaryLearning => dictionary_learning,
    GemmaScope => gemma_scope,
    GemmaScope2 => gemma_scope_2,
    Llamascopium => llamascopium,
}

impl Format {
    /// The files in `directory` that what a dictionary of this format computes depends on.
    pub fn files_in(self, directory: &Path) -> Vec<&'static str> {
        let more = self.more_files().iter().filter(|name| directory.join(name).is_file());
        self.files().iter().chain(more).copied().collect()
    }

    /// The one in `directory`, by the files that are there.
    ///
    /// # Errors
    /// None is there.
    pub fn of(directory: &Path) -> Result<Self, SaeError> {
        let here = |format: &&Self| format.files().iter().all(|name| directory.join(name).is_file());
        Self::ALL.iter().find(here).copied().ok_or_else(|| {
            let expected: Vec<_> =
                Self::ALL.iter().map(|f| format!("{} ({})", f.files().join(" and "), f.name())).collect();
            SaeError::NotADictionary { directory: directory.to_owned(), expected: expected.join(", or ") }
        })
    }
}

/// Reads a dictionary of whichever format is in `directory`, strictly. What is `given` counts more than what its files say.
pub fn load(directory: &Path, given: &Given, device: &Device) -> Result<Dictionary, SaeError> {
    let (Description { architecture, size, metadata }, scales, read) =
        Format::of(directory)?.open(directory)?.describe(given)?;
    let (weights, log_sparsity) = read()?;
    let sae = Sae::from_weights(&architecture, size, weights, device);
    let sae = match scales {
        Some(scales) => sae.fold_scales(scales),
        None => sae,
    };
    Ok(Dictionary::new(sae, metadata, log_sparsity))
}

/// As [`load`], but of the weights only names, types and shapes are read.
pub fn describe(directory: &Path, given: &Given) -> Result<Description, SaeError> {
    Ok(Format::of(directory)?.open(directory)?.describe(given)?.0)
}
