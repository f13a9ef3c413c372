//! The directory's vocabulary: ids, units, customers, VMs, hosts, allocations, usage, plans and bounds.
