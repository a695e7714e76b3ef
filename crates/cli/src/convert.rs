//! `monosema convert SRC DST`: a dictionary of any tool, written as one of SAELens's or sparsify's, and held against what it was
//! before it is called done.

use std::{fs, iter, path::Path};

use anyhow::anyhow;
use burn::tensor::{Device, Tensor, TensorData};
use monosema_sae::{
    Dictionary,
    formats::{self, Format, Given},
    same_function::{self, Difference, TOLERANCE},
};
use monosema_store::{Activations, Store};
use serde_json::{Value, json};

use crate::{
    args::{ConvertArgs, Target},
    failure::{Failure, Outcome},
    output, table,
};

/// Real activations that both are tried on, at most.
const TOKENS: usize = 4096;

pub(crate) fn run(args: &ConvertArgs) -> Outcome {
    let device = Device::flex();
    let ConvertArgs { source, destination, .. } = args;
    let target = match args.to {
        Target::Saelens => Format::SaeLens,
        Target::Sparsify => Format::Sparsify,
    };
    if fs::symlink_metadata(destination).is_ok() {
        let reason = "it is there already, and nothing is overwritten; give another directory";
        return Err(Failure::usage(anyhow!("{}: {reason}", destination.display())));
    }
    let origin = Format::of(source).map_err(Failure::usage)?;
    let given = Given { hook: args.hook, hook_out: args.hook_out, model_name: args.model_name.clone() };
    let before = formats::load(source, &given, &device).map_err(Failure::usage)?;
    if args.hook_out.is_some() && before.size().output.is_none() {
        let reason = "--hook-out applies to transcoders, and this is an autoencoder";
        return Err(Failure::usage(anyhow!("{}: {reason}", source.display())));
    }
    target.expresses(&before).map_err(Failure::usage)?;
    let acts = args.acts.as_deref().map(|store| activations(store, &before, &device)).transpose()?;

    let unfinished = Unfinished::beside(destination)?;
    let written = target.save(&before, unfinished.path()).map_err(Failure::run)?;
    let after = formats::load(unfinished.path(), &Given::default(), &device).map_err(Failure::run)?;
    let random = same_function::inputs(&before);
    let tried = iter::once(("random inputs", &random)).chain(acts.as_ref().map(|acts| ("activations", acts)));
    let verified: Vec<_> =
        tried.map(|(name, x)| (name, same_function::difference(&before, &after, x))).collect();
    for (name, difference) in &verified {
        if !difference.is_rounding() {
            return Err(Failure::run(anyhow!(not_the_same(source, name, difference))));
        }
    }
    if verified.iter().all(|(_, difference)| difference.active == 0) {
        tracing::warn!("no latent was active on what it was tried on: give activations, with --acts");
    }
    if before.metadata() != after.metadata() {
        let reason = "what was written says something else of model or hooks than was read";
        return Err(Failure::run(anyhow!("{}: {reason}; it is removed", destination.display())));
    }
    unfinished.finish(destination)?;
    if before.log_sparsity().is_some() && after.log_sparsity().is_none() {
        tracing::warn!("{} has no place for how often latents are active: left out", target.name());
    }
    tell(args, &before, [origin, target], &written, &verified)
}

/// What is being written, beside where it is to be; removed unless it is finished.
struct Unfinished(tempfile::TempDir);

impl Unfinished {
    fn beside(destination: &Path) -> Outcome<Self> {
        let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty());
        let parent = parent.unwrap_or(Path::new("."));
        let failed = |error| Failure::run(anyhow::Error::new(error).context(parent.display().to_string()));
        fs::create_dir_all(parent).map_err(failed)?;
        let mut builder = tempfile::Builder::new();
        builder.prefix(".unfinished-");
        // As an ordinary directory, within the user's umask.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        builder.tempdir_in(parent).map(Self).map_err(failed)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn finish(self, destination: &Path) -> Outcome {
        fs::rename(self.path(), destination).map_err(|error| {
            Failure::run(anyhow::Error::new(error).context(destination.display().to_string()))
        })?;
        // It is no longer where it would be removed.
        drop(self.0.keep());
        Ok(())
    }
}

/// Some of the activations in `store` that the dictionary reads.
fn activations(store: &Path, dictionary: &Dictionary, device: &Device) -> Outcome<Tensor<2>> {
    let hook = dictionary.metadata().hook;
    let store = Store::open(store).map_err(Failure::usage)?;
    let column = store.hook_column(hook).map_err(Failure::usage)?;
    if column.width != dictionary.d_in() {
        let (width, d_in) = (column.width, dictionary.d_in());
        let name = store.name();
        return Err(Failure::usage(anyhow!(
            "{name}: expected vectors of {d_in} values at {hook}, found {width}"
        )));
    }
    let batch = store.sequential(hook, TOKENS).next();
    let batch = batch.ok_or_else(|| Failure::usage(anyhow!("{}: it holds no tokens", store.name())))?;
    let batch = batch.map_err(Failure::run)?;
    Ok(Tensor::from_data(TensorData::new(batch.x, [batch.n, batch.width]), device))
}

fn not_the_same(source: &Path, inputs: &str, difference: &Difference) -> String {
    let Difference { tokens, acts, x_hat, at_edges, .. } = difference;
    format!(
        "{}: what was written computes something else than what was read, and is removed: on {tokens} {inputs} \
         activations differ by {acts:.1e} and x̂ by {x_hat:.1e}, expected at most {TOLERANCE:.0e}, and rounding decides on \
         {at_edges} tokens what is active",
        source.display()
    )
}

fn tell(
    args: &ConvertArgs,
    dictionary: &Dictionary,
    [from, to]: [Format; 2],
    files: &[String],
    verified: &[(&str, Difference)],
) -> Outcome {
    let (size, metadata) = (dictionary.size(), dictionary.metadata());
    let architecture = formats::saelens::architecture(dictionary);
    if args.json {
        let largest =
            verified.iter().map(|(_, difference)| *difference).fold(Difference::default(), Difference::and);
        let largest = largest.largest();
        let verified = verified.iter().map(|(name, difference)| {
            let Difference { tokens, acts, x_hat, active, at_edges } = difference;
            let figures = json!({ "tokens": tokens, "active": active, "acts": acts, "x_hat": x_hat, "at_edges": at_edges });
            (name.replace(' ', "_"), figures)
        });
        let json = json!({
            "source": args.source, "from": from.name(), "destination": args.destination, "to": to.name(),
            "files": files, "architecture": architecture, "d_in": size.d_in, "d_sae": size.d_sae, "d_out": size.d_out(),
            "hook": metadata.hook, "hook_out": metadata.hook_out, "model": metadata.model_name,
            "largest_relative_difference": largest,
            "verified": verified.collect::<serde_json::Map<String, Value>>(),
        });
        return output::print(format_args!("{json:#}"));
    }
    let mut lines = vec![
        format!("read         {}, {}", args.source.display(), from.name()),
        format!("written      {}, {}", args.destination.display(), to.name()),
        format!("architecture {architecture}"),
        format!("size         d_in {} → d_sae {}", size.d_in, table::count(size.d_sae as u64)),
        format!("hook         {}", metadata.hook),
        format!("model        {}", metadata.model_name.as_deref().unwrap_or("unknown")),
    ];
    lines.extend(metadata.hook_out.map(|hook| format!("gives        {hook}")));
    lines.extend(verified.iter().map(|(name, difference)| {
        let tokens = table::count(difference.tokens as u64);
        format!("verified     on {tokens} {name}: largest relative difference {:.1e}", difference.largest())
    }));
    output::print(lines.join("\n"))
}
