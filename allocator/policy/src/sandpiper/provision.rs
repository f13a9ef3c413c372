//! How much a VM needs (section 5.5).

use super::{
    parameters::{SandpiperParameters, Sla},
    profile::{Measurement, Profile, exceeds, predicted},
};
use vibra_model::Resource;

/// λcap of equation 5.2: the arrival rate, in requests a second, that a G/G/1 server sustains with a mean response time
/// of `response` seconds, where requests need `service` seconds on average and the variances of the time between
/// arrivals and of the service time sum to `variances`, in s². 0 if even an idle server is too slow.
pub(super) fn sustainable_rate(response: f64, service: f64, variances: f64) -> f64 {
    let slack = response - service;
    if slack <= 0.0 { 0.0 } else { 1.0 / (service + variances / (2.0 * slack)) }
}

/// What a VM can be given of one resource: its share or, where it has none, its host's room. `None`: no limit is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Limits {
    /// The share, where the resource is managed for the VM.
    pub(super) share: Option<f64>,
    /// What the host has for this customer.
    pub(super) room: Option<f64>,
    /// What the customer's VMs on the host used in the newest measurement, together.
    pub(super) load: f64,
}

impl Limits {
    /// The most that the VM can use.
    pub(super) fn most(&self) -> Option<f64> {
        self.share.or(self.room)
    }

    /// What is saturated where the VM uses `used`, the closest limit first: such a measurement hides what it would use.
    fn saturated(&self, used: f64, saturation: f64) -> Option<f64> {
        let own = self.share.filter(|share| used >= saturation * share);
        own.or_else(|| self.room.filter(|room| self.load >= saturation * room))
    }
}

/// The peak of CPU or bandwidth that black-box measurements let expect: a high percentile, and Δ more of what was
/// saturated (section 5.5.1). In the resource's base unit; `None` if it was never measured.
pub(super) fn observed_peak(
    profile: &Profile,
    resource: Resource,
    limits: &Limits,
    parameters: &SandpiperParameters,
) -> Option<f64> {
    let tail = profile.quantile(parameters.percentile, |m| m.used(resource))?;
    let newest = profile.newest()?.used(resource)?;
    let saturated = limits.saturated(newest, parameters.saturation).unwrap_or(0.0);
    Some(tail + parameters.delta * saturated)
}

/// The peak of CPU or bandwidth that the request log lets expect (section 5.5.2): for CPU λpeak/λcap of what the VM can
/// use now, for bandwidth λpeak·b. `None` if requests were not measured.
pub(super) fn requested_peak(
    profile: &Profile,
    resource: Resource,
    limits: &Limits,
    parameters: &SandpiperParameters,
) -> Option<f64> {
    let sla = parameters.sla.unwrap_or_default();
    let peak = profile.quantile(parameters.percentile, |m| m.arrivals())?;
    match resource {
        Resource::Cpu => {
            let service = profile.newest()?.service()?;
            let now = profile.newest()?.arrivals().filter(|now| *now > 0.0)?;
            let variances = sla.arrival_variation / (now * now) + sla.service_variation * service * service;
            let capacity = sustainable_rate(sla.response_time.as_secs_f64(), service, variances);
            (capacity > 0.0).then_some(limits.most()? * peak / capacity)
        }
        Resource::Bandwidth => Some(peak * mean(profile.newest_first().filter_map(|m| m.bytes_per_request()))?),
        Resource::Memory => None,
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (count, sum) = values.fold((0u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    (count > 0).then(|| sum / f64::from(count))
}

/// Whether the application breaks its promise, k of the last n times (section 5.4, gray-box).
pub(super) fn breaks_promise(profile: &Profile, sla: &Sla, parameters: &SandpiperParameters) -> bool {
    let (counts, promised) = ((parameters.k, parameters.n), sla.response_time.as_secs_f64());
    exceeds(profile.newest_first().map(|m| m.response().unwrap_or(0.0)), counts, promised)
        || exceeds(profile.newest_first().map(|m| m.dropped().unwrap_or(0.0)), counts, sla.drop_share)
}

/// Whether the VM used more than `limit` of `resource` for a sustained time: k of the last n measurements, and the next
/// one by prediction (section 5.4).
pub(super) fn sustained(profile: &Profile, limit: f64, parameters: &SandpiperParameters, value: Value) -> bool {
    if !exceeds(profile.newest_first().filter_map(|m| value(&m)), (parameters.k, parameters.n), limit) {
        return false;
    }
    let series: Vec<f64> = profile.newest_first().filter_map(|m| value(&m)).collect();
    predicted(&series).is_some_and(|next| next > limit)
}

/// What of a measurement is looked at.
pub(super) type Value = fn(&Measurement<'_>) -> Option<f64>;

/// The use of `resource`, as a [`Value`].
pub(super) fn used(resource: Resource) -> Value {
    match resource {
        Resource::Bandwidth => |m| m.used(Resource::Bandwidth),
        Resource::Memory => |m| m.used(Resource::Memory),
        Resource::Cpu => |m| m.used(Resource::Cpu),
    }
}
