//! Whole trainings, from a store to a sealed dictionary.
#![allow(clippy::unwrap_used)]

mod data;

use std::{fs, path::Path, sync::Arc};

use burn::tensor::{Device, Tensor, TensorData};
use data::{hook, store, superposition};
use monosema_core::{Manifest, Seed, Stage, digest_bytes};
use monosema_sae::Dictionary;
use monosema_store::{Activations, BatchPlan, Store};
use monosema_trainer::{
    Found, Job, Record, Sample, StoreFacts, TrainConfig, TrainError, TrainPlan, TrainSummary, Width, load,
    train,
};

/// Small enough for a second or two.
fn config() -> TrainConfig {
    TrainConfig {
        width: Width::Latents(48),
        tokens: Some(4_000 * 100),
        batch_tokens: Some(250),
        shuffle_buffer_tokens: Some(2000),
        lr: Some(2e-3),
        sparsity: Some(1.0),
        log_every_steps: Some(100),
        ..TrainConfig::default()
    }
}

fn plan(config: &TrainConfig, store: &Store, seed: u64) -> TrainPlan {
    TrainPlan::resolve(config, &StoreFacts::of(store), Seed(seed)).unwrap()
}

fn shared(store: &Store) -> Arc<dyn Activations> {
    Arc::new(store.clone())
}

fn manifest(plan: &TrainPlan, store: &Store) -> Manifest {
    Manifest::new(plan.work(store), "cpu")
}

fn run(config: &TrainConfig, store: &Store, seed: u64, out: &Path) -> Result<TrainSummary, TrainError> {
    let plan = plan(config, store, seed);
    let manifest = manifest(&plan, store);
    let job = Job { plan, manifest, out: out.to_owned() };
    train(vec![job], &shared(store), &Device::flex())?.remove(0)
}

fn records(out: &Path) -> Vec<Record> {
    let text = fs::read_to_string(out.join("logs/metrics.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn w_dec(dictionary: &Dictionary) -> Vec<f32> {
    let weights = dictionary.sae().to_weights();
    weights.iter().find(|(name, _)| *name == "W_dec").unwrap().1.try_to_vec().unwrap()
}

/// For each true direction the largest cosine with a row of the dictionary (its rows have norm 1); their mean.
fn mean_max_cosine(directions: &[f32], rows: &[f32], d_in: usize) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    let best = |direction: &[f32]| rows.chunks(d_in).map(|row| dot(row, direction)).fold(-1.0, f32::max);
    directions.chunks(d_in).map(best).sum::<f32>() / (directions.len() / d_in) as f32
}

#[test]
fn loaded_batches_are_those_of_the_store_scaled_and_measured() {
    let (acts, d_in) = (tempfile::tempdir().unwrap(), 35);
    let (x, _) = superposition(1, 2000, d_in, 40, 2);
    let store = store(acts.path(), &x, d_in);
    let config = TrainConfig { tokens: Some(250 * 20), ..config() };
    let plan = plan(&config, &store, 3);
    let wanted = BatchPlan {
        hook: hook(),
        hook_out: None,
        batch_tokens: 250,
        buffer_tokens: 2000,
        seed: Seed(3),
        tokens: plan.tokens,
        delivered: 0,
    };
    let sample = Sample::of(store.batches(wanted), &plan).unwrap();
    let mut loaded = load(&plan, &sample, 0, &shared(&store), &Device::flex());
    for plain in store.batches(wanted) {
        let (plain, loaded) = (plain.unwrap(), loaded.next().unwrap().unwrap());
        let scaled: Vec<f32> = plain.x.iter().map(|x| x * sample.input.scale as f32).collect();
        let distance =
            |(i, &x): (usize, &f32)| f64::from(x) - sample.input.mean[i % d_in] * sample.input.scale;
        let squares: f64 = scaled.iter().enumerate().map(|x| distance(x).powi(2)).sum();
        assert!((loaded.variance / (squares / 250.0) - 1.0).abs() < 1e-12, "{}", loaded.variance);
        assert_eq!(loaded.x.dims(), [250, d_in]);
        assert_eq!(loaded.x.into_data().try_to_vec::<f32>().unwrap(), scaled);
    }
    assert!(loaded.next().is_none());
    // Whoever stops early leaves no thread behind: dropping joins them.
    assert!(load(&plan, &sample, 0, &shared(&store), &Device::flex()).nth(2).unwrap().is_ok());
}

#[test]
fn what_cannot_be_read_comes_after_what_could() {
    let acts = tempfile::tempdir().unwrap();
    let (x, _) = superposition(1, 8000, 8, 12, 2);
    let store = store(acts.path(), &x, 8);
    let config = TrainConfig { tokens: Some(8000), shuffle_buffer_tokens: Some(250), ..config() };
    let plan = plan(&config, &store, 3);
    let sample = Sample::of(store.sequential(hook(), 250), &plan).unwrap();
    // One that has not mapped its files yet: what is mapped stays.
    let store = Store::open(acts.path()).unwrap();
    fs::remove_file(acts.path().join("shard-00001.parquet")).unwrap();
    let loaded: Vec<_> = load(&plan, &sample, 0, &shared(&store), &Device::flex()).collect();
    let (last, before) = loaded.split_last().unwrap();
    assert!(before.iter().all(Result::is_ok));
    assert!(last.as_ref().unwrap_err().to_string().contains("shard-00001.parquet"));
}

#[test]
fn a_known_dictionary_is_found() {
    let (d_in, features) = (16, 32);
    let (x, directions) = superposition(1, 8000, d_in, features, 2);
    // Far from norm √d_in, so that a scale that is not folded back shows.
    let raw: Vec<f32> = x.iter().map(|v| v * 40.0).collect();
    let (acts, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(acts.path(), &raw, d_in);
    let summary = run(&config(), &store, 1, out.path()).unwrap();
    let dictionary = Dictionary::load(out.path(), &Device::flex()).unwrap();

    let found = mean_max_cosine(&directions, &w_dec(&dictionary), d_in);
    let (_, others) = superposition(2, 1, d_in, 48, 1);
    let random = mean_max_cosine(&directions, &others, d_in);
    assert!(found > 0.95 && random < 0.75, "mean max cosine {found}, of random directions {random}");

    // The dictionary takes raw activations and gives them back.
    let points = Tensor::<2>::from_data(TensorData::new(raw.clone(), [8000, d_in]), &Device::flex());
    let x_hat = dictionary.decode(dictionary.encode(points.clone()), points);
    let x_hat: Vec<f32> = x_hat.into_data().try_into_vec().unwrap();
    let error: f64 = raw.iter().zip(&x_hat).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    let square: f64 = raw.iter().map(|a| f64::from(*a).powi(2)).sum();
    assert!(error / square < 0.1, "{error} of {square} is left");
    assert!(summary.last.fvu < 0.15, "{summary:?}");
}

#[test]
fn logs_manifest_and_metadata_say_what_was_done() {
    let (x, _) = superposition(1, 2000, 8, 12, 2);
    let (acts, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(acts.path(), &x, 8);
    let config = TrainConfig { tokens: Some(250 * 30), log_every_steps: Some(7), ..config() };
    let plan = plan(&config, &store, 3);
    let summary = run(&config, &store, 3, out.path()).unwrap();

    let records = records(out.path());
    let steps: Vec<_> = records.iter().map(|r| r.step).collect();
    assert_eq!(steps, [7, 14, 21, 28, 30]);
    assert_eq!(*records.last().unwrap(), summary.last);
    for record in &records {
        assert_eq!(record.tokens, record.step * 250);
        // The dead window is a tenth of the run: 3 steps.
        assert!(record.dead_share.is_some());
        assert!(record.l0 > 0.0 && record.fvu > 0.0, "{record:?}");
    }
    // λ is constant after 5 % of 30 steps, so the terms add up to the loss.
    let last = &summary.last;
    assert!((last.loss - last.mse - last.sparsity * last.penalty).abs() < 1e-4 * last.loss, "{last:?}");
    // lr falls to 0 over the last 6 steps.
    assert!((last.lr - 2e-3 / 6.0).abs() < 1e-12);

    let sealed = Manifest::read(out.path(), Stage::Train).unwrap();
    sealed.verify(out.path()).unwrap();
    assert_eq!((sealed.work, sealed.device.as_str()), (plan.work(&store), "cpu"));
    assert_eq!((sealed.counts["steps"], sealed.counts["tokens"], sealed.counts["d_sae"]), (30, 7500, 48));
    let files: Vec<_> = sealed.files.keys().map(String::as_str).collect();
    let expected = [
        "cfg.json",
        "logs/density.jsonl",
        "logs/events.out.tfevents.monosema",
        "logs/metrics.jsonl",
        "logs/report.html",
        "logs/speed.jsonl",
        "sae_weights.safetensors",
        "sparsity.safetensors",
    ];
    assert_eq!(files, expected);
    assert!(!out.path().join("checkpoints").exists());

    let dictionary = Dictionary::load(out.path(), &Device::flex()).unwrap();
    let metadata = dictionary.metadata();
    assert_eq!((metadata.model_name.as_deref(), metadata.hook), (Some("synthetic"), hook()));
    assert_eq!((metadata.context_size, metadata.prepend_bos), (Some(64), Some(false)));
    assert_eq!(metadata.dataset_path.as_deref(), Some("a.txt, b.txt"));
    assert_eq!(metadata.facts["model_sha256"], digest_bytes(b"synthetic").as_str());
    assert_eq!(metadata.scale, Some(summary.sample.input.scale));
    // Where SAELens looks for how to load the model.
    let cfg: serde_json::Value =
        serde_json::from_slice(&fs::read(out.path().join("cfg.json")).unwrap()).unwrap();
    let kwargs = &cfg["metadata"]["model_from_pretrained_kwargs"];
    assert_eq!(*kwargs, serde_json::json!({ "center_writing_weights": false }));
    let silent = dictionary.log_sparsity().unwrap().iter().filter(|&&log| log < -9.9).count();
    assert_eq!(silent as u64, summary.dead_latents);
}

#[test]
fn the_same_seed_gives_the_same_bits_and_another_does_not() {
    // Large enough that every product and every sum runs on several threads.
    let (d_in, d_sae) = (96, 1500);
    let (x, _) = superposition(1, 3000, d_in, 200, 5);
    let acts = tempfile::tempdir().unwrap();
    let store = store(acts.path(), &x, d_in);
    let config = TrainConfig {
        width: Width::Latents(d_sae),
        tokens: Some(1500 * 6),
        batch_tokens: Some(1500),
        shuffle_buffer_tokens: Some(2000),
        ..config()
    };
    let weights = |seed| {
        let out = tempfile::tempdir().unwrap();
        run(&config, &store, seed, out.path()).unwrap();
        ["sae_weights.safetensors", "sparsity.safetensors"]
            .map(|name| fs::read(out.path().join(name)).unwrap())
    };
    let first = weights(5);
    assert!(first == weights(5), "the same seed gave other weights");
    assert!(first != weights(6), "another seed gave the same weights");
}

#[test]
fn an_interrupted_run_is_begun_anew_and_a_finished_one_is_kept() {
    let (x, _) = superposition(1, 2000, 8, 12, 2);
    let (acts, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(acts.path(), &x, 8);
    let config = TrainConfig { tokens: Some(250 * 10), log_every_steps: Some(5), ..config() };
    run(&config, &store, 1, out.path()).unwrap();
    let weights = fs::read(out.path().join("sae_weights.safetensors")).unwrap();
    assert!(matches!(run(&config, &store, 2, out.path()), Err(TrainError::Sealed { .. })));
    assert_eq!(fs::read(out.path().join("sae_weights.safetensors")).unwrap(), weights);

    // As a killed run leaves it: no manifest, half a file, logs that go on.
    fs::remove_file(out.path().join("manifest.json")).unwrap();
    fs::write(out.path().join(".unfinished-a.tmp"), "half").unwrap();
    fs::write(out.path().join("notes.txt"), "mine").unwrap();
    run(&config, &store, 1, out.path()).unwrap();
    assert_eq!(fs::read(out.path().join("sae_weights.safetensors")).unwrap(), weights);
    assert_eq!(records(out.path()).len(), 2);
    assert!(!out.path().join(".unfinished-a.tmp").exists());
    assert!(out.path().join("notes.txt").exists());
}

#[test]
fn divergence_stops_the_run_and_says_what_to_try() {
    let (x, _) = superposition(1, 2000, 8, 12, 2);
    let (acts, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(acts.path(), &x, 8);
    let config = TrainConfig { tokens: Some(250 * 40), lr: Some(1e30), log_every_steps: Some(1), ..config() };
    let error = run(&config, &store, 1, out.path()).unwrap_err();
    assert!(matches!(error, TrainError::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("learning rate (now 1e30)"), "{error}");
    assert!(!out.path().join("manifest.json").exists());
}

#[test]
fn weights_that_the_last_step_spoils_are_not_saved() {
    let (x, _) = superposition(1, 2000, 8, 12, 2);
    let (acts, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = store(acts.path(), &x, 8);
    // One step, whose loss is taken before the weights move by 1e30.
    let config = TrainConfig { tokens: Some(250), lr: Some(1e30), ..config() };
    let error = run(&config, &store, 1, out.path()).unwrap_err();
    assert!(matches!(error, TrainError::NotFinite { .. }), "{error}");
    let told = error.to_string();
    assert!(told.contains("tensor `W_enc`") && told.contains("learning rate (now 1e30)"), "{told}");
    assert!(!out.path().join("manifest.json").exists() && !out.path().join("cfg.json").exists());
    assert!(out.path().join("logs/report.html").exists());
    // Told again, without training.
    fs::remove_file(out.path().join("logs/report.html")).unwrap();
    let again = run(&config, &store, 1, out.path()).unwrap_err();
    assert!(
        matches!(again, TrainError::DivergedBefore { .. }) && again.to_string().contains(&told),
        "{again}"
    );
    assert!(!out.path().join("logs/report.html").exists());
}

#[test]
fn each_job_has_its_own_end() {
    let (x, _) = superposition(1, 2000, 8, 12, 2);
    let acts = tempfile::tempdir().unwrap();
    let store = store(acts.path(), &x, 8);
    let outs = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let jobs = |lrs: &[f64]| {
        let job = |(&lr, out): (&f64, &tempfile::TempDir)| {
            let config = TrainConfig { tokens: Some(250), lr: Some(lr), ..config() };
            let plan = plan(&config, &store, 1);
            Job { manifest: manifest(&plan, &store), plan, out: out.path().to_owned() }
        };
        lrs.iter().zip(&outs).map(job).collect::<Vec<_>>()
    };
    let outcomes = train(jobs(&[1e30, 2e-3, 1e30]), &shared(&store), &Device::flex()).unwrap();
    let ends =
        [TrainError::is_divergence; 3].iter().zip(&outcomes).map(|(is, end)| end.as_ref().err().map(is));
    assert_eq!(ends.collect::<Vec<_>>(), [Some(true), None, Some(true)]);
    assert!(outs[1].path().join("manifest.json").exists());
    for out in [&outs[0], &outs[2]] {
        assert!(matches!(Found::dictionary(out.path()), Found::Diverged(_)));
    }
}

#[test]
fn another_store_than_the_plans_is_refused() {
    let (x, _) = superposition(1, 2000, 8, 12, 2);
    let [a, b, out] = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let (planned, other) = (store(a.path(), &x, 8), store(b.path(), &x[..8000], 8));
    let plan = plan(&config(), &planned, 1);
    let job = Job { manifest: manifest(&plan, &other), plan, out: out.path().to_owned() };
    let error = train(vec![job], &shared(&other), &Device::flex()).unwrap_err().to_string();
    assert!(error.contains("expected 2000 tokens, found 1000"), "{error}");
}
