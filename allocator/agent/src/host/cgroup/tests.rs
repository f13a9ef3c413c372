//! Both versions on ordinary files, and the one that is here on the kernel's.

use super::*;

const DISK: &str = "254:0";

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
    assert_eq!(fs::read_to_string(mount.path().join("g/io.max")).unwrap(), "254:0 riops=117 rbps=60000000");
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

#[test]
fn the_kernel_takes_and_keeps_limits() {
    let mount = Path::new(MOUNT);
    let name = format!("vibra-test-{}", std::process::id());
    let Ok(version) = version(mount) else { return eprintln!("skipped: no memory controller below {MOUNT}") };
    let group = open(version, mount, &name);
    if let Err(error) = group.create() {
        return eprintln!("skipped: no control group can be made here: {error}");
    }
    group.set_memory(Bytes(48_000_000)).unwrap();
    let limit = group.memory().unwrap().unwrap().0;
    assert!((47_990_000..=48_000_000).contains(&limit), "rounded down to a page: {limit}");
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    for directory in group.directories() {
        write(&directory.join("cgroup.procs"), &child.id().to_string()).unwrap();
    }
    end(&group.directories()[0]).unwrap();
    // Killing leaves a zombie, which is out of the group: nobody needs to have waited for it.
    for directory in group.directories() {
        remove(&directory).unwrap();
        assert!(!directory.exists());
    }
    assert!(!child.wait().unwrap().success());
}

#[test]
fn what_is_on_no_disk_has_no_number() {
    assert_eq!(disk_of(Path::new("/proc")).unwrap(), None);
    assert!(disk_of(Path::new("/no/such/place")).is_err());
}
