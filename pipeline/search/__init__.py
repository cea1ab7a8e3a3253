"""The search for the worst case: what is tried, who proposes it, what it costs the defence."""
