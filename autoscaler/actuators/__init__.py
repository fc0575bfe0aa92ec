"""Where plans become processes. Every actuator passes the suite in `autoscaler.actuators.contract`."""
