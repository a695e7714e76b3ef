//! `monosema recipes`: what each is, and what it says.

use anyhow::anyhow;
use monosema_trainer::Recipe;

use crate::{
    failure::{Failure, Outcome},
    output,
};

/// Lists them, or prints the one called `name` as it stands in its file.
pub(crate) fn run(name: Option<&str>) -> Outcome {
    let Some(name) = name else {
        return Recipe::ALL.iter().try_for_each(|recipe| {
            // The first sentence of what a file says of itself.
            let about = recipe.text().lines().map_while(|line| line.strip_prefix("# "));
            let about = about.collect::<Vec<_>>().join(" ");
            let sentence = about.split_once(". ").map_or(about.as_str(), |(first, _)| first);
            output::print(format_args!("{:<18} {}", recipe.name(), sentence.trim_end_matches(['.', ':'])))
        });
    };
    match Recipe::ALL.iter().find(|recipe| recipe.name() == name) {
        Some(recipe) => output::print(recipe.text().trim_end()),
        None => {
            let names: Vec<_> = Recipe::ALL.iter().map(|recipe| recipe.name()).collect();
            Err(Failure::usage(anyhow!("recipe `{name}`: expected one of {}", names.join(", "))))
        }
    }
}
