//! Which manifest of an index is for this machine.
//!
//! <https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md#platform-variants>

use anyhow::{Result, bail};
use oci_spec::image::{Arch, Descriptor, ImageConfiguration, Os, Platform, PlatformBuilder};

/// The platform of this machine.
pub(crate) fn host() -> Platform {
    let variant = match std::env::consts::ARCH {
        "aarch64" => Some("v8"),
        "arm" => Some("v7"),
        _ => None,
    };
    build(Os::Linux, Arch::default(), variant)
}

/// Reads `--platform`: `os/architecture[/variant]`, or an architecture of linux alone.
pub(crate) fn parse(text: &str) -> Result<Platform> {
    let parts: Vec<&str> = text.split('/').collect();
    let valid_part = |part: &&str| {
        !part.is_empty()
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    if !parts.iter().all(valid_part) {
        bail!("platform {text:?} is not os/architecture[/variant]");
    }
    let (os, architecture, variant) = match parts[..] {
        [architecture] => ("linux", architecture, None),
        [os, architecture] => (os, architecture, None),
        [os, architecture, variant] => (os, architecture, Some(variant)),
        _ => bail!("platform {text:?} is not os/architecture[/variant]"),
    };
    // The names that `uname -m` has taught people.
    let (architecture, variant) = match (architecture, variant) {
        ("x86_64", variant) => ("amd64", variant),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", None) => ("arm", Some("v7")),
        ("armel", None) => ("arm", Some("v6")),
        ("i386" | "i686", variant) => ("386", variant),
        other => other,
    };
    Ok(build(Os::from(os), Arch::from(architecture), variant))
}

/// The platform that an image says it is for.
pub(crate) fn of(config: &ImageConfiguration) -> Platform {
    build(config.os().clone(), config.architecture().clone(), config.variant().as_deref())
}

fn build(os: Os, architecture: Arch, variant: Option<&str>) -> Platform {
    let mut platform = PlatformBuilder::default()
        .os(os)
        .architecture(architecture)
        .build()
        .expect("the builder has its two required fields");
    platform.set_variant(variant.map(str::to_owned));
    platform
}

/// `linux/arm64/v8`.
pub(crate) fn text(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os(), platform.architecture());
    if let Some(variant) = platform.variant() {
        text = format!("{text}/{variant}");
    }
    text
}

/// The entry of an index for `wanted`: the best variant that this platform can run, the first one
/// where several are equally good. Entries without a platform or for `unknown/unknown`
/// (attestations) are not images for anybody.
pub(crate) fn choose<'a>(entries: &'a [Descriptor], wanted: &Platform) -> Option<&'a Descriptor> {
    let acceptable = variants(wanted);
    let rank = |entry: &Descriptor| -> Option<usize> {
        let platform = entry.platform().as_ref()?;
        if platform.os() != wanted.os() || platform.architecture() != wanted.architecture() {
            return None;
        }
        let variant = platform.variant().as_deref().filter(|variant| !variant.is_empty());
        let variant = normal_variant(platform.architecture(), variant);
        acceptable.iter().position(|candidate| candidate.as_deref() == variant)
    };
    let ranked = entries.iter().filter_map(|entry| rank(entry).map(|rank| (rank, entry)));
    ranked.min_by_key(|(rank, _)| *rank).map(|(_, entry)| entry)
}

/// arm64 without a variant is v8, arm without one is v7.
fn normal_variant<'a>(architecture: &Arch, variant: Option<&'a str>) -> Option<&'a str> {
    match (architecture, variant) {
        (Arch::ARM64, None) => Some("v8"),
        (Arch::ARM, None) => Some("v7"),
        (Arch::Amd64, Some("v1")) => None,
        (_, variant) => variant,
    }
}

/// The variants that run on `wanted`, best first.
fn variants(wanted: &Platform) -> Vec<Option<String>> {
    let variant = wanted.variant().as_deref().filter(|variant| !variant.is_empty());
    let named = |names: &[&str]| names.iter().map(|name| Some((*name).to_owned())).collect::<Vec<_>>();
    match (wanted.architecture(), normal_variant(wanted.architecture(), variant)) {
        (Arch::ARM, Some("v7")) => named(&["v7", "v6", "v5"]),
        (Arch::ARM, Some("v6")) => named(&["v6", "v5"]),
        (Arch::ARM64, Some("v8")) => named(&["v8"]),
        (Arch::Amd64, Some(level)) => {
            let mut levels = named(&["v4", "v3", "v2"]);
            levels.retain(|candidate| candidate.as_deref() <= Some(level));
            levels.push(None);
            levels
        }
        (_, variant) => vec![variant.map(str::to_owned)],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(platforms: &[&str]) -> Vec<Descriptor> {
        let entry = |(number, text): (usize, &&str)| {
            let digest = format!("sha256:{number:064}");
            let mut json = serde_json::json!({
                "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 1, "digest": digest,
            });
            if !text.is_empty() {
                let parts: Vec<&str> = text.split('/').collect();
                json["platform"] = serde_json::json!({"os": parts[0], "architecture": parts[1]});
                if let Some(variant) = parts.get(2) {
                    json["platform"]["variant"] = (*variant).into();
                }
            }
            serde_json::from_value(json).unwrap()
        };
        platforms.iter().enumerate().map(entry).collect()
    }

    #[test]
    fn the_best_runnable_variant_wins() {
        let table: &[(&str, &[&str], Option<usize>)] = &[
            ("linux/amd64", &["linux/arm64", "linux/amd64"], Some(1)),
            ("linux/amd64", &["unknown/unknown", "", "linux/amd64"], Some(2)),
            ("linux/amd64", &["windows/amd64", "linux/arm64"], None),
            ("linux/amd64", &["linux/amd64/v3", "linux/amd64"], Some(1)),
            ("linux/amd64", &["linux/amd64/v3"], None),
            ("linux/amd64/v3", &["linux/amd64", "linux/amd64/v4", "linux/amd64/v2"], Some(2)),
            ("linux/arm64", &["linux/arm/v7", "linux/arm64/v8"], Some(1)),
            ("aarch64", &["linux/arm64"], Some(0)),
            ("linux/arm/v7", &["linux/arm/v5", "linux/arm/v6"], Some(1)),
            ("linux/arm/v6", &["linux/arm/v7"], None),
            ("linux/amd64", &["linux/amd64", "linux/amd64"], Some(0)),
        ];
        for (wanted, platforms, expected) in table {
            let entries = entries(platforms);
            let chosen = choose(&entries, &parse(wanted).unwrap());
            let index =
                chosen.map(|chosen| entries.iter().position(|entry| std::ptr::eq(entry, chosen)).unwrap());
            assert_eq!(index, *expected, "{wanted} of {platforms:?}");
        }
    }

    #[test]
    fn platforms_are_read_and_refused() {
        assert_eq!(text(&parse("linux/arm64/v8").unwrap()), "linux/arm64/v8");
        assert_eq!(text(&parse("x86_64").unwrap()), "linux/amd64");
        for bad in ["", "/", "linux/", "a/b/c/d", "linux/am d64"] {
            assert!(parse(bad).is_err(), "{bad:?} was taken");
        }
    }
}
