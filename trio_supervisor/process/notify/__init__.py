"""sd_notify(3), heartbeats, and messages from children to the controller."""
