//! What is left out, by place, by token and by norm, and how it is counted.

use std::{collections::BTreeMap, fs};

use monosema_core::Seed;
use monosema_harvester::{HarvestConfig, HarvestPlan, HarvestSummary};
use monosema_store::{Batch, Order, Store};
use monosema_text::{ContextConfig, Tally, TokenName, batches};
use monosema_transformer::Checkpoint;

use crate::fixture::{D_MODEL, Fixture, context, hooks, stored};

impl Fixture {
    /// Harvests into a directory of this name.
    fn run_as(&self, name: &str, config: &HarvestConfig, context: &ContextConfig) -> HarvestSummary {
        let plan = HarvestPlan::resolve(config, context, &self.checkpoint, Seed(1)).unwrap();
        self.run_plan_into(&self.dir.path().join(name), &plan, &self.checkpoint).unwrap()
    }

    /// What is stored there for each hook.
    fn all_stored(&self, name: &str) -> Vec<Batch> {
        hooks().into_iter().map(|hook| stored(&self.dir.path().join(name), hook)).collect()
    }
}

#[test]
fn chosen_places_and_tokens_are_stored_and_the_others_counted() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    let token = |text: &str| TokenName::Text(text.into());
    for (name, context) in [
        ("positions", ContextConfig { positions: Some("3..6,last".parse().unwrap()), ..context() }),
        ("only", ContextConfig { only_tokens: Some(vec![token("w3"), TokenName::Id(9)]), ..context() }),
        ("skip", ContextConfig { skip_tokens: vec![token("w0")], skip_special: false, ..context() }),
        ("all", ContextConfig { skip_first: 0, skip_bos: false, skip_special: false, ..context() }),
    ] {
        let summary = fixture.run_as(name, &fixture.config(), &context);
        let windows = fixture.windows_of(&context);
        let expected: Vec<_> = windows
            .iter()
            .flat_map(|w| w.counted().map(|p| (w.tokens[p], w.documents[p], p as u32)))
            .collect();
        let batch = &fixture.all_stored(name)[0];
        let rows = batch.token_ids.iter().zip(&batch.documents).zip(&batch.positions);
        assert!(rows.map(|((&t, &d), &p)| (t, d, p)).eq(expected), "{name}");
        let tally: Tally = windows.iter().flat_map(|w| w.verdicts.clone()).collect();
        let counts = summary.counts;
        assert_eq!(
            (counts.seen, summary.tokens, counts.tokens()),
            (tally.seen, tally.counted, tally.counted)
        );
        assert_eq!(
            (counts.skipped_position, counts.skipped_bos, counts.skipped_special, counts.skipped_token),
            (tally.skipped_position, tally.skipped_bos, tally.skipped_special, tally.skipped_token)
        );
        let manifest = Store::open(&fixture.dir.path().join(name)).unwrap().manifest().clone();
        assert_eq!(manifest.counts["tokens_seen"], tally.seen);
        assert_eq!(manifest.counts["skipped_token"], tally.skipped_token);
        assert_eq!(manifest.counts["skipped_position"], tally.skipped_position);
    }
    // Each has something of its own to leave out, or nothing at all.
    let counts = |name: &str| Store::open(&fixture.dir.path().join(name)).unwrap().manifest().counts.clone();
    assert!(counts("positions")["skipped_position"] > counts("skip")["skipped_position"]);
    assert!(counts("only")["skipped_token"] > counts("skip")["skipped_token"]);
    assert!(counts("skip")["skipped_token"] > 0);
    assert_eq!(counts("all")["tokens"], counts("all")["tokens_seen"]);
}

/// Which of the rows of `all` are above no hook's limit, batch by batch of the fixture's configuration.
fn within(fixture: &Fixture, all: &[Batch], multiple: f64) -> Vec<usize> {
    let (mut kept, mut first) = (Vec::new(), 0);
    for batch in batches(fixture.windows().into_iter().map(Ok), 40) {
        let rows = first..first + batch.unwrap().n_counted();
        let over = |hook: &Batch, row: usize| {
            let norm = |row: usize| {
                let x = &hook.x[row * D_MODEL..(row + 1) * D_MODEL];
                x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt()
            };
            let mut norms: Vec<f64> = rows.clone().map(norm).collect();
            norms.sort_by(f64::total_cmp);
            norm(row) > multiple * norms[(norms.len() - 1) / 2]
        };
        kept.extend(rows.clone().filter(|&row| !all.iter().any(|hook| over(hook, row))));
        first = rows.end;
    }
    assert_eq!(first, all[0].n);
    kept
}

#[test]
fn rows_of_a_large_norm_at_any_hook_are_left_out() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    fixture.run_as("all", &fixture.config(), &context());
    let all = fixture.all_stored("all");
    let multiple = 1.2;
    let kept = within(&fixture, &all, multiple);
    assert!(kept.len() > 20 && kept.len() + 20 < all[0].n, "{} of {}", kept.len(), all[0].n);

    let config = HarvestConfig { max_norm_multiple: Some(multiple), ..fixture.config() };
    let plan = fixture.plan(&config).unwrap();
    assert!(
        plan.rows_depend_on_values() && !fixture.plan(&fixture.config()).unwrap().rows_depend_on_values()
    );
    let summary = fixture.run_as("filtered", &config, &context());
    assert_eq!(summary.tokens, kept.len() as u64);
    assert_eq!(summary.counts.skipped_norm, (all[0].n - kept.len()) as u64);
    for (all, filtered) in all.iter().zip(fixture.all_stored("filtered")) {
        let expected: Vec<f32> =
            kept.iter().flat_map(|&row| all.x[row * D_MODEL..(row + 1) * D_MODEL].to_vec()).collect();
        assert_eq!(filtered.x, expected, "bit for bit");
        assert!(filtered.positions.iter().eq(kept.iter().map(|&row| &all.positions[row])));
    }

    // The limit is of what is kept, and what comes after it is not counted.
    let config = HarvestConfig { tokens: Some(35), ..config };
    let summary = fixture.run_as("limited", &config, &context());
    assert_eq!((summary.tokens, summary.counts.tokens()), (35, 35));
    assert_eq!(summary.counts.skipped_norm, (kept[34] - 34) as u64);
    let (some, all) = (fixture.all_stored("limited"), fixture.all_stored("filtered"));
    assert_eq!(some[0].x, all[0].x[..35 * D_MODEL]);
    let manifest = Store::open(&fixture.dir.path().join("limited")).unwrap().manifest().clone();
    assert_eq!(manifest.counts["skipped_norm"], summary.counts.skipped_norm);
}

#[test]
fn what_was_interrupted_goes_on_to_the_same_rows_and_counts() {
    let fixture = Fixture::new(&[28, 1, 0, 25, 90]);
    for (name, max_norm_multiple) in [("plain", None), ("filtered", Some(1.2))] {
        let config = HarvestConfig {
            max_norm_multiple,
            tokens: Some(52),
            shard_tokens: 10,
            order: Order::Shuffled,
            ..fixture.config()
        };
        let out = fixture.dir.path().join(name);
        let files = || {
            let entries = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path());
            entries.map(|path| (path.clone(), fs::read(path).unwrap())).collect::<BTreeMap<_, _>>()
        };
        fixture.run_as(name, &config, &context());
        let finished = files();
        assert_eq!(finished.len(), 7);
        for lost in [0..1, 1..3, 5..6, 2..6] {
            fs::remove_file(out.join("manifest.json")).unwrap();
            lost.for_each(|n| fs::remove_file(out.join(format!("shard-{n:05}.parquet"))).unwrap());
            fixture.run_as(name, &config, &context());
            assert!(files() == finished, "{name}: shards and counts, to the byte");
        }
    }
}

#[test]
fn a_multiple_that_cannot_work_is_refused() {
    let fixture = Fixture::new(&[100]);
    for multiple in [1.0, 0.0, -3.0, f64::INFINITY, f64::NAN] {
        let config = HarvestConfig { max_norm_multiple: Some(multiple), ..fixture.config() };
        let error = fixture.plan(&config).unwrap_err().to_string();
        assert!(error.contains("[harvest] max_norm_multiple: expected a number above 1"), "{error}");
    }
}

/// The fixture's model, beside a tokenizer with a word more than it embeds.
fn with_one_word_more(fixture: &Fixture) -> Checkpoint {
    let path = fixture.dir.path().join("tiny");
    let file = path.join("tokenizer.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    json["model"]["vocab"]["more"] = 23.into();
    fs::write(&file, json.to_string()).unwrap();
    Checkpoint::open(&path).unwrap()
}

#[test]
fn a_tokenizer_may_have_more_tokens_than_the_model_until_one_comes_up() {
    let fixture = Fixture::new(&[40, 40]);
    let checkpoint = with_one_word_more(&fixture);
    let config = fixture.config();
    let harvest = |name: &str| {
        let plan = HarvestPlan::resolve(&config, &context(), &checkpoint, Seed(1)).unwrap();
        fixture.run_plan_into(&fixture.dir.path().join(name), &plan, &checkpoint)
    };
    harvest("without").unwrap();
    fs::write(fixture.dir.path().join("text/01.txt"), "w1 w2 w3 more w4 w5 w6").unwrap();
    let error = harvest("with").unwrap_err().to_string();
    assert!(error.contains("document 1: token 23 is outside the model's vocabulary of 23"), "{error}");
    assert!(!fixture.dir.path().join("with/manifest.json").exists());
    // As a BOS or a separator it would come up for certain.
    let special = fixture.dir.path().join("tiny/tokenizer_config.json");
    for (key, part) in [("bos", "[context] bos: `more` is token 23"), ("eos", "[context] separator: `more`")]
    {
        let other = if key == "bos" { "eos" } else { "bos" };
        let json = serde_json::json!({ format!("{key}_token"): "more", format!("{other}_token"): "<s>", "add_bos_token": true });
        fs::write(&special, json.to_string()).unwrap();
        let checkpoint = Checkpoint::open(checkpoint.path()).unwrap();
        let error = HarvestPlan::resolve(&config, &context(), &checkpoint, Seed(1)).unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("embeds 23 tokens"), "{error}");
    }
}
