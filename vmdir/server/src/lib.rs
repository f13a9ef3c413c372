//! The directory service: HTTP/JSON API, watch, heartbeats, telemetry in memory.
