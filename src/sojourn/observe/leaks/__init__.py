"""What is alive past its declared end, each by name: tasks, leases, descriptors, connections. See README.md."""
