//! Version 2: one hierarchy for all controllers.

use super::*;

/// The controllers that are used. Memory must be there, the others may be missing.
const CONTROLLERS: [&str; 3] = ["memory", "cpu", "io"];

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
        write_memory(&self.file("memory.max"), self.memory()?, limit)
    }

    fn memory(&self) -> io::Result<Option<Bytes>> {
        limit(&self.file("memory.max"), 0).map(|limit| limit.map(Bytes))
    }

    fn memory_in_use(&self) -> io::Result<Bytes> {
        number(&self.file("memory.current")).map(Bytes)
    }

    fn set_cpu(&self, limit: MilliCpu) -> io::Result<()> {
        write(&self.file("cpu.max"), &format!("{} {CPU_PERIOD}", limit.0 * CPU_PERIOD / 1_000))
    }

    fn cpu(&self) -> io::Result<Option<MilliCpu>> {
        let path = self.file("cpu.max");
        let quota = limit(&path, 0)?;
        let period = limit(&path, 1)?.filter(|&period| period > 0).unwrap_or(CPU_PERIOD);
        Ok(quota.map(|quota| MilliCpu(quota * 1_000 / period)))
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
