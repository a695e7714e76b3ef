//! Formats that dictionaries are stored in. A new one is one file and one line in `formats!`.

use std::path::Path;

use burn::tensor::Device;

use crate::{Description, Dictionary, SaeError};

/// A directory layout that holds one dictionary.
pub(crate) trait DictionaryFormat {
    /// The files by which it is known.
    const FILES: &'static [&'static str];

    /// Reads a dictionary, strictly: whatever is missing, extra or misshapen is an error.
    fn load(directory: &Path, device: &Device) -> Result<Dictionary, SaeError>;

    /// As `load`, but of the weights only names, types and shapes.
    fn describe(directory: &Path) -> Result<Description, SaeError>;

    /// Writes a dictionary whose numbers are all finite, or nothing. Returns the names of the files written.
    fn save(dictionary: &Dictionary, directory: &Path) -> Result<Vec<String>, SaeError>;
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

            /// The files by which it is known.
            pub fn files(self) -> &'static [&'static str] {
                match self { $(Self::$name => $module::$name::FILES,)+ }
            }

            /// Reads a dictionary of this format, strictly.
            pub fn load(self, directory: &Path, device: &Device) -> Result<Dictionary, SaeError> {
                match self { $(Self::$name => $module::$name::load(directory, device),)+ }
            }

            /// As [`Format::load`], but of the weights only names, types and shapes.
            pub fn describe(self, directory: &Path) -> Result<Description, SaeError> {
                match self { $(Self::$name => $module::$name::describe(directory),)+ }
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
}

/// Reads a dictionary of whichever format is in `directory`.
pub fn load(directory: &Path, device: &Device) -> Result<Dictionary, SaeError> {
    find(directory)?.load(directory, device)
}

/// Describes a dictionary of whichever format is in `directory`.
pub fn describe(directory: &Path) -> Result<Description, SaeError> {
    find(directory)?.describe(directory)
}

fn find(directory: &Path) -> Result<Format, SaeError> {
    let here = |format: &&Format| format.files().iter().all(|name| directory.join(name).is_file());
    Format::ALL.iter().find(here).copied().ok_or_else(|| {
        let expected: Vec<_> =
            Format::ALL.iter().map(|f| format!("{} ({f:?})", f.files().join(" and "))).collect();
        SaeError::NotADictionary { directory: directory.to_owned(), expected: expected.join(", or ") }
    })
}
