"""Which source files a process has loaded, and whether they have changed since."""
