"""The protocol of asynchronous data-parallel training, written once, without clock, I/O, processes or simulator."""
