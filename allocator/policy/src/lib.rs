//! How resources move between the VMs of a customer.
