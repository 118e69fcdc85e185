"""Parts that several problem types share."""
