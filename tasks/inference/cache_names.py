"""What a decoder's graph calls its KV cache: what goes in, and what comes out."""

PAST, PRESENT = "past_key_values", "present"
