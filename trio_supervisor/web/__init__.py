"""HTTP: health for probes of a cluster. Loaded only where it is asked for."""
