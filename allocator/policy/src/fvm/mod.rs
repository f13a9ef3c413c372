//! Friendly virtual machines: each VM adapts its own demand, without coordination (Zhang, Bestavros, Guirguis, Matta and
//! West, "Friendly Virtual Machines", BUCS-TR-2004-030; its sections and equations are cited by number).

mod fluid;

pub use fluid::{Admission, Equilibrium, Fluid, Point, Pole, simplified_poles};
