//! What a cgroup has used, from the kernel's own counters.

use std::path::Path;

use super::{Tree, Version};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu_ns: u64,
    pub memory_bytes: u64,
    /// Without file pages that the kernel would drop first: what counts against eviction.
    pub working_set_bytes: u64,
    pub rss_bytes: u64,
    pub page_faults: u64,
    pub major_page_faults: u64,
}

impl Tree {
    /// `None` when there is no such cgroup. The empty path is the whole machine as far as cgroups know it.
    pub fn usage(&self, path: &str) -> Option<Usage> {
        let read = |controller: &str, file: &str| std::fs::read_to_string(self.directory(controller, path).join(file));
        let number = |text: String| text.trim().parse::<u64>().ok();
        let (cpu_ns, memory_bytes) = match self.version {
            Version::V1 => (
                read("cpuacct", "cpuacct.usage").ok().and_then(number)?,
                read("memory", "memory.usage_in_bytes").ok().and_then(number)?,
            ),
            Version::V2 => {
                let text = read("", "cpu.stat").ok()?;
                (field(&text, "usage_usec")? * 1000, read("", "memory.current").ok().and_then(number).unwrap_or(0))
            }
        };
        let stat = read("memory", "memory.stat").unwrap_or_default();
        let of = |name: &str| field(&stat, name).unwrap_or(0);
        let (inactive, rss, faults, major) = match self.version {
            Version::V1 => ("total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"),
            Version::V2 => ("inactive_file", "anon", "pgfault", "pgmajfault"),
        };
        Some(Usage {
            cpu_ns,
            memory_bytes,
            working_set_bytes: memory_bytes.saturating_sub(of(inactive)),
            rss_bytes: of(rss),
            page_faults: of(faults),
            major_page_faults: of(major),
        })
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse().ok()
}

/// The whole machine, where its top cgroup tells nothing (version 2 has no memory counters there).
pub fn machine() -> Option<Usage> {
    machine_at(Path::new("/proc"))
}

fn machine_at(proc: &Path) -> Option<Usage> {
    /// Unit of `/proc/stat` (`sysconf(_SC_CLK_TCK)`, 100 on every Linux there is).
    const TICK_NS: u64 = 10_000_000;
    let stat = std::fs::read_to_string(proc.join("stat")).ok()?;
    let ticks = stat.lines().next()?.split_whitespace().skip(1).map(|word| word.parse::<u64>().unwrap_or(0));
    let ticks = ticks.collect::<Vec<_>>();
    // User, nice, system, then idle and waiting, which are no use, then interrupts and stolen time.
    let busy = ticks.iter().take(3).chain(ticks.iter().skip(5).take(3)).sum::<u64>();
    let memory = std::fs::read_to_string(proc.join("meminfo")).ok()?;
    let of = |name: &str| -> Option<u64> {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    let used = of("MemTotal")?.saturating_sub(of("MemFree")?);
    Some(Usage {
        cpu_ns: busy * TICK_NS,
        memory_bytes: used,
        working_set_bytes: used.saturating_sub(of("Inactive(file)").unwrap_or(0)),
        rss_bytes: of("AnonPages").unwrap_or(0),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::{Tree, Usage, machine_at};

    #[test]
    fn version_1_and_2_tell_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("1/cpuacct/kubepods/p/cpuacct.usage", "5000\n");
        put("1/memory/kubepods/p/memory.usage_in_bytes", "1000\n");
        let stat = "rss 1\ntotal_rss 7\ntotal_pgfault 8\ntotal_pgmajfault 9\ntotal_inactive_file 300\n";
        put("1/memory/kubepods/p/memory.stat", stat);
        put("2/cgroup.controllers", "cpu memory");
        put("2/kubepods/p/cpu.stat", "usage_usec 5\nuser_usec 1\n");
        put("2/kubepods/p/memory.current", "1000\n");
        put("2/kubepods/p/memory.stat", "anon 7\ninactive_file 300\npgfault 8\npgmajfault 9\n");
        let expected = Usage {
            cpu_ns: 5000,
            memory_bytes: 1000,
            working_set_bytes: 700,
            rss_bytes: 7,
            page_faults: 8,
            major_page_faults: 9,
        };
        for version in ["1", "2"] {
            let tree = Tree::at(&directory.path().join(version), "");
            assert_eq!(tree.usage("/kubepods/p"), Some(expected), "version {version}");
            assert_eq!(tree.usage("/kubepods/other"), None);
        }
    }

    #[test]
    fn the_machine_is_read_from_proc() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("stat"), "cpu  1 2 3 400 500 4 5 6 0 0\ncpu0 1\n").unwrap();
        let memory = "MemTotal: 100 kB\nMemFree: 40 kB\nInactive(file): 10 kB\nAnonPages: 5 kB\n";
        std::fs::write(directory.path().join("meminfo"), memory).unwrap();
        let usage = machine_at(directory.path()).unwrap();
        assert_eq!((usage.cpu_ns, usage.memory_bytes), (21 * 10_000_000, 60 * 1024));
        assert_eq!((usage.working_set_bytes, usage.rss_bytes), (50 * 1024, 5 * 1024));
    }
}
