//! Pod-level cgroups by direct cgroupfs I/O.
