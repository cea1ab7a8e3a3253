"""From tables to figures, in one look, sized for the full width of a two-column paper."""
