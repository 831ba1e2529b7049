//! Which images go, and when: the kubelet's `ImageGCManager` as pure functions. Ages count from when this agent first saw
//! an image or its use, so that a restarted agent waits anew.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

/// `imageGCHighThresholdPercent` and its kin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// From this use of the disk on, images are removed…
    pub high_percent: u8,
    /// …until it is down to this.
    pub low_percent: u8,
    /// Younger images stay: they may just have been pulled for a container.
    pub min_age: SignedDuration,
    /// Unused for longer, an image goes whatever the disk has; zero is never.
    pub max_age: SignedDuration,
}

impl Default for Policy {
    fn default() -> Self {
        Self { high_percent: 85, low_percent: 80, min_age: SignedDuration::from_mins(2), max_age: SignedDuration::ZERO }
    }
}

/// An image on the node under all its names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Digest that the names point to.
    pub target: String,
    pub id: String,
    pub names: BTreeSet<String>,
    pub bytes: u64,
    pub pinned: bool,
}

/// What is remembered of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    pub first_seen: Timestamp,
    pub last_used: Option<Timestamp>,
}

pub type Memories = BTreeMap<String, Memory>;

/// Disk that holds the images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    pub capacity_bytes: u64,
    pub available_bytes: u64,
}

impl Disk {
    pub fn used_percent(&self) -> u64 {
        let available = self.available_bytes.min(self.capacity_bytes);
        100 - (available * 100).checked_div(self.capacity_bytes).unwrap_or(100)
    }
}

/// Brings the memory up to date.
pub fn remember(memories: &mut Memories, images: &[Image], used: &BTreeSet<String>, now: Timestamp) {
    for image in images {
        let memory = memories.entry(image.target.clone()).or_insert(Memory { first_seen: now, last_used: None });
        if used.contains(&image.target) {
            memory.last_used = Some(now);
        }
    }
    let present = images.iter().map(|image| &image.target).collect::<BTreeSet<_>>();
    memories.retain(|target, _| present.contains(target));
}

/// What could go, longest unused first.
pub fn candidates<'a>(memories: &Memories, images: &'a [Image], used: &BTreeSet<String>) -> Vec<&'a Image> {
    let mut free = images.iter().filter(|image| !image.pinned && !used.contains(&image.target)).collect::<Vec<_>>();
    free.sort_by_key(|image| {
        let memory = memories.get(&image.target);
        (memory.and_then(|memory| memory.last_used), memory.map(|memory| memory.first_seen))
    });
    free
}

/// Has nobody used it for too long? Only after the agent itself has watched for that long.
pub fn is_expired(policy: &Policy, memory: &Memory, began: Timestamp, now: Timestamp) -> bool {
    let longer = |since: Timestamp| now.duration_since(since) > policy.max_age;
    // An image that was never used counts from when it was seen: the kubelet would remove it at once, right after a pull.
    policy.max_age > SignedDuration::ZERO && longer(began) && longer(memory.last_used.unwrap_or(memory.first_seen))
}

pub fn is_old_enough(policy: &Policy, memory: &Memory, now: Timestamp) -> bool {
    now.duration_since(memory.first_seen) >= policy.min_age
}

/// Bytes that should go; `None` below the threshold.
pub fn to_free(policy: &Policy, disk: Disk) -> Option<u64> {
    if disk.used_percent() < u64::from(policy.high_percent) {
        return None;
    }
    let wanted = disk.capacity_bytes / 100 * u64::from(100 - policy.low_percent);
    Some(wanted.saturating_sub(disk.available_bytes))
}

/// The kubelet's words for a disk that stays full.
pub fn still_full(disk: Disk, freed_bytes: u64) -> String {
    format!(
        "Insufficient free disk space on the node's image filesystem ({}% of {} used). Failed to free sufficient space \
         by deleting unused images (freed {freed_bytes} bytes). Investigate disk usage, as it could be used by active \
         images, logs, volumes, or other data.",
        disk.used_percent(),
        size(disk.capacity_bytes),
    )
}

fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut shown = format!("{bytes} B");
    for unit in units {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        shown = format!("{value:.1} {unit}");
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn image(target: &str, pinned: bool) -> Image {
        Image { target: target.into(), pinned, bytes: 10, ..Image::default() }
    }

    #[test]
    fn the_longest_unused_goes_first_and_what_is_used_or_pinned_never() {
        let images = [image("a", false), image("b", false), image("c", false), image("pinned", true)];
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let mut memories = Memories::new();
        remember(&mut memories, &images, &set(&["a", "b"]), at(10));
        remember(&mut memories, &images, &set(&["a"]), at(20));
        let order = |used: &BTreeSet<String>| {
            candidates(&memories, &images, used).iter().map(|image| image.target.as_str()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order(&set(&[])), "c b a");
        assert_eq!(order(&set(&["b"])), "c a");
        remember(&mut memories, &images[..1], &set(&[]), at(30));
        assert_eq!(memories.len(), 1);
        assert_eq!(memories["a"], Memory { first_seen: at(10), last_used: Some(at(20)) });
    }

    #[test]
    fn the_disk_decides_how_much_goes() {
        let policy = Policy::default();
        let disk = |available_bytes| Disk { capacity_bytes: 1000, available_bytes };
        assert_eq!(to_free(&policy, disk(160)), None);
        assert_eq!(to_free(&policy, disk(150)), Some(50));
        assert_eq!(to_free(&policy, disk(0)), Some(200));
        assert_eq!(disk(2000).used_percent(), 0);
        let full = still_full(Disk { capacity_bytes: 3 << 30, available_bytes: 0 }, 7);
        assert!(full.contains("(100% of 3.0 GiB used)") && full.contains("(freed 7 bytes)"), "{full}");
    }

    #[test]
    fn ages_count_from_what_the_agent_saw() {
        let policy = Policy { max_age: SignedDuration::from_secs(100), ..Policy::default() };
        let unused = Memory { first_seen: at(0), last_used: None };
        let used = Memory { first_seen: at(0), last_used: Some(at(50)) };
        assert!(is_expired(&policy, &unused, at(0), at(101)));
        assert!(!is_expired(&policy, &used, at(0), at(101)));
        assert!(is_expired(&policy, &used, at(0), at(151)));
        assert!(!is_expired(&policy, &unused, at(90), at(151)), "the agent has not watched that long");
        assert!(!is_expired(&Policy::default(), &unused, at(0), at(1_000_000)));
        assert!(!is_old_enough(&policy, &unused, at(119)));
        assert!(is_old_enough(&policy, &unused, at(120)));
    }
}
