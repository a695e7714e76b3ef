//! Named sets of numbers from the literature: each a file of the keys of `[train]`, with its source.

use monosema_sae::SaeConfig;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::config::{Numbers, TrainConfig};

/// Declares the recipes: the name of each, which is that of its file.
macro_rules! recipes {
    ($($variant:ident => $name:literal,)+) => {
        /// A named set of numbers from the literature.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
        pub enum Recipe {
            $(
                #[doc = concat!("`recipes/", $name, ".toml`:\n\n```toml\n", include_str!(concat!("../recipes/", $name, ".toml")), "```")]
                #[serde(rename = $name)]
                $variant,
            )+
        }

        impl Recipe {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As configurations have it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Its file: keys of `[train]`, and where they come from.
            pub fn text(self) -> &'static str {
                match self { $(Self::$variant => include_str!(concat!("../recipes/", $name, ".toml")),)+ }
            }
        }
    };
}

recipes! {
    April2024 => "april2024",
    PlainL1 => "plain_l1",
    SaeBench => "saebench",
    Karvonen2024 => "karvonen2024",
    Gao2024 => "gao2024",
    Bussmann2024 => "bussmann2024",
    Bussmann2025 => "bussmann2025",
    GemmaScope => "gemma_scope",
    January2025 => "january2025",
    Rajamanoharan2024 => "rajamanoharan2024",
}

impl Recipe {
    /// The first recipe of an architecture's kind.
    pub fn of(architecture: &SaeConfig) -> Self {
        let same_kind = |recipe: &&Self| {
            std::mem::discriminant(&recipe.numbers().architecture) == std::mem::discriminant(architecture)
        };
        Self::ALL.iter().find(same_kind).copied().unwrap_or(Self::April2024)
    }

    /// What the recipe says, and our defaults where it says nothing.
    pub fn numbers(self) -> Numbers {
        self.overridden(Table::new())
    }

    fn overridden(self, overrides: Table) -> Numbers {
        let mut all: Table = include_str!("../recipes/defaults.toml").parse().expect("a test reads it");
        all.extend(self.text().parse::<Table>().expect("a test reads every recipe"));
        all.extend(overrides);
        Table::try_into(all).expect("a test reads every recipe, and what overrides it was parsed")
    }
}

impl TrainConfig {
    /// The recipe that fills in what is left out.
    pub fn recipe(&self) -> Recipe {
        let of_kind = || self.architecture.as_ref().map_or(Recipe::April2024, Recipe::of);
        self.recipe.unwrap_or_else(of_kind)
    }

    /// The numbers of the recipe, but for those that are given.
    pub fn numbers(&self) -> Numbers {
        let mut given = Table::try_from(self).expect("a configuration is a table of TOML");
        given.retain(|key, _| Numbers::NAMES.contains(&key));
        let mut numbers = self.recipe().overridden(given);
        if self.sparsity.is_none() && !numbers.architecture.penalised() {
            // A recipe's coefficient is for an architecture with a penalty.
            numbers.sparsity = 0.0;
        }
        numbers
    }
}

#[cfg(test)]
mod tests {
    use monosema_core::config;

    use super::*;

    #[test]
    fn every_recipe_is_whole() {
        for recipe in Recipe::ALL {
            let numbers = recipe.numbers();
            // What a file says is what comes out, to the last key.
            let file: Table = recipe.text().parse().unwrap();
            let out = Table::try_from(&numbers).unwrap();
            for (key, value) in file.iter().filter(|(key, _)| *key != "architecture") {
                assert_eq!(out[key], *value, "{recipe:?} {key}");
            }
            assert_eq!(numbers.sparsity > 0.0, numbers.architecture.penalised(), "{recipe:?}");
            assert!(recipe.text().contains("https://"), "{recipe:?} says where it comes from");
        }
    }

    #[test]
    fn an_architecture_has_a_recipe_and_what_is_given_goes_before_it() {
        let parse = |toml: &str| config::parse::<TrainConfig>("x.toml".as_ref(), toml, &[]).unwrap();
        assert_eq!(parse("").recipe(), Recipe::April2024);
        let config = parse("architecture = { kind = 'top_k', k = 7 }\nlr = 1");
        assert_eq!(config.recipe(), Recipe::Gao2024);
        let numbers = config.numbers();
        assert_eq!((numbers.lr, numbers.adam_eps, numbers.batch_tokens), (1.0, 6.25e-10, 4096));
        assert_eq!(numbers.architecture, config.architecture.unwrap());
        let config = parse("architecture = { kind = 'top_k', k = 7 }\nrecipe = 'saebench'");
        assert_eq!((config.numbers().lr, config.numbers().sparsity), (3e-4, 0.0));
    }
}
