//! Reports on disk: what is in them, and when they are out of date.

use std::fs;

use monosema_core::digest_bytes;
use monosema_evaluator::{
    Convention, EvalConfig, HTML_FILE, JSON_FILE, Report, WEIGHT_DEFINITIONS, definitions,
};
use serde_json::Value;

use crate::{
    reference::Reference,
    world::{D_MODEL, World},
};

#[test]
fn the_json_has_the_keys_that_programs_look_for() {
    let world = World::new();
    let dictionary = world.random();
    let report = world.evaluate(&world.config(), &dictionary);
    let text = fs::read_to_string(world.path("out").join(JSON_FILE)).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["schema"], 3);
    assert_eq!(json["metrics"]["ce.clean"], report.figure("ce.clean").unwrap());
    assert_eq!(json["texts"][1]["name"], "b");
    assert!(json["texts"][1]["counted_tokens"].as_u64().unwrap() > 0);
    assert!(json["texts"][1]["metrics"]["fvu"].is_f64());
    assert_eq!(json["counted"]["counted_tokens"], report.counted.tally.counted_tokens);
    assert_eq!(json["dictionary"]["hook"], "blocks.1.hook_resid_post");
    assert_eq!(json["model"]["d_model"], 16);
    assert_eq!(json["manifest"]["stage"], "eval");
    assert!(json["manifest"]["inputs"]["text a"]["sha256"].is_string());
    let windows = Reference::new(&world, &[world.text("b", "b.jsonl")]).windows;
    let ids: Vec<u8> = windows.iter().flat_map(|w| &w.tokens).flat_map(|id| id.to_le_bytes()).collect();
    assert_eq!(json["texts"][1]["windows_sha256"], digest_bytes(&ids).as_str());
    for definition in definitions() {
        assert!(json["metrics"].get(definition.name).is_some(), "{}", definition.name);
        assert!(json["definitions"][definition.name]["formula"].is_string(), "{}", definition.name);
    }
    let weights = json["dictionary"]["weights"].as_object().unwrap();
    assert_eq!(weights.len(), WEIGHT_DEFINITIONS.len());
    for (definition, value) in WEIGHT_DEFINITIONS.iter().zip(report.dictionary.weights.values()) {
        assert_eq!(weights[definition.name].as_f64(), value, "{}", definition.name);
        assert!(json["definitions"][definition.name]["formula"].is_string(), "{}", definition.name);
    }
    assert_eq!(Report::read(&world.path("out")).unwrap(), report);
}

/// What is wrong with `value` by `schema`: of objects their keys, of lists their entries, of the rest their type. The whole of
/// JSON Schema is a matter for `scripts/conformance.sh`, which has a library for it.
fn faults(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return faults(root, root.pointer(reference.trim_start_matches('#')).unwrap(), value, path);
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(name) => vec![name],
        Value::Array(names) => names.iter().map(|name| name.as_str().unwrap()).collect(),
        _ => Vec::new(),
    };
    let is = |name: &&str| match *name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64(),
        "null" => value.is_null(),
        other => panic!("{path}: a type {other}"),
    };
    let mut found = Vec::new();
    if !types.is_empty() && !types.iter().any(is) {
        found.push(format!("{path}: expected {types:?}, found {value}"));
    }
    if schema.get("const").is_some_and(|expected| expected != value) {
        found.push(format!("{path}: expected {}, found {value}", schema["const"]));
    }
    for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if value.get(key).is_none() {
            found.push(format!("{path}: {key} is missing"));
        }
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{key}");
        match (schema["properties"].get(key), schema.get("additionalProperties")) {
            (Some(schema), _) => found.extend(faults(root, schema, value, &path)),
            (None, Some(Value::Bool(false))) => found.push(format!("{path} is not in the schema")),
            (None, Some(schema)) => found.extend(faults(root, schema, value, &path)),
            (None, None) => {}
        }
    }
    for (index, value) in value.as_array().into_iter().flatten().enumerate() {
        found.extend(faults(root, &schema["items"], value, &format!("{path}/{index}")));
    }
    found
}

#[test]
fn the_json_is_what_its_schema_says() {
    let schema: Value = serde_json::from_str(include_str!("../../report.schema.json")).unwrap();
    let world = World::new();
    let config =
        EvalConfig { conventions: [Convention::SaeLens, Convention::SaeBench].into(), ..world.config() };
    for dictionary in [world.random(), world.constant("zeros", vec![0.0; D_MODEL])] {
        world.evaluate(&config, &dictionary);
        let text = fs::read_to_string(world.path("out").join(JSON_FILE)).unwrap();
        let mut json: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(faults(&schema, &schema, &json, ""), [""; 0]);
        // A schema that takes everything would say nothing.
        json["intervals"]["of"]["fvu"] = serde_json::json!(["0.1", 2.0]);
        json["counted"]["other"] = 1.into();
        json["texts"][0].as_object_mut().unwrap().remove("windows_sha256");
        assert_eq!(faults(&schema, &schema, &json, "").len(), 3);
    }
}

#[test]
fn the_page_needs_nothing_else_and_shows_the_exact_figures() {
    let world = World::new();
    let report = world.evaluate(&world.config(), &world.random());
    let html = fs::read_to_string(world.path("out").join(HTML_FILE)).unwrap();
    for outside in ["http:", "https:", "src=", "url(", "@import", "<script", "<link"] {
        assert!(!html.contains(outside), "{outside}");
    }
    for (name, value) in &report.metrics {
        let cell = format!("data-figure=\"{name}\" data-text=\"all\" data-value=\"{}\"", value.unwrap());
        assert!(html.contains(&cell), "{cell}");
    }
    assert!(html.contains(&report.counted.rule) && html.contains("</html>"));
    for (role, input) in &report.manifest.work.inputs {
        assert!(html.contains(&input.name) && html.contains(input.sha256.as_str()), "{role}");
    }
}

#[test]
fn a_report_knows_its_dictionary() {
    let world = World::new();
    let dictionary = world.random();
    let report = world.evaluate(&world.config(), &dictionary);
    assert!(report.is_of(&dictionary).unwrap());
    assert!(!report.is_of(&world.identity()).unwrap());
    fs::remove_file(dictionary.join("cfg.json")).unwrap();
    assert!(!report.is_of(&dictionary).unwrap(), "a part of it is not it");
}

#[test]
fn a_report_is_up_to_date_until_an_input_or_the_report_changes() {
    let world = World::new();
    let (out, dictionary, config) = (world.path("out"), world.random(), world.config());
    let work = || world.plan(&config, &dictionary).work(&world.checkpoint(), &dictionary).unwrap();
    assert!(Report::up_to_date(&out, &work()).is_none());
    let report = world.evaluate(&config, &dictionary);
    assert_eq!(Report::up_to_date(&out, &work()), Some(report.clone()));

    let html = fs::read(out.join(HTML_FILE)).unwrap();
    fs::write(out.join(HTML_FILE), "edited").unwrap();
    assert!(Report::up_to_date(&out, &work()).is_none(), "the page was changed");
    fs::write(out.join(HTML_FILE), html).unwrap();

    let mut limited = config.clone();
    limited.tokens = Some(10);
    let other = world.plan(&limited, &dictionary).work(&world.checkpoint(), &dictionary).unwrap();
    assert!(Report::up_to_date(&out, &other).is_none(), "another configuration");

    // As long as before, so that only its digest tells.
    let text = fs::read_to_string(world.path("b.jsonl")).unwrap();
    let at = text.find(" w").unwrap();
    fs::write(world.path("b.jsonl"), format!("{} x{}", &text[..at], &text[at + 2..])).unwrap();
    assert!(Report::up_to_date(&out, &work()).is_none(), "the text was changed");
}

#[test]
fn what_is_not_a_report_is_named() {
    let world = World::new();
    let out = world.path("out");
    fs::create_dir(&out).unwrap();
    for (contents, part) in [
        ("{", "not JSON"),
        ("{}", "expected report schema 3, found none"),
        ("{\"schema\": 1}", "expected report schema 3, found 1"),
        ("{\"schema\": 3}", "not a report"),
    ] {
        fs::write(out.join(JSON_FILE), contents).unwrap();
        let error = Report::read(&out).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(JSON_FILE), "{error}");
    }
}
