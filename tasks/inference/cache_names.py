"""Prefixes of the KV-cache inputs and outputs in a decoder's ONNX graph."""

PAST, PRESENT = "past_key_values", "present"
