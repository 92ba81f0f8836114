"""Language modelling: a transformer, a text, and the prediction of every next byte."""
