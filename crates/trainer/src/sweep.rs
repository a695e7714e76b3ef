//! Many dictionaries from one configuration: `[[train.sweep]]` tables, each a grid of alternatives.

use serde_json::Value as Json;
use toml::{Table, Value};

use crate::{TrainConfig, TrainError, plan::bad};

/// A configuration of a sweep, and what tells it from the others.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// What differs, as the name of a directory: `sparsity=2,width.expansion=8`.
    pub name: String,
    /// What differs: the path of each key and its value.
    pub differs: Vec<(String, Json)>,
    /// The configuration, without a sweep.
    pub config: TrainConfig,
}

/// Every combination of the alternatives in each table of `config.sweep`; nothing if it has none.
///
/// # Errors
/// A key that there is not, a value that it cannot have, an empty list, two members that are the same.
pub fn members(config: &TrainConfig) -> Result<Vec<Member>, TrainError> {
    let base = TrainConfig { sweep: Vec::new(), ..config.clone() };
    let base_table = Table::try_from(&base).expect("a configuration is a table of TOML");
    let mut members: Vec<Member> = Vec::new();
    for grid in &config.sweep {
        if grid.is_empty() || grid.contains_key("sweep") {
            let found = if grid.is_empty() { "a table without a key" } else { "a sweep within a sweep" };
            return Err(bad("sweep", "tables of keys of [train]", found));
        }
        for choice in combinations(grid)? {
            let mut member = apply(&base_table, &choice)?;
            // A λ of them all is not meant for those without a penalty.
            let chosen = choice.iter().any(|(path, _)| *path == ["sparsity"]);
            if !chosen && !member.numbers().architecture.penalised() {
                member.sparsity = None;
            }
            let name = name(&choice);
            if members.iter().any(|other| other.name == name || other.config == member) {
                return Err(bad("sweep", "members that differ", format!("`{name}` twice")));
            }
            let json = |value: &Value| serde_json::to_value(value).unwrap_or_default();
            let differs = choice.iter().map(|(path, value)| (path.join("."), json(value))).collect();
            members.push(Member { name, differs, config: member });
        }
    }
    Ok(members)
}

/// The path of a key and a value of it.
type Choice = (Vec<String>, Value);

/// Every way to choose one alternative for each key of a grid.
fn combinations(grid: &Table) -> Result<Vec<Vec<Choice>>, TrainError> {
    let mut all = vec![Vec::new()];
    for (path, alternatives) in leaves(grid, &[]) {
        if alternatives.is_empty() {
            return Err(bad("sweep", format!("alternatives for {}", path.join(".")), "an empty list"));
        }
        let with = |before: &Vec<Choice>, value: &Value| {
            let mut choice = before.clone();
            choice.push((path.clone(), value.clone()));
            choice
        };
        all =
            all.iter().flat_map(|before| alternatives.iter().map(move |value| with(before, value))).collect();
    }
    Ok(all)
}

/// Keys with their alternatives: what is no list has one.
fn leaves(table: &Table, path: &[String]) -> Vec<(Vec<String>, Vec<Value>)> {
    let each = table.iter().flat_map(|(key, value)| {
        let path = [path, std::slice::from_ref(key)].concat();
        match value {
            Value::Array(alternatives) => vec![(path, alternatives.clone())],
            Value::Table(inner) => leaves(inner, &path),
            value => vec![(path, vec![value.clone()])],
        }
    });
    each.collect()
}

/// The configuration `base` with the values of a choice in their places.
fn apply(base: &Table, choice: &[Choice]) -> Result<TrainConfig, TrainError> {
    let mut chosen = Table::new();
    choice.iter().for_each(|(path, value)| put(&mut chosen, path, value.clone()));
    let mut table = base.clone();
    for (key, value) in &chosen {
        // Values within a table leave the others there as they are. But some tables are a choice between keys, such as
        // `width`: those that cannot be with both are replaced, the innermost first.
        let mut parsed = Err(String::new());
        for depth in (0..=depth(value)).rev() {
            table.insert(key.clone(), merge(base.get(key), value, depth));
            parsed =
                Table::try_into::<TrainConfig>(table.clone()).map_err(|error| error.message().to_owned());
            if parsed.is_ok() {
                break;
            }
        }
        if let Err(reason) = parsed {
            let expected = "keys of [train], each with a list of values that it can have (where these are lists, a list of lists)";
            return Err(bad("sweep", expected, format!("{}: {reason}", name(choice))));
        }
    }
    Ok(Table::try_into(table).expect("just tried"))
}

fn put(table: &mut Table, path: &[String], value: Value) {
    let Some((key, rest)) = path.split_first() else { return };
    if rest.is_empty() {
        table.insert(key.clone(), value);
    } else if let Value::Table(inner) = table.entry(key.clone()).or_insert_with(|| Table::new().into()) {
        put(inner, rest, value);
    }
}

/// Tables within one another.
fn depth(value: &Value) -> usize {
    value.as_table().map_or(0, |table| 1 + table.values().map(depth).max().unwrap_or(0))
}

/// `over`, with what `base` has beside it in the first `depth` tables from outside. Of another `kind` nothing is kept.
fn merge(base: Option<&Value>, over: &Value, depth: usize) -> Value {
    match (base, over) {
        (Some(Value::Table(base)), Value::Table(over))
            if depth > 0 && over.get("kind").is_none_or(|kind| base.get("kind") == Some(kind)) =>
        {
            let mut merged = base.clone();
            for (key, value) in over {
                merged.insert(key.clone(), merge(base.get(key), value, depth - 1));
            }
            Value::Table(merged)
        }
        _ => over.clone(),
    }
}

/// What a choice is, as the name of a directory.
fn name(choice: &[Choice]) -> String {
    let part = |(path, value): &Choice| {
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        format!("{}={value}", path.join("."))
    };
    let name = choice.iter().map(part).collect::<Vec<_>>().join(",");
    let kept = |c: char| c.is_alphanumeric() || "=,.-_+".contains(c);
    name.chars().filter(|c| !c.is_whitespace()).map(|c| if kept(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use monosema_core::config;

    use super::*;
    use crate::Width;

    fn parse(toml: &str) -> Result<Vec<Member>, String> {
        let config: TrainConfig = config::parse("x.toml".as_ref(), toml, &[]).unwrap();
        members(&config).map_err(|error| error.to_string())
    }

    #[test]
    fn a_grid_is_every_combination() {
        let found =
            parse("lr = 1.0\n[[sweep]]\nsparsity = [1, 2.5]\nwidth = { expansion = [4, 8] }").unwrap();
        let names: Vec<_> = found.iter().map(|member| member.name.as_str()).collect();
        let expected = [
            "sparsity=1,width.expansion=4",
            "sparsity=1,width.expansion=8",
            "sparsity=2.5,width.expansion=4",
            "sparsity=2.5,width.expansion=8",
        ];
        assert_eq!(names, expected);
        assert_eq!((found[3].config.sparsity, found[3].config.width), (Some(2.5), Width::Expansion(8)));
        assert!(found.iter().all(|member| member.config.lr == Some(1.0) && member.config.sweep.is_empty()));
        assert_eq!(found[2].differs[0], ("sparsity".into(), 2.5.into()));
    }

    #[test]
    fn tables_add_up_and_kinds_replace_each_other() {
        let found = parse(
            "architecture = { kind = 'relu', apply_b_dec_to_input = true }\nwidth = { expansion = 2 }\n\
             [[sweep]]\nsparsity = [1]\nwidth = { latents = [30] }\n\
             [[sweep]]\narchitecture = { kind = 'top_k', k = [3, 4] }\n",
        )
        .unwrap();
        assert_eq!(found.len(), 3);
        assert_eq!(found[0].config.width, Width::Latents(30));
        assert_eq!(found[2].config.architecture.as_ref().unwrap().k(), Some(4));
        assert_eq!(found[2].name, "architecture.kind=top_k,architecture.k=4");
    }

    #[test]
    fn a_penalty_of_all_is_not_of_those_without_one() {
        let of_kinds = "sparsity = 2.0\n[[sweep]]\narchitecture = { kind = ['relu', 'top_k'], k = 3 }";
        assert!(parse(of_kinds).is_err(), "ReLU has no k");
        let found = parse(
            "sparsity = 2.0\n[[sweep]]\narchitecture = { kind = ['relu', 'gated'] }\n\
             [[sweep]]\narchitecture = { kind = 'top_k', k = [3] }",
        );
        let sparsities: Vec<_> = found.unwrap().iter().map(|member| member.config.sparsity).collect();
        assert_eq!(sparsities, [Some(2.0), Some(2.0), None]);
    }

    #[test]
    fn what_cannot_be_a_member_is_refused() {
        for (grid, part) in [
            ("sparstiy = [1]", "sparstiy"),
            ("sparsity = ['a']", "sparsity=a"),
            ("sparsity = []", "an empty list"),
            ("lr = [1, 1]", "`lr=1` twice"),
        ] {
            let error = parse(&format!("[[sweep]]\n{grid}")).unwrap_err();
            assert!(error.contains("[train] sweep") && error.contains(part), "{error}");
        }
        assert_eq!(parse("").unwrap(), []);
    }
}
