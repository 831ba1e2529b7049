//! Which manifest of an index is for this machine. Pure.

use oci_spec::image::{Descriptor, ImageIndex, Os};

/// This machine's architecture in the words of image indexes, which are Go's.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// The manifest for an architecture, `None` when the index has none. Of several variants the one that runs on most
/// machines is taken, but for 32-bit ARM, where images are built per variant, the newest.
pub fn choose(index: &ImageIndex, architecture: &str) -> Option<Descriptor> {
    let rank = |manifest: &Descriptor| {
        let Some(platform) = manifest.platform() else { return Some(u8::MAX) };
        if platform.os() != &Os::Linux || platform.architecture().to_string() != architecture {
            return None;
        }
        Some(match (architecture, platform.variant().as_deref()) {
            ("arm", Some("v7")) => 0,
            ("arm", Some("v6")) => 1,
            ("arm", Some("v5")) => 2,
            (_, None | Some("v1" | "v8")) => 3,
            // Of a machine that may be newer than this one.
            (_, Some(_)) => 4,
        })
    };
    let ranked = index.manifests().iter().filter_map(|manifest| Some((rank(manifest)?, manifest)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, manifest)| manifest.clone())
}

#[cfg(test)]
mod tests {
    use oci_spec::image::ImageIndex;
    use serde_json::json;

    use super::choose;

    fn chosen(platforms: &[&str], architecture: &str) -> Option<usize> {
        let digest = |index: usize| format!("sha256:{}", format!("{index:02}").repeat(32));
        let manifests = platforms.iter().enumerate().map(|(index, platform)| {
            let mut parts = platform.split('/');
            let mut manifest = json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest(index), "size": 1,
            });
            if !platform.is_empty() {
                manifest["platform"] = json!({"os": parts.next(), "architecture": parts.next()});
                if let Some(variant) = parts.next() {
                    manifest["platform"]["variant"] = json!(variant);
                }
            }
            manifest
        });
        let index = json!({"schemaVersion": 2, "manifests": manifests.collect::<Vec<_>>()});
        let index: ImageIndex = serde_json::from_value(index).unwrap();
        let found = choose(&index, architecture)?.digest().to_string();
        (0..platforms.len()).find(|index| digest(*index) == found)
    }

    #[test]
    fn the_manifest_of_this_machine_is_chosen() {
        let usual =
            ["unknown/unknown", "windows/amd64", "linux/arm64/v8", "linux/amd64", "linux/arm/v6", "linux/arm/v7"];
        assert_eq!(chosen(&usual, "amd64"), Some(3));
        assert_eq!(chosen(&usual, "arm64"), Some(2));
        assert_eq!(chosen(&usual, "arm"), Some(5));
        assert_eq!(chosen(&usual, "riscv64"), None);
        assert_eq!(chosen(&["linux/amd64/v3", "linux/amd64"], "amd64"), Some(1));
        assert_eq!(chosen(&["linux/amd64/v3"], "amd64"), Some(0));
        assert_eq!(chosen(&["", "linux/amd64"], "amd64"), Some(1), "no platform is better than none that fits");
        assert_eq!(chosen(&[""], "amd64"), Some(0));
    }
}
