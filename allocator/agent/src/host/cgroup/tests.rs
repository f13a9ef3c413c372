//! Both versions on ordinary files, and the one that is here on the kernel's.

use super::*;

const DISK: &str = "254:0";

const STATISTICS: &str =
    "cache 7\nworkingset_refault_file 5\npgmajfault 2\ninactive_file 4096\nactive_file 8192\ntotal_active_file 9\n";

/// What both versions say of it.
fn statistics() -> MemoryStatistics {
    MemoryStatistics {
        in_use: Bytes(4096),
        active_file: Bytes(8192),
        inactive_file: Bytes(4096),
        major_faults: Some(2),
        refaults: Some(5),
        swapped_in: None,
    }
}

/// An empty stand-in for the kernel's files.
fn stand_in(files: &[(&str, &str)]) -> tempfile::TempDir {
    let mount = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = mount.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    mount
}

#[test]
fn version_1_is_spoken() {
    let mount = stand_in(&[
        ("memory/memory.limit_in_bytes", ""),
        ("memory/g/memory.limit_in_bytes", "9223372036854771712\n"),
        ("memory/g/memory.usage_in_bytes", "4096\n"),
        ("cpu/g/cpu.cfs_quota_us", "-1\n"),
        ("memory/g/memory.stat", STATISTICS),
        ("cpuacct/g/cpuacct.usage", "5000000\n"),
        ("blkio/g/blkio.throttle.io_service_bytes", "8:0 Read 1\n254:0 Read 8192\n254:0 Write 7\nTotal 8200\n"),
    ]);
    assert_eq!(version(mount.path()).unwrap(), CgroupVersion::V1);
    let group = open(CgroupVersion::V1, mount.path(), "g");
    assert_eq!((group.memory().unwrap(), group.cpu().unwrap()), (None, None));
    assert_eq!(group.memory_in_use().unwrap(), Bytes(4096));
    assert_eq!(group.cpu_time().unwrap(), Duration::from_millis(5));
    assert_eq!(group.disk_read(DISK).unwrap(), Bytes(8192));
    assert_eq!(group.disk_read("9:9").unwrap(), Bytes(0));
    group.set_memory(Bytes(1 << 20)).unwrap();
    group.set_cpu(MilliCpu(1_500)).unwrap();
    group.limit_disk(DISK, DiskLimit::default()).unwrap();
    assert_eq!((group.memory().unwrap(), group.cpu().unwrap()), (Some(Bytes(1 << 20)), Some(MilliCpu(1_500))));
    assert_eq!((group.memory_statistics().unwrap(), group.pressure()), (statistics(), None));
    assert_eq!(group.cpu_weight().unwrap(), MilliCpu(1_500), "weight goes with the limit");
    group.set_cpu_weight(MilliCpu(500)).unwrap();
    assert_eq!((group.cpu().unwrap(), group.cpu_weight().unwrap()), (None, MilliCpu(500)));
    let iops = fs::read_to_string(mount.path().join("blkio/g/blkio.throttle.read_iops_device")).unwrap();
    assert_eq!(iops, "254:0 117");
}

#[test]
fn version_2_is_spoken() {
    let mount = stand_in(&[
        ("cgroup.controllers", "cpu io memory pids\n"),
        ("g/memory.max", "max\n"),
        ("g/memory.current", "4096\n"),
        ("g/cpu.max", "max 100000\n"),
        ("g/memory.stat", STATISTICS),
        ("g/memory.pressure", "some avg10=0.00 total=70\nfull avg10=0.00 total=30\n"),
        ("g/cpu.stat", "usage_usec 5000\nuser_usec 1\n"),
        ("g/io.stat", "8:0 rbytes=1 wbytes=2\n254:0 rbytes=8192 wbytes=7 rios=2\n"),
    ]);
    assert_eq!(version(mount.path()).unwrap(), CgroupVersion::V2);
    let group = open(CgroupVersion::V2, mount.path(), "g");
    assert_eq!((group.memory().unwrap(), group.cpu().unwrap()), (None, None));
    assert_eq!(group.memory_in_use().unwrap(), Bytes(4096));
    assert_eq!(group.cpu_time().unwrap(), Duration::from_millis(5));
    assert_eq!(group.disk_read(DISK).unwrap(), Bytes(8192));
    assert_eq!(group.disk_read("9:9").unwrap(), Bytes(0));
    group.set_memory(Bytes(1 << 20)).unwrap();
    group.set_cpu(MilliCpu(1_500)).unwrap();
    group.limit_disk(DISK, DiskLimit::default()).unwrap();
    assert_eq!((group.memory().unwrap(), group.cpu().unwrap()), (Some(Bytes(1 << 20)), Some(MilliCpu(1_500))));
    assert_eq!(group.memory_statistics().unwrap(), statistics());
    assert_eq!(group.pressure(), Some(Pressure { some_us: 70, full_us: Some(30) }));
    assert_eq!(group.cpu_weight().unwrap(), MilliCpu(1_500), "weight goes with the limit");
    group.set_cpu_weight(MilliCpu(500)).unwrap();
    assert_eq!((group.cpu().unwrap(), group.cpu_weight().unwrap()), (None, MilliCpu(500)));
    assert_eq!(fs::read_to_string(mount.path().join("g/io.max")).unwrap(), "254:0 riops=117 rbps=60000000");
}

#[test]
fn version_2_is_never_asked_for_what_it_would_kill_for() {
    let mount = stand_in(&[("g/memory.max", "max\n"), ("g/memory.current", "8192\n"), ("g/memory.high", "max\n")]);
    let refused = open(CgroupVersion::V2, mount.path(), "g").set_memory(Bytes(4096)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy, "{refused}");
    assert!(refused.to_string().contains("memory.high left more than"), "{refused}");
    let read = |file| fs::read_to_string(mount.path().join(file)).unwrap();
    assert_eq!((read("g/memory.max").as_str(), read("g/memory.high").as_str()), ("max\n", "max"));
}

#[test]
fn version_2_passes_controllers_down() {
    // A container may have been given some of them only.
    for (there, passed) in [("cpu io memory pids\n", "+memory +cpu +io"), ("cpu memory\n", "+memory +cpu")] {
        let mount = stand_in(&[("cgroup.controllers", there), ("run/cgroup.controllers", there)]);
        open(CgroupVersion::V2, mount.path(), "run/vm").create().unwrap();
        for parent in ["", "run"] {
            let control = mount.path().join(parent).join("cgroup.subtree_control");
            assert_eq!(fs::read_to_string(control).unwrap(), passed);
        }
    }
}

#[test]
fn what_is_not_understood_is_an_error_and_no_number() {
    let mount = stand_in(&[("g/memory.max", "lots\n"), ("g/memory.current", "\n"), ("g/cpu.stat", "")]);
    let group = open(CgroupVersion::V2, mount.path(), "g");
    assert!(group.memory().is_err());
    assert!(group.memory_in_use().is_err());
    assert!(group.cpu_time().is_err());
    assert!(version(mount.path()).is_err());
}

/// A group of this machine's, removed with all that runs in it; `None`, and a word why, where none can be made.
struct Real {
    group: Box<dyn Cgroup>,
    children: Vec<std::process::Child>,
}

impl Real {
    fn make(name: &str) -> Option<Real> {
        let mount = Path::new(MOUNT);
        let Ok(version) = version(mount) else {
            eprintln!("skipped: no memory controller below {MOUNT}");
            return None;
        };
        let group = open(version, mount, &format!("vibra-test-{}-{name}", std::process::id()));
        if let Err(error) = group.create() {
            eprintln!("skipped: no control group can be made here: {error}");
            return None;
        }
        Some(Real { group, children: Vec::new() })
    }

    /// Runs a shell script in the group, and waits until it says something.
    fn run(&mut self, script: &str) {
        use std::{io::Read, process::Stdio};
        let groups: Vec<_> = self.group.directories().iter().map(|group| group.display().to_string()).collect();
        let enter = format!("for group in {}; do echo $$ > $group/cgroup.procs; done; {script}", groups.join(" "));
        let mut command = std::process::Command::new("sh");
        let mut child = command.args(["-c", &enter]).stdout(Stdio::piped()).stdin(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).expect("it says something");
        self.children.push(child);
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // Killing leaves zombies, which are out of the group: nobody needs to have waited for them.
        for directory in self.group.directories() {
            remove(&directory).unwrap();
            assert!(!directory.exists());
        }
        for child in &mut self.children {
            assert!(!child.wait().unwrap().success());
        }
    }
}

#[test]
fn the_kernel_takes_and_keeps_limits() {
    let Some(mut real) = Real::make("limits") else { return };
    real.group.set_memory(Bytes(48_000_000)).unwrap();
    let limit = real.group.memory().unwrap().unwrap().0;
    assert!((47_990_000..=48_000_000).contains(&limit), "rounded down to a page: {limit}");
    real.run("echo; exec sleep 1000");
    end(&real.group.directories()[0]).unwrap();
    assert!(real.group.memory_statistics().unwrap().refaults.is_some());
}

/// Memory of processes cannot be given up without swap.
const HOLDS_30_MB: &str = "held=$(head -c 30000000 /dev/zero | tr '\\0' x); echo; read -r wait; echo ${#held}";

#[test]
fn what_cannot_be_given_up_is_refused_and_nobody_is_killed() {
    let Some(mut real) = Real::make("busy") else { return };
    if fs::read_to_string("/proc/swaps").unwrap().lines().count() > 1 {
        return eprintln!("skipped: this machine swaps, so that everything can be given up");
    }
    real.group.set_memory(Bytes(200_000_000)).unwrap();
    real.run(HOLDS_30_MB);
    let refused = real.group.set_memory(Bytes(10_000_000)).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ResourceBusy, "{refused}");
    assert!(refused.to_string().contains("10000000"), "{refused}");
    assert!(real.group.memory().unwrap().unwrap() >= real.group.memory_in_use().unwrap());
    assert!(real.children[0].try_wait().unwrap().is_none(), "it lives");
}

#[test]
fn memory_is_taken_down_to_what_is_held_and_no_further() {
    let Some(mut real) = Real::make("shrink") else { return };
    let limit = |real: &Real| real.group.memory().unwrap().unwrap().0;
    let mut memory = crate::host::memory::drive::Limit::default();
    real.group.set_memory(Bytes(200_000_000)).unwrap();
    real.run(HOLDS_30_MB);
    let files = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let file = files.path().join("file");
    fs::write(&file, vec![1; 60_000_000]).unwrap();
    rustix::fs::syncfs(fs::File::open(&file).unwrap()).unwrap();
    rustix::fs::fadvise(fs::File::open(&file).unwrap(), 0, None, rustix::fs::Advice::DontNeed).unwrap();
    real.run(&format!("cat {} | tail -c 1; echo; exec sleep 1000", file.display()));
    assert!(real.group.memory_in_use().unwrap().0 > 85_000_000, "the file is in memory");
    // A limit at 10 MB would be 20 MB less than is held. Steps go on from order to order.
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut limits = vec![limit(&real)];
    while limit(&real) > 45_000_000 {
        memory.set(&*real.group, Bytes(10_000_000)).unwrap().unwrap();
        limits.push(limit(&real));
        assert!(Instant::now() < deadline, "{limits:?}");
    }
    assert!(limits.is_sorted_by(|a, b| a >= b), "only down: {limits:?}");
    assert!(limit(&real) >= 30_000_000, "what is held stays: {limits:?}");
    assert!(real.children.iter_mut().all(|child| child.try_wait().unwrap().is_none()), "all live");
    memory.set(&*real.group, Bytes(100_000_000)).unwrap().unwrap();
    assert!(limit(&real) > 99_990_000, "what is given is given at once");
}

#[test]
fn a_quota_limits_what_would_take_more() {
    let Some(mut real) = Real::make("quota") else { return };
    if real.group.set_cpu(MilliCpu(200)).is_err() {
        return eprintln!("skipped: no processor controller");
    }
    // It is to be the quota that holds it back, and not whatever else runs here.
    let most = [("cpu.shares", 1 << 18), ("cpu.weight", 10_000)];
    let weights =
        real.group.directories().into_iter().flat_map(|group| most.map(|(file, most)| (group.join(file), most)));
    weights.filter(|(file, _)| file.exists()).for_each(|(file, most)| write(&file, &most.to_string()).unwrap());
    real.run("echo; while :; do :; done");
    let (began, before) = (Instant::now(), real.group.cpu_time().unwrap());
    sleep(Duration::from_secs(2));
    let used = (real.group.cpu_time().unwrap() - before).as_secs_f64() / began.elapsed().as_secs_f64();
    // Twenty periods, of which the first and the last are not whole.
    assert!((0.17..=0.22).contains(&used), "a fifth of a processor, and not {used}");
    CpuControl::Weight.set(&*real.group, MilliCpu(2_000)).unwrap();
    assert_eq!(CpuControl::Weight.get(&*real.group).unwrap(), Some(MilliCpu(2_000)));
    assert_eq!(CpuControl::Quota.get(&*real.group).unwrap(), None);
}

#[test]
fn what_is_on_no_disk_has_no_number() {
    assert_eq!(disk_of(Path::new("/proc")).unwrap(), None);
    assert!(disk_of(Path::new("/no/such/place")).is_err());
}
