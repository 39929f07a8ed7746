"""From a configuration and data to a job that trains: first state, devices, what is recorded."""
