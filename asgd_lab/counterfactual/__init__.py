"""Counterfactual replay: a recorded run executed again in its order, with one cause removed."""
