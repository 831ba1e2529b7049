//! Settings about images, the same for every process that runs a node: where they come from, how many at once, and when
//! they go. Absent means the agent's own default, which is the kubelet's.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use jiff::{SignedDuration, Span, SpanRelativeTo};
use serde::{Deserialize, Serialize};

/// Below the data directory; archives in it are imported.
const DIRECTORY: &str = "images";

#[derive(Args, Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Images {
    /// containerd's directory of mirrors, plain-HTTP registries and certificates [default: /etc/containerd/certs.d]
    #[arg(long, value_name = "DIR", env = "KEELSON_REGISTRY_CONFIG_DIR")]
    pub registry_config_dir: Option<PathBuf>,

    /// Registry credentials of this node, a file like docker's config.json [default: where the kubelet looks]
    #[arg(long, value_name = "FILE", env = "KEELSON_REGISTRY_CREDENTIALS")]
    pub registry_credentials: Option<PathBuf>,

    /// Images pulled at the same time; 1 pulls one after the other [default: 4]
    #[arg(long, value_name = "COUNT", env = "KEELSON_MAX_PARALLEL_IMAGE_PULLS")]
    pub max_parallel_image_pulls: Option<usize>,

    /// Archives in this directory are imported, also those that appear later [default: DATA_DIR/images]
    #[arg(long, value_name = "DIR", env = "KEELSON_IMAGE_DIR")]
    pub image_dir: Option<PathBuf>,

    /// Unused images are removed from this use of the disk on [default: 85]
    #[arg(long, value_name = "PERCENT", env = "KEELSON_IMAGE_GC_HIGH_THRESHOLD_PERCENT")]
    pub image_gc_high_threshold_percent: Option<u8>,

    /// …until it is down to this [default: 80]
    #[arg(long, value_name = "PERCENT", env = "KEELSON_IMAGE_GC_LOW_THRESHOLD_PERCENT")]
    pub image_gc_low_threshold_percent: Option<u8>,

    /// Images stay at least this long [default: 2m]
    #[arg(long, value_name = "DURATION", env = "KEELSON_IMAGE_MINIMUM_GC_AGE")]
    pub image_minimum_gc_age: Option<String>,

    /// Images unused for this long are removed, whatever the disk has; 0s is never [default: 0s]
    #[arg(long, value_name = "DURATION", env = "KEELSON_IMAGE_MAXIMUM_GC_AGE")]
    pub image_maximum_gc_age: Option<String>,
}

impl Images {
    /// Each setting of `self` where it is given, of `under` otherwise.
    pub fn over(self, under: Self) -> Self {
        Self {
            registry_config_dir: self.registry_config_dir.or(under.registry_config_dir),
            registry_credentials: self.registry_credentials.or(under.registry_credentials),
            max_parallel_image_pulls: self.max_parallel_image_pulls.or(under.max_parallel_image_pulls),
            image_dir: self.image_dir.or(under.image_dir),
            image_gc_high_threshold_percent: self
                .image_gc_high_threshold_percent
                .or(under.image_gc_high_threshold_percent),
            image_gc_low_threshold_percent: self
                .image_gc_low_threshold_percent
                .or(under.image_gc_low_threshold_percent),
            image_minimum_gc_age: self.image_minimum_gc_age.or(under.image_minimum_gc_age),
            image_maximum_gc_age: self.image_maximum_gc_age.or(under.image_maximum_gc_age),
        }
    }

    /// Writes what is given into the agent's options, or says what cannot be.
    pub fn apply(&self, options: &mut agent::Options, data_dir: &Path) -> Result<()> {
        if let Some(directory) = &self.registry_config_dir {
            options.registry_config_dir.clone_from(directory);
        }
        options.registry_credentials.clone_from(&self.registry_credentials);
        match self.max_parallel_image_pulls {
            Some(0) => bail!("--max-parallel-image-pulls 0 would pull nothing"),
            Some(count) => options.max_parallel_image_pulls = count,
            None => {}
        }
        options.image_dir = Some(self.image_dir.clone().unwrap_or_else(|| data_dir.join(DIRECTORY)));
        let policy = &mut options.image_gc;
        policy.high_percent = self.image_gc_high_threshold_percent.unwrap_or(policy.high_percent);
        policy.low_percent = self.image_gc_low_threshold_percent.unwrap_or(policy.low_percent);
        if policy.high_percent > 100 || policy.low_percent > policy.high_percent {
            bail!(
                "--image-gc-low-threshold-percent {} and --image-gc-high-threshold-percent {} must be in this order, \
                 from 0 to 100",
                policy.low_percent,
                policy.high_percent
            );
        }
        if let Some(age) = &self.image_minimum_gc_age {
            policy.min_age = duration("--image-minimum-gc-age", age)?;
        }
        if let Some(age) = &self.image_maximum_gc_age {
            policy.max_age = duration("--image-maximum-gc-age", age)?;
        }
        Ok(())
    }
}

/// `2m`, `1h30m`, `7d`.
fn duration(flag: &str, text: &str) -> Result<SignedDuration> {
    let span: Span = text.parse().with_context(|| format!("{flag} {text:?} is no duration such as 2m or 7d"))?;
    let duration = span.to_duration(SpanRelativeTo::days_are_24_hours()).with_context(|| format!("{flag} {text:?}"))?;
    if duration.is_negative() {
        bail!("{flag} {text:?} is negative");
    }
    Ok(duration)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Images;

    fn applied(images: &Images) -> Result<agent::Options, String> {
        let mut options = agent::Options::new("n1");
        images.apply(&mut options, Path::new("/data")).map_err(|error| error.to_string())?;
        Ok(options)
    }

    #[test]
    fn settings_reach_the_agent() {
        let images = Images {
            image_gc_high_threshold_percent: Some(70),
            image_gc_low_threshold_percent: Some(60),
            image_maximum_gc_age: Some("7d".into()),
            ..Images::default()
        };
        let options = applied(&images).unwrap();
        assert_eq!(options.image_dir.as_deref(), Some(Path::new("/data/images")));
        assert_eq!((options.image_gc.high_percent, options.image_gc.low_percent), (70, 60));
        assert_eq!(options.image_gc.max_age.as_secs(), 7 * 24 * 3600);
        assert_eq!(options.image_gc.min_age.as_secs(), 120);
        assert_eq!(options.max_parallel_image_pulls, agent::options::MAX_PARALLEL_IMAGE_PULLS);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |images: Images| applied(&images).unwrap_err();
        assert!(refused(Images { max_parallel_image_pulls: Some(0), ..Images::default() }).contains("pull nothing"));
        let crossed = Images { image_gc_high_threshold_percent: Some(50), ..Images::default() };
        assert!(refused(crossed).contains("80 and --image-gc-high-threshold-percent 50"));
        assert!(refused(Images { image_minimum_gc_age: Some("soon".into()), ..Images::default() }).contains("soon"));
    }
}
