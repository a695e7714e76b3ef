//! What the members of a sweep came to, side by side.

use crate::{
    failure::Outcome,
    output,
    places::Places,
};

/// Prints the members.
pub(crate) fn summarise(places: &Places, members: &[(String, Places)], as_json: bool) -> Outcome {
    let _ = (places, as_json);
    members.iter().try_for_each(|(name, _)| output::print(name))
}
