//! From ticks to the congestion signal (section 2.1).

use std::{collections::VecDeque, time::Duration};

/// Measures how much slower a VM's ticks have become.
///
/// - The average follows each tick: VCT̄(t) = (1 − γ)·VCT̄(t − 1) + γ·VCT(t) (equation 1), beginning with the first one.
/// - At the end of a period its value is held against the least of the w periods before (equation 2), which gives the
///   slowdown R = VCT̄ / VCT_min. Of a period before counts the mean of its ticks, where the paper has VCT̄ at its end: that is
///   about its last few ticks alone, and the least of a dozen such values is a moment in which other VMs happened to leave
///   the host alone. A VM that is compared with such a moment takes the usual state for congestion, and never recovers.
/// - A period without a tick says nothing, and is not counted.
///
/// What it compares with is at most w periods old: who is slow for longer takes that for the usual state, and begins to
/// probe again.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    gamma: f64,
    window: usize,
    /// VCT̄, in seconds.
    average: Option<f64>,
    /// The ticks of this period: their sum in seconds, and how many there were.
    ticks: (f64, u32),
    /// The mean ticks of the last periods, in seconds, oldest first.
    past: VecDeque<f64>,
}

/// What a period has shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slowdown {
    /// R, without unit; 1 for the first period.
    pub ratio: f64,
    /// VCT̄ at the period's end.
    pub average: Duration,
}

impl Monitor {
    /// With weight `gamma` of a new tick, above 0 and at most 1, and a window of `periods`, 1 or more.
    pub fn new(gamma: f64, periods: usize) -> Monitor {
        Monitor { gamma, window: periods, average: None, ticks: (0.0, 0), past: VecDeque::with_capacity(periods) }
    }

    /// Takes note of a tick that took so long.
    pub fn tick(&mut self, took: Duration) {
        let took = took.as_secs_f64();
        self.average = Some(self.average.map_or(took, |average| (1.0 - self.gamma) * average + self.gamma * took));
        self.ticks = (self.ticks.0 + took, self.ticks.1.saturating_add(1));
    }

    /// Ends a period. `None` if there was no tick in it.
    pub fn close(&mut self) -> Option<Slowdown> {
        let (sum, count) = std::mem::take(&mut self.ticks);
        let average = self.average.filter(|_| count > 0)?;
        let least =
            self.past.iter().copied().fold(average, |least, past| if past > 0.0 { least.min(past) } else { least });
        if self.past.len() == self.window {
            self.past.pop_front();
        }
        self.past.push_back(sum / f64::from(count));
        // The least is the present one where none before was less: then nothing has slowed down.
        let ratio = if least > 0.0 { average / least } else { 1.0 };
        Some(Slowdown { ratio, average: Duration::from_secs_f64(average) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn period(monitor: &mut Monitor, milliseconds: &[u64]) -> Option<f64> {
        for &took in milliseconds {
            monitor.tick(Duration::from_millis(took));
        }
        monitor.close().map(|slowdown| slowdown.ratio)
    }

    #[test]
    fn the_average_follows_equation_1() {
        let mut monitor = Monitor::new(0.3, 12);
        for took in [10, 20] {
            monitor.tick(Duration::from_millis(took));
        }
        assert_eq!(monitor.close().unwrap().average, Duration::from_millis(13));
    }

    #[test]
    fn the_slowdown_is_against_the_least_of_the_window() {
        let mut monitor = Monitor::new(1.0, 2);
        assert_eq!(period(&mut monitor, &[10]), Some(1.0), "there is nothing to compare with");
        assert_eq!(period(&mut monitor, &[30]), Some(3.0));
        assert_eq!(period(&mut monitor, &[20]), Some(2.0));
        assert_eq!(period(&mut monitor, &[60]), Some(3.0), "the first period has left the window");
        assert_eq!(period(&mut monitor, &[5]), Some(1.0), "faster than ever");
    }

    #[test]
    fn a_quick_moment_is_no_usual_state() {
        let mut monitor = Monitor::new(0.3, 12);
        assert_eq!(period(&mut monitor, &[60, 60, 60, 60, 60, 60, 60, 10, 10, 10]), Some(1.0));
        let usual = period(&mut monitor, &[60; 10]).unwrap();
        assert!(
            (1.2..1.4).contains(&usual),
            "{usual}: held against 45 ms, not against what the last ticks had been, 27"
        );
    }

    #[test]
    fn a_period_without_ticks_says_nothing_and_leaves_the_window_as_it_is() {
        let mut monitor = Monitor::new(1.0, 1);
        assert_eq!(period(&mut monitor, &[]), None);
        period(&mut monitor, &[10]);
        assert_eq!(period(&mut monitor, &[]), None);
        assert_eq!(period(&mut monitor, &[40]), Some(4.0));
    }

    #[test]
    fn ticks_of_no_length_are_no_measure_to_compare_with() {
        let mut monitor = Monitor::new(1.0, 3);
        assert_eq!(period(&mut monitor, &[0]), Some(1.0));
        assert_eq!(period(&mut monitor, &[10]), Some(1.0));
        assert_eq!(period(&mut monitor, &[20]), Some(2.0));
    }
}
