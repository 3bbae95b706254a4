"""From a model and rows to label probabilities, by one prefill a row."""
