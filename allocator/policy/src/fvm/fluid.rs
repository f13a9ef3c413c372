//! The analytic model (section 3, equations 3 to 15): VMs as fluids of threads that share one resource.

/// The parameters of the model. Time is in steps of the paper, threads are real numbers.
///
/// ```
/// use vibra_policy::fvm::Fluid;
///
/// let n = Fluid::default().equilibrium(5).threads;
/// assert!((n.powi(3) + 2.0 * n.powi(2) - 320.0).abs() < 1e-9, "where the five VMs of Figure 3 meet: {n}");
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fluid {
    /// K₁ of equation 3: resource units that a thread uses. Default: 10.
    pub k1: f64,
    /// γ of equation 5: how fast the average price follows the price, in 1/step. Default: 0.1.
    pub gamma: f64,
    /// σ of equation 6: congestion signal for each unit of price. Default: 2.5 × 10⁻⁶.
    pub sigma: f64,
}

/// The parameters of the centralised admission controller that the paper compares with (equation 8).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Admission {
    /// K₂: how fast the admission ratio follows the error, in 1/(price × step). Default: 10⁻⁶.
    pub k2: f64,
    /// P_T: the price that is aimed at. Default: 100,000.
    pub target: f64,
}

/// Where the model stands at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// When, in steps.
    pub at: f64,
    /// n_v of each VM.
    pub threads: Vec<f64>,
    /// The price p of all of them together (equation 4).
    pub price: f64,
}

/// The state in which nothing changes (equations 9 and 10).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Equilibrium {
    /// n* of every VM.
    pub threads: f64,
    /// c*, the congestion signal.
    pub congestion: f64,
    /// p* = g*, the price.
    pub price: f64,
}

/// A root of a characteristic equation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pole {
    /// Its real part, in 1/step: below 0 what it describes dies out.
    pub real: f64,
    /// The amount of its imaginary part, in 1/step: above 0 it oscillates.
    pub imaginary: f64,
}

impl Default for Fluid {
    fn default() -> Self {
        Fluid { k1: 10.0, gamma: 0.1, sigma: 2.5e-6 }
    }
}

impl Default for Admission {
    fn default() -> Self {
        Admission { k2: 1e-6, target: 1e5 }
    }
}

/// Steps of the integration in a step of the paper: with more of them no digit that is shown changes.
const FINENESS: usize = 50;

impl Fluid {
    /// p = m², m = K₁ Σ n_v: the price of so many threads (equations 3 and 4).
    pub fn price(&self, threads: &[f64]) -> f64 {
        (self.k1 * threads.iter().sum::<f64>()).powi(2)
    }

    /// VMs that adapt by AIMD, from `start` threads and no congestion, at steps 0 to `steps` (equations 5 to 7).
    pub fn adapt(&self, start: &[f64], steps: usize) -> Vec<Point> {
        let change = |threads: &[f64], g: f64| {
            let c = self.sigma * g;
            let changes = threads.iter().map(|n| (1.0 - c) - n / 2.0 * c).collect();
            (changes, -self.gamma * (g - self.price(threads)))
        };
        self.integrate(start, 0.0, steps, change)
    }

    /// VMs that take what an admission controller lets in, from `start` threads and everything admitted, at steps 0 to
    /// `steps` (equation 8).
    ///
    /// The paper does not say how threads follow from the admission ratio a(t). Here each VM keeps asking for the
    /// threads it started with, threads end at a rate of one a step and one thread, and of the new ones the share a(t)
    /// is admitted: n'_v = a(t) n_v(0) − n_v(t), with a from 0 to 1.
    pub fn admit(&self, controller: &Admission, start: &[f64], steps: usize) -> Vec<Point> {
        let change = |threads: &[f64], a: f64| {
            let admitted = a.clamp(0.0, 1.0);
            let changes = threads.iter().zip(start).map(|(n, wanted)| admitted * wanted - n).collect();
            let error = controller.k2 * (controller.target - self.price(threads));
            let stuck = (a >= 1.0 && error > 0.0) || (a <= 0.0 && error < 0.0);
            (changes, if stuck { 0.0 } else { error })
        };
        self.integrate(start, 1.0, steps, change)
    }

    /// Follows `threads` and one more variable by the method of Runge and Kutta; no VM has less than no threads.
    fn integrate(
        &self,
        start: &[f64],
        signal: f64,
        steps: usize,
        change: impl Fn(&[f64], f64) -> (Vec<f64>, f64),
    ) -> Vec<Point> {
        let h = 1.0 / FINENESS as f64;
        let (mut threads, mut signal) = (start.to_vec(), signal);
        let mut points = Vec::with_capacity(steps + 1);
        for step in 0..=steps {
            points.push(Point { at: step as f64, price: self.price(&threads), threads: threads.clone() });
            for _ in 0..FINENESS {
                let ahead = |by: f64, (n, s): &(Vec<f64>, f64)| {
                    let moved: Vec<_> = threads.iter().zip(n).map(|(now, slope)| now + by * slope).collect();
                    change(&moved, signal + by * s)
                };
                let first = change(&threads, signal);
                let second = ahead(h / 2.0, &first);
                let third = ahead(h / 2.0, &second);
                let fourth = ahead(h, &third);
                let mean = |a: f64, b: f64, c: f64, d: f64| h / 6.0 * (a + 2.0 * b + 2.0 * c + d);
                signal += mean(first.1, second.1, third.1, fourth.1);
                for (v, n) in threads.iter_mut().enumerate() {
                    *n = (*n + mean(first.0[v], second.0[v], third.0[v], fourth.0[v])).max(0.0);
                }
            }
        }
        points
    }

    /// The state in which `vms` VMs stay. From equation 9, n* = 2/c* − 2 with c* = σ (K₁ V n*)²: the positive root of
    /// n³ + 2n² = 2 / (σ K₁² V²).
    pub fn equilibrium(&self, vms: usize) -> Equilibrium {
        let goal = 2.0 / (self.sigma * (self.k1 * vms as f64).powi(2));
        // The left side grows with n and is convex: from above, Newton's method comes down to the root.
        let mut threads = goal.cbrt();
        for _ in 0..100 {
            let excess = threads.powi(3) + 2.0 * threads.powi(2) - goal;
            let next = threads - excess / (3.0 * threads.powi(2) + 4.0 * threads);
            if next >= threads {
                break;
            }
            threads = next;
        }
        let price = (self.k1 * vms as f64 * threads).powi(2);
        Equilibrium { threads, congestion: self.sigma * price, price }
    }

    /// G = ³√(4σ(K₁V)²), the gain that equation 15 is written in.
    pub fn gain(&self, vms: usize) -> f64 {
        (4.0 * self.sigma * (self.k1 * vms as f64).powi(2)).cbrt()
    }

    /// The poles of the closed loop of equation 13, 1 + L(s) = 0, about the equilibrium:
    /// s² + (γ + β) s + γβ + α V K₁ 2m* γ σ = 0, with α = 1 + n*/2 and β = c*/2.
    ///
    /// All coefficients are positive, so that the loop is stable whatever the parameters. It oscillates in more cases
    /// than [`simplified_poles`] says; the trajectory of Figure 3(a), which overshoots, agrees with these ones.
    pub fn poles(&self, vms: usize) -> [Pole; 2] {
        let Equilibrium { threads, congestion, price } = self.equilibrium(vms);
        let (alpha, beta) = (1.0 + threads / 2.0, congestion / 2.0);
        let gain = alpha * vms as f64 * self.k1 * 2.0 * price.sqrt() * self.gamma * self.sigma;
        roots(self.gamma + beta, self.gamma * beta + gain)
    }
}

/// The roots r₁ and r₂ of equation 15 for a gain G: of s² + s/G + 0.5 = 0, which is how the paper simplifies the closed
/// loop (equation 14). Real up to G = √0.5, so that convergence is exponential; oscillating above, never unstable.
pub fn simplified_poles(gain: f64) -> [Pole; 2] {
    roots(1.0 / gain, 0.5)
}

/// Of s² + b s + c = 0.
fn roots(b: f64, c: f64) -> [Pole; 2] {
    let discriminant = b * b - 4.0 * c;
    let half = discriminant.abs().sqrt() / 2.0;
    let pole = |sign: f64| {
        if discriminant < 0.0 {
            Pole { real: -b / 2.0, imaginary: half }
        } else {
            Pole { real: -b / 2.0 + sign * half, imaginary: 0.0 }
        }
    };
    [pole(1.0), pole(-1.0)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The five VMs of Figure 3.
    const START: [f64; 5] = [4.0, 7.0, 10.0, 13.0, 16.0];

    fn spread(threads: &[f64]) -> f64 {
        threads.iter().copied().fold(0.0, f64::max) - threads.iter().copied().fold(f64::INFINITY, f64::min)
    }

    #[test]
    fn the_five_vms_of_figure_3_meet_where_the_model_says() {
        let path = Fluid::default().adapt(&START, 100);
        let meet = Fluid::default().equilibrium(5).threads;
        assert!((meet - 6.234).abs() < 1e-3, "n³ + 2n² = 320: {meet}");
        let end = &path[100].threads;
        assert!(end.iter().all(|n| (n - meet).abs() < 0.01), "{end:?} instead of {meet}");
        // "During the first 5 steps, each VM increases its demand since g(t) is still lagging behind p(t)": the largest
        // turns first.
        assert!((0..5).all(|v| path[1].threads[v] > START[v]), "{:?}", path[1]);
        assert!(path.windows(2).all(|pair| spread(&pair[1].threads) < spread(&pair[0].threads)));
    }

    #[test]
    fn admission_control_comes_to_rest_without_fairness() {
        let path = Fluid::default().admit(&Admission::default(), &START, 100);
        let Point { threads, price, .. } = &path[100];
        assert!((price - 1e5).abs() < 1.0, "p reaches P_T: {price}");
        for (n, start) in threads.iter().zip(START) {
            assert!((n / threads[0] - start / START[0]).abs() < 1e-6, "each has what it began with, in proportion");
        }
    }

    #[test]
    fn the_linear_model_foretells_how_the_fluid_swings() {
        let model = Fluid::default();
        let [pole, _] = model.poles(5);
        assert!(pole.imaginary > 0.0);
        // About the equilibrium the sum of threads passes the middle twice a period.
        let meet = model.equilibrium(5).threads;
        let path = model.adapt(&[meet * 1.02; 5], 400);
        let above: Vec<_> = path.iter().map(|point| point.threads[0] > meet).collect();
        let crossings: Vec<_> = (1..400).filter(|&step| above[step] != above[step - 1]).collect();
        let half = std::f64::consts::PI / pole.imaginary;
        let measured = (crossings[2] - crossings[1]) as f64;
        assert!((measured - half).abs() < 2.0, "{measured} steps instead of {half}");
    }

    #[test]
    fn equation_15_turns_to_oscillation_at_the_root_of_one_half() {
        assert!((Fluid::default().gain(5) - 0.025f64.cbrt()).abs() < 1e-12);
        assert!(simplified_poles(0.7).iter().all(|pole| pole.imaginary == 0.0));
        assert!(simplified_poles(0.72).iter().all(|pole| pole.imaginary > 0.0));
    }

    proptest! {
        #[test]
        fn no_parameters_make_it_unstable(
            k1 in 0.1..100.0, gamma in 0.001..1.0, exponent in -9.0..-2.0, vms in 1usize..50, gain in 0.01..100.0,
        ) {
            let model = Fluid { k1, gamma, sigma: 10f64.powf(exponent) };
            for pole in model.poles(vms).into_iter().chain(simplified_poles(gain)) {
                prop_assert!(pole.real < 0.0, "{pole:?}");
            }
        }

        #[test]
        fn the_equilibrium_solves_equation_9(k1 in 0.1..100.0, exponent in -9.0..-2.0, vms in 1usize..50) {
            let model = Fluid { k1, gamma: 0.1, sigma: 10f64.powf(exponent) };
            let Equilibrium { threads, congestion, .. } = model.equilibrium(vms);
            prop_assert!((threads - (2.0 / congestion - 2.0)).abs() < 1e-6 * threads.max(1.0));
        }
    }
}
