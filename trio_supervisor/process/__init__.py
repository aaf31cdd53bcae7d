"""Start, watch and stop one OS process and its process group."""
