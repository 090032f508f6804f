"""Which life of the run is this, and how did it start and end? Free of torch."""
