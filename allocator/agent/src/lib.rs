//! Runs on each host: sensors and actuators.
