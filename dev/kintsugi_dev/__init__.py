"""What runs on a developer's machine only: clusters, servers, faults and the demo. Never part of the distribution."""
