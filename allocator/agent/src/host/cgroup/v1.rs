//! Version 1: one hierarchy a controller.

use super::*;

/// The controllers that are used; memory must be there, the others may be missing.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "cpuacct", "blkio"];
/// What the kernel shows where memory is not limited: the largest number of whole pages, or more.
const UNLIMITED: u64 = 1 << 60;

pub(crate) struct Group {
    mount: PathBuf,
    name: String,
}

impl Group {
    pub(crate) fn new(mount: &Path, name: &str) -> Self {
        Group { mount: mount.to_owned(), name: name.to_owned() }
    }

    fn file(&self, controller: &str, file: &str) -> PathBuf {
        self.mount.join(controller).join(&self.name).join(file)
    }

    fn weigh(&self, share: MilliCpu) -> io::Result<()> {
        // The kernel takes 2 to 262,144.
        let shares = (share.0 * CPU_SHARES / 1_000).clamp(2, 1 << 18);
        write(&self.file("cpu", "cpu.shares"), &shares.to_string())
    }
}

impl Cgroup for Group {
    fn create(&self) -> io::Result<()> {
        for directory in self.directories() {
            remove(&directory)?;
            fs::create_dir_all(directory)?;
        }
        Ok(())
    }

    fn directories(&self) -> Vec<PathBuf> {
        let there = CONTROLLERS.into_iter().filter(|controller| self.mount.join(controller).is_dir());
        there.map(|controller| self.mount.join(controller).join(&self.name)).collect()
    }

    fn set_memory(&self, limit: Bytes) -> io::Result<()> {
        write_memory(&self.file("memory", "memory.limit_in_bytes"), self.memory()?, limit)
    }

    fn memory(&self) -> io::Result<Option<Bytes>> {
        let limit = number(&self.file("memory", "memory.limit_in_bytes"))?;
        Ok((limit < UNLIMITED).then_some(Bytes(limit)))
    }

    fn memory_in_use(&self) -> io::Result<Bytes> {
        number(&self.file("memory", "memory.usage_in_bytes")).map(Bytes)
    }

    fn memory_statistics(&self) -> io::Result<MemoryStatistics> {
        MemoryStatistics::of(self.memory_in_use()?, &self.file("memory", "memory.stat"))
    }

    fn pressure(&self) -> Option<Pressure> {
        None
    }

    fn set_cpu(&self, limit: MilliCpu) -> io::Result<()> {
        self.weigh(limit)?;
        write(&self.file("cpu", "cpu.cfs_period_us"), &CPU_PERIOD.to_string())?;
        write(&self.file("cpu", "cpu.cfs_quota_us"), &(limit.0 * CPU_PERIOD / 1_000).to_string())
    }

    fn cpu(&self) -> io::Result<Option<MilliCpu>> {
        let quota: i64 = number(&self.file("cpu", "cpu.cfs_quota_us"))?;
        // -1 is no limit.
        Ok(u64::try_from(quota).ok().map(|quota| MilliCpu(quota * 1_000 / CPU_PERIOD)))
    }

    fn set_cpu_weight(&self, share: MilliCpu) -> io::Result<()> {
        write(&self.file("cpu", "cpu.cfs_quota_us"), "-1")?;
        self.weigh(share)
    }

    fn cpu_weight(&self) -> io::Result<MilliCpu> {
        let shares: u64 = number(&self.file("cpu", "cpu.shares"))?;
        Ok(MilliCpu(shares * 1_000 / CPU_SHARES))
    }

    fn cpu_time(&self) -> io::Result<Duration> {
        number(&self.file("cpuacct", "cpuacct.usage")).map(Duration::from_nanos)
    }

    fn limit_disk(&self, disk: &str, limit: DiskLimit) -> io::Result<()> {
        write(&self.file("blkio", "blkio.throttle.read_iops_device"), &format!("{disk} {}", limit.reads_per_s))?;
        write(&self.file("blkio", "blkio.throttle.read_bps_device"), &format!("{disk} {}", limit.read.0))
    }

    fn disk_read(&self, disk: &str) -> io::Result<Bytes> {
        let path = self.file("blkio", "blkio.throttle.io_service_bytes");
        let text = fs::read_to_string(&path)?;
        let line = text.lines().find_map(|line| line.strip_prefix(disk)?.strip_prefix(" Read "));
        // A disk that nothing was read from is not listed.
        let bytes = line.map_or(Ok(0), |bytes| bytes.trim().parse());
        bytes.map(Bytes).map_err(|_| unexpected(&path, &text))
    }
}

/// Writes a memory limit. The kernel refuses with EBUSY what it cannot reach by giving pages up: half the way first.
fn write_memory(path: &Path, current: Option<Bytes>, limit: Bytes) -> io::Result<()> {
    const TRIES: u32 = 10;
    let mut current = current.map_or(limit.0, |current| current.0);
    for attempt in 1.. {
        match write(path, &limit.0.to_string()) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < TRIES => {
                let half_way = limit.0.midpoint(current.max(limit.0));
                if write(path, &half_way.to_string()).is_ok() {
                    current = half_way;
                }
                sleep(Duration::from_millis(50));
            }
            done => return done,
        }
    }
    unreachable!("the last try returns")
}
