//! The tables of configs/README.md are what the program takes: every key that there is and no other, with the types
//! and the defaults that they say.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use monosema_core::{Seed, config::parse};
use monosema_evaluator::{ConceptsConfig, EvalConfig, NamedText, ProbesConfig};
use monosema_harvester::HarvestConfig;
use monosema_sae::SaeConfig;
use monosema_text::{ContextConfig, TextConfig};
use monosema_trainer::{Recipe, TrainConfig};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

/// A key that nobody would give.
const NONSENSE: &str = "no_such_key_at_all";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// One line of a table.
#[derive(Debug)]
struct Row {
    key: String,
    kind: String,
    default: String,
}

/// The table under a heading of configs/README.md.
fn table(heading: &str) -> Vec<Row> {
    let text = fs::read_to_string(root().join("configs/README.md")).unwrap();
    let mut lines = text.lines().skip_while(|line| line.trim_start_matches('#').trim() != heading).skip(1);
    let rows: Vec<Row> = lines
        .by_ref()
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with("| `"))
        .map(|line| {
            let cells: Vec<_> = line.split('|').map(|cell| cell.trim().to_owned()).collect();
            let [_, key, kind, default, _, _] = &cells[..] else { panic!("not four cells: {line}") };
            Row { key: key.trim_matches('`').into(), kind: kind.clone(), default: default.clone() }
        })
        .collect();
    assert!(!rows.is_empty(), "no table under `{heading}`");
    rows
}

/// What stands in backticks.
fn code(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

fn toml_value(text: &str) -> Value {
    let table: toml::Table = format!("v = {text}").parse().unwrap_or_else(|e| panic!("`{text}`: {e}"));
    serde_json::to_value(&table["v"]).unwrap()
}

/// Values that a type cell promises to take, and some that it must not.
fn samples(kind: &str) -> (Vec<&str>, Vec<&str>) {
    let written = code(kind);
    if !written.is_empty() {
        return (written, vec!["\"nonsense\"", "{ nonsense = 1 }"]);
    }
    match kind {
        "integer" => (vec!["7"], vec!["0.5", "\"7\"", "-1"]),
        "number" => (vec!["0.5", "1e-4", "1"], vec!["\"0.5\"", "true"]),
        "boolean" => (vec!["true", "false"], vec!["1", "\"true\""]),
        "string" => (vec!["\"x\""], vec!["1"]),
        "list of strings" => (vec!["[\"x\"]", "[]"], vec!["\"x\"", "[1]"]),
        "list of two numbers" => (vec!["[0.5, 0.25]"], vec!["[0.5]", "0.5"]),
        "list of tokens" => (vec!["[\"x\", 7]", "[]"], vec!["\"x\"", "[0.5]", "[-1]"]),
        "hook" => (vec!["\"blocks.0.hook_resid_post\""], vec!["\"blocks.0\"", "0"]),
        "list of hooks" => (vec!["[\"blocks.0.hook_resid_post\", \"hook_embed\"]"], vec!["[\"x\"]", "0"]),
        "text" => (vec!["{ files = [\"x\"] }"], vec!["{ file = [\"x\"] }", "\"x\""]),
        "grids" => (vec!["[{ lr = [1e-3, 1e-4] }]"], vec!["{ lr = [1e-3] }", "[1]"]),
        "tables" => (vec!["[{ name = \"a\", files = [\"x\"] }]"], vec!["[{ name = \"a\" }]", "{}"]),
        other => panic!("no such type: `{other}`"),
    }
}

fn accepts<T: DeserializeOwned>(lines: &[String]) -> Result<T, String> {
    parse(Path::new("x.toml"), &lines.join("\n"), &[]).map_err(|e| e.to_string())
}

/// The keys that `T` takes, as its error for another one lists them.
fn known_keys<T: DeserializeOwned>() -> BTreeSet<String> {
    let error = accepts::<T>(&[format!("{NONSENSE} = 1")]).err().unwrap();
    let listed = error.split_once(NONSENSE).unwrap().1;
    let listed = listed.rsplit_once(NONSENSE).map_or(listed, |(_, after)| after);
    let (_, listed) = listed.split_once("expected").unwrap_or_else(|| panic!("no keys in: {error}"));
    let listed = listed.split("did you mean").next().unwrap();
    code(listed).into_iter().map(str::to_owned).collect()
}

fn equal(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b)),
        _ => a == b,
    }
}

/// Holds the table under `heading` against `T`. `defaults` fills in what `T` leaves open.
fn check<T: DeserializeOwned + Serialize>(heading: &str, defaults: &Value) {
    let rows = table(heading);
    let keys: BTreeSet<_> = rows.iter().map(|row| row.key.clone()).collect();
    assert_eq!(keys, known_keys::<T>(), "{heading}");

    let line = |row: &Row, value: &str| format!("{} = {value}", row.key);
    let required: Vec<&Row> = rows.iter().filter(|row| row.default == "required").collect();
    let minimal: Vec<String> = required.iter().map(|row| line(row, samples(&row.kind).0[0])).collect();
    let parsed =
        accepts::<T>(&minimal).unwrap_or_else(|e| panic!("{heading}, nothing but what it requires: {e}"));
    let parsed = serde_json::to_value(&parsed).unwrap();
    for (i, row) in required.iter().enumerate() {
        let mut without = minimal.clone();
        without.remove(i);
        let error =
            accepts::<T>(&without).err().unwrap_or_else(|| panic!("{heading}: {} is optional", row.key));
        assert!(error.contains(&format!("`{}`", row.key)), "{error}");
    }
    for row in &rows {
        let others = || rows_without(&minimal, &row.key);
        let (good, bad) = samples(&row.kind);
        for value in good {
            let lines = [others(), vec![line(row, value)]].concat();
            accepts::<T>(&lines).unwrap_or_else(|e| panic!("{heading}: {} = {value}: {e}", row.key));
        }
        for value in bad {
            let lines = [others(), vec![line(row, value)]].concat();
            assert!(accepts::<T>(&lines).is_err(), "{heading}: {} = {value} is taken", row.key);
        }
        if row.default == "required" {
            continue;
        }
        let found = Some(&parsed[&row.key]).filter(|v| !v.is_null()).or_else(|| defaults.get(&row.key));
        match (found, row.default.strip_prefix('`').and_then(|d| d.strip_suffix('`'))) {
            (Some(found), Some(told)) => {
                assert!(equal(found, &toml_value(told)), "{heading}: {}: {told}, but it is {found}", row.key);
            }
            (None, None) => {}
            (found, _) => panic!("{heading}: {}: {}, but it is {found:?}", row.key, row.default),
        }
    }
}

fn rows_without(lines: &[String], key: &str) -> Vec<String> {
    lines.iter().filter(|line| !line.starts_with(&format!("{key} ="))).cloned().collect()
}

#[test]
fn sections_are_what_their_tables_say() {
    check::<ContextConfig>("`[context]`", &Value::Null);
    check::<HarvestConfig>("`[harvest]`", &Value::Null);
    check::<TextConfig>("`text`", &Value::Null);
    check::<EvalConfig>("`[eval]`", &Value::Null);
    check::<NamedText>("`[[eval.texts]]`", &Value::Null);
    check::<ConceptsConfig>("`[[eval.concepts]]`", &Value::Null);
    check::<ProbesConfig>("`[[eval.probes]]`", &Value::Null);
}

#[test]
fn training_is_what_its_table_says() {
    let recipe = TrainConfig::default().recipe;
    check::<TrainConfig>(
        "`[train]`",
        &serde_json::to_value(recipe.unwrap_or(Recipe::April2024).numbers()).unwrap(),
    );
}

#[test]
fn every_architecture_has_a_table() {
    let kinds: BTreeSet<String> = SaeConfig::variants()
        .iter()
        .map(|config| {
            let mut config = serde_json::to_value(config).unwrap();
            let kind = config.as_object_mut().unwrap().remove("kind").unwrap();
            let kind = kind.as_str().unwrap().to_owned();
            let rows = table(&format!("`architecture`, `kind = \"{kind}\"`"));
            let keys: BTreeSet<_> = rows.iter().map(|row| row.key.as_str()).collect();
            assert_eq!(keys, config.as_object().unwrap().keys().map(String::as_str).collect(), "{kind}");
            let mut minimal = serde_json::json!({ "kind": kind });
            for row in rows.iter().filter(|row| row.default == "required") {
                let error = serde_json::from_value::<SaeConfig>(minimal.clone()).unwrap_err().to_string();
                assert!(error.contains(&format!("`{}`", row.key)), "{error}");
                minimal[&row.key] = toml_value(samples(&row.kind).0[0]);
            }
            let default: SaeConfig = serde_json::from_value(minimal).unwrap();
            let default = serde_json::to_value(default).unwrap();
            for row in rows.iter().filter(|row| row.default != "required") {
                assert!(
                    equal(&default[&row.key], &toml_value(row.default.trim_matches('`'))),
                    "{kind}: {row:?}"
                );
            }
            kind
        })
        .collect();
    assert!(kinds.contains("relu"));
}

/// The fields of a struct of the binary, which no library shares.
fn fields(name: &str) -> BTreeSet<String> {
    let source = fs::read_to_string(root().join("crates/cli/src/experiment.rs")).unwrap();
    let (_, body) =
        source.split_once(&format!("struct {name} {{")).unwrap_or_else(|| panic!("no struct {name}"));
    let body = body.split_once("\n}").unwrap().0;
    let lines =
        body.lines().map(|line| line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) "));
    lines
        .filter(|line| !line.starts_with("//") && !line.starts_with('#'))
        .filter_map(|line| Some(line.split_once(": ")?.0.to_owned()))
        .collect()
}

#[test]
fn the_top_level_is_what_its_table_says() {
    for (heading, name) in [("Top level", "Experiment"), ("`[model]`", "ModelConfig")] {
        let keys: BTreeSet<_> = table(heading).into_iter().map(|row| row.key).collect();
        assert_eq!(keys, fields(name), "{heading}");
    }
    let seed = table("Top level").into_iter().find(|row| row.key == "seed").unwrap();
    assert_eq!(seed.default, format!("`{}`", Seed::default().0));
}

#[test]
fn the_experiments_of_the_repository_use_keys_of_the_tables() {
    for name in ["quickstart.toml", "smollm2-sotu.toml"] {
        let text = fs::read_to_string(root().join("configs").join(name)).unwrap();
        let experiment: toml::Table = text.parse().unwrap();
        let of = |heading: &str| table(heading).into_iter().map(|row| row.key).collect::<BTreeSet<_>>();
        let within = |section: &toml::Table, heading: &str| {
            for key in section.keys() {
                assert!(of(heading).contains(key), "{name}: {key} is not in the table `{heading}`");
            }
        };
        within(&experiment, "Top level");
        for section in ["model", "context", "harvest", "train", "eval"] {
            within(experiment[section].as_table().unwrap(), &format!("`[{section}]`"));
        }
    }
}
