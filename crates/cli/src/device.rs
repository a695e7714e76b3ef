//! Which device computes: `auto`, `cpu`, `cuda:N`, `wgpu:N` or `ndarray`.

use std::{
    fmt,
    io::Read,
    process::{Command, Stdio},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use burn::tensor::{Device, Tensor};

use serde::Deserialize;

use crate::{
    failure::{Failure, Outcome},
    output,
};

/// How long a device may take to prove that it works: drivers start in seconds, kernels compile in seconds.
const PROBE_LIMIT: Duration = Duration::from_secs(120);

/// A device as written in a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum DeviceName {
    /// CUDA where it is built in and works, the CPU otherwise.
    #[default]
    Auto,
    /// burn-flex.
    Cpu,
    /// The GPU of this index.
    Gpu(Gpu, usize),
    /// burn-ndarray, a second opinion.
    NdArray,
}

/// How a GPU is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gpu {
    /// NVIDIA's own way.
    Cuda,
    /// Everybody's: Vulkan, Metal or DirectX.
    Wgpu,
}

impl Gpu {
    const ALL: [Self; 2] = [Self::Cuda, Self::Wgpu];

    /// In device names; its cargo feature is called the same.
    fn name(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Wgpu => "wgpu",
        }
    }

    fn is_built_in(self) -> bool {
        match self {
            Self::Cuda => cfg!(feature = "cuda"),
            Self::Wgpu => cfg!(feature = "wgpu"),
        }
    }

    /// Enumeration is the one question that burn answers without a driver, a GPU or a panic.
    fn devices(self) -> Vec<Device> {
        match self {
            #[cfg(feature = "cuda")]
            Self::Cuda => Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec(),
            #[cfg(feature = "wgpu")]
            Self::Wgpu => Device::enumerate(burn::tensor::DeviceType::Wgpu).into_vec(),
            #[allow(unreachable_patterns)]
            _ => Vec::new(),
        }
    }
}

impl FromStr for DeviceName {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> anyhow::Result<Self> {
        Ok(match name {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "ndarray" => Self::NdArray,
            _ => {
                let (api, index) = name.split_once(':').unwrap_or((name, "0"));
                match (Gpu::ALL.into_iter().find(|gpu| gpu.name() == api), index.parse()) {
                    (Some(gpu), Ok(index)) => Self::Gpu(gpu, index),
                    _ => bail!(
                        "unknown device `{name}`: expected auto, cpu, cuda:0 or wgpu:0 (or another index), or ndarray"
                    ),
                }
            }
        })
    }
}

impl TryFrom<String> for DeviceName {
    type Error = anyhow::Error;

    fn try_from(name: String) -> anyhow::Result<Self> {
        name.parse()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Gpu(gpu, index) => write!(f, "{}:{index}", gpu.name()),
            Self::NdArray => f.write_str("ndarray"),
        }
    }
}

/// Sets what burn and cubecl read from their surroundings. To be called first in `main`.
pub(crate) fn fix_defaults() {
    // Every call here names its device, but burn materialises a few things on the default one, which in a build for
    // GPUs is one of them and panics on a machine without.
    // SAFETY: `main` calls this before it starts any thread.
    unsafe { std::env::set_var("BURN_DEVICE", "flex") };
    #[cfg(feature = "gpu")]
    keep_tuning();
}

/// Compiled kernels and what autotune found are kept in the user's cache, so that only the first start pays for them.
/// Left alone, cubecl keeps no kernels, and its findings in `target/` of whatever Cargo project one stands in.
#[cfg(feature = "gpu")]
fn keep_tuning() {
    use cubecl::config::{CubeClRuntimeConfig, RuntimeConfig, cache::CacheConfig};
    let mut config = CubeClRuntimeConfig::from_current_dir().override_from_env();
    // Unless a cubecl.toml names another place.
    if matches!(config.environment.path, CacheConfig::Target) {
        config.environment.path = CacheConfig::Global;
    }
    config.compilation.cache = true;
    CubeClRuntimeConfig::set(config);
}

/// A device shown to work.
pub(crate) struct Chosen {
    pub device: Device,
    /// Never `auto`.
    pub name: DeviceName,
}

impl Chosen {
    /// Bytes of a GPU's memory that nobody uses, where its driver tells.
    pub(crate) fn free_memory(&self) -> Option<u64> {
        match self.name {
            #[cfg(feature = "cuda")]
            DeviceName::Gpu(Gpu::Cuda, index) => {
                let (free, _) = cudarc::driver::CudaContext::new(index).ok()?.mem_get_info().ok()?;
                Some(free as u64)
            }
            _ => None,
        }
    }
}

/// The device that `name` stands for.
pub(crate) fn resolve(name: DeviceName) -> Outcome<Chosen> {
    let taken = match name {
        DeviceName::Auto => choose(),
        DeviceName::Gpu(..) => {
            probe_in_child(name)
                .with_context(|| {
                    format!("device {name} cannot be used; `monosema devices` lists those that can")
                })
                .map_err(Failure::usage)?;
            name
        }
        DeviceName::Cpu | DeviceName::NdArray => name,
    };
    let device = open(taken).map_err(Failure::usage)?;
    tracing::info!("device: {taken}{}", if name == DeviceName::Auto { " (chosen by auto)" } else { "" });
    Ok(Chosen { device, name: taken })
}

fn choose() -> DeviceName {
    let first = DeviceName::Gpu(Gpu::Cuda, 0);
    if Gpu::Cuda.devices().is_empty() {
        return DeviceName::Cpu;
    }
    match probe_in_child(first) {
        Ok(()) => first,
        Err(error) => {
            tracing::warn!("there is a CUDA device, but it does not work, so the CPU is taken: {error:#}");
            DeviceName::Cpu
        }
    }
}

fn open(name: DeviceName) -> anyhow::Result<Device> {
    match name {
        DeviceName::Auto => open(choose()),
        DeviceName::Cpu => Ok(Device::flex()),
        #[cfg(feature = "ndarray")]
        #[allow(
            deprecated,
            reason = "burn-ndarray is on its way out upstream; here it is the second opinion"
        )]
        DeviceName::NdArray => Ok(Device::ndarray()),
        #[cfg(not(feature = "ndarray"))]
        DeviceName::NdArray => bail!("device ndarray is not in this build; build with `--features ndarray`"),
        DeviceName::Gpu(gpu, _) if !gpu.is_built_in() => {
            bail!("device {name} is not in this build; build with `--features {}`", gpu.name())
        }
        DeviceName::Gpu(gpu, index) => {
            let (found, api) = (gpu.devices(), gpu.name());
            let n = found.len();
            found.into_iter().nth(index).ok_or_else(|| match n {
                0 => anyhow!("no {api} driver or no GPU was found"),
                n => anyhow!("there is no {name}: this machine has {api}:0 to {api}:{}", n - 1),
            })
        }
    }
}

/// Asks another process to compute on the device. A missing NVRTC, an unfit driver or a wedged GPU panics,
/// aborts or hangs on a thread that burn owns: it may do so there, and this process learns of it.
fn probe_in_child(name: DeviceName) -> anyhow::Result<()> {
    open(name)?;
    let program =
        std::env::current_exe().context("cannot find this program's own file to probe the device")?;
    let mut child = Command::new(program)
        .args(["probe-device", &name.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start a process to probe the device")?;
    // Read while it runs: a long backtrace would fill the pipe and block the child.
    let stderr = child.stderr.take();
    let said = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What cannot be read is not reported; the status is.
        let _ = stderr.map(|mut pipe| pipe.read_to_end(&mut text));
        String::from_utf8_lossy(&text).into_owned()
    });
    let started = Instant::now();
    loop {
        match child.try_wait().context("cannot wait for the probe")? {
            Some(status) if status.success() => return Ok(()),
            Some(status) => {
                let said = said.join().unwrap_or_default();
                bail!("the probe ended with {status}: {}", first_lines(&said));
            }
            None if started.elapsed() > PROBE_LIMIT => {
                // Best effort: a process stuck in the driver may not even die.
                let _ = child.kill();
                let _ = child.try_wait();
                bail!("the probe did not end within {} s", PROBE_LIMIT.as_secs());
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn first_lines(text: &str) -> String {
    let lines: Vec<_> = text.lines().map(str::trim).filter(|l| !l.is_empty()).take(3).collect();
    if lines.is_empty() { "it said nothing".into() } else { lines.join(" / ") }
}

/// The other side of [`probe_in_child`]: a matrix product and a sum whose result is known.
pub(crate) fn probe_here(name: DeviceName) -> Outcome {
    let device = open(name).map_err(Failure::usage)?;
    let ones = Tensor::<2>::ones([64, 64], &device);
    let sum: f32 = ones.clone().matmul(ones).sum().into_scalar();
    let expected = 64.0 * 64.0 * 64.0;
    if sum == expected { Ok(()) } else { Err(Failure::run(anyhow!("expected {expected}, computed {sum}"))) }
}

/// `monosema devices`.
pub(crate) fn list(json: bool) -> Outcome {
    let mut rows = vec![("cpu".to_owned(), "works".to_owned())];
    for gpu in Gpu::ALL {
        let n = gpu.devices().len();
        for index in 0..n {
            let name = DeviceName::Gpu(gpu, index);
            let state =
                probe_in_child(name).map_or_else(|e| format!("does not work: {e:#}"), |()| "works".into());
            rows.push((name.to_string(), state));
        }
        let reason = match gpu.is_built_in() {
            true => "no driver or no GPU was found".to_owned(),
            false => format!("not in this build (build with --features {})", gpu.name()),
        };
        if n == 0 {
            rows.push((gpu.name().into(), reason));
        }
    }
    let ndarray =
        if cfg!(feature = "ndarray") { "works" } else { "not in this build (build with --features ndarray)" };
    rows.push(("ndarray".into(), ndarray.into()));
    let auto = choose();
    if json {
        let devices: Vec<_> =
            rows.iter().map(|(name, state)| serde_json::json!({ "name": name, "state": state })).collect();
        let json = serde_json::json!({ "auto": auto.to_string(), "devices": devices });
        return output::print(format_args!("{json:#}"));
    }
    rows.push(("auto takes".into(), auto.to_string()));
    rows.iter().try_for_each(|(name, state)| output::print(format_args!("{name:<10} {state}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_back() {
        for name in ["auto", "cpu", "ndarray", "cuda:0", "cuda:7", "wgpu:1"] {
            assert_eq!(name.parse::<DeviceName>().expect("a valid name").to_string(), name);
        }
        for name in ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0"] {
            assert!(name.parse::<DeviceName>().is_err(), "{name}");
        }
    }

    #[test]
    fn auto_never_fails_and_a_missing_gpu_is_an_error_not_a_panic() {
        assert!(resolve(DeviceName::Cpu).is_ok());
        if Gpu::Cuda.devices().is_empty() {
            assert_eq!(choose(), DeviceName::Cpu);
            assert!(matches!(resolve(DeviceName::Gpu(Gpu::Cuda, 0)), Err(Failure::Usage(_))));
        }
    }
}
