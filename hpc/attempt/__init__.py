"""One life of a run: what is it called, where is it, when did it start, and how did it end? Free of torch."""
