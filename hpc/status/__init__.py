"""What has become of the points of a sweep? Told by their run directories and, once, by squeue. Free of torch."""
