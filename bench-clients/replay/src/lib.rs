//! Open-loop and closed-loop replay of a trace over HTTP.
