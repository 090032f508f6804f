"""What does one page tell of a sweep? Made of what run directories hold. Free of torch."""
