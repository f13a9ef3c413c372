//! What samples say of a VM's demand, and how they are joined with VMs.

use std::{cmp::Ordering, iter::Peekable, time::Duration};
use vibra_model::{Resource, UsageSample, VmId};

/// A sample from further in the future than this is not believed: it would make its VM deaf to all later ones.
pub(crate) const FUTURE: Duration = Duration::from_secs(60);

/// What a sample says of the demand, in the resource's base unit: egress before the shaper; the working set or, where
/// that is not known, the memory in use; CPU used over the interval.
pub(crate) fn demand(resource: Resource, sample: &UsageSample) -> Option<f64> {
    match resource {
        Resource::Bandwidth => Some(sample.egress?.0 as f64),
        Resource::Memory => Some(sample.working_set.or(sample.memory_in_use)?.0 as f64),
        Resource::Cpu => sample.cpu(),
    }
}

/// The item of `id` in a sequence that is sorted by id and was read up to here; skips those before it.
pub(crate) fn matching<T>(
    sorted: &mut Peekable<impl Iterator<Item = T>>,
    id: &VmId,
    key: impl Fn(&T) -> &VmId,
) -> Option<T> {
    loop {
        let found = key(sorted.peek()?);
        // The policy's own ids are the directory's more often than not: no need to look at their text.
        let same = std::ptr::eq(found.as_str(), id.as_str());
        match if same { Ordering::Equal } else { found.cmp(id) } {
            Ordering::Less => drop(sorted.next()),
            Ordering::Equal => return sorted.next(),
            Ordering::Greater => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vibra_model::{Bytes, BytesPerSec};

    #[test]
    fn each_resource_has_its_own_measure() {
        let sample = UsageSample { memory_in_use: Some(Bytes(7)), egress: Some(BytesPerSec(3)), ..Default::default() };
        assert_eq!(demand(Resource::Memory, &sample), Some(7.0));
        assert_eq!(demand(Resource::Memory, &UsageSample { working_set: Some(Bytes(5)), ..sample }), Some(5.0));
        assert_eq!(demand(Resource::Bandwidth, &sample), Some(3.0));
        let busy = UsageSample { cpu_time: Some(Duration::from_millis(500)), ..sample };
        assert_eq!(demand(Resource::Cpu, &busy), None, "over which interval?");
        let busy = UsageSample { interval: Some(Duration::from_secs(2)), ..busy };
        assert_eq!(demand(Resource::Cpu, &busy), Some(250.0));
        for resource in Resource::ALL {
            assert_eq!(demand(resource, &UsageSample::default()), None);
        }
    }
}
