//! Version 2: one hierarchy for all controllers.

use super::*;

/// The controllers that are used. Memory must be there, the others may be missing.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "io"];

/// What the kernel gives a group that nobody has weighed; here it stands for one processor.
const CPU_WEIGHT: u64 = 100;

pub(crate) struct Group {
    mount: PathBuf,
    name: String,
}

impl Group {
    pub(crate) fn new(mount: &Path, name: &str) -> Self {
        Group { mount: mount.to_owned(), name: name.to_owned() }
    }

    fn file(&self, file: &str) -> PathBuf {
        self.mount.join(&self.name).join(file)
    }

    fn weigh(&self, share: MilliCpu) -> io::Result<()> {
        // The kernel takes 1 to 10,000.
        let weight = (share.0 * CPU_WEIGHT / 1_000).clamp(1, 10_000);
        write(&self.file("cpu.weight"), &weight.to_string())
    }

    /// A value of `key` in lines such as "8:0 rbytes=1 wbytes=2" or "usage_usec 3".
    fn field(&self, file: &str, line_key: &str, key: &str) -> io::Result<Option<u64>> {
        let path = self.file(file);
        let text = fs::read_to_string(&path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(line_key)?.strip_prefix(' '));
        let value = line.and_then(|line| match key {
            "" => Some(line),
            key => line.split_whitespace().find_map(|pair| pair.strip_prefix(key)?.strip_prefix('=')),
        });
        value.map(|value| value.trim().parse().map_err(|_| unexpected(&path, &text))).transpose()
    }
}

impl Cgroup for Group {
    fn create(&self) -> io::Result<()> {
        let group = self.mount.join(&self.name);
        remove(&group)?;
        fs::create_dir_all(&group)?;
        // From the root down to the parent.
        let mut parents: Vec<_> = group.ancestors().skip(1).take_while(|path| path.starts_with(&self.mount)).collect();
        parents.reverse();
        parents.into_iter().try_for_each(|parent| {
            let there = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
            let used = |name: &&str| *name == "memory" || there.split_whitespace().any(|known| known == *name);
            let passed: Vec<_> = CONTROLLERS.into_iter().filter(used).map(|name| format!("+{name}")).collect();
            write(&parent.join("cgroup.subtree_control"), &passed.join(" "))
        })
    }

    fn directories(&self) -> Vec<PathBuf> {
        vec![self.mount.join(&self.name)]
    }

    fn set_memory(&self, limit: Bytes) -> io::Result<()> {
        // Where memory.max cannot be reached the kernel kills; memory.high only has it give up what it can.
        let high = self.file("memory.high");
        if self.memory_in_use()? > limit {
            write(&high, &limit.0.to_string())?;
            let left = self.memory_in_use();
            write(&high, "max")?;
            if left? > limit {
                let message = format!("memory.high left more than {limit} in {}", self.file("").display());
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, message));
            }
        }
        write(&self.file("memory.max"), &limit.0.to_string())
    }

    fn memory(&self) -> io::Result<Option<Bytes>> {
        limit(&self.file("memory.max"), 0).map(|limit| limit.map(Bytes))
    }

    fn memory_in_use(&self) -> io::Result<Bytes> {
        number(&self.file("memory.current")).map(Bytes)
    }

    fn memory_statistics(&self) -> io::Result<MemoryStatistics> {
        MemoryStatistics::of(self.memory_in_use()?, &self.file("memory.stat"))
    }

    fn pressure(&self) -> Option<Pressure> {
        Pressure::parse(&fs::read_to_string(self.file("memory.pressure")).ok()?)
    }

    fn set_cpu(&self, limit: MilliCpu) -> io::Result<()> {
        self.weigh(limit)?;
        write(&self.file("cpu.max"), &format!("{} {CPU_PERIOD}", limit.0 * CPU_PERIOD / 1_000))
    }

    fn cpu(&self) -> io::Result<Option<MilliCpu>> {
        let path = self.file("cpu.max");
        let quota = limit(&path, 0)?;
        let period = limit(&path, 1)?.filter(|&period| period > 0).unwrap_or(CPU_PERIOD);
        Ok(quota.map(|quota| MilliCpu(quota * 1_000 / period)))
    }

    fn set_cpu_weight(&self, share: MilliCpu) -> io::Result<()> {
        write(&self.file("cpu.max"), &format!("max {CPU_PERIOD}"))?;
        self.weigh(share)
    }

    fn cpu_weight(&self) -> io::Result<MilliCpu> {
        let weight: u64 = number(&self.file("cpu.weight"))?;
        Ok(MilliCpu(weight * 1_000 / CPU_WEIGHT))
    }

    fn cpu_time(&self) -> io::Result<Duration> {
        let micros = self.field("cpu.stat", "usage_usec", "")?;
        micros.map(Duration::from_micros).ok_or_else(|| unexpected(&self.file("cpu.stat"), "no usage_usec"))
    }

    fn limit_disk(&self, disk: &str, limit: DiskLimit) -> io::Result<()> {
        write(&self.file("io.max"), &format!("{disk} riops={} rbps={}", limit.reads_per_s, limit.read.0))
    }

    fn disk_read(&self, disk: &str) -> io::Result<Bytes> {
        // A disk that nothing was read from is not listed.
        Ok(Bytes(self.field("io.stat", disk, "rbytes")?.unwrap_or(0)))
    }
}

/// One word of a file of limits; `None` where it is "max".
fn limit(path: &Path, word: usize) -> io::Result<Option<u64>> {
    let text = fs::read_to_string(path)?;
    match text.split_whitespace().nth(word) {
        Some("max") => Ok(None),
        Some(value) => value.parse().map(Some).map_err(|_| unexpected(path, &text)),
        None => Err(unexpected(path, &text)),
    }
}
