//! Reports on disk: what is in them, and when they are out of date.

use std::fs;

use monosema_core::digest_bytes;
use monosema_evaluator::{HTML_FILE, JSON_FILE, Report, definitions};
use serde_json::Value;

use crate::{reference::Reference, world::World};

#[test]
fn the_json_has_the_keys_that_programs_look_for() {
    let world = World::new();
    let dictionary = world.random();
    let report = world.evaluate(&world.config(), &dictionary);
    let text = fs::read_to_string(world.path("out").join(JSON_FILE)).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["schema"], 2);
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
    assert_eq!(Report::read(&world.path("out")).unwrap(), report);
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
        ("{}", "expected report schema 2, found none"),
        ("{\"schema\": 1}", "expected report schema 2, found 1"),
        ("{\"schema\": 2}", "not a report"),
    ] {
        fs::write(out.join(JSON_FILE), contents).unwrap();
        let error = Report::read(&out).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains(JSON_FILE), "{error}");
    }
}
