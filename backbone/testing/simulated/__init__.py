"""What a simulation is made of: virtual time, a log and rows that can be hurt, and ports that can fail at any call."""
