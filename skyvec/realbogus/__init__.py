"""Real or bogus: stamps -> calibrated probabilities, errors of labels, honest operating points."""
